//! Layers stacked by overlayfs: each is unpacked once and shared by all that build on it.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::mount::{self, OverlayOptions};
use berth_sys::{at, atomic, proc};

use super::{Driver, MountOptions, Stack};
use crate::archive::whiteout::Marks;
use crate::error::{Context, Error, Result};
use crate::root::{Root, make_dir, open_dir};
use crate::trash::Trash;
use crate::tree;

/// Where overlayfs notes that an upper directory was mounted without writeback, below the work
/// directory, and which it then refuses until that is removed.
const INCOMPAT: &str = "work/incompat";
/// In the snapshot's directory: the boot during which it was mounted without writeback.
const VOLATILE: &str = "volatile";

/// The overlay driver.
#[derive(Debug)]
pub(crate) struct Overlay {
    file_system: &'static str,
}

impl Overlay {
    /// Tries an overlay in the data root: a file system that cannot bear one is told at start, not by
    /// the first container.
    pub(crate) fn open(root: &Root, trash: &Trash) -> Result<Self> {
        let dir = root.new_ingest()?;
        let tried = probe(&dir);
        trash.take(&dir)?;
        tried.map_err(|why| {
            Error::unsupported(
                format!("storage driver overlay on {}", root.path().display()),
                format!("{why}; put the data root on ext4, xfs or btrfs, or choose the driver vfs"),
            )
        })?;
        Ok(Overlay {
            file_system: file_system(root.path())?,
        })
    }
}

fn probe(dir: &Path) -> Result<(), String> {
    for name in ["lower", "upper", "work"] {
        make_dir(&dir.join(name), 0o700).map_err(|error| error.to_string())?;
    }
    let listed = open_dir(dir).map_err(|error| error.to_string())?;
    if !at::entries_tell_kind(&listed).map_err(|error| error.to_string())? {
        return Err("its directory entries do not tell kinds (xfs needs ftype=1)".to_owned());
    }
    // Volatile, for otherwise its end would write back everybody's data; kernels before 5.10 lack it.
    let upper_work = (dir.join("upper"), dir.join("work"));
    let upper_work = Some((&*upper_work.0, &*upper_work.1));
    let lowers = [dir.join("lower")];
    let volatile = OverlayOptions {
        volatile: true,
        ..OverlayOptions::default()
    };
    mount::overlay(&lowers, upper_work, &volatile)
        .or_else(|_| mount::overlay(&lowers, upper_work, &OverlayOptions::default()))
        .map(drop)
        .map_err(|error| format!("the kernel refuses it: {error}"))
}

/// The name that Docker has for a file system.
fn file_system(path: &Path) -> Result<&'static str> {
    let magic =
        berth_sys::path::fs_magic(open_dir(path)?).doing(|| format!("stat {}", path.display()))?;
    Ok(match magic {
        0xef53 => "extfs",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        0x794c_7630 => "overlayfs",
        _ => "<unknown>",
    })
}

impl Driver for Overlay {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn status(&self) -> Vec<(String, String)> {
        let by_one = if mount::knows_lowerdir_add() {
            "true"
        } else {
            "false"
        };
        [
            ("Backing Filesystem", self.file_system),
            ("Supports d_type", "true"),
            ("Using metacopy", "false"),
            ("Native Overlay Diff", "true"),
            ("userxattr", "false"),
            ("Layers one by one", by_one),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
    }

    fn marks(&self) -> Marks {
        Marks::Overlay
    }

    fn layer_marks(&self) -> Marks {
        Marks::Overlay
    }

    fn commit_layer(&self, _: &Path, _: Option<&Path>) -> Result<()> {
        Ok(())
    }

    fn prepare(&self, dir: &Path, stack: &Stack) -> Result<()> {
        let doing = || format!("make {}", dir.display());
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        make_dir(&upper, 0o755)?;
        make_dir(&work, 0o700)?;
        // The root's own owner and mode are those of the topmost directory.
        let top = open_dir(stack.layers.first().unwrap_or(&stack.init))?;
        let meta = at::stat(&top).doing(doing)?;
        // Not synced here: the sync of the directory that it is renamed into carries what was made before.
        tree::copy_metadata(&top, &meta, open_dir(&upper)?).doing(doing)
    }

    fn mount(
        &self,
        dir: &Path,
        stack: &Stack,
        id: &str,
        options: &MountOptions,
    ) -> Result<OwnedFd> {
        let doing = || format!("mount the root of {id}");
        let work = dir.join("work");
        forgive_volatile(dir, &work, id, options)?;
        if options.volatile {
            let boot = proc::boot_id().doing(doing)?;
            // Not durable: after a crash its absence says the same as another boot's name.
            atomic::write_atomic(dir.join(VOLATILE), boot.as_bytes(), 0o600, false).doing(doing)?;
        }
        let mut lowers = Vec::with_capacity(stack.layers.len() + 1);
        lowers.push(stack.init.clone());
        lowers.extend_from_slice(&stack.layers);
        let upper = dir.join("upper");
        let overlay = OverlayOptions {
            volatile: options.volatile,
            ..OverlayOptions::default()
        };
        mount::overlay(&lowers, Some((&upper, &work)), &overlay).doing(doing)
    }

    fn size(&self, dir: &Path, _: &Stack) -> Result<u64> {
        let upper = open_dir(&dir.join("upper"))?;
        tree::size::size(upper).doing(|| format!("measure {}", dir.display()))
    }
}

/// Overlayfs refuses an upper directory that was mounted without writeback, even after an orderly
/// unmount, because it cannot know what the disk has. We do know when the host has not gone down
/// since: then the page cache has everything, and the note may be removed.
fn forgive_volatile(dir: &Path, work: &Path, id: &str, options: &MountOptions) -> Result<()> {
    let doing = || format!("check the last mount of {id}");
    let note = work.join(INCOMPAT).join("volatile");
    match std::fs::symlink_metadata(&note) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(Error::Io {
                what: doing(),
                source,
            });
        }
    }
    let then = match std::fs::read_to_string(dir.join(VOLATILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        other => other.doing(doing)?,
    };
    if then.trim() != proc::boot_id().doing(doing)? {
        return Err(Error::Volatile(id.to_owned()));
    }
    if !options.volatile {
        // From now on the disk is promised to have it.
        atomic::syncfs(open_dir(dir)?).doing(doing)?;
    }
    tree::remove::remove(&open_dir(&work.join(INCOMPAT))?, b"volatile").doing(doing)
}
