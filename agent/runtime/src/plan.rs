//! The start plan: everything that the monitor and the container's first process do, decided
//! beforehand and written down as plain data. The agent makes it ([`crate::planner`]), the monitor
//! carries it out and decides nothing. Its encoding is fixed and versioned; [`decode`] accepts only
//! what [`encode`] writes and checks every length, because the two sides may differ in version.
//!
//! # Order of execution (the monitor's side)
//!
//! 1. The monitor sets its own `oom_score_adj`, enters [`FdRole::MountNs`] if there is one, and clones init with the
//!    new namespaces of [`Namespaces`] (mount always) into [`FdRole::PayloadCgroup`].
//! 2. Init joins the namespaces that are [`Ns::Join`], makes everything private, attaches [`FdRole::Root`].
//! 3. Init executes [`Plan::tree`] in order, resolving every path below the root by descriptor.
//! 4. It pivots into the root, writes [`Plan::sysctls`], sets host and domain name.
//! 5. It applies [`Plan::readonly_paths`], then [`Plan::masked_paths`], then [`Plan::root_readonly`].
//! 6. `Ready` is reported; after `Go`: limits, keyring, working directory, ids, capabilities,
//!    no_new_privs, seccomp (A.2 of the security specification says in which order), exec.

use crate::wire::{Blob, Reader, Wire, WireError, wire_enum, wire_struct};

/// Version of the encoding; raised with every change of it.
pub const PLAN_VERSION: u32 = 1;

/// Longest accepted encoding in bytes. The kernel's own limit for arguments and environment of a
/// program is 6 MiB at the most; what is over this could hardly be executed.
pub const MAX_PLAN: usize = 6 * 1024 * 1024;

/// Most descriptors that one plan may refer to: far above what a request may ask for in mounts,
/// and below the usual soft limit of a process.
pub const MAX_FDS: usize = 512;

const MAGIC: [u8; 4] = *b"BPLN";

/// What a descriptor that comes with a plan is for. [`Plan::fds`] lists them in the order in which
/// they are sent: that list is the whole meaning of a descriptor's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FdRole {
    /// The container's root: a detached mount, attached once.
    Root,
    /// Directory of the payload cgroup; init is cloned into it.
    PayloadCgroup,
    /// The file (read-write, empty) that receives the exit record.
    ExitRecord,
    /// The monitor's listening unix stream socket.
    Listener,
    /// O_PATH directory in which `monitor.sock` lies, which the monitor connects to when a container
    /// ends and nobody watches.
    RunRoot,
    /// A mount namespace with nothing in it but a clean proc and sysfs; the monitor enters it first.
    MountNs,
    /// The log file, opened for append.
    Log,
    /// Directory of the log file, for rotation.
    LogDir,
    /// Namespaces to join.
    NetNs,
    PidNs,
    IpcNs,
    UtsNs,
    CgroupNs,
    /// Detached mounts of the single files `hosts`, `hostname`, `resolv.conf`.
    Hosts,
    Hostname,
    ResolvConf,
    /// Detached mount for /dev/shm: another container's or the host's.
    Shm,
    /// Detached mount that is the source of the n-th bind of the request.
    Bind(u16),
    /// A connected socket for the journal (`/run/systemd/journal/socket`).
    Journal,
}

