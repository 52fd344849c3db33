//! The network of containers: addresses, links, packets.
//!
//! A container on the bridge network has a network namespace of its own with one end of a veth
//! pair; the other end is a port of a bridge on the host, whose address is the gateway. What leaves
//! the bridge is masqueraded by an nftables table that is berth's own; nothing else on the host is
//! changed but the switch for IPv4 forwarding. No program runs when a container starts: links,
//! addresses and set elements are netlink messages; the `nft` program is run once, for the table.
//!
//! Pure parts decide ([`config`], `ipam`, `firewall::plan`, [`hostfiles`], [`endpoint`]), others do
//! (`link`, `netns`, `host`). The crate keeps no records: what is attached is told to it at start
//! by the engine.

mod bridge;
pub mod config;
pub mod endpoint;
pub mod error;
mod firewall;
mod host;
pub mod hostfiles;
mod ipam;
mod link;
mod netns;
mod network;
mod switches;
mod warm;
mod wire;

pub use config::{BridgeConfig, Subnet};
pub use endpoint::{Endpoint, Mac};
pub use error::{Error, ErrorKind, Result};
pub use network::{Network, Sandbox};
