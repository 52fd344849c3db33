//! Docker's json-file log: one JSON object per line of output.
//!
//! Byte for byte what moby's daemon/logger/jsonfilelog writes, because other programs read these
//! files: `{"log":"…\n","stream":"stdout","attrs":{…},"time":"…"}`, lines above 16 KiB in parts (only
//! the last part has the `\n`, all parts the time of the first), HTML characters escaped, invalid
//! UTF-8 as `\ufffd`. Files are rotated before a write once they have reached their size.

use std::os::fd::{AsFd, OwnedFd};

use berth_sys::path::{OFlags, open_beneath};
use rustix::fs::AtFlags;

/// Longest content of one entry (moby's `defaultBufSize` of the copier).
const LINE_LIMIT: usize = 16 * 1024;

/// How much is gathered before a write.
const BATCH: usize = 64 * 1024;

/// Permission bits of a new file after a rotation, as moby has them.
const FILE_MODE: u32 = 0o640;

/// Which of the container's streams something came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout = 0,
    Stderr = 1,
}

/// Where the files lie and how big they may become.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) dir: OwnedFd,
    pub(crate) name: String,
    /// Bytes; 0 = never rotated.
    pub(crate) max_size: u64,
    /// Files in all, at least 1.
    pub(crate) max_files: u32,
}

/// The log of one container.
#[derive(Debug)]
pub(crate) struct JsonLog {
    file: OwnedFd,
    rotation: Rotation,
    /// `,"attrs":{…}`, or nothing.
    attrs: Vec<u8>,
    size: u64,
    /// The last write stopped in the middle of an entry.
    torn: bool,
    out: Vec<u8>,
    clock: Clock,
    lines: [Line; 2],
}

/// What has come of a line that has not ended yet.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    /// The time of the first part, once one has been written.
    since: Option<String>,
}

impl JsonLog {
    /// `file` is open for append.
    pub(crate) fn new(
        file: OwnedFd,
        rotation: Rotation,
        attrs: &[(String, String)],
    ) -> std::io::Result<JsonLog> {
        let size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
        let mut text = Vec::new();
        for (name, value) in attrs {
            text.extend_from_slice(if text.is_empty() {
                b",\"attrs\":{\""
            } else {
                b",\""
            });
            escape(name.as_bytes(), &mut text);
            text.extend_from_slice(b"\":\"");
            escape(value.as_bytes(), &mut text);
            text.push(b'"');
        }
        if !text.is_empty() {
            text.push(b'}');
        }
        Ok(JsonLog {
            file,
            rotation,
            attrs: text,
            size,
            torn: false,
            out: Vec::new(),
            clock: Clock::default(),
            lines: Default::default(),
        })
    }

    /// Bytes in the current file.
    pub(crate) fn position(&self) -> u64 {
        self.size
    }

    /// What has been put out of the current line and is in no file yet.
    pub(crate) fn pending(&self, stream: Stream) -> &[u8] {
        &self.lines[stream as usize].bytes
    }

    /// Takes output as it comes, and writes what is complete.
    pub(crate) fn feed(&mut self, stream: Stream, mut bytes: &[u8]) {
        let mut line = std::mem::take(&mut self.lines[stream as usize]);
        while !bytes.is_empty() {
            let room = LINE_LIMIT - line.bytes.len();
            let window = &bytes[..bytes.len().min(room)];
            if let Some(end) = find_newline(window) {
                self.entry(stream, &mut line, &bytes[..end], true);
                bytes = &bytes[end + 1..];
            } else if window.len() == room {
                self.entry(stream, &mut line, window, false);
                bytes = &bytes[room..];
            } else {
                line.bytes.extend_from_slice(bytes);
                break;
            }
        }
        self.lines[stream as usize] = line;
        self.flush();
    }

    /// Writes what is left of a stream that has ended; it gets no newline that was not there.
    pub(crate) fn finish(&mut self, stream: Stream) {
        let mut line = std::mem::take(&mut self.lines[stream as usize]);
        if !line.bytes.is_empty() {
            self.entry(stream, &mut line, b"", false);
        }
        self.flush();
    }

    /// One entry: what the line holds, `rest`, and the newline if it is the last part.
    fn entry(&mut self, stream: Stream, line: &mut Line, rest: &[u8], last: bool) {
        let max = self.rotation.max_size;
        if max > 0 && self.size + self.out.len() as u64 >= max {
            self.flush();
            self.rotate();
        }
        let time = match line.since.take() {
            Some(time) => time,
            None => self.clock.now().to_owned(),
        };
        let out = &mut self.out;
        out.extend_from_slice(b"{\"log\":\"");
        escape(&line.bytes, out);
        escape(rest, out);
        if last {
            out.extend_from_slice(b"\\n");
        }
        out.extend_from_slice(match stream {
            Stream::Stdout => b"\",\"stream\":\"stdout\"",
            Stream::Stderr => b"\",\"stream\":\"stderr\"",
        });
        out.extend_from_slice(&self.attrs);
        out.extend_from_slice(b",\"time\":\"");
        out.extend_from_slice(time.as_bytes());
        out.extend_from_slice(b"\"}\n");
        if !last {
            line.since = Some(time);
        }
        line.bytes = Vec::new();
        if self.out.len() >= BATCH {
            self.flush();
        }
    }