impl Wire for FdRole {
    fn put(&self, out: &mut Vec<u8>) {
        let (kind, index): (u8, u16) = match self {
            Self::Root => (1, 0),
            Self::PayloadCgroup => (2, 0),
            Self::ExitRecord => (3, 0),
            Self::Listener => (4, 0),
            Self::RunRoot => (5, 0),
            Self::MountNs => (6, 0),
            Self::Log => (7, 0),
            Self::LogDir => (8, 0),
            Self::NetNs => (9, 0),
            Self::PidNs => (10, 0),
            Self::IpcNs => (11, 0),
            Self::UtsNs => (12, 0),
            Self::CgroupNs => (13, 0),
            Self::Hosts => (14, 0),
            Self::Hostname => (15, 0),
            Self::ResolvConf => (16, 0),
            Self::Shm => (17, 0),
            Self::Bind(index) => (18, *index),
            Self::Journal => (19, 0),
        };
        kind.put(out);
        index.put(out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let kind = u8::get(input)?;
        let index = u16::get(input)?;
        let role = match kind {
            1 => Self::Root,
            2 => Self::PayloadCgroup,
            3 => Self::ExitRecord,
            4 => Self::Listener,
            5 => Self::RunRoot,
            6 => Self::MountNs,
            7 => Self::Log,
            8 => Self::LogDir,
            9 => Self::NetNs,
            10 => Self::PidNs,
            11 => Self::IpcNs,
            12 => Self::UtsNs,
            13 => Self::CgroupNs,
            14 => Self::Hosts,
            15 => Self::Hostname,
            16 => Self::ResolvConf,
            17 => Self::Shm,
            18 => Self::Bind(index),
            19 => Self::Journal,
            value => return Err(WireError::Unknown { what: "descriptor role", value: value.into() }),
        };
        if index != 0 && !matches!(role, Self::Bind(_)) {
            return Err(WireError::Inconsistent("a single descriptor has an index"));
        }
        Ok(role)
    }
}

/// Descriptors (or whatever stands for them) by role: the received side of [`Plan::fds`].
#[derive(Debug)]
pub struct FdTable<T> {
    entries: Vec<(FdRole, Option<T>)>,
}

impl<T> FdTable<T> {
    /// Pairs the roles of a plan with what was received for them; both must be equally many.
    pub fn new(roles: &[FdRole], items: Vec<T>) -> Result<Self, WireError> {
        if roles.len() != items.len() {
            return Err(WireError::Inconsistent("the number of descriptors is not the plan's"));
        }
        let entries = roles.iter().copied().zip(items.into_iter().map(Some)).collect();
        Ok(Self { entries })
    }
    /// Whether this role is present and not yet taken.
    pub fn has(&self, role: FdRole) -> bool {
        self.get(role).is_some()
    }
    /// Looks at the descriptor of a role.
    pub fn get(&self, role: FdRole) -> Option<&T> {
        self.entries.iter().find(|(r, _)| *r == role).and_then(|(_, item)| item.as_ref())
    }
    /// Takes the descriptor of a role out: each can be had once.
    pub fn take(&mut self, role: FdRole) -> Option<T> {
        self.entries.iter_mut().find(|(r, _)| *r == role).and_then(|(_, item)| item.take())
    }
}

/// One of the container's namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ns {
    /// Stay in the host's.
    Host,
    /// A new one, made by clone.
    #[default]
    New,
    /// The one whose descriptor comes under the role of this kind (`NetNs`, `PidNs`, …).
    Join,
}
wire_enum!(Ns as u8 { Host = 0, New = 1, Join = 2 });

/// The container's namespaces; the mount namespace is always new, the user namespace always the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces {
    pub net: Ns,
    pub pid: Ns,
    pub ipc: Ns,
    pub uts: Ns,
    pub cgroup: Ns,
}
wire_struct!(Namespaces { net, pid, ipc, uts, cgroup });

/// Attributes of a mount, in the kernel's numbers (`MOUNT_ATTR_*`, mount_setattr(2)).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct MountAttrs(pub u64);

impl MountAttrs {
    pub const NONE: Self = Self(0);
    pub const RDONLY: Self = Self(0x1);
    pub const NOSUID: Self = Self(0x2);
    pub const NODEV: Self = Self(0x4);
    pub const NOEXEC: Self = Self(0x8);
    pub const NOATIME: Self = Self(0x10);
    pub const STRICTATIME: Self = Self(0x20);
    pub const NODIRATIME: Self = Self(0x80);
    pub const NOSYMFOLLOW: Self = Self(0x20_0000);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::RDONLY, "ro"),
        (Self::NOSUID, "nosuid"),
        (Self::NODEV, "nodev"),
        (Self::NOEXEC, "noexec"),
        (Self::NOATIME, "noatime"),
        (Self::STRICTATIME, "strictatime"),
        (Self::NODIRATIME, "nodiratime"),
        (Self::NOSYMFOLLOW, "nosymfollow"),
    ];

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// This set without the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::fmt::Debug for MountAttrs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> =
            Self::NAMES.iter().filter(|(bit, _)| self.contains(*bit)).map(|(_, name)| *name).collect();
        f.write_str(&names.join(","))
    }
}

impl Wire for MountAttrs {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let bits = u64::get(input)?;
        let known = Self::NAMES.iter().fold(0, |known, (bit, _)| known | bit.0);
        if bits & !known != 0 {
            return Err(WireError::Unknown { what: "mount attribute", value: bits });
        }
        Ok(Self(bits))
    }
}

/// How mount events travel between this mount and its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    #[default]
    Private,
    Slave,
    Shared,
    Unbindable,
}
wire_enum!(Propagation as u8 { Private = 0, Slave = 1, Shared = 2, Unbindable = 3 });

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A detached mount that the agent made.
    Fd(FdRole),
    /// A new file system: type, options with values, options without.
    New { fstype: String, options: Vec<(String, String)>, flags: Vec<String> },
}

