//! The service manager's side of the agent: transient scopes, socket activation, readiness and
//! polkit. It says how to talk to systemd and knows nothing of containers, images or networks;
//! whom to start and what to tell the client is the engine's business.
//!
//! Everything that waits has a limit, and a bus that is away is an error, never a hang.

pub mod activation;
mod bus;
pub mod error;
pub mod limits;
pub mod manager;
pub mod notify;
pub mod polkit;
pub mod scope;

pub use error::{Error, Result};
pub use limits::Limits;
pub use manager::Manager;
pub use scope::{ScopeSettings, ScopeStarted};

/// Whether systemd is the init of this machine (sd_booted(3)).
pub fn booted() -> bool {
    libsystemd::daemon::booted()
}
