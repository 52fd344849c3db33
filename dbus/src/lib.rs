//! The D-Bus face: `org.berth.Agent1` on the system bus. It names objects, asks polkit, calls the
//! engine and tells about changes. No rule about containers lives here; what a container may do is
//! the engine's to say, and Docker's JSON is `berth-api`'s to read.
//!
//! What the object server gives out without asking anyone (names, states, times) is what
//! `systemctl status` tells everyone as well. Labels, environment, commands and mounts may carry
//! secrets: they are behind `Describe` and its own polkit action, never in a property or a signal
//! that everyone can read.
//!
//! Property getters never wait: the object server holds its lock while they run.

mod authorize;
mod calls;
mod container;
mod error;
mod job;
mod manager;
mod mirror;
mod objects;
mod options;
mod paths;
mod service;
mod shared;
mod subscribers;
mod transport;
mod view;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::shared::{Link, Shared, Stage};
use berth_engine::Engine;

/// The well-known name, and the prefix of every interface.
pub const BUS_NAME: &str = "org.berth.Agent1";

/// The manager's object, and the root of all others.
pub const ROOT: &str = "/org/berth/Agent1";

/// How the face is to be served.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The agent's version, for the `Version` property.
    pub version: String,
    /// A D-Bus address; `None` = the system bus.
    pub address: Option<String>,
}

/// The served face. Dropping it does not end it; [`BusHandle::close`] does.
#[derive(Debug)]
pub struct BusHandle {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// Serves the engine on the bus until [`BusHandle::close`]: connects, exports every container, takes
/// the name, and does so again whenever the bus was restarted. A host without a bus is no error;
/// the face then waits for one. Must be called inside a tokio runtime.
pub fn serve(engine: Engine, options: Options) -> BusHandle {
    let shared = Arc::new(Shared::new(engine, options));
    let task = tokio::spawn(service::run(Arc::clone(&shared)));
    BusHandle { shared, task }
}

impl BusHandle {
    /// Resolves when the first attempt is over: true = the name is ours and calls are answered,
    /// false = there is no bus (yet).
    pub async fn ready(&self) -> bool {
        let mut link = self.shared.link();
        match link.wait_for(|link| *link != Link::Starting).await {
            Ok(link) => *link == Link::Up,
            Err(_) => false,
        }
    }

    /// Whether the name is ours now.
    pub fn is_connected(&self) -> bool {
        *self.shared.link().borrow() == Link::Up
    }

    /// Gives the name back and waits for the bus to confirm it. After that, whoever calls the name
    /// starts the next agent, and everything that was sent to this one has arrived here: answer it
    /// with [`BusHandle::drain`].
    ///
    /// The order for leaving without losing a call is `STOPPING=1`, `release`, `drain`, exit.
    pub async fn release(&self) {
        self.shared.set_stage(Stage::Released);
        let Some(connection) = self.shared.connection() else {
            return;
        };
        if let Err(error) = connection.release_name(BUS_NAME).await {
            tracing::warn!(%error, "the bus name was not given back in order");
        }
    }

    /// Waits until every call that has arrived is answered, for `limit` at most; false = some are
    /// still running.
    pub async fn drain(&self, limit: Duration) -> bool {
        let answered = self.shared.calls.all_answered();
        tokio::time::timeout(limit, answered).await.is_ok()
    }

    /// Closes the connection and ends the service; calls that run are cut off.
    pub async fn close(self) {
        self.shared.set_stage(Stage::Closed);
        self.closed().await;
    }

    /// Resolves when the service has ended.
    pub async fn closed(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the bus service ended abnormally");
        }
    }
}

#[cfg(test)]
mod tests;
