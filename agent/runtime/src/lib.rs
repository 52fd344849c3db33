//! From container spec to running process. The planner ([`spec`], [`planner`] and its parts) is pure:
//! it turns a [`spec::RunSpec`] into a [`plan::Plan`]. With the feature `agent` the crate also starts
//! monitors and talks to them. It never enters a container, knows no image and no network.
//!
//! # How the engine uses this crate
//!
//! Once: [`hostfacts::HostFacts::read`], `launch::Launcher::new(path of the monitor)`.
//!
//! At create, nothing touched: [`spec::NamespaceModes::parse`], then [`spec::validate`], which refuses
//! what no start could honour and returns warnings.
//!
//! At start, in this order; what is on one line may happen beside the others:
//!
//! 1. `Launcher::spawn` gives `Pending`; its `pid()` is what the scope is made with.
//! 2. Scope (then `cgroup::prepare_scope`) or `cgroupfs::create`: the payload's group, fenced with
//!    [`devices::rules`] and [`devices::filter::program`] before anything is in it.
//! 3. The root mount; on it [`user::resolve`]. Beside it [`devices::from_host`],
//!    [`caps::bounding`] and `seccomp::for_container`.
//! 4. `launch::StartFds::add` for each descriptor: `Root`, `PayloadCgroup`, `ExitRecord`
//!    (read-write, empty), `Listener` (`launch::listen`), `RunRoot` always; `MountNs`, `NetNs`, `Hosts`,
//!    `Hostname`, `ResolvConf`, `Log` with `LogDir`, `Shm`, `PidNs`, `IpcNs`, `Bind(n)` as the spec
//!    needs them ([`plan::FdRole`] says what each is).
//! 5. [`planner::plan`] with [`planner::Inputs`] (`roles` = `StartFds::roles()`).
//! 6. `Pending::start(&plan, fds)` gives `Ready { pid, pidfd, .. }`: init is set up and stands before its
//!    program. Clients attach now (`ready.link().attach`), and the record `running` is written.
//! 7. `Ready::go` gives `Started { link, started_at, .. }`.
//!
//! An error or a dropped `Pending` or `Ready` has killed and reaped the monitor, and init with it;
//! the engine takes back what it made itself. A failed program gives its exit code by
//! [`protocol::start_exit_code`].
//!
//! Later: `link::Link::connect` to the container's `monitor.sock`, then `signal`, `stop`, `resize`,
//! `attach`, `state`, `set_stop` ([`planner::stop_rule`]), `watch`. Without a monitor the truth is in
//! [`exit::ExitRecord::read_from`].

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
