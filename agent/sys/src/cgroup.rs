//! Control groups of version 2, by the descriptor of their directory.
//!
//! What a limit should be is decided elsewhere; here files are read and written.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode};

use crate::path::{OFlags, open_beneath_one_mount};

/// Longest file read through here. `cgroup.procs` of a big group is the longest: 4 MiB are some
/// 600,000 processes.
const MAX_READ: u64 = 4 << 20;

/// How the control groups of a host are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupMode {
    /// Version 2 at the given place, alone.
    Unified,
    /// Version 2 in `unified/` below version 1 hierarchies.
    Hybrid,
    /// Version 1 only.
    Legacy,
    /// Nothing is mounted there.
    None,
}

/// Says which it is for a mount point (`/sys/fs/cgroup`).
pub fn mode(path: impl AsRef<Path>) -> io::Result<CgroupMode> {
    let path = path.as_ref();
    let magic = |path: &Path| crate::path::fs_magic(crate::path::open_root(path)?);
    match magic(path) {
        Ok(found) if found == libc::CGROUP2_SUPER_MAGIC as u32 => return Ok(CgroupMode::Unified),
        Ok(found) if found == libc::TMPFS_MAGIC as u32 => {}
        Ok(_) => return Ok(CgroupMode::None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(CgroupMode::None),
        Err(error) => return Err(error),
    }
    match magic(&path.join("unified")) {
        Ok(found) if found == libc::CGROUP2_SUPER_MAGIC as u32 => Ok(CgroupMode::Hybrid),
        _ if std::fs::read_dir(path)?.next().is_none() => Ok(CgroupMode::None),
        _ => Ok(CgroupMode::Legacy),
    }
}

/// What `cgroup.events` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// A live process is in the group or below it.
    pub populated: bool,
    pub frozen: bool,
}

/// Counters of `memory.events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryEvents {
    pub low: u64,
    pub high: u64,
    pub max: u64,
    pub oom: u64,
    /// Processes killed by the OOM killer, in the group and below it.
    pub oom_kill: u64,
    pub oom_group_kill: u64,
}

/// One control group.
#[derive(Debug)]
pub struct Cgroup(OwnedFd);

