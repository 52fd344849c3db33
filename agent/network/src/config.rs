//! What an administrator says about a bridge network, checked before anything is made of it.
//!
//! Pure: nothing here asks the kernel.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longest interface name, bytes (`IFNAMSIZ` without the final zero).
const MAX_INTERFACE_NAME: usize = 15;

/// Smallest and largest subnet that makes sense: a /30 holds the gateway and one container, and a
/// bridge takes no more than 1,023 ports, so nothing wider than a /8 is ever needed.
const PREFIX_LENGTHS: std::ops::RangeInclusive<u8> = 8..=30;

/// IPv4 needs 68 (RFC 791); the kernel's veth takes up to 65,535.
const MTUS: std::ops::RangeInclusive<u32> = 68..=65535;

/// An IPv4 network: its first address and the length of its prefix. Text and serde form: `a.b.c.d/n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix_len: u8,
}

impl Subnet {
    /// The network that `address` lies in; bits beyond the prefix are cleared.
    pub fn containing(address: Ipv4Addr, prefix_len: u8) -> Subnet {
        let prefix_len = prefix_len.min(32);
        Subnet {
            network: Ipv4Addr::from_bits(address.to_bits() & mask(prefix_len)),
            prefix_len,
        }
    }

    /// The first address, which names the network and belongs to nobody.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// The last address.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !mask(self.prefix_len))
    }

    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Addresses in it, the first and the last included.
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix_len))
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix_len) == self.network.to_bits()
    }

    /// Whether the two have an address in common. Networks either nest or are apart.
    pub fn overlaps(self, other: Subnet) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(prefix_len))
        .unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    /// Strict: bits set beyond the prefix are an error, since they are more often a typing error
    /// than a wish.
    fn from_str(text: &str) -> Result<Subnet> {
        let wrong = |why: &'static str| Error::Config {
            what: format!("subnet {text:?}"),
            why,
        };
        let (address, length) = text
            .split_once('/')
            .ok_or_else(|| wrong("is not of the form a.b.c.d/n"))?;
        let address: Ipv4Addr = address
            .parse()
            .map_err(|_| wrong("does not begin with an IPv4 address"))?;
        let length: u8 = match length.parse() {
            Ok(length) if length <= 32 && !length_has_sign_or_zeros(text) => length,
            _ => return Err(wrong("has no prefix length from 0 to 32")),
        };
        let subnet = Subnet::containing(address, length);
        if subnet.network != address {
            return Err(wrong("has bits set beyond its prefix"));
        }
        Ok(subnet)
    }
}

/// `u8::from_str` takes `+8` and `08`.
fn length_has_sign_or_zeros(text: &str) -> bool {
    let digits = text.rsplit('/').next().unwrap_or_default();
    digits.starts_with('+') || (digits.len() > 1 && digits.starts_with('0'))
}

impl Serialize for Subnet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Subnet, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The default bridge network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeConfig {
    /// The bridge's interface name.
    pub name: String,
    pub subnet: Subnet,
    /// The bridge's own address, which containers use as their gateway. None = the first of the
    /// subnet.
    pub gateway: Option<Ipv4Addr>,
    /// Bytes. None = that of the interface which the host's default route uses, else 1500.
    pub mtu: Option<u32>,
}

impl Default for BridgeConfig {
    fn default() -> BridgeConfig {
        BridgeConfig {
            name: "berth0".to_owned(),
            subnet: Subnet {
                network: Ipv4Addr::new(172, 29, 0, 0),
                prefix_len: 16,
            },
            gateway: None,
            mtu: None,
        }
    }
}

impl BridgeConfig {
    /// The bridge's own address.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
            .unwrap_or_else(|| Ipv4Addr::from_bits(self.subnet.network().to_bits() | 1))
    }

    /// Whether a bridge could be made of this.
    ///
    /// # Errors
    /// [`Error::Config`], naming the field and its value.
    pub fn check(&self) -> Result<()> {
        check_interface_name(&self.name)?;
        let subnet = self.subnet;
        let wrong = |why| {
            Err(Error::Config {
                what: format!("subnet {subnet} of bridge {}", self.name),
                why,
            })
        };
        if !PREFIX_LENGTHS.contains(&subnet.prefix_len()) {
            return wrong("must have a prefix length from 8 to 30");
        }
        let first = subnet.network();
        if first.is_loopback()
            || first.is_multicast()
            || first.is_unspecified()
            || first.octets()[0] >= 240
            || first.octets()[0] == 0
        {
            return wrong("is not one that hosts can have");
        }
        let gateway = self.gateway();
        if !subnet.contains(gateway) || gateway == subnet.network() || gateway == subnet.broadcast()
        {
            return Err(Error::Config {
                what: format!("gateway {gateway} of bridge {}", self.name),
                why: "is not an address for a host of its subnet",
            });
        }
        match self.mtu {
            Some(mtu) if !MTUS.contains(&mtu) => Err(Error::Config {
                what: format!("mtu {mtu} of bridge {}", self.name),
                why: "must be from 68 to 65535",
            }),
            _ => Ok(()),
        }
    }
}

