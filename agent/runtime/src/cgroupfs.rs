//! The cgroup driver for hosts whose init is not systemd: the file system itself, with cgroups-rs
//! writing the limits. A container's groups are `/sys/fs/cgroup/berth/<id>` (limits) and `payload`
//! below it; the monitor stays where it was born, because moving a process between groups waits for
//! a grace period of the kernel.

use std::io;

use berth_sys::cgroup::Cgroup;
use cgroups_rs::cgroup::Cgroup as Controllers;
use cgroups_rs::cpu::CpuController;
use cgroups_rs::cpuset::CpuSetController;
use cgroups_rs::hierarchies::V2;
use cgroups_rs::memory::MemController;
use cgroups_rs::pid::PidController;
use cgroups_rs::MaxValue;

use crate::cgroup::{PAYLOAD, ROOT, directory};

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
    let offered = root.controllers()?;
    let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
    root.enable_controllers(&offered)?;
    let parent = root.create_child(PARENT)?;
    parent.enable_controllers(&offered)?;
    let made = (|| {
        let container = parent.create_child(id)?;
        container.enable_controllers(&offered)?;
        if *limits != Limits::default() {
            apply(id, limits).map_err(io::Error::other)?;
        }
        container.create_child(PAYLOAD)
    })();
    if made.is_err() {
        parent.remove_child(id)?;
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

fn apply(id: &str, limits: &Limits) -> cgroups_rs::error::Result<()> {
    let group = Controllers::load(Box::new(V2::new()), format!("{PARENT}/{id}"));
    if let Some(memory) = group.controller_of::<MemController>() {
        each(limits.memory_max, |bytes| memory.set_limit(bytes))?;
        each(limits.memory_low, |bytes| memory.set_soft_limit(bytes))?;
        each(limits.memory_swap_max, |bytes| memory.set_memswap_limit(bytes))?;
    }
    if let Some(cpu) = group.controller_of::<CpuController>() {
        // This crate writes `cpu.weight` under this name and does not convert.
        each(limits.cpu_weight, |weight| cpu.set_shares(weight))?;
        if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
            cpu.set_cfs_quota_and_period(limits.cpu_quota, limits.cpu_period)?;
        }
    }
    if let Some(pids) = group.controller_of::<PidController>() {
        each(limits.pids_max, |max| {
            pids.set_pid_max(if max > 0 { MaxValue::Value(max) } else { MaxValue::Max })
        })?;
    }
    if let Some(cpuset) = group.controller_of::<CpuSetController>() {
        each(Some(&limits.cpuset_cpus).filter(|set| !set.is_empty()), |set| cpuset.set_cpus(set))?;
        each(Some(&limits.cpuset_mems).filter(|set| !set.is_empty()), |set| cpuset.set_mems(set))?;
    }
    Ok(())
}

fn each<T>(
    value: Option<T>,
    set: impl FnOnce(T) -> cgroups_rs::error::Result<()>,
) -> cgroups_rs::error::Result<()> {
    value.map_or(Ok(()), set)
}
