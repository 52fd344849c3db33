//! From container spec to running process. The planner ([`spec`], [`planner`] and its parts) is pure:
//! it turns a [`spec::RunSpec`] into a [`plan::Plan`]. With the feature `agent` the crate also starts
//! monitors and talks to them. It never enters a container, knows no image and no network.

pub mod caps;
#[cfg(feature = "agent")]
pub mod cgroup;
#[cfg(feature = "agent")]
pub mod cgroupfs;
pub mod devices;
pub mod exit;
pub mod hostfacts;
#[cfg(feature = "agent")]
pub mod launch;
pub mod limits;
#[cfg(feature = "agent")]
pub mod link;
mod mounts;
pub mod namespaces;
pub mod plan;
pub mod planner;
pub mod protocol;
pub mod seccomp;
pub mod security;
pub mod spec;
pub mod user;
mod wire;

pub use wire::{Blob, WireError};
