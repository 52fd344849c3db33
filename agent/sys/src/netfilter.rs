//! Elements of nftables sets over raw netlink.
//!
//! Adding one element this way costs some 0.02 ms where a run of the `nft` program costs 2 to 16,
//! so what changes with every container goes through here. Tables, chains, sets and rules do not:
//! they are made by `nft`, which owns their (large) encoding. This module knows two messages, the
//! batch around them and one question (is there a chain of this name?), as `linux/netfilter/
//! nf_tables.h` defines them, and holds no policy about names.
//!
//! A batch is one transaction of the kernel: if one element is refused, none of them is changed.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Elements in one message. The list is one attribute and an attribute has a 16-bit length; this
/// many elements of the longest key stay well below it.
const MESSAGE_ELEMENTS: usize = 256;

/// Longest key and longest value of an element, bytes (`NFT_DATA_VALUE_MAXLEN`).
const MAX_DATA: usize = 64;

/// Messages in one batch: their answers must fit the socket's receive buffer.
const MAX_MESSAGES: usize = 256;

/// A message that the kernel sends back is bounded by what was sent (it may quote it) and this.
const REPLY_ROOM: usize = 8192;

const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;

const NESTED: u16 = 0x8000;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

/// The family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Inet,
    Ipv4,
    Bridge,
    Ipv6,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ipv4 => 2,
            Family::Bridge => 7,
            Family::Ipv6 => 10,
        }
    }
}

/// Which set (or map) is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set<'a> {
    pub family: Family,
    pub table: &'a str,
    pub name: &'a str,
}

/// One element: the bytes of its key in network order (each part of a concatenation padded to four
/// bytes), and of its value if the set is a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

