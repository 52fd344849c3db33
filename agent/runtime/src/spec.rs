//! What a container is to be: the request merged over the image, in words of this crate. The engine
//! fills it in; [`validate`] refuses what no start could honour. Nothing here touches the host:
//! what it can do is told by [`HostFacts`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::hostfacts::HostFacts;
use crate::security::SecurityOpts;
use crate::{caps, devices, limits, mounts, planner, user};

/// Why a spec is refused. The sentence is for the user, in docker's words where it has some.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// Wrong, and will be wrong again.
    #[error("{0}")]
    Invalid(String),
    /// Right in itself, but not served by this version.
    #[error("{0}")]
    Unsupported(String),
}

impl SpecError {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::Unsupported(message.into())
    }
}

/// One container, complete.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSpec {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Shown in the monitor's process name.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The image's and the request's variables merged, `KEY=value`. The planner puts Docker's
    /// PATH, HOSTNAME and TERM in front and HOME behind where they are not set; an entry without `=` is dropped.
    pub env: Vec<String>,
    /// Absolute or empty (= `/`).
    pub cwd: String,
    /// `user[:group]`, names or numbers; empty = 0.
    pub user: String,
    /// Names or numbers.
    pub group_add: Vec<String>,
    /// Empty = the namespace's own.
    pub hostname: String,
    pub domainname: String,
    pub tty: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub rootfs_readonly: bool,
    /// Binds (the n-th one's source comes as `FdRole::Bind(n)`, counted over all entries) and tmpfs mounts.
    pub mounts: Vec<MountSpec>,
    /// `--tmpfs`: target → options.
    pub tmpfs: BTreeMap<String, String>,
    /// Bytes; None = 64 MiB.
    pub shm_size: Option<u64>,
    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    /// As typed: `seccomp=…`, `no-new-privileges`, `apparmor=…`, `label=…`, `systempaths=unconfined`.
    pub security_opt: Vec<String>,
    /// None = the default list.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    pub ulimits: Vec<Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    pub init: bool,
    pub namespaces: NamespaceModes,
    pub devices: Vec<DeviceSpec>,
    /// `c 1:3 rwm`
    pub device_cgroup_rules: Vec<String>,
    /// −1000…1000
    pub oom_score_adj: i64,
    /// Signal number; 0 = SIGTERM.
    pub stop_signal: i32,
    /// Seconds; negative = for ever; None = 10.
    pub stop_timeout: Option<i64>,
    pub log: LogSpec,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MountKind {
    /// A path of the host; its detached mount comes with the start.
    #[default]
    Bind,
    Tmpfs,
}

/// How deep a read-only bind is read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ReadOnly {
    #[default]
    No,
    /// The mount and all below it (Docker's default since API 1.44 on kernels that can).
    Recursive,
    /// The mount alone.
    TopOnly,
}

