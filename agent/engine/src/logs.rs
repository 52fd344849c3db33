//! Reading a container's output back from its json-file log: last lines, time bounds, and following
//! a container that still writes, woken by inotify and by its end. The monitor writes these files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use berth_model::time::Timestamp;
use berth_sys::inotify::{FileWatch, Wake};

use crate::activity::Busy;
use crate::blocking;
use crate::containers::Watched;
use crate::error::{Error, Result};
use crate::types::{LogEntry, LogOptions};

/// Entries on their way to a client: its slowness stops the reader, not the container.
const QUEUE: usize = 256;
/// Bytes looked at in one step when searching backwards for the last lines.
const STEP: u64 = 64 * 1024;
/// The longest line of the file that is believed: 16 KiB of output, each byte escaped to six, and the frame.
const MAX_LINE: usize = 128 * 1024;

/// Output from the log, oldest first; ends after the last line, or with the container when following.
pub struct LogStream {
    /// Whether the output is a terminal's: raw, without stdout and stderr told apart.
    pub tty: bool,
    pub entries: BoxStream<'static, Result<LogEntry>>,
}

impl std::fmt::Debug for LogStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStream")
            .field("tty", &self.tty)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    time: String,
}

/// What the reading thread works on.
struct Reader {
    path: PathBuf,
    options: LogOptions,
    /// Present when following.
    watched: Option<watch::Receiver<Watched>>,
}

/// Starts reading `path`; `watched` tells when a followed container has ended.
pub(crate) fn stream(
    path: &Path,
    tty: bool,
    options: LogOptions,
    watched: watch::Receiver<Watched>,
    busy: Busy,
) -> LogStream {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let follow = options.follow;
    let reader = Reader {
        path: path.to_owned(),
        options,
        watched: follow.then_some(watched),
    };
    tokio::spawn(async move {
        let _busy = busy;
        if let Err(error) = reader.run(&sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    let entries = stream::unfold(receiver, |mut receiver| async move {
        let item = receiver.recv().await?;
        Some((item, receiver))
    });
    LogStream {
        tty,
        entries: entries.boxed(),
    }
}

/// One pass over what is in the file now.
struct Pass {
    file: BufReader<File>,
    /// A line of which the end was not written yet.
    partial: Vec<u8>,
    done: bool,
}

impl Reader {
    async fn run(self, out: &mpsc::Sender<Result<LogEntry>>) -> Result<()> {
        let Self {
            path,
            options,
            watched,
        } = self;
        let fail = {
            let path = path.clone();
            move |e: io::Error| {
                Error::internal(format!("cannot read the log {}", path.display())).with_source(e)
            }
        };
        // Watched before the first read: a write between the two is not missed.
        let mut watch_file = match &watched {
            Some(_) => Some(FileWatch::new(&path).map_err(&fail)?),
            None => None,
        };
        let tail = options.tail;
        let start = path.clone();
        let opened =
            blocking::run("a log reader failed", move || open_at_tail(&start, tail)).await?;
        let mut pass = match opened {
            Ok(file) => Pass {
                file,
                partial: Vec::new(),
                done: false,
            },
            // Nothing was ever written: with log driver none, or before the first start.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(fail(error)),
        };
        let mut ended = watched;
        loop {
            // Asked before reading: what the container wrote before its end is then read in this pass.
            let over = ended.as_mut().is_none_or(|w| !w.borrow_and_update().live);
            let (sender, wanted) = (out.clone(), options.clone());
            let (back, result) = blocking::run("a log reader failed", move || {
                let result = pass.read_available(&wanted, &sender);
                (pass, result)
            })
            .await?;
            pass = back;
            result.map_err(&fail)?;
            if pass.done || over || out.is_closed() {
                return Ok(());
            }
            let (Some(ended), Some(file)) = (ended.as_mut(), watch_file.as_mut()) else {
                return Ok(());
            };
            tokio::select! {
                woken = next_change(file) => woken.map_err(&fail)?,
                changed = ended.changed() => if changed.is_err() { return Ok(()) },
                () = out.closed() => return Ok(()),
                () = until(options.until) => return Ok(()),
            }
        }
    }
}

/// Resolves at the time that a follow was bounded by; never without a bound.
async fn until(bound: Option<Timestamp>) {
    match bound {
        None => std::future::pending().await,
        Some(bound) => {
            let left = bound.nanos().saturating_sub(Timestamp::now().nanos());
            tokio::time::sleep(std::time::Duration::from_nanos(
                u64::try_from(left).unwrap_or(0),
            ))
            .await;
        }
    }
}

async fn next_change(file: &mut FileWatch) -> io::Result<()> {
    #[allow(
        deprecated,
        reason = "an OwnedFd keeps its number for as long as it lives"
    )]
    let ready = tokio::io::unix::AsyncFd::with_interest(
        file.as_fd().try_clone_to_owned()?,
        tokio::io::Interest::READABLE,
    )?;
    let mut guard = ready.readable().await?;
    guard.clear_ready();
    match file.drain()? {
        Wake::Changed | Wake::Nothing => Ok(()),
    }
}

impl Pass {
    /// Sends every whole line between the current position and the end of the file. Blocking.
    fn read_available(
        &mut self,
        options: &LogOptions,
        out: &mpsc::Sender<Result<LogEntry>>,
    ) -> io::Result<()> {
        loop {
            let mut chunk = Vec::new();
            let room = MAX_LINE.saturating_sub(self.partial.len()) as u64;
            let read = (&mut self.file).take(room).read_until(b'\n', &mut chunk)?;
            self.partial.extend_from_slice(&chunk);
            if self.partial.last() != Some(&b'\n') {
                if read == 0 {
                    return Ok(());
                }
                if self.partial.len() >= MAX_LINE {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a line is longer than any that is written",
                    ));
                }
                continue;
            }
            let line = std::mem::take(&mut self.partial);
            let Some(entry) = parse(&line) else {
                tracing::warn!("a damaged line in a container's log was skipped");
                continue;
            };
            if options.until.is_some_and(|until| entry.time > until) {
                self.done = true;
                return Ok(());
            }
            let wanted = match entry.stream {
                1 => options.stdout,
                _ => options.stderr,
            };
            if !wanted || options.since.is_some_and(|since| entry.time < since) {
                continue;
            }
            if out.blocking_send(Ok(entry)).is_err() {
                self.done = true;
                return Ok(());
            }
        }
    }
}

