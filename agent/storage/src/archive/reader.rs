//! The members of a tar archive, one after the other, from a stream that is read once.
//!
//! Where readers of tar disagree, this one does as Go's `archive/tar` does, because the images in
//! the field are made and read with it; where the archive is ambiguous (two extended headers for one
//! member, a cut block) it is refused. Everything but the contents of regular files is handed to a
//! [`Verbatim`] as well, so that the archive can be written again byte for byte.

use std::io::{self, BufRead};

use berth_sys::at::FileTime;
use tar::Header;

use super::pax::{self, Pax};
use super::sparse::{MapText, Segment, segments};
use crate::error::{Error, Result, shown};
use crate::limits::PAX_MAX;

const BLOCK: usize = 512;

/// Receives every byte of the archive that is not the contents of a regular file.
pub(crate) trait Verbatim {
    fn verbatim(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Nobody wants them.
#[derive(Debug)]
pub(crate) struct Dropped;

impl Verbatim for Dropped {
    fn verbatim(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Dir,
    Fifo,
}

/// One member, its extended headers applied. Names are as the archive has them, not yet cleaned.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) kind: MemberKind,
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    /// Permission bits with set-id and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: FileTime,
    /// Bytes of the file once unpacked.
    pub(crate) size: u64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The ranges that the contents fill, for a sparse file.
    pub(crate) segments: Option<Vec<Segment>>,
}

/// Reads members. `what` names the archive in errors.
pub(crate) struct TarReader<R, V> {
    input: R,
    verbatim: V,
    what: String,
    /// Contents of the present member that nobody has read yet.
    left: u64,
    /// Padding behind them.
    padding: usize,
    ended: bool,
}

impl<R: BufRead, V: Verbatim> TarReader<R, V> {
    pub(crate) fn new(input: R, verbatim: V, what: impl Into<String>) -> Self {
        TarReader {
            input,
            verbatim,
            what: what.into(),
            left: 0,
            padding: 0,
            ended: false,
        }
    }

    pub(crate) fn verbatim(&mut self) -> &mut V {
        &mut self.verbatim
    }

    pub(crate) fn bad(&self, why: impl Into<String>) -> Error {
        Error::archive(&self.what, why)
    }

    /// The next member, or `None` at the archive's end. Contents not read are skipped.
    pub(crate) fn next_member(&mut self) -> Result<Option<Member>> {
        let mut extended: Option<Pax> = None;
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                if extended.is_some() || long_name.is_some() || long_link.is_some() {
                    return Err(self.bad("the archive ends after an extended header"));
                }
                return Ok(None);
            };
            let stored = self.number(&header.as_old().size, "size")?;
            let flag = header.as_old().linkflag[0];
            match flag {
                b'x' => {
                    let block = self.extension(stored)?;
                    if extended
                        .replace(pax::parse(&block).map_err(|why| self.bad(why))?)
                        .is_some()
                    {
                        return Err(self.bad("two extended headers for one member"));
                    }
                }
                // Global headers are comments of git and the like; Go's reader applies none of them.
                b'g' => {
                    self.extension(stored)?;
                }
                b'L' if long_name.is_none() => {
                    long_name = Some(cut_at_nul(self.extension(stored)?))
                }
                b'K' if long_link.is_none() => {
                    long_link = Some(cut_at_nul(self.extension(stored)?))
                }
                b'L' | b'K' => return Err(self.bad("two long names for one member")),
                _ => {
                    let pax = extended.take().unwrap_or_default();
                    return self
                        .member(&header, flag, stored, pax, long_name, long_link)
                        .map(Some);
                }
            }
        }
    }