impl<'a> Element<'a> {
    /// An element of a plain set.
    pub fn key(key: &'a [u8]) -> Element<'a> {
        Element { key, value: None }
    }
}

/// A socket to the netfilter of the network namespace it was opened in.
#[derive(Debug)]
pub struct Netfilter {
    socket: OwnedFd,
    sequence: u32,
}

impl Netfilter {
    /// Opens a socket in the calling thread's network namespace; it stays there.
    pub fn open() -> io::Result<Netfilter> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Netfilter {
            socket,
            sequence: 0,
        })
    }

    /// Adds elements in one transaction. One that is there already, with the same value, is no
    /// error; `NotFound` = no such table or set.
    pub fn add(&mut self, set: &Set<'_>, elements: &[Element<'_>]) -> io::Result<()> {
        let mut batch = self.batch();
        for part in elements.chunks(MESSAGE_ELEMENTS) {
            batch.elements(NEW_ELEMENT, set, Some(part))?;
        }
        self.run(batch)
    }

    /// Takes elements out. What is not there (or whose set or table is gone) counts as taken out.
    pub fn delete(&mut self, set: &Set<'_>, elements: &[Element<'_>]) -> io::Result<()> {
        let mut batch = self.batch();
        for part in elements.chunks(MESSAGE_ELEMENTS) {
            batch.elements(DELETE_ELEMENT, set, Some(part))?;
        }
        match self.run(batch) {
            // One that is missing stops the whole transaction, so each gets its own.
            Err(error) if is_missing(&error) && elements.len() > 1 => elements
                .iter()
                .try_for_each(|element| self.delete(set, &[*element])),
            Err(error) if is_missing(&error) => Ok(()),
            other => other,
        }
    }

    /// Makes `elements` the whole contents of the set, in one transaction; `NotFound` = no such
    /// table or set.
    pub fn replace(&mut self, set: &Set<'_>, elements: &[Element<'_>]) -> io::Result<()> {
        let mut batch = self.batch();
        batch.elements(DELETE_ELEMENT, set, None)?;
        for part in elements.chunks(MESSAGE_ELEMENTS) {
            batch.elements(NEW_ELEMENT, set, Some(part))?;
        }
        self.run(batch)
    }

    /// Whether a table holds a chain of this name.
    pub fn has_chain(&mut self, family: Family, table: &str, chain: &str) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Vec::new();
        let start = begin(
            &mut request,
            GET_CHAIN,
            NLM_F_REQUEST,
            self.sequence,
            family.number(),
            0,
        );
        text(&mut request, CHAIN_TABLE, table)?;
        text(&mut request, CHAIN_NAME, chain)?;
        finish(&mut request, start)?;
        self.send(&request)?;
        let reply = self.receive(request.len() + REPLY_ROOM)?;
        for message in Messages(&reply) {
            let message = message?;
            match message {
                Message { sequence, .. } if sequence != self.sequence => {}
                Message {
                    kind: NEW_CHAIN, ..
                } => return Ok(true),
                Message {
                    kind: NLMSG_ERROR, ..
                } => {
                    return match message.result() {
                        Ok(()) => Err(invalid("the kernel acknowledged a question about a chain")),
                        Err(error) if is_missing(&error) => Ok(false),
                        Err(error) => Err(error),
                    };
                }
                _ => {}
            }
        }
        Err(invalid(
            "the kernel did not answer a question about a chain",
        ))
    }

    fn batch(&mut self) -> Batch {
        self.sequence = self.sequence.wrapping_add(1);
        Batch::new(self.sequence)
    }

    fn run(&mut self, batch: Batch) -> io::Result<()> {
        let Some((bytes, wanted, last)) = batch.close()? else {
            return Ok(());
        };
        self.sequence = last;
        self.send(&bytes)?;
        // The kernel works inside send(2): when that returns, every answer is in the queue.
        let mut answers = Answers::new(wanted);
        while !answers.complete() {
            let reply = self.receive(bytes.len() + REPLY_ROOM)?;
            answers.take(&reply)?;
        }
        // A batch that was refused may have more to say (one answer per message); those answers
        // must not be taken for those of the next one.
        self.drain()?;
        answers.result
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendto(&self.socket, bytes, SendFlags::empty(), &kernel)
        })?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(invalid("a netfilter message was sent in part"))
        }
    }

    /// One datagram of the kernel's; those of other senders are passed over.
    fn receive(&self, room: usize) -> io::Result<Vec<u8>> {
        loop {
            if let Some(reply) = self.try_receive(room)? {
                return reply.ok_or_else(|| invalid("the kernel's answer is longer than expected"));
            }
        }
    }

    fn drain(&self) -> io::Result<()> {
        loop {
            match self.try_receive(REPLY_ROOM) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// `WouldBlock` when nothing is queued; `None` for a datagram of another sender, `Some(None)`
    /// for one that did not fit.
    fn try_receive(&self, room: usize) -> io::Result<Option<Option<Vec<u8>>>> {
        let mut buffer = vec![0; room];
        let (_, length, from) = rustix::io::retry_on_intr(|| {
            rustix::net::recvfrom(
                &self.socket,
                &mut buffer[..],
                RecvFlags::DONTWAIT | RecvFlags::TRUNC,
            )
        })?;
        let from_kernel = from
            .and_then(|address| SocketAddrNetlink::try_from(address).ok())
            .is_some_and(|address| address.pid() == 0);
        if !from_kernel {
            return Ok(None);
        }
        if length > room {
            return Ok(Some(None));
        }
        buffer.truncate(length);
        Ok(Some(Some(buffer)))
    }
}

/// A batch under construction: begin, messages numbered from the next sequence number on, end.
struct Batch {
    bytes: Vec<u8>,
    first: u32,
    next: u32,
}

impl Batch {
    fn new(sequence: u32) -> Batch {
        let mut bytes = Vec::new();
        let start = begin(
            &mut bytes,
            BATCH_BEGIN,
            NLM_F_REQUEST,
            sequence,
            0,
            SUBSYSTEM,
        );
        close(&mut bytes, start);
        Batch {
            bytes,
            first: sequence,
            next: sequence.wrapping_add(1),
        }
    }

    /// One message about elements; `None` = all that the set has (delete only).
    fn elements(
        &mut self,
        kind: u16,
        set: &Set<'_>,
        elements: Option<&[Element<'_>]>,
    ) -> io::Result<()> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | if kind == NEW_ELEMENT { NLM_F_CREATE } else { 0 };
        let start = begin(
            &mut self.bytes,
            kind,
            flags,
            self.next,
            set.family.number(),
            0,
        );
        text(&mut self.bytes, LIST_TABLE, set.table)?;
        text(&mut self.bytes, LIST_SET, set.name)?;
        if let Some(elements) = elements {
            let list = open(&mut self.bytes, LIST_ELEMENTS | NESTED);
            for element in elements {
                let item = open(&mut self.bytes, LIST_ELEMENT | NESTED);
                data(&mut self.bytes, ELEMENT_KEY, element.key)?;
                if let Some(value) = element.value {
                    data(&mut self.bytes, ELEMENT_DATA, value)?;
                }
                shut(&mut self.bytes, item)?;
            }
            shut(&mut self.bytes, list)?;
        }
        finish(&mut self.bytes, start)?;
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// The bytes, the sequence numbers (first and how many) that must be answered, and the last
    /// number used. `None` if there is nothing in it.
    fn close(mut self) -> io::Result<Option<(Vec<u8>, Wanted, u32)>> {
        let first = self.first.wrapping_add(1);
        let count = self.next.wrapping_sub(first) as usize;
        if count == 0 {
            return Ok(None);
        }
        if count > MAX_MESSAGES {
            return Err(too_long());
        }
        let start = begin(
            &mut self.bytes,
            BATCH_END,
            NLM_F_REQUEST,
            self.next,
            0,
            SUBSYSTEM,
        );
        close(&mut self.bytes, start);
        Ok(Some((
            self.bytes,
            Wanted {
                begin: self.first,
                first,
                count,
            },
            self.next,
        )))
    }
}

/// Which answers a batch waits for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    begin: u32,
    first: u32,
    count: usize,
}

/// The answers to one batch: complete with one per message, or with the first refusal.
struct Answers {
    wanted: Wanted,
    seen: usize,
    result: io::Result<()>,
}

impl Answers {
    fn new(wanted: Wanted) -> Answers {
        Answers {
            wanted,
            seen: 0,
            result: Ok(()),
        }
    }

    fn complete(&self) -> bool {
        self.seen >= self.wanted.count || self.result.is_err()
    }

    /// Takes one datagram in. An error here means that it could not be understood.
    fn take(&mut self, datagram: &[u8]) -> io::Result<()> {
        for message in Messages(datagram) {
            let message = message?;
            if message.kind != NLMSG_ERROR {
                continue;
            }
            let of_batch = message.sequence == self.wanted.begin
                || (message.sequence.wrapping_sub(self.wanted.first) as usize) <= self.wanted.count;
            if !of_batch {
                continue;
            }
            match message.result() {
                Ok(()) => self.seen += 1,
                Err(error) if self.result.is_ok() => self.result = Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }
}

/// One netlink message.
#[derive(Debug, Clone, Copy)]
struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Message<'_> {
    /// What an NLMSG_ERROR says: its first word is 0 or a negative errno.
    fn result(&self) -> io::Result<()> {
        let Some(word) = self.body.first_chunk::<4>() else {
            return Err(invalid("the kernel's answer is too short"));
        };
        match i32::from_ne_bytes(*word) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        }
    }
}

/// The messages of a datagram, each length checked.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = io::Result<Message<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Some(Err(invalid("the kernel's answer is too short")));
        };
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(body) = bytes.get(HEADER..length) else {
            return Some(Err(invalid("a length in the kernel's answer is wrong")));
        };
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body,
        }))
    }
}

