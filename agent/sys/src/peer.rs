//! Who is at the other end of a Unix socket, as the kernel saw it at connect.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// `SO_PEERPIDFD` (kernel 6.5; the value differs on parisc and sparc only).
const SO_PEERPIDFD: libc::c_int = 77;

/// The ids of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCred {
    /// 0 when the peer is in a pid namespace that cannot be seen from here.
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// The ids that the peer had when it connected (or made the pair).
pub fn peer_cred(sock: impl AsFd) -> io::Result<PeerCred> {
    let mut cred = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: u32::MAX,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the structure and its length outlive the call, and the length is the structure's.
    let result = unsafe {
        libc::getsockopt(
            sock.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            std::ptr::from_mut(&mut cred).cast(),
            &mut length,
        )
    };
    crate::raw::check(libc::c_long::from(result))?;
    Ok(PeerCred {
        pid: u32::try_from(cred.pid).unwrap_or(0),
        uid: cred.uid,
        gid: cred.gid,
    })
}

/// A pidfd of the peer; it may have ended since. `Unsupported` on kernels before 6.5.
pub fn peer_pidfd(sock: impl AsFd) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the number and its length outlive the call, and the length is the number's.
    let result = unsafe {
        libc::getsockopt(
            sock.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            std::ptr::from_mut(&mut fd).cast(),
            &mut length,
        )
    };
    match crate::raw::check(libc::c_long::from(result)) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        Err(error) => Err(error),
        // SAFETY: the kernel has just made this descriptor (close-on-exec, as every pidfd is) and
        // nobody else owns it.
        Ok(_) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_us() {
        let (a, _b) = crate::fd::socketpair_stream().unwrap();
        let cred = peer_cred(&a).unwrap();
        assert_eq!(cred.pid, std::process::id());
        assert_eq!(cred.uid, rustix::process::geteuid().as_raw());
        match peer_pidfd(&a) {
            Ok(fd) => assert_eq!(crate::pidfd::pid_of(&fd).unwrap(), std::process::id()),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported),
        }
    }
}
