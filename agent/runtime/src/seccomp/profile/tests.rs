use super::*;
use crate::seccomp::BUILTIN;

fn filter(caps: CapSet) -> Filter {
    Profile::parse(BUILTIN)
        .expect("parses")
        .evaluate(caps, ArchName::X86_64, (6, 1))
        .expect("evaluates")
}

fn caps(names: &[&str]) -> CapSet {
    names.iter().fold(crate::caps::DEFAULT, |set, name| {
        set | CapSet::parse(name).expect("a capability")
    })
}

fn allowed(filter: &Filter) -> BTreeSet<&str> {
    let rules = filter
        .rules
        .iter()
        .filter(|rule| rule.action == Action::Allow && rule.args.is_empty());
    rules
        .flat_map(|rule| rule.names.iter().map(String::as_str))
        .collect()
}

#[test]
fn the_builtin_profile_has_dockers_shape() {
    let filter = filter(crate::caps::DEFAULT);
    assert_eq!(filter.default, Action::Errno(1));
    assert_eq!(
        filter.arches,
        [ArchName::X86_64, ArchName::X86, ArchName::X32]
    );
    assert_eq!(filter.rules[0].names.len(), 361);
    let sorted = filter.rules[0].names.is_sorted();
    assert!(sorted, "the list is kept sorted");
    let clone3: Vec<_> = filter
        .rules
        .iter()
        .filter(|rule| rule.names == ["clone3"])
        .collect();
    assert_eq!(clone3.len(), 1);
    assert_eq!(clone3[0].action, Action::Errno(38));
}

#[test]
fn never_allowed_whatever_the_capabilities() {
    let filter = filter(CapSet::NAMED);
    let allowed = allowed(&filter);
    for name in [
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
        "userfaultfd",
        "keyctl",
        "add_key",
        "request_key",
        "kexec_load",
        "kexec_file_load",
        "swapon",
        "swapoff",
        "pivot_root",
        "ustat",
        "sysfs",
        "uselib",
        "nfsservctl",
        "create_module",
        "query_module",
        "_sysctl",
        "move_pages",
        "migrate_pages",
        "vm86",
        "vm86old",
        "get_kernel_syms",
        "open_tree_attr",
    ] {
        assert!(!allowed.contains(name), "{name}");
        assert!(
            !filter
                .rules
                .iter()
                .any(|rule| rule.names.iter().any(|n| n == name)),
            "{name}"
        );
    }
}

#[test]
fn capabilities_open_their_calls() {
    let plain = filter(crate::caps::DEFAULT);
    for (cap, names) in [
        (
            "SYS_ADMIN",
            &[
                "mount",
                "setns",
                "unshare",
                "clone",
                "clone3",
                "bpf",
                "umount2",
                "open_tree",
            ][..],
        ),
        ("DAC_READ_SEARCH", &["open_by_handle_at"]),
        ("SYS_BOOT", &["reboot"]),
        (
            "SYS_MODULE",
            &["init_module", "finit_module", "delete_module"],
        ),
        ("SYS_PACCT", &["acct"]),
        ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
        ("SYS_RAWIO", &["iopl", "ioperm"]),
        ("SYS_TIME", &["settimeofday", "clock_settime", "stime"]),
        ("SYS_TTY_CONFIG", &["vhangup"]),
        ("SYS_NICE", &["mbind", "set_mempolicy_home_node"]),
        ("SYSLOG", &["syslog"]),
        ("BPF", &["bpf"]),
        ("PERFMON", &["perf_event_open"]),
    ] {
        let with = filter(caps(&[cap]));
        for name in names {
            assert!(!allowed(&plain).contains(name), "{name} without {cap}");
            assert!(allowed(&with).contains(name), "{name} with {cap}");
        }
    }
    assert!(allowed(&plain).contains("chroot"));
    assert!(!allowed(&filter(CapSet::EMPTY)).contains("chroot"));
    assert!(allowed(&plain).contains("ptrace"));
    let old = Profile::parse(BUILTIN).expect("parses");
    let old = old
        .evaluate(crate::caps::DEFAULT, ArchName::X86_64, (4, 7))
        .expect("evaluates");
    assert!(!allowed(&old).contains("ptrace"));
    // With SYS_ADMIN nothing is left that refuses clone3 or looks at clone's flags.
    assert!(
        !filter(caps(&["SYS_ADMIN"]))
            .rules
            .iter()
            .any(|rule| rule.action == Action::Errno(38))
    );
}

#[test]
fn architectures_have_their_own_calls() {
    let profile = Profile::parse(BUILTIN).expect("parses");
    let on = |arch| {
        profile
            .evaluate(crate::caps::DEFAULT, arch, (6, 1))
            .expect("evaluates")
    };
    assert!(allowed(&on(ArchName::X86_64)).contains("arch_prctl"));
    assert!(!allowed(&on(ArchName::Aarch64)).contains("arch_prctl"));
    assert!(allowed(&on(ArchName::Aarch64)).contains("cacheflush"));
    let s390 = on(ArchName::S390X);
    let clone: Vec<_> = s390
        .rules
        .iter()
        .filter(|rule| rule.names == ["clone"])
        .collect();
    assert_eq!((clone.len(), clone[0].args[0].index), (1, 1));
    assert_eq!(on(ArchName::Riscv64).arches, [ArchName::Riscv64]);
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    for text in [
        "",
        "{}",
        "null",
        "[]",
        r#"{"defaultAction":"SCMP_ACT_FLY"}"#,
        r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","unknown":1}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_Z80"]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ERRNO"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ERRNO"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","errnoRet":70000}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","errno":"ENOSYS"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"5"}}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["SYS_ADMIN"]}}]}"#,
    ] {
        assert!(Profile::parse(text).is_err(), "{text}");
    }
    assert!(Profile::parse(&" ".repeat(MAX_TEXT + 1)).is_err());
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["personality"],"action":"SCMP_ACT_ALLOW",
        "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#;
    let filter = Profile::parse(text)
        .expect("parses")
        .evaluate(CapSet::EMPTY, ArchName::X86_64, (6, 1))
        .expect("evaluates");
    assert_eq!(filter.rules.len(), 2);
}
