//! Where members go: directories of the layer by descriptor, and what is in the way.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;

use berth_sys::at::{self, FileTime, Kind, Meta};
use berth_sys::path::{self, OFlags};

use super::Unpacker;
use crate::archive::lower::{self, Found};
use crate::archive::names::Name;
use crate::archive::recipe::Displaced;
use crate::error::{Context, Error, Result};
use crate::tree::{self, os};

/// Replaced names that are kept for the recipe. Archives that replace at all do it once or twice.
const DISPLACED_MAX: usize = 65_536;

impl Unpacker<'_> {
    /// A directory of this layer, or `None` when the layer does not have it; not a directory or
    /// reached through a link is an error.
    pub(super) fn open_dir(&self, name: &Name) -> Result<Option<OwnedFd>> {
        let path = if name.is_root() {
            &b"."[..]
        } else {
            name.as_bytes()
        };
        match path::open_beneath(&self.root, os(path), OFlags::RDONLY | OFlags::DIRECTORY, 0) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.not_a_dir(name, error)),
        }
    }

    fn not_a_dir(&self, name: &Name, error: std::io::Error) -> Error {
        match error.kind() {
            _ if at::is_link_error(&error) => {
                self.bad(name, "the way to it leads through a symbolic link")
            }
            ErrorKind::NotADirectory => {
                self.bad(name, "something on the way to it is no directory")
            }
            _ => Error::Io {
                what: "open a directory".to_owned(),
                source: error,
            },
        }
    }

    /// Opens a directory of this layer, making what is missing of it as the layers below have it.
    pub(super) fn ensure_dir(&mut self, name: &Name, time: FileTime) -> Result<OwnedFd> {
        if let Some((known, dir)) = self.parent.take()
            && known == *name
        {
            return Ok(dir);
        }
        // A mark of a deletion is no directory to openat2, so errors are looked into below.
        if let Ok(Some(dir)) = self.open_dir(name) {
            return Ok(dir);
        }
        let mut dir = at::open_again(&self.root).doing(|| "open a directory".to_owned())?;
        let mut here = Name::default();
        for part in name.parts() {
            here = here.join(part);
            let found = at::find_at(&dir, os(part)).doing(|| "look a name up".to_owned())?;
            dir = match found {
                Some(meta) if meta.kind == Kind::Dir => {
                    at::open_dir_at(&dir, os(part)).doing(|| "open a directory".to_owned())?
                }
                Some(meta) if meta.kind == Kind::Link => {
                    return Err(self.bad(name, "the way to it leads through a symbolic link"));
                }
                Some(meta) if !self.marks.is_mark(&meta) => {
                    return Err(self.bad(name, "something on the way to it is no directory"));
                }
                _ => {
                    let below = self.find_below(&here)?;
                    // 0 contents: nothing real is in the way, so nothing is displaced.
                    let made = self.make_dir(&dir, &here, part, 0)?;
                    self.dress_implied(&here, &made, below.as_ref(), time)?;
                    made
                }
            };
        }
        Ok(dir)
    }

    /// Refuses a directory that this layer reaches through something that is none. One that it does
    /// not have, or has marked as gone, is fine.
    pub(super) fn check_way(&self, name: &Name) -> Result<()> {
        let doing = || "look a name up".to_owned();
        let mut dir = at::open_again(&self.root).doing(doing)?;
        for part in name.parts() {
            match at::find_at(&dir, os(part)).doing(doing)? {
                None => return Ok(()),
                Some(meta) if self.marks.is_mark(&meta) => return Ok(()),
                Some(meta) if meta.kind == Kind::Dir => {
                    dir = at::open_dir_at(&dir, os(part)).doing(doing)?;
                }
                Some(meta) if meta.kind == Kind::Link => {
                    return Err(self.bad(name, "the way to it leads through a symbolic link"));
                }
                Some(_) => return Err(self.bad(name, "something on the way to it is no directory")),
            }
        }
        Ok(())
    }

    /// Gives a directory that the archive only implies the looks that it has below.
    pub(super) fn dress_implied(
        &mut self,
        name: &Name,
        made: &OwnedFd,
        below: Option<&Found>,
        time: FileTime,
    ) -> Result<()> {
        let doing = || "set up a directory".to_owned();
        match below {
            Some(Found {
                meta,
                dir: Some(dir),
            }) => {
                tree::copy_metadata(dir, meta, made).doing(doing)?;
                self.times.remember(name, meta.mtime)
            }
            _ => {
                at::chown(made, 0, 0).doing(doing)?;
                at::chmod(made, 0o755).doing(doing)?;
                self.times.remember(name, time)
            }
        }
    }

    /// Makes (or keeps) the directory `leaf` in `parent`; everything else of that name goes.
    pub(super) fn make_dir(
        &mut self,
        parent: &OwnedFd,
        name: &Name,
        leaf: &[u8],
        number: u64,
    ) -> Result<OwnedFd> {
        let doing = || "make a directory".to_owned();
        let found = at::find_at(parent, os(leaf)).doing(doing)?;
        if found.is_some_and(|meta| meta.kind == Kind::Dir) {
            return at::open_dir_at(parent, os(leaf)).doing(doing);
        }
        // What this layer had there, or deleted there, hid the directory below; so must this one.
        let hides = found.is_some() || self.marks.is_gone(parent, leaf).doing(doing)?;
        let below = if hides {
            self.below_directory(name)?
        } else {
            false
        };
        self.clear(parent, name, leaf, number)?;
        at::mkdir_at(parent, os(leaf), 0o700).doing(doing)?;
        let made = at::open_dir_at(parent, os(leaf)).doing(doing)?;
        if below {
            self.marks.set_opaque(&made).doing(doing)?;
        }
        Ok(made)
    }

    /// Whether the layers below have a directory of this name, not asking this layer about the name
    /// itself but about what is above it.
    fn below_directory(&self, name: &Name) -> Result<bool> {
        let Some((dir, _)) = name.split() else {
            return Ok(true);
        };
        if self.hidden_by_this_layer(&dir)? {
            return Ok(false);
        }
        let found =
            lower::find(self.lowers, name).doing(|| "look into the layers below".to_owned())?;
        Ok(found.is_some_and(|found| found.meta.kind == Kind::Dir))
    }

    /// What the layers below show at `name`, as far as this layer lets it through.
    pub(super) fn find_below(&self, name: &Name) -> Result<Option<Found>> {
        if self.hidden_by_this_layer(name)? {
            return Ok(None);
        }
        lower::find(self.lowers, name).doing(|| "look into the layers below".to_owned())
    }

    /// Whether this layer hides from `name` what is below: by a deletion of it or of a directory
    /// above it, or by an opaque directory that it is in.
    pub(super) fn hidden_by_this_layer(&self, name: &Name) -> Result<bool> {
        let doing = || "look a name up".to_owned();
        if self.done.opaque {
            return Ok(true);
        }
        let mut dir = at::open_again(&self.root).doing(doing)?;
        for part in name.parts() {
            if self.marks.is_gone(&dir, part).doing(doing)? {
                return Ok(true);
            }
            match at::find_at(&dir, os(part)).doing(doing)? {
                None => return Ok(false),
                Some(meta) if meta.kind != Kind::Dir => return Ok(true),
                Some(_) => dir = at::open_dir_at(&dir, os(part)).doing(doing)?,
            }
            if self.marks.is_opaque(&dir).doing(doing)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes what this layer has at a name so that something else can be made there.
    pub(super) fn clear(
        &mut self,
        parent: &OwnedFd,
        name: &Name,
        leaf: &[u8],
        number: u64,
    ) -> Result<()> {
        let doing = || "replace a name".to_owned();
        if self.marks.is_gone(parent, leaf).doing(doing)? {
            return self.marks.clear_gone(parent, leaf).doing(doing);
        }
        let Some(meta) = at::find_at(parent, os(leaf)).doing(doing)? else {
            return Ok(());
        };
        // Held descriptors of directories that move away must not be used again.
        self.parent = None;
        let bytes = self.bytes_of(parent, leaf, &meta)?;
        if bytes == 0 {
            return tree::remove::remove(parent, leaf).doing(doing);
        }
        // Contents that an earlier part of the archive is made of are kept for the recipe.
        if self.done.displaced.len() == DISPLACED_MAX {
            return Err(self.bad(name, "the archive replaces too many of its own members"));
        }
        let slot = self.done.displaced.len() as u32;
        at::rename_new_at(parent, os(leaf), &self.aside, slot.to_string()).doing(doing)?;
        self.done.displaced.push(Displaced {
            before: number,
            name: hex::encode(name.as_bytes()),
            slot,
        });
        self.done.size = self.done.size.saturating_sub(bytes);
        Ok(())
    }

    fn bytes_of(&self, parent: &OwnedFd, leaf: &[u8], meta: &Meta) -> Result<u64> {
        match meta.kind {
            Kind::File => Ok(meta.size),
            Kind::Dir => {
                let dir =
                    at::open_dir_at(parent, os(leaf)).doing(|| "open a directory".to_owned())?;
                tree::size::size(dir).doing(|| "measure a directory".to_owned())
            }
            _ => Ok(0),
        }
    }
}