/// Starts a message: netlink header (length left open) and netfilter header.
fn begin(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
) -> usize {
    let start = out.len();
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&0u32.to_ne_bytes());
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&resource.to_be_bytes());
    start
}

fn close(out: &mut [u8], start: usize) {
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

fn finish(out: &mut [u8], start: usize) -> io::Result<()> {
    if out.len() - start > u16::MAX.into() {
        return Err(too_long());
    }
    close(out, start);
    Ok(())
}

/// Starts an attribute whose length `shut` fills in.
fn open(out: &mut Vec<u8>, kind: u16) -> usize {
    let start = out.len();
    out.extend_from_slice(&0u16.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    start
}

/// Ends an attribute: its length without, its place with padding to four bytes.
fn shut(out: &mut Vec<u8>, start: usize) -> io::Result<()> {
    let length = u16::try_from(out.len() - start).map_err(|_| too_long())?;
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    out.resize(start + usize::from(length).next_multiple_of(4), 0);
    Ok(())
}

fn text(out: &mut Vec<u8>, kind: u16, value: &str) -> io::Result<()> {
    if value.is_empty() || value.len() > 255 || value.contains('\0') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a name for nftables is empty or too long",
        ));
    }
    let start = open(out, kind);
    out.extend_from_slice(value.as_bytes());
    out.push(0);
    shut(out, start)
}

fn data(out: &mut Vec<u8>, kind: u16, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > MAX_DATA {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a set element is empty or too long",
        ));
    }
    let outer = open(out, kind | NESTED);
    let inner = open(out, DATA_VALUE);
    out.extend_from_slice(bytes);
    shut(out, inner)?;
    shut(out, outer)
}

fn is_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn too_long() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "too many set elements for one transaction",
    )
}

#[cfg(test)]
mod tests;
