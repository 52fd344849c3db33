//! Talking to a monitor: one connection, requests answered by tag. Every call has a deadline, but
//! [`Link::watch`] and the end of an attachment, which last as long as the container and end when
//! their future is dropped. Dropping the last handle closes the connection; the container does not mind.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_sys::fd::{recv_with_fds, send_with_fds};
use berth_sys::path::open_root;
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::exit::ExitRecord;
use crate::protocol::{
    Attach, AttachEnd, Frame, FrameReader, Hello, MAX_LATER_PAYLOAD, MonitorState, Phase, Reply,
    Request, StopBy, encode_request,
};
use crate::wire::WireError;

/// How long a monitor may take to answer. It has one thread and answers between two pieces of
/// output; what takes longer is a disk that stands still under its log.
pub const ANSWER: Duration = Duration::from_secs(10);

/// Requests waiting to be written; a connection that is this far behind blocks its callers.
const QUEUE: usize = 32;

/// Replies to one request that wait to be taken: Ready and Started, or Attached and AttachEnded.
const REPLIES: usize = 4;

/// Bytes taken from the socket at once.
const CHUNK: usize = 16 * 1024;

/// Why a monitor could not be asked.
#[derive(Debug, Error)]
pub enum LinkError {
    /// Nobody listens there: the monitor is gone.
    #[error("cannot connect to the monitor at {path}: {source}")]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the monitor has closed the connection")]
    Closed,
    #[error("the monitor does not answer ({0})")]
    Timeout(&'static str),
    #[error("the monitor does not speak our protocol: {0}")]
    Protocol(#[from] WireError),
    /// The monitor says no, in words for the user.
    #[error("{message}")]
    Refused { errno: i32, message: String },
    /// Another container's monitor answered.
    #[error("the monitor at {path} belongs to container {found}")]
    OtherContainer { path: PathBuf, found: String },
    #[error("the monitor gave an answer to another question ({0})")]
    Unexpected(&'static str),
}

/// What the monitor said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: String,
    pub monitor_pid: u32,
    /// When it was asked.
    pub phase: Phase,
    /// The version that both speak.
    pub version: u8,
}

/// A connection to a monitor; clones share it.
#[derive(Debug, Clone)]
pub struct Link {
    stream: Arc<UnixStream>,
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

type Answer = Frame<Reply, OwnedFd>;
type Waiters = HashMap<u32, mpsc::Sender<Answer>>;
type Batch = Vec<(Vec<u8>, Vec<OwnedFd>)>;

#[derive(Debug)]
struct Shared {
    /// None = the connection has ended.
    waiters: Mutex<Option<Waiters>>,
    /// Becomes true with the end of the connection.
    ended: watch::Sender<bool>,
    queue: mpsc::Sender<Batch>,
    next_tag: AtomicU32,
}

#[derive(Debug)]
struct Tasks(Vec<tokio::task::AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::AbortHandle::abort);
    }
}

/// The replies to one request.
#[derive(Debug)]
pub(crate) struct Replies(mpsc::Receiver<Answer>);

impl Replies {
    /// The next reply; `Closed` when there will be none.
    pub(crate) async fn next(&mut self) -> Result<Answer, LinkError> {
        match self.0.recv().await {
            Some(Frame {
                message: Reply::Failed { errno, message },
                ..
            }) => Err(LinkError::Refused { errno, message }),
            Some(answer) => Ok(answer),
            None => Err(LinkError::Closed),
        }
    }
}

impl Link {
    /// Connects to a container's monitor and greets it; `id` is the container it must stand over.
    pub async fn connect(path: &Path, id: &str) -> Result<(Self, Peer), LinkError> {
        let failed = |source| LinkError::Connect {
            path: path.to_owned(),
            source,
        };
        let connect = async {
            let stream = UnixStream::connect(short_path(path)?.path()).await?;
            stream.into_std()
        };
        let stream = timeout(ANSWER, connect)
            .await
            .map_err(|_| LinkError::Timeout("connect"))?
            .map_err(failed)?;
        let link = Self::new(stream).map_err(failed)?;
        let reply = link
            .ask("hello", Request::Hello(Hello::OURS), Vec::new())
            .await?;
        let Reply::Hello {
            hello,
            id: found,
            monitor_pid,
            phase,
        } = reply
        else {
            return Err(LinkError::Unexpected("hello"));
        };
        let version = hello.common(Hello::OURS).ok_or(WireError::Version {
            found: hello.newest.into(),
            ours: Hello::OURS.newest.into(),
        })?;
        if found != id {
            return Err(LinkError::OtherContainer {
                path: path.to_owned(),
                found,
            });
        }
        Ok((
            link,
            Peer {
                id: found,
                monitor_pid,
                phase,
                version,
            },
        ))
    }

