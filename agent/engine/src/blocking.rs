//! Work that blocks (files, mounts, netlink, hashing) runs on threads of its own; no worker of the runtime
//! waits for a disk.

use crate::error::{Error, Result};

/// Runs `work` on a blocking thread. The error is that it panicked: `what` says what did not get done.
pub(crate) async fn run<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(what).with_source(e))
}
