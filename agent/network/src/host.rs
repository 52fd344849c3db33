//! The host's side of the network: bridge, ports, rules, addresses let out. One of these exists, and
//! its user makes sure that one thing happens at a time.
//!
//! The order of making is the order of safety: the rules that keep strangers from containers are
//! there before the bridge is, the bridge before anything is forwarded.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::bridge::{self, Bridge};
use crate::config::BridgeConfig;
use crate::endpoint::{Endpoint, INSIDE_NAME, Mac, interface_name, is_interface_name};
use crate::error::{Error, Result};
use crate::firewall::{BridgeRules, Firewall, Ruleset};
use crate::ipam::Pool;
use crate::link::{self, VethPair};
use crate::netns::Netns;
use crate::switches::Switches;
use crate::wire::{LinkEvents, Wire};

/// How often a host-side interface name is drawn. With 28 random bits and a thousand
/// interfaces a second draw is needed once in 260,000 times.
const NAME_ATTEMPTS: usize = 8;

/// The kernel acts upon a carrier within milliseconds, and never later than after a second
/// (`net/core/link_watch.c`); the rest is for a machine under load.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// The sockets into the host's network namespace, and what is known to be there.
#[derive(Debug)]
pub(crate) struct Host {
    config: BridgeConfig,
    switches: Arc<Switches>,
    wire: Wire,
    firewall: Firewall,
    /// The bridge, once bridge, rules and forwarding are as they should be.
    ready: Option<Bridge>,
    /// Forwarding was switched on by berth, now or some time before.
    guarded: bool,
    uplinks: BTreeSet<String>,
}

impl Host {
    /// Opens the sockets in the network namespace of the calling thread.
    pub(crate) fn open(config: &BridgeConfig, switches: Arc<Switches>) -> Result<Host> {
        config.check()?;
        let wire =
            Wire::open().map_err(|source| failed("open", "a netlink socket".to_owned(), source))?;
        let firewall = Firewall::open()?;
        Ok(Host {
            config: config.clone(),
            switches,
            wire,
            firewall,
            ready: None,
            guarded: false,
            uplinks: BTreeSet::new(),
        })
    }

    /// Makes what a container needs of the host, unless it is there: one question to the kernel
    /// then.
    pub(crate) fn ensure(&mut self, pool: &Mutex<Pool>) -> Result<Bridge> {
        if let Some(bridge) = self.ready {
            let link = link::by_index(&mut self.wire, bridge.index).map_err(|source| {
                failed("look at", format!("bridge {}", self.config.name), source)
            })?;
            if link.is_some_and(|link| link.up && link.name == self.config.name) {
                return Ok(bridge);
            }
            tracing::warn!(
                bridge = self.config.name,
                "the bridge was changed by another program: repairing"
            );
        }
        self.repair(pool)
    }

    /// Makes rules, bridge, forwarding and ports as they should be, whatever they are now.
    pub(crate) fn repair(&mut self, pool: &Mutex<Pool>) -> Result<Bridge> {
        self.ready = None;
        let plan = bridge::plan(&mut self.wire, &self.config)?;
        let forwarding = self.switches.forwarding()?;
        // That berth is the one who forwards is remembered by this process, by the bridge and by
        // the rules, since each of them may be gone.
        self.uplinks = self.uplinks()?;
        let guarding = self.rules(pool, true);
        self.guarded |= plan.is_guarded()
            || !forwarding
            || (!guarding.guard.is_empty() && self.firewall.is_installed(&guarding)?);
        self.firewall.install(&self.rules(pool, self.guarded))?;
        let bridge = bridge::apply(
            &mut self.wire,
            &self.switches,
            &self.config,
            &plan,
            self.guarded,
        )?;
        if !forwarding {
            tracing::info!(
                uplinks = ?self.uplinks,
                "switching IPv4 forwarding on for containers; between the uplinks nothing is forwarded"
            );
            self.switches.enable_forwarding()?;
        }
        self.connect_ports(bridge, pool);
        self.ready = Some(bridge);
        Ok(bridge)
    }

