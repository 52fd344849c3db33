//! The cgroup driver for hosts whose init is not systemd: the file system itself, with cgroups-rs
//! writing the limits. A container's groups are `/sys/fs/cgroup/berth/<id>` and `payload` below it;
//! the limits stand in both: in the outer one, which no container can write, and in the payload,
//! which is what the container sees as its own. The monitor stays where it was born, because moving
//! a process between groups waits for a grace period of the kernel.

use std::error::Error as _;
use std::io;
use std::path::Path;

use berth_sys::cgroup::Cgroup;
use cgroups_rs::MaxValue;
use cgroups_rs::cgroup::Cgroup as Controllers;
use cgroups_rs::cpu::CpuController;
use cgroups_rs::cpuset::CpuSetController;
use cgroups_rs::hierarchies::V2;
use cgroups_rs::memory::MemController;
use cgroups_rs::pid::PidController;

use crate::cgroup::{PAYLOAD, ROOT, directory, hand_on};

/// The parent of all containers' groups.
const PARENT: &str = "berth";

/// What is limited; `None` and empty mean "not asked". Controllers that the hierarchy does not have are
/// passed over: create has warned of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory_max: Option<i64>,
    pub memory_low: Option<i64>,
    /// Bytes of swap alone; −1 = unlimited.
    pub memory_swap_max: Option<i64>,
    /// 1…10000
    pub cpu_weight: Option<u64>,
    /// Microseconds of processor time per period.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    pub pids_max: Option<i64>,
    /// `0-3,5`
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
}

/// The container's group, named from the hierarchy's root.
pub fn group(id: &str) -> String {
    format!("/{PARENT}/{id}")
}

/// Makes a container's groups with their limits and gives the payload's. Nothing stays when it fails.
pub fn create(id: &str, limits: &Limits) -> io::Result<Cgroup> {
    let root = Cgroup::open(ROOT)?;
    hand_on(&root)?;
    let parent = root.create_child(PARENT)?;
    hand_on(&parent)?;
    let made = (|| {
        let container = parent.create_child(id)?;
        hand_on(&container)?;
        let payload = container.create_child(PAYLOAD)?;
        if *limits != Limits::default() {
            let group = format!("{PARENT}/{id}");
            apply(&group, limits)?;
            apply(&format!("{group}/{PAYLOAD}"), limits)?;
        }
        Ok(payload)
    })();
    if made.is_err()
        && let Err(error) = parent.remove_child(id)
    {
        // The error that counts is the first one.
        tracing::warn!(container = id, %error, "a cgroup stays behind after a failed start");
    }
    made
}

/// Kills what is left in a container's groups and removes them; no error when they are not there.
pub fn remove(id: &str) -> io::Result<()> {
    let parent = match Cgroup::open(directory(PARENT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let container = match parent.open_child(id) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if container.events()?.populated {
        container.kill()?;
        container.wait_empty(DEATH_LIMIT)?;
    }
    parent.remove_child(id)
}

/// How long killed processes may take to die; only one that hangs in the kernel takes longer than moments.
const DEATH_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// The ids of the containers that have groups here.
pub fn list() -> io::Result<Vec<String>> {
    match Cgroup::open(directory(PARENT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other?.children(),
    }
}

fn apply(group: &str, limits: &Limits) -> io::Result<()> {
    let directory = directory(group);
    // cgroups-rs asks the root what there is; what counts is what was handed on to this group.
    let here = Cgroup::open(&directory)?.controllers()?;
    write(&directory, group, &here, limits)
}

fn write(directory: &Path, group: &str, here: &[String], limits: &Limits) -> io::Result<()> {
    let has = |name: &str| here.iter().any(|controller| controller == name);
    let controllers = Controllers::load(Box::new(V2::new()), group);
    let set = || {
        if let Some(memory) = controllers
            .controller_of::<MemController>()
            .filter(|_| has("memory"))
        {
            // Absent where the kernel does not count swap, of which create has warned.
            let swap = limits
                .memory_swap_max
                .filter(|_| directory.join("memory.swap.max").exists());
            each(swap, |bytes| memory.set_memswap_limit(bytes))?;
            each(limits.memory_low, |bytes| memory.set_soft_limit(bytes))?;
            each(limits.memory_max, |bytes| memory.set_limit(bytes))?;
        }
        if let Some(cpu) = controllers
            .controller_of::<CpuController>()
            .filter(|_| has("cpu"))
        {
            // This crate writes `cpu.weight` under this name and does not convert.
            each(limits.cpu_weight, |weight| cpu.set_shares(weight))?;
            if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
                cpu.set_cfs_quota_and_period(limits.cpu_quota, limits.cpu_period)?;
            }
        }
        if let Some(pids) = controllers
            .controller_of::<PidController>()
            .filter(|_| has("pids"))
        {
            each(limits.pids_max, |max| {
                pids.set_pid_max(if max > 0 {
                    MaxValue::Value(max)
                } else {
                    MaxValue::Max
                })
            })?;
        }
        if let Some(cpuset) = controllers
            .controller_of::<CpuSetController>()
            .filter(|_| has("cpuset"))
        {
            let asked = |set: &'_ String| (!set.is_empty()).then(|| set.clone());
            each(asked(&limits.cpuset_cpus), |set| cpuset.set_cpus(&set))?;
            each(asked(&limits.cpuset_mems), |set| cpuset.set_mems(&set))?;
        }
        Ok(())
    };
    set().map_err(|error| refused(directory, &error))
}

/// The error of cgroups-rs names the file and the value; its cause, the reason, is left out of its text.
fn refused(directory: &Path, error: &cgroups_rs::error::Error) -> io::Error {
    let reason = error
        .source()
        .map(|source| format!(": {source}"))
        .unwrap_or_default();
    io::Error::other(format!("{}: {error}{reason}", directory.display()))
}

fn each<T>(
    value: Option<T>,
    set: impl FnOnce(T) -> cgroups_rs::error::Result<()>,
) -> cgroups_rs::error::Result<()> {
    value.map_or(Ok(()), set)
}

#[cfg(test)]
mod tests;
