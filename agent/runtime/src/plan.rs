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

mod process;
mod roles;
mod tree;

pub use process::{Capabilities, Process, Rlimit, Seccomp};
pub use roles::{FdRole, FdTable};
pub use tree::{
    Create, Mount, MountAttrs, MountSource, Node, NodeKind, Propagation, Step, TargetKind,
};

use crate::wire::{Reader, Wire, WireError, wire_enum, wire_struct};

/// Version of the encoding; raised with every change of it.
pub const PLAN_VERSION: u32 = 1;

/// Longest accepted encoding in bytes. The kernel's own limit for arguments and environment of a
/// program is 6 MiB at the most; what is over this could hardly be executed.
pub const MAX_PLAN: usize = 6 * 1024 * 1024;

/// Most descriptors that one plan may refer to: far above what a request may ask for in mounts,
/// and below the usual soft limit of a process.
pub const MAX_FDS: usize = 512;

const MAGIC: [u8; 4] = *b"BPLN";

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
wire_struct!(Namespaces {
    net,
    pid,
    ipc,
    uts,
    cgroup
});

/// One kernel setting of the container's namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Path below /proc/sys with slashes: `net/ipv4/ip_forward`. Has no empty part and no `..`.
    pub path: String,
    pub value: String,
    /// A default of ours: skipped when this kernel does not have it.
    pub optional: bool,
}
wire_struct!(Sysctl {
    path,
    value,
    optional
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
wire_struct!(Stdio {
    stdin,
    stdin_once,
    terminal
});

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
            Self::JsonFile {
                name,
                max_size,
                max_files,
                attrs,
            } => {
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
            2 => Ok(Self::Journal {
                fields: Wire::get(input)?,
            }),
            value => Err(WireError::Unknown {
                what: "log",
                value: value.into(),
            }),
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
        Self {
            signal: 15,
            timeout_ms: 10_000,
        }
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
    id,
    title,
    fds,
    namespaces,
    hostname,
    domainname,
    tree,
    sysctls,
    readonly_paths,
    masked_paths,
    root_readonly,
    process,
    stdio,
    log,
    stop,
    monitor_oom_score_adj
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
        for role in [
            FdRole::Root,
            FdRole::PayloadCgroup,
            FdRole::ExitRecord,
            FdRole::Listener,
        ] {
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
                Step::Mount(Mount {
                    source: MountSource::Fd(role),
                    ..
                }) => {
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
            Log::JsonFile { max_files, .. }
                if *max_files == 0 || !has(FdRole::Log) || !has(FdRole::LogDir) =>
            {
                return wrong("the log has no file");
            }
            Log::Journal { .. } if !has(FdRole::Journal) => return wrong("the log has no journal"),
            Log::None | Log::JsonFile { .. } | Log::Journal { .. } => {}
        }
        if self.process.argv.is_empty() {
            return wrong("there is no program");
        }
        if self
            .process
            .seccomp
            .as_ref()
            .is_some_and(|s| s.program.0.is_empty() || s.program.0.len() % 8 != 0)
        {
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
        return Err(WireError::Version {
            found,
            ours: PLAN_VERSION,
        });
    }
    let plan = Plan::get(&mut input)?;
    input.finish()?;
    plan.check()?;
    Ok(plan)
}

#[cfg(test)]
pub(crate) mod tests;
