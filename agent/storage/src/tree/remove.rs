//! Removing trees.

use std::io;
use std::os::fd::OwnedFd;

use berth_sys::at;

use super::{Cursor, os};

/// Names read at a time: a directory may have millions.
const BATCH: usize = 1024;

/// Removes `name` in `dir`, with all that is below if it is a directory. Links are removed, never
/// followed. What is already gone is no error.
pub(crate) fn remove(dir: &OwnedFd, name: &[u8]) -> io::Result<()> {
    match unlink(dir, name)? {
        Unlinked::Gone => Ok(()),
        Unlinked::IsDir => {
            let inside = match at::open_dir_at(dir, os(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            };
            empty(inside)?;
            match at::rmdir_at(dir, os(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        }
    }
}

/// Removes all that is in a directory.
pub(crate) fn empty(dir: OwnedFd) -> io::Result<()> {
    let mut cursor = Cursor::new(dir);
    // Directories still to be emptied, and the name of each one entered.
    let mut levels: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
    let mut entered: Vec<Vec<u8>> = Vec::new();
    while let Some(dirs) = levels.last_mut() {
        if dirs.is_empty() {
            let (any, found) = batch(cursor.dir())?;
            *dirs = found;
            if any {
                continue;
            }
            levels.pop();
            let Some(name) = entered.pop() else {
                return Ok(());
            };
            cursor.up()?;
            at::rmdir_at(cursor.dir(), os(&name))?;
        } else if let Some(name) = dirs.pop() {
            match cursor.down(&name) {
                Ok(()) => {
                    levels.push(Vec::new());
                    entered.push(name);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Unlinks some names of a directory; tells whether there were any, and which are directories.
fn batch(dir: &OwnedFd) -> io::Result<(bool, Vec<Vec<u8>>)> {
    let mut names = Vec::new();
    let full = at::each_name(dir, |name| {
        names.push(name.to_vec());
        // An error is the way to stop listing.
        if names.len() == BATCH {
            Err(io::ErrorKind::Interrupted.into())
        } else {
            Ok(())
        }
    });
    match full {
        Err(error) if error.kind() == io::ErrorKind::Interrupted && names.len() == BATCH => {}
        other => other?,
    }
    let any = !names.is_empty();
    let mut dirs = Vec::new();
    for name in names {
        if let Unlinked::IsDir = unlink(dir, &name)? {
            dirs.push(name);
        }
    }
    Ok((any, dirs))
}

enum Unlinked {
    Gone,
    IsDir,
}

fn unlink(dir: &OwnedFd, name: &[u8]) -> io::Result<Unlinked> {
    match at::unlink_at(dir, os(name)) {
        Ok(()) => Ok(Unlinked::Gone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Unlinked::Gone),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(Unlinked::IsDir),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use berth_sys::path::{self, OFlags};

    use super::*;

    fn open(dir: &std::path::Path) -> OwnedFd {
        path::open_host(dir, OFlags::RDONLY | OFlags::DIRECTORY).unwrap()
    }

    #[test]
    fn trees_deeper_than_any_path() {
        let outer = tempfile::tempdir().unwrap();
        let top = open(outer.path());
        let mut dir = open(outer.path());
        // 100 bytes a level, 3,000 levels: PATH_MAX many times over.
        let name = "d".repeat(100);
        for level in 0..3000 {
            at::mkdir_at(&dir, &*name, 0o700).unwrap();
            at::create_at(&dir, format!("f{level}"), 0).unwrap();
            dir = at::open_dir_at(&dir, &*name).unwrap();
        }
        drop(dir);
        remove(&top, name.as_bytes()).unwrap();
        remove(&top, b"f0").unwrap();
        remove(&top, b"f0").unwrap();
        assert!(at::names(&top).unwrap().is_empty());
    }

    #[test]
    fn wide_trees_and_links() {
        let outer = tempfile::tempdir().unwrap();
        let canary = tempfile::tempdir().unwrap();
        std::fs::write(canary.path().join("keep"), "x").unwrap();
        let top = outer.path().join("top");
        std::fs::create_dir(&top).unwrap();
        for i in 0..2 * BATCH + 5 {
            std::fs::create_dir(top.join(format!("d{i}"))).unwrap();
            std::fs::write(top.join(format!("f{i}")), "").unwrap();
        }
        std::os::unix::fs::symlink(canary.path(), top.join("link")).unwrap();
        std::os::unix::fs::symlink(canary.path(), top.join("d7/link")).unwrap();
        remove(&open(outer.path()), b"top").unwrap();
        assert!(!top.exists());
        assert!(canary.path().join("keep").exists());
    }
}