    /// Takes a connected socket; nothing is sent. Must be called within a tokio runtime.
    pub(crate) fn new(stream: StdStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = Arc::new(UnixStream::from_std(stream)?);
        let (queue, batches) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            waiters: Mutex::new(Some(Waiters::new())),
            ended: watch::Sender::new(false),
            queue,
            next_tag: AtomicU32::new(1),
        });
        let writer = tokio::spawn(write(stream.clone(), batches, shared.clone()));
        let reader = tokio::spawn(read(stream.clone(), shared.clone()));
        Ok(Self {
            stream,
            shared,
            _tasks: Arc::new(Tasks(vec![writer.abort_handle(), reader.abort_handle()])),
        })
    }

    /// Ends the connection for all clones, at once: the monitor has no watcher here any more.
    pub fn close(&self) {
        if let Err(error) = berth_sys::fd::shutdown(self.stream.as_ref()) {
            tracing::debug!(%error, "a monitor's connection was closed already");
        }
        self.shared.close();
    }

    /// Whether the other end is still there, as far as is known.
    pub fn is_open(&self) -> bool {
        self.shared.lock().is_some()
    }

    /// Waits until the other end is gone: a monitor keeps its connections as long as it lives.
    pub async fn closed(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Sends frames in one piece; the replies to the last one's tag come out of the receiver.
    pub(crate) async fn send(
        &self,
        requests: Vec<(Request, Vec<OwnedFd>)>,
    ) -> Result<Replies, LinkError> {
        let (sender, replies) = mpsc::channel(REPLIES);
        let tag = self.shared.next_tag.fetch_add(1, Ordering::Relaxed);
        let mut batch = Batch::new();
        for (request, fds) in requests {
            batch.push((encode_request(&request, tag, fds.len())?, fds));
        }
        {
            let mut waiters = self.shared.lock();
            let waiters = waiters.as_mut().ok_or(LinkError::Closed)?;
            // Callers that gave up leave nothing behind for longer than this.
            waiters.retain(|_, waiter| !waiter.is_closed());
            waiters.insert(tag, sender);
        }
        if self.shared.queue.send(batch).await.is_err() {
            return Err(LinkError::Closed);
        }
        Ok(Replies(replies))
    }

    async fn ask(
        &self,
        what: &'static str,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<Reply, LinkError> {
        let answer = async { self.send(vec![(request, fds)]).await?.next().await };
        Ok(timeout(ANSWER, answer)
            .await
            .map_err(|_| LinkError::Timeout(what))??
            .message)
    }

    async fn done(&self, what: &'static str, request: Request) -> Result<(), LinkError> {
        match self.ask(what, request, Vec::new()).await? {
            Reply::Done => Ok(()),
            _ => Err(LinkError::Unexpected(what)),
        }
    }

    pub async fn state(&self) -> Result<MonitorState, LinkError> {
        match self.ask("state", Request::State, Vec::new()).await? {
            Reply::State(state) => Ok(state),
            _ => Err(LinkError::Unexpected("state")),
        }
    }

    /// A signal to the container's first process; `by` marks the exit that may follow as asked for.
    pub async fn signal(&self, signal: i32, by: Option<StopBy>) -> Result<(), LinkError> {
        self.done("signal", Request::Signal { signal, by }).await
    }

    /// Begins a stop: the signal, and the kill after so many milliseconds (negative = never).
    /// Comes back when it has begun; [`Link::watch`] tells the end.
    pub async fn stop(&self, signal: i32, timeout_ms: i64, by: StopBy) -> Result<(), LinkError> {
        self.done(
            "stop",
            Request::Stop {
                signal,
                timeout_ms,
                by,
            },
        )
        .await
    }

    /// The rule for a stop that the service manager asks for.
    pub async fn set_stop(&self, signal: i32, timeout_ms: i64) -> Result<(), LinkError> {
        self.done("set stop", Request::SetStop { signal, timeout_ms })
            .await
    }

    /// New size of the terminal.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), LinkError> {
        self.done("resize", Request::Resize { rows, columns }).await
    }

    /// Hands a client's socket over to the monitor.
    pub async fn attach(&self, attach: Attach, client: OwnedFd) -> Result<Attachment, LinkError> {
        let begun = async {
            let mut replies = self
                .send(vec![(Request::Attach(attach), vec![client])])
                .await?;
            let first = replies.next().await?;
            Ok::<_, LinkError>((replies, first))
        };
        let (replies, first) = timeout(ANSWER, begun)
            .await
            .map_err(|_| LinkError::Timeout("attach"))??;
        match first.message {
            Reply::Attached {
                session,
                log_position,
            } => Ok(Attachment {
                link: self.clone(),
                session,
                log_position,
                replies,
            }),
            _ => Err(LinkError::Unexpected("attach")),
        }
    }

    /// Waits for the end of the container, however long it lives; at once if it has ended.
    pub async fn watch(&self) -> Result<ExitRecord, LinkError> {
        self.begin_watch().await?.exited().await
    }

    /// Asks to be told the end; what is sent after this finds the monitor watched.
    pub async fn begin_watch(&self) -> Result<Watching, LinkError> {
        Ok(Watching(
            self.send(vec![(Request::Watch, Vec::new())]).await?,
        ))
    }
}

