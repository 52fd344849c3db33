//! An image archive, taken in whole before anything is made of it.
//!
//! The stream can be read once, its members come in any order, and what says which of them is a layer
//! of what mostly comes last. So their contents go one behind the other into an unnamed file in the
//! ingest directory, hashed on the way, and an index remembers what is where. The file vanishes with
//! its descriptor, also when the agent is killed; what is deleted before the kernel writes it back
//! never reaches the disk.
//!
//! Names inside the archive are looked up in the index and nowhere else.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use berth_model::digest::Digest;
use berth_sys::at;
use sha2::Digest as _;

use crate::archive::compress;
use crate::archive::names::Name;
use crate::archive::pump::{Pieces, pump};
use crate::archive::reader::{Dropped, Member, MemberKind, TarReader};
use crate::error::{Context, Error, Result, shown};
use crate::limits::{ARCHIVE_ENTRIES_MAX, DOCUMENT_MAX, HOPS_MAX, SPACE_SHARE};

const WHAT: &str = "image archive";

/// Contents of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blob {
    offset: u64,
    pub(crate) size: u64,
    pub(crate) digest: Digest,
}

#[derive(Debug)]
enum Entry {
    Blob(Blob),
    /// Another name in the archive, components joined by `/`.
    Alias(Vec<u8>),
}

/// The archive's contents.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    entries: HashMap<Vec<u8>, Entry>,
}

impl Spool {
    /// Takes an archive in, compressed or not. `progress` hears the plain bytes so far.
    pub(crate) fn fill(
        input: &mut dyn Read,
        dir: impl AsFd,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Spool> {
        let file =
            File::from(at::temporary_file(&dir).doing(|| "make a temporary file".to_owned())?);
        let free = at::free_space(&dir).doing(|| "ask for free space".to_owned())?;
        let space = free / SPACE_SHARE;
        let reading = |source| Error::Input {
            what: WHAT.to_owned(),
            source,
        };
        let (_, mut plain) = compress::decoder(Box::new(input)).map_err(reading)?;
        let (spool, _) = pump(&mut *plain, WHAT, false, progress, move |pieces| {
            take(pieces, file, space)
        })?;
        if spool.entries.is_empty() {
            return Err(Error::archive(WHAT, "it is empty"));
        }
        Ok(spool)
    }

    /// The member of this name, links followed inside the archive.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Blob>> {
        let fail =
            |why: &str| Error::archive(format!("{WHAT}: name \"{}\"", shown(name.as_bytes())), why);
        if name.starts_with('/') {
            return Err(fail("it is absolute"));
        }
        let mut name = Name::clean(name.as_bytes())
            .map_err(|why| fail(&why))?
            .as_bytes()
            .to_vec();
        for _ in 0..HOPS_MAX {
            match self.entries.get(&name) {
                None => return Ok(None),
                Some(Entry::Blob(blob)) => return Ok(Some(*blob)),
                Some(Entry::Alias(target)) => name.clone_from(target),
            }
        }
        Err(fail("its links go round in a circle"))
    }

    /// As [`Self::find`], where the archive's own documents say that the member is there.
    pub(crate) fn get(&self, name: &str) -> Result<Blob> {
        self.find(name)?.ok_or_else(|| {
            Error::archive(
                WHAT,
                format!(
                    "\"{}\" is named by it but not in it",
                    shown(name.as_bytes())
                ),
            )
        })
    }

    /// The directories at the top of the archive that hold a file `leaf`, sorted.
    pub(crate) fn dirs_with(&self, leaf: &str) -> Vec<String> {
        let mut dirs: Vec<String> = self
            .entries
            .keys()
            .filter_map(|name| {
                let dir = std::str::from_utf8(name)
                    .ok()?
                    .strip_suffix(leaf)?
                    .strip_suffix('/')?;
                (!dir.is_empty() && !dir.contains('/')).then(|| dir.to_owned())
            })
            .collect();
        dirs.sort_unstable();
        dirs
    }

    /// A whole document, bounded.
    pub(crate) fn document(&self, blob: &Blob, what: &str) -> Result<Vec<u8>> {
        if blob.size > DOCUMENT_MAX {
            return Err(Error::archive(
                what,
                format!("it has {} bytes, more than {DOCUMENT_MAX}", blob.size),
            ));
        }
        let mut bytes = vec![0; blob.size as usize];
        self.file
            .read_exact_at(&mut bytes, blob.offset)
            .doing(|| "read a temporary file".to_owned())?;
        Ok(bytes)
    }