impl Cgroup {
    /// Opens a group by the path of its directory.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Cgroup> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Cgroup::from_fd(crate::path::open_host(path, flags)?)
    }

    /// Takes a directory for a group only if it lies on cgroup2.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Cgroup> {
        if crate::path::fs_magic(&fd)? != libc::CGROUP2_SUPER_MAGIC as u32 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a cgroup v2 directory",
            ));
        }
        Ok(Cgroup(fd))
    }

    /// Opens the group `path` below this one.
    pub fn open_child(&self, path: impl AsRef<Path>) -> io::Result<Cgroup> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        Ok(Cgroup(open_beneath_one_mount(&self.0, path, flags, 0)?))
    }

    /// Makes the group `name` below this one, or opens it when it exists.
    pub fn create_child(&self, name: &str) -> io::Result<Cgroup> {
        match rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => self.open_child(name),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the group `name` with the groups below it; no error when there is none. EBUSY while
    /// a process is in it.
    pub fn remove_child(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
            // A group with groups below it is busy or not empty, depending on the kernel.
            Err(rustix::io::Errno::BUSY | rustix::io::Errno::NOTEMPTY) => {}
            Err(error) => return Err(error.into()),
        }
        let child = match self.open_child(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for below in child.children()? {
            child.remove_child(&below)?;
        }
        match rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The names of the groups directly below.
    pub fn children(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == rustix::fs::FileType::Directory && name != b"." && name != b".."
            {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
        }
        Ok(names)
    }

    /// The controllers that this group has.
    pub fn controllers(&self) -> io::Result<Vec<String>> {
        Ok(self
            .read("cgroup.controllers")?
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect())
    }

    /// Hands controllers on to the groups below.
    pub fn enable_controllers(&self, names: &[&str]) -> io::Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let list: Vec<_> = names.iter().map(|name| format!("+{name}")).collect();
        self.write("cgroup.subtree_control", &list.join(" "))
    }

    /// Moves a process here. Slow by nature (the kernel waits for a grace period): clone into a
    /// group instead where that can be.
    pub fn add_pid(&self, pid: u32) -> io::Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// SIGKILL to every process in the group and below it, frozen ones too (kernel 5.14).
    pub fn kill(&self) -> io::Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Stops all processes in the group and below it, or lets them go on. Comes back before the
    /// last has stopped: see [`Cgroup::wait_frozen`].
    pub fn freeze(&self, on: bool) -> io::Result<()> {
        self.write("cgroup.freeze", if on { "1" } else { "0" })
    }

    /// Waits until the whole group is frozen (or none of it is); `false` = the time has passed.
    pub fn wait_frozen(&self, frozen: bool, timeout: Duration) -> io::Result<bool> {
        self.wait_for(timeout, |events| events.frozen == frozen)
    }

    /// Waits until no process is left; `false` = the time has passed.
    pub fn wait_empty(&self, timeout: Duration) -> io::Result<bool> {
        self.wait_for(timeout, |events| !events.populated)
    }

    fn wait_for(&self, timeout: Duration, done: impl Fn(Events) -> bool) -> io::Result<bool> {
        let end = std::time::Instant::now() + timeout;
        let mut file = self.events_file()?;
        loop {
            // Reading arms the notification, so it comes first.
            if done(file.read()?) {
                return Ok(true);
            }
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            crate::poll::wait_priority(&file, Some(left))?;
        }
    }

    /// The state of the group now.
    pub fn events(&self) -> io::Result<Events> {
        Ok(parse_events(&self.read("cgroup.events")?))
    }

    /// The file that announces a change of [`Events`] as an exceptional condition (POLLPRI).
    pub fn events_file(&self) -> io::Result<EventsFile> {
        Ok(EventsFile(open_beneath_one_mount(
            &self.0,
            "cgroup.events",
            OFlags::RDONLY,
            0,
        )?))
    }

    /// The processes directly in this group.
    pub fn procs(&self) -> io::Result<Vec<u32>> {
        let text = self.read("cgroup.procs")?;
        Ok(text
            .lines()
            .filter_map(|pid| pid.trim().parse().ok())
            .collect())
    }

    /// `None` where the group has no memory controller.
    pub fn memory_events(&self) -> io::Result<Option<MemoryEvents>> {
        match self.read("memory.events") {
            Ok(text) => Ok(Some(parse_memory_events(&text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the group has a file of this name (whether a controller is there).
    pub fn has(&self, file: &str) -> io::Result<bool> {
        crate::path::exists_in(&self.0, file)
    }

    /// Reads a file whole.
    pub fn read(&self, file: &str) -> io::Result<String> {
        read_all(open_beneath_one_mount(&self.0, file, OFlags::RDONLY, 0)?)
    }

    /// Writes a file in one write(2).
    pub fn write(&self, file: &str, value: &str) -> io::Result<()> {
        let fd = open_beneath_one_mount(&self.0, file, OFlags::WRONLY, 0)?;
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&fd, value.as_bytes()))?;
        if written == value.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Cgroup> for OwnedFd {
    fn from(cgroup: Cgroup) -> OwnedFd {
        cgroup.0
    }
}

/// An open `cgroup.events`.
#[derive(Debug)]
pub struct EventsFile(OwnedFd);

impl EventsFile {
    /// Reads it from its start, which also arms the next notification. ENODEV after the group has
    /// been removed.
    pub fn read(&mut self) -> io::Result<Events> {
        let mut buffer = [0; 256];
        let count = rustix::io::retry_on_intr(|| rustix::io::pread(&self.0, &mut buffer, 0))?;
        Ok(parse_events(&String::from_utf8_lossy(&buffer[..count])))
    }
}

impl AsFd for EventsFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn read_all(fd: OwnedFd) -> io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::from(fd)
        .take(MAX_READ)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The lines `key value` of a flat keyed file.
fn flat_keyed(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

fn parse_events(text: &str) -> Events {
    let mut events = Events::default();
    for (key, value) in flat_keyed(text) {
        match key {
            "populated" => events.populated = value == 1,
            "frozen" => events.frozen = value == 1,
            _ => {}
        }
    }
    events
}

fn parse_memory_events(text: &str) -> MemoryEvents {
    let mut events = MemoryEvents::default();
    for (key, value) in flat_keyed(text) {
        match key {
            "low" => events.low = value,
            "high" => events.high = value,
            "max" => events.max = value,
            "oom" => events.oom = value,
            "oom_kill" => events.oom_kill = value,
            "oom_group_kill" => events.oom_group_kill = value,
            _ => {}
        }
    }
    events
}

#[cfg(test)]
pub(crate) mod tests;
