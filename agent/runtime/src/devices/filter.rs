//! The device fence as an eBPF program of type CGROUP_DEVICE: one list of rules, default no.
//!
//! The program keeps the accesses that nobody has decided yet and walks the rules from the last to
//! the first: an allowing rule that fits takes its accesses away, a denying one that speaks of a
//! remaining access ends with "no", and "yes" needs every access to be allowed. So `r` and `w`
//! allowed by two rules allow `rw`, and the last rule that speaks of an access decides it.

use super::{Access, Rule};
use crate::plan::NodeKind;

// `struct bpf_cgroup_dev_ctx` (linux/bpf.h): access in the high half of the first word, type in the low.
const CTX_ACCESS_TYPE: i16 = 0;
const CTX_MAJOR: i16 = 4;
const CTX_MINOR: i16 = 8;
const TYPE_BLOCK: i32 = 1;
const TYPE_CHAR: i32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

// Instruction codes (Documentation/bpf/standardization/instruction-set.rst).
const LOAD_WORD: u8 = 0x61;
const MOV_REG: u8 = 0xbf;
const MOV_IMM: u8 = 0xb7;
const AND_IMM: u8 = 0x57;
const RSH_IMM: u8 = 0x77;
const JNE_IMM: u8 = 0x55;
const JSET_IMM: u8 = 0x45;
const JA: u8 = 0x05;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CTX: u8 = 1;
const TYPE: u8 = 2;
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Insn {
    code: u8,
    dst: u8,
    src: u8,
    off: i16,
    imm: i32,
}

/// The program for these rules: an array of `struct bpf_insn`, 8 bytes each, in this machine's byte order.
pub fn program(rules: &[Rule]) -> Vec<u8> {
    instructions(rules)
        .iter()
        .flat_map(|insn| encode(*insn))
        .collect()
}

fn encode(insn: Insn) -> [u8; 8] {
    let registers = if cfg!(target_endian = "little") {
        insn.src << 4 | insn.dst
    } else {
        insn.dst << 4 | insn.src
    };
    let off = insn.off.to_ne_bytes();
    let imm = insn.imm.to_ne_bytes();
    [
        insn.code, registers, off[0], off[1], imm[0], imm[1], imm[2], imm[3],
    ]
}

fn bits(access: Access) -> i32 {
    let bit = |yes: bool, bit: i32| if yes { bit } else { 0 };
    bit(access.mknod, ACCESS_MKNOD)
        | bit(access.read, ACCESS_READ)
        | bit(access.write, ACCESS_WRITE)
}

