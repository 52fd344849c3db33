//! A container's life under its monitor: start, signals, stop, exit. Needs root, cgroup2 and busybox.

#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]

mod support;

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use berth_runtime::Blob;
use berth_runtime::exit::ExitRecord;
use berth_runtime::plan::{Log, Ns, Stdio};
use berth_runtime::protocol::{Phase, Reply, Request, Stage, StopBy, start_exit_code};
use support::{Host, plan, raw, read_until, ready, run, sh, with_terminal};

#[test]
fn exit_codes_are_exact() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 42", 42),
        ("kill -9 $$; sleep 1; exit 3", 3),
        ("sh -c 'kill -9 $$'; exit $?", 137),
        ("sh -c 'kill -11 $$'; exit $?", 139),
        ("exit 255", 255),
    ] {
        let Some((got, _)) = sh(script) else { return };
        assert_eq!(got, code, "{script}");
    }
}

#[test]
fn commands_that_cannot_run_say_why() {
    for (argv, code, message) in [
        (
            "nosuch",
            127,
            "exec: \"nosuch\": executable file not found in $PATH",
        ),
        (
            "/no/such",
            127,
            "exec: \"/no/such\": stat /no/such: no such file or directory",
        ),
        ("noexec", 126, "exec: \"noexec\": permission denied"),
        (
            "/bin/noexec",
            126,
            "exec: \"/bin/noexec\": permission denied",
        ),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
        ("badformat", 126, "exec /bin/badformat: exec format error"),
        (
            "badinterp",
            127,
            "exec /bin/badinterp: no such file or directory",
        ),
        ("", 127, "exec: \"\": executable file not found in $PATH"),
    ] {
        let Some(host) = Host::new() else { return };
        let failed = run(&host, plan(&[argv])).unwrap_err();
        assert_eq!(
            (failed.stage, failed.message.as_str()),
            (Stage::Exec, message)
        );
        assert_eq!(start_exit_code(&failed), code, "{argv}");
        // Nothing of it is left, and nobody was told of an exit.
        assert!(!host.cgroup.events().unwrap().populated);
        assert_eq!(host.exit(), None);
        assert!(!host.poked_already());
    }
}

#[test]
fn the_program_waits_for_the_word() {
    let Some(host) = Host::new() else { return };
    let mut running = ready(&host, plan(&["echo", "ran"])).unwrap();
    let mut later = running.connect(&host);
    match later.ask(&Request::State) {
        Reply::State(state) => assert_eq!((state.phase, state.pid), (Phase::Ready, running.pid)),
        other => panic!("{other:?}"),
    }
    assert_eq!(host.log(), "");
    running.go().unwrap();
    assert!(running.wait_monitor().success());
    assert_eq!(host.logged("stdout"), "ran\n");
    assert_eq!(host.wait_poke(), format!("{}\n", support::ID));
}

#[test]
fn an_agent_that_goes_before_the_word_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    let mut running = ready(&host, plan(&["echo", "ran"])).unwrap();
    let pidfd = running.pidfd.take().unwrap();
    running.agent = support::Agent::new(UnixStream::pair().unwrap().0);
    assert!(!running.wait_monitor().success());
    assert!(!berth_sys::pidfd::is_alive(&pidfd).unwrap());
    assert!(!host.cgroup.events().unwrap().populated);
    assert_eq!((host.log().as_str(), host.exit()), ("", None));

    let Some(host) = Host::new() else { return };
    let mut running = ready(&host, plan(&["echo", "ran"])).unwrap();
    running.agent.send(&Request::Abort, &[]);
    match running.agent.reply(running.start).unwrap().0 {
        Reply::StartFailed(failed) => assert_eq!(failed.stage, Stage::Aborted),
        other => panic!("{other:?}"),
    }
    assert!(!running.wait_monitor().success());
    assert_eq!(host.log(), "");
}

#[test]
fn a_killed_monitor_takes_an_uncommitted_start_with_it() {
    let Some(host) = Host::new() else { return };
    let mut running = ready(&host, plan(&["sleep", "600"])).unwrap();
    let pidfd = running.pidfd.take().unwrap();
    running.monitor.kill().unwrap();
    running.wait_monitor();
    assert!(
        berth_sys::poll::wait_readable(&pidfd, Some(std::time::Duration::from_secs(5))).unwrap()
    );
}

