//! Directory trees whose contents come from others: copied, merged, measured and removed by
//! descriptor, one directory open at a time, so that neither depth nor names can do harm.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use berth_sys::at::{self, Kind, Meta};
use berth_sys::xattr;

pub(crate) mod copy;
pub(crate) mod merge;
pub(crate) mod remove;
pub(crate) mod size;

/// Bytes as the name they are.
pub(crate) fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// A place in a tree: goes down by name and up by `..`, and checks that up is where it came from.
#[derive(Debug)]
pub(crate) struct Cursor {
    dir: OwnedFd,
    /// Device and inode of the directories above, outermost first.
    above: Vec<(u64, u64)>,
    /// The names that led down.
    names: Vec<Vec<u8>>,
}

impl Cursor {
    /// Starts at `dir`, which must be open for reading.
    pub(crate) fn new(dir: OwnedFd) -> Self {
        Cursor {
            dir,
            above: Vec::new(),
            names: Vec::new(),
        }
    }

    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    pub(crate) fn depth(&self) -> usize {
        self.above.len()
    }

    /// The way from the start to `name` in the present directory.
    pub(crate) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.names.join(&b'/');
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    pub(crate) fn down(&mut self, name: &[u8]) -> io::Result<()> {
        let here = at::stat(&self.dir)?;
        let dir = at::open_dir_at(&self.dir, os(name))?;
        self.above.push((here.dev, here.ino));
        self.names.push(name.to_vec());
        self.dir = dir;
        Ok(())
    }

    /// Up to the directory that [`Self::down`] was called in; an error when the tree was moved
    /// meanwhile and `..` is another.
    pub(crate) fn up(&mut self) -> io::Result<()> {
        let expected = self
            .above
            .pop()
            .ok_or_else(|| io::Error::other("already at the top"))?;
        let dir = at::open_parent(&self.dir)?;
        let meta = at::stat(&dir)?;
        if (meta.dev, meta.ino) != expected {
            return Err(io::Error::other("the directory was moved meanwhile"));
        }
        self.names.pop();
        self.dir = dir;
        Ok(())
    }
}

/// Attributes that belong to the file system's own bookkeeping and never to an image's tree.
pub(crate) fn is_private_xattr(name: &[u8]) -> bool {
    [
        &b"trusted."[..],
        b"user.overlay.",
        b"security.selinux",
        b"security.ima",
        b"security.evm",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

/// Gives `to` the owner, attributes, mode and times of `from`, in the order in which the kernel
/// does not take any of them back.
pub(crate) fn copy_metadata(from: impl AsFd, meta: &Meta, to: impl AsFd) -> io::Result<()> {
    at::chown(&to, meta.uid, meta.gid)?;
    if matches!(meta.kind, Kind::File | Kind::Dir) {
        for name in xattr::list(&from)? {
            if is_private_xattr(name.as_bytes()) {
                continue;
            }
            if let Some(value) = xattr::get(&from, &name)? {
                xattr::set(&to, &name, &value)?;
            }
        }
    }
    at::chmod(&to, meta.mode)?;
    at::set_mtime(&to, meta.mtime)
}
