//! Cloning the calling process straight into new namespaces and a cgroup.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::ns::Namespaces;

/// clone3(2), Linux 5.7; libc's constant is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which process a [`clone_into`] came back in.
#[derive(Debug)]
pub enum ForkResult {
    /// The caller; the child by its number here and by descriptor.
    Parent { pid: u32, pidfd: OwnedFd },
    /// The new process, with a copy of everything the caller had.
    Child,
}

/// clone3(2) with new `namespaces`, into `cgroup` (a descriptor of its v2 directory) when given.
///
/// The child is a full copy, like after fork(2), and must go on with ordinary code: so a caller
/// with more than one thread is refused (EINVAL), because locks that another thread held would
/// stay locked in the child for ever. The child raises SIGCHLD when it ends.
pub fn clone_into(
    namespaces: Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<ForkResult> {
    if !crate::raw::single_threaded() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a process with several threads must not be cloned",
        ));
    }
    let mut pidfd: libc::c_int = -1;
    let mut flags = namespaces.bits() | libc::CLONE_PIDFD as u64;
    let mut target = 0;
    if let Some(cgroup) = cgroup {
        flags |= CLONE_INTO_CGROUP;
        target = u64::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?;
    }
    let args = libc::clone_args {
        flags,
        pidfd: std::ptr::from_mut(&mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: target,
    };
    // SAFETY: the structure and the pidfd's place outlive the call, and the size is the
    // structure's. Without CLONE_VM the child gets a copy of the memory, and the only thread there
    // is (checked above) goes on in it, so no lock is held by anybody else.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_ref(&args),
            size_of::<libc::clone_args>(),
        )
    };
    match crate::raw::check(result)? {
        0 => Ok(ForkResult::Child),
        pid => {
            // SAFETY: the kernel has just stored a new descriptor there that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(ForkResult::Parent {
                pid: u32::try_from(pid).map_err(io::Error::other)?,
                pidfd,
            })
        }
    }
}

/// Whether the calling process has one thread only.
pub fn single_threaded() -> bool {
    crate::raw::single_threaded()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The test harness itself has several threads; what clone_into does in a process with one is
    // tested by the monitor's own tests, which run real containers.
    #[test]
    fn several_threads_are_refused() {
        let (tell, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        assert!(!single_threaded());
        let error = clone_into(Namespaces::NONE, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        drop(tell);
        let _ = other.join();
    }
}