#[test]
fn the_record_is_whole_and_watchers_are_told_instead_of_the_agent() {
    let Some(host) = Host::new() else { return };
    let mut plan = plan(&["sh", "-c", "read line; exit 9"]);
    plan.stdio = Stdio {
        stdin: true,
        stdin_once: true,
        terminal: None,
    };
    let mut running = ready(&host, plan).unwrap();
    let (client, ..) = running.agent.attach(raw());
    running.go().unwrap();
    let mut later = running.connect(&host);
    let tag = later.send(&Request::Watch, &[]);
    assert!(matches!(later.ask(&Request::State), Reply::State(_)));
    drop(client);
    let told = match later.reply(tag).unwrap().0 {
        Reply::Exited(record) => record,
        other => panic!("{other:?}"),
    };
    assert!(running.wait_monitor().success());
    let record = host.exit().unwrap();
    assert_eq!(told, record);
    assert_eq!(
        (record.exit_code(), record.pid, record.flags),
        (9, running.pid, 0)
    );
    assert!(record.started_at > 0 && record.finished_at >= record.started_at);
    assert_ne!(record.boot_id, [0; 16]);
    assert!(!host.poked_already());
}

#[test]
fn signals_go_to_the_first_process() {
    let Some(host) = Host::new() else { return };
    let script = "trap 'echo usr; exit 5' USR1; echo up; while :; do sleep 0.05; done";
    let mut running = ready(&host, plan(&["sh", "-c", script])).unwrap();
    let (mut client, ..) = running.agent.attach(raw());
    running.go().unwrap();
    read_until(&mut client, "up\n");
    assert_eq!(
        running.agent.ask(&Request::Signal {
            signal: 10,
            by: None
        }),
        Reply::Done
    );
    assert!(running.wait_monitor().success());
    let record = host.exit().unwrap();
    assert_eq!((record.exit_code(), record.flags), (5, 0));
}

#[test]
fn the_monitor_survives_what_reaches_a_whole_unit() {
    let Some(host) = Host::new() else { return };
    let mut running = ready(&host, plan(&["sleep", "600"])).unwrap();
    running.go().unwrap();
    for signal in [1, 2, 15, 13, 14, 10, 12, 23, 20, 17, 34, 64] {
        berth_sys::pidfd::send_signal(&running.monitor.pidfd, signal).unwrap();
    }
    match running.connect(&host).ask(&Request::State) {
        // SIGURG that is not from PID 1 stops nothing.
        Reply::State(state) => assert_eq!(state.phase, Phase::Running),
        other => panic!("{other:?}"),
    }
    running.agent.ask(&Request::Signal {
        signal: 9,
        by: Some(StopBy::User),
    });
    assert!(running.wait_monitor().success());
    let record = host.exit().unwrap();
    assert_eq!(
        (record.exit_code(), record.flags),
        (137, ExitRecord::FLAG_STOPPED_BY_USER)
    );
}

#[test]
fn a_stop_is_graceful_or_ends_by_force() {
    for (script, timeout, code, flags) in [
        (
            "trap 'exit 3' TERM; echo up; while :; do sleep 0.05; done",
            10_000,
            3,
            0,
        ),
        (
            "trap '' TERM; echo up; sleep 600",
            50,
            137,
            ExitRecord::FLAG_KILLED_AFTER_TIMEOUT,
        ),
        (
            "trap '' TERM; echo up; sleep 600",
            0,
            137,
            ExitRecord::FLAG_KILLED_AFTER_TIMEOUT,
        ),
    ] {
        let Some(host) = Host::new() else { return };
        let mut running = ready(&host, plan(&["sh", "-c", script])).unwrap();
        let (mut client, ..) = running.agent.attach(raw());
        running.go().unwrap();
        read_until(&mut client, "up\n");
        let stop = Request::Stop {
            signal: 15,
            timeout_ms: timeout,
            by: StopBy::User,
        };
        assert_eq!(running.agent.ask(&stop), Reply::Done);
        assert!(running.wait_monitor().success());
        let record = host.exit().unwrap();
        assert_eq!(record.exit_code(), code, "{script}");
        assert_eq!(
            record.flags,
            flags | ExitRecord::FLAG_STOPPED_BY_USER,
            "{script}"
        );
    }
}

