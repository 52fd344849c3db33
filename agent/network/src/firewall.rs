//! The packet rules of berth: one nftables table of its own, and nothing else on the host.
//!
//! The rules are decided in `plan`, as text that `nft` takes in one transaction. The `nft` program
//! runs once, when the table is not there as this version of berth wants it; what changes with
//! every container are elements of sets, written here over netlink. A table that somebody has
//! flushed is noticed by the next element and made again, with all elements.

mod plan;

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use berth_sys::netfilter::{Element, Family, Netfilter, Set};
use berth_sys::spawn::run_tool;

use crate::error::{Error, Result};

pub(crate) use plan::{BridgeRules, Ruleset};

/// A run of `nft` takes 2 to 20 ms; past this something is broken.
const NFT_DEADLINE: Duration = Duration::from_secs(20);

/// A socket to the host's netfilter.
#[derive(Debug)]
pub(crate) struct Firewall {
    netfilter: Netfilter,
}

impl Firewall {
    /// Opens it in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Firewall> {
        let netfilter = Netfilter::open().map_err(|source| Error::Netlink {
            action: "open",
            object: "a netfilter socket".to_owned(),
            source,
        })?;
        Ok(Firewall { netfilter })
    }

    /// Makes the kernel hold these rules with exactly these addresses. Where the rules are there
    /// already only the elements are replaced; else the whole table is, in one transaction.
    ///
    /// # Errors
    /// [`Error::NftMissing`], [`Error::NftRefused`]: nothing has changed then.
    pub(crate) fn install(&mut self, rules: &Ruleset) -> Result<()> {
        if self.is_installed(rules)? {
            let replaced = rules
                .bridges
                .iter()
                .try_for_each(|bridge| self.replace(bridge));
            match replaced {
                // The marker without its sets: somebody has had a hand in the table.
                Err(Error::Elements { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                }
                other => return other,
            }
        }
        run_nft(&rules.text())
    }

    /// Whether the table holds the rules (elements aside).
    pub(crate) fn is_installed(&mut self, rules: &Ruleset) -> Result<bool> {
        self.netfilter
            .has_chain(Family::Inet, plan::TABLE, &rules.marker())
            .map_err(|source| Error::Netlink {
                action: "look at",
                object: format!("the nftables table {}", plan::TABLE),
                source,
            })
    }

    /// Lets a container's packets out. False: the table is gone.
    pub(crate) fn add(&mut self, bridge: &str, address: Ipv4Addr) -> Result<bool> {
        let name = plan::set_name(bridge);
        match self
            .netfilter
            .add(&set(&name), &[Element::key(&address.octets())])
        {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::Elements {
                action: "add an address",
                set: name,
                source,
            }),
        }
    }

    /// Stops a container's packets. Nothing to stop is no error.
    pub(crate) fn delete(&mut self, bridge: &str, address: Ipv4Addr) -> Result<()> {
        let name = plan::set_name(bridge);
        self.netfilter
            .delete(&set(&name), &[Element::key(&address.octets())])
            .map_err(|source| Error::Elements {
                action: "delete an address",
                set: name,
                source,
            })
    }

    /// Lets the packets of these addresses out and no others. Without the table there is nothing to do.
    pub(crate) fn keep_only(&mut self, bridge: &BridgeRules) -> Result<()> {
        match self.replace(bridge) {
            Err(Error::Elements { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            other => other,
        }
    }

    fn replace(&mut self, bridge: &BridgeRules) -> Result<()> {
        let name = plan::set_name(&bridge.name);
        let keys: Vec<_> = bridge.addresses.iter().map(Ipv4Addr::octets).collect();
        let elements: Vec<_> = keys.iter().map(|key| Element::key(key)).collect();
        self.netfilter
            .replace(&set(&name), &elements)
            .map_err(|source| Error::Elements {
                action: "replace the addresses",
                set: name,
                source,
            })
    }
}

fn set(name: &str) -> Set<'_> {
    Set {
        family: Family::Inet,
        table: plan::TABLE,
        name,
    }
}

/// Text and not JSON: every `nft` takes it, JSON only those built with it, and it is the language
/// in which an administrator reads the result.
fn run_nft(text: &str) -> Result<()> {
    let output = match run_tool("nft", &["-f", "-"], text.as_bytes(), NFT_DEADLINE) {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NftMissing),
        Err(error) => return Err(Error::NftFailed(error)),
    };
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let message = match stderr.trim() {
        "" => output.status.to_string(),
        text => text.to_owned(),
    };
    Err(Error::NftRefused { message })
}
