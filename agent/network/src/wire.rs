//! Requests to the kernel's routing netlink, answered on the spot.
//!
//! The messages are built and read by rtnetlink and netlink-packet-route. Sent they are here, and
//! not by rtnetlink's own connection, because the kernel works through a request inside send(2):
//! when that returns the answers are queued. An asynchronous connection would wait in that call
//! just the same (for the kernel's one lock over all network configuration), on a thread that
//! serves others; and a request given up half-way would leave a descriptor number in a message that
//! is still to be sent. So everything here runs on threads that may block, and is over on return.

use std::io;
use std::num::NonZeroI32;
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

/// The kernel fills at most 32 KiB at a time into a dump (`NETLINK_GET_STRICT_CHK` or not).
const RECEIVE_SIZE: usize = 64 << 10;

/// Flag of an answer: the tables changed while they were read (`linux/netlink.h`).
const NLM_F_DUMP_INTR: u16 = 0x10;

/// How often a table that changes while it is read is read again.
const DUMP_ATTEMPTS: usize = 8;

/// The group of announcements about links (`RTNLGRP_LINK`, `linux/rtnetlink.h`).
const LINK_GROUP: u32 = 1;

/// A request that changes something.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Change {
    /// Makes a new object; `AlreadyExists` if it is there.
    pub(crate) fn create(message: RouteNetlinkMessage) -> Change {
        Change {
            message,
            flags: NLM_F_CREATE | NLM_F_EXCL,
        }
    }

    /// Changes or deletes an object.
    pub(crate) fn set(message: RouteNetlinkMessage) -> Change {
        Change { message, flags: 0 }
    }
}

/// A socket that belongs to the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Socket,
    sequence: u32,
}

impl Wire {
    /// Opens it in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Wire> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // Answers need not quote the request.
        socket.set_cap_ack(true)?;
        // Answers are there or never will be: see the module's text.
        socket.set_non_blocking(true)?;
        Ok(Wire {
            socket,
            sequence: 0,
        })
    }

    /// Makes one change.
    pub(crate) fn change(&mut self, change: Change) -> io::Result<()> {
        self.changes(vec![change])
    }

    /// Makes several changes with one system call, in order. The first error is told; the changes
    /// behind it were tried too.
    pub(crate) fn changes(&mut self, changes: Vec<Change>) -> io::Result<()> {
        let count = changes.len();
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for change in changes {
            self.append(&mut bytes, change.message, change.flags | NLM_F_ACK);
        }
        self.send(&bytes)?;
        let mut answered = 0;
        let mut result = Ok(());
        while answered < count {
            for message in self.receive()? {
                if message.header.sequence_number.wrapping_sub(first) as usize >= count {
                    continue;
                }
                if let NetlinkPayload::Error(error) = message.payload {
                    answered += 1;
                    result = result.and(outcome(error.code));
                }
            }
        }
        result
    }

    /// Asks for one object.
    pub(crate) fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, message, 0);
        self.send(&bytes)?;
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => return Ok(inner),
                    NetlinkPayload::Error(error) => {
                        outcome(error.code)?;
                        return Err(invalid("the kernel acknowledged a question"));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Asks for all objects of a kind.
    pub(crate) fn dump(
        &mut self,
        message: &RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(all) = self.dump_once(message.clone())? {
                return Ok(all);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the kernel's tables changed with every attempt to read them",
        ))
    }

    /// `None`: the tables changed meanwhile and the result may lack something.
    fn dump_once(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, message, NLM_F_DUMP);
        self.send(&bytes)?;
        let mut all = Vec::new();
        let mut whole = true;
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => all.push(inner),
                    NetlinkPayload::Done(_) => return Ok(whole.then_some(all)),
                    NetlinkPayload::Error(error) => outcome(error.code)?,
                    _ => {}
                }
            }
        }
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        // A message starts at a multiple of four.
        let start = bytes.len().next_multiple_of(4);
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(invalid("a netlink message was sent in part"))
        }
    }

    /// The messages of one datagram of the kernel's.
    fn receive(&self) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let mut buffer = Vec::with_capacity(RECEIVE_SIZE);
        let (length, from) = self.socket.recv_from(&mut buffer, 0)?;
        if from.port_number() != 0 {
            return Ok(Vec::new());
        }
        parse(
            buffer
                .get(..length)
                .ok_or_else(|| invalid("the kernel's answer is longer than expected"))?,
        )
    }
}

/// Hears when something about any link of the namespace changes.
#[derive(Debug)]
pub(crate) struct LinkEvents(Socket);

impl LinkEvents {
    pub(crate) fn open() -> io::Result<LinkEvents> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.add_membership(LINK_GROUP)?;
        socket.set_non_blocking(true)?;
        Ok(LinkEvents(socket))
    }

    /// Waits for the next announcement; false: none came before `end`. What it says is for the
    /// caller to ask, since announcements can be lost.
    pub(crate) fn wait(&self, end: Instant) -> io::Result<bool> {
        let left = end.saturating_duration_since(Instant::now());
        if left == Duration::ZERO || !berth_sys::poll::wait_readable(&self.0, Some(left))? {
            return Ok(false);
        }
        loop {
            let mut buffer = Vec::with_capacity(RECEIVE_SIZE);
            match self.0.recv_from(&mut buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                // More was announced than the socket holds: that is an announcement too.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn parse(mut bytes: &[u8]) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let length = message.header.length as usize;
        if length == 0 {
            return Err(invalid("a length in the kernel's answer is wrong"));
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        messages.push(message);
    }
    Ok(messages)
}

/// A netlink error number is negative; none is an acknowledgement.
fn outcome(code: Option<NonZeroI32>) -> io::Result<()> {
    match code {
        None => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.get().saturating_abs())),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
