//! A layer's archive, written again from its recipe and its files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use berth_model::digest::Digest;
use berth_sys::at;
use berth_sys::path::{self, OFlags};
use sha2::Digest as _;

use super::names::Name;
use super::recipe::{Displaced, RecipeReader, Step};
use crate::error::{Context, Error, Result, shown};
use crate::tree::os;

/// What a layer's archive is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) recipe: File,
    /// The layer's directory.
    pub(crate) root: OwnedFd,
    /// What later members replaced.
    pub(crate) aside: OwnedFd,
    pub(crate) displaced: &'a [Displaced],
    /// Names the layer in errors.
    pub(crate) what: String,
}

/// Writes the archive, and gives its digest and length for the caller to compare.
pub(crate) fn rebuild(parts: Parts<'_>, out: &mut dyn Write) -> Result<(Digest, u64)> {
    let what = parts.what.clone();
    let displaced = index(parts.displaced)
        .ok_or_else(|| Error::damaged(&what, "its record of replaced names"))?;
    let mut recipe =
        RecipeReader::new(parts.recipe).doing(|| format!("read the recipe of {what}"))?;
    let mut out = Hashing {
        out,
        hasher: sha2::Sha256::new(),
        len: 0,
    };
    let mut buffer = vec![0; 256 * 1024];
    let mut dir: Option<(Vec<u8>, OwnedFd)> = None;
    while let Some(step) = recipe
        .next_step()
        .doing(|| format!("read the recipe of {what}"))?
    {
        match step {
            Step::Verbatim(bytes) => out.write(&bytes)?,
            Step::Contents {
                number,
                name,
                offset,
                len,
            } => {
                let clean = Name::clean(&name).map_err(|why| Error::damaged(&what, why))?;
                let file = match slot_of(&displaced, &clean, number) {
                    Some((slot, rest)) => open_aside(&parts.aside, slot, rest),
                    None => open_cached(&parts.root, &clean, &mut dir),
                }
                .doing(|| format!("open \"{}\" of {what}", shown(&name)))?;
                let file = File::from(file);
                let mut at = offset;
                let end = offset
                    .checked_add(len)
                    .ok_or_else(|| Error::damaged(&what, "its recipe"))?;
                while at < end {
                    let want = buffer
                        .len()
                        .min(usize::try_from(end - at).unwrap_or(usize::MAX));
                    let got = file
                        .read_at(&mut buffer[..want], at)
                        .doing(|| format!("read \"{}\" of {what}", shown(&name)))?;
                    if got == 0 {
                        return Err(Error::damaged(
                            &what,
                            format!("\"{}\" is shorter than it was", shown(&name)),
                        ));
                    }
                    out.write(&buffer[..got])?;
                    at += got as u64;
                }
            }
        }
    }
    Ok((Digest::from_bytes(out.hasher.finalize().into()), out.len))
}

/// Replaced names in the order in which they were replaced: first contents record that does not mean
/// it any more, name, slot.
type Index = HashMap<Vec<u8>, Vec<(u64, u32)>>;

fn index(displaced: &[Displaced]) -> Option<Index> {
    let mut index = Index::new();
    for entry in displaced {
        index
            .entry(hex::decode(&entry.name).ok()?)
            .or_default()
            .push((entry.before, entry.slot));
    }
    Some(index)
}

/// Where the contents of record `number` went, if its name or a directory above it was replaced
/// afterwards: the slot of the earliest replacement, and what of the name is left below it.
fn slot_of<'a>(index: &Index, name: &'a Name, number: u64) -> Option<(u32, &'a [u8])> {
    if index.is_empty() {
        return None;
    }
    let bytes = name.as_bytes();
    let ends = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(at, _)| at)
        .chain([bytes.len()]);
    ends.filter_map(|end| {
        let slots = index.get(&bytes[..end])?;
        let (before, slot) = slots.iter().find(|(before, _)| *before > number)?;
        let rest = bytes[end..].strip_prefix(b"/").unwrap_or(&bytes[end..]);
        Some((*before, *slot, rest))
    })
    .min_by_key(|(before, slot, _)| (*before, *slot))
    .map(|(_, slot, rest)| (slot, rest))
}

fn open_aside(aside: &OwnedFd, slot: u32, rest: &[u8]) -> std::io::Result<OwnedFd> {
    let mut path = slot.to_string().into_bytes();
    if !rest.is_empty() {
        path.push(b'/');
        path.extend_from_slice(rest);
    }
    regular(path::open_beneath(
        aside,
        os(&path),
        OFlags::RDONLY | OFlags::NONBLOCK,
        0,
    )?)
}

/// Opens a file through its directory, which is kept for the next one.
fn open_cached(
    root: &OwnedFd,
    name: &Name,
    cache: &mut Option<(Vec<u8>, OwnedFd)>,
) -> std::io::Result<OwnedFd> {
    let Some((parent, leaf)) = name.split() else {
        return Err(std::io::ErrorKind::IsADirectory.into());
    };
    if cache
        .as_ref()
        .is_none_or(|(known, _)| known != parent.as_bytes())
    {
        let path = if parent.is_root() {
            &b"."[..]
        } else {
            parent.as_bytes()
        };
        let dir = path::open_beneath(root, os(path), OFlags::PATH | OFlags::DIRECTORY, 0)?;
        *cache = Some((parent.as_bytes().to_vec(), dir));
    }
    let Some((_, dir)) = cache else {
        return Err(std::io::ErrorKind::NotFound.into());
    };
    regular(path::open_beneath(
        dir,
        os(leaf),
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW,
        0,
    )?)
}

fn regular(fd: OwnedFd) -> std::io::Result<OwnedFd> {
    if at::stat(&fd)?.kind == at::Kind::File {
        Ok(fd)
    } else {
        Err(std::io::Error::other("not a regular file any more"))
    }
}

struct Hashing<'a> {
    out: &'a mut dyn Write,
    hasher: sha2::Sha256,
    len: u64,
}

impl Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        self.out.write_all(bytes).map_err(Error::Output)
    }
}

/// The digest and length of a stream.
pub(crate) fn digest_of(input: &mut dyn Read, what: &str) -> Result<(Digest, u64)> {
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut len = 0;
    loop {
        let got = match input.read(&mut buffer) {
            Ok(0) => return Ok((Digest::from_bytes(hasher.finalize().into()), len)),
            Ok(got) => got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(source) => {
                return Err(Error::Input {
                    what: what.to_owned(),
                    source,
                });
            }
        };
        hasher.update(&buffer[..got]);
        len += got as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_names_are_found_where_they_went() {
        let entry = |before, name: &str, slot| Displaced {
            before,
            name: hex::encode(name),
            slot,
        };
        // a/b replaced before record 2; then all of a before record 5; then a/b again before 9.
        let index = index(&[entry(2, "a/b", 0), entry(5, "a", 1), entry(9, "a/b", 2)]).unwrap();
        let slot = |name: &str, number| {
            slot_of(&index, &Name::clean(name.as_bytes()).unwrap(), number)
                .map(|(slot, rest)| (slot, rest.to_vec()))
        };
        assert_eq!(slot("a/b", 1), Some((0, vec![])));
        assert_eq!(slot("a/b/c", 0), Some((0, b"c".to_vec())));
        assert_eq!(slot("a/b", 2), Some((1, b"b".to_vec())));
        assert_eq!(slot("a/x", 4), Some((1, b"x".to_vec())));
        assert_eq!(slot("a/b", 5), Some((2, vec![])));
        assert_eq!(slot("a/b", 9), None);
        assert_eq!(slot("ab", 0), None);
    }
}
