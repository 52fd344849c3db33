use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::Blob;

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,24}"
}

fn path() -> impl Strategy<Value = String> {
    "(/[a-z.]{1,8}){1,4}"
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..4)
}

fn any_attrs() -> impl Strategy<Value = MountAttrs> {
    (0u64..0x40).prop_map(MountAttrs)
}

fn any_mount(source: impl Strategy<Value = MountSource>) -> impl Strategy<Value = Mount> {
    (
        path(),
        0u8..4,
        source,
        any_attrs(),
        any_attrs(),
        any::<(bool, bool, bool)>(),
        0u8..4,
        0u8..4,
    )
        .prop_map(
            |(
                target,
                kind,
                source,
                attrs,
                clear,
                (recursive, propagation_recursive, mode_of_target),
                propagation,
                create,
            )| Mount {
                target,
                kind: TargetKind::from_number(kind).expect("a kind"),
                source,
                attrs,
                clear,
                recursive,
                propagation: Propagation::from_number(propagation).expect("a propagation"),
                propagation_recursive,
                create: Create::from_number(create).expect("a create"),
                mode_of_target,
            },
        )
}

fn any_step() -> impl Strategy<Value = Step> {
    let new = (text(), pairs(), vec(text(), 0..3)).prop_map(|(fstype, options, flags)| {
        MountSource::New {
            fstype,
            options,
            flags,
        }
    });
    prop_oneof![
        any_mount(new).prop_map(Step::Mount),
        (path(), 0u8..3, any::<[u32; 5]>()).prop_map(
            |(path, kind, [major, minor, mode, uid, gid])| {
                Step::Node(Node {
                    path,
                    kind: NodeKind::from_number(kind).expect("a kind"),
                    major,
                    minor,
                    mode,
                    uid,
                    gid,
                })
            }
        ),
        (path(), text()).prop_map(|(path, target)| Step::Symlink { path, target }),
        (path(), any::<u32>()).prop_map(|(path, mode)| Step::MakeDir { path, mode }),
    ]
}

fn any_process() -> impl Strategy<Value = Process> {
    (
        (
            vec(text(), 1..5),
            vec(text(), 0..5),
            path(),
            any::<[u32; 3]>(),
            vec(any::<u32>(), 0..5),
        ),
        (any::<[u64; 5]>(), any::<(bool, bool, i32)>(), text()),
        proptest::option::of((vec(any::<[u8; 8]>(), 1..20), any::<u32>())),
        vec(any::<(u32, u64, u64)>(), 0..4),
    )
        .prop_map(
            |(
                (argv, env, cwd, [uid, gid, umask], groups),
                (
                    [bounding, effective, permitted, inheritable, ambient],
                    (no_new_privs, reaper, oom_score_adj),
                    keyring,
                ),
                seccomp,
                rlimits,
            )| Process {
                argv,
                env,
                cwd,
                uid,
                gid,
                groups,
                umask,
                caps: Capabilities {
                    bounding,
                    effective,
                    permitted,
                    inheritable,
                    ambient,
                },
                no_new_privs,
                seccomp: seccomp.map(|(program, flags)| Seccomp {
                    program: Blob(program.concat()),
                    flags,
                }),
                rlimits: rlimits
                    .into_iter()
                    .map(|(resource, soft, hard)| Rlimit {
                        resource,
                        soft,
                        hard,
                    })
                    .collect(),
                oom_score_adj,
                keyring,
                reaper,
            },
        )
}

fn any_log() -> impl Strategy<Value = Log> {
    prop_oneof![
        Just(Log::None),
        (text(), any::<u64>(), 1u32..100, pairs()).prop_map(
            |(name, max_size, max_files, attrs)| Log::JsonFile {
                name,
                max_size,
                max_files,
                attrs
            }
        ),
        pairs().prop_map(|fields| Log::Journal { fields }),
    ]
}

