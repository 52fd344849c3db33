//! Unpacking one layer into its directory.
//!
//! What an archive can try, and what stands against it (security.md B.8 has the list):
//! - names: cleaned to components ([`Name`]); every directory is reached by openat2(2) beneath the
//!   layer's root without following any link, so an entry below a link is an error;
//! - files are made anew (`O_EXCL`), never opened through an existing name; what stands in the way is
//!   replaced, except that directories merge;
//! - owner, mode, attributes and times are set through the descriptor of what was just made;
//! - hard links are made from a name beneath the root, links themselves not followed;
//! - attributes: `security.capability` and `user.*` only. `trusted.*` would be orders to overlayfs;
//! - a device 0:0 would be overlayfs's mark of a deletion, so it is refused;
//! - sizes, counts and lengths are bounded by [`crate::limits`] and by the free space.
//!
//! Deletions concern the layers below only, whatever their place among the members. They are marked
//! only where something below is there to be hidden: a mark over nothing would show up in listings.
//! Directories that members imply but the archive does not hold take owner and mode from the layers
//! below.

use std::fs::File;
use std::io::{BufRead, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use berth_sys::at::{self, FileTime, Kind};
use berth_sys::xattr;

use super::lower::Lower;
use super::names::Name;
use super::reader::{Member, MemberKind, TarReader};
use super::recipe::{Displaced, RecipeWriter};
use super::times::Times;
use super::whiteout::{Marks, Meaning, meaning};
use crate::error::{Context, Error, Result, shown};
use crate::limits::{LAYER_ENTRIES_MAX, XATTR_VALUE_MAX, XATTRS_MAX};
use crate::tree::{self, os};

mod deletions;
mod places;

/// Where and how a layer is unpacked.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The layer's directory, empty, open for reading.
    pub(crate) root: OwnedFd,
    /// A directory beside it, for what the recipe needs but the layer does not show.
    pub(crate) aside: OwnedFd,
    pub(crate) recipe: RecipeWriter,
    pub(crate) marks: Marks,
    /// The layers below, topmost first.
    pub(crate) lowers: &'a [Lower],
    /// Bytes that may be written.
    pub(crate) space: u64,
    /// Names the layer in errors.
    pub(crate) what: String,
}

/// What was unpacked.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Bytes of regular files, each once.
    pub(crate) size: u64,
    /// Nothing of the layers below shows.
    pub(crate) opaque: bool,
    pub(crate) displaced: Vec<Displaced>,
}

/// Unpacks the plain tar stream `input`, to its very end.
pub(crate) fn unpack(input: impl BufRead, job: Job<'_>) -> Result<Unpacked> {
    let Job {
        root,
        aside,
        recipe,
        marks,
        lowers,
        space,
        what,
    } = job;
    let mut reader = TarReader::new(input, recipe, what.clone());
    let times = Times::new(&aside)?;
    let mut unpacker = Unpacker {
        root,
        aside,
        marks,
        lowers,
        space,
        what,
        times,
        parent: None,
        done: Unpacked::default(),
    };
    unpacker.start()?;
    let mut members = 0;
    while let Some(member) = reader.next_member()? {
        members += 1;
        if members > LAYER_ENTRIES_MAX {
            return Err(reader.bad(format!("more than {LAYER_ENTRIES_MAX} members")));
        }
        unpacker.member(&member, &mut reader)?;
    }
    let trailing = reader.finish()?;
    unpacker.spend(trailing)?;
    reader.into_verbatim().finish()?;
    unpacker.finish()
}

struct Unpacker<'a> {
    root: OwnedFd,
    aside: OwnedFd,
    marks: Marks,
    lowers: &'a [Lower],
    space: u64,
    what: String,
    times: Times,
    /// The directory that the last member was in: the next one mostly is too.
    parent: Option<(Name, OwnedFd)>,
    done: Unpacked,
}

