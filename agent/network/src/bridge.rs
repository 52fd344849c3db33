//! The bridge of a network: made on first use, taken over when it is ours, repaired when it is not
//! as it should be, refused when it is somebody else's.
//!
//! It is never deleted: it costs nothing, and addresses and routes stay where people saw them.
//! It is recognised as ours by its alias, which also remembers (it outlives a flush of the firewall
//! and the agent) that berth was the one that switched forwarding on.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_route::route::RouteType;

use crate::config::{BridgeConfig, Subnet};
use crate::endpoint::Mac;
use crate::error::{Error, Result};
use crate::link::{self, Link, Route};
use crate::switches::Switches;
use crate::wire::Wire;

const ALIAS: &str = "berth bridge";
const ALIAS_GUARDED: &str = "berth bridge, guarding forwarding";

/// What an interface has for an MTU where neither the configuration nor a default route says.
const DEFAULT_MTU: u32 = 1500;

/// A bridge that is there and up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bridge {
    pub index: u32,
    pub mtu: u32,
}

/// The bridge as the kernel has it, if it is ours.
///
/// # Errors
/// [`Error::ForeignInterface`] if another interface has its name.
pub(crate) fn find(wire: &mut Wire, config: &BridgeConfig) -> Result<Option<Link>> {
    match link::by_name(wire, &config.name)
        .map_err(|source| failed("look at", &config.name, source))?
    {
        Some(link) if link.is_bridge && is_ours(&link) => Ok(Some(link)),
        Some(_) => Err(Error::ForeignInterface {
            name: config.name.clone(),
        }),
        None => Ok(None),
    }
}

fn is_ours(link: &Link) -> bool {
    link.alias == ALIAS || link.alias == ALIAS_GUARDED
}

/// What is to be done about the bridge: decided before anything is changed.
#[derive(Debug)]
pub(crate) struct Plan {
    found: Option<Link>,
    /// Of a configuration that was valid before.
    old_addresses: Vec<(Ipv4Addr, u8)>,
    mtu: u32,
}

impl Plan {
    /// Whether the bridge remembers that forwarding was switched on by us.
    pub(crate) fn is_guarded(&self) -> bool {
        self.found
            .as_ref()
            .is_some_and(|link| link.alias == ALIAS_GUARDED)
    }
}

/// Looks at the host and decides. Changes nothing.
///
/// # Errors
/// [`Error::ForeignInterface`], [`Error::Overlap`], [`Error::BridgeInUse`].
pub(crate) fn plan(wire: &mut Wire, config: &BridgeConfig) -> Result<Plan> {
    let name = &config.name;
    let found = find(wire, config)?;
    let index = found.as_ref().map(|link| link.index);
    let routes =
        link::routes(wire).map_err(|source| failed("read the routes for", name, source))?;
    let collision = routes
        .iter()
        .find(|route| collides(route, config.subnet, index))
        .map(|route| overlap(wire, config, route));
    let Some(found) = found else {
        if let Some(collision) = collision {
            return Err(collision);
        }
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => default_mtu(wire, &routes),
        };
        return Ok(Plan {
            found: None,
            old_addresses: Vec::new(),
            mtu,
        });
    };
    let wanted = (config.gateway(), config.subnet.prefix_len());
    let mut old_addresses = link::addresses(wire, found.index)
        .map_err(|source| failed("read the addresses of", name, source))?;
    let settled = old_addresses.contains(&wanted);
    old_addresses.retain(|address| *address != wanted);
    if !old_addresses.is_empty() {
        check_unused(wire, config, &found, &old_addresses)?;
    }
    match collision {
        Some(collision) if !settled => return Err(collision),
        // The other came later. Our containers go on working; what is behind it may be out of
        // their reach.
        Some(collision) => tracing::warn!(error = &collision as &dyn std::error::Error, "ignoring"),
        None => {}
    }
    let mtu = config.mtu.unwrap_or(found.mtu);
    Ok(Plan {
        found: Some(found),
        old_addresses,
        mtu,
    })
}

