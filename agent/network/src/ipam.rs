//! Which container has which address of a subnet.
//!
//! Pure. What is in use is the set of live records that the engine gives back at start
//! ([`Pool::restore`]); there is no file of its own that could disagree with them.
//!
//! Addresses are handed out as Docker does: the next free one after the last that was given,
//! wrapping at the end, so that a released address rests for as long as possible.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;

use crate::config::{BridgeConfig, Subnet};
use crate::error::{Error, Result};

/// Who holds an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub id: String,
    /// The attachment: its host-side interface name.
    pub interface: String,
    /// Taken over from a record, not given out by this process.
    pub restored: bool,
}

/// The addresses of one bridge network.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    bridge: String,
    subnet: Subnet,
    gateway: Ipv4Addr,
    /// The address given last; the search goes on behind it.
    last: u32,
    leases: BTreeMap<Ipv4Addr, Lease>,
    holders: HashMap<String, Ipv4Addr>,
}

impl Pool {
    pub(crate) fn new(config: &BridgeConfig) -> Pool {
        let subnet = config.subnet;
        Pool {
            bridge: config.name.clone(),
            subnet,
            gateway: config.gateway(),
            last: subnet.network().to_bits(),
            leases: BTreeMap::new(),
            holders: HashMap::new(),
        }
    }

    /// Gives container `id` an address: the `requested` one or the next free.
    pub(crate) fn take(
        &mut self,
        id: &str,
        interface: &str,
        requested: Option<Ipv4Addr>,
    ) -> Result<Ipv4Addr> {
        if let Some(&address) = self.holders.get(id) {
            return Err(Error::AlreadyAttached {
                id: id.to_owned(),
                address,
            });
        }
        let address = match requested {
            Some(address) => self.check(address)?,
            None => self.next_free()?,
        };
        if requested.is_none() {
            self.last = address.to_bits();
        }
        self.insert(address, id, interface, false);
        Ok(address)
    }

    /// Takes over what a record says. A record that cannot be true any more (outside the subnet
    /// after a change of configuration, or an address that another one has) is an error and
    /// changes nothing; the same lease again is none.
    pub(crate) fn restore(&mut self, id: &str, interface: &str, address: Ipv4Addr) -> Result<()> {
        if self
            .leases
            .get(&address)
            .is_some_and(|lease| lease.id == id && lease.interface == interface)
        {
            return Ok(());
        }
        if let Some(&address) = self.holders.get(id) {
            return Err(Error::AlreadyAttached {
                id: id.to_owned(),
                address,
            });
        }
        let address = self.check(address)?;
        self.insert(address, id, interface, true);
        // Going on behind the highest known one keeps released addresses at rest over a restart.
        self.last = self.last.max(address.to_bits());
        Ok(())
    }

    /// Gives the address back if this very attachment holds it; true if it did.
    pub(crate) fn give_back(&mut self, address: Ipv4Addr, interface: &str) -> bool {
        if self
            .leases
            .get(&address)
            .is_none_or(|lease| lease.interface != interface)
        {
            return false;
        }
        if let Some(lease) = self.leases.remove(&address) {
            self.holders.remove(&lease.id);
        }
        true
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = (Ipv4Addr, &Lease)> {
        self.leases.iter().map(|(address, lease)| (*address, lease))
    }

    pub(crate) fn holder(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.leases.get(&address)
    }

    /// Takes the restored leases of containers that are not alive out, and tells them.
    pub(crate) fn drop_restored(&mut self, live: &BTreeSet<String>) -> Vec<(Ipv4Addr, Lease)> {
        let dead: Vec<_> = self
            .leases
            .extract_if(.., |_, lease| lease.restored && !live.contains(&lease.id))
            .collect();
        for (_, lease) in &dead {
            self.holders.remove(&lease.id);
        }
        dead
    }

    fn insert(&mut self, address: Ipv4Addr, id: &str, interface: &str, restored: bool) {
        self.holders.insert(id.to_owned(), address);
        self.leases.insert(
            address,
            Lease {
                id: id.to_owned(),
                interface: interface.to_owned(),
                restored,
            },
        );
    }

    fn check(&self, address: Ipv4Addr) -> Result<Ipv4Addr> {
        if !self.is_usable(address) {
            return Err(Error::AddressUnusable {
                address,
                subnet: self.subnet,
            });
        }
        match self.leases.get(&address) {
            Some(lease) => Err(Error::AddressInUse {
                address,
                id: lease.id.clone(),
            }),
            None => Ok(address),
        }
    }

    fn is_usable(&self, address: Ipv4Addr) -> bool {
        self.subnet.contains(address)
            && address != self.subnet.network()
            && address != self.subnet.broadcast()
            && address != self.gateway
    }

    /// Walks the gaps between leases instead of the addresses: a wide subnet that is nearly full
    /// costs no more than its leases do.
    fn next_free(&self) -> Result<Ipv4Addr> {
        let (first, last) = (
            self.subnet.network().to_bits() + 1,
            self.subnet.broadcast().to_bits() - 1,
        );
        let from = if self.last < last {
            self.last.max(first - 1) + 1
        } else {
            first
        };
        self.free_in(from, last)
            .or_else(|| self.free_in(first, from.saturating_sub(1)))
            .ok_or_else(|| Error::AddressesExhausted {
                subnet: self.subnet,
                bridge: self.bridge.clone(),
                used: self.leases.len(),
            })
    }

    /// The lowest free address of a range, both ends included.
    fn free_in(&self, from: u32, to: u32) -> Option<Ipv4Addr> {
        if from > to {
            return None;
        }
        let mut candidate = from;
        for taken in self
            .leases
            .range(Ipv4Addr::from_bits(from)..=Ipv4Addr::from_bits(to))
            .map(|(a, _)| a.to_bits())
        {
            if candidate == self.gateway.to_bits() && candidate < taken {
                candidate += 1;
            }
            if candidate < taken {
                break;
            }
            candidate = taken + 1;
        }
        if candidate == self.gateway.to_bits() {
            candidate += 1;
        }
        // The gateway may be followed by taken ones; it is one address, so one more walk suffices.
        if self.leases.contains_key(&Ipv4Addr::from_bits(candidate)) {
            return self.free_in(candidate + 1, to);
        }
        (candidate <= to).then(|| Ipv4Addr::from_bits(candidate))
    }
}

#[cfg(test)]
mod tests;
