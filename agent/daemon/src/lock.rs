//! Two agents on one root would ruin it: each root has a lock, held while its agent lives.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const NAME: &str = "berthd.lock";

/// Why a root was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("another agent ({owner}) uses {root}")]
    Taken { owner: String, root: String },
    #[error("cannot use {root}: {source}")]
    Io { root: String, source: io::Error },
}

/// A taken root; the kernel lets go of it with the descriptor.
#[derive(Debug)]
pub(crate) struct RootLock {
    _file: File,
}

/// Makes `root` where it is missing, with `mode`, and takes it.
pub(crate) fn take(root: &Path, mode: u32) -> Result<RootLock, LockError> {
    let failed = |source| LockError::Io {
        root: root.display().to_string(),
        source,
    };
    make(root, mode).map_err(failed)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(root.join(NAME))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // The number is for the reader alone; what holds is the lock.
            let _ = file.take(16).read_to_string(&mut owner);
            let owner = match owner.trim() {
                "" => "of unknown process id".to_owned(),
                pid => format!("process {pid}"),
            };
            return Err(LockError::Taken {
                owner,
                root: root.display().to_string(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(RootLock { _file: file })
}

/// Makes the directory, or takes away what an existing one grants beyond `mode`: setuid files of images
/// below the data root must be out of reach of other users.
fn make(root: &Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = root.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(mode).create(root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let had = fs::metadata(root)?.permissions().mode() & 0o7777;
    if had & !mode != 0 {
        fs::set_permissions(root, Permissions::from_mode(had & mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_one_agent_at_a_time() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().join("a/b");
        let held = take(&root, 0o710).expect("free");
        let refused = take(&root, 0o710).expect_err("taken").to_string();
        assert!(
            refused.contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        assert!(refused.contains("a/b"), "{refused}");
        drop(held);
        fs::set_permissions(&root, Permissions::from_mode(0o755)).expect("chmod");
        take(&root, 0o710).expect("free again");
        assert_eq!(
            fs::metadata(&root).expect("stat").permissions().mode() & 0o7777,
            0o710
        );
    }
}
