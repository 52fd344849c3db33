//! The engine's own words: what a caller asks for and what it gets back. No wire names here;
//! `berth-api` turns Docker's JSON into these and back, per API version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use berth_model::digest::Digest;
use berth_model::filters::Filters;
pub use berth_model::image::config::Healthcheck;
use berth_model::time::Timestamp;
use berth_network::Endpoint;

/// Everything a client asks of a new container, as asked (the image's defaults are not merged in).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// The image as the client named it: reference, id or id prefix.
    pub image: String,
    pub hostname: String,
    pub domainname: String,
    /// `user[:group]`, names or numbers; empty = the image's.
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    /// `KEY=value`; an entry without `=` unsets the image's.
    pub env: Vec<String>,
    pub cmd: Option<Vec<String>>,
    /// `Some(vec![])` or `Some(vec![""])` clears the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    pub working_dir: String,
    pub labels: BTreeMap<String, String>,
    /// `port/proto`
    pub exposed_ports: Vec<String>,
    /// Mount points that ask for anonymous volumes.
    pub volumes: Vec<String>,
    pub stop_signal: Option<String>,
    /// Seconds; −1 = for ever.
    pub stop_timeout: Option<i64>,
    pub network_disabled: bool,
    pub mac_address: Option<String>,
    pub healthcheck: Option<Healthcheck>,
    pub shell: Option<Vec<String>>,
    pub host: HostSpec,
    /// Fields that were set to something that the engine does not model: refused by name at create.
    pub unsupported: Vec<String>,
}

/// The part of a request that says how the host serves the container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostSpec {
    pub binds: Vec<Bind>,
    /// Mounts in the newer form (`--mount`), as asked.
    pub mounts: Vec<Mount>,
    /// Target → options (`size=64m,mode=1777`).
    pub tmpfs: BTreeMap<String, String>,
    pub volumes_from: Vec<String>,
    /// `default`, `bridge`, `host`, `none`, `container:REF`, or a network's name; empty = default.
    pub network_mode: String,
    pub ipc_mode: String,
    pub pid_mode: String,
    pub uts_mode: String,
    pub cgroupns_mode: String,
    pub userns_mode: String,
    pub port_bindings: Vec<PortBinding>,
    pub publish_all_ports: bool,
    pub links: Vec<String>,
    pub extra_hosts: Vec<String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub group_add: Vec<String>,
    /// As asked: `seccomp=…`, `no-new-privileges[=true|false]`, `apparmor=…`, `systempaths=unconfined`, …
    pub security_opt: Vec<String>,
    pub read_only: bool,
    /// None = the default list.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    pub ulimits: Vec<Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    pub devices: Vec<Device>,
    pub device_cgroup_rules: Vec<String>,
    pub init: Option<bool>,
    /// Bytes; None = 64 MiB.
    pub shm_size: Option<u64>,
    pub cgroup_parent: String,
    pub runtime: String,
    pub restart: RestartPolicy,
    pub auto_remove: bool,
    pub log: LogConfig,
    pub oom_score_adj: Option<i64>,
    pub oom_kill_disable: bool,
    pub resources: Resources,
    pub annotations: BTreeMap<String, String>,
    pub container_id_file: String,
    pub console_size: Option<(u16, u16)>,
    pub isolation: String,
    pub volume_driver: String,
    pub storage_opt: BTreeMap<String, String>,
}

/// `source:target[:options]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bind {
    /// An absolute host path, or a volume's name.
    pub source: String,
    pub target: String,
    pub read_only: bool,
    /// `rprivate` and its kin; empty = rprivate.
    pub propagation: String,
    /// The mode as typed (`ro`, `rw,z`), echoed by inspect.
    pub mode: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// `bind`, `tmpfs`, `volume`, …
    pub kind: String,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub consistency: String,
    pub propagation: String,
    pub non_recursive: bool,
    pub create_mountpoint: bool,
    pub read_only_non_recursive: bool,
    pub read_only_force_recursive: bool,
    pub tmpfs_size: Option<u64>,
    pub tmpfs_mode: Option<u32>,
    /// Options of the mount that the engine does not model (volume options, subpaths): refused by name.
    pub unsupported: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PortBinding {
    pub container_port: String,
    pub host_ip: String,
    pub host_port: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    pub path_on_host: String,
    pub path_in_container: String,
    pub permissions: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// empty = `no`
    pub name: String,
    pub maximum_retry_count: i64,
}