    fn member(
        &mut self,
        header: &Header,
        flag: u8,
        stored: u64,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Member> {
        let mut name = long_name
            .or_else(|| pax.path.clone())
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = long_link.or_else(|| pax.link.clone()).unwrap_or_else(|| {
            header
                .link_name_bytes()
                .map(|link| link.into_owned())
                .unwrap_or_default()
        });
        let fail = |why: String| {
            Error::archive(format!("{}: member \"{}\"", self.what, shown(&name)), why)
        };
        let kind = match flag {
            // The oldest format has no type for directories, only their slash.
            0 if name.ends_with(b"/") => MemberKind::Dir,
            0 | b'0' | b'7' | b'S' => MemberKind::File,
            b'1' => MemberKind::HardLink,
            b'2' => MemberKind::Symlink,
            b'3' => MemberKind::Char,
            b'4' => MemberKind::Block,
            b'5' => MemberKind::Dir,
            b'6' => MemberKind::Fifo,
            other => {
                return Err(fail(format!(
                    "unhandled tar header type {:?}",
                    char::from(other)
                )));
            }
        };
        let old = header.as_old();
        let id = |field: &[u8], over: Option<u64>, what: &str| -> Result<u32> {
            let plain = pax::field(field).map_err(|error| fail(format!("{what}: {error}")))?;
            let id = over.or(u64::try_from(plain).ok());
            id.and_then(|id| u32::try_from(id).ok())
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| fail(format!("the {what} is not between 0 and 4294967294")))
        };
        let uid = id(&old.uid, pax.uid, "user number")?;
        let gid = id(&old.gid, pax.gid, "group number")?;
        let mode = pax::field(&old.mode).map_err(|error| fail(format!("mode: {error}")))?;
        let secs = pax::field(&old.mtime).map_err(|error| fail(format!("time: {error}")))?;
        let device = match kind {
            MemberKind::Char | MemberKind::Block => {
                device(header).map_err(|error| fail(format!("device: {error}")))?
            }
            _ => (0, 0),
        };
        // An extended header's size must count, or this reader and others would see different members.
        let stored = pax.size.unwrap_or(stored);
        let mut size = stored;
        let mut list = None;
        if kind == MemberKind::File {
            self.open_contents(stored)?;
            if flag == b'S' {
                let (real, map) = self.old_sparse(header)?;
                size = real;
                list = Some(segments(&map, real, stored).map_err(|why| self.bad(why))?);
            } else if let Some((real, map)) = self.pax_sparse(&pax, stored)? {
                if let Some(real_name) = pax.sparse.name {
                    name = real_name;
                }
                size = real;
                list = Some(segments(&map, real, self.left).map_err(|why| self.bad(why))?);
            }
        } else {
            // Only files have contents, whatever the header's size says.
            size = 0;
        }
        Ok(Member {
            kind,
            name,
            link,
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            uid,
            gid,
            mtime: pax.mtime.unwrap_or(FileTime { secs, nanos: 0 }),
            size,
            device,
            xattrs: pax.xattrs,
            segments: list,
        })
    }

    fn open_contents(&mut self, stored: u64) -> Result<()> {
        if i64::try_from(stored).is_err() {
            return Err(self.bad("a member is larger than any file can be"));
        }
        self.left = stored;
        self.padding = ((BLOCK as u64 - stored % BLOCK as u64) % BLOCK as u64) as usize;
        Ok(())
    }

    /// The map of GNU tar's own sparse header, and the file's real size.
    fn old_sparse(&mut self, header: &Header) -> Result<(u64, Vec<u64>)> {
        let gnu = header
            .as_gnu()
            .ok_or_else(|| self.bad("a sparse member without GNU header"))?;
        let real = self.number(&gnu.realsize, "size")?;
        let mut map = Vec::new();
        for entry in &gnu.sparse {
            self.old_sparse_entry(entry, &mut map)?;
        }
        let mut more = gnu.is_extended();
        while more {
            let mut ext = tar::GnuExtSparseHeader::new();
            if !self.block(ext.as_mut_bytes())? {
                return Err(self.bad("the archive ends within a sparse header"));
            }
            for entry in ext.sparse() {
                self.old_sparse_entry(entry, &mut map)?;
            }
            more = ext.is_extended();
            if map.len() > 2 * crate::limits::SPARSE_SEGMENTS_MAX {
                return Err(self.bad("the sparse map has too many entries"));
            }
        }
        Ok((real, map))
    }

    fn old_sparse_entry(&self, entry: &tar::GnuSparseHeader, map: &mut Vec<u64>) -> Result<()> {
        if entry.offset[0] != 0 && entry.numbytes[0] != 0 {
            map.push(self.number(&entry.offset, "sparse map")?);
            map.push(self.number(&entry.numbytes, "sparse map")?);
        }
        Ok(())
    }

    /// The map of a pax sparse format, if the member is in one.
    fn pax_sparse(&mut self, pax: &Pax, stored: u64) -> Result<Option<(u64, Vec<u64>)>> {
        let sparse = &pax.sparse;
        let format = (sparse.major.as_deref(), sparse.minor.as_deref());
        let in_data = match format {
            (Some(b"1"), Some(b"0")) => true,
            (Some(b"0"), Some(b"0" | b"1")) => false,
            (None, None) if sparse.map_seen => false,
            (None, None) => return Ok(None),
            _ => return Err(self.bad("a sparse member in an unknown format")),
        };
        let real = sparse
            .size
            .ok_or_else(|| self.bad("a sparse member without its real size"))?;
        if !in_data {
            return Ok(Some((real, sparse.map.clone())));
        }
        let mut text = MapText::default();
        let mut taken = 0;
        loop {
            let mut block = [0; BLOCK];
            taken += BLOCK as u64;
            if taken > stored || !self.block(&mut block)? {
                return Err(self.bad("the sparse map is cut off"));
            }
            if taken > 2 * PAX_MAX {
                return Err(self.bad("the sparse map is too long"));
            }
            if text.block(&block).map_err(|why| self.bad(why))? {
                break;
            }
        }
        self.left = stored - taken;
        Ok(Some((real, text.into_map())))
    }