    /// The rules as they are to be.
    fn rules(&self, pool: &Mutex<Pool>, guarded: bool) -> Ruleset {
        let addresses = lock(pool).leases().map(|(address, _)| address).collect();
        let guard = if guarded {
            self.uplinks.clone()
        } else {
            BTreeSet::new()
        };
        Ruleset {
            bridges: vec![BridgeRules {
                name: self.config.name.clone(),
                addresses,
            }],
            guard,
        }
    }

    fn uplinks(&mut self) -> Result<BTreeSet<String>> {
        let links = link::all(&mut self.wire)
            .map_err(|source| failed("read", "the host's links".to_owned(), source))?;
        Ok(links
            .into_iter()
            .filter(|link| link.is_uplink)
            .map(|link| link.name)
            .collect())
    }

    /// Puts the interfaces of attached containers back on the bridge.
    fn connect_ports(&mut self, bridge: Bridge, pool: &Mutex<Pool>) {
        let leases: Vec<_> = lock(pool)
            .leases()
            .map(|(_, lease)| lease.clone())
            .collect();
        for lease in leases {
            let result = match link::by_name(&mut self.wire, &lease.interface) {
                Ok(Some(link)) if link.controller != Some(bridge.index) || !link.up => {
                    self.wire.changes(vec![
                        link::set_controller(link.index, bridge.index),
                        link::set_up(link.index),
                    ])
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                tracing::warn!(
                    container = lease.id,
                    interface = lease.interface,
                    %error,
                    "a container could not be put back on the bridge, ignoring"
                );
            }
        }
    }

    /// A name for a host-side interface that no interface has.
    pub(crate) fn free_name(&mut self) -> Result<String> {
        let mut name = String::new();
        for _ in 0..NAME_ATTEMPTS {
            let mut random = [0; 4];
            berth_sys::random::fill(&mut random).map_err(Error::Random)?;
            name = interface_name(random);
            let found = link::by_name(&mut self.wire, &name)
                .map_err(|source| failed("look for", format!("interface {name}"), source))?;
            if found.is_none() {
                return Ok(name);
            }
        }
        Err(failed(
            "find a free name like",
            format!("interface {name}"),
            io::ErrorKind::AlreadyExists.into(),
        ))
    }

    /// Lets a container's address out. Its lease must be in the pool.
    pub(crate) fn admit(&mut self, pool: &Mutex<Pool>, address: Ipv4Addr) -> Result<()> {
        if self.firewall.add(&self.config.name, address)? {
            return Ok(());
        }
        tracing::warn!("the nftables table of berth is gone: making it again");
        self.firewall.install(&self.rules(pool, self.guarded))
    }

    /// Makes the veth pair: one end on the bridge and up, the other inside.
    pub(crate) fn connect(
        &mut self,
        bridge: Bridge,
        interface: &str,
        mac: Mac,
        netns: &Netns,
    ) -> Result<()> {
        let pair = VethPair {
            name: interface,
            bridge: bridge.index,
            mtu: bridge.mtu,
            peer_name: INSIDE_NAME,
            peer_mac: mac,
            peer_netns: netns.as_fd(),
        };
        let object = || format!("interface {interface}");
        match self.wire.change(pair.create()) {
            Err(error) if error.raw_os_error() == Some(libc::EXFULL) => {
                return Err(Error::BridgeFull {
                    bridge: self.config.name.clone(),
                });
            }
            other => other.map_err(|source| failed("make", object(), source))?,
        }
        // The link is still down: not one packet of IPv6 is sent by it.
        self.switches.disable_ipv6(interface)?;
        self.wire
            .change(link::set_up_by_name(interface))
            .map_err(|source| failed("set up", object(), source))
    }

    /// Waits until packets pass, after both ends of the pair are up.
    ///
    /// An end gets its carrier when the other one goes up, but sends nothing, and the bridge
    /// forwards nothing to it, before a work item of the kernel has acted upon that; what is sent
    /// meanwhile is lost, and a lost first packet costs a connection a second. Since Linux 6.8 the
    /// question for a link does that work at once; before, the announcement is waited for.
    pub(crate) fn settle(&mut self, bridge: Bridge, interface: &str) -> Result<()> {
        let object = || format!("interface {interface}");
        let ready = |wire: &mut Wire| {
            // In this order: the bridge gets its carrier from its first port.
            let port = link::by_name(wire, interface)?.is_some_and(|link| link.in_operation);
            Ok(port && link::by_index(wire, bridge.index)?.is_some_and(|link| link.in_operation))
        };
        let asked = |source| failed("look at", object(), source);
        if ready(&mut self.wire).map_err(asked)? {
            return Ok(());
        }
        let end = Instant::now() + SETTLE_TIME;
        let events = LinkEvents::open().map_err(|source| failed("hear about", object(), source))?;
        while !ready(&mut self.wire).map_err(asked)? {
            if !events
                .wait(end)
                .map_err(|source| failed("hear about", object(), source))?
            {
                let late = io::Error::new(io::ErrorKind::TimedOut, "it has no carrier");
                return Err(failed("bring into operation", object(), late));
            }
        }
        Ok(())
    }

    /// Closes the port of a container and stops its packets. Goes through all of it in any case
    /// and tells the first error.
    pub(crate) fn dismiss(&mut self, endpoint: &Endpoint) -> Result<()> {
        let closed = self
            .close_port(&endpoint.interface)
            .map_err(|source| failed("close", format!("interface {}", endpoint.interface), source));
        closed.and(self.firewall.delete(&self.config.name, endpoint.ip))
    }

    /// A port that is gone already, with its namespace or its bridge, is closed.
    fn close_port(&mut self, interface: &str) -> io::Result<()> {
        let Some(link) = link::by_name(&mut self.wire, interface)? else {
            return Ok(());
        };
        if link.controller.is_none() {
            return Ok(());
        }
        match self.wire.change(link::close_port(link.index)) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Deletes ports that no lease stands for.
    pub(crate) fn cleanup(
        &mut self,
        pool: &Mutex<Pool>,
        live: &BTreeSet<String>,
    ) -> Result<Vec<String>> {
        let read = |source| {
            failed(
                "read the ports of",
                format!("bridge {}", self.config.name),
                source,
            )
        };
        let Some(bridge) = bridge::find(&mut self.wire, &self.config)? else {
            return Ok(Vec::new());
        };
        let links = link::all(&mut self.wire).map_err(read)?;
        // After the links: what has been attached since is not among them, what is being attached
        // has its lease before its link.
        lock(pool).drop_restored(live);
        // All at once, and also those that no lease speaks of: an agent may have died between
        // recording an end and taking the address out.
        let rules = BridgeRules {
            name: self.config.name.clone(),
            addresses: lock(pool).leases().map(|(address, _)| address).collect(),
        };
        if let Err(error) = self.firewall.keep_only(&rules) {
            tracing::warn!(%error, "addresses of dead containers are still let out, ignoring");
        }
        let kept: HashSet<String> = lock(pool)
            .leases()
            .map(|(_, lease)| lease.interface.clone())
            .collect();
        let mut deleted = Vec::new();
        for link in links {
            let stale = link.is_veth
                && link.controller == Some(bridge.index)
                && is_interface_name(&link.name)
                && !kept.contains(&link.name);
            if !stale {
                continue;
            }
            match self.wire.change(link::delete(link.index)) {
                Ok(()) => deleted.push(link.name),
                // Its namespace was just ending.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => {
                    tracing::warn!(interface = link.name, %error, "a stale interface stays, ignoring")
                }
            }
        }
        Ok(deleted)
    }
}

fn lock(pool: &Mutex<Pool>) -> MutexGuard<'_, Pool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(action: &'static str, object: String, source: io::Error) -> Error {
    Error::Netlink {
        action,
        object,
        source,
    }
}