impl RestartPolicy {
    /// Whether anything other than `no` was asked for.
    pub fn is_set(&self) -> bool {
        !matches!(self.name.as_str(), "" | "no")
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogConfig {
    /// empty = the agent's default (`json-file`)
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

/// Limits as Docker words them; 0 or None = not asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes.
    pub memory: i64,
    /// Bytes, memory and swap together; −1 = unlimited swap.
    pub memory_swap: i64,
    pub memory_reservation: i64,
    pub memory_swappiness: Option<i64>,
    pub kernel_memory: i64,
    pub cpu_shares: i64,
    pub nano_cpus: i64,
    /// Microseconds.
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub pids_limit: Option<i64>,
    pub blkio_weight: u16,
}

/// A container's state in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    /// The lower-case word that clients see.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Removing => "removing",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }
    /// Whether the container's first process exists.
    pub fn is_live(self) -> bool {
        matches!(self, Status::Running | Status::Paused)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub status: Status,
    /// Host pid of the container's first process; 0 = none.
    pub pid: u32,
    pub exit_code: i64,
    /// Why the last start failed.
    pub error: String,
    pub oom_killed: bool,
    /// Zero = never.
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// Somebody asked for the end (`stop`, `kill`, `systemctl stop`): no restart policy applies.
    pub stopped_by_user: bool,
}

/// The effective settings: the request merged over the image's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EffectiveConfig {
    pub hostname: String,
    pub user: String,
    pub env: Vec<String>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub working_dir: String,
    pub labels: BTreeMap<String, String>,
    pub exposed_ports: Vec<String>,
    pub volumes: Vec<String>,
    pub stop_signal: Option<String>,
    pub on_build: Vec<String>,
}

impl EffectiveConfig {
    /// The program and its arguments.
    pub fn argv(&self) -> Vec<String> {
        self.entrypoint
            .iter()
            .flatten()
            .chain(self.cmd.iter().flatten())
            .cloned()
            .collect()
    }
}

/// One mount of a container as inspect shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MountPoint {
    /// `bind` or `tmpfs`
    pub kind: String,
    pub source: String,
    pub destination: String,
    pub mode: String,
    pub rw: bool,
    pub propagation: String,
}

