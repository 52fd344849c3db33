//! What this host offers, read once at the agent's start: the planner's only knowledge of the machine.

use std::io;
use std::path::Path;

use berth_sys::cgroup::{Cgroup, CgroupMode};
use serde::{Deserialize, Serialize};

/// Where the cgroup hierarchy is on every systemd host.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// `RLIMIT_NOFILE` (getrlimit(2))
pub(crate) const NOFILE: u32 = 7;

/// Facts about the host and the agent's own rights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Capabilities that the kernel knows, as a mask.
    pub known_caps: u64,
    /// The agent's own bounding set, as a mask: nothing beyond it can be given.
    pub bounding: u64,
    /// Kernel version: major, minor.
    pub kernel: (u32, u32),
    /// `uname -r`
    pub kernel_release: String,
    /// The one hierarchy at [`CGROUP_ROOT`] is version 2: anything else is refused.
    pub cgroup_v2: bool,
    /// How the hierarchy is, for messages: `unified`, `hybrid`, `legacy` or `none`.
    pub cgroup_mode: String,
    /// Controllers of the hierarchy's root; empty also where it has none to offer.
    pub controllers: Vec<String>,
    pub seccomp: bool,
    /// AppArmor is enabled in the kernel.
    pub apparmor: bool,
    /// SELinux is enabled in the kernel.
    pub selinux: bool,
    /// Processors that this process may use.
    pub cpus: u32,
    /// The agent's own hard limit of open files: what a container gets at most.
    pub nofile_hard: u64,
    /// Numbers of the processors that have a `thermal_throttle` directory (masked, A.4).
    pub thermal_cpus: Vec<u32>,
}

impl HostFacts {
    /// Reads them. Only what the planner cannot do without is an error.
    pub fn read() -> io::Result<Self> {
        let kernel_release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned();
        let mode = berth_sys::cgroup::mode(CGROUP_ROOT)?;
        let controllers = match mode {
            CgroupMode::Unified => Cgroup::open(CGROUP_ROOT)?.controllers()?,
            CgroupMode::Hybrid | CgroupMode::Legacy | CgroupMode::None => Vec::new(),
        };
        Ok(Self {
            known_caps: berth_sys::cred::known_caps().0,
            bounding: berth_sys::cred::bounding().0,
            kernel: parse_release(&kernel_release),
            kernel_release,
            cgroup_v2: mode == CgroupMode::Unified,
            cgroup_mode: match mode {
                CgroupMode::Unified => "unified",
                CgroupMode::Hybrid => "hybrid",
                CgroupMode::Legacy => "legacy",
                CgroupMode::None => "none",
            }
            .to_owned(),
            controllers,
            // CONFIG_SECCOMP_FILTER is what makes this file (seccomp(2)).
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            apparmor: std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|text| text.starts_with('Y')),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            cpus: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
            nofile_hard: berth_sys::rlimit::get(NOFILE)?.1,
            thermal_cpus: thermal_cpus(Path::new("/sys/devices/system/cpu")),
        })
    }

    /// Whether limits of this controller have any effect.
    pub fn has_controller(&self, name: &str) -> bool {
        self.controllers.iter().any(|controller| controller == name)
    }
}

/// `6.18.5-foo` → (6, 18); what is no number counts as 0.
fn parse_release(release: &str) -> (u32, u32) {
    let mut parts = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn thermal_cpus(dir: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut numbers: Vec<u32> = entries
        .flatten()
        .filter(|entry| entry.path().join("thermal_throttle").exists())
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("cpu")?
                .parse()
                .ok()
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
impl HostFacts {
    /// A host that can do everything.
    pub(crate) fn sample() -> Self {
        let caps = berth_sys::cred::CapSet::NAMED.0;
        Self {
            known_caps: caps,
            bounding: caps,
            kernel: (6, 1),
            kernel_release: "6.1.0".to_owned(),
            cgroup_v2: true,
            cgroup_mode: "unified".to_owned(),
            controllers: ["cpuset", "cpu", "io", "memory", "pids"]
                .map(str::to_owned)
                .to_vec(),
            seccomp: true,
            apparmor: false,
            selinux: false,
            cpus: 4,
            nofile_hard: 1 << 20,
            thermal_cpus: vec![0, 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(parse_release("6.18.5-44.fc43.x86_64"), (6, 18));
        assert_eq!(parse_release("5.14"), (5, 14));
        assert_eq!(parse_release("odd"), (0, 0));
    }

    #[test]
    fn this_host_can_be_read() {
        let facts = HostFacts::read().expect("readable");
        assert!(facts.kernel > (5, 0));
        assert!(facts.known_caps != 0);
        assert!(facts.cpus > 0);
    }
}
