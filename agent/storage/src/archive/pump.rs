//! One thread reads, decompresses and hashes; another works on the bytes. The two meet over a
//! bounded queue, so a slow one holds the other back and memory stays bounded.
//!
//! The reader stays on the caller's thread because what the caller handed in need not be `Send`.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use berth_model::digest::Digest;
use sha2::Digest as _;

use crate::error::{Error, Result};

/// Bytes in one piece, and pieces under way: 2 MiB in all.
const PIECE: usize = 256 * 1024;
const PIECES: usize = 8;

/// What came through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed {
    pub(crate) bytes: u64,
    /// Of all bytes, when hashing was asked for.
    pub(crate) digest: Option<Digest>,
}

/// Runs `work` on a thread of its own over the bytes of `input`. `work` must read to the end, or
/// fail; `progress` hears how many bytes have passed. An error of the input outweighs the one that
/// the worker makes of it.
pub(crate) fn pump<T: Send>(
    input: &mut dyn Read,
    what: &str,
    hash: bool,
    progress: &mut dyn FnMut(u64),
    work: impl FnOnce(&mut Pieces) -> Result<T> + Send,
) -> Result<(T, Passed)> {
    std::thread::scope(|scope| {
        let (full, pieces) = sync_channel::<io::Result<Vec<u8>>>(PIECES);
        let (used, spare) = sync_channel::<Vec<u8>>(PIECES + 2);
        let worker = std::thread::Builder::new()
            .name("berth-unpack".to_owned())
            .spawn_scoped(scope, move || {
                let mut pieces = Pieces {
                    full: pieces,
                    used,
                    piece: Vec::new(),
                    at: 0,
                    ended: false,
                };
                work(&mut pieces)
            })
            .map_err(|source| Error::Io {
                what: "start a thread".to_owned(),
                source,
            })?;
        let passed = feed(input, what, hash, progress, &full, &spare);
        drop(full);
        let worked = worker.join().map_err(|_| Error::Io {
            what: format!("work on {what}"),
            source: io::Error::other("its thread panicked"),
        })?;
        let passed = passed?;
        Ok((worked?, passed))
    })
}

fn feed(
    input: &mut dyn Read,
    what: &str,
    hash: bool,
    progress: &mut dyn FnMut(u64),
    full: &SyncSender<io::Result<Vec<u8>>>,
    spare: &Receiver<Vec<u8>>,
) -> Result<Passed> {
    let mut hasher = hash.then(sha2::Sha256::new);
    let mut bytes = 0;
    loop {
        let mut piece = spare.try_recv().unwrap_or_default();
        piece.clear();
        match input.take(PIECE as u64).read_to_end(&mut piece) {
            Ok(0) => break,
            Ok(_) => {}
            Err(source) => {
                // The worker must not take a broken input for a short one.
                let copy = io::Error::new(source.kind(), source.to_string());
                let _ = full.send(Err(copy));
                return Err(Error::Input {
                    what: what.to_owned(),
                    source,
                });
            }
        }
        bytes += piece.len() as u64;
        if let Some(hasher) = &mut hasher {
            hasher.update(&piece);
        }
        if full.send(Ok(piece)).is_err() {
            // The worker has given up; its error is the answer.
            break;
        }
        progress(bytes);
    }
    Ok(Passed {
        bytes,
        digest: hasher.map(|hasher| Digest::from_bytes(hasher.finalize().into())),
    })
}

/// The worker's end.
#[derive(Debug)]
pub(crate) struct Pieces {
    full: Receiver<io::Result<Vec<u8>>>,
    used: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() && !self.ended {
            match self.full.recv() {
                Ok(Ok(piece)) => {
                    let old = std::mem::replace(&mut self.piece, piece);
                    self.at = 0;
                    // A buffer that finds no place is freed instead.
                    let _ = self.used.try_send(old);
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    self.ended = true;
                    self.piece.clear();
                    self.at = 0;
                }
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at = (self.at + amount).min(self.piece.len());
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let len = chunk.len().min(into.len());
        into[..len].copy_from_slice(&chunk[..len]);
        self.consume(len);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i / 7) as u8).collect()
    }

    #[test]
    fn all_bytes_pass_and_are_hashed() {
        for len in [0, 1, PIECE, 40 * PIECE + 17] {
            let text = text(len);
            let mut heard = 0;
            let (read, passed) = pump(
                &mut &text[..],
                "test",
                true,
                &mut |at| heard = at,
                |pieces| {
                    let mut all = Vec::new();
                    pieces.read_to_end(&mut all).unwrap();
                    Ok(all)
                },
            )
            .unwrap();
            assert!(read == text);
            assert_eq!(passed.digest, Some(Digest::of(&text)));
            assert_eq!((passed.bytes, heard), (len as u64, len as u64));
        }
    }

    #[test]
    fn either_side_may_fail() {
        let text = text(100 * PIECE);
        let error = pump(&mut &text[..], "test", false, &mut |_| {}, |_| {
            Err::<(), _>(Error::archive("x", "gave up"))
        });
        assert!(matches!(error, Err(Error::Archive { .. })));

        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let mut input = (&text[..1000]).chain(Broken);
        let error = pump(&mut input, "test", false, &mut |_| {}, |pieces| {
            let mut all = Vec::new();
            pieces
                .read_to_end(&mut all)
                .map_err(|_| Error::archive("x", "short"))?;
            Ok(())
        });
        assert!(matches!(error, Err(Error::Input { .. })), "{error:?}");
    }

    #[test]
    fn a_panic_is_an_error() {
        let error = pump(
            &mut &b"x"[..],
            "test",
            false,
            &mut |_| {},
            |_| -> Result<()> { panic!("on purpose") },
        );
        assert!(matches!(error, Err(Error::Io { .. })));
    }
}
