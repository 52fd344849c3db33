//! Log lines and raw streams as a version sends them.

use berth_engine::LogEntry;
use berth_model::time::Timestamp;

use crate::version::ApiVersion;

/// Streams of both outputs in frames.
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// Streams of unframed bytes, and of frames for clients older than the type above.
const RAW: &str = "application/vnd.docker.raw-stream";

/// Whether output of a container without a terminal is framed: not before 1.6, where both outputs
/// were merged.
pub fn framed(version: ApiVersion) -> bool {
    version.at_least(6)
}

/// Whether an attachment over a websocket sends binary messages; before 1.28 they were text.
pub fn websocket_binary(version: ApiVersion) -> bool {
    version.at_least(28)
}

/// The content type of attach and logs.
pub fn content_type(tty: bool, version: ApiVersion) -> &'static str {
    if !tty && version.at_least(42) {
        MULTIPLEXED
    } else {
        RAW
    }
}

/// A line as it goes out, without a frame: with its time (`timestamps`) and its attributes
/// (`details`; there are none yet, which is written as their separator alone) before it.
pub fn line(entry: &LogEntry, timestamps: bool, details: bool, version: ApiVersion) -> Vec<u8> {
    let mut out = Vec::with_capacity(entry.line.len() + 40);
    if timestamps {
        out.extend_from_slice(prefix(entry.time, version).as_bytes());
    }
    if details {
        out.push(b' ');
    }
    out.extend_from_slice(&entry.line);
    out
}

/// The time before a line, with its separator: RFC 3339 with nine digits; until 1.12 month, day and
/// time to the millisecond in brackets.
fn prefix(at: Timestamp, version: ApiVersion) -> String {
    let fixed = at.rfc3339_fixed();
    if version.at_least(13) {
        return format!("{fixed} ");
    }
    // 2014-06-09T10:00:00.123456789Z → [Jun  9 10:00:00.123]
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let number = |range: std::ops::Range<usize>| fixed[range].parse::<usize>().unwrap_or(1);
    let month = MONTHS[number(5..7).clamp(1, 12) - 1];
    format!("[{month} {:>2} {}] ", number(8..10), &fixed[11..23])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_in_both_styles() {
        let entry = LogEntry {
            stream: 1,
            time: "2014-06-09T10:00:00.1234Z".parse().unwrap(),
            line: bytes::Bytes::from_static(b"hello\n"),
        };
        let text = |timestamps, details, minor| {
            String::from_utf8(line(&entry, timestamps, details, ApiVersion::new(1, minor))).unwrap()
        };
        assert_eq!(text(false, false, 51), "hello\n");
        assert_eq!(
            text(true, false, 51),
            "2014-06-09T10:00:00.123400000Z hello\n"
        );
        assert_eq!(
            text(true, true, 51),
            "2014-06-09T10:00:00.123400000Z  hello\n"
        );
        assert_eq!(text(true, false, 12), "[Jun  9 10:00:00.123] hello\n");
    }

    #[test]
    fn content_types() {
        assert_eq!(content_type(false, ApiVersion::MAX), MULTIPLEXED);
        assert_eq!(content_type(true, ApiVersion::MAX), RAW);
        assert_eq!(content_type(false, ApiVersion::new(1, 41)), RAW);
        assert!(framed(ApiVersion::new(1, 6)) && !framed(ApiVersion::new(1, 5)));
    }
}
