//! Processes of the lab seen from the host: pid translation, and waiting for an end by descriptor.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// The host's number for pid `inner` of the pid namespace that process `member` is in.
pub fn on_host(member: u32, inner: u32) -> Option<u32> {
    let namespace = fs::read_link(format!("/proc/{member}/ns/pid")).ok()?;
    all().into_iter().find(|pid| {
        fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|own| own == namespace)
            && status_field(*pid, "NSpid:").is_some_and(|numbers| {
                numbers.split_whitespace().last() == Some(&inner.to_string())
            })
    })
}

/// The host's pids of all processes below the same init, with those of nested pid namespaces.
pub fn tree(init: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([init]);
    let parents: Vec<(u32, u32)> = all()
        .into_iter()
        .filter_map(|pid| Some((pid, status_field(pid, "PPid:")?.trim().parse().ok()?)))
        .collect();
    loop {
        let before = found.len();
        for (pid, parent) in &parents {
            if found.contains(parent) {
                found.insert(*pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// The value of a line of `/proc/PID/status`.
pub fn status_field(pid: u32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(field))
        .map(|value| value.trim().to_owned())
}

/// The name that the kernel has for a process.
pub fn name(pid: u32) -> Option<String> {
    Some(
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .ok()?
            .trim_end()
            .to_owned(),
    )
}

/// Ends a process of the lab at once.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Waits until a process is gone; false when it still runs after `deadline`.
pub fn wait_end(pid: u32, deadline: Duration) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return true;
    };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return true;
    };
    let timeout = Timespec::try_from(deadline).unwrap();
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready == 1)
}

/// Proportional set size in KiB: memory with what is shared divided among its users.
pub fn pss_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// What the open descriptors of a process point at, without the numbers that differ between two looks.
pub fn descriptors(pid: u32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else {
        return Vec::new();
    };
    let mut targets: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            Some(
                fs::read_link(entry.path())
                    .ok()?
                    .to_string_lossy()
                    .into_owned(),
            )
        })
        .map(|target| match target.split_once(":[") {
            Some((kind, _)) => kind.to_owned(),
            None => target,
        })
        .collect();
    targets.sort();
    targets
}
