//! Plans of ordinary containers, written out by hand so that a test can change each part.

use berth_runtime::Blob;
use berth_runtime::plan::{
    Capabilities, Create, FdRole, Log, Mount, MountAttrs, MountSource, Namespaces, Node, NodeKind,
    Ns, Plan, Process, Propagation, Rlimit, Seccomp, Stdio, Step, StopRule, Sysctl, TargetKind,
};

use super::ID;

pub const DOCKER_CAPS: u64 = 0xa804_25fb;

pub fn own(target: &str, fstype: &str, options: &[(&str, &str)], attrs: MountAttrs) -> Step {
    Step::Mount(Mount {
        target: target.into(),
        kind: TargetKind::Own,
        source: MountSource::New {
            fstype: fstype.into(),
            options: options
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            flags: Vec::new(),
        },
        attrs,
        clear: MountAttrs::NONE,
        recursive: false,
        propagation: Propagation::Private,
        propagation_recursive: false,
        create: Create::Directory,
        mode_of_target: false,
    })
}

/// A bind of the request.
pub fn bind(number: u16, target: &str, attrs: MountAttrs) -> Step {
    Step::Mount(Mount {
        target: target.into(),
        kind: TargetKind::Request,
        source: MountSource::Fd(FdRole::Bind(number)),
        attrs,
        clear: MountAttrs::NONE,
        recursive: true,
        propagation: Propagation::Private,
        propagation_recursive: true,
        create: Create::LikeSource,
        mode_of_target: false,
    })
}

fn tree(terminal: bool) -> Vec<Step> {
    let quiet = MountAttrs::NOSUID
        .with(MountAttrs::NODEV)
        .with(MountAttrs::NOEXEC);
    let mut steps = vec![
        own("/proc", "proc", &[], quiet),
        own(
            "/dev",
            "tmpfs",
            &[("mode", "755"), ("size", "65536k")],
            MountAttrs::NOSUID.with(MountAttrs::STRICTATIME),
        ),
        own(
            "/dev/pts",
            "devpts",
            &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
            MountAttrs::NOSUID.with(MountAttrs::NOEXEC),
        ),
        own("/sys", "sysfs", &[], quiet.with(MountAttrs::RDONLY)),
        own(
            "/sys/fs/cgroup",
            "cgroup2",
            &[],
            quiet.with(MountAttrs::RDONLY),
        ),
        own("/dev/mqueue", "mqueue", &[], quiet),
        own(
            "/dev/shm",
            "tmpfs",
            &[("mode", "1777"), ("size", "64m")],
            quiet,
        ),
    ];
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        steps.push(Step::Node(Node {
            path: format!("/dev/{name}"),
            kind: NodeKind::Char,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        }));
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        steps.push(Step::Symlink {
            path: format!("/dev/{name}"),
            target: target.into(),
        });
    }
    if terminal {
        steps.push(Step::Console);
    }
    steps
}

/// Allows everything but personality(2), which it answers with EPERM.
pub fn filter() -> Seccomp {
    let number = u32::try_from(135).unwrap();
    let mut bytes = Vec::new();
    for (code, jt, jf, k) in [
        (0x20_u16, 0_u8, 0_u8, 0_u32),
        (0x15, 0, 1, number),
        (0x06, 0, 0, 0x0005_0001),
        (0x06, 0, 0, 0x7fff_0000),
    ] {
        bytes.extend(code.to_ne_bytes());
        bytes.extend([jt, jf]);
        bytes.extend(k.to_ne_bytes());
    }
    Seccomp {
        program: Blob(bytes),
        flags: 0,
    }
}

/// The plan of an ordinary container that runs `argv`.
pub fn plan(argv: &[&str]) -> Plan {
    Plan {
        id: ID.into(),
        title: "berth-test-mon".into(),
        fds: Vec::new(),
        namespaces: Namespaces {
            net: Ns::Join,
            pid: Ns::New,
            ipc: Ns::New,
            uts: Ns::New,
            cgroup: Ns::New,
        },
        hostname: "box".into(),
        domainname: String::new(),
        tree: tree(false),
        sysctls: vec![Sysctl {
            path: "net/ipv4/ip_unprivileged_port_start".into(),
            value: "0".into(),
            optional: true,
        }],
        readonly_paths: [
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        ]
        .map(String::from)
        .into(),
        masked_paths: [
            "/proc/acpi",
            "/proc/kcore",
            "/proc/keys",
            "/proc/timer_list",
            "/proc/nothing",
            "/sys/firmware",
        ]
        .map(String::from)
        .into(),
        root_readonly: false,
        process: Process {
            argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec!["PATH=/usr/bin:/bin".into(), "HOME=/root".into()],
            cwd: "/".into(),
            umask: 0o022,
            caps: Capabilities {
                bounding: DOCKER_CAPS,
                effective: DOCKER_CAPS,
                permitted: DOCKER_CAPS,
                inheritable: 0,
                ambient: 0,
            },
            seccomp: Some(filter()),
            rlimits: vec![Rlimit {
                resource: 7,
                soft: 1000,
                hard: 2000,
            }],
            keyring: "_berth".into(),
            ..Process::default()
        },
        stdio: Stdio::default(),
        log: Log::JsonFile {
            name: "log".into(),
            max_size: 0,
            max_files: 1,
            attrs: Vec::new(),
        },
        stop: StopRule {
            signal: 15,
            timeout_ms: 10_000,
        },
        monitor_oom_score_adj: -999,
    }
}

pub fn with_terminal(mut plan: Plan, size: (u16, u16)) -> Plan {
    plan.stdio = Stdio {
        stdin: true,
        stdin_once: false,
        terminal: Some(size),
    };
    plan.tree = tree(true);
    plan
}
