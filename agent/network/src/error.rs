//! What can go wrong with a container's network, each naming its object.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use thiserror::Error;

use crate::config::Subnet;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request or the configuration is wrong.
    Invalid,
    /// Another object has what was asked for.
    Conflict,
    /// Nothing is left to give: addresses, bridge ports.
    Exhausted,
    /// Something that berth needs of the host is missing or in the way.
    Unavailable,
    /// A fault of ours or of the kernel.
    Internal,
}

/// An error of the network.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{what} {why}")]
    Config { what: String, why: &'static str },

    #[error("container {id} has the address {address} already")]
    AlreadyAttached { id: String, address: Ipv4Addr },

    #[error("no address is left in {subnet} of bridge {bridge}: {used} are in use")]
    AddressesExhausted {
        subnet: Subnet,
        bridge: String,
        used: usize,
    },

    #[error("address {address} is in use by container {id}")]
    AddressInUse { address: Ipv4Addr, id: String },

    #[error("address {address} is not one that a container can have in {subnet}")]
    AddressUnusable { address: Ipv4Addr, subnet: Subnet },

    #[error("mac address {mac} is not one that a container can have")]
    MacUnusable { mac: String },

    #[error("bridge {bridge} has no free port: the kernel allows 1023 on one bridge")]
    BridgeFull { bridge: String },

    #[error(
        "interface {name} exists and was not made by berth: remove it, or set another bridge name in the configuration"
    )]
    ForeignInterface { name: String },

    #[error(
        "subnet {subnet} of bridge {bridge} overlaps with {other}: set another subnet in the configuration"
    )]
    Overlap {
        subnet: Subnet,
        bridge: String,
        other: String,
    },

    #[error(
        "bridge {bridge} has the address {has}, the configuration says {wants}, and containers are still attached: \
         stop them first"
    )]
    BridgeInUse {
        bridge: String,
        has: String,
        wants: String,
    },

    #[error("the nft program is not installed: install the package nftables")]
    NftMissing,

    #[error("nft refused the rules of berth: {message}")]
    NftRefused { message: String },

    #[error("nft could not be run")]
    NftFailed(#[source] io::Error),

    #[error("could not {action} in the nftables set {set}")]
    Elements {
        action: &'static str,
        set: String,
        source: io::Error,
    },

    #[error("could not {action} {object}")]
    Netlink {
        action: &'static str,
        object: String,
        source: io::Error,
    },

    #[error("could not make a network namespace")]
    Namespace(#[source] io::Error),

    #[error("could not set the kernel switch {}", path.display())]
    Switch { path: PathBuf, source: io::Error },

    #[error("the network task ended early")]
    Task(#[source] tokio::task::JoinError),

    #[error("could not draw random bytes")]
    Random(#[source] io::Error),
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Config { .. } | Error::AddressUnusable { .. } | Error::MacUnusable { .. } => {
                ErrorKind::Invalid
            }
            Error::AlreadyAttached { .. } | Error::AddressInUse { .. } => ErrorKind::Conflict,
            Error::AddressesExhausted { .. } | Error::BridgeFull { .. } => ErrorKind::Exhausted,
            Error::ForeignInterface { .. }
            | Error::Overlap { .. }
            | Error::BridgeInUse { .. }
            | Error::NftMissing
            | Error::NftRefused { .. }
            | Error::NftFailed(_) => ErrorKind::Unavailable,
            Error::Elements { .. }
            | Error::Netlink { .. }
            | Error::Namespace(_)
            | Error::Switch { .. }
            | Error::Task(_)
            | Error::Random(_) => ErrorKind::Internal,
        }
    }
}
