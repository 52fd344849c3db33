//! Moments: nanoseconds since the Unix epoch, written as Go writes them. "Never" is a value of its
//! own, shown as Go's zero time, because clients compare against that text.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::duration;

/// How clients see "never".
pub const ZERO_TEXT: &str = "0001-01-01T00:00:00Z";
const SECOND: i64 = 1_000_000_000;

/// A moment, or never ([`Timestamp::ZERO`], the default). The epoch itself is an ordinary moment:
/// reproducible images carry it. Covers the years 1677 to 2262. Stored as RFC 3339 text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid time {0:?}")]
pub struct TimeError(pub String);

impl Timestamp {
    /// Never: earlier than every moment.
    pub const ZERO: Self = Self(i64::MIN);
    pub const EPOCH: Self = Self(0);

    /// The present, by the system's clock.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Seconds since the epoch; what does not fit becomes the nearest moment that does.
    pub const fn from_secs(seconds: i64) -> Self {
        // Never is not a nearest moment, hence one above it.
        let nanos = seconds.saturating_mul(SECOND);
        Self(if nanos == i64::MIN {
            i64::MIN + 1
        } else {
            nanos
        })
    }

    pub const fn is_zero(self) -> bool {
        self.0 == i64::MIN
    }

    /// Nanoseconds since the epoch; 0 for never, because callers put it on the wire.
    pub const fn nanos(self) -> i64 {
        if self.is_zero() { 0 } else { self.0 }
    }

    /// Whole seconds since the epoch, rounded down; 0 for never.
    pub const fn secs(self) -> i64 {
        self.nanos().div_euclid(SECOND)
    }

    /// Nanoseconds within the second.
    pub const fn subsec_nanos(self) -> u32 {
        // rem_euclid by a billion always fits.
        self.nanos().rem_euclid(SECOND) as u32
    }

    /// Nanoseconds from `earlier` to here, held within an `i64`; 0 if either is never.
    pub const fn since(self, earlier: Self) -> i64 {
        if self.is_zero() || earlier.is_zero() {
            0
        } else {
            self.0.saturating_sub(earlier.0)
        }
    }

    /// This moment moved by so many nanoseconds; never stays never.
    #[must_use]
    pub const fn plus_nanos(self, nanos: i64) -> Self {
        if self.is_zero() {
            return self;
        }
        let moved = self.0.saturating_add(nanos);
        Self(if moved == i64::MIN {
            i64::MIN + 1
        } else {
            moved
        })
    }

    /// RFC 3339 in UTC with the fraction's trailing zeros cut, as Go's `RFC3339Nano`.
    pub fn rfc3339(self) -> String {
        self.to_string()
    }

    /// RFC 3339 in UTC with all nine digits of the fraction, as log lines carry it.
    pub fn rfc3339_fixed(self) -> String {
        if self.is_zero() {
            return "0001-01-01T00:00:00.000000000Z".to_owned();
        }
        let at = civil(self.0);
        format!(
            "{}.{:09}Z",
            at.strftime("%Y-%m-%dT%H:%M:%S"),
            self.subsec_nanos()
        )
    }

    /// Parses RFC 3339 with any offset; the zero time is never.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let fail = || TimeError(text.to_owned());
        if text == ZERO_TEXT {
            return Ok(Self::ZERO);
        }
        // jiff also reads a blank for the `T` and other relaxations; Go's RFC 3339 does not.
        let bytes = text.as_bytes();
        let zoned = text.ends_with('Z')
            || bytes.len() > 6
                && matches!(bytes[bytes.len() - 6], b'+' | b'-')
                && bytes[bytes.len() - 3] == b':';
        if bytes.len() < 20 || bytes[10] != b'T' || bytes[16] != b':' || !zoned {
            return Err(fail());
        }
        let at: jiff::Timestamp = text.parse().map_err(|_| fail())?;
        let nanos = i64::try_from(at.as_nanosecond()).map_err(|_| fail())?;
        if nanos == i64::MIN {
            Err(fail())
        } else {
            Ok(Self(nanos))
        }
    }

    /// Parses `seconds[.fraction]` since the epoch, the form in which the API takes `since` and `until`.
    pub fn parse_unix(text: &str) -> Result<Self, TimeError> {
        let fail = || TimeError(text.to_owned());
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let whole: i64 = seconds.parse().map_err(|_| fail())?;
        if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(fail());
        }
        let nanos = format!("{fraction:0<9}")
            .parse::<i64>()
            .map_err(|_| fail())?;
        let total = whole
            .checked_mul(SECOND)
            .and_then(|s| s.checked_add(nanos))
            .ok_or_else(fail)?;
        if total == i64::MIN {
            Err(fail())
        } else {
            Ok(Self(total))
        }
    }
}

/// Parses what users write for "since when": seconds since the epoch with an optional fraction, a Go
/// duration before `now`, RFC 3339, or a shortened date (`2024-05-01`, `2024-05-01T10:00`); what
/// names no zone is UTC.
pub fn parse_since(text: &str, now: Timestamp) -> Result<Timestamp, TimeError> {
    let fail = || TimeError(text.to_owned());
    // A bare `0` is a duration for Go and the epoch for the API; the API's meaning wins.
    if let Ok(at) = Timestamp::parse_unix(text) {
        return Ok(at);
    }
    if let Ok(nanos) = duration::parse(text) {
        return Ok(now.plus_nanos(nanos.saturating_neg()));
    }
    if let Ok(at) = Timestamp::parse(text) {
        return Ok(at);
    }
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    let full = match shape.as_str() {
        "9999-99-99" => format!("{text}T00:00:00Z"),
        "9999-99-99Z" => format!("{}T00:00:00Z", &text[..10]),
        "9999-99-99T99" => format!("{text}:00:00Z"),
        "9999-99-99T99Z" => format!("{}:00:00Z", &text[..13]),
        "9999-99-99T99:99" => format!("{text}:00Z"),
        "9999-99-99T99:99Z" => format!("{}:00Z", &text[..16]),
        other if other.starts_with("9999-99-99T99:99:99") => format!("{text}Z"),
        _ => return Err(fail()),
    };
    Timestamp::parse(&full).map_err(|_| fail())
}

