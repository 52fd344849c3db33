//! The agent's memory: small while it works, and given back when it is quiet. Its threads come and go with
//! the work, and the allocator keeps what each has freed for a thread that may never come.

use std::time::Duration;

use berth_engine::Engine;

/// Two workers and short blocking work get along with as many.
const ARENAS: i32 = 2;
/// After so long without work the next request can afford a few page faults.
const QUIET: Duration = Duration::from_secs(1);

/// Before the first thread.
pub(crate) fn prepare() {
    berth_sys::mem::limit_arenas(ARENAS);
}

/// Gives freed memory back whenever the work ends; runs as long as the agent.
pub(crate) async fn give_back(engine: Engine) {
    loop {
        engine.idle_for(QUIET).await;
        berth_sys::mem::trim();
        engine.disturbed().await;
    }
}
