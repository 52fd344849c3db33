//! Connections of agents: the control socket that the monitor was started with, and those that
//! come through its listening socket later. Framing, replies and their bounds; what a request does
//! is `parent`'s business.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_runtime::protocol::{
    Frame, FrameReader, MAX_LATER_PAYLOAD, MAX_PAYLOAD, Reply, Request, encode_reply,
};
use berth_sys::poll::{Epoll, Interest};

use crate::outbox::Outbox;
use crate::watch::{Token, Watched};

/// How much is received at once.
const RECEIVE: usize = 16 * 1024;

/// Replies that wait; an agent that takes none of them is cut off.
const REPLY_LIMIT: usize = 64 * 1024;

/// More connections than this are closed at once. An agent has one or two per container.
pub(crate) const MAX_CONNS: usize = 64;

/// One agent's connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) serial: u32,
    sock: Watched,
    reader: FrameReader<OwnedFd>,
    out: Outbox,
    /// It has said `Hello`, or is the control socket.
    pub(crate) greeted: bool,
    /// It wants to be told the exit; the tag of its request.
    pub(crate) watching: Option<u32>,
}

impl Conn {
    /// The control socket may carry a plan.
    pub(crate) fn control(serial: u32, sock: OwnedFd) -> io::Result<Conn> {
        Conn::new(serial, sock, MAX_PAYLOAD, true)
    }

    pub(crate) fn later(serial: u32, sock: OwnedFd) -> io::Result<Conn> {
        Conn::new(serial, sock, MAX_LATER_PAYLOAD, false)
    }

    fn new(serial: u32, sock: OwnedFd, limit: usize, greeted: bool) -> io::Result<Conn> {
        berth_sys::fd::set_nonblocking(&sock, true)?;
        Ok(Conn {
            serial,
            sock: Watched::new(sock, Token::Conn(serial)),
            reader: FrameReader::new(limit),
            out: Outbox::default(),
            greeted,
            watching: None,
        })
    }

    /// After the plan: no more big messages are taken, and their memory is let go.
    pub(crate) fn shrink(&mut self) {
        if self.reader.is_empty() {
            self.reader = FrameReader::new(MAX_LATER_PAYLOAD);
        }
    }

    /// Receives what is there and gives the whole requests in it. An error (or `Ok(false)`, the
    /// ordinary end) means that the connection is over; requests that came before still count.
    pub(crate) fn receive(
        &mut self,
        requests: &mut VecDeque<Frame<Request, OwnedFd>>,
    ) -> io::Result<bool> {
        let mut buffer = [0; RECEIVE];
        loop {
            let (count, fds) = match berth_sys::fd::recv_with_fds(&self.sock, &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                other => other?,
            };
            if count == 0 {
                return Ok(false);
            }
            self.reader
                .push(&buffer[..count], fds)
                .map_err(io::Error::other)?;
            while let Some(frame) = self.reader.next_request().map_err(io::Error::other)? {
                requests.push_back(frame);
            }
        }
    }

    /// Sends a reply. An error: the connection is of no more use.
    pub(crate) fn reply(
        &mut self,
        epoll: &Epoll,
        tag: u32,
        reply: &Reply,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let bytes = encode_reply(reply, tag, fds.len()).map_err(io::Error::other)?;
        let mut sent = 0;
        if self.out.is_empty() {
            sent = match berth_sys::fd::send_with_fds(&self.sock, &bytes, fds) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && fds.is_empty() => 0,
                other => other?,
            };
        } else if !fds.is_empty() {
            // Descriptors travel with a first byte and cannot wait in a queue of bytes.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.out.push(&bytes[sent..]);
        if self.out.len() > REPLY_LIMIT {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        self.watch(epoll)
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self, epoll: &Epoll) -> io::Result<()> {
        self.out.flush(self.sock.as_fd(), true)?;
        self.watch(epoll)
    }

    /// Asks the event loop for what this connection waits for.
    pub(crate) fn watch(&mut self, epoll: &Epoll) -> io::Result<()> {
        let interest = Interest {
            read: true,
            write: !self.out.is_empty(),
            priority: false,
        };
        self.sock.want(epoll, Some(interest))
    }

    /// Takes it out of the event loop.
    pub(crate) fn close(mut self, epoll: &Epoll) {
        let _ = self.sock.want(epoll, None);
    }
}
