//! Attaching clients. The client's own socket goes to the monitor, so the agent is in nobody's way and
//! may leave. A client that attaches before the start is kept here until the monitor exists.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use berth_model::mux;
use berth_runtime::Blob;
use berth_runtime::link::Link;
use berth_runtime::protocol::Attach;

use super::Handle;
use crate::Engine;
use crate::activity::Busy;
use crate::error::{Error, Result, Subject};
use crate::logs;
use crate::types::{AttachOptions, LogOptions};

/// Between the answer to a client and its socket in our hands lies one flush: more means that it is gone.
const HANDOVER_DEADLINE: Duration = Duration::from_secs(5);
/// Docker's detach keys: ctrl-p, ctrl-q.
const DEFAULT_DETACH_KEYS: &[u8] = &[16, 17];

/// A client's socket and what was read from it already.
#[derive(Debug)]
struct Arrived {
    stream: OwnedFd,
    initial: Vec<u8>,
    /// Looks out for a client that leaves while it waits; ends with this.
    _lookout: Option<AbortOnDrop>,
}

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Attachments that wait for the container's start.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    waiting: Mutex<Vec<Waiting>>,
    drawn: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    options: AttachOptions,
    arrived: oneshot::Receiver<Arrived>,
    /// While it waits here the agent may not leave.
    _busy: Busy,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn add(&self, options: AttachOptions, busy: Busy) -> (u64, oneshot::Sender<Arrived>) {
        let (sender, arrived) = oneshot::channel();
        let ticket = self.drawn.fetch_add(1, Ordering::Relaxed);
        self.lock().push(Waiting {
            ticket,
            options,
            arrived,
            _busy: busy,
        });
        (ticket, sender)
    }

    fn remove(&self, ticket: u64) {
        self.lock().retain(|waiting| waiting.ticket != ticket);
    }

    fn take(&self) -> Vec<Waiting> {
        std::mem::take(&mut *self.lock())
    }

    /// The container is gone: its clients' connections close.
    pub(crate) fn drop_all(&self) {
        drop(self.take());
    }
}

/// A place among the waiting; given back when the client never arrives.
#[derive(Debug)]
struct Place {
    handle: Arc<Handle>,
    ticket: u64,
    sender: Option<oneshot::Sender<Arrived>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.sender.is_some() {
            self.handle.attachments.remove(self.ticket);
        }
    }
}

/// A validated attachment: registered before the client is told, so that no output is lost between.
#[derive(Debug)]
pub struct Attachment {
    tty: bool,
    engine: Engine,
    handle: Arc<Handle>,
    options: AttachOptions,
    /// Where the socket goes when the container does not run yet.
    place: Option<Place>,
    _busy: Busy,
}

impl Attachment {
    /// Whether the stream is raw (a terminal) or framed.
    pub fn tty(&self) -> bool {
        self.tty
    }

    /// Hands the client's own socket over; `initial` is what was already read from it.
    pub async fn connect(mut self, stream: OwnedFd, initial: Vec<u8>) -> Result<()> {
        let stream = match self.options.logs {
            true => self.replay(stream).await?,
            false => stream,
        };
        if !self.options.stream {
            return Ok(());
        }
        match self.place.take() {
            Some(mut place) => {
                let _lookout = lookout(&place.handle, place.ticket, &stream)?;
                if let Some(sender) = place.sender.take() {
                    // Nobody takes it when the container was removed meanwhile: the client's connection closes.
                    let _ = sender.send(Arrived {
                        stream,
                        initial,
                        _lookout: Some(_lookout),
                    });
                }
                Ok(())
            }
            None => {
                let live = self.handle.live_or_conflict()?;
                hand_over(
                    &live.link,
                    &self.options,
                    self.tty,
                    Arrived {
                        stream,
                        initial,
                        _lookout: None,
                    },
                )
                .await
            }
        }
    }

