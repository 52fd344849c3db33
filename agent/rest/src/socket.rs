//! Listeners and connections over the two kinds of socket that the face serves. What differs between
//! them (how a vanished client shows, who the peer is) is decided here and nowhere else.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A socket that clients connect to.
#[derive(Debug)]
pub enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Who is at the other end, for the log and for the rules of TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Credentials as the kernel recorded them when the client connected.
    Unix { pid: i32, uid: u32, gid: u32 },
    Tcp {
        remote: SocketAddr,
        local: SocketAddr,
    },
    /// The kernel would not say.
    Unknown,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { pid, uid, gid } => write!(f, "pid {pid} uid {uid} gid {gid}"),
            Self::Tcp { remote, .. } => write!(f, "{remote}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Listener {
    /// Takes a listening stream socket, whatever its family. Has to be called within the runtime.
    ///
    /// # Errors
    /// The descriptor is no listening unix or TCP stream socket, or cannot be registered.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let unix = StdUnixListener::from(fd);
        if unix.local_addr().is_ok() {
            unix.set_nonblocking(true)?;
            return Ok(Self::Unix(UnixListener::from_std(unix)?));
        }
        let tcp = std::net::TcpListener::from(OwnedFd::from(unix));
        tcp.local_addr()?;
        tcp.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpListener::from_std(tcp)?))
    }

    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(listener) => listener
                .accept()
                .await
                .map(|(socket, _)| Socket::Unix(socket)),
            Self::Tcp(listener) => listener
                .accept()
                .await
                .map(|(socket, _)| Socket::Tcp(socket)),
        }
    }

    /// A second handle for [`Queue::take`], which asks the kernel itself and not the reactor's memory.
    pub(crate) fn queue(&self) -> io::Result<Queue> {
        let fd = match self {
            Self::Unix(listener) => listener.as_fd().try_clone_to_owned()?,
            Self::Tcp(listener) => listener.as_fd().try_clone_to_owned()?,
        };
        Ok(match self {
            Self::Unix(_) => Queue::Unix(fd.into()),
            Self::Tcp(_) => Queue::Tcp(fd.into()),
        })
    }
}

/// The connections that wait in a listener's queue.
#[derive(Debug)]
pub(crate) enum Queue {
    Unix(StdUnixListener),
    Tcp(std::net::TcpListener),
}

impl Queue {
    /// The next connection that waits already; `None` when there is none.
    pub(crate) fn take(&self) -> io::Result<Option<Socket>> {
        let accepted = match self {
            Self::Unix(listener) => listener.accept().and_then(|(socket, _)| {
                socket.set_nonblocking(true)?;
                UnixStream::from_std(socket).map(Socket::Unix)
            }),
            Self::Tcp(listener) => listener.accept().and_then(|(socket, _)| {
                socket.set_nonblocking(true)?;
                TcpStream::from_std(socket).map(Socket::Tcp)
            }),
        };
        match accepted {
            Ok(socket) => Ok(Some(socket)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Socket {
    pub(crate) fn peer(&self) -> Peer {
        match self {
            Self::Unix(socket) => match socket.peer_cred() {
                Ok(cred) => Peer::Unix {
                    pid: cred.pid().unwrap_or(0),
                    uid: cred.uid(),
                    gid: cred.gid(),
                },
                Err(_) => Peer::Unknown,
            },
            Self::Tcp(socket) => match (socket.peer_addr(), socket.local_addr()) {
                (Ok(remote), Ok(local)) => Peer::Tcp { remote, local },
                _ => Peer::Unknown,
            },
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// A second descriptor of the same socket, to watch it and to close its read side.
    pub(crate) fn probe(&self) -> io::Result<Probe> {
        let fd = match self {
            Self::Unix(socket) => socket.as_fd().try_clone_to_owned()?,
            Self::Tcp(socket) => socket.as_fd().try_clone_to_owned()?,
        };
        #[allow(
            deprecated,
            reason = "an OwnedFd keeps its number for as long as it lives, which is all that is asked"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::PRIORITY)?;
        Ok(Probe {
            fd,
            unix: self.is_unix(),
        })
    }
}

/// Watches a connection while hyper does not read from it.
#[derive(Debug)]
pub(crate) struct Probe {
    fd: AsyncFd<OwnedFd>,
    unix: bool,
}

impl Probe {
    /// Resolves when both directions are shut: the client is gone, not merely done with sending.
    ///
    /// Only hang-ups are asked of the kernel (they always come), neither readable nor half-closed:
    /// a client that shuts its write side and waits for the answer must get it.
    pub(crate) async fn hung_up(&self) {
        loop {
            match self.fd.ready(Interest::PRIORITY).await {
                Ok(mut guard) if !guard.ready().is_read_closed() => guard.clear_ready(),
                _ => return,
            }
        }
    }

    /// Refuses what the client has not sent yet and keeps what it has: on a unix socket the next write
    /// of the client fails, so it knows that nobody read it. False where the kernel has no such thing.
    pub(crate) fn refuse_more(&self) -> bool {
        if !self.unix {
            return false;
        }
        let Ok(fd) = self.fd.get_ref().try_clone() else {
            return false;
        };
        std::os::unix::net::UnixStream::from(fd)
            .shutdown(std::net::Shutdown::Read)
            .is_ok()
    }
}

/// Whether everything that hyper wrote has left its buffer.
#[derive(Debug, Clone)]
pub(crate) struct Flushed(Arc<AtomicBool>);

impl Flushed {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
    fn set(&self, flushed: bool) {
        self.0.store(flushed, Ordering::Release);
    }
}

/// A socket that remembers whether writes are pending above it: hyper flushes the transport only
/// when its own buffer is empty.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    flushed: Flushed,
}

impl Stream {
    pub(crate) fn new(socket: Socket, flushed: Flushed) -> Self {
        Self { socket, flushed }
    }

    /// Takes the socket out of the reactor and makes it an ordinary, blocking one.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        Ok(match self.socket {
            Socket::Unix(socket) => {
                let socket = socket.into_std()?;
                socket.set_nonblocking(false)?;
                socket.into()
            }
            Socket::Tcp(socket) => {
                let socket = socket.into_std()?;
                socket.set_nonblocking(false)?;
                socket.into()
            }
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.flushed.set(false);
        match &mut self.socket {
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.flushed.set(false);
        match &mut self.socket {
            Socket::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Socket::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed.set(true);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
