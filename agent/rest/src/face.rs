//! What the daemon holds of this face: it gives it listeners and tells it when to stop.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::sync::watch;

use crate::server::{Panics, Server};
use crate::service::{Api, Backend, Identity};
use crate::socket::Listener;

/// The REST face; cheap to clone.
#[derive(Clone)]
pub struct Face {
    server: Server,
    working: watch::Receiver<usize>,
}

impl fmt::Debug for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Face")
            .field("working", &*self.working.borrow())
            .finish_non_exhaustive()
    }
}

impl Face {
    /// A face over whatever `backend` becomes. Requests wait while it is opening.
    pub fn new(version: &str, commit: &str, backend: watch::Receiver<Backend>) -> Self {
        let panics = Panics::default();
        let api = Api::new(Identity::new(version, commit), backend, panics.clone());
        let working = api.working();
        Self {
            server: Server::new(Box::new(api), panics),
            working,
        }
    }

    /// Accepts and serves connections until [`Self::end`].
    ///
    /// # Errors
    /// The listener cannot be used.
    pub async fn serve(&self, listener: Listener) -> io::Result<()> {
        self.server.serve(listener).await
    }

    /// Answers what was sent already, also by clients that wait in a listener's queue, and takes nothing
    /// that comes later. Resolves when no connection is left, which streams without an end can prevent.
    pub async fn drain(&self) {
        self.server.drain();
        self.server.drained().await;
    }

    /// Serves again after a drain that was not waited for.
    pub fn resume(&self) {
        self.server.resume();
    }

    /// Waits until no request is at work that has an effect: what may still be open then are streams
    /// and waits, which their clients can ask for again.
    pub async fn at_rest(&self) {
        // The sender lives in the server: the channel cannot close.
        let _ = self.working.clone().wait_for(|count| *count == 0).await;
    }

    /// Drops every connection, after `grace` for those that are about to end by themselves.
    pub async fn end(&self, grace: Duration) {
        let _ = tokio::time::timeout(grace, self.drain()).await;
        self.server.end();
        self.server.drained().await;
    }

    /// Panics of handlers since the start.
    pub fn panics(&self) -> u64 {
        self.server.panics()
    }
}