    /// Writes the log into the client's stream, framed as the live output will be.
    async fn replay(&self, stream: OwnedFd) -> Result<OwnedFd> {
        let options = LogOptions {
            stdout: self.options.stdout,
            stderr: self.options.stderr,
            ..LogOptions::default()
        };
        let path = self.engine.inner.paths.log(&self.handle.id);
        let watched = self.handle.watched.subscribe();
        let mut entries =
            logs::stream(&path, self.tty, options, watched, self.engine.busy()).entries;
        let mut file = std::fs::File::from(stream);
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            let mut bytes = Vec::with_capacity(entry.line.len() + 8);
            match self.tty {
                true => bytes.extend_from_slice(&entry.line),
                false => {
                    let name = if entry.stream == 2 {
                        mux::Stream::Stderr
                    } else {
                        mux::Stream::Stdout
                    };
                    mux::append(&mut bytes, name, &entry.line);
                }
            }
            file = crate::blocking::run("the replay failed", move || {
                file.write_all(&bytes).map(|()| file)
            })
            .await?
            .map_err(|e| Error::unavailable("the client went away").with_source(e))?;
        }
        Ok(file.into())
    }
}

impl Engine {
    /// Registers at once, also on a container that was not started yet.
    pub async fn container_attach(
        &self,
        reference: &str,
        options: AttachOptions,
    ) -> Result<Attachment> {
        let handle = self.inner.containers.find(reference)?;
        let tty = {
            let record = handle.record();
            if record.status() == crate::types::Status::Paused {
                return Err(Error::conflict(format!(
                    "container {} is paused, unpause the container before attach",
                    handle.id
                ))
                .about(Subject::Container));
            }
            record.body.spec.tty
        };
        let busy = self.busy();
        // Taken so that a start is either before this (there is a monitor) or after it (the list is read then).
        let _life = handle.life.lock().await;
        let place = (options.stream && handle.live().is_none()).then(|| {
            let (ticket, sender) = handle.attachments.add(options.clone(), self.busy());
            Place {
                handle: handle.clone(),
                ticket,
                sender: Some(sender),
            }
        });
        drop(_life);
        Ok(Attachment {
            tty,
            engine: self.clone(),
            handle,
            options,
            place,
            _busy: busy,
        })
    }

    /// Gives the waiting clients to the container's new monitor, before its program runs.
    pub(crate) async fn hand_over_pending(&self, handle: &Handle, link: &Link) {
        let tty = handle.record().body.spec.tty;
        for waiting in handle.attachments.take() {
            // A client that gave up before its connection was ours is passed over.
            let Ok(Ok(arrived)) = tokio::time::timeout(HANDOVER_DEADLINE, waiting.arrived).await
            else {
                continue;
            };
            if let Err(error) = hand_over(link, &waiting.options, tty, arrived).await {
                tracing::warn!(
                    container_id = handle.id,
                    error = &error as &dyn std::error::Error,
                    "a client could not be attached"
                );
            }
        }
    }
}

async fn hand_over(
    link: &Link,
    options: &AttachOptions,
    tty: bool,
    arrived: Arrived,
) -> Result<()> {
    let request = Attach {
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
        framed: !tty,
        detach_keys: Blob(
            options
                .detach_keys
                .clone()
                .unwrap_or_else(|| DEFAULT_DETACH_KEYS.to_vec()),
        ),
        initial: Blob(arrived.initial),
        hold: false,
    };
    link.attach(request, arrived.stream)
        .await
        .map(drop)
        .map_err(super::start::link_error)
}

/// Forgets a waiting client when its connection closes. A client that has only ended its input waits on.
fn lookout(handle: &Arc<Handle>, ticket: u64, stream: &OwnedFd) -> Result<AbortOnDrop> {
    #[allow(
        deprecated,
        reason = "an OwnedFd keeps its number for as long as it lives"
    )]
    let watched = stream
        .try_clone()
        .and_then(|fd| AsyncFd::with_interest(fd, Interest::WRITABLE))
        .map_err(|e| Error::internal("cannot watch a client's connection").with_source(e))?;
    let handle = Arc::downgrade(handle);
    let task = tokio::spawn(async move {
        while let Ok(mut guard) = watched.writable().await {
            if guard.ready().is_write_closed() {
                break;
            }
            guard.clear_ready();
        }
        if let Some(handle) = handle.upgrade() {
            handle.attachments.remove(ticket);
        }
    });
    Ok(AbortOnDrop(task.abort_handle()))
}
