//! The query string, with Docker's rules for its values.

use berth_engine::{Error, Result};
use berth_model::filters::Filters;

/// A decoded query string. Where a name is repeated the first value counts, as in Go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// From what follows the `?` of the request's target. Broken escapes are taken literally; bytes
    /// that are no UTF-8 become the replacement character.
    pub fn parse(raw: Option<&str>) -> Self {
        let pairs = raw
            .unwrap_or_default()
            .split('&')
            .filter(|part| !part.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (unescape(name), unescape(value))
                })
                .collect(),
        )
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// The first value, or nothing.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// The first value if there is one and it is not empty.
    pub fn word(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|v| !v.is_empty())
    }

    /// A yes-or-no value: nothing, `0`, `no`, `false` and `none` mean no, everything else yes.
    pub fn flag(&self, name: &str) -> bool {
        truth(self.text(name))
    }

    /// The same with a default for a name that is not given at all.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        self.get(name).map_or(default, truth)
    }

    /// A whole number; not given or empty is `None`.
    pub fn int(&self, name: &str) -> Result<Option<i64>> {
        self.word(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Error::invalid(format!("invalid value for {name:?}: {text:?} is no number"))
                })
            })
            .transpose()
    }

    /// The `filters` parameter.
    pub fn filters(&self) -> Result<Filters> {
        Filters::parse(self.text("filters")).map_err(|e| Error::invalid(e.to_string()))
    }
}

fn truth(text: &str) -> bool {
    !matches!(
        text.trim().to_ascii_lowercase().as_str(),
        "" | "0" | "no" | "false" | "none"
    )
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = || {
            let high = char::from(*bytes.get(at + 1)?).to_digit(16)?;
            let low = char::from(*bytes.get(at + 2)?).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        };
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => {
                if let Some(byte) = escaped() {
                    out.push(byte);
                    at += 2;
                } else {
                    out.push(b'%');
                }
            }
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dockers_rule_for_flags() {
        let query = Query::parse(Some(
            "a=1&b=0&c=False&d=no&e=none&f=&g=yes&h&i=%20TRUE&j=anything",
        ));
        let yes: String = "abcdefghijk"
            .chars()
            .filter(|c| query.flag(&c.to_string()))
            .collect();
        assert_eq!(yes, "agij");
        assert!(query.flag_or("missing", true) && !query.flag_or("f", true));
    }

    #[test]
    fn values_are_decoded_and_the_first_counts() {
        let query = Query::parse(Some("name=a%2Fb+c&name=second&x=%zz%4&n=12&bad=1x&u=%ff"));
        assert_eq!(query.get("name"), Some("a/b c"));
        assert_eq!(query.all("name").collect::<Vec<_>>(), ["a/b c", "second"]);
        assert_eq!(query.text("x"), "%zz%4");
        assert_eq!(query.text("u"), "\u{fffd}");
        assert_eq!(query.int("n").unwrap(), Some(12));
        assert_eq!(query.int("missing").unwrap(), None);
        assert!(query.int("bad").is_err());
        assert_eq!(Query::parse(None), Query::default());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(raw in "\\PC{0,60}|[%&=0-9a-f]{0,40}") {
            let _ = Query::parse(Some(&raw));
        }
    }
}
