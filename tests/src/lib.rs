//! The harness of the end-to-end suites: the lab (a real systemd host made of namespaces), a plain HTTP client,
//! images made from nothing, and a picture of the host that tells what a test left behind.
//!
//! Nothing here may use berth's own code: what the suites check must not be what they check it with.

#![allow(clippy::disallowed_methods, reason = "tests run real clients")]
#![allow(
    clippy::unwrap_used,
    reason = "a broken premise of a test is a failed test"
)]
#![allow(
    clippy::print_stdout,
    reason = "what a test prints explains its failure"
)]

pub mod http;
pub mod image;
pub mod lab;
pub mod output;
pub mod pid;
pub mod state;
