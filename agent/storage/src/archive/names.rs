//! Names of archive members: cleaned to components, or refused. Pure.

use crate::limits::{COMPONENT_MAX, DEPTH_MAX, NAME_MAX};

/// A name of proper components only, joined by `/`: no leading slash, no empty, `.` or `..` part.
/// Empty = the root itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Name(Vec<u8>);

impl Name {
    /// Cleans what an archive says. A leading slash means the root of the archive, as everywhere in
    /// the field; `..` has no meaning there that is worth guessing, so it is refused.
    pub(crate) fn clean(raw: &[u8]) -> Result<Name, String> {
        if raw.len() >= NAME_MAX {
            return Err(format!(
                "the name has {} bytes, more than {}",
                raw.len(),
                NAME_MAX - 1
            ));
        }
        if raw.contains(&0) {
            return Err("the name contains a NUL byte".to_owned());
        }
        let mut clean = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for part in raw.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err("the name contains \"..\"".to_owned()),
                _ if part.len() > COMPONENT_MAX => {
                    return Err(format!(
                        "a part of the name has {} bytes, more than {COMPONENT_MAX}",
                        part.len()
                    ));
                }
                _ => {}
            }
            depth += 1;
            if depth > DEPTH_MAX {
                return Err(format!(
                    "the name is more than {DEPTH_MAX} directories deep"
                ));
            }
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(part);
        }
        Ok(Name(clean))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty())
    }

    /// The directory's name and the last component; `None` for the root.
    pub(crate) fn split(&self) -> Option<(Name, &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (Name(self.0[..at].to_vec()), &self.0[at + 1..]),
            None => (Name::default(), &self.0[..]),
        })
    }

    /// This name with one more component, which must be a proper one.
    pub(crate) fn join(&self, part: &[u8]) -> Name {
        debug_assert!(!part.is_empty() && !part.contains(&b'/') && part != b"." && part != b"..");
        let mut joined = self.0.clone();
        if !joined.is_empty() {
            joined.push(b'/');
        }
        joined.extend_from_slice(part);
        Name(joined)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clean(raw: &str) -> Result<String, String> {
        Name::clean(raw.as_bytes()).map(|name| String::from_utf8(name.0).unwrap())
    }

    #[test]
    fn plain_names() {
        for (raw, expected) in [
            ("", ""),
            ("/", ""),
            ("./", ""),
            ("./a/b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("a//b/./c", "a/b/c"),
            ("...", "..."),
            ("a/..b", "a/..b"),
        ] {
            assert_eq!(clean(raw).as_deref(), Ok(expected), "{raw:?}");
        }
    }

    #[test]
    fn names_that_are_refused() {
        for raw in ["..", "../x", "a/../b", "a/..", "/..", "a\0b", "\0"] {
            assert!(clean(raw).is_err(), "{raw:?}");
        }
        assert!(clean(&"x".repeat(256)).is_err());
        assert!(clean(&"x".repeat(255)).is_ok());
        assert!(clean(&"x/".repeat(1024)).is_ok());
        assert!(clean(&"x/".repeat(1025)).is_err());
        assert!(clean(&"x/".repeat(4000)).is_err());
    }

    #[test]
    fn splitting_and_nesting() {
        let name = Name::clean(b"a/b/c").unwrap();
        let (dir, leaf) = name.split().unwrap();
        assert_eq!((dir.as_bytes(), leaf), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(dir.join(leaf), name);
        assert!(Name::default().split().is_none());
    }

    proptest! {
        #[test]
        fn a_clean_name_has_only_proper_parts(raw in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(name) = Name::clean(&raw) {
                for part in name.parts() {
                    prop_assert!(part != b"." && part != b".." && !part.is_empty());
                    prop_assert!(!part.contains(&0) && !part.contains(&b'/'));
                }
                prop_assert_eq!(&Name::clean(name.as_bytes()).unwrap(), &name);
            }
        }

        #[test]
        fn no_dotted_name_leaves_the_root(raw in "[./a]{0,40}") {
            if let Ok(name) = Name::clean(raw.as_bytes()) {
                prop_assert!(!name.parts().any(|part| part == b".."));
            } else {
                prop_assert!(raw.split('/').any(|part| part == ".."));
            }
        }
    }
}
