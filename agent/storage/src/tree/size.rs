//! How much a tree holds.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;

use berth_sys::at::{self, Kind};

use super::{Cursor, os};

/// Bytes of the regular files in a tree, each once however many names it has.
///
/// Works on trees that change meanwhile: what vanishes does not count.
pub(crate) fn size(root: OwnedFd) -> io::Result<u64> {
    let mut total = 0u64;
    let mut linked = HashSet::new();
    visit(root, &mut |_, _, meta| {
        if meta.kind == Kind::File && (meta.links < 2 || linked.insert((meta.dev, meta.ino))) {
            total = total.saturating_add(meta.size);
        }
        Ok(())
    })?;
    Ok(total)
}

/// Hears of everything in a tree: where it is, its name, what it is.
pub(crate) type Visitor<'a> = dyn FnMut(&Cursor, &[u8], &at::Meta) -> io::Result<()> + 'a;

/// Calls `f` with the directory, name and kind of everything in a tree.
pub(crate) fn visit(root: OwnedFd, f: &mut Visitor<'_>) -> io::Result<()> {
    let mut cursor = Cursor::new(root);
    let mut pending = vec![one(&cursor, f)?];
    while let Some(names) = pending.last_mut() {
        match names.pop() {
            Some(name) => match cursor.down(&name) {
                Ok(()) => pending.push(one(&cursor, f)?),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            },
            None => {
                pending.pop();
                if cursor.depth() > 0 {
                    cursor.up()?;
                }
            }
        }
    }
    Ok(())
}

/// Visits one directory; gives the directories in it.
fn one(cursor: &Cursor, f: &mut Visitor<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut dirs = Vec::new();
    at::each_name(cursor.dir(), |name| {
        let meta = match at::stat_at(cursor.dir(), os(name)) {
            Err(error) if is_gone(&error) => return Ok(()),
            other => other?,
        };
        f(cursor, name, &meta)?;
        if meta.kind == Kind::Dir {
            dirs.push(name.to_vec());
        }
        Ok(())
    })?;
    Ok(dirs)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
