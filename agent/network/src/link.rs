//! Links, addresses and routes: the messages about them, and reading what the kernel has.
//!
//! Functions that return a [`Change`] are pure; those that take a [`Wire`] ask the kernel, in the
//! namespace of the wire. No decisions here.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    BridgePortState, BridgeStpState, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkMessage, LinkProtoInfoBridge, State,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::DefaultNla;
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};

use crate::config::Subnet;
use crate::endpoint::Mac;
use crate::wire::{Change, Wire};

/// The attribute of a bridge's port that holds its state (`linux/if_link.h`).
const IFLA_BRPORT_STATE: u16 = 1;

/// What matters of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub alias: String,
    pub is_bridge: bool,
    pub is_veth: bool,
    /// By its kind it leads to other machines: hardware, or a division or union of hardware.
    pub is_uplink: bool,
    pub up: bool,
    /// Packets pass: it is up, has a carrier, and the kernel has acted upon that.
    pub in_operation: bool,
    pub mtu: u32,
    /// The index of the bridge it is a port of.
    pub controller: Option<u32>,
}

/// What matters of an IPv4 route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub to: Subnet,
    pub kind: RouteType,
    pub main_table: bool,
    pub via_gateway: bool,
    pub interface: Option<u32>,
}

/// One end of a veth pair in the host's namespace, and where the other one goes.
#[derive(Debug)]
pub(crate) struct VethPair<'a> {
    pub name: &'a str,
    pub bridge: u32,
    pub mtu: u32,
    pub peer_name: &'a str,
    pub peer_mac: Mac,
    pub peer_netns: BorrowedFd<'a>,
}

impl VethPair<'_> {
    /// The pair in one message: the host's end a port of the bridge, the peer born in its
    /// namespace with its final name and hardware address. Both ends are down.
    pub(crate) fn create(&self) -> Change {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(self.peer_name)
            .mtu(self.mtu)
            .address(self.peer_mac.0.to_vec())
            .setns_by_fd(self.peer_netns.as_raw_fd())
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new(self.name, self.peer_name)
            .mtu(self.mtu)
            .controller(self.bridge)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        Change::create(RouteNetlinkMessage::NewLink(message))
    }
}

/// A bridge, down, without spanning tree: a port forwards as soon as it is up.
pub(crate) fn create_bridge(name: &str, mac: Mac, mtu: u32) -> Change {
    // Its hardware address is set, or the bridge would take on that of its lowest port and change
    // it as containers come and go.
    let message = LinkBridge::new(name)
        .down()
        .mtu(mtu)
        .address(mac.0.to_vec())
        .stp_state(BridgeStpState::Disabled)
        .build();
    Change::create(RouteNetlinkMessage::NewLink(message))
}

pub(crate) fn set_up(index: u32) -> Change {
    Change::set(RouteNetlinkMessage::SetLink(
        LinkUnspec::new_with_index(index).up().build(),
    ))
}

pub(crate) fn set_up_by_name(name: &str) -> Change {
    Change::set(RouteNetlinkMessage::SetLink(
        LinkUnspec::new_with_name(name).up().build(),
    ))
}

pub(crate) fn set_alias(index: u32, alias: &str) -> Change {
    Change::set(RouteNetlinkMessage::SetLink(
        LinkUnspec::new_with_index(index).alias(alias).build(),
    ))
}

pub(crate) fn set_controller(index: u32, bridge: u32) -> Change {
    Change::set(RouteNetlinkMessage::SetLink(
        LinkUnspec::new_with_index(index).controller(bridge).build(),
    ))
}

/// Lets nothing through a bridge's port any more, at once: deleting the port or setting it down
/// would wait for all processors. (In the bridge's own protocol: a change of state through the
/// common one is undone by the kernel with its own announcement of it.)
pub(crate) fn close_port(index: u32) -> Change {
    let state = DefaultNla::new(IFLA_BRPORT_STATE, vec![BridgePortState::Disabled.into()]);
    let message = LinkUnspec::new_with_index(index)
        .interface_family(AddressFamily::Bridge)
        .append_extra_attribute(LinkAttribute::ProtoInfoBridge(vec![
            LinkProtoInfoBridge::Other(state),
        ]))
        .build();
    Change::set(RouteNetlinkMessage::SetLink(message))
}

/// Waits 20 to 30 ms in the kernel: not while somebody waits for an answer.
pub(crate) fn delete(index: u32) -> Change {
    Change::set(RouteNetlinkMessage::DelLink(
        LinkUnspec::new_with_index(index).build(),
    ))
}