impl Wire for MountSource {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Fd(role) => {
                0u8.put(out);
                role.put(out);
            }
            Self::New { fstype, options, flags } => {
                1u8.put(out);
                fstype.put(out);
                options.put(out);
                flags.put(out);
            }
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::get(input)? {
            0 => Ok(Self::Fd(FdRole::get(input)?)),
            1 => Ok(Self::New {
                fstype: Wire::get(input)?,
                options: Wire::get(input)?,
                flags: Wire::get(input)?,
            }),
            value => Err(WireError::Unknown { what: "mount source", value: value.into() }),
        }
    }
}

/// What is made at a mount's target when nothing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Create {
    /// Nothing: a missing target fails the start.
    #[default]
    Nothing,
    Directory,
    File,
    /// Directory or empty file, whichever the source (a descriptor) is.
    LikeSource,
}
wire_enum!(Create as u8 { Nothing = 0, Directory = 1, File = 2, LikeSource = 3 });

/// Whose mount point this is; decides how its path is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetKind {
    /// A mount point of our own: every component must be real (`RESOLVE_NO_SYMLINKS`), otherwise the start fails.
    #[default]
    Own,
    /// Named by the request: links are followed inside the root. After resolution, the root itself,
    /// anything on procfs, and the root of sysfs are refused.
    Request,
    /// Named by the request, one of the few files in /proc that may be covered: resolved as `Own`.
    RequestProc,
    /// One of our files over the image's (hosts, hostname, resolv.conf): resolved like `Request`.
    OwnFile,
}
wire_enum!(TargetKind as u8 { Own = 0, Request = 1, RequestProc = 2, OwnFile = 3 });

/// One mount of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute, cleaned path in the container.
    pub target: String,
    pub kind: TargetKind,
    pub source: MountSource,
    /// Attributes to set.
    pub attrs: MountAttrs,
    /// Attributes to clear first (a bind's source may carry some).
    pub clear: MountAttrs,
    /// Attributes apply to the whole tree below.
    pub recursive: bool,
    pub propagation: Propagation,
    pub propagation_recursive: bool,
    pub create: Create,
    /// A new tmpfs takes the permission bits of the directory that it covers, as with docker; only
    /// where the options name no mode.
    pub mode_of_target: bool,
}
wire_struct!(Mount {
    target, kind, source, attrs, clear, recursive, propagation, propagation_recursive, create, mode_of_target
});

/// Kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    Char,
    Block,
    Fifo,
}
wire_enum!(NodeKind as u8 { Char = 0, Block = 1, Fifo = 2 });

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Absolute path; missing directories are made with mode 0755.
    pub path: String,
    pub kind: NodeKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits, exact (no umask).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}
wire_struct!(Node { path, kind, major, minor, mode, uid, gid });

/// One step in making the container's tree, executed in order before pivot_root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Mount(Mount),
    /// Below our own /dev: resolved without links.
    Node(Node),
    /// A symbolic link at `path`, below our own /dev; resolved without links.
    Symlink { path: String, target: String },
    /// Opens the terminal in the container's devpts (major 136 checked, TIOCGPTPEER) and binds its
    /// slave on /dev/console. Only in plans with a terminal, once.
    Console,
    /// Makes a directory (and missing parents) inside the root; fine if it is there.
    MakeDir { path: String, mode: u32 },
}

impl Wire for Step {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Mount(mount) => {
                0u8.put(out);
                mount.put(out);
            }
            Self::Node(node) => {
                1u8.put(out);
                node.put(out);
            }
            Self::Symlink { path, target } => {
                2u8.put(out);
                path.put(out);
                target.put(out);
            }
            Self::Console => 3u8.put(out),
            Self::MakeDir { path, mode } => {
                4u8.put(out);
                path.put(out);
                mode.put(out);
            }
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::get(input)? {
            0 => Ok(Self::Mount(Wire::get(input)?)),
            1 => Ok(Self::Node(Wire::get(input)?)),
            2 => Ok(Self::Symlink { path: Wire::get(input)?, target: Wire::get(input)? }),
            3 => Ok(Self::Console),
            4 => Ok(Self::MakeDir { path: Wire::get(input)?, mode: Wire::get(input)? }),
            value => Err(WireError::Unknown { what: "step", value: value.into() }),
        }
    }
}

