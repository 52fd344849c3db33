//! What the agent tells the service manager, off the reactor: the manager may be slow to listen.

use std::io;
use std::time::Duration;

use berth_systemd::notify;

async fn tell(what: &'static str, send: impl FnOnce() -> io::Result<bool> + Send + 'static) {
    match tokio::task::spawn_blocking(send).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, what, "the service manager could not be told"),
        Err(error) => tracing::error!(%error, what, "telling the service manager failed"),
    }
}

pub(crate) async fn ready(status: String) {
    tell("ready", move || notify::ready_with_status(&status)).await;
}

pub(crate) async fn status(status: String) {
    tell("status", move || notify::status(&status)).await;
}

pub(crate) async fn stopping() {
    tell("stopping", notify::stopping).await;
}

pub(crate) async fn reloading() {
    tell("reloading", notify::reloading).await;
}

pub(crate) async fn watchdog() {
    tell("watchdog", notify::watchdog).await;
}

pub(crate) async fn extend(more: Duration) {
    tell("a longer time", move || notify::extend_timeout(more)).await;
}
