//! What a container sees from inside, with real containers. Needs root, cgroup2 and busybox.

#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]

mod support;

use berth_runtime::plan::{FdRole, MountAttrs, Process, Step};
use berth_runtime::protocol::Stage;
use support::{Host, bind, own, plan, run, sh, with_terminal};

fn out(script: &str) -> Option<String> {
    let (code, text) = sh(script)?;
    assert_eq!(code, 0, "{text}");
    Some(text)
}

#[test]
fn the_process_is_confined() {
    let Some(text) = out("exec cat /proc/self/status") else {
        return;
    };
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "0");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("Umask:"), "0022");
    assert_eq!(field("SigBlk:"), "0000000000000000");
    assert_eq!(field("SigIgn:"), "0000000000000000");
    assert_eq!(field("NSpid:"), field("Pid:"));
}

#[test]
fn the_tree_is_dockers() {
    let Some(text) = out("cat /proc/self/mountinfo") else {
        return;
    };
    let mounts: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let find = |target: &str| {
        let found = mounts.iter().rfind(|fields| fields[4] == target);
        let fields = found.unwrap_or_else(|| panic!("{target} in\n{text}"));
        let dash = fields.iter().position(|field| *field == "-").unwrap();
        (
            fields[5].to_owned(),
            fields[dash + 1].to_owned(),
            fields[6..dash].to_vec(),
        )
    };
    for (target, fstype, options) in [
        ("/", "tmpfs", "rw,relatime"),
        ("/proc", "proc", "rw,nosuid,nodev,noexec,relatime"),
        ("/dev", "tmpfs", "rw,nosuid"),
        ("/dev/pts", "devpts", "rw,nosuid,noexec,relatime"),
        ("/sys", "sysfs", "ro,nosuid,nodev,noexec,relatime"),
        (
            "/sys/fs/cgroup",
            "cgroup2",
            "ro,nosuid,nodev,noexec,relatime",
        ),
        ("/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec,relatime"),
        ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec,relatime"),
        ("/proc/sys", "proc", "ro,nosuid,nodev,noexec,relatime"),
        ("/proc/keys", "tmpfs", "rw,nosuid,noexec,relatime"),
        ("/sys/firmware", "tmpfs", "ro,nosuid,nodev,noexec,relatime"),
    ] {
        let (found_options, found_type, propagation) = find(target);
        assert_eq!(
            (found_options.as_str(), found_type.as_str()),
            (options, fstype),
            "{target}"
        );
        assert!(
            propagation.is_empty(),
            "{target} propagates: {propagation:?}"
        );
    }
    // Nothing of the host, and nothing of the set-up: each mount is one of the plan's.
    for fields in &mounts {
        let target = fields[4];
        assert!(
            ["/", "/proc", "/sys", "/dev"].contains(&target)
                || ["/proc/", "/sys/", "/dev/"]
                    .iter()
                    .any(|place| target.starts_with(place)),
            "{text}"
        );
    }
}

#[test]
fn nothing_leaks() {
    // Without a shell, which opens descriptors of its own: the fourth is the listed directory.
    let Some(host) = Host::new() else { return };
    run(&host, plan(&["ls", "/proc/1/fd"])).unwrap();
    assert_eq!(host.logged("stdout"), "0\n1\n2\n3\n");
    let Some(text) =
        out("readlink /proc/1/cwd; readlink /proc/1/root; cat /proc/1/environ | tr '\\0' '\\n'")
    else {
        return;
    };
    assert!(text.starts_with("/\n/\n"), "{text}");
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("PATH="))
            .count(),
        1
    );
    assert!(
        text.lines()
            .skip(2)
            .all(|line| line.starts_with("PATH=") || line.starts_with("HOME=")),
        "{text}"
    );
}

#[test]
fn devices_work_and_masks_hold() {
    let Some(text) = out(
        "stat -c '%n %F %t:%T %a' /dev/null /dev/tty /dev/full; readlink /dev/ptmx; readlink /dev/stdout; \
         head -c 4 /dev/zero | od -An -tx1; wc -c < /proc/timer_list; wc -c < /proc/keys; ls /sys/firmware | wc -l; \
         (echo 1 > /proc/sys/kernel/core_uses_pid) 2>/dev/null && echo WRITABLE; \
         (echo x > /sys/fs/cgroup/cgroup.freeze) 2>/dev/null && echo WRITABLE; \
         mount -t tmpfs none /tmp 2>/dev/null && echo MOUNTED; echo end",
    ) else {
        return;
    };
    assert_eq!(
        text,
        "/dev/null character special file 1:3 666\n/dev/tty character special file 5:0 666\n\
         /dev/full character special file 1:7 666\npts/ptmx\n/proc/self/fd/1\n 00 00 00 00\n0\n0\n0\nend\n"
    );
}

