//! Image references with Docker's normalisation: `busybox` means `docker.io/library/busybox:latest`.
//! The grammar is that of the distribution project's reference package; it is checked by hand here
//! because it is small and a regular expression engine is not.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError};

/// The domain that a name without one belongs to.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag that a name without one means.
pub const DEFAULT_TAG: &str = "latest";
/// Old spelling of the default domain.
const LEGACY_DOMAIN: &str = "index.docker.io";
/// The name space of names without one in the default domain.
const OFFICIAL: &str = "library/";
/// Longest repository path.
const PATH_MAX: usize = 255;
/// Longest tag.
const TAG_MAX: usize = 128;

/// A normalised reference: domain and path are always there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference. The texts are those that Docker's clients know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("invalid reference format")]
    Format,
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    #[error(
        "invalid reference format: repository name must not be more than {PATH_MAX} characters"
    )]
    TooLong,
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    #[error("invalid tag format: {0:?}")]
    Tag(String),
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// Parses and normalises what a user typed. A missing tag stays missing: see [`Self::with_default_tag`].
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        let (domain, remainder) = split_domain(named);
        let (path, tag) = match remainder.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (remainder, None),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase(path.to_owned()));
        }
        let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
            format!("{OFFICIAL}{path}")
        } else {
            path.to_owned()
        };
        if !domain_ok(domain) || !path_ok(&path) {
            return Err(ReferenceError::Format);
        }
        if path.len() > PATH_MAX {
            return Err(ReferenceError::TooLong);
        }
        if tag.is_some_and(|tag| !tag_ok(tag)) {
            return Err(ReferenceError::Format);
        }
        Ok(Self {
            domain: domain.to_owned(),
            path,
            tag: tag.map(str::to_owned),
            digest: digest.map(Digest::parse).transpose()?,
        })
    }

    /// The registry's host, with its port if it has one.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository below the domain, e.g. `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Domain and path: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as Docker shows it: `busybox`, `user/app`, `registry:5000/app`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            // `library/a/b` must not become `a/b`, which would mean something else.
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// As Docker shows it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    /// In full: `docker.io/library/busybox:latest`.
    pub fn canonical(&self) -> String {
        self.suffixed(self.name())
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }

    /// With `latest` where there is neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository under this tag; a digest is dropped.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        if !tag_ok(tag) {
            return Err(ReferenceError::Tag(tag.to_owned()));
        }
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// The same repository at this digest; a tag is dropped.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The repository alone.
    #[must_use]
    pub fn without_tag(&self) -> Self {
        Self {
            tag: None,
            digest: None,
            ..self.clone()
        }
    }
}

/// Whether this may be a tag: a word character, then up to 127 of them or `.`, `-`.
pub fn tag_ok(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= TAG_MAX
        && word(bytes[0])
        && bytes[1..]
            .iter()
            .all(|&b| word(b) || b == b'.' || b == b'-')
}

/// What stands before the first slash is a domain if it can be no path: it has a dot or a colon, is
/// `localhost`, or holds a capital.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (
                if first == LEGACY_DOMAIN {
                    DEFAULT_DOMAIN
                } else {
                    first
                },
                rest,
            )
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn domain_ok(domain: &str) -> bool {
    let port_ok = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = domain.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        return !address.is_empty()
            && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
            && (port.is_empty() || port.strip_prefix(':').is_some_and(port_ok));
    }
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    port.is_none_or(port_ok)
        && host.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn path_ok(path: &str) -> bool {
    path.split('/').all(component_ok)
}

/// Lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn component_ok(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alnum(first) || !alnum(last) {
        return false;
    }
    bytes.split(|&b| alnum(b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
    })
}

