//! From an evaluated profile to the program's bytes, by libseccomp, and a cache of them: a host has a
//! handful of different filters, and compiling one costs milliseconds.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};

use berth_model::digest::Digest;
use berth_sys::cred::CapSet;
use libseccomp::error::SeccompErrno;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};

use super::profile::{Action, ArchName, Arg, Filter, Op, Profile};
use super::prologue::{self, Table};
use super::{BUILTIN, SeccompError};
use crate::hostfacts::HostFacts;
use crate::plan::Seccomp;
use crate::security::{SeccompChoice, SecurityOpts};
use crate::spec::RunSpec;
use crate::wire::Blob;

/// Filters kept. Each has some 4 KB; more different ones than this at once are compiled again.
const CACHED: usize = 64;

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// From this many rules on, libseccomp sorts the calls into a tree instead of a chain.
const TREE_FROM: usize = 32;

type Key = (Digest, u64, (u32, u32));

fn cache() -> &'static Mutex<HashMap<Key, Seccomp>> {
    static CACHE: OnceLock<Mutex<HashMap<Key, Seccomp>>> = OnceLock::new();
    CACHE.get_or_init(Mutex::default)
}

/// The filter of a container: what its options name, the built-in profile otherwise, none when
/// privileged or unconfined. `bounding` is the container's own set ([`crate::caps::bounding`]).
pub fn for_container(
    spec: &RunSpec,
    facts: &HostFacts,
    bounding: CapSet,
) -> Result<Option<Seccomp>, SeccompError> {
    let security = SecurityOpts::parse(&spec.security_opt)
        .map_err(|error| SeccompError::Profile(error.to_string()))?;
    let text = match &security.seccomp {
        SeccompChoice::Unconfined => return Ok(None),
        SeccompChoice::Default if spec.privileged || !facts.seccomp => return Ok(None),
        SeccompChoice::Default | SeccompChoice::Builtin => BUILTIN,
        SeccompChoice::Custom(text) => text,
    };
    compile(text, bounding, facts.kernel).map(Some)
}

/// Compiles a profile for a container with this bounding set on this machine with this kernel.
pub fn compile(text: &str, bounding: CapSet, kernel: (u32, u32)) -> Result<Seccomp, SeccompError> {
    let key = (Digest::of(text.as_bytes()), bounding.0, kernel);
    if let Some(found) = cache()
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&key)
    {
        return Ok(found.clone());
    }
    let native = ArchName::native().ok_or_else(|| {
        SeccompError::Unsupported(format!("the architecture {}", std::env::consts::ARCH))
    })?;
    let filter = Profile::parse(text)?.evaluate(bounding, native, kernel)?;
    let seccomp = Seccomp {
        program: Blob(program(&filter)?),
        flags: filter.flags,
    };
    let mut cache = cache().lock().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= CACHED {
        cache.clear();
    }
    cache.insert(key, seccomp.clone());
    Ok(seccomp)
}

fn failed(error: impl std::fmt::Display) -> SeccompError {
    SeccompError::Compile(error.to_string())
}

fn program(filter: &Filter) -> Result<Vec<u8>, SeccompError> {
    let mut context = ScmpFilterContext::new(to_action(filter.default)).map_err(failed)?;
    // A call by an architecture that the profile does not list cannot be judged by its number.
    context
        .set_act_badarch(ScmpAction::KillProcess)
        .map_err(failed)?;
    if filter
        .rules
        .iter()
        .map(|rule| rule.names.len())
        .sum::<usize>()
        >= TREE_FROM
    {
        context.set_ctl_optimize(2).map_err(failed)?;
    }
    for arch in &filter.arches {
        context.add_arch(to_arch(*arch)).map_err(failed)?;
    }
    // What the library does not know is decided in front of its program.
    let mut newer: Vec<(&str, Action)> = Vec::new();
    for rule in &filter.rules {
        let args = rule.args.iter().map(compare).collect::<Vec<_>>();
        for name in &rule.names {
            match ScmpSyscall::from_name(name) {
                Ok(call) if rule.action != filter.default => {
                    match context.add_rule_conditional(to_action(rule.action), call, &args) {
                        Ok(_) => {}
                        // The same rule again, by another group.
                        Err(error) if error.errno() == Some(SeccompErrno::EEXIST) => {}
                        Err(error) => {
                            return Err(SeccompError::Compile(format!("rule for {name}: {error}")));
                        }
                    }
                }
                Ok(_) => {}
                Err(_) if !prologue::is_known(name) => {
                    // As Docker: a call that no table knows cannot be made, and needs no rule.
                    tracing::debug!(name, "unknown system call in a seccomp profile");
                }
                Err(_) if rule.args.is_empty() => newer.push((name, rule.action)),
                Err(_) => {
                    return Err(SeccompError::Unsupported(format!(
                        "a condition on {name}, which is newer than this host's libseccomp,"
                    )));
                }
            }
        }
    }
    let mut bytes = prologue::program(&tables(filter, &newer));
    bytes.extend(export(&context)?);
    if bytes.len() / 8 > MAX_INSTRUCTIONS {
        return Err(SeccompError::Compile(format!(
            "it needs more than {MAX_INSTRUCTIONS} instructions"
        )));
    }
    Ok(bytes)
}

