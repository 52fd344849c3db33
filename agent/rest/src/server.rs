//! Listeners, the set of open connections, and the phases that all of them follow: serving, draining
//! (answer what is here, take nothing new), ending (drop what is left).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use hyper::{HeaderMap, Method};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::connection::{self, Inbound};
use crate::error::Error;
use crate::limits;
use crate::reply::Reply;
use crate::socket::{Listener, Queue, Socket};

/// What answers requests: the API in the agent, something smaller in tests.
pub(crate) trait App: Send + Sync {
    fn call(&self, request: Inbound) -> BoxFuture<'static, Result<Reply, Error>>;
    /// Headers that every answer carries.
    fn decorate(&self, headers: &mut HeaderMap);
}

/// What all connections do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    Draining,
    Ending,
}

/// What connections share.
pub(crate) struct Shared {
    pub(crate) app: Box<dyn App>,
    phase: watch::Sender<Phase>,
    /// Open connections and listeners that may still bring some.
    open: watch::Sender<usize>,
    permits: Arc<Semaphore>,
    panics: Panics,
}

/// Counts what should never happen: the suites fail when it is not zero.
#[derive(Debug, Clone, Default)]
pub(crate) struct Panics(Arc<AtomicU64>);

impl Panics {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Shared {
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.phase.borrow() != Phase::Serving
    }

    pub(crate) fn count_panic(&self, method: &Method, path: &str) {
        self.panics.count();
        tracing::error!(%method, path, "a request's handler panicked");
    }
}

/// Waits for a phase other than `seen`.
pub(crate) async fn other_phase(phase: &mut watch::Receiver<Phase>, seen: Phase) -> Phase {
    match phase.wait_for(|now| *now != seen).await {
        Ok(now) => *now,
        // The server is gone: so is the reason to go on.
        Err(_) => Phase::Ending,
    }
}

/// A set of listeners and connections in front of one application; cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    shared: Arc<Shared>,
}

/// Counted in `open` while it lives.
struct Token(Arc<Shared>);

impl Token {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.open.send_modify(|open| *open += 1);
        Self(shared.clone())
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A body or a hijack panicked: its connection ends with it, nobody else does.
            self.0.panics.count();
        }
        self.0.open.send_modify(|open| *open -= 1);
    }
}

impl Server {
    pub(crate) fn new(app: Box<dyn App>, panics: Panics) -> Self {
        Self {
            shared: Arc::new(Shared {
                app,
                phase: watch::Sender::new(Phase::Serving),
                open: watch::Sender::new(0),
                permits: Arc::new(Semaphore::new(limits::CONNECTIONS)),
                panics,
            }),
        }
    }

    /// Panics of handlers, bodies and hijacks since the start.
    pub(crate) fn panics(&self) -> u64 {
        self.shared.panics.get()
    }

    /// Accepts from `listener` until the server ends.
    ///
    /// # Errors
    /// The listener cannot be used; failures of single connections are logged and passed over.
    pub(crate) async fn serve(&self, listener: Listener) -> io::Result<()> {
        let queue = listener.queue()?;
        let mut phase = self.shared.phase();
        loop {
            let accepting = Token::new(&self.shared);
            tokio::select! {
                biased;
                _ = other_phase(&mut phase, Phase::Serving) => {}
                () = self.accept_from(&listener) => {}
            }
            self.take_queued(&queue);
            drop(accepting);
            loop {
                let now = *phase.borrow_and_update();
                match now {
                    Phase::Serving => break,
                    Phase::Ending => return Ok(()),
                    Phase::Draining => {
                        other_phase(&mut phase, Phase::Draining).await;
                    }
                }
            }
        }
    }

    /// Never returns; dropped when the phase changes. `accept` loses nothing when it is dropped.
    async fn accept_from(&self, listener: &Listener) {
        loop {
            let Ok(permit) = self.shared.permits.clone().acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok(socket) => self.spawn(socket, permit),
                Err(error) if is_peers_fault(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    drop(permit);
                    self.some_closed().await;
                }
            }
        }
    }

    /// Waits until a connection ended and gave its descriptor back, or for a while where others hold them.
    async fn some_closed(&self) {
        let mut open = self.shared.open.subscribe();
        let before = *open.borrow_and_update();
        let _ =
            tokio::time::timeout(limits::ACCEPT_PAUSE, open.wait_for(|open| *open < before)).await;
    }

    /// Takes what waits in the kernel's queue, without waiting for more. Connections beyond the limit
    /// stay where they are: they belong to whoever listens next.
    fn take_queued(&self, queue: &Queue) {
        while let Ok(permit) = self.shared.permits.clone().try_acquire_owned() {
            match queue.take() {
                Ok(Some(socket)) => self.spawn(socket, permit),
                Ok(None) => return,
                Err(error) if is_peers_fault(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot empty a listener's queue");
                    return;
                }
            }
        }
    }

    fn spawn(&self, socket: Socket, permit: OwnedSemaphorePermit) {
        let (shared, token) = (self.shared.clone(), Token::new(&self.shared));
        tokio::spawn(async move {
            let _held = (token, permit);
            connection::serve(shared, socket).await;
        });
    }

    /// Answers what has been sent already, in open connections and in the listeners' queues, and takes
    /// nothing that comes later.
    pub(crate) fn drain(&self) {
        self.shared.phase.send_replace(Phase::Draining);
    }

    /// Serves again after a drain.
    pub(crate) fn resume(&self) {
        self.shared.phase.send_replace(Phase::Serving);
    }

    /// Drops every connection and ends every listener.
    pub(crate) fn end(&self) {
        self.shared.phase.send_replace(Phase::Ending);
    }

    /// Resolves when, after [`Self::drain`] or [`Self::end`], no connection is left.
    pub(crate) async fn drained(&self) {
        // The sender lives in self: the channel cannot close.
        let _ = self
            .shared
            .open
            .subscribe()
            .wait_for(|open| *open == 0)
            .await;
    }
}

/// Failures of `accept` that say something about one client only.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests;