/// Makes the bridge, or makes the one that is there as it should be. A bridge that could not be
/// made whole is deleted again.
pub(crate) fn apply(
    wire: &mut Wire,
    switches: &Switches,
    config: &BridgeConfig,
    plan: &Plan,
    guarded: bool,
) -> Result<Bridge> {
    let name = &config.name;
    if let Some(found) = &plan.found {
        for (address, prefix_len) in &plan.old_addresses {
            wire.change(link::delete_address(found.index, *address, *prefix_len))
                .map_err(|source| failed("take an old address from", name, source))?;
        }
        finish(wire, switches, config, found, guarded)?;
        return Ok(Bridge {
            index: found.index,
            mtu: plan.mtu,
        });
    }
    // Derived like a container's, so that a bridge that was deleted comes back with the same one
    // and neighbours need not learn anew.
    wire.change(link::create_bridge(
        name,
        Mac::of(config.gateway()),
        plan.mtu,
    ))
    .map_err(|source| failed("make", name, source))?;
    let made = link::by_name(wire, name)
        .and_then(|link| link.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(|source| failed("find", name, source))?;
    if let Err(error) = finish(wire, switches, config, &made, guarded) {
        if let Err(error) = wire.change(link::delete(made.index)) {
            tracing::warn!(bridge = name, %error, "a half-made bridge could not be deleted, ignoring");
        }
        return Err(error);
    }
    Ok(Bridge {
        index: made.index,
        mtu: plan.mtu,
    })
}

/// Another subnet is only right while nobody uses the present one.
fn check_unused(
    wire: &mut Wire,
    config: &BridgeConfig,
    found: &Link,
    old: &[(Ipv4Addr, u8)],
) -> Result<()> {
    let links =
        link::all(wire).map_err(|source| failed("read the ports of", &config.name, source))?;
    if links
        .iter()
        .all(|link| link.controller != Some(found.index))
    {
        return Ok(());
    }
    let has: Vec<_> = old
        .iter()
        .map(|(address, prefix_len)| format!("{address}/{prefix_len}"))
        .collect();
    Err(Error::BridgeInUse {
        bridge: config.name.clone(),
        has: has.join(" and "),
        wants: format!("{}/{}", config.gateway(), config.subnet.prefix_len()),
    })
}

/// What both a new bridge and an old one need. IPv6 goes before the link is up.
fn finish(
    wire: &mut Wire,
    switches: &Switches,
    config: &BridgeConfig,
    link: &Link,
    guarded: bool,
) -> Result<()> {
    let name = &config.name;
    switches.disable_ipv6(name)?;
    let alias = if guarded { ALIAS_GUARDED } else { ALIAS };
    if link.alias != alias {
        wire.change(link::set_alias(link.index, alias))
            .map_err(|source| failed("set the alias of", name, source))?;
    }
    match wire.change(link::add_address(
        link.index,
        config.gateway(),
        config.subnet.prefix_len(),
    )) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("give an address to", name, error));
        }
        _ => {}
    }
    wire.change(link::set_up(link.index))
        .map_err(|source| failed("set up", name, source))
}

/// Whether a route of the host and a subnet cannot both be.
///
/// What is reached directly (an interface's own network, an address of the host) always collides.
/// A route through a gateway does only if it is at least as specific: a wider one, such as the two
/// halves of everything that VPN programs install or a company's 172.16.0.0/12, just
/// loses the small part that becomes ours, which more specific routes are for.
fn collides(route: &Route, subnet: Subnet, bridge: Option<u32>) -> bool {
    if route.to.prefix_len() == 0 || !route.to.overlaps(subnet) {
        return false;
    }
    if bridge.is_some() && route.interface == bridge {
        return false;
    }
    let narrower = route.to.prefix_len() >= subnet.prefix_len();
    match route.kind {
        RouteType::Local => true,
        RouteType::Unicast => !route.via_gateway || narrower,
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => narrower,
        _ => false,
    }
}

fn overlap(wire: &mut Wire, config: &BridgeConfig, route: &Route) -> Error {
    let interface = route
        .interface
        .and_then(|index| link::by_index(wire, index).ok().flatten());
    let on = interface
        .map(|link| format!(" on interface {}", link.name))
        .unwrap_or_default();
    let what = if route.kind == RouteType::Local {
        "the host's address"
    } else {
        "the host's route to"
    };
    Error::Overlap {
        subnet: config.subnet,
        bridge: config.name.clone(),
        other: format!("{what} {}{on}", route.to),
    }
}

/// The MTU of the way out: what is larger would have to be fragmented or is lost.
fn default_mtu(wire: &mut Wire, routes: &[Route]) -> u32 {
    let way_out = routes.iter().find(|route| {
        route.to.prefix_len() == 0 && route.main_table && route.kind == RouteType::Unicast
    });
    way_out
        .and_then(|route| route.interface)
        .and_then(|index| link::by_index(wire, index).ok().flatten())
        .map_or(DEFAULT_MTU, |link| link.mtu)
}

fn failed(action: &'static str, bridge: &str, source: io::Error) -> Error {
    Error::Netlink {
        action,
        object: format!("bridge {bridge}"),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: &str, kind: RouteType, via_gateway: bool) -> Route {
        Route {
            to: to.parse().unwrap(),
            kind,
            main_table: true,
            via_gateway,
            interface: Some(7),
        }
    }

    #[test]
    fn routes_collide_where_they_must() {
        let subnet = "172.29.0.0/16".parse().unwrap();
        let on_link = |to| collides(&route(to, RouteType::Unicast, false), subnet, None);
        let via = |to| collides(&route(to, RouteType::Unicast, true), subnet, None);
        assert!(on_link("172.29.0.0/16") && on_link("172.29.9.0/24") && on_link("172.16.0.0/12"));
        assert!(via("172.29.0.0/16") && via("172.29.9.1/32"));
        assert!(!via("172.16.0.0/12") && !via("128.0.0.0/1") && !via("0.0.0.0/0"));
        assert!(!on_link("0.0.0.0/0") && !on_link("172.28.0.0/16") && !via("10.0.0.0/8"));
        assert!(collides(
            &route("172.29.5.5/32", RouteType::Local, false),
            subnet,
            None
        ));
        assert!(!collides(
            &route("172.29.255.255/32", RouteType::Broadcast, false),
            subnet,
            None
        ));
        assert!(collides(
            &route("172.29.5.0/24", RouteType::BlackHole, false),
            subnet,
            None
        ));
        assert!(!collides(
            &route("172.16.0.0/12", RouteType::BlackHole, false),
            subnet,
            None
        ));
        // Our own bridge's.
        assert!(!collides(
            &route("172.29.0.0/16", RouteType::Unicast, false),
            subnet,
            Some(7)
        ));
    }
}
