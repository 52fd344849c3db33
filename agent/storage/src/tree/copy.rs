//! Copying trees: what the vfs driver does where others share.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_sys::at::{self, Kind, Meta};
use berth_sys::path::{self, OFlags};

use super::{Cursor, copy_metadata, os};

/// Copies all that is in `from` into the empty directory `to`, and `from`'s own metadata: kinds,
/// contents (holes kept, blocks shared where possible), owners, modes, times, attributes, hard links.
pub(crate) fn copy(from: OwnedFd, to: OwnedFd) -> io::Result<()> {
    let top = at::open_again(&to)?;
    let mut work = Copy {
        from: Cursor::new(from),
        to: Cursor::new(to),
        top,
        name: Vec::new(),
        linked: HashMap::new(),
    };
    let mut pending = vec![work.entries()?];
    while let Some(names) = pending.last_mut() {
        match names.pop() {
            Some(name) => {
                work.from.down(&name)?;
                work.to.down(&name)?;
                work.name.push(name);
                pending.push(work.entries()?);
            }
            None => {
                pending.pop();
                let meta = at::stat(work.from.dir())?;
                // A directory's times are right only when nothing is made in it any more.
                copy_metadata(work.from.dir(), &meta, work.to.dir())?;
                if work.name.pop().is_some() {
                    work.from.up()?;
                    work.to.up()?;
                }
            }
        }
    }
    Ok(())
}

struct Copy {
    from: Cursor,
    to: Cursor,
    top: OwnedFd,
    /// Where the cursors are.
    name: Vec<Vec<u8>>,
    /// Where the first name of a file with several was made: directory and name, below the top.
    linked: HashMap<(u64, u64), (Vec<u8>, Vec<u8>)>,
}

impl Copy {
    /// Copies what is in the present directory; gives the directories, which are made but empty.
    fn entries(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut dirs = Vec::new();
        for name in at::names(self.from.dir())? {
            let meta = at::stat_at(self.from.dir(), os(&name))?;
            if meta.kind == Kind::Dir {
                at::mkdir_at(self.to.dir(), os(&name), 0o700)?;
                dirs.push(name);
                continue;
            }
            if meta.links > 1 {
                if let Some((dir, first)) = self.linked.get(&(meta.dev, meta.ino)) {
                    let path = if dir.is_empty() { &b"."[..] } else { dir };
                    let dir = path::open_beneath(
                        &self.top,
                        os(path),
                        OFlags::PATH | OFlags::DIRECTORY,
                        0,
                    )?;
                    at::link_at(&dir, os(first), self.to.dir(), os(&name))?;
                    continue;
                }
                self.linked
                    .insert((meta.dev, meta.ino), (self.name.join(&b'/'), name.clone()));
            }
            copy_one(self.from.dir(), self.to.dir(), &name, &meta)?;
        }
        Ok(dirs)
    }
}

/// Copies one name that is no directory.
fn copy_one(from: &OwnedFd, to: &OwnedFd, name: &[u8], meta: &Meta) -> io::Result<()> {
    let name = os(name);
    match meta.kind {
        Kind::File => {
            let source = at::open_file_at(from, name)?;
            let target = at::create_at(to, name, 0o600)?;
            at::copy_contents(source.as_fd(), target.as_fd(), meta.size)?;
            return copy_metadata(&source, meta, &target);
        }
        Kind::Link => at::symlink_at(&at::readlink_at(from, name)?, to, name)?,
        kind => at::mknod_at(to, name, kind, meta.mode, meta.rdev)?,
    }
    at::chown_at(to, name, meta.uid, meta.gid)?;
    at::set_mtime_at(to, name, meta.mtime)
}
