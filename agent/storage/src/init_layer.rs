//! The init layer: what the agent itself needs to find in a container's root, in one layer that lies
//! over every image and below every container's writable layer, shared by all.
//!
//! It exists because an image may have a link, a fifo or nothing where a mount point must be. The
//! layer replaces whatever the image has by real directories and files. It is made empty-handed,
//! never through a merged view, so no image can lead its making astray.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_sys::at::{self, FileTime, Kind};

use crate::error::{Context, Result};
use crate::root::{Root, open_dir};
use crate::tree::remove;

/// Name of the layer's directory; a new version gets a new name.
const NAME: &str = "init-1";

/// Directories, parents before children.
const DIRS: [&str; 6] = ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"];
/// Empty files to mount over, and Docker's mark.
const FILES: [&str; 5] = [
    ".dockerenv",
    "dev/console",
    "etc/hostname",
    "etc/hosts",
    "etc/resolv.conf",
];
const MTAB: (&str, &str) = ("etc/mtab", "/proc/mounts");

/// Fixed, so that a container's directories do not tell when the agent was installed.
const TIME: FileTime = FileTime { secs: 0, nanos: 0 };

/// Makes the layer if it is missing; gives its directory.
pub(crate) fn ensure(root: &Root) -> Result<PathBuf> {
    let layer = root.layers.join(NAME);
    if std::fs::symlink_metadata(&layer).is_ok() {
        return Ok(layer);
    }
    let doing = || "make the init layer".to_owned();
    let making = root.new_ingest()?;
    let dir = open_dir(&making)?;
    at::chmod(&dir, 0o755).doing(doing)?;
    apply(&dir)?;
    berth_sys::atomic::syncfs(&dir).doing(doing)?;
    std::fs::rename(&making, &layer).doing(doing)?;
    berth_sys::atomic::fsync_dir(&root.layers).doing(doing)?;
    Ok(layer)
}

/// Whether a name in the store's layers directory is this layer's.
pub(crate) fn is_init(name: &Path) -> bool {
    name.as_os_str().to_string_lossy().starts_with("init-")
}

/// Puts the layer's contents into a whole tree (for drivers that do not stack), replacing what is of
/// another kind, exactly as stacking would show it.
pub(crate) fn apply(tree: &OwnedFd) -> Result<()> {
    let doing = || "set up the init layer".to_owned();
    for path in DIRS {
        let (dir, name) = place(tree, path)?;
        if at::find_at(&dir, name)
            .doing(doing)?
            .is_none_or(|meta| meta.kind != Kind::Dir)
        {
            remove::remove(&dir, name.as_bytes()).doing(doing)?;
            at::mkdir_at(&dir, name, 0o755).doing(doing)?;
        }
        let made = at::open_dir_at(&dir, name).doing(doing)?;
        at::chown(&made, 0, 0).doing(doing)?;
        at::chmod(&made, 0o755).doing(doing)?;
    }
    for path in FILES {
        let (dir, name) = place(tree, path)?;
        remove::remove(&dir, name.as_bytes()).doing(doing)?;
        let file = at::create_at(&dir, name, 0o644).doing(doing)?;
        at::chown(&file, 0, 0).doing(doing)?;
        at::chmod(
            &file,
            if path == ".dockerenv" || path == "dev/console" {
                0o755
            } else {
                0o644
            },
        )
        .doing(doing)?;
        at::set_mtime(&file, TIME).doing(doing)?;
    }
    let (dir, name) = place(tree, MTAB.0)?;
    remove::remove(&dir, name.as_bytes()).doing(doing)?;
    at::symlink_at(MTAB.1.as_bytes(), &dir, name).doing(doing)?;
    at::set_mtime_at(&dir, name, TIME).doing(doing)?;
    for path in DIRS.iter().rev() {
        let (dir, name) = place(tree, path)?;
        at::set_mtime(at::open_dir_at(&dir, name).doing(doing)?, TIME).doing(doing)?;
    }
    Ok(())
}

/// The directory that a path of the layer is in, and its last part. Directories of the layer are real
/// ones by the time they are asked for.
fn place<'a>(tree: &OwnedFd, path: &'a str) -> Result<(OwnedFd, &'a str)> {
    let doing = || "set up the init layer".to_owned();
    match path.rsplit_once('/') {
        Some((dir, name)) => Ok((at::open_dir_at(tree, dir).doing(doing)?, name)),
        None => Ok((at::open_again(tree).doing(doing)?, path)),
    }
}
