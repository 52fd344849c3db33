//! A container's end of a bridge network: the record that the engine keeps and shows.
//!
//! Pure but for the random name, whose bytes come in as an argument.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What host-side interface names begin with, as everybody's do; seven random hex digits follow.
pub const INTERFACE_PREFIX: &str = "veth";

/// The name of the interface inside the container.
pub const INSIDE_NAME: &str = "eth0";

/// A hardware address. Text and serde form: `02:42:ac:1d:00:02`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address that Docker derives from an IPv4 one: locally administered, and unique wherever
    /// the IPv4 address is.
    pub fn of(address: Ipv4Addr) -> Mac {
        let [a, b, c, d] = address.octets();
        Mac([0x02, 0x42, a, b, c, d])
    }

    /// Whether an interface can have it: the kernel refuses group addresses and all zeros.
    pub fn is_usable(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = Error;

    /// Six pairs of hex digits, with colons or with dashes.
    fn from_str(text: &str) -> Result<Mac> {
        let wrong = || Error::MacUnusable {
            mac: text.to_owned(),
        };
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(wrong)?;
        }
        if parts.next().is_some() {
            Err(wrong())
        } else {
            Ok(Mac(bytes))
        }
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where a container is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The host's side of the pair. Drawn at random and never used twice, so it also tells this
    /// attachment from any other that gets the same address later.
    pub interface: String,
    pub ip: Ipv4Addr,
    pub prefix_len: u8,
    pub gateway: Ipv4Addr,
    pub mac: Mac,
    /// The bridge's interface name.
    pub bridge: String,
}

/// An interface name for the host's side: `veth` and seven hex digits, of 28 random bits.
pub(crate) fn interface_name(random: [u8; 4]) -> String {
    format!("{INTERFACE_PREFIX}{:07x}", u32::from_le_bytes(random) >> 4)
}

/// Whether a name could be one of [`interface_name`]'s.
pub(crate) fn is_interface_name(name: &str) -> bool {
    name.strip_prefix(INTERFACE_PREFIX).is_some_and(|digits| {
        digits.len() == 7 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_dockers() {
        let mac = Mac::of(Ipv4Addr::new(172, 29, 0, 2));
        assert_eq!(mac.to_string(), "02:42:ac:1d:00:02");
        assert_eq!("02:42:ac:1d:00:02".parse::<Mac>().unwrap(), mac);
        assert_eq!("02-42-AC-1D-00-02".parse::<Mac>().unwrap(), mac);
        assert!(mac.is_usable());
        for bad in [
            "",
            "02:42:ac:1d:00",
            "02:42:ac:1d:00:02:03",
            "2:42:ac:1d:00:02",
            "02:42:ac:1d:00:0g",
            "02:42-ac:1d:00:02",
            "+2:42:ac:1d:00:02",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        assert!(!Mac([0; 6]).is_usable());
        assert!(!Mac([0x01, 0, 0x5e, 0, 0, 1]).is_usable());
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        for (random, name) in [
            ([0; 4], "veth0000000"),
            ([0xff; 4], "vethfffffff"),
            ([0x10, 0, 0, 0], "veth0000001"),
        ] {
            assert_eq!(interface_name(random), name);
            assert!(name.len() <= 15 && is_interface_name(name));
        }
    }

    #[test]
    fn other_names_are_not_taken_for_ours() {
        for name in [
            "veth0",
            "veth000000g",
            "veth00000000",
            "eth0000000",
            "xveth0000000",
        ] {
            assert!(!is_interface_name(name), "{name}");
        }
    }

    #[test]
    fn endpoints_are_kept_as_text() {
        let ip = Ipv4Addr::new(172, 29, 0, 2);
        let endpoint = Endpoint {
            interface: "veth0000001".to_owned(),
            ip,
            prefix_len: 16,
            gateway: Ipv4Addr::new(172, 29, 0, 1),
            mac: Mac::of(ip),
            bridge: "berth0".to_owned(),
        };
        let json = serde_json::to_string(&endpoint).unwrap();
        assert!(json.contains(r#""mac":"02:42:ac:1d:00:02""#), "{json}");
        assert_eq!(serde_json::from_str::<Endpoint>(&json).unwrap(), endpoint);
    }
}
