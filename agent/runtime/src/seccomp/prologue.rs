//! What stands in front of libseccomp's program: calls that are newer than the library, and ENOSYS
//! for calls that are newer than the profile. Programs probe new calls and fall back on ENOSYS;
//! EPERM would break them, and a library of last year would refuse what the profile allows.

use std::collections::BTreeMap;

/// Calls with the same number on every architecture (all since Linux 5.1 have), from the oldest
/// that a supported libseccomp may not know.
const COMMON: [(&str, u32); 29] = [
    ("epoll_pwait2", 441),
    ("mount_setattr", 442),
    ("quotactl_fd", 443),
    ("landlock_create_ruleset", 444),
    ("landlock_add_rule", 445),
    ("landlock_restrict_self", 446),
    ("memfd_secret", 447),
    ("process_mrelease", 448),
    ("futex_waitv", 449),
    ("set_mempolicy_home_node", 450),
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
];

/// The bit of x32's numbers; its calls come under x86-64's architecture word.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// The number of a call that libseccomp does not know.
pub(super) fn number(name: &str, arch: Arch) -> Option<u32> {
    let common = COMMON
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number);
    match (common, name, arch) {
        (Some(number), _, _) => Some(number),
        (None, "uretprobe", Arch::X86_64) => Some(335),
        (None, "riscv_hwprobe", Arch::Riscv64) => Some(258),
        (None, _, _) => None,
    }
}

/// Whether the name is a call of some architecture that is in the tables here.
pub(super) fn is_known(name: &str) -> bool {
    COMMON.iter().any(|(known, _)| *known == name) || ["uretprobe", "riscv_hwprobe"].contains(&name)
}

/// The architectures that the tables distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arch {
    X86_64,
    Riscv64,
    Other,
}

/// What to do for one architecture word before libseccomp's program has its say. Numbers of x32
/// carry [`X32_BIT`] and are a table of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// `AUDIT_ARCH_*`
    pub(super) arch: u32,
    /// Whether this is the half of an architecture word with [`X32_BIT`] set; the other half excludes it.
    pub(super) x32: Option<bool>,
    /// Number → what the filter returns.
    pub(super) calls: BTreeMap<u32, u32>,
    /// Beyond this number: ENOSYS. None = libseccomp's default action.
    pub(super) newest: Option<u32>,
}

// Classic BPF (linux/filter.h, bpf_common.h).
const LD_W_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
const JMP_JEQ: u16 = 0x15;
const JMP_JGT: u16 = 0x25;
const JMP_JSET: u16 = 0x45;
const RET_K: u16 = 0x06;
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const RET_ENOSYS: u32 = 0x0005_0000 | 38;

/// `struct sock_filter`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Insn {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
    Insn { code, jt, jf, k }
}

/// The instructions for these tables; whatever none of them decides falls through to what follows.
pub(super) fn program(tables: &[Table]) -> Vec<u8> {
    let mut all = Vec::new();
    for table in tables {
        let mut body = vec![insn(LD_W_ABS, 0, 0, OFFSET_NR)];
        let mut decisions = Vec::new();
        if let Some(newest) = table.newest {
            decisions.push(insn(JMP_JGT, 0, 1, newest));
            decisions.push(insn(RET_K, 0, 0, RET_ENOSYS));
        }
        for (number, returned) in &table.calls {
            decisions.push(insn(JMP_JEQ, 0, 1, *number));
            decisions.push(insn(RET_K, 0, 0, *returned));
        }
        if decisions.is_empty() {
            continue;
        }
        if let Some(x32) = table.x32 {
            // One-step jumps around an unconditional one: its distance has no bound of a byte.
            let (jt, jf) = if x32 { (1, 0) } else { (0, 1) };
            body.push(insn(JMP_JSET, jt, jf, X32_BIT));
            body.push(insn(JMP_JA, 0, 0, decisions.len() as u32));
        }
        body.extend(decisions);
        all.push(insn(LD_W_ABS, 0, 0, OFFSET_ARCH));
        all.push(insn(JMP_JEQ, 1, 0, table.arch));
        all.push(insn(JMP_JA, 0, 0, body.len() as u32));
        all.extend(body);
    }
    all.iter()
        .flat_map(|insn| {
            let code = insn.code.to_ne_bytes();
            let k = insn.k.to_ne_bytes();
            [code[0], code[1], insn.jt, insn.jf, k[0], k[1], k[2], k[3]]
        })
        .collect()
}
