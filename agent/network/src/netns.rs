//! Network namespaces for containers.
//!
//! Making one takes a thread that does nothing else, because it moves into it; what it leaves is
//! a descriptor of the namespace and a netlink socket that stays inside, so that everything later
//! is done from any thread. Nothing is mounted anywhere: when the last descriptor and process are
//! gone, so is the namespace with all its links.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::ns::{self, Namespaces, NsKind};

use crate::endpoint::{Endpoint, INSIDE_NAME};
use crate::error::{Error, Result};
use crate::link;
use crate::switches::Switches;
use crate::wire::Wire;

const LOOPBACK: &str = "lo";

/// A namespace with its loopback up, and a way to talk to its inside.
#[derive(Debug)]
pub(crate) struct Netns {
    fd: OwnedFd,
    wire: Wire,
}

impl Netns {
    /// A new namespace. IPv6 stays on its loopback alone (`::1` is there, as Docker has it); what
    /// it gets later has none.
    pub(crate) fn create(switches: &Switches) -> Result<Netns> {
        ns::in_thread(|| Netns::create_here(switches)).map_err(Error::Namespace)?
    }

    /// The same on the calling thread, which stays in the new namespace and must be a thread that
    /// ends soon and does nothing else.
    pub(crate) fn create_here(switches: &Switches) -> Result<Netns> {
        ns::unshare(Namespaces::NET).map_err(Error::Namespace)?;
        let fd = ns::open_own(NsKind::Net).map_err(Error::Namespace)?;
        switches.disable_ipv6("default")?;
        let mut wire = Wire::open().map_err(Error::Namespace)?;
        wire.change(link::set_up_by_name(LOOPBACK))
            .map_err(|source| failed("set up", LOOPBACK, source))?;
        Ok(Netns { fd, wire })
    }

    /// Sets up the interface that has been put in: link, address, default route.
    pub(crate) fn configure(&mut self, endpoint: &Endpoint) -> Result<()> {
        let interface = link::by_name(&mut self.wire, INSIDE_NAME)
            .and_then(|link| link.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(|source| failed("find", INSIDE_NAME, source))?;
        let index = interface.index;
        self.wire
            .changes(vec![
                link::set_up(index),
                link::add_address(index, endpoint.ip, endpoint.prefix_len),
                link::add_default_route(index, endpoint.gateway),
            ])
            .map_err(|source| failed("give address and route to", INSIDE_NAME, source))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

fn failed(action: &'static str, interface: &str, source: io::Error) -> Error {
    Error::Netlink {
        action,
        object: format!("interface {interface} inside a container"),
        source,
    }
}