#[test]
fn a_second_stop_shortens_the_first() {
    let Some(host) = Host::new() else { return };
    let mut running = ready(&host, plan(&["sh", "-c", "trap '' TERM; sleep 600"])).unwrap();
    running.go().unwrap();
    let stop = |timeout_ms| Request::Stop {
        signal: 15,
        timeout_ms,
        by: StopBy::Agent,
    };
    assert_eq!(running.agent.ask(&stop(-1)), Reply::Done);
    assert_eq!(running.agent.ask(&stop(600_000)), Reply::Done);
    assert_eq!(running.agent.ask(&stop(20)), Reply::Done);
    assert!(running.wait_monitor().success());
    let record = host.exit().unwrap();
    assert!(
        record.has(ExitRecord::FLAG_STOPPED_BY_AGENT)
            && !record.has(ExitRecord::FLAG_STOPPED_BY_USER)
    );
}

#[test]
fn a_paused_container_freezes_without_its_monitor_and_can_be_stopped() {
    let Some(host) = Host::new() else { return };
    let script = "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done";
    let mut running = ready(&host, plan(&["sh", "-c", script])).unwrap();
    let (mut client, ..) = running.agent.attach(raw());
    running.go().unwrap();
    read_until(&mut client, "up\n");
    host.cgroup.freeze(true).unwrap();
    assert!(
        host.cgroup
            .wait_frozen(true, std::time::Duration::from_secs(5))
            .unwrap()
    );
    assert!(matches!(
        running.connect(&host).ask(&Request::State),
        Reply::State(_)
    ));
    let stop = Request::Stop {
        signal: 15,
        timeout_ms: 10_000,
        by: StopBy::User,
    };
    assert_eq!(running.agent.ask(&stop), Reply::Done);
    assert!(running.wait_monitor().success());
    assert_eq!(host.exit().unwrap().exit_code(), 4);
}

#[test]
fn what_a_container_leaves_behind_is_killed() {
    // With a pid namespace of its own the kernel does it; in the host's the monitor must.
    for pid in [Ns::New, Ns::Host] {
        let Some(host) = Host::new() else { return };
        let mut plan = plan(&[
            "sh",
            "-c",
            "(trap '' HUP; sleep 600) & (sleep 0.01; sleep 0.01) & echo left; exit 6",
        ]);
        plan.namespaces.pid = pid;
        let record = run(&host, plan).unwrap();
        assert_eq!(
            (record.exit_code(), host.logged("stdout").as_str()),
            (6, "left\n")
        );
        assert!(!host.cgroup.events().unwrap().populated);
    }
}

#[test]
fn an_outsider_that_holds_a_stream_does_not_hold_the_end() {
    let Some(host) = Host::new() else { return };
    let mut running = ready(&host, plan(&["sh", "-c", "echo said; sleep 600"])).unwrap();
    let (mut client, ..) = running.agent.attach(raw());
    running.go().unwrap();
    read_until(&mut client, "said\n");
    // Opens the container's output from outside, as a process that left the cgroup would have it.
    let path = format!("/proc/{}/fd/1", running.pid);
    let outsider = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    running.agent.ask(&Request::Signal {
        signal: 9,
        by: None,
    });
    assert!(running.wait_monitor().success());
    assert_eq!(host.exit().unwrap().exit_code(), 137);
    drop(outsider);
    assert_eq!(host.logged("stdout"), "said\n");
}

#[test]
fn a_reaper_forwards_reaps_and_ends_with_its_program() {
    let Some(host) = Host::new() else { return };
    let script = "trap 'echo term; exit 8' TERM; (sh -c 'sleep 0.01 &'); echo up; while :; do sleep 0.05; done";
    let mut plan = plan(&["sh", "-c", script]);
    plan.process.reaper = true;
    let mut running = ready(&host, plan).unwrap();
    let (mut client, ..) = running.agent.attach(raw());
    running.go().unwrap();
    read_until(&mut client, "up\n");
    running.agent.ask(&Request::Signal {
        signal: 15,
        by: None,
    });
    assert!(running.wait_monitor().success());
    assert_eq!(
        (
            host.exit().unwrap().exit_code(),
            host.logged("stdout").as_str()
        ),
        (8, "up\nterm\n")
    );

    let Some(host) = Host::new() else { return };
    let mut plan = support::plan(&["nosuch"]);
    plan.process.reaper = true;
    let failed = run(&host, plan).unwrap_err();
    assert_eq!(start_exit_code(&failed), 127);
}

