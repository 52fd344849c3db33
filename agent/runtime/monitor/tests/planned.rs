//! Plans as the planner makes them, carried out. Needs root, cgroup2 and busybox.

#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]

mod support;

use std::os::fd::{AsFd, OwnedFd};

use berth_runtime::hostfacts::HostFacts;
use berth_runtime::plan::FdRole;
use berth_runtime::planner::{Inputs, plan};
use berth_runtime::spec::{LogSpec, NamespaceModes, NetMode, RunSpec};
use berth_runtime::user::{Ids, resolve};
use berth_sys::mount::clone_tree;
use berth_sys::path::{OFlags, open_host};
use support::{Host, host_fds, netns, start};

fn spec(script: &str) -> RunSpec {
    RunSpec {
        id: support::ID.into(),
        name: "web".into(),
        argv: vec!["sh".into(), "-c".into(), script.into()],
        hostname: "0123456789ab".into(),
        namespaces: NamespaceModes {
            net: NetMode::Joined,
            ..NamespaceModes::default()
        },
        log: LogSpec::JsonFile {
            file: "log".into(),
            max_size: 0,
            max_files: 1,
            attrs: Vec::new(),
        },
        ..RunSpec::default()
    }
}

/// Runs it and gives its standard output.
fn run(spec: &RunSpec) -> Option<String> {
    let host = Host::new()?;
    let mut fds = host_fds(&host, true);
    fds.push((
        FdRole::MountNs,
        berth_sys::fd::dup(support::empty_mount_ns()).unwrap(),
    ));
    fds.push((FdRole::NetNs, netns()));
    for (role, name) in [
        (FdRole::Hosts, "hosts"),
        (FdRole::Hostname, "hostname"),
        (FdRole::ResolvConf, "resolv"),
    ] {
        std::fs::write(host.path(name), format!("{name} of the agent\n")).unwrap();
        let file: OwnedFd = open_host(host.path(name), OFlags::PATH).unwrap();
        fds.push((role, clone_tree(file, false).unwrap()));
    }
    let ids: Ids = resolve(host.root.as_fd(), &spec.user, &spec.group_add).unwrap();
    let inputs = Inputs {
        ids,
        seccomp: Some(support::filter()),
        devices: Vec::new(),
        roles: fds.iter().map(|(role, _)| *role).collect(),
    };
    let plan = plan(spec, &HostFacts::read().unwrap(), &inputs).unwrap();
    let mut running = start(plan, &fds).unwrap();
    running.go().unwrap();
    assert!(running.wait_monitor().success());
    assert_eq!(host.exit().unwrap().exit_code(), 0, "{}", host.log());
    Some(host.logged("stdout"))
}

#[test]
fn a_plain_container() {
    let script = "hostname; pwd; env | sort; cat /etc/hosts /etc/hostname /etc/resolv.conf; grep -c . /proc/self/mountinfo > /dev/null; \
                  stat -c %a /dev/shm; grep CapEff /proc/self/status";
    let Some(text) = run(&spec(script)) else {
        return;
    };
    assert_eq!(
        text,
        "0123456789ab\n/\nHOME=/root\nHOSTNAME=0123456789ab\n\
         PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/\nSHLVL=1\n\
         hosts of the agent\nhostname of the agent\nresolv of the agent\n1777\nCapEff:\t00000000a80425fb\n"
    );
}

#[test]
fn an_elaborate_one() {
    let script = "tty > /dev/null && echo tty; id; pwd; touch /x 2>/dev/null || echo ro; grep -E 'NoNewPrivs|CapBnd' /proc/self/status; \
                  touch /scratch/y && stat -c %a /scratch; ulimit -n; cat /proc/sys/kernel/msgmax; cat /proc/1/comm";
    let mut spec = RunSpec {
        cwd: "/srv/new".into(),
        user: "1000:7".into(),
        tty: true,
        open_stdin: true,
        rootfs_readonly: true,
        init: true,
        cap_drop: vec!["ALL".into()],
        cap_add: vec!["kill".into()],
        security_opt: vec!["no-new-privileges".into()],
        sysctls: [("kernel.msgmax".to_owned(), "9000".to_owned())].into(),
        ..spec(script)
    };
    spec.tmpfs
        .insert("/scratch".into(), "size=1m,mode=1777".into());
    spec.ulimits.push(berth_runtime::spec::Ulimit {
        name: "nofile".into(),
        soft: 99,
        hard: 100,
    });
    let Some(text) = run(&spec) else { return };
    assert_eq!(
        text.replace("\r\n", "\n"),
        "tty\nuid=1000 gid=7 groups=7\n/srv/new\nro\nCapBnd:\t0000000000000020\nNoNewPrivs:\t1\n\
         1777\n99\n9000\nberth-init\n"
    );
}

#[test]
fn a_privileged_one() {
    let script = "grep -E 'CapEff|Seccomp:' /proc/self/status | tr '\\n' ' '; mount -t tmpfs none /tmp && echo mounted; \
                  test -w /proc/sys/kernel/core_pattern && echo writable";
    let spec = RunSpec {
        privileged: true,
        ..spec(script)
    };
    let Some(text) = run(&spec) else { return };
    assert!(text.contains("mounted\nwritable\n"), "{text}");
}
