//! The end-to-end suites: real clients against a socket-activated agent on a real systemd host (the lab).
//! Each module is one face or one promise. Every test begins and ends with the same picture of the host.

#![allow(clippy::disallowed_methods, reason = "tests run real clients")]
#![allow(
    clippy::unwrap_used,
    reason = "a broken premise of a test is a failed test"
)]

mod bollard_client;
mod cgroupfs;
mod crash;
mod dbus;
mod docker_cli;
mod docker_options;
mod docker_py;
mod http_input;
mod idle;
mod images;
mod images_hostile;
mod lifecycle;
mod network;
mod parity;
mod rest;
mod sandbox;
mod sandbox_attacks;
mod support;
mod systemctl;