#[test]
fn the_terminals_keys_reach_the_program_behind_a_reaper() {
    let Some(host) = Host::new() else { return };
    let script = "trap 'echo int; exit 9' INT; echo up; while :; do sleep 0.05; done";
    let mut plan = with_terminal(plan(&["sh", "-c", script]), (24, 80));
    plan.process.reaper = true;
    let mut running = ready(&host, plan).unwrap();
    let (mut client, ..) = running.agent.attach(raw());
    running.go().unwrap();
    read_until(&mut client, "up\r\n");
    client.write_all(b"\x03").unwrap();
    assert!(running.wait_monitor().success());
    assert_eq!(host.exit().unwrap().exit_code(), 9);
}

#[test]
fn the_hosts_mount_namespace_does_to_start_from() {
    let Some(host) = Host::new() else { return };
    let mut plan = plan(&["sh", "-c", "grep -c . /proc/self/mountinfo; ls /"]);
    plan.masked_paths.clear();
    plan.readonly_paths.clear();
    let mut running = support::ready_from(&host, plan, Vec::new(), false).unwrap();
    running.go().unwrap();
    assert!(running.wait_monitor().success());
    // The root and the seven mounts of the plan.
    assert_eq!(
        host.logged("stdout"),
        "8\nbin\nclosed\ndev\netc\nproc\nroot\nsys\ntmp\n"
    );
    assert_eq!(host.wait_poke(), format!("{}\n", support::ID));
}

#[test]
fn a_stranger_is_not_served() {
    let Some(host) = Host::new() else { return };
    let mut running = ready(&host, plan(&["sleep", "600"])).unwrap();
    running.go().unwrap();
    // Not greeted.
    let mut rude = support::Agent::new(UnixStream::connect(host.path("container.sock")).unwrap());
    let tag = rude.send(
        &Request::Signal {
            signal: 9,
            by: None,
        },
        &[],
    );
    assert!(rude.reply(tag).is_none());
    // Not the protocol.
    let mut noise = UnixStream::connect(host.path("container.sock")).unwrap();
    noise.write_all(&[0xff; 64]).unwrap();
    assert_eq!(noise.read(&mut [0; 8]).unwrap_or(0), 0);
    // A second start.
    let reply = running.agent.ask(&Request::Start(Box::new(tiny())));
    assert!(matches!(reply, Reply::Failed { .. }), "{reply:?}");
    let exec = running.agent.ask(&Request::Exec(Blob(Vec::new())));
    assert!(matches!(exec, Reply::Failed { .. }));
    assert!(berth_sys::pidfd::is_alive(running.pidfd.as_ref().unwrap().as_fd()).unwrap());
}

fn tiny() -> berth_runtime::plan::Plan {
    use berth_runtime::plan::FdRole;
    let mut plan = plan(&["true"]);
    plan.log = Log::None;
    plan.namespaces.net = Ns::Host;
    plan.fds = vec![
        FdRole::Root,
        FdRole::PayloadCgroup,
        FdRole::ExitRecord,
        FdRole::Listener,
    ];
    plan
}

#[test]
fn the_service_managers_signal_is_a_graceful_stop() {
    let Some(host) = Host::new() else { return };
    let script = "trap 'echo int; exit 5' INT; trap 'echo term; exit 6' TERM; echo up; while :; do sleep 0.05; done";
    let mut plan = plan(&["sh", "-c", script]);
    plan.stop = berth_runtime::plan::StopRule {
        signal: 15,
        timeout_ms: 10_000,
    };
    plan.namespaces.net = Ns::Host;
    plan.sysctls.clear();
    // A thread whose children are to be in another pid namespace can start no thread itself.
    support::empty_mount_ns();
    // A pid namespace in which a shell is number 1, as a service manager is; the monitor lives there.
    let (mut manager, mut running) = berth_sys::ns::in_thread(|| {
        berth_sys::ns::unshare(berth_sys::ns::Namespaces::PID).unwrap();
        let manager = support::shell("read pid; kill -URG $pid; sleep 600");
        (manager, ready(&host, plan).unwrap())
    })
    .unwrap();
    let (mut client, ..) = running.agent.attach(raw());
    running.go().unwrap();
    read_until(&mut client, "up\n");
    let mut later = running.connect_as(&host, 2);
    let rule = Request::SetStop {
        signal: 2,
        timeout_ms: 20_000,
    };
    assert_eq!(later.ask(&rule), Reply::Done);
    writeln!(manager.0.stdin.take().unwrap(), "2").unwrap();
    assert!(running.wait_monitor().success());
    let record = host.exit().unwrap();
    assert_eq!(
        (record.exit_code(), record.flags),
        (5, ExitRecord::FLAG_STOPPED_BY_UNIT)
    );
}
