use super::*;

fn roles() -> BTreeSet<FdRole> {
    BTreeSet::from([
        FdRole::Root,
        FdRole::Hosts,
        FdRole::Hostname,
        FdRole::ResolvConf,
    ])
}

/// The tree as one line per mount.
fn lines(spec: &RunSpec) -> String {
    let security = SecurityOpts::parse(&spec.security_opt).expect("valid");
    let tree = tree(spec, &security, &roles()).expect("valid");
    let nodes = if tree.own_dev {
        "(nodes)"
    } else {
        "(no nodes)"
    };
    let line = |step: &Step| match step {
        Step::Mount(mount) => {
            let source = match &mount.source {
                MountSource::Fd(role) => format!("{role:?}"),
                MountSource::New {
                    fstype,
                    options,
                    flags,
                } => {
                    let options: Vec<_> = options.iter().map(|(k, v)| format!("{k}={v}")).collect();
                    format!("{fstype}[{}]", [options, flags.clone()].concat().join(","))
                }
            };
            let deep = if mount.recursive { " deep" } else { "" };
            let mode = if mount.mode_of_target {
                " mode-of-target"
            } else {
                ""
            };
            format!(
                "{} {:?} {source} {:?}{deep} {:?}{} {:?}{mode}",
                mount.target,
                mount.kind,
                mount.attrs,
                mount.propagation,
                if mount.propagation_recursive { "+" } else { "" },
                mount.create
            )
        }
        other => format!("{other:?}"),
    };
    let before = tree.before_nodes.iter().map(line);
    let after = tree.after_nodes.iter().map(line);
    before
        .chain([nodes.to_owned()])
        .chain(after)
        .collect::<Vec<_>>()
        .join("\n")
}

fn bind(target: &str) -> MountSpec {
    MountSpec {
        source: "/src".to_owned(),
        target: target.to_owned(),
        ..MountSpec::default()
    }
}

#[test]
fn default_tree() {
    insta::assert_snapshot!(lines(&RunSpec::default()));
}

#[test]
fn privileged_tree_is_writable() {
    let spec = RunSpec {
        privileged: true,
        ..RunSpec::default()
    };
    let text = lines(&spec);
    for target in ["/sys ", "/sys/fs/cgroup "] {
        let line = text
            .lines()
            .find(|line| line.starts_with(target))
            .expect("is mounted");
        assert!(!line.contains("ro,"), "{line}");
    }
}

#[test]
fn requests_come_by_depth_and_replace_ours() {
    let spec = RunSpec {
        mounts: vec![
            bind("/a/b/c"),
            MountSpec {
                read_only: ReadOnly::Recursive,
                propagation: "rslave".to_owned(),
                ..bind("/a")
            },
            MountSpec {
                read_only: ReadOnly::TopOnly,
                ..bind("/etc/hosts")
            },
            bind("/sys/fs/cgroup"),
            bind("/dev/shm/"),
            bind("/proc//./uptime"),
            MountSpec {
                kind: MountKind::Tmpfs,
                target: "/run".to_owned(),
                tmpfs_size: Some(1024),
                tmpfs_mode: Some(0o1770),
                read_only: ReadOnly::TopOnly,
                ..MountSpec::default()
            },
        ],
        tmpfs: BTreeMap::from([
            ("/tmp".to_owned(), "exec,size=64m,uid=1000".to_owned()),
            ("/etc".to_owned(), String::new()),
        ]),
        rootfs_readonly: true,
        ..RunSpec::default()
    };
    insta::assert_snapshot!(lines(&spec));
}

#[test]
fn dev_of_the_host() {
    let spec = RunSpec {
        mounts: vec![bind("/dev")],
        ..RunSpec::default()
    };
    let text = lines(&spec);
    assert!(text.contains("(no nodes)"));
    assert!(
        !text.contains("/dev/pts") && !text.contains("/dev/shm") && !text.contains("/dev/mqueue")
    );
    let spec = RunSpec {
        tmpfs: BTreeMap::from([("/dev".to_owned(), String::new())]),
        ..RunSpec::default()
    };
    assert!(lines(&spec).contains("(nodes)"));
}

#[test]
fn shared_memory() {
    let with = |ipc| {
        let spec = RunSpec {
            shm_size: Some(4096),
            ..RunSpec::default()
        };
        let namespaces = crate::spec::NamespaceModes {
            ipc,
            ..spec.namespaces.clone()
        };
        lines(&RunSpec { namespaces, ..spec })
    };
    assert!(with(IpcMode::Private).contains("/dev/shm Own tmpfs[mode=1777,size=4096]"));
    assert!(with(IpcMode::Host).contains("/dev/shm Own Shm"));
    assert!(with(IpcMode::Container("x".to_owned())).contains("/dev/shm Own Shm"));
    assert!(!with(IpcMode::None).contains("/dev/shm"));
}

