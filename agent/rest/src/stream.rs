//! Between blocking threads and connections: archives come in and go out through bounded queues, so a
//! slow client slows the thread and a fast one cannot fill the memory. When either side goes away the
//! other finds out at its next piece.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::body::Pieces;
use crate::limits;

/// A request's body as a blocking reader.
#[derive(Debug)]
pub(crate) struct BodyReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    /// The body is complete; a channel that closes without this was cut.
    End,
    Failed(io::Error),
}

impl BodyReader {
    /// Begins to read `body`, no further ahead than the queue holds.
    pub(crate) fn start(body: Incoming) -> Self {
        let (sender, pieces) = mpsc::channel(limits::STREAM_PIECES);
        tokio::spawn(feed(body, sender));
        Self {
            pieces,
            current: Bytes::new(),
            ended: false,
        }
    }
}

async fn feed(mut body: Incoming, sender: mpsc::Sender<Piece>) {
    loop {
        let frame = tokio::select! {
            frame = tokio::time::timeout(limits::BODY_STALL, body.frame()) => frame,
            // Nobody reads any more: let go of the body, so that the connection can go on or close.
            () = sender.closed() => return,
        };
        let piece = match frame {
            Err(_) => Piece::Failed(io::Error::new(
                io::ErrorKind::TimedOut,
                "the request's body stalled",
            )),
            Ok(None) => Piece::End,
            Ok(Some(Err(error))) => Piece::Failed(io::Error::other(error)),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Piece::Data(data),
                Err(_trailers) => continue,
            },
        };
        let last = !matches!(piece, Piece::Data(_));
        if sender.send(piece).await.is_err() || last {
            return;
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => self.current = data,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Failed(error)) => return Err(error),
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the request's body was cut short",
                    ));
                }
            }
        }
        let n = out.len().min(self.current.len());
        out[..n].copy_from_slice(&self.current[..n]);
        self.current.advance(n);
        Ok(n)
    }
}

/// The blocking end of an answer's body.
#[derive(Debug)]
pub(crate) struct PieceWriter {
    buffer: Vec<u8>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

/// A writer for a blocking thread, and what hyper sends of it.
pub(crate) fn pieces() -> (PieceWriter, Pieces) {
    let (sender, receiver) = mpsc::channel(limits::STREAM_PIECES);
    (
        PieceWriter {
            buffer: Vec::new(),
            sender,
        },
        from_channel(receiver),
    )
}

/// A body out of a channel's items.
pub(crate) fn from_channel(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Pieces {
    Box::pin(stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    }))
}

impl PieceWriter {
    fn send(&self, piece: io::Result<Bytes>) -> io::Result<()> {
        self.sender.blocking_send(piece).map_err(|_| {
            io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the client closed the connection",
            )
        })
    }

    /// Whether the client is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.sender.is_closed()
    }

    /// Ends the body: whole after `Ok`, visibly cut after an error.
    pub(crate) fn finish(mut self, outcome: Result<(), String>) {
        let outcome = outcome.and_then(|()| self.flush().map_err(|e| e.to_string()));
        if let Err(message) = outcome {
            let _ = self.send(Err(io::Error::other(message)));
        }
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= limits::STREAM_PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.buffer);
        self.send(Ok(piece.into()))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_writer_waits_for_its_reader_and_ends_cleanly() {
        let (mut writer, mut pieces) = pieces();
        let thread = tokio::task::spawn_blocking(move || {
            for n in 0..64_u8 {
                writer.write_all(&vec![n; limits::STREAM_PIECE])?;
            }
            writer.write_all(b"tail")?;
            writer.finish(Ok(()));
            io::Result::Ok(())
        });
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().await {
            all.extend_from_slice(&piece.expect("piece"));
        }
        thread.await.expect("thread").expect("writes");
        assert_eq!(all.len(), 64 * limits::STREAM_PIECE + 4);
        assert!(all.ends_with(b"tail"));
    }

    #[tokio::test]
    async fn a_failed_writer_cuts_the_body() {
        let (mut writer, mut pieces) = pieces();
        tokio::task::spawn_blocking(move || {
            writer.write_all(b"half").expect("write");
            writer.finish(Err("disk gone".to_owned()));
        });
        let mut last = None;
        while let Some(piece) = pieces.next().await {
            last = Some(piece);
        }
        assert!(last.expect("a piece").is_err());
    }

    #[tokio::test]
    async fn a_writer_without_reader_ends() {
        let (mut writer, pieces) = pieces();
        drop(pieces);
        let end = tokio::task::spawn_blocking(move || {
            writer.write_all(&vec![0; 2 * limits::STREAM_PIECE])
        });
        assert_eq!(
            end.await.expect("thread").map_err(|e| e.kind()),
            Err(io::ErrorKind::BrokenPipe)
        );
    }

    #[tokio::test]
    async fn a_reader_tells_the_end_from_a_cut() {
        let read = |mut reader: BodyReader| {
            tokio::task::spawn_blocking(move || {
                let mut out = Vec::new();
                reader
                    .read_to_end(&mut out)
                    .map(|_| out)
                    .map_err(|e| e.kind())
            })
        };
        for (complete, expected) in [
            (true, Ok(b"abcdef".to_vec())),
            (false, Err(io::ErrorKind::UnexpectedEof)),
        ] {
            let (sender, pieces) = mpsc::channel(limits::STREAM_PIECES);
            let reader = BodyReader {
                pieces,
                current: Bytes::new(),
                ended: false,
            };
            let end = read(reader);
            for data in ["abc", "def"] {
                sender
                    .send(Piece::Data(Bytes::from_static(data.as_bytes())))
                    .await
                    .expect("send");
            }
            if complete {
                sender.send(Piece::End).await.expect("send");
            }
            drop(sender);
            assert_eq!(end.await.expect("thread"), expected);
        }
    }
}
