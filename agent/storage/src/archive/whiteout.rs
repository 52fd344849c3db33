//! Deletions in a layer: how archives write them, and how they stand in a layer's directory.

use std::io;
use std::os::fd::AsFd;

use berth_sys::at::{self, Kind, Meta};
use berth_sys::xattr;

use super::names::Name;
use crate::tree::os;

/// Begins the name of a deletion.
pub(crate) const PREFIX: &[u8] = b".wh.";
/// Begins the names that aufs kept for itself.
const META: &[u8] = b".wh..wh.";
/// Says that nothing of a directory in the layers below is left.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Overlayfs's word for the same.
const OVERLAY_OPAQUE: &str = "trusted.overlay.opaque";

/// What a member's name means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Something that the layer adds.
    Addition,
    /// `name` in directory `dir` of the layers below is gone.
    Gone { dir: Name, name: Vec<u8> },
    /// All of `dir` in the layers below is gone.
    Opaque { dir: Name },
    /// A leftover of aufs; no part of the image.
    Ignored,
}

/// Tells deletions from additions.
pub(crate) fn meaning(name: &Name) -> Result<Meaning, String> {
    let mut parts = name.parts();
    let Some(first) = parts.next() else {
        return Ok(Meaning::Addition);
    };
    if first.starts_with(META) && name.as_bytes() != OPAQUE {
        return Ok(Meaning::Ignored);
    }
    let Some((dir, leaf)) = name.split() else {
        return Ok(Meaning::Addition);
    };
    if dir.parts().any(|part| part.starts_with(PREFIX)) {
        return Err("a member below a whiteout".to_owned());
    }
    if leaf == OPAQUE {
        return Ok(Meaning::Opaque { dir });
    }
    match leaf.strip_prefix(PREFIX) {
        None => Ok(Meaning::Addition),
        Some(b"" | b"." | b"..") => Err("a whiteout of nothing".to_owned()),
        Some(target) if target.starts_with(PREFIX) || leaf.starts_with(META) => {
            Err("a whiteout of a whiteout".to_owned())
        }
        Some(target) => Ok(Meaning::Gone {
            dir,
            name: target.to_vec(),
        }),
    }
}

/// How deletions stand in an unpacked layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    /// As overlayfs reads them: a character device 0:0, and an attribute.
    Overlay,
    /// As in the archive, for a driver that applies and removes them at once.
    Files,
    /// The tree is whole; nothing in it is a mark.
    None,
}

impl Marks {
    /// Whether `name` in `dir` is marked as gone.
    pub(crate) fn is_gone(self, dir: impl AsFd, name: &[u8]) -> io::Result<bool> {
        Ok(match self {
            Marks::Overlay => {
                at::find_at(dir, os(name))?.is_some_and(|meta| is_overlay_gone(&meta))
            }
            Marks::Files => at::find_at(dir, os(&whiteout_name(name)))?.is_some(),
            Marks::None => false,
        })
    }

    /// Whether what was found under a plain name is itself the mark.
    pub(crate) fn is_mark(self, meta: &Meta) -> bool {
        self == Marks::Overlay && is_overlay_gone(meta)
    }

    /// Marks `name` in `dir` as gone; it must not exist there.
    pub(crate) fn set_gone(self, dir: impl AsFd, name: &[u8]) -> io::Result<()> {
        match self {
            Marks::Overlay => at::mknod_at(dir, os(name), Kind::Char, 0, (0, 0)),
            Marks::Files => at::create_at(dir, os(&whiteout_name(name)), 0).map(drop),
            Marks::None => Ok(()),
        }
    }

    /// Takes the mark away again.
    pub(crate) fn clear_gone(self, dir: impl AsFd, name: &[u8]) -> io::Result<()> {
        match self {
            Marks::Overlay => at::unlink_at(dir, os(name)),
            Marks::Files => at::unlink_at(dir, os(&whiteout_name(name))),
            Marks::None => Ok(()),
        }
    }

    /// Whether the layers below do not show through this directory.
    pub(crate) fn is_opaque(self, dir: impl AsFd) -> io::Result<bool> {
        Ok(match self {
            Marks::Overlay => xattr::get(dir, OVERLAY_OPAQUE)?.as_deref() == Some(b"y"),
            Marks::Files => at::find_at(dir, os(OPAQUE))?.is_some(),
            Marks::None => false,
        })
    }

    /// Keeps the layers below from showing through this directory.
    pub(crate) fn set_opaque(self, dir: impl AsFd) -> io::Result<()> {
        match self {
            Marks::Overlay => xattr::set(dir, OVERLAY_OPAQUE, b"y"),
            Marks::Files => match at::create_at(dir, os(OPAQUE), 0) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other.map(drop),
            },
            Marks::None => Ok(()),
        }
    }
}

/// Overlayfs's mark of a deleted name.
fn is_overlay_gone(meta: &Meta) -> bool {
    meta.kind == Kind::Char && meta.rdev == (0, 0)
}

fn whiteout_name(name: &[u8]) -> Vec<u8> {
    [PREFIX, name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(raw: &str) -> Result<Meaning, String> {
        meaning(&Name::clean(raw.as_bytes()).unwrap())
    }

    #[test]
    fn names_and_their_meanings() {
        let name = |raw: &str| Name::clean(raw.as_bytes()).unwrap();
        for plain in ["", "a", "a/b", ".whx", "a/.wh", ".w/h"] {
            assert_eq!(of(plain), Ok(Meaning::Addition), "{plain}");
        }
        assert_eq!(
            of(".wh.x"),
            Ok(Meaning::Gone {
                dir: name(""),
                name: b"x".to_vec()
            })
        );
        assert_eq!(
            of("a/.wh.x"),
            Ok(Meaning::Gone {
                dir: name("a"),
                name: b"x".to_vec()
            })
        );
        assert_eq!(
            of("a/.wh..hidden"),
            Ok(Meaning::Gone {
                dir: name("a"),
                name: b".hidden".to_vec()
            })
        );
        assert_eq!(of("a/.wh..wh..opq"), Ok(Meaning::Opaque { dir: name("a") }));
        assert_eq!(of(".wh..wh..opq"), Ok(Meaning::Opaque { dir: name("") }));
        for aufs in [
            ".wh..wh.plnk",
            ".wh..wh.plnk/1.2",
            ".wh..wh.aufs",
            ".wh..wh.orph/x",
            ".wh..wh..opq/x",
        ] {
            assert_eq!(of(aufs), Ok(Meaning::Ignored), "{aufs}");
        }
        for bad in [
            ".wh.",
            "a/.wh.",
            ".wh..",
            "a/.wh..",
            ".wh...",
            "a/.wh...",
            ".wh.x/y",
            "a/.wh..wh.x",
            "a/.wh..wh..opq/x",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