#[test]
fn forbidden_targets() {
    for target in [
        "/",
        "//",
        "/.",
        "/a/..",
        "/../..",
        "/proc",
        "/proc/",
        "/a/../proc",
        "/proc/self",
        "/proc/self/attr",
        "/proc/sys/kernel",
        "/proc/./self",
        "//proc",
        "/sys",
        "/sys/",
        "/proc/uptime/x",
        "relative",
        "",
        "/proc/..//proc",
    ] {
        let spec = RunSpec {
            mounts: vec![bind(target)],
            ..RunSpec::default()
        };
        assert!(
            matches!(asked(&spec), Err(SpecError::Invalid(_))),
            "{target}"
        );
        let spec = RunSpec {
            tmpfs: BTreeMap::from([(target.to_owned(), String::new())]),
            ..RunSpec::default()
        };
        assert!(asked(&spec).is_err(), "{target}");
    }
    for target in PROC_TARGETS {
        let spec = RunSpec {
            mounts: vec![bind(target)],
            ..RunSpec::default()
        };
        assert_eq!(
            asked(&spec).expect("allowed")[target].kind,
            TargetKind::RequestProc
        );
        let spec = RunSpec {
            tmpfs: BTreeMap::from([(target.to_owned(), String::new())]),
            ..RunSpec::default()
        };
        assert!(asked(&spec).is_err(), "{target}");
    }
    for target in [
        "/procfs",
        "/system",
        "/sys/fs",
        "/sys/kernel/debug",
        "/a/proc",
    ] {
        let spec = RunSpec {
            mounts: vec![bind(target)],
            ..RunSpec::default()
        };
        assert_eq!(
            asked(&spec).expect("allowed")[target].kind,
            TargetKind::Request
        );
    }
}

#[test]
fn one_target_one_mount() {
    let spec = RunSpec {
        mounts: vec![bind("/a"), bind("/a/")],
        ..RunSpec::default()
    };
    assert_eq!(
        asked(&spec),
        Err(SpecError::invalid("duplicate mount point: /a"))
    );
    let spec = RunSpec {
        mounts: vec![bind("/a")],
        tmpfs: BTreeMap::from([("/b/../a".to_owned(), String::new())]),
        ..RunSpec::default()
    };
    assert!(asked(&spec).is_err());
}

#[test]
fn propagation_words() {
    for word in [
        "rprivate", "private", "rslave", "slave", "rshared", "shared", "",
    ] {
        let spec = RunSpec {
            mounts: vec![MountSpec {
                propagation: word.to_owned(),
                ..bind("/a")
            }],
            ..RunSpec::default()
        };
        assert!(asked(&spec).is_ok(), "{word}");
    }
    for word in ["unbindable", "RSHARED", "z"] {
        let spec = RunSpec {
            mounts: vec![MountSpec {
                propagation: word.to_owned(),
                ..bind("/a")
            }],
            ..RunSpec::default()
        };
        assert!(asked(&spec).is_err(), "{word}");
    }
}

#[test]
fn tmpfs_options() {
    for options in [
        "",
        "rw",
        "ro",
        "exec,suid,dev",
        "noexec,nosuid,nodev",
        "size=64m",
        "size=65536",
        "size=50%",
        "mode=1777",
        "mode=0700,uid=0,gid=5",
        "nr_inodes=10k",
        "noatime",
        "rprivate",
        "mpol=interleave:0-3",
        "defaults,,rw",
    ] {
        assert!(tmpfs("/t", options).is_ok(), "{options}");
    }
    for options in [
        "size",
        "size=",
        "size=big",
        "size=-1",
        "size=1t",
        "mode=8",
        "mode=77777",
        "mode=+7",
        "uid=root",
        "uid=-1",
        "uid=4294967295",
        "bind",
        "noswap=1",
        "x",
        "size=1\0",
        "huge=always",
        "size=%",
        "context=x",
        "mpol=a b",
    ] {
        assert!(tmpfs("/t", options).is_err(), "{options}");
    }
    let last = tmpfs("/t", "size=1,size=2,ro,rw").expect("valid");
    assert_eq!(
        last.source,
        MountSource::New {
            fstype: "tmpfs".to_owned(),
            options: vec![("size".to_owned(), "2".to_owned())],
            flags: Vec::new()
        }
    );
    assert_eq!(last.attrs, SECURE);
}

#[test]
fn protected() {
    let security = SecurityOpts::default();
    let facts = HostFacts::sample();
    let (readonly, masked) = protected_paths(&RunSpec::default(), &security, &facts);
    assert_eq!(readonly, READONLY);
    assert_eq!(masked.len(), MASKED.len() + 2);
    assert_eq!(
        masked.last().map(String::as_str),
        Some("/sys/devices/system/cpu/cpu1/thermal_throttle")
    );
    let privileged = RunSpec {
        privileged: true,
        ..RunSpec::default()
    };
    assert_eq!(
        protected_paths(&privileged, &security, &facts),
        (Vec::new(), Vec::new())
    );
    let open = SecurityOpts {
        systempaths_unconfined: true,
        ..SecurityOpts::default()
    };
    assert_eq!(
        protected_paths(&RunSpec::default(), &open, &facts),
        (Vec::new(), Vec::new())
    );
    let own = RunSpec {
        masked_paths: Some(vec!["/x".to_owned()]),
        readonly_paths: Some(Vec::new()),
        ..RunSpec::default()
    };
    assert_eq!(
        protected_paths(&own, &security, &facts),
        (Vec::new(), vec!["/x".to_owned()])
    );
}

#[test]
fn cleaning() {
    for (path, wanted) in [
        ("/a//b/./c/", "/a/b/c"),
        ("/a/../../b", "/b"),
        ("/", "/"),
        ("", "/"),
        ("/..", "/"),
    ] {
        assert_eq!(clean(path), wanted);
    }
}
