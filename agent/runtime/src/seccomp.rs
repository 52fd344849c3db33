//! System call filters (security specification A.3): Docker's profile format, evaluated for one
//! container and compiled to the program that its first process loads. A profile that is not
//! understood is an error and never "no filter".
//!
//! [`profile`] reads and evaluates (pure); `compile` (feature `agent`) drives libseccomp and puts
//! our prologue in front of its program.

#[cfg(feature = "agent")]
mod compile;
pub mod profile;
#[cfg(feature = "agent")]
mod prologue;

#[cfg(feature = "agent")]
pub use compile::{compile, for_container};

use thiserror::Error;

/// The built-in profile.
pub const BUILTIN: &str = include_str!("../../../packaging/seccomp/default.json");

/// Why there is no filter.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SeccompError {
    /// The profile is wrong.
    #[error("decoding seccomp profile failed: {0}")]
    Profile(String),
    /// The profile asks for what this version does not give.
    #[error("seccomp profile: {0} is not supported")]
    Unsupported(String),
    /// The filter library refused.
    #[error("cannot compile the seccomp profile: {0}")]
    Compile(String),
}
