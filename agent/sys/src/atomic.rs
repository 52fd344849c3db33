//! Files that are there whole or not at all.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode};

use crate::path::{OFlags, open_beneath};

/// Writes `bytes` to a temporary name beside `path` and renames it over `path`.
///
/// With `durable` the contents are synced before the rename and the directory after it, so that
/// the file survives a crash of the host once this has come back.
pub fn write_atomic(
    path: impl AsRef<Path>,
    bytes: &[u8],
    mode: u32,
    durable: bool,
) -> io::Result<()> {
    let path = path.as_ref();
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EISDIR))?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let dir = crate::path::open_host(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
    write_atomic_at(&dir, name, bytes, mode, durable)
}

/// As [`write_atomic`], for the file `name` directly in an open directory.
pub fn write_atomic_at(
    dir: impl AsFd,
    name: impl AsRef<Path>,
    bytes: &[u8],
    mode: u32,
    durable: bool,
) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = format!(".tmp-{}-{unique}", std::process::id());
    // An earlier process with this number may have died in between and left it.
    let _ = rustix::fs::unlinkat(&dir, &temporary, AtFlags::empty());
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    let fd = open_beneath(&dir, &temporary, flags, mode)?;
    let result = fill(fd, bytes, mode, durable)
        .and_then(|()| Ok(rustix::fs::renameat(&dir, &temporary, &dir, name.as_ref())?));
    if result.is_err() {
        let _ = rustix::fs::unlinkat(&dir, &temporary, AtFlags::empty());
        return result;
    }
    if durable { fsync(dir) } else { Ok(()) }
}

fn fill(fd: OwnedFd, bytes: &[u8], mode: u32, durable: bool) -> io::Result<()> {
    let mut file = std::fs::File::from(fd);
    // The umask took its share when the file was made.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
    file.write_all(bytes)?;
    if durable { fsync(&file) } else { Ok(()) }
}

/// Syncs a directory: names made, renamed or removed in it survive a crash of the host.
pub fn fsync_dir(path: impl AsRef<Path>) -> io::Result<()> {
    fsync(crate::path::open_host(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY,
    )?)
}

/// Syncs an open file or directory.
pub fn fsync(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| rustix::fs::fsync(&fd))?)
}

/// Syncs the whole file system that an open file lies on.
pub fn syncfs(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::syncfs(fd)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_new_content_replaces_the_old_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomic(&path, b"one", 0o600, false).unwrap();
        write_atomic(&path, b"two", 0o646, true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o646
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        fsync_dir(dir.path()).unwrap();
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(write_atomic(dir.path().join("taken"), b"x", 0o600, false).is_err());
        assert!(write_atomic(dir.path().join("missing/file"), b"x", 0o600, false).is_err());
        assert!(write_atomic("/", b"x", 0o600, false).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
