//! The D-Bus face, where there is a bus. REST does not depend on it: without a bus, or while it
//! restarts, the agent serves on, and the face connects by itself when a bus appears.

use std::time::Duration;

use berth_dbus::{BusHandle, Options};
use berth_engine::Engine;

/// The bus answers in well under a millisecond, or not at all.
const RELEASE: Duration = Duration::from_secs(2);

/// The face on the system bus.
#[derive(Debug)]
pub(crate) struct Bus {
    engine: Engine,
    handle: BusHandle,
}

fn serve(engine: &Engine) -> BusHandle {
    berth_dbus::serve(
        engine.clone(),
        Options {
            version: crate::VERSION.to_owned(),
            address: None,
        },
    )
}

impl Bus {
    pub(crate) fn start(engine: Engine) -> Self {
        Self {
            handle: serve(&engine),
            engine,
        }
    }

    /// Gives the name back: from now on calls start the next agent.
    pub(crate) async fn leave(&self) {
        if tokio::time::timeout(RELEASE, self.handle.release())
            .await
            .is_err()
        {
            tracing::warn!("the bus does not answer; leaving without its word");
        }
    }

    /// Answers what arrived before that; false = some calls are still running after `limit`.
    pub(crate) async fn drain(&self, limit: Duration) -> bool {
        self.handle.drain(limit).await
    }

    /// Serves again after [`Self::leave`].
    pub(crate) async fn rejoin(&mut self) {
        std::mem::replace(&mut self.handle, serve(&self.engine))
            .close()
            .await;
    }
}
