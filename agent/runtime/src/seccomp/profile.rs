//! Docker's seccomp profile format: reading it strictly, and choosing the rules that hold for one
//! container's capabilities, architecture and kernel.

use std::collections::BTreeSet;

use berth_sys::cred::CapSet;
use serde::Deserialize;

use super::SeccompError;

/// Longest profile text taken, in bytes; Docker's own has 13 KB.
const MAX_TEXT: usize = 1 << 20;

/// A profile as written. Unknown fields are refused: they might mean "less".
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    default_action: ActionName,
    default_errno_ret: Option<u16>,
    /// The name of the number above; only a comment beside it.
    default_errno: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<ArchName>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<FlagName>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Group>>,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: ArchName,
    sub_architectures: Option<Vec<ArchName>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Group {
    /// The form of old: one name.
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: ActionName,
    errno_ret: Option<u16>,
    errno: Option<String>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Option<Conditions>,
    #[serde(default)]
    excludes: Option<Conditions>,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Conditions {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// One condition on an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Arg {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// What it is compared with; the mask of `MaskedEq`.
    pub value: u64,
    /// What the masked argument must be.
    #[serde(default)]
    pub value_two: u64,
    pub op: Op,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum Op {
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum ActionName {
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum FlagName {
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillableRecv,
}

/// Architectures as the format names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub enum ArchName {
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X86_64,
    #[serde(rename = "SCMP_ARCH_X32")]
    X32,
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    #[serde(rename = "SCMP_ARCH_MIPS")]
    Mips,
    #[serde(rename = "SCMP_ARCH_MIPS64")]
    Mips64,
    #[serde(rename = "SCMP_ARCH_MIPS64N32")]
    Mips64N32,
    #[serde(rename = "SCMP_ARCH_MIPSEL")]
    Mipsel,
    #[serde(rename = "SCMP_ARCH_MIPSEL64")]
    Mipsel64,
    #[serde(rename = "SCMP_ARCH_MIPSEL64N32")]
    Mipsel64N32,
    #[serde(rename = "SCMP_ARCH_PPC")]
    Ppc,
    #[serde(rename = "SCMP_ARCH_PPC64")]
    Ppc64,
    #[serde(rename = "SCMP_ARCH_PPC64LE")]
    Ppc64Le,
    #[serde(rename = "SCMP_ARCH_S390")]
    S390,
    #[serde(rename = "SCMP_ARCH_S390X")]
    S390X,
    #[serde(rename = "SCMP_ARCH_RISCV64")]
    Riscv64,
    #[serde(rename = "SCMP_ARCH_LOONGARCH64")]
    Loongarch64,
    #[serde(rename = "SCMP_ARCH_PARISC")]
    Parisc,
    #[serde(rename = "SCMP_ARCH_PARISC64")]
    Parisc64,
}

impl ArchName {
    /// This machine's.
    pub fn native() -> Option<Self> {
        Some(match std::env::consts::ARCH {
            "x86_64" => Self::X86_64,
            "aarch64" => Self::Aarch64,
            "riscv64" => Self::Riscv64,
            "s390x" => Self::S390X,
            "powerpc64" if cfg!(target_endian = "little") => Self::Ppc64Le,
            "loongarch64" => Self::Loongarch64,
            _ => return None,
        })
    }

    /// What `includes.arches` calls it (Go's names).
    fn condition_name(self) -> &'static str {
        match self {
            Self::X86 => "x86",
            Self::X86_64 => "amd64",
            Self::X32 => "x32",
            Self::Arm => "arm",
            Self::Aarch64 => "arm64",
            Self::Mips => "mips",
            Self::Mips64 => "mips64",
            Self::Mips64N32 => "mips64n32",
            Self::Mipsel => "mipsel",
            Self::Mipsel64 => "mipsel64",
            Self::Mipsel64N32 => "mipsel64n32",
            Self::Ppc => "ppc",
            Self::Ppc64 => "ppc64",
            Self::Ppc64Le => "ppc64le",
            Self::S390 => "s390",
            Self::S390X => "s390x",
            Self::Riscv64 => "riscv64",
            Self::Loongarch64 => "loong64",
            Self::Parisc => "parisc",
            Self::Parisc64 => "parisc64",
        }
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    KillThread,
    KillProcess,
    Trap,
    Errno(u16),
    Trace(u16),
    Log,
    Allow,
}

impl Action {
    /// What a filter returns for it (`SECCOMP_RET_*`, seccomp(2)).
    pub fn returned(self) -> u32 {
        match self {
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
            Self::Trap => 0x0003_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::Trace(message) => 0x7ff0_0000 | u32::from(message),
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }

    /// Whether a call goes through, perhaps after being noted.
    pub fn permits(self) -> bool {
        matches!(self, Self::Allow | Self::Log | Self::Trace(_))
    }
}

/// One rule that holds: these calls, if all conditions are met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub names: Vec<String>,
    pub action: Action,
    pub args: Vec<Arg>,
}

/// A profile evaluated for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub default: Action,
    /// The architectures whose calls are judged, this machine's first; any other kills the process.
    pub arches: Vec<ArchName>,
    pub rules: Vec<Rule>,
    /// Every call that the profile speaks of, also under conditions that do not hold here.
    pub known: BTreeSet<String>,
    /// `SECCOMP_FILTER_FLAG_*`
    pub flags: u32,
}

impl Profile {
    /// Reads a profile and refuses what could not be honoured anyway.
    pub fn parse(text: &str) -> Result<Self, SeccompError> {
        if text.len() > MAX_TEXT {
            return Err(SeccompError::Profile("it is longer than 1 MiB".to_owned()));
        }
        let profile: Self =
            serde_json::from_str(text).map_err(|error| SeccompError::Profile(error.to_string()))?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), SeccompError> {
        let wrong = |text: &str| Err(SeccompError::Profile(text.to_owned()));
        let some = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
        if some(&self.architectures) && self.arch_map.as_ref().is_some_and(|map| !map.is_empty()) {
            return wrong(
                "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
            );
        }
        if self.default_errno.is_some() && self.default_errno_ret.is_none() {
            return wrong("defaultErrno needs defaultErrnoRet");
        }
        if self.listener_path.is_some() || self.listener_metadata.is_some() {
            return Err(SeccompError::Unsupported("a listener".to_owned()));
        }
        let notifies = |action: ActionName| action == ActionName::Notify;
        if notifies(self.default_action) {
            return Err(SeccompError::Unsupported("SCMP_ACT_NOTIFY".to_owned()));
        }
        if self
            .flags
            .iter()
            .flatten()
            .any(|flag| *flag == FlagName::WaitKillableRecv)
        {
            // Only has a meaning with a listener; the kernel refuses it without one.
            return Err(SeccompError::Unsupported(
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV".to_owned(),
            ));
        }
        for group in self.syscalls.iter().flatten() {
            let names = group.names.as_deref().unwrap_or_default();
            match &group.name {
                Some(_) if !names.is_empty() => {
                    return wrong(
                        "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'",
                    );
                }
                None if names.is_empty() => return wrong("a rule names no system call"),
                Some(_) | None => {}
            }
            if notifies(group.action) {
                return Err(SeccompError::Unsupported("SCMP_ACT_NOTIFY".to_owned()));
            }
            if group.errno.is_some() && group.errno_ret.is_none() {
                return wrong("errno needs errnoRet");
            }
            if group.args.iter().flatten().any(|arg| arg.index > 5) {
                return wrong("a system call has six arguments");
            }
            for conditions in [&group.includes, &group.excludes].into_iter().flatten() {
                if let Some(version) = &conditions.min_kernel {
                    kernel_version(version)?;
                }
                for cap in conditions.caps.iter().flatten() {
                    capability(cap)?;
                }
            }
        }
        Ok(())
    }

    /// What holds for a container with this bounding set on a machine of this architecture and kernel.
    pub fn evaluate(
        &self,
        bounding: CapSet,
        native: ArchName,
        kernel: (u32, u32),
    ) -> Result<Filter, SeccompError> {
        let mut rules = Vec::new();
        let mut known = BTreeSet::new();
        for group in self.syscalls.iter().flatten() {
            let names: Vec<String> = group
                .name
                .iter()
                .chain(group.names.iter().flatten())
                .cloned()
                .collect();
            known.extend(names.iter().cloned());
            if !group.holds(bounding, native, kernel)? {
                continue;
            }
            let action = action(group.action, group.errno_ret);
            let args = group.args.clone().unwrap_or_default();
            let indices: BTreeSet<_> = args.iter().map(|arg| arg.index).collect();
            if indices.len() < args.len() {
                // As runc reads it: conditions on one argument are alternatives, each its own rule.
                rules.extend(args.iter().map(|arg| Rule {
                    names: names.clone(),
                    action,
                    args: vec![*arg],
                }));
            } else {
                rules.push(Rule {
                    names,
                    action,
                    args,
                });
            }
        }
        let mut arches = vec![native];
        let mapped = self
            .arch_map
            .iter()
            .flatten()
            .filter(|map| map.architecture == native);
        let mapped = mapped.flat_map(|map| map.sub_architectures.iter().flatten());
        for arch in self.architectures.iter().flatten().chain(mapped) {
            if !arches.contains(arch) {
                arches.push(*arch);
            }
        }
        let flags = self.flags.iter().flatten().fold(0, |flags, flag| {
            flags
                | match flag {
                    FlagName::Tsync => 1,
                    FlagName::Log => 2,
                    FlagName::SpecAllow => 4,
                    FlagName::WaitKillableRecv => 32,
                }
        });
        let default = action(self.default_action, self.default_errno_ret);
        Ok(Filter {
            default,
            arches,
            rules,
            known,
            flags,
        })
    }
}

impl Group {
    fn holds(
        &self,
        bounding: CapSet,
        native: ArchName,
        kernel: (u32, u32),
    ) -> Result<bool, SeccompError> {
        let arch_listed = |list: &Option<Vec<String>>| {
            list.iter()
                .flatten()
                .any(|name| name == native.condition_name())
        };
        if let Some(includes) = &self.includes {
            for cap in includes.caps.iter().flatten() {
                if !bounding.contains(capability(cap)?) {
                    return Ok(false);
                }
            }
            if includes
                .arches
                .as_ref()
                .is_some_and(|list| !list.is_empty())
                && !arch_listed(&includes.arches)
            {
                return Ok(false);
            }
            if let Some(version) = &includes.min_kernel
                && kernel < kernel_version(version)?
            {
                return Ok(false);
            }
        }
        if let Some(excludes) = &self.excludes {
            for cap in excludes.caps.iter().flatten() {
                if bounding.contains(capability(cap)?) {
                    return Ok(false);
                }
            }
            if arch_listed(&excludes.arches) {
                return Ok(false);
            }
            if let Some(version) = &excludes.min_kernel
                && kernel >= kernel_version(version)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn action(name: ActionName, number: Option<u16>) -> Action {
    // Docker's default for a number that is left out is EPERM.
    let number = number.unwrap_or(1);
    match name {
        ActionName::KillThread => Action::KillThread,
        ActionName::KillProcess => Action::KillProcess,
        ActionName::Trap => Action::Trap,
        ActionName::Errno => Action::Errno(number),
        ActionName::Trace => Action::Trace(number),
        // `Notify` was refused by `check`; if it ever came here it must not permit anything.
        ActionName::Notify => Action::KillProcess,
        ActionName::Log => Action::Log,
        ActionName::Allow => Action::Allow,
    }
}

/// A capability that this program has no name for is held by nobody.
fn capability(name: &str) -> Result<CapSet, SeccompError> {
    if !name.starts_with("CAP_") {
        return Err(SeccompError::Profile(format!(
            "unknown capability {name:?}"
        )));
    }
    Ok(CapSet::parse(name).unwrap_or(CapSet::of(63)))
}

/// `4.8`
fn kernel_version(text: &str) -> Result<(u32, u32), SeccompError> {
    let parse = || {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    parse().ok_or_else(|| {
        SeccompError::Profile(format!(
            "invalid kernel version: {text:?}, expected \"<kernel>.<major>\""
        ))
    })
}

#[cfg(test)]
mod tests;