fn instructions(rules: &[Rule]) -> Vec<Insn> {
    let insn = |code, dst, src, off, imm| Insn {
        code,
        dst,
        src,
        off,
        imm,
    };
    let mut program = vec![
        insn(LOAD_WORD, OPEN, CTX, CTX_ACCESS_TYPE, 0),
        insn(MOV_REG, TYPE, OPEN, 0, 0),
        insn(AND_IMM, TYPE, 0, 0, 0xffff),
        insn(RSH_IMM, OPEN, 0, 0, 16),
        insn(LOAD_WORD, MAJOR, CTX, CTX_MAJOR, 0),
        insn(LOAD_WORD, MINOR, CTX, CTX_MINOR, 0),
    ];
    for rule in rules.iter().rev() {
        let kind = rule.kind.map(|kind| match kind {
            NodeKind::Block => TYPE_BLOCK,
            NodeKind::Char => TYPE_CHAR,
            // No device: a type that the kernel never passes.
            NodeKind::Fifo => 0,
        });
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let tests: Vec<(u8, i32)> = [
            kind.map(|kind| (TYPE, kind)),
            rule.major.map(|major| (MAJOR, number(major))),
            rule.minor.map(|minor| (MINOR, number(minor))),
        ]
        .into_iter()
        .flatten()
        .collect();
        let access = bits(rule.access);
        let body = if rule.allow {
            vec![
                insn(AND_IMM, OPEN, 0, 0, !access),
                // Something is still open: to the next rule.
                insn(JNE_IMM, OPEN, 0, 2, 0),
                insn(MOV_IMM, RESULT, 0, 0, 1),
                insn(EXIT, 0, 0, 0, 0),
            ]
        } else {
            vec![
                insn(JSET_IMM, OPEN, 0, 1, access),
                // None of the accesses is open: over the refusal.
                insn(JA, 0, 0, 2, 0),
                insn(MOV_IMM, RESULT, 0, 0, 0),
                insn(EXIT, 0, 0, 0, 0),
            ]
        };
        let count = tests.len();
        for (position, (register, value)) in tests.into_iter().enumerate() {
            // Past the remaining tests and the body; both are a handful.
            let skip = i16::try_from(count - position - 1 + body.len()).unwrap_or(i16::MAX);
            program.push(insn(JNE_IMM, register, 0, skip, value));
        }
        program.extend(body);
    }
    program.push(insn(MOV_IMM, RESULT, 0, 0, 0));
    program.push(insn(EXIT, 0, 0, 0, 0));
    program
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the kernel would answer, by interpreting the encoded program.
    pub(crate) fn run(
        program: &[u8],
        kind: NodeKind,
        major: u32,
        minor: u32,
        access: Access,
    ) -> bool {
        let kind = if kind == NodeKind::Block {
            TYPE_BLOCK
        } else {
            TYPE_CHAR
        };
        let context = [(bits(access) << 16 | kind) as u32, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        for _ in 0..10_000 {
            let bytes: [u8; 8] = program[at * 8..at * 8 + 8].try_into().expect("eight bytes");
            let (dst, src) = if cfg!(target_endian = "little") {
                (usize::from(bytes[1] & 15), bytes[1] >> 4)
            } else {
                (usize::from(bytes[1] >> 4), bytes[1] & 15)
            };
            let off = i16::from_ne_bytes([bytes[2], bytes[3]]);
            let imm =
                i64::from(i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]])) as u64;
            at += 1;
            let mut jump = false;
            match bytes[0] {
                LOAD_WORD => {
                    assert_eq!(src, CTX, "loads come from the context");
                    registers[dst] = context[usize::try_from(off).expect("positive") / 4].into();
                }
                MOV_REG => registers[dst] = registers[usize::from(src)],
                MOV_IMM => registers[dst] = imm,
                AND_IMM => registers[dst] &= imm,
                RSH_IMM => registers[dst] >>= imm,
                JNE_IMM => jump = registers[dst] != imm,
                JSET_IMM => jump = registers[dst] & imm != 0,
                JA => jump = true,
                EXIT => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
            if jump {
                at += usize::try_from(off).expect("forward");
            }
        }
        panic!("the program does not end");
    }

    /// The same by the definition: every access is decided by the last rule that speaks of it.
    fn expected(rules: &[Rule], kind: NodeKind, major: u32, minor: u32, access: Access) -> bool {
        let fits = |rule: &&Rule| {
            rule.kind.is_none_or(|k| k == kind)
                && rule.major.is_none_or(|m| m == major)
                && rule.minor.is_none_or(|m| m == minor)
        };
        [ACCESS_MKNOD, ACCESS_READ, ACCESS_WRITE]
            .into_iter()
            .filter(|bit| bits(access) & bit != 0)
            .all(|bit| {
                let last = rules
                    .iter()
                    .rev()
                    .filter(fits)
                    .find(|rule| bits(rule.access) & bit != 0);
                last.is_some_and(|rule| rule.allow)
            })
    }

    fn any_access() -> impl Strategy<Value = Access> {
        any::<(bool, bool, bool)>()
            .prop_map(|(read, write, mknod)| Access { read, write, mknod })
            .prop_filter("some access", |access| bits(*access) != 0)
    }

    fn any_kind() -> impl Strategy<Value = NodeKind> {
        prop_oneof![Just(NodeKind::Char), Just(NodeKind::Block)]
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let number = || proptest::option::of(0u32..4);
        (
            any::<bool>(),
            proptest::option::of(any_kind()),
            number(),
            number(),
            any_access(),
        )
            .prop_map(|(allow, kind, major, minor, access)| Rule {
                allow,
                kind,
                major,
                minor,
                access,
            })
    }

    proptest! {
        #[test]
        fn the_program_means_the_rules(
            rules in proptest::collection::vec(any_rule(), 0..8),
            kind in any_kind(),
            major in 0u32..4,
            minor in 0u32..4,
            access in any_access(),
        ) {
            let program = program(&rules);
            prop_assert_eq!(
                run(&program, kind, major, minor, access),
                expected(&rules, kind, major, minor, access)
            );
        }
    }

    #[test]
    fn no_rule_means_no() {
        assert!(!run(&program(&[]), NodeKind::Char, 1, 3, Access::ALL));
    }
}