/// One kernel setting of the container's namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Path below /proc/sys with slashes: `net/ipv4/ip_forward`. Has no empty part and no `..`.
    pub path: String,
    pub value: String,
    /// A default of ours: skipped when this kernel does not have it.
    pub optional: bool,
}
wire_struct!(Sysctl { path, value, optional });

/// A resource limit, in the kernel's numbers (`RLIMIT_*`); `u64::MAX` = unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}
wire_struct!(Rlimit { resource, soft, hard });

/// The five capability sets as the kernel's bit masks.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    /// Always empty (B.15), written down so that the monitor sets and verifies it.
    pub inheritable: u64,
    pub ambient: u64,
}
wire_struct!(Capabilities { bounding, effective, permitted, inheritable, ambient });

impl std::fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Capabilities {{ bnd: {:#x}, eff: {:#x}, prm: {:#x}, inh: {:#x}, amb: {:#x} }}",
            self.bounding, self.effective, self.permitted, self.inheritable, self.ambient
        )
    }
}

/// A compiled system call filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seccomp {
    /// An array of `struct sock_filter`, 8 bytes each.
    pub program: Blob,
    /// `SECCOMP_FILTER_FLAG_*`
    pub flags: u32,
}
wire_struct!(Seccomp { program, flags });

/// The container's program and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    /// At least one; the first is looked up in the environment's PATH unless it contains a slash.
    pub argv: Vec<String>,
    /// `KEY=value`, complete and final.
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups; always set, also when empty.
    pub groups: Vec<u32>,
    pub umask: u32,
    pub caps: Capabilities,
    pub no_new_privs: bool,
    pub seccomp: Option<Seccomp>,
    pub rlimits: Vec<Rlimit>,
    /// −1000…1000
    pub oom_score_adj: i32,
    /// Name of the new session keyring; empty = keep.
    pub keyring: String,
    /// PID 1 stays a small reaper of ours that forwards signals, the program is its child (`--init`).
    pub reaper: bool,
}
wire_struct!(Process {
    argv, env, cwd, uid, gid, groups, umask, caps, no_new_privs, seccomp, rlimits, oom_score_adj, keyring, reaper
});

/// Standard input, output and error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stdio {
    /// Standard input is open (a pipe or the terminal); otherwise it is /dev/null.
    pub stdin: bool,
    /// The first attached client that leaves closes the standard input.
    pub stdin_once: bool,
    /// A terminal instead of three pipes: rows and columns (0, 0 = unset).
    pub terminal: Option<(u16, u16)>,
}
wire_struct!(Stdio { stdin, stdin_once, terminal });

/// Where the output is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Log {
    /// Nowhere (`--log-driver none`).
    #[default]
    None,
    /// Docker's json-file in [`FdRole::Log`], rotated within [`FdRole::LogDir`].
    JsonFile {
        /// File name in the directory; rotated ones get `.1`, `.2`, … appended.
        name: String,
        /// Bytes; 0 = no limit.
        max_size: u64,
        /// Files kept in all; at least 1.
        max_files: u32,
        /// Attributes written into every entry, in order.
        attrs: Vec<(String, String)>,
    },
    /// Journal entries over [`FdRole::Journal`] with these fields.
    Journal { fields: Vec<(String, String)> },
}

impl Wire for Log {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => 0u8.put(out),
            Self::JsonFile { name, max_size, max_files, attrs } => {
                1u8.put(out);
                name.put(out);
                max_size.put(out);
                max_files.put(out);
                attrs.put(out);
            }
            Self::Journal { fields } => {
                2u8.put(out);
                fields.put(out);
            }
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::get(input)? {
            0 => Ok(Self::None),
            1 => Ok(Self::JsonFile {
                name: Wire::get(input)?,
                max_size: Wire::get(input)?,
                max_files: Wire::get(input)?,
                attrs: Wire::get(input)?,
            }),
            2 => Ok(Self::Journal { fields: Wire::get(input)? }),
            value => Err(WireError::Unknown { what: "log", value: value.into() }),
        }
    }
}

/// How a stop that does not say it otherwise is done (PID 1's SIGURG).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopRule {
    /// Signal number.
    pub signal: i32,
    /// Milliseconds until the kill; negative = never.
    pub timeout_ms: i64,
}
wire_struct!(StopRule { signal, timeout_ms });

impl Default for StopRule {
    /// SIGTERM and ten seconds, as docker.
    fn default() -> Self {
        Self { signal: 15, timeout_ms: 10_000 }
    }
}

