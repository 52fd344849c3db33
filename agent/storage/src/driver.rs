//! How layers become a container's root: one trait, one file per way.
//!
//! A driver keeps a layer's directory (`layers/<chain>/fs`) in a form of its own, makes a writable
//! layer over a stack of them (`snapshots/<id>`), and mounts it. Names, records, reference counts and
//! removal are not its business.

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::archive::whiteout::Marks;
use crate::error::{Error, Result};
use crate::root::Root;
use crate::trash::Trash;

mod overlay;
mod vfs;

/// What lies below a writable layer.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    /// Directories of the image's layers, topmost first; ends at a layer that hides all below it.
    pub(crate) layers: Vec<PathBuf>,
    /// The init layer, which lies over them.
    pub(crate) init: PathBuf,
}

/// How a snapshot is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountOptions {
    /// Write nothing back: for containers that are thrown away (`--rm`) and build steps. After a crash
    /// of the host the snapshot is refused. Drivers that cannot do it ignore it.
    pub volatile: bool,
}

/// One way of stacking layers.
pub(crate) trait Driver: Debug + Send + Sync {
    /// The word in configuration and `info`.
    fn name(&self) -> &'static str;

    /// What `info` shows beside the name.
    fn status(&self) -> Vec<(String, String)>;

    /// How unpacking marks deletions for this driver.
    fn marks(&self) -> Marks;

    /// How the directory of a finished layer marks them.
    fn layer_marks(&self) -> Marks;

    /// Turns a layer's just unpacked difference (`fs`) into the form that is kept. `parent` is the
    /// directory of the layer below, already in that form.
    fn commit_layer(&self, fs: &Path, parent: Option<&Path>) -> Result<()>;

    /// Makes a writable layer in the empty directory `dir`, durably.
    fn prepare(&self, dir: &Path, stack: &Stack) -> Result<()>;

    /// The root of the snapshot in `dir`, as a detached mount.
    fn mount(&self, dir: &Path, stack: &Stack, id: &str, options: &MountOptions)
    -> Result<OwnedFd>;

    /// Bytes that the writable layer holds beyond the stack.
    fn size(&self, dir: &Path, stack: &Stack) -> Result<u64>;

    /// Lets go of a layer's or snapshot's directory; `false` when it was gone already.
    fn discard(&self, dir: &Path, trash: &Trash) -> Result<bool> {
        trash.take(dir)
    }
}

/// Opens the driver of that name; overlay without one.
pub(crate) fn open(name: Option<&str>, root: &Root, trash: &Trash) -> Result<Box<dyn Driver>> {
    match name {
        None | Some("overlay" | "overlay2") => Ok(Box::new(overlay::Overlay::open(root, trash)?)),
        Some("vfs") => Ok(Box::new(vfs::Vfs)),
        Some(other) => Err(Error::unsupported(
            format!("storage driver {other:?}"),
            "overlay and vfs are known",
        )),
    }
}