impl Unpacker<'_> {
    /// The root is implied by every archive.
    fn start(&mut self) -> Result<()> {
        let below = self.find_below(&Name::default())?;
        let root =
            at::open_again(&self.root).doing(|| format!("open the directory of {}", self.what))?;
        self.dress_implied(&Name::default(), &root, below.as_ref(), FileTime::default())
    }

    fn member<R: BufRead>(
        &mut self,
        member: &Member,
        reader: &mut TarReader<R, RecipeWriter>,
    ) -> Result<()> {
        let fail = |why: String| {
            Error::archive(
                format!("{}: member \"{}\"", self.what, shown(&member.name)),
                why,
            )
        };
        let name = Name::clean(&member.name).map_err(fail)?;
        match meaning(&name).map_err(fail)? {
            Meaning::Ignored => Ok(()),
            Meaning::Opaque { dir } => self
                .opaque(&dir, member.mtime)
                .map_err(|error| self.name(error, member)),
            Meaning::Gone { dir, name } => self
                .gone(&dir, &name, member.mtime)
                .map_err(|error| self.name(error, member)),
            Meaning::Addition => self
                .add(&name, member, reader)
                .map_err(|error| self.name(error, member)),
        }
    }

    /// Says which member an error of the file system is about.
    fn name(&self, error: Error, member: &Member) -> Error {
        match error {
            Error::Io { what, source } if source.kind() != ErrorKind::StorageFull => Error::Io {
                what: format!(
                    "{what} (member \"{}\" of {})",
                    shown(&member.name),
                    self.what
                ),
                source,
            },
            other => other,
        }
    }

    fn bad(&self, name: &Name, why: &str) -> Error {
        Error::archive(
            format!("{}: member \"{}\"", self.what, shown(name.as_bytes())),
            why,
        )
    }

    fn add<R: BufRead>(
        &mut self,
        name: &Name,
        member: &Member,
        reader: &mut TarReader<R, RecipeWriter>,
    ) -> Result<()> {
        let Some((dir, leaf)) = name.split() else {
            if member.kind != MemberKind::Dir {
                return Err(self.bad(name, "the root is no directory"));
            }
            let root = at::open_again(&self.root).doing(|| "open a directory".to_owned())?;
            return self.dress_dir(name, &root, member);
        };
        let parent = self.ensure_dir(&dir, member.mtime)?;
        if member.kind == MemberKind::Dir {
            let made = self.make_dir(&parent, name, leaf, reader.verbatim().next_number())?;
            self.dress_dir(name, &made, member)?;
        } else {
            // A link to itself must not be removed before it is looked up.
            let source = if member.kind == MemberKind::HardLink {
                Some(self.link_source(name, member)?)
            } else {
                None
            };
            self.clear(&parent, name, leaf, reader.verbatim().next_number())?;
            match member.kind {
                MemberKind::File => self.file(&parent, name, leaf, member, reader)?,
                MemberKind::HardLink => {
                    if let Some((source_dir, source_leaf)) = source {
                        match at::link_at(&source_dir, os(&source_leaf), &parent, os(leaf)) {
                            Err(error) if error.kind() == ErrorKind::NotFound => {
                                return Err(self.bad(name, "a hard link to itself or to nothing"));
                            }
                            other => other.doing(|| "make a hard link".to_owned())?,
                        }
                    }
                }
                MemberKind::Symlink => self.symlink(&parent, name, leaf, member)?,
                MemberKind::Char | MemberKind::Block | MemberKind::Fifo => {
                    self.node(&parent, name, leaf, member)?
                }
                MemberKind::Dir => {}
            }
        }
        self.parent = Some((dir, parent));
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        parent: &OwnedFd,
        name: &Name,
        leaf: &[u8],
        member: &Member,
        reader: &mut TarReader<R, RecipeWriter>,
    ) -> Result<()> {
        let file =
            File::from(at::create_at(parent, os(leaf), 0o600).doing(|| "make a file".to_owned())?);
        let whole = [super::sparse::Segment {
            offset: 0,
            len: member.size,
        }];
        let segments = member.segments.as_deref().unwrap_or(&whole);
        if member.segments.is_some() {
            at::set_len(&file, member.size).doing(|| "make a sparse file".to_owned())?;
        }
        for segment in segments.iter().filter(|segment| segment.len > 0) {
            self.spend(segment.len)?;
            reader
                .verbatim()
                .contents(name.as_bytes(), segment.offset, segment.len)?;
            let mut at = segment.offset;
            let done = reader.contents(segment.len, &mut |bytes| {
                file.write_all_at(bytes, at)
                    .doing(|| "write a file".to_owned())?;
                at += bytes.len() as u64;
                Ok(())
            })?;
            if done != segment.len {
                return Err(self.bad(name, "its contents are cut off"));
            }
        }
        self.done.size = self.done.size.saturating_add(member.size);
        self.dress(name, &file, member)?;
        at::set_mtime(&file, member.mtime).doing(|| "set a time".to_owned())
    }

    fn symlink(
        &mut self,
        parent: &OwnedFd,
        name: &Name,
        leaf: &[u8],
        member: &Member,
    ) -> Result<()> {
        if member.link.is_empty()
            || member.link.contains(&0)
            || member.link.len() >= crate::limits::NAME_MAX
        {
            return Err(self.bad(name, "a symbolic link with an impossible target"));
        }
        at::symlink_at(&member.link, parent, os(leaf))
            .doing(|| "make a symbolic link".to_owned())?;
        self.dress_by_name(parent, leaf, member)
    }

    fn node(&mut self, parent: &OwnedFd, name: &Name, leaf: &[u8], member: &Member) -> Result<()> {
        let kind = match member.kind {
            MemberKind::Char => Kind::Char,
            MemberKind::Block => Kind::Block,
            _ => Kind::Fifo,
        };
        if kind == Kind::Char && member.device == (0, 0) {
            return Err(self.bad(name, "device 0:0 is how overlayfs marks a deleted file"));
        }
        at::mknod_at(parent, os(leaf), kind, member.mode, member.device)
            .doing(|| "make a device node".to_owned())?;
        self.dress_by_name(parent, leaf, member)
    }

    fn dress_by_name(&self, parent: &OwnedFd, leaf: &[u8], member: &Member) -> Result<()> {
        at::chown_at(parent, os(leaf), member.uid, member.gid)
            .doing(|| "set an owner".to_owned())?;
        at::set_mtime_at(parent, os(leaf), member.mtime).doing(|| "set a time".to_owned())
    }

    fn dress_dir(&mut self, name: &Name, dir: &OwnedFd, member: &Member) -> Result<()> {
        self.dress(name, dir, member)?;
        self.times.remember(name, member.mtime)
    }

    /// Owner, attributes, mode: in the order in which the kernel takes none of them back.
    fn dress(&self, name: &Name, fd: impl AsFd, member: &Member) -> Result<()> {
        at::chown(&fd, member.uid, member.gid).doing(|| "set an owner".to_owned())?;
        let mut kept = 0;
        for (key, value) in &member.xattrs {
            let capability = key == b"security.capability" && member.kind == MemberKind::File;
            let user = key.starts_with(b"user.") && !tree::is_private_xattr(key);
            if !capability && !user {
                tracing::debug!(layer = %self.what, name = %shown(name.as_bytes()), attribute = %shown(key), "attribute not kept");
                continue;
            }
            kept += 1;
            if kept > XATTRS_MAX
                || value.len() > XATTR_VALUE_MAX
                || key.len() > 255
                || key.contains(&0)
            {
                return Err(self.bad(name, "too many or too large attributes"));
            }
            match xattr::set(&fd, os(key), value) {
                // Without its capability a program would not work, so that is no detail.
                Err(error) if user && error.kind() == ErrorKind::Unsupported => {
                    tracing::warn!(layer = %self.what, name = %shown(name.as_bytes()), attribute = %shown(key), "the file system keeps no such attribute");
                }
                other => other.doing(|| format!("set attribute {}", shown(key)))?,
            }
        }
        at::chmod(&fd, member.mode).doing(|| "set a mode".to_owned())
    }

    /// Where a hard link leads: its directory and name, existing in this layer.
    fn link_source(&self, name: &Name, member: &Member) -> Result<(OwnedFd, Vec<u8>)> {
        let target = Name::clean(&member.link)
            .map_err(|why| self.bad(name, &format!("its target: {why}")))?;
        let Some((dir, leaf)) = target.split() else {
            return Err(self.bad(name, "a hard link to the root"));
        };
        let missing = || {
            let why = format!(
                "a hard link to \"{}\", which is not in this layer",
                shown(&member.link)
            );
            self.bad(name, &why)
        };
        let parent = self.open_dir(&dir)?.ok_or_else(missing)?;
        let found =
            at::find_at(&parent, os(leaf)).doing(|| "look a link's target up".to_owned())?;
        match found {
            Some(meta) if meta.kind == Kind::Dir => {
                Err(self.bad(name, "a hard link to a directory"))
            }
            Some(meta) if !self.marks.is_mark(&meta) => Ok((parent, leaf.to_vec())),
            _ => Err(missing()),
        }
    }

    fn spend(&mut self, bytes: u64) -> Result<()> {
        match self.space.checked_sub(bytes) {
            Some(left) => {
                self.space = left;
                Ok(())
            }
            None => {
                let free = at::free_space(&self.root).unwrap_or(0);
                Err(Error::NoSpace {
                    what: self.what.clone(),
                    needs: bytes,
                    has: free / crate::limits::SPACE_SHARE,
                })
            }
        }
    }

    fn finish(self) -> Result<Unpacked> {
        self.times.apply(&self.root)?;
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests;
