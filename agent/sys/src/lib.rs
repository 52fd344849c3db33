//! The kernel, safely: thin wrappers that turn system calls into Rust types.
//!
//! This is the only crate of the workspace with `unsafe` code; each block says why it is sound.
//! It holds no policy: what to mount, whom to kill and which capability to keep is decided by its
//! callers. Every function returns `std::io::Result`, takes descriptors as `impl AsFd` or
//! `BorrowedFd` and gives new ones out as `OwnedFd`, and every descriptor it makes is close-on-exec.

pub mod at;
pub mod atomic;
pub mod cgroup;
#[allow(unsafe_code)]
pub mod clone;
pub mod cred;
#[allow(unsafe_code)]
pub mod devfilter;
pub mod exec;
#[allow(unsafe_code)]
pub mod fd;
pub mod inotify;
pub mod mem;
pub mod mount;
pub mod netfilter;
pub mod ns;
pub mod path;
#[allow(unsafe_code)]
pub mod peer;
#[allow(unsafe_code)]
pub mod pidfd;
pub mod poll;
pub mod proc;
pub mod random;
#[allow(unsafe_code)]
pub(crate) mod raw;
pub mod rlimit;
#[allow(unsafe_code)]
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod tty;
pub mod xattr;