    /// Hands up to `limit` bytes of the present member's contents to `take`, piece by piece; gives how
    /// many there were.
    pub(crate) fn contents(
        &mut self,
        limit: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<u64> {
        let mut done = 0;
        while done < limit && self.left > 0 {
            let chunk = fill(&mut self.input, &self.what)?;
            if chunk.is_empty() {
                return Err(Error::archive(
                    &self.what,
                    "the archive ends within a member",
                ));
            }
            let want = usize::try_from(self.left.min(limit - done))
                .unwrap_or(usize::MAX)
                .min(chunk.len());
            take(&chunk[..want])?;
            self.input.consume(want);
            self.left -= want as u64;
            done += want as u64;
        }
        Ok(done)
    }

    /// Reads on to the end of the stream behind the archive's end, so that nothing is left out of
    /// its digest; gives the number of bytes.
    pub(crate) fn finish(&mut self) -> Result<u64> {
        self.skip_rest()?;
        let mut trailing = 0;
        loop {
            let chunk = fill(&mut self.input, &self.what)?;
            let len = chunk.len();
            if len == 0 {
                return Ok(trailing);
            }
            self.verbatim.verbatim(chunk)?;
            self.input.consume(len);
            trailing += len as u64;
        }
    }

    pub(crate) fn into_verbatim(self) -> V {
        self.verbatim
    }

    /// Skips what is left of the present member. Contents that nobody took are verbatim too.
    fn skip_rest(&mut self) -> Result<()> {
        let mut left = self.left + self.padding as u64;
        while left > 0 {
            let chunk = fill(&mut self.input, &self.what)?;
            if chunk.is_empty() {
                // A missing last padding is as common as it is harmless.
                if self.left == 0 {
                    self.ended = true;
                    break;
                }
                return Err(Error::archive(
                    &self.what,
                    "the archive ends within a member",
                ));
            }
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            self.verbatim.verbatim(&chunk[..want])?;
            self.input.consume(want);
            self.left = self.left.saturating_sub(want as u64);
            left -= want as u64;
        }
        self.left = 0;
        self.padding = 0;
        Ok(())
    }

    /// The contents of an extended header, bounded.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > PAX_MAX {
            return Err(self.bad(format!(
                "an extended header of {size} bytes, more than {PAX_MAX}"
            )));
        }
        let padded = (size as usize).next_multiple_of(BLOCK);
        let mut block = vec![0; padded];
        if padded > 0 && !self.block(&mut block)? {
            return Err(self.bad("the archive ends within an extended header"));
        }
        block.truncate(size as usize);
        Ok(block)
    }

    /// The next header that is not zeros; `None` at the end.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        if self.ended || !self.block(header.as_mut_bytes())? {
            self.ended = true;
            return Ok(None);
        }
        if is_zero(header.as_bytes()) {
            self.ended = true;
            let mut second = [0; BLOCK];
            if self.block(&mut second)? && !is_zero(&second) {
                return Err(self.bad("a lone block of zeros within the archive"));
            }
            return Ok(None);
        }
        let stated =
            pax::field(&header.as_old().cksum).map_err(|_| self.bad("not a tar archive"))?;
        let bytes = header.as_bytes().iter().enumerate();
        // The checksum's own field counts as blanks; ancient writers summed signed bytes.
        let blanked = bytes.map(|(at, byte)| {
            if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            }
        });
        let (unsigned, signed) = blanked.fold((0i64, 0i64), |(u, s), byte| {
            (u + i64::from(byte), s + i64::from(byte as i8))
        });
        if stated != unsigned && stated != signed {
            return Err(
                self.bad("not a tar archive, or a damaged one: a header's checksum is wrong")
            );
        }
        Ok(Some(header))
    }

    /// Fills a block; `false` when the stream ended before its first byte.
    fn block(&mut self, block: &mut [u8]) -> Result<bool> {
        let mut filled = 0;
        while filled < block.len() {
            let chunk = fill(&mut self.input, &self.what)?;
            if chunk.is_empty() {
                if filled == 0 {
                    return Ok(false);
                }
                return Err(Error::archive(
                    &self.what,
                    "the archive ends within a block",
                ));
            }
            let want = chunk.len().min(block.len() - filled);
            block[filled..filled + want].copy_from_slice(&chunk[..want]);
            self.input.consume(want);
            filled += want;
        }
        self.verbatim.verbatim(block)?;
        Ok(true)
    }

    fn number(&self, field: &[u8], what: &str) -> Result<u64> {
        let value = pax::field(field).map_err(|error| self.bad(format!("{what}: {error}")))?;
        u64::try_from(value).map_err(|_| self.bad(format!("{what}: a negative number")))
    }
}

fn fill<'a, R: BufRead>(input: &'a mut R, what: &str) -> Result<&'a [u8]> {
    // Probing and then asking again lets the borrow end before an interrupted call is repeated.
    loop {
        match input.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(Error::Input {
                    what: what.to_owned(),
                    source,
                });
            }
        }
    }
    input.fill_buf().map_err(|source| Error::Input {
        what: what.to_owned(),
        source,
    })
}

fn device(header: &Header) -> io::Result<(u32, u32)> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (_, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        _ => return Ok((0, 0)),
    };
    let number = |field| {
        u32::try_from(pax::field(field)?)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "number out of range"))
    };
    Ok((number(major)?, number(minor)?))
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn cut_at_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(at) = name.iter().position(|byte| *byte == 0) {
        name.truncate(at);
    }
    name
}

#[cfg(test)]
mod tests;