/// A plan that passes [`Plan::check`].
pub(crate) fn any_plan() -> impl Strategy<Value = Plan> {
    (
        (
            "[0-9a-f]{64}",
            text(),
            [0u8..3, 0u8..3, 0u8..3, 0u8..3, 0u8..3],
            text(),
            text(),
        ),
        (
            vec(any_step(), 0..6),
            vec(any_mount(Just(MountSource::Fd(FdRole::Root))), 0..4),
        ),
        vec((path(), text(), any::<bool>()), 0..3),
        (vec(path(), 0..4), vec(path(), 0..4), any::<bool>()),
        any_process(),
        (
            any::<(bool, bool)>(),
            proptest::option::of(any::<(u16, u16)>()),
            any_log(),
        ),
        any::<(i32, i64, i32)>(),
    )
        .prop_map(
            |(
                (id, title, namespaces, hostname, domainname),
                (mut tree, binds),
                sysctls,
                (readonly_paths, masked_paths, root_readonly),
                process,
                ((stdin, stdin_once), terminal, log),
                (signal, timeout_ms, monitor_oom_score_adj),
            )| {
                let mut fds = vec![
                    FdRole::Root,
                    FdRole::PayloadCgroup,
                    FdRole::ExitRecord,
                    FdRole::Listener,
                ];
                let [net, pid, ipc, uts, cgroup] =
                    namespaces.map(|number| Ns::from_number(number).expect("a namespace"));
                for (kind, role) in [
                    (net, FdRole::NetNs),
                    (pid, FdRole::PidNs),
                    (ipc, FdRole::IpcNs),
                    (uts, FdRole::UtsNs),
                    (cgroup, FdRole::CgroupNs),
                ] {
                    if kind == Ns::Join {
                        fds.push(role);
                    }
                }
                for (index, mut mount) in (0..).zip(binds) {
                    mount.source = MountSource::Fd(FdRole::Bind(index));
                    fds.push(FdRole::Bind(index));
                    tree.push(Step::Mount(mount));
                }
                if terminal.is_some() {
                    tree.push(Step::Console);
                }
                match log {
                    Log::None => {}
                    Log::JsonFile { .. } => fds.extend([FdRole::Log, FdRole::LogDir]),
                    Log::Journal { .. } => fds.push(FdRole::Journal),
                }
                Plan {
                    id,
                    title,
                    fds,
                    namespaces: Namespaces {
                        net,
                        pid,
                        ipc,
                        uts,
                        cgroup,
                    },
                    hostname,
                    domainname,
                    tree,
                    sysctls: sysctls
                        .into_iter()
                        .map(|(path, value, optional)| Sysctl {
                            path,
                            value,
                            optional,
                        })
                        .collect(),
                    readonly_paths,
                    masked_paths,
                    root_readonly,
                    process,
                    stdio: Stdio {
                        stdin,
                        stdin_once,
                        terminal,
                    },
                    log,
                    stop: StopRule { signal, timeout_ms },
                    monitor_oom_score_adj,
                }
            },
        )
}

proptest! {
    #[test]
    fn plans_round_trip(plan in any_plan()) {
        let bytes = encode(&plan);
        prop_assert_eq!(decode(&bytes), Ok(plan));
    }

    #[test]
    fn every_cut_is_noticed(plan in any_plan(), at in any::<prop::sample::Index>()) {
        let bytes = encode(&plan);
        prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(decode(&bytes).is_err());
        let mut headed = MAGIC.to_vec();
        PLAN_VERSION.put(&mut headed);
        headed.extend_from_slice(&bytes);
        let _ = decode(&headed);
    }

    #[test]
    fn what_decodes_is_canonical(plan in any_plan(), at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = encode(&plan);
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(decoded) = decode(&bytes) {
            prop_assert_eq!(encode(&decoded), bytes);
        }
    }
}

fn small() -> Plan {
    Plan {
        fds: vec![
            FdRole::Root,
            FdRole::PayloadCgroup,
            FdRole::ExitRecord,
            FdRole::Listener,
        ],
        process: Process {
            argv: vec!["x".to_owned()],
            ..Process::default()
        },
        ..Plan::default()
    }
}

#[test]
fn contradictions_are_refused() {
    assert_eq!(small().check(), Ok(()));
    let changed = |change: fn(&mut Plan)| {
        let mut plan = small();
        change(&mut plan);
        decode(&encode(&plan)).is_err()
    };
    assert!(changed(|p| p.fds.push(FdRole::Root)));
    assert!(changed(|p| p.fds.truncate(3)));
    assert!(changed(|p| p.namespaces.net = Ns::Join));
    assert!(changed(|p| p.fds.push(FdRole::NetNs)));
    assert!(changed(|p| p.tree.push(Step::Console)));
    assert!(changed(|p| p.stdio.terminal = Some((1, 1))));
    assert!(changed(|p| p.process.argv.clear()));
    assert!(changed(|p| p.log = Log::Journal { fields: Vec::new() }));
    assert!(changed(|p| p.process.seccomp = Some(Seccomp {
        program: Blob(vec![0; 9]),
        flags: 0
    })));
    assert!(changed(|p| p.hostname = "a\0b".to_owned()));
}

#[test]
fn a_huge_count_costs_nothing() {
    let mut bytes = MAGIC.to_vec();
    PLAN_VERSION.put(&mut bytes);
    u32::MAX.put(&mut bytes);
    assert_eq!(decode(&bytes), Err(WireError::TooLong));
}
