//! Descriptors: making, passing and marking them.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::pipe::PipeFlags;

/// The kernel's bound on descriptors in one message (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

/// Copies `contents` into a sealed, executable memory file: nobody can write, grow, shrink or
/// unseal it any more, so a program run from it cannot be overwritten through `/proc/PID/exe`.
pub fn sealed_memfd(name: &str, contents: &mut dyn Read) -> io::Result<OwnedFd> {
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC is needed where vm.memfd_noexec is 1; kernels before 6.3 do not know the flag.
    let fd = match rustix::fs::memfd_create(name, base | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, base)?,
        other => other?,
    };
    let mut file = std::fs::File::from(fd);
    io::copy(contents, &mut file)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(0o555))?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file.into())
}

/// An empty memory file, for what a library can only write to a descriptor.
pub fn memfd(name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?)
}

/// Sends bytes and descriptors in one message. Never raises SIGPIPE.
///
/// The descriptors travel with the first byte, so `bytes` must not be empty when there are any.
pub fn send_with_fds(sock: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.len() > MAX_FDS || (bytes.is_empty() && !fds.is_empty()) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let iov = [IoSlice::new(bytes)];
    Ok(rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&sock, &iov, &mut control, SendFlags::NOSIGNAL)
    })?)
}

/// Receives bytes and the descriptors that came with them; 0 bytes = the peer has closed.
///
/// Descriptors that the kernel had to drop (`MSG_CTRUNC`) are an error, never a silent loss.
pub fn recv_with_fds(sock: impl AsFd, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            &sock,
            &mut [IoSliceMut::new(buf)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut fds = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            fds.extend(received);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "descriptors in a message were truncated",
        ));
    }
    Ok((message.bytes, fds))
}

/// A pipe: (read end, write end).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?)
}

/// Asks for a pipe buffer of at least `bytes`; gives what the kernel granted. EPERM beyond the
/// user's or the system's limit.
pub fn set_pipe_size(pipe: impl AsFd, bytes: usize) -> io::Result<usize> {
    rustix::pipe::fcntl_setpipe_size(&pipe, bytes)?;
    Ok(rustix::pipe::fcntl_getpipe_size(&pipe)?)
}

/// A connected pair of stream sockets of the Unix family.
pub fn socketpair_stream() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Ends a connected socket in both directions, for every descriptor of it.
pub fn shutdown(sock: impl AsFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(&sock, rustix::net::Shutdown::Both)?)
}

/// A second descriptor for the same open file.
pub fn dup(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 0)?)
}

/// A second descriptor for the same open file, numbered `minimum` or higher.
pub fn dup_above(fd: impl AsFd, minimum: i32) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, minimum)?)
}

/// Switches `O_NONBLOCK` of the open file (all descriptors that share it).
pub fn set_nonblocking(fd: impl AsFd, on: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(&fd)?;
    flags.set(OFlags::NONBLOCK, on);
    Ok(rustix::fs::fcntl_setfl(&fd, flags)?)
}

/// Switches close-on-exec of this one descriptor.
pub fn set_cloexec(fd: impl AsFd, on: bool) -> io::Result<()> {
    let flags = if on {
        rustix::io::FdFlags::CLOEXEC
    } else {
        rustix::io::FdFlags::empty()
    };
    Ok(rustix::io::fcntl_setfd(fd, flags)?)
}

