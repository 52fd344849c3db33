//! The container's program: what is executed, as whom, with which rights and limits.

use crate::wire::{Blob, wire_struct};

/// A resource limit, in the kernel's numbers (`RLIMIT_*`); `u64::MAX` = unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}
wire_struct!(Rlimit {
    resource,
    soft,
    hard
});

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
wire_struct!(Capabilities {
    bounding,
    effective,
    permitted,
    inheritable,
    ambient
});

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
    argv,
    env,
    cwd,
    uid,
    gid,
    groups,
    umask,
    caps,
    no_new_privs,
    seccomp,
    rlimits,
    oom_score_adj,
    keyring,
    reaper
});
