//! Processes by descriptor: a pidfd names one process for ever, a number is used again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};

/// `struct pidfd_info` of the PIDFD_GET_INFO ioctl, first version (64 bytes; kernel 6.13).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

const PIDFD_INFO_PID: u64 = 1 << 0;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::c_ulong =
    (3 << 30) | ((size_of::<PidfdInfo>() as libc::c_ulong) << 16) | (0xFF << 8) | 11;

/// Opens a process by number. ESRCH when there is none.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal by number (real-time signals included; 0 only checks). ESRCH when the process
/// has been reaped.
pub fn send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call; a null siginfo asks for kill(2)'s.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    crate::raw::check(result).map(drop)
}

/// Waits for a child to end, reaps it, and gives its raw wait status
/// (`std::os::unix::process::ExitStatusExt::from_raw` reads it).
pub fn wait(pidfd: impl AsFd) -> io::Result<i32> {
    loop {
        match wait_with(pidfd.as_fd(), WaitIdOptions::EXITED)? {
            Some(status) => return Ok(status),
            None => continue,
        }
    }
}

/// As [`wait`], but gives `None` at once while the child lives.
pub fn try_wait(pidfd: impl AsFd) -> io::Result<Option<i32>> {
    wait_with(pidfd.as_fd(), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
}

fn wait_with(pidfd: BorrowedFd<'_>, options: WaitIdOptions) -> io::Result<Option<i32>> {
    let status =
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd), options))?;
    Ok(status.as_ref().and_then(raw_status))
}

/// Reaps any child that has ended: its pid and raw wait status, `None` when none has.
pub fn reap_any() -> io::Result<Option<(u32, i32)>> {
    let reaped =
        rustix::io::retry_on_intr(|| rustix::process::wait(rustix::process::WaitOptions::NOHANG));
    match reaped {
        Ok(found) => {
            Ok(found.map(|(pid, status)| (pid.as_raw_nonzero().get() as u32, status.as_raw())))
        }
        Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// waitid(2) splits the wait status up; this puts it together again as wait(2) gives it.
fn raw_status(status: &WaitIdStatus) -> Option<i32> {
    if let Some(code) = status.exit_status() {
        return Some((code & 0xff) << 8);
    }
    let signal = status.terminating_signal()?;
    Some(if status.dumped() {
        signal | 0x80
    } else {
        signal
    })
}

/// Whether the process still lives: a zombie does not, and neither does a reaped one.
pub fn is_alive(pidfd: impl AsFd) -> io::Result<bool> {
    // A pidfd becomes readable when its process ends.
    Ok(!crate::poll::readable_now(pidfd)?)
}

/// The raw wait status of a process that has ended, even when somebody else has reaped it.
///
/// `None`: it has not ended, or the kernel (before 6.15) does not keep it.
pub fn exit_info(pidfd: impl AsFd) -> io::Result<Option<i32>> {
    match info(pidfd.as_fd(), PIDFD_INFO_EXIT) {
        Ok(info) if info.mask & PIDFD_INFO_EXIT != 0 => Ok(Some(info.exit_code)),
        Ok(_) => Ok(None),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOTTY | libc::EINVAL | libc::ESRCH) => Ok(None),
            _ => Err(error),
        },
    }
}

/// The number of the process behind a pidfd; ESRCH when it has been reaped.
pub fn pid_of(pidfd: impl AsFd) -> io::Result<u32> {
    match info(pidfd.as_fd(), PIDFD_INFO_PID) {
        Ok(info) => return Ok(info.tgid),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {}
        Err(error) => return Err(error),
    }
    // Kernels before 6.13 say it in text only.
    let text = crate::proc::ProcHandle::shared()?
        .read_self(&format!("fdinfo/{}", crate::fd::number(&pidfd)))?;
    let field = text
        .lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .map(str::trim)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no pid in fdinfo of a pidfd"))?;
    match field.parse::<i64>() {
        Ok(pid) if pid > 0 => u32::try_from(pid).map_err(io::Error::other),
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

fn info(pidfd: BorrowedFd<'_>, mask: u64) -> io::Result<PidfdInfo> {
    let mut info = PidfdInfo {
        mask,
        ..PidfdInfo::default()
    };
    // SAFETY: the request number carries the size of exactly this structure, which outlives the
    // call; all its bit patterns are valid.
    let result = unsafe {
        libc::ioctl(
            pidfd.as_raw_fd(),
            PIDFD_GET_INFO,
            std::ptr::from_mut(&mut info),
        )
    };
    crate::raw::check(libc::c_long::from(result))?;
    Ok(info)
}

#[cfg(test)]
#[allow(clippy::zombie_processes, reason = "children are reaped by pidfd")]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[allow(clippy::disallowed_methods)]
    fn child(script: &str) -> std::process::Child {
        std::process::Command::new("/bin/sh")
            .args(["-c", script])
            .spawn()
            .unwrap()
    }

    #[test]
    fn exit_codes_and_signals_come_back_raw() {
        for (script, code, signal) in [("exit 42", Some(42), None), ("kill -9 $$", None, Some(9))] {
            let child = child(script);
            let fd = open(child.id()).unwrap();
            let status = ExitStatus::from_raw(wait(&fd).unwrap());
            assert_eq!((status.code(), status.signal()), (code, signal), "{script}");
            assert!(wait(&fd).is_err(), "reaped twice");
        }
    }

    #[test]
    fn signals_and_liveness() {
        let child = child("exec sleep 600");
        let fd = open(child.id()).unwrap();
        assert!(is_alive(&fd).unwrap());
        assert_eq!(pid_of(&fd).unwrap(), child.id());
        assert_eq!(try_wait(&fd).unwrap(), None);
        assert_eq!(exit_info(&fd).unwrap(), None);
        send_signal(&fd, libc::SIGRTMIN() + 3).unwrap();
        let status = ExitStatus::from_raw(wait(&fd).unwrap());
        assert_eq!(status.signal(), Some(libc::SIGRTMIN() + 3));
        assert!(!is_alive(&fd).unwrap());
        assert!(send_signal(&fd, 0).is_err());
    }

    #[test]
    fn the_kernel_keeps_the_exit_status() {
        let mut child = child("exit 7");
        let fd = open(child.id()).unwrap();
        child.wait().unwrap();
        // Before 6.15 the kernel does not keep it: then there is nothing to compare.
        if let Some(raw) = exit_info(&fd).unwrap() {
            assert_eq!(raw, 7 << 8);
        }
    }

    #[test]
    fn no_such_process() {
        assert_eq!(open(0).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert_eq!(
            open(u32::MAX).unwrap_err().raw_os_error(),
            Some(libc::ESRCH)
        );
    }
}
