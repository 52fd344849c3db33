//! Applying one layer's difference to the whole tree below it, for drivers that keep whole trees.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;

use berth_sys::at::{self, Kind};

use super::remove::{empty, remove};
use super::{Cursor, copy_metadata, os};
use crate::archive::whiteout::{OPAQUE, PREFIX};

/// Moves the difference `diff`, whose deletions are marked by files ([`Marks::Files`]), into the
/// whole tree `tree`. `diff` is left with empty directories.
///
/// [`Marks::Files`]: crate::archive::whiteout::Marks::Files
pub(crate) fn merge(diff: OwnedFd, tree: OwnedFd) -> io::Result<()> {
    if at::find_at(&diff, os(OPAQUE))?.is_some() {
        empty(at::open_again(&tree)?)?;
        let before = at::stat(&diff)?;
        at::unlink_at(&diff, os(OPAQUE))?;
        at::set_mtime(&diff, before.mtime)?;
    }
    let mut diff = Cursor::new(diff);
    let mut tree = Cursor::new(tree);
    let mut pending = vec![entries(&diff, &tree)?];
    while let Some(names) = pending.last_mut() {
        match names.pop() {
            Some(name) => {
                diff.down(&name)?;
                tree.down(&name)?;
                pending.push(entries(&diff, &tree)?);
            }
            None => {
                pending.pop();
                let meta = at::stat(diff.dir())?;
                copy_metadata(diff.dir(), &meta, tree.dir())?;
                if diff.depth() > 0 {
                    diff.up()?;
                    tree.up()?;
                }
            }
        }
    }
    Ok(())
}

/// Applies one directory; gives the directories that exist on both sides.
fn entries(diff: &Cursor, tree: &Cursor) -> io::Result<Vec<Vec<u8>>> {
    // The directory's own time must survive that its entries move out.
    let before = at::stat(diff.dir())?;
    let names = at::names(diff.dir())?;
    let gone: HashSet<&[u8]> = names
        .iter()
        .filter_map(|name| name.strip_prefix(PREFIX))
        .collect();
    for name in &gone {
        remove(tree.dir(), name)?;
    }
    let mut both = Vec::new();
    for name in names.iter().filter(|name| !name.starts_with(PREFIX)) {
        let new = at::stat_at(diff.dir(), os(name))?;
        let old = at::find_at(tree.dir(), os(name))?;
        let is_dir = new.kind == Kind::Dir;
        let opaque =
            is_dir && at::find_at(at::open_dir_at(diff.dir(), os(name))?, os(OPAQUE))?.is_some();
        if is_dir && !opaque && old.is_some_and(|old| old.kind == Kind::Dir) {
            both.push(name.clone());
            continue;
        }
        remove(tree.dir(), name)?;
        if opaque {
            // Nothing below is left for a mark to mean.
            let dir = at::open_dir_at(diff.dir(), os(name))?;
            at::unlink_at(&dir, os(OPAQUE))?;
            at::set_mtime(&dir, new.mtime)?;
        }
        at::rename_at(diff.dir(), os(name), tree.dir(), os(name))?;
    }
    at::set_mtime(diff.dir(), before.mtime)?;
    Ok(both)
}
