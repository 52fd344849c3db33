//! Durations as Go writes them (`1h30m`, `1.5s`, `300ms`) and as Docker shows them to people
//! (`About a minute`). Nanoseconds in an `i64`, as in Go, so that the limits are the same.

use std::fmt::Write as _;

const MICRO: i64 = 1_000;
const MILLI: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration {0:?}")]
pub struct DurationError(pub String);

/// Parses a Go duration into nanoseconds: an optional sign, then numbers with optional fractions,
/// each followed by `ns`, `us`, `µs`, `ms`, `s`, `m` or `h`. `0` needs no unit.
pub fn parse(text: &str) -> Result<i64, DurationError> {
    let fail = || DurationError(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(fail());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(fail)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let unit = unit_nanos(unit).ok_or_else(fail)?;
        total += scaled(number, unit).ok_or_else(fail)?;
        if total > i128::from(i64::MAX) + 1 {
            return Err(fail());
        }
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| fail())
}

fn unit_nanos(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        // Both the micro sign and the Greek letter are in use.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICRO,
        "ms" => MILLI,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return None,
    })
}

/// `number` (digits, perhaps a dot and more digits) times `unit`, cut to whole nanoseconds.
fn scaled(number: &str, unit: i64) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut nanos = i128::from(whole) * i128::from(unit);
    // Digits beyond these cannot make a whole nanosecond, not even of an hour.
    let fraction = &fraction[..fraction.len().min(18)];
    if !fraction.is_empty() {
        let value: i128 = fraction.parse().ok()?;
        nanos += value * i128::from(unit) / 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    }
    Some(nanos)
}

/// As Go's `Duration.String`: `1h30m0s`, `1.5s`, `300ms`, `0s`.
pub fn format(nanos: i64) -> String {
    let mut out = String::new();
    if nanos < 0 {
        out.push('-');
    }
    let value = nanos.unsigned_abs();
    let second = SECOND.unsigned_abs();
    if value == 0 {
        return "0s".to_owned();
    }
    if value < second {
        let (unit, name) = match value {
            v if v < MICRO.unsigned_abs() => (1, "ns"),
            v if v < MILLI.unsigned_abs() => (MICRO.unsigned_abs(), "µs"),
            _ => (MILLI.unsigned_abs(), "ms"),
        };
        push_decimal(&mut out, value / unit, value % unit, unit);
        out.push_str(name);
        return out;
    }
    let seconds = value / second;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    if hours > 0 {
        let _ = write!(out, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(out, "{minutes}m");
    }
    push_decimal(&mut out, seconds % 60, value % second, second);
    out.push('s');
    out
}

/// `whole.fraction` where the fraction is `rest / unit` and `unit` a power of ten.
fn push_decimal(out: &mut String, whole: u64, rest: u64, unit: u64) {
    let _ = write!(out, "{whole}");
    if rest > 0 {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{rest:0digits$}");
        out.push('.');
        out.push_str(fraction.trim_end_matches('0'));
    }
}

/// How Docker tells people a length of time: `5 seconds`, `About an hour`, `3 weeks`.
/// Negative lengths (a clock that was set back) read as less than a second.
pub fn human(nanos: i64) -> String {
    let seconds = nanos / SECOND;
    if seconds < 1 {
        return "Less than a second".to_owned();
    }
    if seconds == 1 {
        return "1 second".to_owned();
    }
    if seconds < 60 {
        return format!("{seconds} seconds");
    }
    let minutes = seconds / 60;
    if minutes == 1 {
        return "About a minute".to_owned();
    }
    if minutes < 60 {
        return format!("{minutes} minutes");
    }
    // Hours round to the nearest; everything longer is cut.
    let hours = nanos.saturating_add(HOUR / 2) / HOUR;
    match hours {
        1 => "About an hour".to_owned(),
        h if h < 48 => format!("{h} hours"),
        h if h < 24 * 7 * 2 => format!("{} days", h / 24),
        h if h < 24 * 30 * 2 => format!("{} weeks", h / 24 / 7),
        h if h < 24 * 365 * 2 => format!("{} months", h / 24 / 30),
        _ => format!("{} years", nanos / HOUR / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn go_durations_parse() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("5s", 5 * SECOND),
            ("+5s", 5 * SECOND),
            ("-5s", -5 * SECOND),
            ("1.5h", 90 * MINUTE),
            ("1h30m", 90 * MINUTE),
            (".5s", SECOND / 2),
            ("1.s", SECOND),
            ("300ms", 300 * MILLI),
            ("10us", 10 * MICRO),
            ("10µs", 10 * MICRO),
            ("10μs", 10 * MICRO),
            ("100ns", 100),
            ("1h15m30.918s", HOUR + 15 * MINUTE + 30_918 * MILLI),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("0.33333333333333333333h", 1_199_999_999_999),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
        for text in [
            "",
            "3",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "1x",
            "1h1",
            "1 s",
            "1..5s",
            "9223372036854775808ns",
            "3000000h",
            "1d",
            "١s",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn go_durations_format() {
        let cases = [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (245 * SECOND, "4m5s"),
            (4 * MINUTE + 5_001 * MILLI, "4m5.001s"),
            (5 * HOUR + 6 * MINUTE + 7_001 * MILLI, "5h6m7.001s"),
            (HOUR, "1h0m0s"),
            (-90 * SECOND, "-1m30s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(format(nanos), text);
        }
    }

    #[test]
    fn people_read_rounded_lengths() {
        let day = 24 * HOUR;
        let cases = [
            (-5 * SECOND, "Less than a second"),
            (450 * MILLI, "Less than a second"),
            (SECOND, "1 second"),
            (47 * SECOND, "47 seconds"),
            (MINUTE, "About a minute"),
            (3 * MINUTE, "3 minutes"),
            (59 * MINUTE + 59 * SECOND, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 29 * MINUTE, "About an hour"),
            (HOUR + 31 * MINUTE, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * day, "2 days"),
            (13 * day, "13 days"),
            (14 * day, "2 weeks"),
            (59 * day, "8 weeks"),
            (60 * day, "2 months"),
            (23 * 30 * day, "23 months"),
            (2 * 365 * day, "2 years"),
            (i64::MAX, "292 years"),
        ];
        for (nanos, text) in cases {
            assert_eq!(human(nanos), text);
        }
    }

    proptest! {
        #[test]
        fn formatting_round_trips(nanos: i64) {
            prop_assert_eq!(parse(&format(nanos)).unwrap(), nanos);
            let _ = human(nanos);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,30}|[0-9.hmsnuµ+-]{0,30}") {
            let _ = parse(&text);
        }
    }
}
