//! Sizes as Docker reads and shows them. Two families: memory counts in 1024s (`64m`, `1.5GiB`),
//! what people are shown counts in 1000s with four significant digits (`1.234MB`).

use std::fmt::Write as _;

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    #[error("invalid size: '{0}'")]
    Size(String),
    #[error("invalid suffix: '{0}'")]
    Suffix(String),
}

const LETTERS: &[u8] = b"kmgtp";
const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// Bytes from a memory size: a number, perhaps with a fraction, then `b`, or one of `kmgtp` with an
/// optional `b` or `ib`, in any case. All of `k`, `kb` and `kib` mean 1024.
pub fn parse_ram(text: &str) -> Result<i64, SizeError> {
    parse(text, 1024.0)
}

/// Bytes from a size counted in 1000s, same spelling as [`parse_ram`].
pub fn parse_human(text: &str) -> Result<i64, SizeError> {
    parse(text, 1000.0)
}

fn parse(text: &str, base: f64) -> Result<i64, SizeError> {
    let bad = || SizeError::Size(text.to_owned());
    let split = text
        .rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
        .ok_or_else(bad)?;
    let suffix = text[split + 1..].to_ascii_lowercase();
    // One blank may stand between number and unit.
    let number = if text.as_bytes()[split] == b' ' {
        &text[..split]
    } else {
        &text[..=split]
    };
    // Only plain decimals: the parser of f64 would also take `inf`, `nan` and exponents.
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(bad());
    }
    let number: f64 = number.parse().map_err(|_| bad())?;
    let factor = match suffix.as_bytes() {
        [] | [b'b'] => 1.0,
        [letter] | [letter, b'b'] | [letter, b'i', b'b'] => {
            let power = LETTERS
                .iter()
                .position(|l| l == letter)
                .ok_or_else(|| SizeError::Suffix(suffix.clone()))?;
            base.powi(i32::try_from(power).unwrap_or(0) + 1)
        }
        _ => return Err(SizeError::Suffix(suffix)),
    };
    let bytes = number * factor;
    // 2^63 is exact in an f64; anything below it fits.
    if bytes < 9_223_372_036_854_775_808.0 {
        Ok(bytes as i64)
    } else {
        Err(bad())
    }
}

/// In 1000s with four significant digits: `0B`, `999B`, `1.234MB`.
pub fn human(bytes: u64) -> String {
    scaled(bytes, 1000.0, 4, &DECIMAL)
}

/// In 1000s with so many significant digits.
pub fn human_with_precision(bytes: u64, digits: usize) -> String {
    scaled(bytes, 1000.0, digits, &DECIMAL)
}

/// In 1024s with four significant digits: `64MiB`, `1.953GiB`.
pub fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, 4, &BINARY)
}

fn scaled(bytes: u64, base: f64, digits: usize, units: &[&str; 9]) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit < units.len() - 1 {
        value /= base;
        unit += 1;
    }
    let mut text = significant(value, digits);
    text.push_str(units[unit]);
    text
}

/// As C's `%.{digits}g` for values below ten to the power of `digits`: that many significant digits,
/// trailing zeros cut.
fn significant(value: f64, digits: usize) -> String {
    let whole_digits = if value >= 1.0 {
        value.log10().floor() as usize + 1
    } else {
        1
    };
    let mut text = String::new();
    let _ = write!(text, "{value:.*}", digits.saturating_sub(whole_digits));
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_sizes_parse() {
        let k = 1024;
        let cases = [
            ("32", 32),
            ("32b", 32),
            ("32B", 32),
            ("32k", 32 * k),
            ("32K", 32 * k),
            ("32kb", 32 * k),
            ("32Kib", 32 * k),
            ("32 kib", 32 * k),
            ("32Mb", 32 * k * k),
            ("32GiB", 32 * k * k * k),
            ("1t", k * k * k * k),
            ("1p", k * k * k * k * k),
            ("0.5g", k * k * k / 2),
            ("32.3kb", 33_075),
            (".5k", 512),
            ("0", 0),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_ram(text), Ok(bytes), "{text}");
        }
        for text in [
            "", "hello", "-32", "+32", ".", " ", "1e3", "inf", "32kbb", "32xb", "32 k b", "32 mbs",
            "9999999p", "1..5k",
        ] {
            assert!(parse_ram(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_human("1.5kB"), Ok(1500));
    }

    #[test]
    fn sizes_are_shown_with_four_digits() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1024, "1.024kB"),
            (1_000_000, "1MB"),
            (1_048_576, "1.049MB"),
            (4_261_550, "4.262MB"),
            (999_999, "1000kB"),
            (2_000_000_000_000, "2TB"),
            (u64::MAX, "18.45EB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
        assert_eq!(human_with_precision(1_234_567, 3), "1.23MB");
        assert_eq!(binary(64 << 20), "64MiB");
        assert_eq!(binary(2_097_152_000), "1.953GiB");
        assert_eq!(binary(1023), "1023B");
    }

    proptest! {
        #[test]
        fn shown_sizes_read_back_nearly(bytes in 0..1_000_000_000_000_000_000_u64) {
            let back = parse_human(&human(bytes)).unwrap() as f64;
            prop_assert!((back - bytes as f64).abs() <= bytes as f64 * 0.000_51 + 1.0);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,20}|[0-9.kmgib ]{0,12}") {
            let _ = parse_ram(&text);
        }
    }
}
