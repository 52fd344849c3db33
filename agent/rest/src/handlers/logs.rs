//! `/containers/{name}/logs`: entries of the log as lines, framed when the container has no terminal.

use bytes::Bytes;
use futures_util::StreamExt;

use berth_api::container::{logs as shape, query};
use berth_api::version::ApiVersion;
use berth_engine::{LogEntry, Result};
use berth_model::mux;

use crate::call::{Call, Outcome};
use crate::reply::Reply;

/// Entries put into one piece when they are there already.
const BATCH: usize = 64;

pub(crate) async fn logs(call: Call) -> Outcome {
    let request = query::logs(&call.query, call.version)?;
    let version = call.version;
    let log = call
        .engine
        .container_logs(&call.name, request.options)
        .await?;
    let format = Format {
        framed: !log.tty && shape::framed(version),
        timestamps: request.timestamps,
        details: request.details,
        version,
    };
    let pieces = log
        .entries
        .ready_chunks(BATCH)
        .map(move |batch| Ok(format.piece(batch)));
    Ok(Reply::stream(
        shape::content_type(log.tty, version),
        pieces.boxed(),
    ))
}

/// How entries look to this client.
#[derive(Debug, Clone, Copy)]
struct Format {
    framed: bool,
    timestamps: bool,
    details: bool,
    version: ApiVersion,
}

impl Format {
    fn piece(&self, batch: Vec<Result<LogEntry>>) -> Bytes {
        let mut piece = Vec::new();
        for entry in batch {
            match entry {
                Ok(entry) => {
                    let line = shape::line(&entry, self.timestamps, self.details, self.version);
                    let stream =
                        mux::Stream::from_number(entry.stream).unwrap_or(mux::Stream::Stdout);
                    self.append(&mut piece, stream, &line);
                }
                // The head is out already: the reader finds the reason in the stream, as from Docker.
                Err(error) => {
                    let text = format!("Error grabbing logs: {}\n", error.full_message());
                    self.append(&mut piece, mux::Stream::Stderr, text.as_bytes());
                }
            }
        }
        piece.into()
    }

    fn append(&self, piece: &mut Vec<u8>, stream: mux::Stream, line: &[u8]) {
        if self.framed {
            mux::append(piece, stream, line);
        } else {
            piece.extend_from_slice(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_engine::Error;
    use berth_model::time::Timestamp;

    use super::*;

    fn entry(stream: u8, line: &'static str) -> Result<LogEntry> {
        Ok(LogEntry {
            stream,
            time: Timestamp::from_secs(1),
            line: Bytes::from_static(line.as_bytes()),
        })
    }

    #[test]
    fn entries_become_frames_or_plain_bytes() {
        let mut format = Format {
            framed: true,
            timestamps: false,
            details: false,
            version: ApiVersion::MAX,
        };
        let piece = format.piece(vec![entry(1, "out\n"), entry(2, "err\n")]);
        assert_eq!(
            &piece[..],
            b"\x01\0\0\0\0\0\0\x04out\n\x02\0\0\0\0\0\0\x04err\n"
        );
        format.framed = false;
        assert_eq!(&format.piece(vec![entry(1, "a"), entry(2, "b")])[..], b"ab");
    }

    #[test]
    fn a_failure_is_told_on_stderr() {
        let format = Format {
            framed: true,
            timestamps: false,
            details: false,
            version: ApiVersion::MAX,
        };
        let piece = format.piece(vec![Err(Error::internal("disk gone"))]);
        assert_eq!(piece[0], 2);
        assert!(piece.ends_with(b"Error grabbing logs: disk gone\n"));
    }
}