#[test]
fn names_ids_and_namespaces() {
    let Some(text) = out(
        "hostname; echo $$; id -u; grep 0:: /proc/self/cgroup; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /sys/class/net; echo /proc/[0-9]*",
    ) else {
        return;
    };
    assert_eq!(text, "box\n1\n0\n0::/\n0\nlo\n/proc/1\n");
}

#[test]
fn a_user_has_no_capabilities_and_owns_its_streams() {
    let Some(host) = Host::new() else { return };
    let mut plan = plan(&[
        "sh",
        "-c",
        "id; grep Cap /proc/self/status; echo again > /dev/stdout; echo wrong > /dev/stderr; umask; pwd",
    ]);
    plan.process = Process {
        uid: 1000,
        gid: 1001,
        groups: vec![7, 8],
        cwd: "/closed".into(),
        umask: 0o077,
        caps: berth_runtime::plan::Capabilities {
            effective: 0,
            permitted: 0,
            ..plan.process.caps
        },
        no_new_privs: true,
        ..plan.process
    };
    let record = run(&host, plan).unwrap();
    let text = host.logged("stdout");
    assert_eq!(record.exit_code(), 0, "{text} {}", host.logged("stderr"));
    assert!(text.starts_with("uid=1000 gid=1001 groups=7,8\n"), "{text}");
    assert!(
        text.contains(
            "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\n"
        ),
        "{text}"
    );
    assert!(text.ends_with("again\n0077\n/closed\n"), "{text}");
    assert_eq!(host.logged("stderr"), "wrong\n");
}

#[test]
fn limits_filter_and_oom_score_are_in_force() {
    let Some(text) = out("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj") else {
        return;
    };
    assert_eq!(text, "1000\n2000\n0\n");
    let Some(host) = Host::new() else { return };
    let mut plan = plan(&[
        "sh",
        "-c",
        "cat /proc/1/oom_score_adj; touch /x 2>&1; touch /tmp/x 2>&1",
    ]);
    plan.process.oom_score_adj = 500;
    plan.root_readonly = true;
    run(&host, plan).unwrap();
    let text = host.logged("stdout");
    assert!(
        text.starts_with("500\ntouch: /x: Read-only file system\n"),
        "{text}"
    );
}

#[test]
fn a_working_directory_leads_nowhere_else() {
    for cwd in [
        "/proc/self/fd/3",
        "/proc/self/fd/7",
        "/proc/1/root/..",
        "/nothing",
        "/etc/passwd",
    ] {
        let Some(host) = Host::new() else { return };
        let mut plan = plan(&["pwd"]);
        plan.process.cwd = cwd.into();
        let failed = match run(&host, plan) {
            Err(failed) => failed,
            // A link that stays inside is fine.
            Ok(record) => {
                assert_eq!(record.exit_code(), 0);
                assert_eq!(host.logged("stdout"), "/\n", "{cwd}");
                continue;
            }
        };
        assert_eq!(failed.stage, Stage::WorkingDirectory, "{cwd}");
        assert!(
            failed
                .message
                .starts_with(&format!("chdir to cwd ({cwd:?})")),
            "{}",
            failed.message
        );
    }
}

#[test]
fn binds_and_their_places() {
    let Some(host) = Host::new() else { return };
    let shared = host.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("file"), "from the host\n").unwrap();
    std::fs::write(host.path("single"), "one file\n").unwrap();
    let clone = |name: &str| {
        berth_sys::mount::clone_tree(
            berth_sys::path::open_host(host.path(name), berth_sys::path::OFlags::PATH).unwrap(),
            true,
        )
        .unwrap()
    };
    let mut wanted = plan(&[
        "sh",
        "-c",
        "cat /a/b/file /etc/single; touch /a/b/x 2>&1; touch /rw/made",
    ]);
    wanted.tree.push(bind(0, "/a/b", MountAttrs::RDONLY));
    wanted.tree.push(bind(1, "/etc/single", MountAttrs::NONE));
    wanted.tree.push(bind(2, "/rw", MountAttrs::NONE));
    let fds = vec![
        (FdRole::Bind(0), clone("shared")),
        (FdRole::Bind(1), clone("single")),
        (FdRole::Bind(2), clone("shared")),
    ];
    let mut running = support::ready_with(&host, wanted, fds).unwrap();
    running.go().unwrap();
    assert!(running.wait_monitor().success());
    assert_eq!(
        host.logged("stdout"),
        "from the host\none file\ntouch: /a/b/x: Read-only file system\n"
    );
    assert!(shared.join("made").exists());

    for (target, message) in [
        ("/", "invalid mount: / is the container's root"),
        ("/proc", "invalid mount: /proc would cover /proc"),
        ("/proc/self", "invalid mount: /proc/self would cover /proc"),
        ("/sys", "invalid mount: /sys would cover /sys"),
        ("/lnk", "invalid mount: /lnk would cover /proc"),
    ] {
        let Some(host) = Host::new() else { return };
        rustix::fs::symlinkat("/../proc/self/attr", &host.root, "lnk").unwrap();
        let tree = berth_sys::mount::clone_tree(berth_sys::path::open_root(&shared).unwrap(), true)
            .unwrap();
        let mut plan = plan(&["true"]);
        plan.tree.push(bind(0, target, MountAttrs::NONE));
        let failed = support::ready_with(&host, plan, vec![(FdRole::Bind(0), tree)])
            .err()
            .unwrap();
        assert_eq!(
            (failed.stage, failed.message.as_str()),
            (Stage::Mount, message)
        );
    }
}