/// Every `i64` of nanoseconds lies within jiff's years −9999 to 9999.
fn civil(nanos: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str(ZERO_TEXT);
        }
        write!(f, "{}", civil(self.0).strftime("%Y-%m-%dT%H:%M:%S"))?;
        match self.subsec_nanos() {
            0 => f.write_str("Z"),
            nanos => write!(f, ".{}Z", format!("{nanos:09}").trim_end_matches('0')),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let nanos = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN + 1, |n| -n),
        };
        Self(nanos)
    }
}

impl From<Timestamp> for SystemTime {
    fn from(at: Timestamp) -> Self {
        let span = std::time::Duration::from_nanos(at.nanos().unsigned_abs());
        if at.nanos() < 0 {
            Self::UNIX_EPOCH - span
        } else {
            Self::UNIX_EPOCH + span
        }
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, TimeError> {
        Self::parse(text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: i64 = 1_714_557_600; // 2024-05-01T10:00:00Z

    #[test]
    fn written_as_go_writes_them() {
        let at = |n: i64| Timestamp::from_nanos(T * SECOND + n).to_string();
        assert_eq!(at(0), "2024-05-01T10:00:00Z");
        assert_eq!(at(500_000_000), "2024-05-01T10:00:00.5Z");
        assert_eq!(at(1), "2024-05-01T10:00:00.000000001Z");
        assert_eq!(at(120_000), "2024-05-01T10:00:00.00012Z");
        assert_eq!(
            Timestamp::from_nanos(-1).to_string(),
            "1969-12-31T23:59:59.999999999Z"
        );
        assert_eq!(Timestamp::EPOCH.to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp::default().to_string(), ZERO_TEXT);
        assert_eq!(
            Timestamp::from_secs(T).rfc3339_fixed(),
            "2024-05-01T10:00:00.000000000Z"
        );
    }

    #[test]
    fn never_is_not_the_epoch() {
        assert!(Timestamp::ZERO.is_zero() && !Timestamp::EPOCH.is_zero());
        assert!(Timestamp::ZERO < Timestamp::EPOCH);
        assert_eq!(Timestamp::parse(ZERO_TEXT), Ok(Timestamp::ZERO));
        assert_eq!(Timestamp::ZERO.secs(), 0);
        assert_eq!(Timestamp::from_secs(T).since(Timestamp::ZERO), 0);
        assert!(Timestamp::ZERO.plus_nanos(5).is_zero());
        assert!(!Timestamp::from_secs(i64::MIN).is_zero());
    }

    #[test]
    fn rfc3339_parses_with_offsets() {
        assert_eq!(
            Timestamp::parse("2024-05-01T12:00:00+02:00"),
            Ok(Timestamp::from_secs(T))
        );
        assert_eq!(
            Timestamp::parse("2024-05-01T10:00:00.25Z")
                .unwrap()
                .subsec_nanos(),
            250_000_000
        );
        for text in [
            "",
            "2024-05-01",
            "2024-05-01 10:00:00Z",
            "2024-05-01T10:00:00",
            "20240501T100000Z",
            "9999-01-01T00:00:00Z",
            "0001-01-02T00:00:00Z",
        ] {
            assert!(Timestamp::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn since_takes_all_forms() {
        let now = Timestamp::from_secs(T);
        let cases = [
            ("0", Timestamp::EPOCH),
            ("1714557600", now),
            ("1714557600.5", now.plus_nanos(SECOND / 2)),
            ("1714557600.000000001", now.plus_nanos(1)),
            ("10m", now.plus_nanos(-600 * SECOND)),
            ("-10m", now.plus_nanos(600 * SECOND)),
            ("1.5h", now.plus_nanos(-5400 * SECOND)),
            ("2024-05-01T10:00:00Z", now),
            ("2024-05-01T10:00:00", now),
            ("2024-05-01T10:00:00.5", now.plus_nanos(SECOND / 2)),
            ("2024-05-01T10:00", now),
            ("2024-05-01T10", now),
            ("2024-05-01T10Z", now),
            ("2024-05-01", Timestamp::from_secs(T - 36_000)),
        ];
        for (text, want) in cases {
            assert_eq!(parse_since(text, now), Ok(want), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "1.2.3",
            "1.1234567890",
            "2024-13-01",
            "2024-05",
            "99999999999999999999",
        ] {
            assert!(parse_since(text, now).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(nanos: i64) {
            let at = Timestamp::from_nanos(nanos);
            prop_assert_eq!(Timestamp::parse(&at.to_string()).unwrap(), at);
            let json = serde_json::to_string(&at).unwrap();
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), at);
            prop_assert_eq!(Timestamp::from(SystemTime::from(Timestamp::from_nanos(nanos / 4))), Timestamp::from_nanos(nanos / 4));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}|[0-9TZ:.+-]{0,40}", now: i64) {
            let _ = parse_since(&text, Timestamp::from_nanos(now));
        }
    }
}
