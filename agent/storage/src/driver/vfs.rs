//! Whole copies: every layer is a full tree, every container a copy of one. Slow and large, and works
//! on any file system; it is also what the overlay driver is compared with in tests.

use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::at::{self, Kind};
use berth_sys::mount::{self, MountAttr, Propagation};
use berth_sys::path::{self, OFlags};

use super::{Driver, MountOptions, Stack};
use crate::archive::whiteout::Marks;
use crate::error::{Context, Result};
use crate::init_layer;
use crate::root::{make_dir, open_dir};
use crate::tree::{self, os};

/// The vfs driver.
#[derive(Debug)]
pub(crate) struct Vfs;

impl Driver for Vfs {
    fn name(&self) -> &'static str {
        "vfs"
    }

    fn status(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn marks(&self) -> Marks {
        Marks::Files
    }

    fn layer_marks(&self) -> Marks {
        Marks::None
    }

    fn commit_layer(&self, fs: &Path, parent: Option<&Path>) -> Result<()> {
        let doing = || format!("make the whole tree of {}", fs.display());
        let diff = fs.with_file_name("diff");
        std::fs::rename(fs, &diff).doing(doing)?;
        make_dir(fs, 0o700)?;
        if let Some(parent) = parent {
            tree::copy::copy(open_dir(parent)?, open_dir(fs)?).doing(doing)?;
        }
        tree::merge::merge(open_dir(&diff)?, open_dir(fs)?).doing(doing)?;
        let above = fs.parent().unwrap_or(fs);
        tree::remove::remove(&open_dir(above)?, b"diff").doing(doing)
    }

    fn prepare(&self, dir: &Path, stack: &Stack) -> Result<()> {
        let doing = || format!("copy the image to {}", dir.display());
        let fs = dir.join("fs");
        make_dir(&fs, 0o755)?;
        let tree = open_dir(&fs)?;
        if let Some(top) = stack.layers.first() {
            tree::copy::copy(open_dir(top)?, at::open_again(&tree).doing(doing)?).doing(doing)?;
        }
        let root = at::stat(&tree).doing(doing)?;
        init_layer::apply(&tree)?;
        at::set_mtime(&tree, root.mtime).doing(doing)?;
        berth_sys::atomic::syncfs(&tree).doing(doing)
    }

    fn mount(&self, dir: &Path, _: &Stack, id: &str, _: &MountOptions) -> Result<OwnedFd> {
        let doing = || format!("mount the root of {id}");
        let root = path::open_root(dir.join("fs")).doing(doing)?;
        let mount = mount::clone_tree(&root, false).doing(doing)?;
        // What the container mounts must not appear in the data root.
        mount::set_attr(
            &mount,
            false,
            MountAttr::NONE,
            MountAttr::NONE,
            Some(Propagation::Private),
        )
        .doing(doing)?;
        Ok(mount)
    }

    /// Files that differ from the image's in kind, size or time of change.
    fn size(&self, dir: &Path, stack: &Stack) -> Result<u64> {
        let doing = || format!("measure {}", dir.display());
        let tree = open_dir(&dir.join("fs"))?;
        let base = stack.layers.first().map(|top| open_dir(top)).transpose()?;
        let mut total = 0u64;
        let mut linked = std::collections::HashSet::new();
        tree::size::visit(tree, &mut |cursor, name, meta| {
            if meta.kind != Kind::File || (meta.links > 1 && !linked.insert((meta.dev, meta.ino))) {
                return Ok(());
            }
            let same = base.as_ref().is_some_and(|base| {
                let flags = OFlags::PATH | OFlags::NOFOLLOW;
                path::open_beneath(base, os(&cursor.path_of(name)), flags, 0)
                    .and_then(at::stat)
                    .is_ok_and(|old| {
                        (old.kind, old.size, old.mtime) == (meta.kind, meta.size, meta.mtime)
                    })
            });
            if !same {
                total += meta.size;
            }
            Ok(())
        })
        .doing(doing)?;
        Ok(total)
    }
}
