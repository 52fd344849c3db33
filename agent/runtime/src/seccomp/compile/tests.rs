use super::*;
use crate::seccomp::profile::Action;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const KILL: u32 = 0x8000_0000;

/// What the kernel would return, by interpreting the classic BPF program.
fn run(program: &[u8], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend([0; 8]);
    data.extend(args.iter().flat_map(|arg| arg.to_ne_bytes()));
    let mut a = 0u32;
    let mut scratch = [0u32; 16];
    let mut at = 0;
    for _ in 0..MAX_INSTRUCTIONS {
        let insn: [u8; 8] = program[at * 8..at * 8 + 8].try_into().expect("eight bytes");
        let code = u16::from_ne_bytes([insn[0], insn[1]]);
        let k = u32::from_ne_bytes([insn[4], insn[5], insn[6], insn[7]]);
        at += 1;
        let jump = |yes: bool| usize::from(if yes { insn[2] } else { insn[3] });
        match code {
            0x20 => {
                let from = k as usize;
                a = u32::from_ne_bytes(data[from..from + 4].try_into().expect("a word"));
            }
            0x02 => scratch[k as usize] = a,
            0x60 => a = scratch[k as usize],
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(a == k),
            0x25 => at += jump(a > k),
            0x35 => at += jump(a >= k),
            0x45 => at += jump(a & k != 0),
            0x06 => return k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
    panic!("the program does not end");
}

fn builtin(caps: CapSet) -> Vec<u8> {
    compile(BUILTIN, caps, (6, 1)).expect("compiles").program.0
}

fn native_is_x86_64() -> bool {
    ArchName::native() == Some(ArchName::X86_64)
}

fn call(program: &[u8], number: u32, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    run(program, X86_64, number, all)
}

#[test]
fn default_filter_on_x86_64() {
    if !native_is_x86_64() {
        return;
    }
    let program = builtin(crate::caps::DEFAULT);
    for (number, args, wanted) in [
        (0, &[][..], ALLOW),         // read
        (59, &[], ALLOW),            // execve
        (41, &[2], ALLOW),           // socket(AF_INET)
        (41, &[16], ALLOW),          // socket(AF_NETLINK)
        (41, &[38], EPERM),          // socket(AF_ALG)
        (41, &[39], ALLOW),          // socket(AF_NFC)
        (41, &[40], EPERM),          // socket(AF_VSOCK)
        (41, &[41], ALLOW),          // socket(AF_KCM)
        (56, &[0x11], ALLOW),        // clone as fork
        (56, &[0x1000_0011], EPERM), // clone(CLONE_NEWUSER)
        (56, &[0x0002_0011], EPERM), // clone(CLONE_NEWNS)
        (435, &[], ENOSYS),          // clone3
        (135, &[0], ALLOW),          // personality
        (135, &[0x0002_0008], ALLOW),
        (135, &[0xffff_ffff], ALLOW),
        (135, &[0x0004_0000], EPERM),           // ADDR_NO_RANDOMIZE
        (135, &[0xffff_ffff_ffff_ffff], EPERM), // both halves count
        (135, &[0x1_0000_0000], EPERM),
        (101, &[], ALLOW),  // ptrace
        (165, &[], EPERM),  // mount
        (272, &[], EPERM),  // unshare
        (308, &[], EPERM),  // setns
        (425, &[], EPERM),  // io_uring_setup
        (323, &[], EPERM),  // userfaultfd
        (250, &[], EPERM),  // keyctl
        (155, &[], EPERM),  // pivot_root
        (246, &[], EPERM),  // kexec_load
        (321, &[], EPERM),  // bpf
        (161, &[], ALLOW),  // chroot
        (158, &[], ALLOW),  // arch_prctl
        (335, &[], ALLOW),  // uretprobe, newer than libseccomp
        (457, &[], ALLOW),  // statmount
        (462, &[], ALLOW),  // mseal
        (459, &[], EPERM),  // lsm_get_self_attr: SYS_ADMIN only
        (466, &[], ALLOW),  // removexattrat
        (467, &[], ENOSYS), // open_tree_attr: newer than the profile
        (5000, &[], ENOSYS),
    ] {
        assert_eq!(call(&program, number, args), wanted, "{number} {args:x?}");
    }
}

#[test]
fn other_call_tables_are_judged_by_their_own_numbers() {
    if !native_is_x86_64() {
        return;
    }
    let program = builtin(crate::caps::DEFAULT);
    let i386 = |number, arg| run(&program, I386, number, [arg, 0, 0, 0, 0, 0]);
    assert_eq!(i386(3, 0), ALLOW, "read");
    assert_eq!(i386(21, 0), EPERM, "mount");
    assert_eq!(i386(120, 0x1000_0011), EPERM, "clone(CLONE_NEWUSER)");
    assert_eq!(i386(120, 0x11), ALLOW, "clone");
    assert_eq!(i386(310, 0), EPERM, "unshare");
    assert_eq!(i386(425, 0), EPERM, "io_uring_setup");
    assert_eq!(i386(102, 1), ALLOW, "socketcall");
    assert_eq!(i386(462, 0), ALLOW, "mseal");
    assert_eq!(i386(467, 0), ENOSYS);
    let x32 = |number: u32| call(&program, number | 0x4000_0000, &[]);
    assert_eq!(x32(0), ALLOW, "read");
    assert_eq!(x32(165), EPERM, "mount");
    assert_eq!(x32(425), EPERM, "io_uring_setup");
    assert_eq!(x32(462), ALLOW, "mseal");
    // x32 has calls of its own from 512 to 547: newer ones begin behind them.
    assert_eq!(x32(467), EPERM);
    assert_eq!(x32(548), ENOSYS);
    // AArch64's word, and one that nobody has.
    for arch in [0xc000_00b7, 0, u32::MAX] {
        assert_eq!(run(&program, arch, 0, [0; 6]), KILL, "{arch:x}");
    }
}

#[test]
fn capabilities_change_the_program() {
    if !native_is_x86_64() {
        return;
    }
    let admin = builtin(crate::caps::DEFAULT | CapSet::parse("SYS_ADMIN").expect("a capability"));
    for number in [165, 272, 308, 435, 459, 461] {
        assert_eq!(call(&admin, number, &[]), ALLOW, "{number}");
    }
    assert_eq!(call(&admin, 56, &[0x1000_0011]), ALLOW);
    assert_eq!(call(&admin, 425, &[]), EPERM);
    let none = builtin(CapSet::EMPTY);
    assert_eq!(call(&none, 161, &[]), EPERM, "chroot");
}

#[test]
fn what_the_setup_needs_after_the_filter_is_allowed() {
    if !native_is_x86_64() {
        return;
    }
    // Without no_new_privs the filter comes before the drop of rights (A.2), with any bounding set.
    let program = builtin(CapSet::EMPTY);
    // read write close fcntl chdir getcwd setgroups setresuid setresgid capget capset prctl execve execveat faccessat2 close_range openat
    for number in [
        0, 1, 3, 72, 80, 79, 116, 117, 119, 125, 126, 157, 59, 322, 439, 436, 257,
    ] {
        assert_eq!(call(&program, number, &[]), ALLOW, "{number}");
    }
}

#[test]
fn custom_profiles() {
    if !native_is_x86_64() {
        return;
    }
    let run_one = |text: &str, number: u32| {
        let seccomp = compile(text, crate::caps::DEFAULT, (6, 1)).expect("compiles");
        (call(&seccomp.program.0, number, &[]), seccomp.flags)
    };
    // A deny list: what is new is not refused.
    let deny = r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls":[{"names":["mkdir","mseal"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#;
    assert_eq!(run_one(deny, 83), (0x0005_000d, 2));
    assert_eq!(run_one(deny, 462).0, 0x0005_000d);
    assert_eq!(run_one(deny, 0).0, ALLOW);
    assert_eq!(run_one(deny, 9999).0, ALLOW);
    // An allow list for one architecture: the others die.
    let allow = r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS","architectures":["SCMP_ARCH_X86_64"],
        "syscalls":[{"names":["read","no_such_call"],"action":"SCMP_ACT_LOG"}]}"#;
    assert_eq!(run_one(allow, 0).0, Action::Log.returned());
    let program = compile(allow, CapSet::EMPTY, (6, 1))
        .expect("compiles")
        .program
        .0;
    assert_eq!(run(&program, I386, 3, [0; 6]), KILL);
    assert_eq!(call(&program, 0x4000_0000, &[]), KILL);
    // A condition on a call that this libseccomp does not know cannot be compiled, and is not dropped.
    let newer = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["file_setattr"],
        "action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#;
    assert!(matches!(
        compile(newer, CapSet::EMPTY, (6, 1)),
        Err(SeccompError::Unsupported(_))
    ));
}

#[test]
fn choices() {
    let facts = HostFacts::sample();
    let choose = |options: &[&str], privileged: bool| {
        let security_opt = options.iter().map(|s| (*s).to_owned()).collect();
        let spec = RunSpec {
            security_opt,
            privileged,
            ..RunSpec::default()
        };
        for_container(&spec, &facts, crate::caps::DEFAULT)
            .expect("valid")
            .is_some()
    };
    assert!(choose(&[], false));
    assert!(!choose(&[], true));
    assert!(choose(&["seccomp=builtin"], true));
    assert!(!choose(&["seccomp=unconfined"], false));
    assert!(choose(
        &[r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#],
        true
    ));
    let spec = RunSpec {
        security_opt: vec!["seccomp={".to_owned()],
        ..RunSpec::default()
    };
    assert!(for_container(&spec, &facts, crate::caps::DEFAULT).is_err());
}

#[test]
fn the_kernel_takes_it() {
    // In a thread of its own: the filter stays on the thread.
    let program = builtin(crate::caps::DEFAULT);
    assert!(berth_sys::seccomp::check(&program).is_ok());
    let loaded = std::thread::spawn(move || {
        berth_sys::cred::no_new_privs().and_then(|()| berth_sys::seccomp::load(&program, 0))
    });
    loaded.join().expect("no panic").expect("loads");
}