pub(crate) fn add_address(index: u32, address: Ipv4Addr, prefix_len: u8) -> Change {
    let message = AddressMessageBuilder::<Ipv4Addr>::new()
        .index(index)
        .address(address, prefix_len)
        .build();
    Change::create(RouteNetlinkMessage::NewAddress(message))
}

pub(crate) fn delete_address(index: u32, address: Ipv4Addr, prefix_len: u8) -> Change {
    let message = AddressMessageBuilder::<Ipv4Addr>::new()
        .index(index)
        .address(address, prefix_len)
        .build();
    Change::set(RouteNetlinkMessage::DelAddress(message))
}

pub(crate) fn add_default_route(index: u32, gateway: Ipv4Addr) -> Change {
    // Docker's routes carry no origin; with `boot` `ip route` shows none.
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .protocol(RouteProtocol::Boot)
        .gateway(gateway)
        .output_interface(index)
        .build();
    Change::create(RouteNetlinkMessage::NewRoute(message))
}

/// The link of this name, if there is one.
pub(crate) fn by_name(wire: &mut Wire, name: &str) -> io::Result<Option<Link>> {
    one(wire, LinkUnspec::new_with_name(name))
}

/// The link with this index, if there is one.
pub(crate) fn by_index(wire: &mut Wire, index: u32) -> io::Result<Option<Link>> {
    one(wire, LinkUnspec::new_with_index(index))
}

fn one(wire: &mut Wire, which: LinkMessageBuilder<LinkUnspec>) -> io::Result<Option<Link>> {
    // Counters are most of an answer, and nobody here looks at them.
    let question = which
        .append_extra_attribute(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]))
        .build();
    match wire.get(RouteNetlinkMessage::GetLink(question)) {
        Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Some(read_link(message))),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel answered with something else",
        )),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All links of the namespace.
pub(crate) fn all(wire: &mut Wire) -> io::Result<Vec<Link>> {
    let answers = wire.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(read_link(message)),
            _ => None,
        })
        .collect())
}

fn read_link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    let mut kind = None;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::OperState(state) => link.in_operation = state == State::Up,
            LinkAttribute::Controller(index) => link.controller = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link.is_bridge = kind == Some(InfoKind::Bridge);
    link.is_veth = kind == Some(InfoKind::Veth);
    link.is_uplink = match kind {
        None => !message.header.flags.contains(LinkFlags::Loopback),
        Some(InfoKind::Vlan | InfoKind::Bond | InfoKind::MacVlan | InfoKind::IpVlan) => true,
        Some(InfoKind::Other(other)) => other == "team",
        Some(_) => false,
    };
    link
}

/// The IPv4 addresses of one link, with their prefix lengths.
pub(crate) fn addresses(wire: &mut Wire, index: u32) -> io::Result<Vec<(Ipv4Addr, u8)>> {
    let mut question = AddressMessage::default();
    question.header.family = AddressFamily::Inet;
    let answers = wire.dump(&RouteNetlinkMessage::GetAddress(question))?;
    let mut found = Vec::new();
    for answer in answers {
        let RouteNetlinkMessage::NewAddress(message) = answer else {
            continue;
        };
        if message.header.index != index {
            continue;
        }
        for attribute in &message.attributes {
            if let AddressAttribute::Local(IpAddr::V4(address)) = attribute {
                found.push((*address, message.header.prefix_len));
            }
        }
    }
    Ok(found)
}

/// The IPv4 routes of all tables.
pub(crate) fn routes(wire: &mut Wire) -> io::Result<Vec<Route>> {
    let mut question = RouteMessage::default();
    question.header.address_family = AddressFamily::Inet;
    let answers = wire.dump(&RouteNetlinkMessage::GetRoute(question))?;
    Ok(answers
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => Some(read_route(&message)),
            _ => None,
        })
        .collect())
}

fn read_route(message: &RouteMessage) -> Route {
    let mut route = Route {
        to: Subnet::containing(
            Ipv4Addr::UNSPECIFIED,
            message.header.destination_prefix_length,
        ),
        kind: message.header.kind,
        main_table: message.header.table == RouteHeader::RT_TABLE_MAIN,
        via_gateway: false,
        interface: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                route.to = Subnet::containing(*address, message.header.destination_prefix_length);
            }
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => route.via_gateway = true,
            RouteAttribute::Oif(index) => route.interface = Some(*index),
            RouteAttribute::MultiPath(hops) => {
                route.via_gateway |= hops
                    .iter()
                    .flat_map(|hop| &hop.attributes)
                    .any(|attribute| {
                        matches!(
                            attribute,
                            RouteAttribute::Gateway(_) | RouteAttribute::Via(_)
                        )
                    });
                route.interface = route
                    .interface
                    .or_else(|| hops.first().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    route
}