/// The canonical form, so that a stored reference never depends on a default.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_normalised_and_shown_short() {
        let cases = [
            ("busybox", "docker.io/library/busybox", "busybox"),
            (
                "busybox:1.36",
                "docker.io/library/busybox:1.36",
                "busybox:1.36",
            ),
            ("library/busybox", "docker.io/library/busybox", "busybox"),
            ("user/app:v1", "docker.io/user/app:v1", "user/app:v1"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox",
                "busybox",
            ),
            (
                "docker.io/library/a/b",
                "docker.io/library/a/b",
                "library/a/b",
            ),
            ("localhost/app", "localhost/app", "localhost/app"),
            (
                "localhost:5000/app:x",
                "localhost:5000/app:x",
                "localhost:5000/app:x",
            ),
            (
                "registry.example/team/app",
                "registry.example/team/app",
                "registry.example/team/app",
            ),
            (
                "[fd00::1]:5000/app",
                "[fd00::1]:5000/app",
                "[fd00::1]:5000/app",
            ),
            ("UPPER/app", "UPPER/app", "UPPER/app"),
            (
                "a__b/c--d/e_f.g",
                "docker.io/a__b/c--d/e_f.g",
                "a__b/c--d/e_f.g",
            ),
        ];
        for (typed, canonical, familiar) in cases {
            let reference = Reference::parse(typed).unwrap();
            assert_eq!(reference.canonical(), canonical, "{typed}");
            assert_eq!(reference.familiar(), familiar, "{typed}");
        }
    }

    #[test]
    fn digests_are_kept_beside_tags() {
        let reference = Reference::parse(&format!("app:v1@sha256:{HEX}")).unwrap();
        assert_eq!(reference.tag(), Some("v1"));
        assert_eq!(reference.digest().unwrap().hex(), HEX);
        assert_eq!(reference.familiar(), format!("app:v1@sha256:{HEX}"));
        assert_eq!(reference.clone().with_default_tag(), reference);
        assert_eq!(
            Reference::parse(&format!("app@sha256:{HEX}"))
                .unwrap()
                .with_default_tag()
                .tag(),
            None
        );
        assert_eq!(
            Reference::parse("app")
                .unwrap()
                .with_default_tag()
                .familiar(),
            "app:latest"
        );
    }

    #[test]
    fn wrong_ones_say_what_is_wrong() {
        for text in [
            "",
            ":",
            ":tag",
            "a/",
            "/a",
            "a//b",
            "a b",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "a:",
            "a:-x",
            "a:b:c",
            "host:port/app",
            "ho_st.x/app",
            "https://x/app",
            "a@b@c",
            ".a",
            "a/.b",
            "[fd00::1/app",
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(
            Reference::parse("Busybox"),
            Err(ReferenceError::Uppercase("Busybox".into()))
        );
        assert!(matches!(
            Reference::parse(HEX),
            Err(ReferenceError::LooksLikeId(_))
        ));
        assert_eq!(
            Reference::parse(&format!("a/{}", "b".repeat(254))),
            Err(ReferenceError::TooLong)
        );
        assert!(Reference::parse(&format!("a:{}", "t".repeat(129))).is_err());
        assert!(Reference::parse(&format!("a:{}", "t".repeat(128))).is_ok());
        assert!(matches!(
            Reference::parse("a@sha512:00"),
            Err(ReferenceError::Digest(_))
        ));
    }

    #[test]
    fn changing_the_tag_drops_the_digest() {
        let pinned = Reference::parse(&format!("app@sha256:{HEX}")).unwrap();
        assert_eq!(pinned.with_tag("v2").unwrap().familiar(), "app:v2");
        assert!(pinned.with_tag("no/slash").is_err());
        assert_eq!(pinned.without_tag().familiar(), "app");
    }

    proptest! {
        #[test]
        fn both_forms_parse_back_to_the_same(text in "([a-z0-9]{1,8}(\\.[a-z]{2,3})(:[0-9]{1,4})?/)?[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,8})?") {
            let reference = Reference::parse(&text).unwrap();
            prop_assert_eq!(&Reference::parse(&reference.canonical()).unwrap(), &reference);
            prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            let json = serde_json::to_string(&reference).unwrap();
            prop_assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), reference);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,60}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.canonical()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }
    }
}
