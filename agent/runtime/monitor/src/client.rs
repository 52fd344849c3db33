//! One attached client: its socket, what it is sent, and what it types.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_runtime::protocol::{Attach, AttachEnd};
use berth_sys::poll::{Epoll, Interest};
use rustix::net::{RecvFlags, SendAncillaryBuffer, Shutdown};

use crate::detach::DetachKeys;
use crate::jsonlog::Stream;
use crate::outbox::{Outbox, SOCKET_FLAGS};
use crate::watch::{Token, Watched};

/// What a client may leave unread before the container has to wait for it.
const HIGH_WATER: usize = 64 * 1024;

/// How much is read of a client at once.
const READ_SIZE: usize = 16 * 1024;

/// How many reads of unwanted input are made when a client's connection is closed.
const UNREAD_ROUNDS: usize = 16;

/// Bytes of Docker's frame header.
const HEADER: usize = 8;

/// Whom to tell when the attachment is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Serial number of the connection.
    pub(crate) conn: u32,
    /// Tag of its request.
    pub(crate) tag: u32,
}

/// What a read of a client brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Nothing now.
    Nothing,
    /// Bytes for the container were appended.
    Bytes,
    /// The detach keys (bytes before them were appended).
    Detach,
    /// The client will send no more.
    End,
}

/// An attached client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) session: u32,
    pub(crate) owner: Owner,
    sock: Watched,
    stdout: bool,
    stderr: bool,
    framed: bool,
    /// Nothing is written before `Proceed`.
    pub(crate) held: bool,
    /// Its input is still read.
    pub(crate) typing: bool,
    /// It has hung up; what it sent before is still taken.
    pub(crate) gone: bool,
    /// Set when it is to end as soon as everything is written.
    pub(crate) end: Option<AttachEnd>,
    keys: DetachKeys,
    out: Outbox,
}

impl Client {
    /// `terminal` says whether the container has one: only then are the detach keys looked for.
    pub(crate) fn new(
        session: u32,
        owner: Owner,
        sock: OwnedFd,
        attach: Attach,
        terminal: bool,
    ) -> Client {
        let keys = if terminal {
            attach.detach_keys.0
        } else {
            Vec::new()
        };
        Client {
            session,
            owner,
            sock: Watched::new(sock, Token::Client(session)),
            stdout: attach.stdout,
            stderr: attach.stderr,
            framed: attach.framed,
            held: attach.hold,
            typing: attach.stdin,
            gone: false,
            end: None,
            keys: DetachKeys::new(keys),
            out: Outbox::default(),
        }
    }

    /// Whether it wants this stream.
    pub(crate) fn takes(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// Whether the container has to wait before it may put out more.
    pub(crate) fn clogged(&self) -> bool {
        self.out.len() > HIGH_WATER
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Sends output, or queues what the socket does not take now. An error: the client is gone.
    pub(crate) fn send(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let header = if self.framed {
            frame_header(stream, bytes.len())
        } else {
            [0; HEADER]
        };
        let header = if self.framed { &header[..] } else { &[] };
        let sent = if self.held || !self.out.is_empty() {
            0
        } else {
            self.send_now(header, bytes)?
        };
        if sent < header.len() {
            self.out.push(&header[sent..]);
        }
        self.out.push(&bytes[sent.saturating_sub(header.len())..]);
        Ok(())
    }

    fn send_now(&self, header: &[u8], bytes: &[u8]) -> io::Result<usize> {
        let parts = [IoSlice::new(header), IoSlice::new(bytes)];
        let mut control = SendAncillaryBuffer::default();
        loop {
            match rustix::net::sendmsg(&self.sock, &parts, &mut control, SOCKET_FLAGS) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => return Ok(0),
                other => return Ok(other?),
            }
        }
    }

    /// Writes what waits. An error: the client is gone.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.held {
            Ok(())
        } else {
            self.out.flush(self.sock.as_fd(), true)
        }
    }

    /// Reads at most `room` bytes of input and appends them to `into`.
    pub(crate) fn read(&mut self, room: usize, into: &mut Vec<u8>) -> Typed {
        let mut buffer = [0; READ_SIZE];
        let limit = buffer.len().min(room);
        match rustix::net::recv(&self.sock, &mut buffer[..limit], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Typed::End,
            Ok((_, count)) if self.keys.feed(&buffer[..count], into) => Typed::Detach,
            Ok(_) => Typed::Bytes,
            // Nothing more will come of one that has gone.
            Err(rustix::io::Errno::AGAIN) if !self.gone => Typed::Nothing,
            Err(_) => Typed::End,
        }
    }

    /// The same for input that came with the request.
    pub(crate) fn typed_before(&mut self, bytes: &[u8], into: &mut Vec<u8>) -> Typed {
        if self.keys.feed(bytes, into) {
            Typed::Detach
        } else {
            Typed::Bytes
        }
    }

    /// Asks the event loop for what this client waits for. `room`: its input could be taken.
    pub(crate) fn watch(&mut self, epoll: &Epoll, room: bool) -> io::Result<()> {
        let interest = Interest {
            read: self.typing && room && self.end.is_none(),
            write: !self.held && !self.out.is_empty(),
            priority: false,
        };
        // Of one that has gone nothing more is to be told: it is always readable.
        self.sock
            .want(epoll, if self.gone { None } else { Some(interest) })
    }

    /// It has gone: nothing is sent any more.
    pub(crate) fn hang_up(&mut self) {
        self.gone = true;
        self.held = false;
        self.stdout = false;
        self.stderr = false;
        self.out.clear();
    }

    /// Ends the connection once everything has been written.
    pub(crate) fn close(self, epoll: &Epoll) {
        let Client { mut sock, .. } = self;
        // Both can only fail when the socket is of no use any more.
        let _ = sock.want(epoll, None);
        let _ = rustix::net::shutdown(&sock, Shutdown::Write);
        // A TCP socket that is closed with unread input resets the connection, and the client could
        // lose output that is still on its way.
        let mut unread = [0; READ_SIZE];
        for _ in 0..UNREAD_ROUNDS {
            let got = rustix::net::recv(&sock, &mut unread[..], RecvFlags::DONTWAIT);
            if !matches!(got, Ok((_, count)) if count > 0) {
                break;
            }
        }
    }

    /// Lets the kernel take all that waits, however much it is, so that nobody has to stay for a
    /// client that reads slowly after the container has ended.
    pub(crate) fn unload(&mut self) -> io::Result<()> {
        self.held = false;
        self.flush()?;
        if self.out.is_empty() {
            return Ok(());
        }
        // The kernel counts its own structures too, hence the factor.
        let wanted = self.out.len().saturating_mul(4) + 256 * 1024;
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(&self.sock, wanted);
        self.flush()
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sock.as_fd()
    }
}

/// Docker's stream frame: the stream's number, three zeros, the length as big-endian.
fn frame_header(stream: Stream, length: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    // Never above a read's size.
    header[4..].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    header
}