    /// A member's bytes as a stream, and how far it has been read.
    pub(crate) fn stream(&self, blob: &Blob) -> (Stream<'_>, Rc<Cell<u64>>) {
        let done = Rc::new(Cell::new(0));
        (
            Stream {
                file: &self.file,
                blob: *blob,
                done: Rc::clone(&done),
            },
            done,
        )
    }
}

/// See [`Spool::stream`].
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    file: &'a File,
    blob: Blob,
    done: Rc<Cell<u64>>,
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let done = self.done.get();
        let left = usize::try_from(self.blob.size - done)
            .unwrap_or(usize::MAX)
            .min(into.len());
        if left == 0 {
            return Ok(0);
        }
        let got = self
            .file
            .read_at(&mut into[..left], self.blob.offset + done)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.done.set(done + got as u64);
        Ok(got)
    }
}

fn take(pieces: &mut Pieces, file: File, space: u64) -> Result<Spool> {
    let mut reader = TarReader::new(pieces, Dropped, WHAT);
    let mut entries = HashMap::new();
    let mut end = 0;
    let mut members = 0;
    while let Some(member) = reader.next_member()? {
        members += 1;
        if members > ARCHIVE_ENTRIES_MAX {
            return Err(reader.bad(format!("more than {ARCHIVE_ENTRIES_MAX} members")));
        }
        let Ok(name) = Name::clean(&member.name) else {
            return Err(reader.bad(format!(
                "member \"{}\" has an impossible name",
                shown(&member.name)
            )));
        };
        match member.kind {
            MemberKind::File if member.segments.is_some() => {
                return Err(Error::unsupported(
                    WHAT,
                    format!("member \"{}\" is sparse", shown(&member.name)),
                ));
            }
            MemberKind::File => {
                if end + member.size > space {
                    return Err(Error::NoSpace {
                        what: WHAT.to_owned(),
                        needs: end + member.size,
                        has: space,
                    });
                }
                let offset = end;
                let mut hasher = sha2::Sha256::new();
                reader.contents(u64::MAX, &mut |bytes| {
                    hasher.update(bytes);
                    file.write_all_at(bytes, end)
                        .doing(|| "write a temporary file".to_owned())?;
                    end += bytes.len() as u64;
                    Ok(())
                })?;
                let digest = Digest::from_bytes(hasher.finalize().into());
                // Of members with one name the last counts, as when unpacking.
                entries.insert(
                    name.as_bytes().to_vec(),
                    Entry::Blob(Blob {
                        offset,
                        size: end - offset,
                        digest,
                    }),
                );
            }
            MemberKind::Symlink | MemberKind::HardLink => {
                // One that leads out of the archive stays unknown: whoever names it is told so.
                if let Some(target) = alias(&name, &member) {
                    entries.insert(name.as_bytes().to_vec(), Entry::Alias(target));
                }
            }
            // Directories mean nothing here; nodes have no contents.
            MemberKind::Dir | MemberKind::Char | MemberKind::Block | MemberKind::Fifo => {}
        }
    }
    reader.finish()?;
    Ok(Spool { file, entries })
}

/// What a link means inside the archive: hard links count from its top, symbolic ones from their
/// directory. `None` when it leads out.
fn alias(name: &Name, member: &Member) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    if member.kind == MemberKind::Symlink {
        if member.link.starts_with(b"/") {
            return None;
        }
        parts.extend(name.parts());
        parts.pop();
    }
    for part in member.link.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliased(kind: MemberKind, name: &str, link: &str) -> Option<String> {
        let member = Member {
            kind,
            name: name.into(),
            link: link.into(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: at::FileTime::default(),
            size: 0,
            device: (0, 0),
            xattrs: vec![],
            segments: None,
        };
        alias(&Name::clean(name.as_bytes()).unwrap(), &member)
            .map(|to| String::from_utf8(to).unwrap())
    }

    #[test]
    fn links_stay_inside() {
        use MemberKind::{HardLink, Symlink};
        assert_eq!(
            aliased(Symlink, "b/layer.tar", "../a/layer.tar").as_deref(),
            Some("a/layer.tar")
        );
        assert_eq!(aliased(Symlink, "b/layer.tar", "../../etc/shadow"), None);
        assert_eq!(aliased(Symlink, "manifest.json", "/etc/shadow"), None);
        assert_eq!(aliased(Symlink, "x", "./y//z").as_deref(), Some("y/z"));
        assert_eq!(
            aliased(HardLink, "b/layer.tar", "a/layer.tar").as_deref(),
            Some("a/layer.tar")
        );
        assert_eq!(aliased(HardLink, "b/layer.tar", "../a"), None);
    }
}
