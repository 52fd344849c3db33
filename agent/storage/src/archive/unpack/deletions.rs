//! What a layer deletes of those below.

use std::os::fd::OwnedFd;

use berth_sys::at::{self, FileTime, Kind};

use super::Unpacker;
use crate::archive::names::Name;
use crate::archive::whiteout::{self, Marks};
use crate::error::{Context, Result};
use crate::tree::{self, os};

impl Unpacker<'_> {
    pub(super) fn gone(&mut self, dir: &Name, leaf: &[u8], time: FileTime) -> Result<()> {
        let doing = || "mark a deletion".to_owned();
        let name = dir.join(leaf);
        self.check_way(dir)?;
        if self.find_below(&name)?.is_none() {
            return Ok(());
        }
        let parent = self.ensure_dir(dir, time)?;
        match at::find_at(&parent, os(leaf)).doing(doing)? {
            // What the layer itself adds stays; only what is below is gone.
            Some(meta) if meta.kind == Kind::Dir => {
                let made = at::open_dir_at(&parent, os(leaf)).doing(doing)?;
                self.close(&name, &made)?;
            }
            Some(_) => {}
            None => self.marks.set_gone(&parent, leaf).doing(doing)?,
        }
        self.parent = Some((dir.clone(), parent));
        Ok(())
    }

    pub(super) fn opaque(&mut self, dir: &Name, time: FileTime) -> Result<()> {
        self.check_way(dir)?;
        let below = self.find_below(dir)?;
        if !below.is_some_and(|found| found.meta.kind == Kind::Dir) {
            return Ok(());
        }
        let made = self.ensure_dir(dir, time)?;
        self.close(dir, &made)
    }

    /// Makes a directory of this layer opaque, and drops the marks below it: nothing is left that
    /// they could hide.
    fn close(&mut self, name: &Name, dir: &OwnedFd) -> Result<()> {
        let doing = || "mark an opaque directory".to_owned();
        drop_marks(self.marks, dir).doing(doing)?;
        self.marks.set_opaque(dir).doing(doing)?;
        self.done.opaque |= name.is_root();
        Ok(())
    }
}

/// Removes every mark of a deletion below `dir`.
fn drop_marks(marks: Marks, dir: &OwnedFd) -> std::io::Result<()> {
    let top = at::open_again(dir)?;
    let mut found: Vec<(OwnedFd, Vec<u8>)> = Vec::new();
    tree::size::visit(top, &mut |cursor, name, meta| {
        let is_mark = match marks {
            Marks::Files => name.starts_with(whiteout::PREFIX),
            _ => marks.is_mark(meta),
        };
        if is_mark {
            found.push((at::open_again(cursor.dir())?, name.to_vec()));
        }
        // Removed a few at a time: a listing may miss names when its directory shrinks under it.
        if found.len() >= 64 {
            remove_all(&mut found)?;
        }
        Ok(())
    })?;
    remove_all(&mut found)
}

fn remove_all(found: &mut Vec<(OwnedFd, Vec<u8>)>) -> std::io::Result<()> {
    for (dir, name) in found.drain(..) {
        at::unlink_at(&dir, os(&name))?;
    }
    Ok(())
}