fn parse(line: &[u8]) -> Option<LogEntry> {
    let line: Line = serde_json::from_slice(line).ok()?;
    Some(LogEntry {
        stream: if line.stream == "stderr" { 2 } else { 1 },
        time: Timestamp::parse(&line.time).ok()?,
        line: Bytes::from(line.log.into_bytes()),
    })
}

/// Opens the log where its last `tail` lines begin.
fn open_at_tail(path: &Path, tail: Option<u64>) -> io::Result<BufReader<File>> {
    let mut file = File::open(path)?;
    if let Some(lines) = tail {
        let start = tail_offset(&mut file, lines)?;
        file.seek(SeekFrom::Start(start))?;
    }
    Ok(BufReader::with_capacity(64 * 1024, file))
}

/// Where the last `lines` lines of output begin. A long line of output is stored in several entries, of
/// which only the last ends with an escaped newline: those count as one.
fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut found = 0;
    // An unfinished last line is a line too.
    let mut newest = true;
    let mut position = end;
    let mut carried: Vec<u8> = Vec::new();
    // Entry boundaries, newest first; an entry that ends a line of output is counted.
    while position > 0 {
        let step = STEP.min(position);
        position -= step;
        let mut block = vec![0; usize::try_from(step).unwrap_or(usize::MAX)];
        file.seek(SeekFrom::Start(position))?;
        file.read_exact(&mut block)?;
        block.extend_from_slice(&carried);
        let mut limit = block.len();
        // The last byte is the newline of the newest entry.
        while let Some(newline) = block[..limit.saturating_sub(1)]
            .iter()
            .rposition(|&b| b == b'\n')
        {
            let entry = &block[newline + 1..limit];
            if ends_a_line(entry) || std::mem::take(&mut newest) {
                newest = false;
                found += 1;
                if found > lines {
                    return Ok(position + limit as u64);
                }
            }
            limit = newline + 1;
        }
        block.truncate(limit);
        carried = block;
    }
    if (ends_a_line(&carried) || newest) && found + 1 > lines {
        return Ok(carried.len() as u64);
    }
    Ok(0)
}

/// Whether the stored entry holds the end of a line of output: `{"log":"…\n","stream":…`.
fn ends_a_line(entry: &[u8]) -> bool {
    const END: &[u8] = b"\\n\",\"stream\"";
    entry.windows(END.len()).any(|window| window == END)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: usize, newline: bool) -> String {
        let end = if newline { "\\n" } else { "" };
        format!(
            "{{\"log\":\"line {n}{end}\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05.{n:09}Z\"}}\n"
        )
    }

    fn tail_of(text: &str, lines: u64) -> String {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        std::fs::write(&path, text).expect("write");
        let mut rest = String::new();
        open_at_tail(&path, Some(lines))
            .expect("open")
            .read_to_string(&mut rest)
            .expect("read");
        rest
    }

    #[test]
    fn tail_gives_the_last_lines_whatever_the_block_borders() {
        let text: String = (0..5000).map(|n| entry(n, true)).collect();
        for lines in [0, 1, 2, 10, 700, 4999, 5000, 9000] {
            let want: String = (0..5000usize)
                .skip(5000usize.saturating_sub(lines))
                .map(|n| entry(n, true))
                .collect();
            assert_eq!(tail_of(&text, lines as u64), want, "{lines} lines");
        }
    }

    #[test]
    fn parts_of_one_long_line_count_as_one() {
        let text = [
            entry(0, true),
            entry(1, false),
            entry(2, false),
            entry(3, true),
            entry(4, true),
        ]
        .concat();
        assert_eq!(
            tail_of(&text, 2),
            [
                entry(1, false),
                entry(2, false),
                entry(3, true),
                entry(4, true)
            ]
            .concat()
        );
    }
}
