//! Processes as text: a private procfs that nobody can put anything over.
//!
//! `/proc` of the host may be mounted over, and a container's certainly is the container's. So
//! what is read about processes, and above all what is written, goes through a procfs of our own
//! that is mounted nowhere; where the kernel refuses to make one, the host's is taken after a
//! check that it is a procfs at its root. Each opened file is checked again.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use crate::mount::{MountAttr, new_fs};
use crate::path::OFlags;

/// Inode number of the root of every procfs.
const PROC_ROOT_INO: u64 = 1;

/// Longest file read through here; `/proc/PID/…` files that we read are far smaller.
const MAX_READ: u64 = 1 << 20;

/// A procfs by descriptor.
#[derive(Debug)]
pub struct ProcHandle(OwnedFd);

impl ProcHandle {
    /// A detached procfs for the pid namespace of the caller. With `subset_pid` only the process
    /// directories exist in it (no `sys`, no `sysrq-trigger`).
    pub fn private(subset_pid: bool) -> io::Result<ProcHandle> {
        let options: &[(&str, &str)] = if subset_pid {
            &[("subset", "pid")]
        } else {
            &[]
        };
        let attrs = MountAttr::NOSUID | MountAttr::NODEV | MountAttr::NOEXEC;
        ProcHandle::verified(new_fs("proc", options, &[], attrs)?)
    }

    /// The private one where the kernel lets us make it, else the `/proc` that is mounted.
    pub fn open() -> io::Result<ProcHandle> {
        match ProcHandle::private(true) {
            Ok(handle) => Ok(handle),
            Err(_) => ProcHandle::verified(crate::path::open_root("/proc")?),
        }
    }