/// Stricter than the kernel: the name becomes part of a path below /proc/sys, of the names of our
/// sets and chains, and of nft text, so it holds nothing that means something there.
fn check_interface_name(name: &str) -> Result<()> {
    let wrong = |why| {
        Err(Error::Config {
            what: format!("bridge name {name:?}"),
            why,
        })
    };
    if name.is_empty() || name.len() > MAX_INTERFACE_NAME {
        return wrong("must have 1 to 15 characters");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic())
        || !name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    {
        return wrong("must be a letter followed by letters, digits, '-' and '_'");
    }
    // Directories of /proc/sys/net/*/conf that are no interfaces, and the one that exists always.
    if matches!(name, "all" | "default" | "lo") {
        return wrong("has a meaning of its own");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_read_strictly() {
        for good in [
            "172.29.0.0/16",
            "10.0.0.0/8",
            "192.168.4.252/30",
            "0.0.0.0/0",
            "1.2.3.4/32",
        ] {
            assert_eq!(good.parse::<Subnet>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "1.2.3.4",
            "1.2.3.0/33",
            "1.2.3.0/+8",
            "1.0.0.0/08",
            "1.2.3.4/24",
            "x/8",
            "1.2.3/24",
            "::/64",
            "1.2.3.0/24 ",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn subnets_know_their_edges() {
        let subnet: Subnet = "172.29.0.0/16".parse().unwrap();
        assert_eq!(
            (subnet.size(), subnet.broadcast()),
            (65536, Ipv4Addr::new(172, 29, 255, 255))
        );
        let all: Subnet = "0.0.0.0/0".parse().unwrap();
        assert_eq!(
            (all.size(), all.broadcast()),
            (1 << 32, Ipv4Addr::BROADCAST)
        );
        for (other, overlaps) in [
            ("172.29.3.0/24", true),
            ("172.16.0.0/12", true),
            ("172.28.0.0/16", false),
            ("172.30.0.0/16", false),
        ] {
            let other = other.parse().unwrap();
            assert_eq!(
                (subnet.overlaps(other), Subnet::overlaps(other, subnet)),
                (overlaps, overlaps),
                "{other}"
            );
        }
    }

    #[test]
    fn the_default_is_right_and_first_address_is_the_gateway() {
        let config = BridgeConfig::default();
        config.check().unwrap();
        assert_eq!(config.gateway(), Ipv4Addr::new(172, 29, 0, 1));
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(
            json,
            r#"{"name":"berth0","subnet":"172.29.0.0/16","gateway":null,"mtu":null}"#
        );
        assert_eq!(serde_json::from_str::<BridgeConfig>(&json).unwrap(), config);
        assert_eq!(serde_json::from_str::<BridgeConfig>("{}").unwrap(), config);
        assert!(serde_json::from_str::<BridgeConfig>(r#"{"subnets":1}"#).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let with = |change: &dyn Fn(&mut BridgeConfig)| {
            let mut config = BridgeConfig::default();
            change(&mut config);
            config.check().map_err(|error| error.to_string())
        };
        for name in [
            "",
            "all",
            "default",
            "lo",
            "a/b",
            "..",
            "a.b",
            "0a",
            "sixteen-letters-",
            "a\"b",
            "a b",
            "é",
        ] {
            assert!(with(&|c| c.name = name.to_owned()).is_err(), "{name}");
        }
        for subnet in [
            "127.0.0.0/8",
            "224.0.0.0/8",
            "240.0.0.0/8",
            "0.0.0.0/8",
            "10.0.0.0/31",
            "0.0.0.0/0",
        ] {
            assert!(
                with(&|c| c.subnet = subnet.parse().unwrap()).is_err(),
                "{subnet}"
            );
        }
        for gateway in [[172, 29, 0, 0], [172, 29, 255, 255], [172, 30, 0, 1]] {
            let error = with(&|c| c.gateway = Some(gateway.into())).unwrap_err();
            assert!(error.starts_with("gateway 172."), "{error}");
        }
        assert!(with(&|c| c.gateway = Some([172, 29, 255, 254].into())).is_ok());
        assert!(with(&|c| c.mtu = Some(67)).is_err());
        assert!(with(&|c| c.mtu = Some(1420)).is_ok());
    }
}
