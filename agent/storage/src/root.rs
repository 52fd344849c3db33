//! The data root: which directories the store owns, with which modes, and who holds it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use berth_sys::at;
use berth_sys::path::{self, OFlags};

use crate::error::{Context, Error, Result};

/// The file whose lock says that an agent works here.
const LOCK: &str = "storage.lock";

/// The store's directories. All are 0700: setuid files of images must be out of reach for local users.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    /// Blobs under their digests.
    pub(crate) content: PathBuf,
    /// Unpacked layers under their chain ids.
    pub(crate) layers: PathBuf,
    /// Writable layers under their containers' ids.
    pub(crate) snapshots: PathBuf,
    /// What is being made. Emptied at start; nothing in it is ever named by anything.
    pub(crate) ingest: PathBuf,
    /// What is being removed.
    pub(crate) trash: PathBuf,
    unique: AtomicU64,
    /// Held for as long as the store is open.
    _lock: OwnedFd,
}

impl Root {
    /// Makes what is missing and takes the lock.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        make_dir(path, 0o710)?;
        let lock = lock(path)?;
        let root = Root {
            path: path.to_owned(),
            content: path.join("content"),
            layers: path.join("layers"),
            snapshots: path.join("snapshots"),
            ingest: path.join("ingest"),
            trash: path.join("discarded"),
            unique: AtomicU64::new(0),
            _lock: lock,
        };
        for dir in [
            &root.content,
            &root.layers,
            &root.snapshots,
            &root.ingest,
            &root.trash,
        ] {
            make_dir(dir, 0o700)?;
        }
        Ok(root)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A new directory (0700) for something that is being made.
    pub(crate) fn new_ingest(&self) -> Result<PathBuf> {
        let dir = self
            .ingest
            .join(format!("{}", self.unique.fetch_add(1, Ordering::Relaxed)));
        make_dir(&dir, 0o700)?;
        Ok(dir)
    }
}

fn lock(root: &Path) -> Result<OwnedFd> {
    let doing = || format!("lock {}", root.join(LOCK).display());
    let dir = open_dir(root)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
    let lock = path::open_beneath(&dir, LOCK, flags, 0o600).doing(doing)?;
    if at::try_lock(&lock).doing(doing)? {
        Ok(lock)
    } else {
        Err(Error::InUse(root.display().to_string()))
    }
}

/// Makes a directory of ours with exactly this mode; one that exists is brought to it.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let doing = || format!("make directory {}", path.display());
    match std::fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path).doing(doing)?
        }
        Err(source) => {
            return Err(Error::Io {
                what: doing(),
                source,
            });
        }
    }
    at::chmod(open_dir(path)?, mode).doing(doing)
}

/// Opens a directory of ours for reading.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd> {
    path::open_host(path, OFlags::RDONLY | OFlags::DIRECTORY)
        .doing(|| format!("open {}", path.display()))
}
