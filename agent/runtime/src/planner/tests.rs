use super::*;
use crate::plan;
use crate::spec::{MountSpec, Ulimit};

fn spec() -> RunSpec {
    RunSpec {
        id: "ab".repeat(32),
        name: "web".to_owned(),
        argv: vec!["sh".to_owned()],
        hostname: "abababababab".to_owned(),
        namespaces: crate::spec::NamespaceModes {
            net: NetMode::Joined,
            ..Default::default()
        },
        ..RunSpec::default()
    }
}

fn inputs(more: &[FdRole]) -> Inputs {
    let base = [
        FdRole::Root,
        FdRole::PayloadCgroup,
        FdRole::ExitRecord,
        FdRole::Listener,
        FdRole::NetNs,
    ];
    Inputs {
        ids: Ids::root(),
        seccomp: None,
        devices: Vec::new(),
        roles: [&base, more].concat(),
    }
}

fn make(spec: &RunSpec, inputs: &Inputs) -> Plan {
    plan(spec, &HostFacts::sample(), inputs).expect("can be planned")
}

#[test]
fn a_plain_container() {
    let inputs = inputs(&[
        FdRole::Hosts,
        FdRole::Hostname,
        FdRole::ResolvConf,
        FdRole::MountNs,
    ]);
    let made = make(&spec(), &inputs);
    assert_eq!(plan::decode(&plan::encode(&made)), Ok(made.clone()));
    insta::assert_debug_snapshot!(made);
}

#[test]
fn everything_asked() {
    let spec = RunSpec {
        argv: vec!["/app".to_owned(), "--x".to_owned()],
        env: vec![
            "A=1".to_owned(),
            "PATH=/bin".to_owned(),
            "NOTHING".to_owned(),
            "TERM=vt100".to_owned(),
        ],
        cwd: "/srv//app/".to_owned(),
        domainname: "example".to_owned(),
        tty: true,
        console_size: Some((24, 80)),
        open_stdin: true,
        stdin_once: true,
        rootfs_readonly: true,
        mounts: vec![MountSpec {
            source: "/h".to_owned(),
            target: "/data".to_owned(),
            ..MountSpec::default()
        }],
        cap_drop: vec!["ALL".to_owned()],
        cap_add: vec!["NET_ADMIN".to_owned()],
        security_opt: vec!["no-new-privileges".to_owned()],
        ulimits: vec![Ulimit {
            name: "nofile".to_owned(),
            soft: 10,
            hard: 20,
        }],
        init: true,
        oom_score_adj: 500,
        stop_signal: 2,
        stop_timeout: Some(3),
        log: LogSpec::JsonFile {
            file: "x-json.log".to_owned(),
            max_size: 5,
            max_files: 0,
            attrs: Vec::new(),
        },
        ..spec()
    };
    let ids = Ids {
        uid: 1000,
        gid: 1001,
        groups: vec![5, 1001],
        home: "/home/app".to_owned(),
    };
    let inputs = Inputs {
        ids,
        ..inputs(&[FdRole::Bind(0), FdRole::Log, FdRole::LogDir])
    };
    let made = make(&spec, &inputs);
    assert_eq!(
        made.process.env,
        [
            "PATH=/bin",
            "HOSTNAME=abababababab",
            "TERM=vt100",
            "A=1",
            "HOME=/home/app"
        ]
    );
    assert_eq!(made.process.cwd, "/srv/app");
    assert_eq!(
        (made.process.caps.bounding, made.process.caps.effective),
        (1 << 12, 0)
    );
    assert!(made.process.no_new_privs && made.process.reaper && made.root_readonly);
    assert_eq!(
        made.stdio,
        Stdio {
            stdin: true,
            stdin_once: true,
            terminal: Some((24, 80))
        }
    );
    assert_eq!(
        made.stop,
        StopRule {
            signal: 2,
            timeout_ms: 3000
        }
    );
    assert_eq!(
        made.tree.iter().rev().take(2).collect::<Vec<_>>(),
        [
            &Step::MakeDir {
                path: "/srv/app".to_owned(),
                mode: 0o755
            },
            &Step::Console
        ]
    );
    assert!(matches!(made.log, Log::JsonFile { max_files: 1, .. }));
    assert_eq!(plan::decode(&plan::encode(&made)), Ok(made));
}

#[test]
fn missing_descriptors_are_named() {
    let facts = HostFacts::sample();
    let mut inputs = inputs(&[]);
    inputs.roles.retain(|role| *role != FdRole::NetNs);
    let error = plan(&spec(), &facts, &inputs).expect_err("is refused");
    assert_eq!(
        error,
        SpecError::invalid("the start has no descriptor for NetNs")
    );
    let spec = RunSpec {
        mounts: vec![MountSpec {
            target: "/data".to_owned(),
            ..MountSpec::default()
        }],
        ..spec()
    };
    inputs.roles.push(FdRole::NetNs);
    assert!(plan(&spec, &facts, &inputs).is_err());
}

#[test]
fn a_shared_pid_namespace_needs_no_reaper() {
    let mut spec = RunSpec {
        init: true,
        ..spec()
    };
    assert!(make(&spec, &inputs(&[])).process.reaper);
    spec.namespaces.pid = PidMode::Host;
    assert!(!make(&spec, &inputs(&[])).process.reaper);
}

#[test]
fn host_names_stay_out_of_the_hosts_namespace() {
    let mut spec = spec();
    spec.namespaces.uts = UtsMode::Host;
    let made = make(&spec, &inputs(&[]));
    assert_eq!(made.hostname, "");
    assert!(
        made.process
            .env
            .contains(&"HOSTNAME=abababababab".to_owned())
    );
}

#[test]
fn stop_rules() {
    let rule = |stop_signal, stop_timeout| {
        let rule = stop_rule(&RunSpec {
            stop_signal,
            stop_timeout,
            ..RunSpec::default()
        });
        (rule.signal, rule.timeout_ms)
    };
    assert_eq!(rule(0, None), (15, 10_000));
    assert_eq!(rule(3, Some(0)), (3, 0));
    assert_eq!(rule(0, Some(-1)), (15, -1));
    assert_eq!(rule(0, Some(i64::MAX)), (15, -1));
}