/// A watch that has begun.
#[derive(Debug)]
pub struct Watching(Replies);

impl Watching {
    /// Waits for the end, however long the container lives.
    pub async fn exited(mut self) -> Result<ExitRecord, LinkError> {
        match self.0.next().await?.message {
            Reply::Exited(record) => Ok(record),
            _ => Err(LinkError::Unexpected("watch")),
        }
    }
}

/// A client that the monitor serves. Dropping this does not end it.
#[derive(Debug)]
pub struct Attachment {
    link: Link,
    pub session: u32,
    /// Bytes in the log file at the moment of registration: what came before is to be read there,
    /// what comes after goes to the client.
    pub log_position: u64,
    replies: Replies,
}

impl Attachment {
    /// Lets a held client have its output.
    pub async fn proceed(&self) -> Result<(), LinkError> {
        self.link
            .done(
                "proceed",
                Request::Proceed {
                    session: self.session,
                },
            )
            .await
    }

    /// Waits for the end of the attachment.
    pub async fn ended(mut self) -> Result<AttachEnd, LinkError> {
        match self.replies.next().await?.message {
            Reply::AttachEnded { end, .. } => Ok(end),
            _ => Err(LinkError::Unexpected("end of an attachment")),
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Waiters>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody will be answered any more: all receivers end.
    fn close(&self) {
        *self.lock() = None;
        self.ended.send_replace(true);
    }

    fn deliver(&self, answer: Answer) {
        let mut waiters = self.lock();
        let Some(waiters) = waiters.as_mut() else {
            return;
        };
        // Ready and Attached are followed by another reply under the same tag.
        let last = !matches!(answer.message, Reply::Ready { .. } | Reply::Attached { .. });
        let tag = answer.tag;
        let Some(waiter) = waiters.get(&tag) else {
            return;
        };
        // A caller that gave up, or a monitor that answers the same question over and over.
        let lost = waiter.try_send(answer).is_err();
        if last || lost {
            waiters.remove(&tag);
        }
    }
}

async fn write(stream: Arc<UnixStream>, mut batches: mpsc::Receiver<Batch>, shared: Arc<Shared>) {
    let mut ended = shared.ended.subscribe();
    loop {
        // With the reader gone nothing can be answered: the socket closes with the last of the two.
        let batch = tokio::select! {
            batch = batches.recv() => batch,
            _ = ended.wait_for(|ended| *ended) => None,
        };
        let Some(batch) = batch else { return };
        for (bytes, fds) in batch {
            if let Err(error) = write_frame(&stream, &bytes, &fds).await {
                tracing::debug!(%error, "a monitor's connection cannot be written");
                return shared.close();
            }
        }
    }
}

async fn write_frame(stream: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut sent = stream
        .async_io(Interest::WRITABLE, || {
            send_with_fds(stream, bytes, &borrowed)
        })
        .await?;
    while sent < bytes.len() {
        sent += stream
            .async_io(Interest::WRITABLE, || {
                send_with_fds(stream, &bytes[sent..], &[])
            })
            .await?;
    }
    Ok(())
}

async fn read(stream: Arc<UnixStream>, shared: Arc<Shared>) {
    let mut reader = FrameReader::new(MAX_LATER_PAYLOAD);
    let mut buffer = vec![0; CHUNK];
    let end = loop {
        let received = stream
            .async_io(Interest::READABLE, || {
                recv_with_fds(stream.as_ref(), &mut buffer)
            })
            .await;
        match received {
            Ok((0, _)) => break None,
            Ok((count, fds)) => {
                if let Err(error) = take(&mut reader, &buffer[..count], fds, &shared) {
                    break Some(error.to_string());
                }
            }
            Err(error) => break Some(error.to_string()),
        }
    };
    if let Some(error) = end {
        tracing::debug!(error, "a monitor's connection has ended");
    }
    // The other end learns it too, although clones of the link still hold the socket.
    let _ = berth_sys::fd::shutdown(stream.as_ref());
    shared.close();
}

fn take(
    reader: &mut FrameReader<OwnedFd>,
    bytes: &[u8],
    fds: Vec<OwnedFd>,
    shared: &Shared,
) -> Result<(), WireError> {
    reader.push(bytes, fds)?;
    while let Some(answer) = reader.next_reply()? {
        shared.deliver(answer);
    }
    Ok(())
}

/// A path to a socket by its directory's descriptor: `sun_path` has 108 bytes, and a run root may be long.
pub(crate) struct ShortPath {
    path: PathBuf,
    _directory: OwnedFd,
}

impl ShortPath {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

pub(crate) fn short_path(path: &Path) -> io::Result<ShortPath> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = open_root(parent)?;
    let number = berth_sys::fd::number(&directory);
    Ok(ShortPath {
        path: Path::new("/proc/self/fd")
            .join(number.to_string())
            .join(name),
        _directory: directory,
    })
}

#[cfg(test)]
mod tests;
