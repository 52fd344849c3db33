//! Writing the archive of `save`: plain files of known size, the same bytes every time.

use std::io::Write;

use tar::{EntryType, Header};

use crate::error::{Error, Result};

const BLOCK: u64 = 512;

/// Writes members whose owner is root and whose time is the epoch: an archive's bytes depend on its
/// contents alone.
pub(crate) struct TarWriter<'a> {
    out: &'a mut dyn Write,
}

impl<'a> TarWriter<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        TarWriter { out }
    }

    pub(crate) fn dir(&mut self, name: &str) -> Result<()> {
        self.header(name, EntryType::Directory, 0o755, 0)
    }

    pub(crate) fn file(&mut self, name: &str, contents: &[u8]) -> Result<()> {
        self.streamed(name, contents.len() as u64, |out| {
            out.write_all(contents).map_err(Error::Output)
        })
    }

    /// A file whose contents `write` makes; it must write `size` bytes.
    pub(crate) fn streamed(
        &mut self,
        name: &str,
        size: u64,
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        self.header(name, EntryType::Regular, 0o644, size)?;
        write(self.out)?;
        let padding = (BLOCK - size % BLOCK) % BLOCK;
        self.zeros(padding)
    }

    fn header(&mut self, name: &str, kind: EntryType, mode: u32, size: u64) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_path(name).map_err(Error::Output)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(Error::Output)
    }

    fn zeros(&mut self, count: u64) -> Result<()> {
        // Never more than the two final blocks.
        let zeros = [0; 2 * BLOCK as usize];
        self.out
            .write_all(&zeros[..count as usize])
            .map_err(Error::Output)
    }

    /// The two blocks of zeros that end an archive.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.zeros(2 * BLOCK)?;
        self.out.flush().map_err(Error::Output)
    }
}