/// One mount of the request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountSpec {
    pub kind: MountKind,
    /// Bind: the host's path, for messages only.
    pub source: String,
    /// Absolute.
    pub target: String,
    pub read_only: ReadOnly,
    /// `rprivate` and its kin; empty = rprivate.
    pub propagation: String,
    /// Bytes; tmpfs only.
    pub tmpfs_size: Option<u64>,
    /// Permission bits; tmpfs only; None = 1777.
    pub tmpfs_mode: Option<u32>,
    /// Further tmpfs options (`uid=1000`, `exec`), as in `--tmpfs`.
    pub tmpfs_options: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile` and its kin.
    pub name: String,
    /// −1 = unlimited.
    pub soft: i64,
    pub hard: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    pub path_on_host: String,
    /// Empty = as on the host.
    pub path_in_container: String,
    /// Letters of `rwm`; empty = all.
    pub permissions: String,
}

/// Whose network the container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NetMode {
    /// The host's.
    Host,
    /// The one whose descriptor comes as `FdRole::NetNs`: made for it, or another container's.
    Joined,
    /// A new one with nothing but an idle loopback (tests).
    #[default]
    New,
}

/// Whose System V IPC, message queues and /dev/shm.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum IpcMode {
    #[default]
    Private,
    /// Private, and others may join it.
    Shareable,
    /// Private and without /dev/shm.
    None,
    Host,
    /// The named container's: `FdRole::IpcNs` and `FdRole::Shm` come with the start.
    Container(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PidMode {
    #[default]
    Private,
    Host,
    /// `FdRole::PidNs` comes with the start.
    Container(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum UtsMode {
    #[default]
    Private,
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CgroupnsMode {
    #[default]
    Private,
    Host,
}

/// The namespaces of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespaceModes {
    pub net: NetMode,
    pub ipc: IpcMode,
    pub pid: PidMode,
    pub uts: UtsMode,
    pub cgroup: CgroupnsMode,
}

/// Where the output goes. The engine opens the file; its descriptors are `FdRole::Log` and `LogDir`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum LogSpec {
    #[default]
    None,
    JsonFile {
        /// File name within the log directory.
        file: String,
        /// Bytes; 0 = no limit.
        max_size: u64,
        /// At least 1.
        max_files: u32,
        /// Attributes for each entry.
        attrs: Vec<(String, String)>,
    },
    Journal {
        fields: Vec<(String, String)>,
    },
}

/// Longest program arguments and environment together, in bytes: what the kernel takes with the
/// usual stack limit is 2 MiB, and a plan must fit into a message.
const MAX_ARGUMENTS: usize = 4 << 20;

/// Longest single argument or variable that execve(2) takes (`MAX_ARG_STRLEN`).
const MAX_ARGUMENT: usize = 131_071;

/// Longest host or domain name that the kernel keeps.
const MAX_HOSTNAME: usize = 64;

/// Most mounts of one request: each costs a descriptor at the start.
const MAX_MOUNTS: usize = 256;

/// Refuses what no start could honour, with the sentence for the user; the answer are warnings for
/// what will have no effect. What only the container's files or the host's devices can tell comes at the start.
pub fn validate(spec: &RunSpec, facts: &HostFacts) -> Result<Vec<String>, SpecError> {
    let mut warnings = Vec::new();
    check_strings(spec)?;
    let security = SecurityOpts::parse(&spec.security_opt)?;
    warnings.extend(security.check(spec, facts)?);
    warnings.extend(caps::bounding(spec, facts)?.warning);
    limits::rlimits(&spec.ulimits, facts)?;
    limits::sysctls(&spec.sysctls, &spec.namespaces)?;
    planner::oom_score_adj(spec)?;
    user::check(&spec.user, &spec.group_add)?;
    if spec.mounts.len() > MAX_MOUNTS {
        return Err(SpecError::invalid(format!("more than {MAX_MOUNTS} mounts")));
    }
    mounts::asked(spec)?;
    devices::check(&spec.devices)?;
    devices::rules(spec, &[])?;
    if !spec.cwd.is_empty() && !spec.cwd.starts_with('/') {
        return Err(SpecError::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            spec.cwd
        )));
    }
    for name in [&spec.hostname, &spec.domainname] {
        if name.len() > MAX_HOSTNAME {
            return Err(SpecError::invalid(format!(
                "invalid hostname: {name:?} is longer than {MAX_HOSTNAME} bytes"
            )));
        }
    }
    for path in spec
        .masked_paths
        .iter()
        .chain(&spec.readonly_paths)
        .flatten()
    {
        if !path.starts_with('/') {
            return Err(SpecError::invalid(format!(
                "invalid masked or read-only path {path:?}: it must be absolute"
            )));
        }
    }
    if !(0..=64).contains(&spec.stop_signal) {
        return Err(SpecError::invalid(format!(
            "invalid stop signal {}",
            spec.stop_signal
        )));
    }
    if !facts.cgroup_v2 {
        return Err(SpecError::unsupported(format!(
            "control groups are {} at {}: berth needs version 2 alone there (boot with systemd.unified_cgroup_hierarchy=1)",
            facts.cgroup_mode,
            crate::hostfacts::CGROUP_ROOT
        )));
    }
    Ok(warnings)
}

/// No string may hide an end of its own, and together they must fit into execve(2).
fn check_strings(spec: &RunSpec) -> Result<(), SpecError> {
    if spec.argv.is_empty() || spec.argv[0].is_empty() {
        return Err(SpecError::invalid("no command specified"));
    }
    let all = spec.argv.iter().chain(&spec.env);
    if all.clone().any(|text| text.len() > MAX_ARGUMENT)
        || all.map(|text| text.len() + 1).sum::<usize>() > MAX_ARGUMENTS
    {
        return Err(SpecError::invalid("argument list too long"));
    }
    if let Some(entry) = spec
        .env
        .iter()
        .find(|entry| entry.starts_with('=') || entry.is_empty())
    {
        return Err(SpecError::invalid(format!(
            "invalid environment variable: {entry}"
        )));
    }
    let lists = [
        &spec.argv,
        &spec.env,
        &spec.group_add,
        &spec.security_opt,
        &spec.device_cgroup_rules,
    ];
    let single = [
        &spec.name,
        &spec.cwd,
        &spec.user,
        &spec.hostname,
        &spec.domainname,
    ];
    let mounts = spec
        .mounts
        .iter()
        .flat_map(|mount| [&mount.target, &mount.tmpfs_options]);
    let tmpfs = spec
        .tmpfs
        .iter()
        .flat_map(|(target, options)| [target, options]);
    let devices = spec
        .devices
        .iter()
        .flat_map(|device| [&device.path_on_host, &device.path_in_container]);
    let paths = spec
        .masked_paths
        .iter()
        .chain(&spec.readonly_paths)
        .flatten();
    let mut texts = lists
        .into_iter()
        .flatten()
        .chain(single)
        .chain(mounts)
        .chain(tmpfs)
        .chain(devices)
        .chain(paths);
    match texts.find(|text| text.contains('\0')) {
        None => Ok(()),
        Some(text) => Err(SpecError::invalid(format!(
            "invalid NUL character in {text:?}"
        ))),
    }
}

#[cfg(test)]
mod tests;
