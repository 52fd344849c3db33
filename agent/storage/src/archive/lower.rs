//! What the layers below show at a name: needed where a layer's archive leaves something unsaid
//! (directories it only implies) or says something that means nothing there (deletions of what is
//! not below).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_sys::at::{self, Kind, Meta};
use berth_sys::path::{self, OFlags};

use super::names::Name;
use super::whiteout::Marks;
use crate::tree::os;

/// One layer below.
#[derive(Debug)]
pub(crate) struct Lower {
    pub(crate) root: OwnedFd,
    pub(crate) marks: Marks,
    /// The layer hides everything below it. Overlayfs ignores the mark on a layer's root, so it is
    /// kept beside.
    pub(crate) opaque: bool,
}

/// What a name stands for in the layers below.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) meta: Meta,
    /// For a directory, opened for reading.
    pub(crate) dir: Option<OwnedFd>,
}

/// Looks `name` up as the mounted layers would show it, topmost layer first.
pub(crate) fn find(lowers: &[Lower], name: &Name) -> io::Result<Option<Found>> {
    for lower in lowers {
        match find_in(lower, name)? {
            Look::Found(found) => return Ok(Some(found)),
            Look::Hidden => return Ok(None),
            Look::Absent if lower.opaque => return Ok(None),
            Look::Absent => {}
        }
    }
    Ok(None)
}

enum Look {
    Found(Found),
    /// Neither here nor, for this name, in any layer below.
    Hidden,
    /// Not here; the next layer may have it.
    Absent,
}

fn find_in(lower: &Lower, name: &Name) -> io::Result<Look> {
    let mut dir = at::open_again(&lower.root)?;
    let mut covered = false;
    let mut parts = name.parts().peekable();
    if parts.peek().is_none() {
        let meta = at::stat(&dir)?;
        return Ok(Look::Found(Found {
            meta,
            dir: Some(dir),
        }));
    }
    while let Some(part) = parts.next() {
        let Some(meta) = at::find_at(&dir, os(part))? else {
            return Ok(if covered { Look::Hidden } else { Look::Absent });
        };
        if lower.marks.is_mark(&meta) {
            return Ok(Look::Hidden);
        }
        let last = parts.peek().is_none();
        if meta.kind != Kind::Dir {
            return Ok(if last {
                Look::Found(Found { meta, dir: None })
            } else {
                Look::Hidden
            });
        }
        dir = at::open_dir_at(&dir, os(part))?;
        if last {
            return Ok(Look::Found(Found {
                meta,
                dir: Some(dir),
            }));
        }
        covered |= lower.marks.is_opaque(dir.as_fd())?;
    }
    Ok(Look::Absent)
}

/// Opens a directory of the store as a layer below.
pub(crate) fn open(
    dir: impl AsRef<std::path::Path>,
    marks: Marks,
    opaque: bool,
) -> io::Result<Lower> {
    Ok(Lower {
        root: path::open_host(dir, OFlags::RDONLY | OFlags::DIRECTORY)?,
        marks,
        opaque,
    })
}
