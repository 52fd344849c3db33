//! From a request's method and path to its route. Paths are matched as sent: a variable may hold
//! slashes (`/images/user/repo/json`) and is decoded once, after the match, so that an encoded slash
//! never separates anything. Every route is reachable with and without `/vX.Y` in front.

use hyper::Method;

/// How a route treats a client that leaves before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// The work has an effect and is carried through.
    Finish,
    /// The work serves this client alone and ends with it.
    Client,
}

/// A path with at most one variable: `/containers/{name:.*}/json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pattern {
    before: &'static str,
    /// What follows the variable; `None` = the pattern is a plain path.
    after: Option<&'static str>,
}

impl Pattern {
    /// # Panics
    /// At start, and in the table's test, when the variable is not closed.
    pub(crate) fn new(text: &'static str) -> Self {
        match text.split_once('{') {
            None => Self {
                before: text,
                after: None,
            },
            Some((before, rest)) => {
                let (_, after) = rest
                    .split_once('}')
                    .expect("a variable in the route table is closed");
                Self {
                    before,
                    after: Some(after),
                }
            }
        }
    }

    /// A path that fits.
    #[cfg(test)]
    pub(crate) fn example(&self) -> String {
        match self.after {
            None => self.before.to_owned(),
            Some(after) => format!("{}some{after}", self.before),
        }
    }

    /// The variable's text (empty for plain paths) when the path fits.
    pub(crate) fn matches<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.after {
            None => (path == self.before).then_some(""),
            Some(after) => {
                let name = path.strip_prefix(self.before)?.strip_suffix(after)?;
                (!name.is_empty()).then_some(name)
            }
        }
    }
}

/// A set of routes over whatever serves them.
#[derive(Debug)]
pub(crate) struct Router<T> {
    entries: Vec<(Method, Pattern, T)>,
}

impl<T> Router<T> {
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// Earlier entries win: plain paths go before patterns that would swallow them.
    pub(crate) fn add(&mut self, method: Method, pattern: &'static str, target: T) {
        self.entries.push((method, Pattern::new(pattern), target));
    }

    /// The target and the variable's raw text.
    pub(crate) fn find<'a>(&self, method: &Method, path: &'a str) -> Option<(&T, &'a str)> {
        self.entries
            .iter()
            .filter(|(m, _, _)| m == method)
            .find_map(|(_, pattern, target)| {
                let name = pattern.matches(path)?;
                Some((target, name))
            })
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Method, &Pattern)> {
        self.entries
            .iter()
            .map(|(method, pattern, _)| (method, pattern))
    }
}

/// Splits `/v1.24/x` into the version's text and `/x`; a path without a version stays whole.
pub(crate) fn split_version(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/v") else {
        return (None, path);
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (version, rest) = rest.split_at(end);
    if version.is_empty() || !rest.starts_with('/') {
        (None, path)
    } else {
        (Some(version), rest)
    }
}

/// Undoes percent-encoding, once. `None` when it is malformed, not UTF-8, or hides a NUL.
pub(crate) fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (high, low) = (
            char::from(rest.next()?).to_digit(16)?,
            char::from(rest.next()?).to_digit(16)?,
        );
        bytes.push(
            u8::try_from(high * 16 + low)
                .ok()
                .filter(|byte| *byte != 0)?,
        );
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_span_slashes_and_are_never_empty() {
        let pattern = Pattern::new("/images/{name:.*}/json");
        assert_eq!(pattern.matches("/images/busybox/json"), Some("busybox"));
        assert_eq!(pattern.matches("/images/a/b/c:d/json"), Some("a/b/c:d"));
        assert_eq!(pattern.matches("/images/json/json"), Some("json"));
        assert_eq!(pattern.matches("/images//json"), None);
        assert_eq!(pattern.matches("/images/json"), None);
        assert_eq!(pattern.matches("/images/x/history"), None);
    }

    #[test]
    fn a_variable_may_end_the_path() {
        let pattern = Pattern::new("/containers/{name:.*}");
        assert_eq!(pattern.matches("/containers/web/db"), Some("web/db"));
        assert_eq!(pattern.matches("/containers/"), None);
        assert_eq!(pattern.matches("/containers"), None);
    }

    #[test]
    fn versions_are_split_off_only_where_they_are_versions() {
        assert_eq!(split_version("/v1.24/info"), (Some("1.24"), "/info"));
        assert_eq!(split_version("/v1.2.3/info"), (Some("1.2.3"), "/info"));
        assert_eq!(split_version("/v999/info"), (Some("999"), "/info"));
        for path in [
            "/version",
            "/v1.24",
            "/volumes",
            "/v/info",
            "/info",
            "/vx1/info",
            "/",
        ] {
            assert_eq!(split_version(path), (None, path));
        }
    }

    #[test]
    fn decoding_happens_once() {
        assert_eq!(decode("plain").as_deref(), Some("plain"));
        assert_eq!(decode("user%2Frepo").as_deref(), Some("user/repo"));
        assert_eq!(decode("%252e%252e").as_deref(), Some("%2e%2e"));
        for bad in ["%", "%4", "%zz", "a%00b", "%ff", "%+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_encoded_slash_separates_nothing() {
        let mut router = Router::new();
        router.add(Method::GET, "/containers/{name:.*}/json", 1);
        assert_eq!(router.find(&Method::GET, "/containers/a%2Fjson"), None);
        assert_eq!(
            router.find(&Method::GET, "/containers/a%2Fb/json"),
            Some((&1, "a%2Fb"))
        );
        assert_eq!(router.find(&Method::POST, "/containers/a/json"), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_a_client_sends_as_a_path_panics(path in ".*") {
            let _ = split_version(&path);
            let _ = decode(&path);
            let _ = Pattern::new("/containers/{name:.*}/json").matches(&path);
        }
    }
}
