//! Directories' times, set after everything else: each name made in a directory changes its time.
//!
//! The list of directories is kept in an unnamed file, not in memory, because an archive may have
//! millions of them.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::AsFd;

use berth_sys::at::{self, FileTime};
use berth_sys::path::{self, OFlags};

use super::names::Name;
use crate::error::{Context, Result};
use crate::tree::os;

/// The times to set.
#[derive(Debug)]
pub(crate) struct Times {
    file: BufWriter<File>,
}

impl Times {
    /// Keeps its list in an unnamed file in `dir`.
    pub(crate) fn new(dir: impl AsFd) -> Result<Self> {
        let file = at::temporary_file(dir).doing(|| "make a temporary file".to_owned())?;
        Ok(Times {
            file: BufWriter::new(File::from(file)),
        })
    }

    /// Remembers a directory's time; of several for one directory the last counts.
    pub(crate) fn remember(&mut self, name: &Name, time: FileTime) -> Result<()> {
        let bytes = name.as_bytes();
        // Names are below 4,096 bytes.
        let len = (bytes.len() as u16).to_le_bytes();
        let parts: [&[u8]; 4] = [
            &len,
            bytes,
            &time.secs.to_le_bytes(),
            &time.nanos.to_le_bytes(),
        ];
        parts
            .iter()
            .try_for_each(|part| self.file.write_all(part))
            .doing(|| "write a temporary file".to_owned())
    }

    /// Sets all of them. A directory that has gone since, or become something else, is passed over.
    pub(crate) fn apply(self, root: impl AsFd) -> Result<()> {
        let reading = || "read a temporary file".to_owned();
        let mut file = self
            .file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .doing(reading)?;
        file.rewind().doing(reading)?;
        let mut input = BufReader::new(file);
        loop {
            let mut len = [0; 2];
            match input.read_exact(&mut len) {
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other.doing(reading)?,
            }
            let mut name = vec![0; usize::from(u16::from_le_bytes(len))];
            let (mut secs, mut nanos) = ([0; 8], [0; 4]);
            input.read_exact(&mut name).doing(reading)?;
            input.read_exact(&mut secs).doing(reading)?;
            input.read_exact(&mut nanos).doing(reading)?;
            let path = if name.is_empty() {
                &b"."[..]
            } else {
                &name[..]
            };
            let Ok(dir) =
                path::open_beneath(&root, os(path), OFlags::RDONLY | OFlags::DIRECTORY, 0)
            else {
                continue;
            };
            let time = FileTime {
                secs: i64::from_le_bytes(secs),
                nanos: u32::from_le_bytes(nanos),
            };
            at::set_mtime(&dir, time).doing(|| "set a directory's time".to_owned())?;
        }
    }
}