/// Marks every descriptor from `from` on close-on-exec.
pub fn close_range_cloexec(from: u32) -> io::Result<()> {
    crate::raw::close_range(from, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `from` on: what a careless parent has left open to this program.
///
/// Only right at the start, before the program has opened anything itself: whoever owned one of
/// the descriptors would go on with a number that may soon mean another file.
pub fn close_inherited(from: u32) -> io::Result<()> {
    crate::raw::close_range(from, u32::MAX, 0)
}

/// Puts three open files at descriptors 0, 1 and 2 and clears their close-on-exec flag: the last
/// step before an exec.
///
/// The sources are moved above 2 first, so they may themselves be any of the three.
pub fn install_stdio(stdin: impl AsFd, stdout: impl AsFd, stderr: impl AsFd) -> io::Result<()> {
    let sources = [
        dup_above(stdin, 3)?,
        dup_above(stdout, 3)?,
        dup_above(stderr, 3)?,
    ];
    for (target, source) in (0..).zip(&sources) {
        // SAFETY: dup2 onto 0, 1 and 2 is what std itself expects of a program that redirects its
        // standard streams; no OwnedFd of this process stands for those numbers but the ones that
        // the caller gave up by asking for this.
        let result = unsafe { libc::dup2(source.as_raw_fd(), target) };
        crate::raw::check(libc::c_long::from(result))?;
    }
    Ok(())
}

/// Takes ownership of a descriptor that the program was started with.
///
/// Fails with EBADF when nothing is open under that number. Call it at most once per number,
/// before anything else could have opened one: that is how a program takes what its parent left.
pub fn take_inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only looks the number up.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    crate::raw::check(libc::c_long::from(flags))?;
    // SAFETY: the descriptor is open (checked above), was inherited across exec and so has no
    // owner in this process yet; the contract of this function is one call per number.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    set_cloexec(&fd, true)?;
    Ok(fd)
}

/// The number of a descriptor, for messages and `/proc/self/fd` paths.
pub fn number(fd: impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_travel_and_are_cloexec() {
        let (a, b) = socketpair_stream().unwrap();
        let (read, write) = pipe().unwrap();
        assert_eq!(
            send_with_fds(&a, b"x", &[write.as_fd(), read.as_fd()]).unwrap(),
            1
        );
        let mut buf = [0; 8];
        let (n, fds) = recv_with_fds(&b, &mut buf).unwrap();
        assert_eq!((n, fds.len(), buf[0]), (1, 2, b'x'));
        for fd in &fds {
            assert!(
                rustix::io::fcntl_getfd(fd)
                    .unwrap()
                    .contains(rustix::io::FdFlags::CLOEXEC)
            );
        }
        drop(write);
        rustix::io::write(&fds[0], b"hello").unwrap();
        assert_eq!(rustix::io::read(&read, &mut buf).unwrap(), 5);
        drop(a);
        assert_eq!(recv_with_fds(&b, &mut buf).unwrap().0, 0);
    }

    #[test]
    fn descriptors_need_a_byte_and_a_bound() {
        let (a, _b) = socketpair_stream().unwrap();
        let many = vec![a.as_fd(); MAX_FDS + 1];
        assert!(send_with_fds(&a, b"", &[a.as_fd()]).is_err());
        assert!(send_with_fds(&a, b"x", &many).is_err());
        assert_eq!(send_with_fds(&a, b"x", &many[..MAX_FDS]).unwrap(), 1);
        let (_, fds) = recv_with_fds(&_b, &mut [0; 1]).unwrap();
        assert_eq!(fds.len(), MAX_FDS);
    }

    #[test]
    fn a_sealed_memfd_refuses_writes() {
        let fd = sealed_memfd("test", &mut &b"#!/bin/true\n"[..]).unwrap();
        assert!(rustix::io::write(&fd, b"x").is_err());
        assert!(rustix::fs::ftruncate(&fd, 0).is_err());
        let again = crate::path::reopen(&fd, OFlags::RDONLY).unwrap();
        let mut text = String::new();
        std::fs::File::from(again)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "#!/bin/true\n");
    }

    #[test]
    fn nonblocking_switches() {
        let (read, _write) = pipe().unwrap();
        set_nonblocking(&read, true).unwrap();
        let error = rustix::io::read(&read, &mut [0; 1]).unwrap_err();
        assert_eq!(error, rustix::io::Errno::AGAIN);
        set_nonblocking(&read, false).unwrap();
        assert!(
            !rustix::fs::fcntl_getfl(&read)
                .unwrap()
                .contains(OFlags::NONBLOCK)
        );
    }
}