/// Everything between "all parts are there" and the container's first instruction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Shown as the monitor's process name, cut by the kernel to 15 bytes.
    pub title: String,
    /// Roles of the descriptors that come along, in that order.
    pub fds: Vec<FdRole>,
    pub namespaces: Namespaces,
    /// Empty = leave as it is.
    pub hostname: String,
    pub domainname: String,
    pub tree: Vec<Step>,
    pub sysctls: Vec<Sysctl>,
    /// Bound on themselves read-only; a missing one is skipped.
    pub readonly_paths: Vec<String>,
    /// Covered by the null device or an empty directory; a missing one is skipped.
    pub masked_paths: Vec<String>,
    pub root_readonly: bool,
    pub process: Process,
    pub stdio: Stdio,
    pub log: Log,
    pub stop: StopRule,
    /// The monitor's own −1000…1000.
    pub monitor_oom_score_adj: i32,
}
wire_struct!(Plan {
    id, title, fds, namespaces, hostname, domainname, tree, sysctls, readonly_paths, masked_paths, root_readonly,
    process, stdio, log, stop, monitor_oom_score_adj
});

impl Plan {
    /// Checks that what refers to a descriptor has one, and what must be there is. Both sides call it.
    pub fn check(&self) -> Result<(), WireError> {
        let wrong = |what| Err(WireError::Inconsistent(what));
        if self.fds.len() > MAX_FDS {
            return Err(WireError::TooLong);
        }
        let mut seen = std::collections::BTreeSet::new();
        if !self.fds.iter().all(|role| seen.insert(*role)) {
            return wrong("a descriptor is listed twice");
        }
        let has = |role: FdRole| seen.contains(&role);
        for role in [FdRole::Root, FdRole::PayloadCgroup, FdRole::ExitRecord, FdRole::Listener] {
            if !has(role) {
                return wrong("a descriptor that every start needs is not listed");
            }
        }
        let ns = &self.namespaces;
        for (kind, role) in [
            (ns.net, FdRole::NetNs),
            (ns.pid, FdRole::PidNs),
            (ns.ipc, FdRole::IpcNs),
            (ns.uts, FdRole::UtsNs),
            (ns.cgroup, FdRole::CgroupNs),
        ] {
            if (kind == Ns::Join) != has(role) {
                return wrong("a namespace to join has no descriptor, or the reverse");
            }
        }
        let mut used = std::collections::BTreeSet::new();
        let mut consoles = 0;
        for step in &self.tree {
            match step {
                Step::Mount(Mount { source: MountSource::Fd(role), .. }) => {
                    if !has(*role) {
                        return wrong("a mount has no descriptor");
                    }
                    // A detached mount can be attached once.
                    if !used.insert(*role) {
                        return wrong("a descriptor is mounted twice");
                    }
                }
                Step::Console => consoles += 1,
                Step::Mount(_) | Step::Node(_) | Step::Symlink { .. } | Step::MakeDir { .. } => {}
            }
        }
        if consoles != usize::from(self.stdio.terminal.is_some()) {
            return wrong("console and terminal do not agree");
        }
        match &self.log {
            Log::JsonFile { max_files, .. } if *max_files == 0 || !has(FdRole::Log) || !has(FdRole::LogDir) => {
                return wrong("the log has no file");
            }
            Log::Journal { .. } if !has(FdRole::Journal) => return wrong("the log has no journal"),
            Log::None | Log::JsonFile { .. } | Log::Journal { .. } => {}
        }
        if self.process.argv.is_empty() {
            return wrong("there is no program");
        }
        if self.process.seccomp.as_ref().is_some_and(|s| s.program.0.is_empty() || s.program.0.len() % 8 != 0) {
            return wrong("the seccomp program is not whole");
        }
        Ok(())
    }
}

/// Encodes a plan.
pub fn encode(plan: &Plan) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 * 1024);
    MAGIC.put(&mut out);
    PLAN_VERSION.put(&mut out);
    plan.put(&mut out);
    out
}

/// Decodes a plan and checks it ([`Plan::check`]).
pub fn decode(bytes: &[u8]) -> Result<Plan, WireError> {
    if bytes.len() > MAX_PLAN {
        return Err(WireError::TooLong);
    }
    let mut input = Reader::new(bytes);
    if <[u8; 4]>::get(&mut input)? != MAGIC {
        return Err(WireError::Inconsistent("it is no plan"));
    }
    let found = u32::get(&mut input)?;
    if found != PLAN_VERSION {
        return Err(WireError::Version { found, ours: PLAN_VERSION });
    }
    let plan = Plan::get(&mut input)?;
    input.finish()?;
    plan.check()?;
    Ok(plan)
}

#[cfg(test)]
pub(crate) mod tests;
