//! How to write a layer's archive again: everything of it but the files' contents, and where those
//! are.
//!
//! A layer's identity is the digest of its archive, and no archive made anew from a directory has
//! the same bytes: order, header format, padding and names differ. So unpacking keeps a *recipe*
//! beside the directory, as tar-split does for Docker: the headers verbatim, and for contents a
//! reference to the unpacked file. The alternative, keeping the archive itself, would cost its whole
//! size a second time; a recipe costs some 30 to 60 bytes a file, for headers compress well.
//!
//! Format: a zstd stream of records. A tag byte, then for
//! - `1` verbatim: length u32, that many bytes;
//! - `2` contents: length of name u16, name, offset u64, length u64;
//! - `0` end.
//!
//! Integers are little-endian. Contents records are numbered from 0. A name that a later member of
//! the same layer replaced is found through [`Displaced`].

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};

use serde::{Deserialize, Serialize};

use super::reader::Verbatim;
use crate::error::{Context, Error, Result};

/// Headers gathered before a record is written.
const GATHER: usize = 64 * 1024;
/// Fast, and headers hardly compress better above.
const LEVEL: i32 = 1;

/// A file or directory that a later member of the same layer replaced. Its old contents were moved to
/// `displaced/<slot>`, because earlier records refer to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Displaced {
    /// Number of the first contents record that does not mean it any more.
    pub(crate) before: u64,
    /// Hex, for names need not be text.
    pub(crate) name: String,
    pub(crate) slot: u32,
}

/// Writes a recipe.
pub(crate) struct RecipeWriter {
    out: zstd::stream::write::Encoder<'static, BufWriter<File>>,
    gathered: Vec<u8>,
    contents: u64,
}

impl std::fmt::Debug for RecipeWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecipeWriter")
            .field("contents", &self.contents)
            .finish_non_exhaustive()
    }
}

impl RecipeWriter {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let out = zstd::stream::write::Encoder::new(BufWriter::new(file), LEVEL)?;
        Ok(RecipeWriter {
            out,
            gathered: Vec::with_capacity(GATHER),
            contents: 0,
        })
    }

    /// The number that the next contents record will have.
    pub(crate) fn next_number(&self) -> u64 {
        self.contents
    }

    /// Contents that are now in the unpacked file `name`.
    pub(crate) fn contents(&mut self, name: &[u8], offset: u64, len: u64) -> Result<()> {
        self.flush_gathered()?;
        let name_len =
            u16::try_from(name.len()).map_err(|_| Error::archive("layer", "a name is too long"))?;
        let mut record = Vec::with_capacity(19 + name.len());
        record.push(2);
        record.extend_from_slice(&name_len.to_le_bytes());
        record.extend_from_slice(name);
        record.extend_from_slice(&offset.to_le_bytes());
        record.extend_from_slice(&len.to_le_bytes());
        self.out.write_all(&record).doing(writing)?;
        self.contents += 1;
        Ok(())
    }

    fn flush_gathered(&mut self) -> Result<()> {
        if !self.gathered.is_empty() {
            write_verbatim(&mut self.out, &self.gathered).doing(writing)?;
            self.gathered.clear();
        }
        Ok(())
    }

    /// Ends the recipe. It is durable when the file system is synced.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush_gathered()?;
        self.out.write_all(&[0]).doing(writing)?;
        self.out
            .finish()
            .and_then(|mut file| file.flush())
            .doing(writing)
    }
}

fn writing() -> String {
    "write a layer's recipe".to_owned()
}

fn write_verbatim(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    for part in bytes.chunks(u32::MAX as usize) {
        out.write_all(&[1])?;
        out.write_all(&(part.len() as u32).to_le_bytes())?;
        out.write_all(part)?;
    }
    Ok(())
}

impl Verbatim for RecipeWriter {
    fn verbatim(&mut self, bytes: &[u8]) -> Result<()> {
        if self.gathered.len() + bytes.len() > GATHER {
            self.flush_gathered()?;
        }
        if bytes.len() > GATHER {
            return write_verbatim(&mut self.out, bytes).doing(writing);
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }
}

/// One step of a recipe.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// These bytes, held by the reader.
    Verbatim(Vec<u8>),
    Contents {
        number: u64,
        name: Vec<u8>,
        offset: u64,
        len: u64,
    },
}

/// Reads a recipe.
pub(crate) struct RecipeReader<R: Read> {
    input: BufReader<zstd::stream::read::Decoder<'static, BufReader<R>>>,
    contents: u64,
}

impl<R: Read> RecipeReader<R> {
    pub(crate) fn new(file: R) -> io::Result<Self> {
        let decoder = zstd::stream::read::Decoder::new(file)?;
        Ok(RecipeReader {
            input: BufReader::with_capacity(GATHER, decoder),
            contents: 0,
        })
    }

    /// The next step; `None` after the last. A recipe without its end is an error.
    pub(crate) fn next_step(&mut self) -> io::Result<Option<Step>> {
        match self.bytes::<1>()?[0] {
            0 => Ok(None),
            1 => {
                let len = u32::from_le_bytes(self.bytes()?);
                let mut bytes = Vec::new();
                let got = self
                    .input
                    .by_ref()
                    .take(u64::from(len))
                    .read_to_end(&mut bytes)?;
                if got as u64 != u64::from(len) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(Some(Step::Verbatim(bytes)))
            }
            2 => {
                let mut name = vec![0; usize::from(u16::from_le_bytes(self.bytes()?))];
                self.input.read_exact(&mut name)?;
                let offset = u64::from_le_bytes(self.bytes()?);
                let len = u64::from_le_bytes(self.bytes()?);
                let number = self.contents;
                self.contents += 1;
                Ok(Some(Step::Contents {
                    number,
                    name,
                    offset,
                    len,
                }))
            }
            other => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("unknown record {other}"),
            )),
        }
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;

    fn written(write: impl FnOnce(&mut RecipeWriter)) -> File {
        let mut file = tempfile::tempfile().unwrap();
        let mut recipe = RecipeWriter::new(file.try_clone().unwrap()).unwrap();
        write(&mut recipe);
        recipe.finish().unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn steps_come_back() {
        let big = vec![7; 3 * GATHER];
        let file = written(|recipe| {
            recipe.verbatim(b"one").unwrap();
            recipe.verbatim(b" two").unwrap();
            recipe.contents(b"a/\xff", 3, u64::MAX).unwrap();
            recipe.verbatim(&big).unwrap();
            assert_eq!(recipe.next_number(), 1);
        });
        let mut reader = RecipeReader::new(file).unwrap();
        assert_eq!(
            reader.next_step().unwrap(),
            Some(Step::Verbatim(b"one two".to_vec()))
        );
        let contents = Step::Contents {
            number: 0,
            name: b"a/\xff".to_vec(),
            offset: 3,
            len: u64::MAX,
        };
        assert_eq!(reader.next_step().unwrap(), Some(contents));
        assert_eq!(reader.next_step().unwrap(), Some(Step::Verbatim(big)));
        assert_eq!(reader.next_step().unwrap(), None);
    }

    #[test]
    fn a_cut_recipe_is_noticed() {
        let mut file = written(|recipe| recipe.verbatim(&[1; 5000]).unwrap());
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes.truncate(bytes.len() - 1);
        let mut reader = RecipeReader::new(&bytes[..]).unwrap();
        let end = loop {
            match reader.next_step() {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        assert!(end.is_err());
    }
}
