//! The key sequence that ends an attachment and leaves the container running: `ctrl-p,ctrl-q`.

use berth_engine::{Error, Result};

/// What detaches when nothing was asked for: ctrl-p, ctrl-q.
pub const DEFAULT: &[u8] = &[16, 17];

/// Parses a comma-separated sequence of single characters and `ctrl-X`, where X is a letter or one
/// of `@ [ \ ] ^ _`, into the bytes that a terminal sends for it.
pub fn parse(text: &str) -> Result<Vec<u8>> {
    text.split(',')
        .map(|key| {
            let fail =
                || Error::invalid(format!("invalid detach keys ({text}): unknown key {key:?}"));
            if let [byte] = key.as_bytes() {
                return Ok(*byte);
            }
            let lower = key.to_ascii_lowercase();
            match lower.strip_prefix("ctrl-").map(str::as_bytes) {
                Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
                Some(b"@") => Ok(0),
                Some([symbol @ b'['..=b'_']) => Ok(symbol - b'[' + 27),
                _ => Err(fail()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences() {
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap(), DEFAULT);
        assert_eq!(parse("a").unwrap(), b"a");
        assert_eq!(parse("ctrl-a,x,CTRL-Z").unwrap(), [1, b'x', 26]);
        assert_eq!(
            parse(r"ctrl-@,ctrl-[,ctrl-\,ctrl-],ctrl-^,ctrl-_").unwrap(),
            [0, 27, 28, 29, 30, 31]
        );
        for bad in [
            "", ",", "a,", "ctrl-", "ctrl-1", "ctrl-aa", "alt-a", "ab", "ä",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
