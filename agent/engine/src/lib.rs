//! The engine: every operation is written once, here, and both faces call it. It joins storage,
//! runtime, network and the service manager; it does no HTTP and no D-Bus and knows no wire format.
//!
//! What should exist is in the database; what does exist is in the run directory, in the scopes and in
//! their monitors. [`Engine::open`] brings the two together, and after that a container's life is
//! changed by whoever holds it ([`containers::Handle::life`]): intent is recorded before the effect, and
//! an effect that fails is undone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use tokio::sync::broadcast;

use berth_model::time::Timestamp;

mod activity;
mod blocking;
mod cgroups;
mod changes;
mod containers;
mod db;
pub mod error;
mod events;
mod failpoint;
pub mod filters;
mod images;
mod info;
mod inner;
mod logs;
mod paths;
mod record;
mod restore;
pub mod types;

pub use activity::Busy;
pub use berth_network::BridgeConfig;
pub use containers::attach::Attachment;
pub use containers::wait::Waiter;
pub use error::{Error, Kind, Result, Subject};
pub use images::load::{Input, ProgressFn, SavePlan};
pub use logs::LogStream;
pub use types::*;

use inner::Inner;

/// How the agent was told to work.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_root: PathBuf,
    pub run_root: PathBuf,
    /// None = overlay, or vfs where overlay cannot work and the configuration says so.
    pub storage_driver: Option<String>,
    pub cgroup_driver: CgroupDriver,
    /// The installed berth-monitor.
    pub monitor: PathBuf,
    pub bridge: berth_network::BridgeConfig,
    /// Of the agent; shown by info and version.
    pub version: String,
}

/// Who makes the containers' cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupDriver {
    /// systemd where it is the init, the cgroup file system elsewhere.
    #[default]
    Auto,
    Systemd,
    Cgroupfs,
}

/// The handle that faces hold: cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

impl Engine {
    /// Opens the roots, brings records and reality together, and is ready to serve.
    pub async fn open(config: Config) -> Result<Engine> {
        let engine = Engine {
            inner: Arc::new(Inner::open(config).await?),
        };
        engine.restore().await?;
        Ok(engine)
    }

    /// Marks the agent as busy until the guard is dropped. Every request and open stream holds one.
    pub fn busy(&self) -> Busy {
        self.inner.activity.busy()
    }

    /// Resolves when somebody comes after this call.
    pub async fn disturbed(&self) {
        self.inner.activity.disturbed().await;
    }

    /// Resolves when nothing has been busy for `quiet` (new work restarts the count).
    pub async fn idle_for(&self, quiet: Duration) {
        self.inner.activity.idle_for(quiet).await;
    }

    /// Puts right what others may have changed on the host since the start: bridge, ports and rules.
    pub async fn reload(&self) {
        if !self.inner.has_endpoints() {
            return;
        }
        if let Err(error) = self.inner.network.verify().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the bridge network could not be put right"
            );
        }
    }

    /// Flushes what is in memory and lets go of the data root (idle exit, shutdown). Containers go on.
    pub async fn close(&self) {
        self.unwatch().await;
        self.inner.network.shutdown();
        if let Err(error) = self.inner.db.checkpoint().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the database log was not folded in, ignoring"
            );
        }
    }

    /// Replays from `since`, then live until `until` or the stream is dropped.
    pub async fn events(&self, options: EventOptions) -> Result<BoxStream<'static, Event>> {
        options
            .filters
            .validate(filters::EVENTS)
            .map_err(|e| Error::invalid(e.to_string()))?;
        Ok(self.inner.events.stream(options, Timestamp::now()))
    }

    /// Output from the log; following ends with the container.
    pub async fn container_logs(&self, reference: &str, options: LogOptions) -> Result<LogStream> {
        let handle = self.inner.containers.find(reference)?;
        if !options.stdout && !options.stderr {
            return Err(
                Error::invalid("Bad parameters: you must choose at least one stream")
                    .about(Subject::Container),
            );
        }
        let body = handle.record().body.clone();
        match body.spec.host.log.driver.as_str() {
            "" | "json-file" => {}
            driver => {
                return Err(Error::unsupported(format!(
                    "configured logging driver does not support reading: {driver}"
                ))
                .about(Subject::Container));
            }
        }
        let path = self.inner.paths.log(&handle.id);
        Ok(logs::stream(
            &path,
            body.spec.tty,
            options,
            handle.watched.subscribe(),
            self.busy(),
        ))
    }

    /// Changes of containers, for those who mirror them. A receiver that falls behind reads everything anew.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes.subscribe()
    }
}
