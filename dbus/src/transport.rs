//! The socket under the bus connection. It is ours for two reasons: every call is counted from the
//! moment it is read until its answer is written ([`Calls`]), which is what makes leaving without a
//! lost call possible; and signals are held back until the name is ours, because before that nobody
//! could tell whose they are, and exporting a thousand containers would send a thousand of them.
//!
//! Descriptors are not passed: no method takes one, so the bus refuses them for us.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::address::Transport;
use zbus::address::transport::UnixSocket;
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;
use zbus::{Address, Message, message};

use crate::calls::Calls;
use berth_sys::inotify::DirWatch;

/// Whether signals may leave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Connects to a bus. Only Unix sockets: the agent speaks to the bus of its own host.
pub(crate) async fn connect(address: &Address) -> io::Result<UnixStream> {
    let Transport::Unix(unix) = address.transport() else {
        return Err(unusable(address));
    };
    match unix.path() {
        UnixSocket::File(path) => UnixStream::connect(path).await,
        UnixSocket::Abstract(name) => {
            let name = name.as_encoded_bytes();
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        }
        _ => Err(unusable(address)),
    }
}

/// Resolves when something changed on the way to a bus whose socket is not there: a host without a
/// bus costs nothing, and one that gets a bus later is served. An error = it cannot be watched.
pub(crate) async fn appears(address: &Address) -> io::Result<()> {
    let Transport::Unix(unix) = address.transport() else {
        return Err(unusable(address));
    };
    let UnixSocket::File(path) = unix.path() else {
        return Err(unusable(address));
    };
    let mut parents = path.ancestors().skip(1);
    let nearest = parents.find(|parent| parent.is_dir());
    let nearest = nearest.ok_or_else(|| unusable(address))?;
    let watch = OwnedFd::from(DirWatch::new(nearest)?);
    #[allow(
        deprecated,
        reason = "the successor is an unsafe function; an OwnedFd keeps its number while it lives"
    )]
    let watch = AsyncFd::with_interest(watch, Interest::READABLE)?;
    // What was made before the watch began is found by a look.
    let next = path
        .strip_prefix(nearest)
        .ok()
        .and_then(|rest| rest.iter().next());
    if next.is_some_and(|next| nearest.join(next).exists()) {
        return Ok(());
    }
    watch.readable().await?.retain_ready();
    Ok(())
}

fn unusable(address: &dyn fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("the bus address {address} is not that of a unix socket"),
    )
}

/// A connected socket, for the connection to run over.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: UnixStream,
    calls: Calls,
    gate: Gate,
}

impl Stream {
    pub(crate) fn new(socket: UnixStream, calls: Calls, gate: Gate) -> Stream {
        Stream {
            socket,
            calls,
            gate,
        }
    }
}

impl Socket for Stream {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        let (read, write) = self.socket.into_split();
        Split::new(
            Reader {
                // Short messages come in bursts; a read for each header and each body would double
                // the system calls.
                bytes: ReadBytes(BufReader::new(read)),
                calls: self.calls.clone(),
            },
            Writer {
                bytes: WriteBytes(write),
                calls: self.calls,
                gate: self.gate,
            },
        )
    }
}

/// Reads messages and registers the calls among them.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: ReadBytes,
    calls: Calls,
}

#[async_trait]
impl ReadHalf for Reader {
    async fn receive_message(
        &mut self,
        seq: u64,
        already_received_bytes: &mut Vec<u8>,
        already_received_fds: &mut Vec<OwnedFd>,
    ) -> zbus::Result<Message> {
        let message = self
            .bytes
            .receive_message(seq, already_received_bytes, already_received_fds)
            .await?;
        self.calls.arrived(&message);
        Ok(message)
    }

    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.bytes.recvmsg(buffer).await
    }
}

/// Writes messages, ticks off the answers among them, and keeps signals back while the gate is shut.
#[derive(Debug)]
pub(crate) struct Writer {
    bytes: WriteBytes,
    calls: Calls,
    gate: Gate,
}

#[async_trait]
impl WriteHalf for Writer {
    async fn send_message(&mut self, message: &Message) -> zbus::Result<()> {
        if message.message_type() == message::Type::Signal && !self.gate.is_open() {
            return Ok(());
        }
        self.bytes.send_message(message).await?;
        self.calls.written(message);
        Ok(())
    }

    async fn sendmsg(&mut self, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.bytes.sendmsg(buffer, fds).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.bytes.close().await
    }
}

/// The bytes alone; zbus's own methods make messages of them.
#[derive(Debug)]
struct ReadBytes(BufReader<OwnedReadHalf>);

#[async_trait]
impl ReadHalf for ReadBytes {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        Ok((self.0.read(buffer).await?, Vec::new()))
    }
}

#[derive(Debug)]
struct WriteBytes(OwnedWriteHalf);

#[async_trait]
impl WriteHalf for WriteBytes {
    async fn sendmsg(&mut self, buffer: &[u8], _fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0.write(buffer).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

#[cfg(test)]
mod tests;
