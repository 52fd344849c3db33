//! Signals taken as data: all blocked, read from a descriptor with their sender.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// `si_code` of a signal that kill(2) sent.
pub const SI_USER: i32 = 0;
/// `si_code` of a signal that sigqueue(3) or pidfd_send_signal(2) with its own information sent.
pub const SI_QUEUE: i32 = -1;

/// One signal that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub signal: i32,
    /// Who sent it: only meaningful when `code` is [`SI_USER`] or [`SI_QUEUE`]; 0 for the kernel.
    pub pid: u32,
    pub uid: u32,
    /// `si_code`: positive ones come from the kernel.
    pub code: i32,
}

/// Blocks every signal that can be blocked, for the calling thread and the threads and processes it
/// starts from here on.
pub fn block_all() -> io::Result<()> {
    Ok(SigSet::all().thread_block()?)
}

/// Unblocks every signal, as a program expects that is about to be executed.
pub fn unblock_all() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Gives every signal its default action, the ignored ones too: an execve would hand those on.
///
/// Rust's runtime itself ignores SIGPIPE, so a program started without this would not die of it. All
/// 64 are reset, by the system call itself: libc hides those that it keeps for threads.
#[allow(unsafe_code)]
pub fn default_all() -> io::Result<()> {
    /// Bytes of the kernel's signal set.
    const SET_SIZE: usize = 8;
    // The default action, no flags and an empty mask are zeros in every architecture's layout; none
    // is longer than this.
    let action = [0_u64; 8];
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: the action is longer than the kernel's structure and outlives the call; the
        // default action needs none of our memory. Nothing is read back.
        let result = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                action.as_ptr(),
                std::ptr::null::<u64>(),
                SET_SIZE,
            )
        };
        crate::raw::check(result)?;
    }
    Ok(())
}

/// Signals as a descriptor that is readable when one has arrived.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// All signals; they must be blocked ([`block_all`]), or they take their usual action instead.
    pub fn new() -> io::Result<Signals> {
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Signals(SignalFd::with_flags(&SigSet::all(), flags)?))
    }

    /// The next one; `None` when none is waiting.
    pub fn next(&self) -> io::Result<Option<Received>> {
        Ok(self.0.read_signal()?.map(|info| Received {
            signal: info.ssi_signo.cast_signed(),
            pid: info.ssi_pid,
            uid: info.ssi_uid,
            code: info.ssi_code,
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends a signal by process number (see `pidfd` for the way that cannot miss). `0` checks only;
/// a negative `pid` means a process group, −1 everything that may be signalled.
#[allow(unsafe_code)]
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: only integers are passed.
    crate::raw::check(libc::c_long::from(unsafe { libc::kill(pid, signal) })).map(drop)
}

/// The highest signal number.
pub fn max() -> i32 {
    libc::SIGRTMAX()
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn signals_come_with_their_sender() {
        crate::ns::in_thread(|| {
            block_all().unwrap();
            let signals = Signals::new().unwrap();
            assert_eq!(signals.next().unwrap(), None);
            // Directed at this thread: another thread of the harness may not have it blocked.
            nix::sys::signal::raise(Signal::SIGURG).unwrap();
            let got = signals.next().unwrap().unwrap();
            assert_eq!((got.signal, got.pid), (libc::SIGURG, std::process::id()));
        })
        .unwrap();
    }

    #[test]
    fn kill_checks() {
        let me = i32::try_from(std::process::id()).unwrap();
        kill(me, 0).unwrap();
        assert!(kill(me, 1000).is_err());
        assert!(kill(i32::MAX, 0).is_err());
    }
}