    /// Writes the batch. What the disk does not take is lost, as it is with Docker: the container
    /// must not stand still because a disk is full.
    fn flush(&mut self) {
        if self.out.is_empty() {
            return;
        }
        if self.torn {
            // Ends the broken entry, so that readers lose one line and not two.
            match rustix::io::write(&self.file, b"\n") {
                Ok(count) if count > 0 => {
                    self.size += 1;
                    self.torn = false;
                }
                _ => {
                    self.out.clear();
                    return;
                }
            }
        }
        let mut rest = self.out.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(&self.file, rest) {
                Ok(count) if count > 0 => {
                    self.size += count as u64;
                    rest = &rest[count..];
                }
                Err(rustix::io::Errno::INTR) => continue,
                _ => {
                    let written = self.out.len() - rest.len();
                    self.torn = written > 0 && self.out[written - 1] != b'\n';
                    break;
                }
            }
        }
        self.out.clear();
        if self.out.capacity() > 4 * BATCH {
            self.out = Vec::new();
        }
    }

    /// Moves the files up by one and begins a new one. When that fails the old file goes on: too
    /// big is better than lost.
    fn rotate(&mut self) {
        let Rotation {
            dir,
            name,
            max_files,
            ..
        } = &self.rotation;
        let numbered = |n: u32| format!("{name}.{n}");
        if *max_files > 1 {
            for n in (1..max_files - 1).rev() {
                let _ = rustix::fs::renameat(dir, numbered(n), dir, numbered(n + 1));
            }
            if rustix::fs::renameat(dir, name, dir, numbered(1)).is_err() {
                return;
            }
        } else if rustix::fs::unlinkat(dir, name, AtFlags::empty()).is_err() {
            return;
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::APPEND;
        match open_beneath(dir.as_fd(), name, flags, FILE_MODE) {
            Ok(file) => {
                self.file = file;
                self.size = 0;
                self.torn = false;
            }
            // Back, so that readers find the file that is still written.
            Err(_) if *max_files > 1 => {
                let _ = rustix::fs::renameat(dir, numbered(1), dir, name);
            }
            Err(_) => {}
        }
    }
}

/// Position of the first newline.
fn find_newline(bytes: &[u8]) -> Option<usize> {
    // Eight bytes at a time: most of a log's cost is looking for its ends of lines.
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    const NEWLINES: u64 = u64::from_ne_bytes([b'\n'; 8]);
    let mut chunks = bytes.chunks_exact(8);
    let mut position = 0;
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        let differing = u64::from_ne_bytes(word) ^ NEWLINES;
        if differing.wrapping_sub(ONES) & !differing & HIGHS != 0 {
            break;
        }
        position += 8;
    }
    bytes[position..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map(|found| position + found)
}

/// Whether a byte stands for itself in a JSON string as moby writes it.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x80 {
        plain[byte] = !matches!(byte as u8, b'"' | b'\\' | b'<' | b'>' | b'&');
        byte += 1;
    }
    plain
};

/// Appends the inside of a JSON string.
fn escape(mut bytes: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    while !bytes.is_empty() {
        let plain = bytes
            .iter()
            .position(|byte| !PLAIN[*byte as usize])
            .unwrap_or(bytes.len());
        out.extend_from_slice(&bytes[..plain]);
        bytes = &bytes[plain..];
        let Some(first) = bytes.first() else { return };
        match first {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *first]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..0x80 => {
                let digits = [HEX[usize::from(first >> 4)], HEX[usize::from(first & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
            _ => {
                bytes = &bytes[escape_rune(bytes, out)..];
                continue;
            }
        }
        bytes = &bytes[1..];
    }
}

/// Appends one character above ASCII and gives its length; a byte that begins none becomes U+FFFD.
fn escape_rune(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    let Some(rune) = valid.chars().next() else {
        out.extend_from_slice(b"\\ufffd");
        return 1;
    };
    match rune {
        // Ends of lines for JavaScript, which moby escapes.
        '\u{2028}' => out.extend_from_slice(b"\\u2028"),
        '\u{2029}' => out.extend_from_slice(b"\\u2029"),
        _ => out.extend_from_slice(&bytes[..rune.len_utf8()]),
    }
    rune.len_utf8()
}

/// The time of day as RFC 3339 with nanoseconds, trailing zeros left out as Go does.
#[derive(Debug, Default)]
struct Clock {
    second: Option<i64>,
    /// Date and time up to the second, then the fraction.
    text: String,
}

/// Bytes of `2006-01-02T15:04:05`.
const SECONDS_LEN: usize = 19;

impl Clock {
    fn now(&mut self) -> &str {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        self.format(now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
    }

    fn format(&mut self, second: i64, nanos: u32) -> &str {
        if self.second != Some(second) {
            let (year, month, day) = date(second.div_euclid(86_400));
            let rest = second.rem_euclid(86_400);
            let (hour, minute) = (rest / 3600, rest / 60 % 60);
            self.text = format!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}",
                rest % 60
            );
            self.second = Some(second);
        }
        self.text.truncate(SECONDS_LEN);
        if nanos > 0 {
            let mut digits = [b'.'; 10];
            let mut rest = nanos;
            for digit in digits[1..].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            let text = std::str::from_utf8(&digits).unwrap_or_default();
            self.text.push_str(text.trim_end_matches('0'));
        }
        self.text.push('Z');
        &self.text
    }
}

/// Year, month and day of a day since 1970-01-01, in the proleptic Gregorian calendar.
fn date(days: i64) -> (i64, i64, i64) {
    // Counted in eras of 400 years from 0000-03-01, so that a leap day is the last of its year.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests;