/// A consistent copy of one container.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    pub created: Timestamp,
    pub image: Digest,
    /// What the image is called: as the client named it while that name still fits, else the id.
    pub image_ref: String,
    pub spec: ContainerSpec,
    pub config: EffectiveConfig,
    pub state: State,
    /// Set while a bridge network is joined.
    pub endpoint: Option<Endpoint>,
    pub mounts: Vec<MountPoint>,
    pub restart_count: u64,
    pub driver: &'static str,
    pub log_path: String,
    pub hosts_path: String,
    pub hostname_path: String,
    pub resolv_conf_path: String,
    /// `berth-<id12>.scope`; empty when the cgroup driver is the file system.
    pub unit: String,
    /// The container's cgroup below the hierarchy's root while it runs; else empty.
    pub control_group: String,
    /// Bytes in the writable layer and in all; only when asked for.
    pub size_rw: Option<u64>,
    pub size_root_fs: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub all: bool,
    pub limit: Option<u64>,
    pub size: bool,
    pub filters: Filters,
    /// 1.12's anchors: only containers created after / before that one.
    pub since: Option<String>,
    pub before: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Created {
    pub id: String,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// Name or number; None = the container's stop signal.
    pub signal: Option<String>,
    /// Seconds; −1 = for ever; None = the container's stop timeout (10).
    pub timeout: Option<i64>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    pub force: bool,
    /// Anonymous volumes too.
    pub volumes: bool,
    /// 1.12's removal of a link instead of a container.
    pub link: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    #[default]
    NotRunning,
    NextExit,
    Removed,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct WaitResult {
    pub exit_code: i64,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Replay the log first.
    pub logs: bool,
    /// Then stay with the live streams.
    pub stream: bool,
    /// `ctrl-p,ctrl-q` decoded to bytes; None = the default (ctrl-p, ctrl-q).
    pub detach_keys: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    /// Last lines; None = all.
    pub tail: Option<u64>,
    /// Inclusive bounds; zero or None = open.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// One stored piece of output: a line with its newline, or part of a long line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// 1 = stdout, 2 = stderr.
    pub stream: u8,
    pub time: Timestamp,
    pub line: bytes::Bytes,
}

#[derive(Debug, Clone, Default)]
pub struct TopResult {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

/// Something that happened, as `/events` and the bus report it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub time: Timestamp,
    /// `container`, `image`, `network`, …
    pub kind: String,
    /// `create`, `start`, `die`, …
    pub action: String,
    /// Id of the object (image events: the name or id used).
    pub actor: String,
    pub attributes: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
pub struct EventOptions {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub filters: Filters,
}

/// A container's change for those who mirror the engine's state (the bus).
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Created {
        id: String,
    },
    Removed {
        id: String,
    },
    State {
        id: String,
        old: Status,
        new: Status,
        reason: String,
    },
    Exited {
        id: String,
        exit_code: i64,
        oom_killed: bool,
        finished_at: Timestamp,
    },
    /// Name or another property.
    Properties {
        id: String,
    },
}

#[derive(Debug, Clone)]
pub struct ImageSummary {
    pub id: Digest,
    pub created: Timestamp,
    /// Familiar form (`busybox:latest`).
    pub tags: Vec<String>,
    pub digests: Vec<String>,
    pub size: u64,
    pub labels: BTreeMap<String, String>,
    /// Number of containers; −1 = not counted.
    pub containers: i64,
}

#[derive(Debug, Clone)]
pub struct ImageDetail {
    pub summary: ImageSummary,
    pub config: std::sync::Arc<berth_model::image::config::ImageConfig>,
    pub last_tagged: Timestamp,
    pub driver: &'static str,
    /// Driver data for `GraphDriver.Data`.
    pub driver_data: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub struct ImageHistory {
    /// The image's own id for its newest entry; `<missing>` otherwise.
    pub id: String,
    pub created: Timestamp,
    pub created_by: String,
    pub tags: Vec<String>,
    pub size: u64,
    pub comment: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageDeleted {
    Untagged(String),
    Deleted(String),
}

#[derive(Debug, Clone, Default)]
pub struct ImageListOptions {
    pub all: bool,
    pub filters: Filters,
}

#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    pub repository: Option<String>,
    pub tag: Option<String>,
    pub message: String,
    /// Dockerfile instructions (`CMD …`, `ENV …`).
    pub changes: Vec<String>,
    pub platform: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    /// Familiar references that now point to it.
    pub refs: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct PruneReport {
    pub deleted: Vec<String>,
    pub images: Vec<ImageDeleted>,
    /// Bytes.
    pub reclaimed: u64,
}

/// What `info` tells of the host and the agent.
#[derive(Debug, Clone, Default)]
pub struct Info {
    pub id: String,
    pub containers: u64,
    pub running: u64,
    pub paused: u64,
    pub stopped: u64,
    pub images: u64,
    pub driver: String,
    pub driver_status: Vec<(String, String)>,
    pub data_root: String,
    /// `systemd` or `cgroupfs`
    pub cgroup_driver: String,
    pub kernel_version: String,
    pub operating_system: String,
    pub os_version: String,
    pub architecture: String,
    pub cpus: u64,
    pub memory: u64,
    pub hostname: String,
    pub memory_limit: bool,
    pub swap_limit: bool,
    pub cpu_cfs: bool,
    pub cpu_shares: bool,
    pub cpuset: bool,
    pub pids_limit: bool,
    pub oom_kill_disable: bool,
    pub ipv4_forwarding: bool,
    pub security_options: Vec<String>,
    pub logging_driver: String,
    pub event_listeners: u64,
    pub open_descriptors: u64,
    pub warnings: Vec<String>,
    pub system_time: Timestamp,
    /// Version of the init system, e.g. `systemd 252`; empty without.
    pub init: String,
}
