//! API versions: parsing, order, and which are served.

use std::fmt;

use berth_engine::{Error, Result};

/// A version of the API, e.g. 1.51.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    pub major: u32,
    pub minor: u32,
}

impl ApiVersion {
    /// The newest that is spoken, and what a request without a version gets.
    pub const MAX: Self = Self::new(1, 51);
    /// The oldest that is spoken.
    pub const MIN: Self = Self::new(1, 0);

    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Whether this is 1.`minor` or newer.
    pub const fn at_least(self, minor: u32) -> bool {
        self.major > 1 || self.major == 1 && self.minor >= minor
    }

    /// Parses `1.24`, with or without further components; missing ones count as 0.
    pub fn parse(text: &str) -> Option<Self> {
        Self::split(text).map(|(version, _)| version)
    }

    /// The version and whether anything beyond major and minor is above zero.
    fn split(text: &str) -> Option<(Self, bool)> {
        let mut parts = text.split('.').map(|part| {
            if part.bytes().all(|b| b.is_ascii_digit()) {
                part.parse::<u32>().ok()
            } else {
                None
            }
        });
        let major = parts.next()??;
        let minor = parts.next().unwrap_or(Some(0))?;
        let mut beyond = false;
        for part in parts {
            beyond |= part? > 0;
        }
        Some((Self { major, minor }, beyond))
    }

    /// The version that a request's path asks for (`None`: it names none), or Docker's refusal.
    pub fn from_path(version: Option<&str>) -> Result<Self> {
        let Some(text) = version else {
            return Ok(Self::MAX);
        };
        let (asked, beyond) = Self::split(text)
            .ok_or_else(|| Error::invalid(format!("invalid API version: {text:?}")))?;
        if (asked, beyond) > (Self::MAX, false) {
            return Err(Error::invalid(format!(
                "client version {text} is too new. Maximum supported API version is {}",
                Self::MAX
            )));
        }
        if asked < Self::MIN {
            return Err(Error::invalid(format!(
                "client version {text} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
                Self::MIN
            )));
        }
        Ok(asked)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        let v = |text| ApiVersion::parse(text).unwrap();
        assert!(v("1.9") < v("1.10") && v("1.51") < v("2.0"));
        assert_eq!(v("1"), v("1.0.0"));
        assert_eq!(v("1.24").to_string(), "1.24");
        assert!(v("1.24").at_least(24) && !v("1.23").at_least(24) && v("2.0").at_least(24));
        for text in [
            "",
            ".",
            "1.",
            "x",
            "1.x",
            "-1.2",
            "+1.2",
            "1.2.x",
            "99999999999.1",
        ] {
            assert_eq!(ApiVersion::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_served() {
        assert_eq!(ApiVersion::from_path(None).unwrap(), ApiVersion::MAX);
        assert_eq!(ApiVersion::from_path(Some("1.0")).unwrap(), ApiVersion::MIN);
        assert_eq!(
            ApiVersion::from_path(Some("1.12.3")).unwrap(),
            ApiVersion::new(1, 12)
        );
        let refusal = |text| {
            ApiVersion::from_path(Some(text))
                .unwrap_err()
                .full_message()
        };
        assert_eq!(
            refusal("1.52"),
            "client version 1.52 is too new. Maximum supported API version is 1.51"
        );
        assert!(refusal("1.51.1").contains("too new"));
        assert!(
            refusal("0.9")
                .starts_with("client version 0.9 is too old. Minimum supported API version is 1.0")
        );
        assert!(refusal("x").contains("invalid API version"));
    }
}