fn export(context: &ScmpFilterContext) -> Result<Vec<u8>, SeccompError> {
    // The library of Debian 12 writes to descriptors only.
    let fd = berth_sys::fd::memfd("berth-seccomp").map_err(failed)?;
    context.export_bpf(fd.as_fd()).map_err(failed)?;
    let mut file = std::fs::File::from(fd);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.is_empty() || bytes.len() % 8 != 0 {
        return Err(failed("libseccomp wrote no whole program"));
    }
    Ok(bytes)
}

/// One table per architecture word (two for x86-64 with x32).
fn tables(filter: &Filter, newer: &[(&str, Action)]) -> Vec<Table> {
    let mut tables = Vec::new();
    for arch in &filter.arches {
        let Some(audit) = audit_arch(*arch) else {
            continue;
        };
        let own = match arch {
            ArchName::X86_64 => prologue::Arch::X86_64,
            ArchName::Riscv64 => prologue::Arch::Riscv64,
            _ => prologue::Arch::Other,
        };
        let bit = if *arch == ArchName::X32 {
            prologue::X32_BIT
        } else {
            0
        };
        let calls = newer
            .iter()
            .filter_map(|(name, action)| {
                Some((prologue::number(name, own)? | bit, action.returned()))
            })
            .collect();
        let scmp = to_arch(*arch);
        let number = |name: &String| {
            let known = ScmpSyscall::from_name_by_arch(name, scmp).ok();
            let known = known.and_then(|call| u32::try_from(i32::from(call)).ok());
            known.or_else(|| prologue::number(name, own).map(|number| number | bit))
        };
        // A profile that lets everything through unless named does not mean to refuse what is new.
        let newest =
            (!filter.default.permits()).then(|| filter.known.iter().filter_map(number).max());
        let x32 = match arch {
            ArchName::X32 => Some(true),
            // Without x32 its numbers are libseccomp's to refuse; they are above every limit of ours.
            ArchName::X86_64 => Some(false),
            _ => None,
        };
        tables.push(Table {
            arch: audit,
            x32,
            calls,
            newest: newest.flatten(),
        });
    }
    tables
}

/// `AUDIT_ARCH_*` (linux/audit.h). The architectures whose calls have numbers of an older scheme
/// (MIPS and its kin) are left to libseccomp alone.
fn audit_arch(arch: ArchName) -> Option<u32> {
    Some(match arch {
        ArchName::X86_64 | ArchName::X32 => 0xc000_003e,
        ArchName::X86 => 0x4000_0003,
        ArchName::Aarch64 => 0xc000_00b7,
        ArchName::Arm => 0x4000_0028,
        ArchName::Riscv64 => 0xc000_00f3,
        ArchName::S390X => 0x8000_0016,
        ArchName::S390 => 0x0000_0016,
        ArchName::Ppc64Le => 0xc000_0015,
        ArchName::Loongarch64 => 0xc000_0102,
        _ => return None,
    })
}

fn to_arch(arch: ArchName) -> ScmpArch {
    match arch {
        ArchName::X86 => ScmpArch::X86,
        ArchName::X86_64 => ScmpArch::X8664,
        ArchName::X32 => ScmpArch::X32,
        ArchName::Arm => ScmpArch::Arm,
        ArchName::Aarch64 => ScmpArch::Aarch64,
        ArchName::Mips => ScmpArch::Mips,
        ArchName::Mips64 => ScmpArch::Mips64,
        ArchName::Mips64N32 => ScmpArch::Mips64N32,
        ArchName::Mipsel => ScmpArch::Mipsel,
        ArchName::Mipsel64 => ScmpArch::Mipsel64,
        ArchName::Mipsel64N32 => ScmpArch::Mipsel64N32,
        ArchName::Ppc => ScmpArch::Ppc,
        ArchName::Ppc64 => ScmpArch::Ppc64,
        ArchName::Ppc64Le => ScmpArch::Ppc64Le,
        ArchName::S390 => ScmpArch::S390,
        ArchName::S390X => ScmpArch::S390X,
        ArchName::Riscv64 => ScmpArch::Riscv64,
        ArchName::Parisc => ScmpArch::Parisc,
        ArchName::Parisc64 => ScmpArch::Parisc64,
        ArchName::Loongarch64 => ScmpArch::Loongarch64,
    }
}

fn to_action(action: Action) -> ScmpAction {
    match action {
        Action::KillThread => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
        Action::Trap => ScmpAction::Trap,
        Action::Errno(errno) => ScmpAction::Errno(errno.into()),
        Action::Trace(message) => ScmpAction::Trace(message),
        Action::Log => ScmpAction::Log,
        Action::Allow => ScmpAction::Allow,
    }
}

fn compare(arg: &Arg) -> ScmpArgCompare {
    let (op, datum) = match arg.op {
        Op::Ne => (ScmpCompareOp::NotEqual, arg.value),
        Op::Lt => (ScmpCompareOp::Less, arg.value),
        Op::Le => (ScmpCompareOp::LessOrEqual, arg.value),
        Op::Eq => (ScmpCompareOp::Equal, arg.value),
        Op::Ge => (ScmpCompareOp::GreaterEqual, arg.value),
        Op::Gt => (ScmpCompareOp::Greater, arg.value),
        Op::MaskedEq => (ScmpCompareOp::MaskedEqual(arg.value), arg.value_two),
    };
    ScmpArgCompare::new(arg.index, op, datum)
}

#[cfg(test)]
mod tests;