    /// One handle per process, made at first use. Not after a clone into a new pid namespace,
    /// where the numbers mean other processes: make a [`ProcHandle::private`] there.
    pub fn shared() -> io::Result<&'static ProcHandle> {
        static SHARED: OnceLock<ProcHandle> = OnceLock::new();
        if let Some(handle) = SHARED.get() {
            return Ok(handle);
        }
        let handle = ProcHandle::open()?;
        Ok(SHARED.get_or_init(|| handle))
    }

    /// Takes a directory for a procfs only if it is the root of one.
    pub fn verified(fd: OwnedFd) -> io::Result<ProcHandle> {
        check_magic(&fd)?;
        if rustix::fs::fstat(&fd)?.st_ino != PROC_ROOT_INO {
            return Err(not_procfs());
        }
        Ok(ProcHandle(fd))
    }

    /// Opens a file by its path below the root of the procfs: no symbolic link, no other mount on
    /// the way, and what was opened must itself be on procfs.
    pub fn open_file(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let fd = crate::path::open_beneath_one_mount(&self.0, path, flags, 0)?;
        check_magic(&fd)?;
        Ok(fd)
    }

    /// Reads a file whole (up to 1 MiB).
    pub fn read(&self, path: &str) -> io::Result<String> {
        let file = std::fs::File::from(self.open_file(path, OFlags::RDONLY)?);
        let mut bytes = Vec::new();
        file.take(MAX_READ).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes a value in one write(2), as procfs wants it.
    pub fn write(&self, path: &str, value: &str) -> io::Result<()> {
        let mut file = std::fs::File::from(self.open_file(path, OFlags::WRONLY)?);
        let written = file.write(value.as_bytes())?;
        if written == value.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// Reads a file of the calling process.
    pub fn read_self(&self, path: &str) -> io::Result<String> {
        self.read(&format!("{}/{path}", std::process::id()))
    }

    /// Writes a file of the calling process.
    pub fn write_self(&self, path: &str, value: &str) -> io::Result<()> {
        self.write(&format!("{}/{path}", std::process::id()), value)
    }

    /// When a process started, in clock ticks since boot: with its pid this names it for the time
    /// that the host is up.
    pub fn start_time(&self, pid: u32) -> io::Result<u64> {
        parse_start_time(&self.read(&format!("{pid}/stat"))?)
            .ok_or_else(|| invalid(format!("/proc/{pid}/stat is not as expected")))
    }

    /// The cgroup v2 path of a process, from the hierarchy's root (`/` first).
    pub fn cgroup_of(&self, pid: u32) -> io::Result<String> {
        parse_cgroup(&self.read(&format!("{pid}/cgroup"))?)
            .ok_or_else(|| invalid(format!("process {pid} is in no cgroup v2")))
    }

    /// The children of a process, as the kernel lists them for its main thread. Empty where the
    /// kernel has no such list.
    pub fn children(&self, pid: u32) -> io::Result<Vec<u32>> {
        match self.read(&format!("{pid}/task/{pid}/children")) {
            Ok(text) => Ok(text
                .split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Tells a kernel without the list from a process that is gone.
                self.open_file(&pid.to_string(), OFlags::PATH)?;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for ProcHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// When a process started (see [`ProcHandle::start_time`]), by the shared handle.
pub fn start_time(pid: u32) -> io::Result<u64> {
    ProcHandle::shared()?.start_time(pid)
}

/// The cgroup v2 path of a process, by the shared handle.
pub fn cgroup_of(pid: u32) -> io::Result<String> {
    ProcHandle::shared()?.cgroup_of(pid)
}

/// Says what this boot is called: records of an earlier one mean nothing now.
pub fn boot_id() -> io::Result<String> {
    // Not through the private handle: its subset has no `sys`.
    let proc = ProcHandle::verified(crate::path::open_root("/proc")?)?;
    Ok(proc.read("sys/kernel/random/boot_id")?.trim().to_owned())
}

fn check_magic(fd: &OwnedFd) -> io::Result<()> {
    // The constant's type differs between architectures; its value is small.
    if crate::path::fs_magic(fd)? == libc::PROC_SUPER_MAGIC as u32 {
        Ok(())
    } else {
        Err(not_procfs())
    }
}

fn not_procfs() -> io::Error {
    invalid("not a procfs".to_owned())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Field 22 of `/proc/PID/stat`. The second field is a name in parentheses that may itself hold
/// spaces and parentheses, so fields are counted from the last one.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The path of the `0::` line of `/proc/PID/cgroup`.
fn parse_cgroup(text: &str) -> Option<String> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_an_ugly_name() {
        let stat = "7 (a) b (c) R 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 9876 1 1 1";
        assert_eq!(parse_start_time(stat), Some(9876));
        assert_eq!(parse_start_time("7 (x) R 1"), None);
        assert_eq!(parse_start_time(""), None);
    }

    #[test]
    fn the_v2_line_is_found_among_others() {
        assert_eq!(
            parse_cgroup("12:cpu:/x\n0::/a/b\n").as_deref(),
            Some("/a/b")
        );
        assert_eq!(parse_cgroup("0::/a (deleted)\n").as_deref(), Some("/a"));
        assert_eq!(parse_cgroup("1:name=systemd:/x\n"), None);
    }

    #[test]
    fn own_process_is_read() {
        let me = std::process::id();
        let proc = ProcHandle::shared().unwrap();
        assert!(proc.start_time(me).unwrap() > 0);
        assert!(proc.read_self("status").unwrap().starts_with("Name:"));
        assert!(proc.start_time(u32::MAX).is_err());
        assert_eq!(boot_id().unwrap().len(), 36);
    }

    #[test]
    fn links_and_false_procfs_are_refused() {
        let proc = ProcHandle::shared().unwrap();
        assert!(proc.open_file("self/status", OFlags::RDONLY).is_err());
        assert!(proc.open_file("../etc/passwd", OFlags::RDONLY).is_err());
        let dir = tempfile::tempdir().unwrap();
        assert!(ProcHandle::verified(crate::path::open_root(dir.path()).unwrap()).is_err());
        let below = crate::path::open_root(format!("/proc/{}", std::process::id())).unwrap();
        assert!(ProcHandle::verified(below).is_err());
    }
}