#[test]
fn an_image_cannot_lead_our_mounts_astray() {
    let secret = tempfile::tempdir().unwrap();
    for (name, stage) in [
        ("proc", Stage::Mount),
        ("sys", Stage::Mount),
        ("dev", Stage::Mount),
    ] {
        let Some(host) = Host::new() else { return };
        rustix::fs::unlinkat(&host.root, name, rustix::fs::AtFlags::REMOVEDIR).unwrap();
        rustix::fs::symlinkat(secret.path(), &host.root, name).unwrap();
        let failed = run(&host, plan(&["true"])).unwrap_err();
        assert_eq!(failed.stage, stage, "{name}: {}", failed.message);
    }
    assert_eq!(std::fs::read_dir(secret.path()).unwrap().count(), 0);
}

#[test]
fn a_covered_proc_is_no_place_for_masks() {
    let Some(host) = Host::new() else { return };
    let mut plan = plan(&["true"]);
    plan.tree.push(own("/proc", "tmpfs", &[], MountAttrs::NONE));
    let failed = run(&host, plan).unwrap_err();
    assert_eq!(failed.stage, Stage::Mask);
    assert_eq!(failed.message, "/proc of the container is not the kernel's");
}

#[test]
fn a_terminal_is_the_containers_own() {
    let Some(host) = Host::new() else { return };
    let script = "tty; stty size; stat -c %t:%T /dev/console; echo $(ls /dev/pts); echo $(ls /proc/self/fd); [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all; echo through > /dev/tty; id -u";
    let mut plan = with_terminal(plan(&["sh", "-c", script]), (33, 99));
    plan.process.uid = 1000;
    plan.process.caps.effective = 0;
    plan.process.caps.permitted = 0;
    let record = run(&host, plan).unwrap();
    let text = host.logged("stdout");
    assert_eq!(record.exit_code(), 0, "{text}");
    let text = text.replace("\r\n", "\n");
    assert_eq!(
        text,
        "/dev/pts/0\n33 99\n88:0\n0 ptmx\n0 1 2 3\nall\nthrough\n1000\n"
    );
}

#[test]
fn no_terminal_means_no_console() {
    let Some((_, text)) = sh("ls /dev/console 2>&1; ls /dev/pts; tty") else {
        return;
    };
    assert_eq!(
        text,
        "ls: /dev/console: No such file or directory\nptmx\nnot a tty\n"
    );
}

#[test]
fn a_reaper_has_nothing_of_the_monitor() {
    let Some(host) = Host::new() else { return };
    let script = "echo $$; ls -l /proc/1/fd >&2; ls -l /proc/1/fd | wc -l; cat /proc/1/comm; grep -E 'Cap|Seccomp:' /proc/1/status; \
                  grep -E 'Cap|Seccomp:' /proc/self/status; (echo x > /proc/1/exe) 2>/dev/null && echo WRITTEN; exit 7";
    let mut plan = plan(&["sh", "-c", script]);
    plan.process.reaper = true;
    // With the right to look into PID 1.
    let caps = support::DOCKER_CAPS | 1 << 19;
    plan.process.caps.bounding = caps;
    plan.process.caps.effective = caps;
    plan.process.caps.permitted = caps;
    let record = run(&host, plan).unwrap();
    assert_eq!(record.exit_code(), 7);
    let text = host.logged("stdout");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "2");
    // "total 0", three streams and the signals.
    assert_eq!(lines[1], "5", "{text}{}", host.logged("stderr"));
    assert_eq!(lines[2], "berth-init");
    let half = (lines.len() - 3) / 2;
    assert_eq!(lines[3..3 + half], lines[3 + half..], "{text}");
    assert!(!text.contains("WRITTEN"));
}

#[test]
fn steps_that_fail_say_which() {
    let Some(host) = Host::new() else { return };
    let mut plan = plan(&["true"]);
    plan.tree.push(Step::Symlink {
        path: "/dev/null".into(),
        target: "x".into(),
    });
    let failed = run(&host, plan).unwrap_err();
    assert_eq!(failed.stage, Stage::Device);
    assert_eq!(failed.message, "linking /dev/null to x: file exists");
    assert_eq!(host.exit(), None);
}
