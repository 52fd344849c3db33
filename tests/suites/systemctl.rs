//! systemd's own tools on containers: status, stop, kill, freeze, set-property, the journal; and what restarts of the
//! agent, of the bus and of systemd itself leave unchanged.

use berth_tests::lab::Lab;

use crate::support::{PATIENT, clean, inspect, patient, run_detached, wait_exit, wait_for_line};

#[test]
fn the_installed_units_verify() {
    clean(|lab| {
        let run = lab.exec(&[
            "sh",
            "-c",
            "systemd-analyze verify /usr/lib/systemd/system/berth*",
        ]);
        assert_eq!(
            (run.code(), run.stdout().as_str(), run.stderr().as_str()),
            (0, "", ""),
            "{}",
            run.describe()
        );
    });
}

#[test]
fn status_shows_name_and_image() {
    clean(|lab| {
        let id = patient(lab, &["--name", "seen"]);
        let text = lab
            .exec(&[
                "systemctl",
                "status",
                "--no-pager",
                "--full",
                &Lab::scope(&id),
            ])
            .ok();
        assert!(text.contains("Container seen (busybox)"), "{text}");
        for part in ["payload", "monitor", "sleep 1000", "active (running)"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let tree = lab.exec(&["systemd-cgls", "--no-pager", "--full"]).ok();
        assert!(
            tree.contains("berth.slice") && tree.contains(&Lab::scope(&id)),
            "{tree}"
        );
        lab.docker(&["rename", "seen", "renamed"]).ok();
        assert_eq!(
            lab.unit(&Lab::scope(&id), "Description"),
            "Container renamed (busybox)"
        );
    });
}

#[test]
fn the_scope_is_what_the_design_says() {
    clean(|lab| {
        let id = patient(lab, &["--stop-timeout", "20"]);
        for (property, value) in [
            ("Slice", "berth.slice"),
            ("Delegate", "yes"),
            ("KillSignal", "23"),
            ("SendSIGKILL", "yes"),
            ("KillMode", "control-group"),
            ("CollectMode", "inactive-or-failed"),
            ("TimeoutStopUSec", "25s"),
            ("DefaultDependencies", "no"),
        ] {
            assert_eq!(lab.unit(&Lab::scope(&id), property), value, "{property}");
        }
        let conflicts = lab.unit(&Lab::scope(&id), "Conflicts");
        assert!(conflicts.contains("shutdown.target"), "{conflicts}");
    });
}

/// `systemctl stop` of a scope is `docker stop`, whoever is there: exit code 7.
#[track_caller]
fn stop_is_graceful(lab: &Lab, prepare: impl FnOnce(&Lab)) {
    let id = patient(lab, &[]);
    prepare(lab);
    lab.exec(&["systemctl", "stop", &Lab::scope(&id)]).ok();
    assert_eq!(wait_exit(lab, &id), 7);
    let state = inspect(lab, &id);
    assert_eq!(state["State"]["Status"], "exited");
    assert_eq!(state["State"]["ExitCode"], 7);
    assert_eq!(state["RestartCount"], 0);
    assert_eq!(
        lab.exec(&["systemctl", "is-active", &Lab::scope(&id)])
            .stdout(),
        "inactive"
    );
    lab.docker(&["rm", &id]).ok();
}

#[test]
fn stop_with_the_agent_running() {
    clean(|lab| stop_is_graceful(lab, |_| {}));
}

#[test]
fn stop_with_the_agent_gone() {
    clean(|lab| stop_is_graceful(lab, Lab::stop_agent));
}

#[test]
fn stop_with_the_agent_killed() {
    clean(|lab| stop_is_graceful(lab, Lab::crash_agent));
}

#[test]
fn stop_after_a_restart_of_the_bus() {
    clean(|lab| {
        stop_is_graceful(lab, |lab| {
            lab.exec(&["systemctl", "restart", "dbus.service"]).ok();
        });
    });
}

#[test]
fn stop_signals_the_first_process_alone() {
    clean(|lab| {
        // A child that would say so if the stop signal came to it. (The unit's own signal, SIGURG, is sent to all.)
        let text = "sh -c 'trap \"echo child was told\" TERM; while :; do sleep 1000 & wait; done' & \
                    trap 'echo parent; exit 7' TERM; echo ready; wait";
        let id = run_detached(lab, &["busybox", "sh", "-c", text]);
        wait_for_line(lab, &id, "ready");
        lab.exec(&["systemctl", "stop", &Lab::scope(&id)]).ok();
        assert_eq!(wait_exit(lab, &id), 7);
        assert_eq!(lab.docker(&["logs", &id]).ok(), "ready\nparent");
    });
}

#[test]
fn stop_of_the_deaf_kills_after_the_grace() {
    clean(|lab| {
        let id = run_detached(
            lab,
            &[
                "--stop-timeout",
                "1",
                "busybox",
                "sh",
                "-c",
                "trap '' TERM; echo ready; sleep 1000 & wait",
            ],
        );
        wait_for_line(lab, &id, "ready");
        lab.stop_agent();
        lab.exec(&["systemctl", "stop", &Lab::scope(&id)]).ok();
        assert_eq!(wait_exit(lab, &id), 137);
    });
}

#[test]
fn stop_of_the_paused() {
    clean(|lab| {
        let id = patient(lab, &[]);
        lab.docker(&["pause", &id]).ok();
        lab.exec(&["systemctl", "stop", &Lab::scope(&id)]).ok();
        let code = wait_exit(lab, &id);
        assert!(matches!(code, 7 | 137), "{code}");
        assert_eq!(inspect(lab, &id)["State"]["Paused"], false);
    });
}

#[test]
fn kill_leaves_a_true_inspect() {
    clean(|lab| {
        let id = patient(lab, &[]);
        lab.exec(&["systemctl", "kill", "-s", "TERM", &Lab::scope(&id)])
            .ok();
        assert_eq!(
            wait_exit(lab, &id),
            7,
            "the monitor stands TERM, the payload ends as it wants"
        );
        // KILL takes the monitor too: no record is left, and still the answer is the true one.
        for present in [true, false] {
            let id = patient(lab, &[]);
            if !present {
                lab.stop_agent();
            }
            lab.exec(&["systemctl", "kill", "-s", "KILL", &Lab::scope(&id)])
                .ok();
            assert_eq!(wait_exit(lab, &id), 137, "agent present: {present}");
            assert_eq!(inspect(lab, &id)["State"]["Running"], false);
            lab.docker(&["rm", &id]).ok();
        }
    });
}

#[test]
fn freeze_and_thaw_leave_a_true_inspect() {
    clean(|lab| {
        let id = patient(lab, &[]);
        let scope = Lab::scope(&id);
        lab.exec(&["systemctl", "freeze", &scope]).ok();
        // The monitor is frozen with it: the agent must answer all the same.
        let begun = std::time::Instant::now();
        assert_eq!(inspect(lab, &id)["State"]["Running"], true);
        lab.docker(&["ps"]).ok();
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
        lab.exec(&["systemctl", "thaw", &scope]).ok();
        assert_eq!(inspect(lab, &id)["State"]["Status"], "running");
        lab.docker(&["stop", &id]).ok();
        assert_eq!(inspect(lab, &id)["State"]["ExitCode"], 7);
    });
}

#[test]
fn set_property_leaves_a_true_inspect() {
    clean(|lab| {
        let id = patient(lab, &["-m", "64m"]);
        lab.exec(&[
            "systemctl",
            "set-property",
            "--runtime",
            &Lab::scope(&id),
            "MemoryMax=96M",
            "TasksMax=50",
        ])
        .ok();
        assert_eq!(
            lab.unit(&Lab::scope(&id), "MemoryMax"),
            (96u64 << 20).to_string()
        );
        let host = inspect(lab, &id)["HostConfig"].clone();
        assert_eq!(host["Memory"].as_u64(), Some(96 << 20), "{host}");
        assert_eq!(host["PidsLimit"].as_u64(), Some(50), "{host}");
        assert_eq!(inspect(lab, &id)["State"]["Status"], "running");
    });
}

/// Nothing of a running container changes across what `disturb` does.
#[track_caller]
fn unchanged_across(lab: &Lab, what: &str, disturb: impl FnOnce(&Lab)) {
    let id = patient(lab, &["-m", "64m", "--cpus", "0.5"]);
    let before = inspect(lab, &id);
    let limits = |lab: &Lab| {
        [
            "MemoryMax",
            "CPUQuotaPerSecUSec",
            "ControlGroup",
            "Slice",
            "KillSignal",
        ]
        .map(|property| lab.unit(&Lab::scope(&id), property))
    };
    let limits_before = limits(lab);
    disturb(lab);
    let after = inspect(lab, &id);
    assert_eq!(after["State"], before["State"], "{what}");
    assert_eq!(
        after["NetworkSettings"], before["NetworkSettings"],
        "{what}"
    );
    assert_eq!(limits(lab), limits_before, "{what}");
    // And everything still works on it, and beside it.
    assert_eq!(
        lab.docker(&["run", "--rm", "busybox", "echo", "another"])
            .ok(),
        "another",
        "{what}"
    );
    lab.docker(&["stop", &id]).ok();
    assert_eq!(inspect(lab, &id)["State"]["ExitCode"], 7, "{what}");
    lab.docker(&["rm", &id]).ok();
}

#[test]
fn restarts_of_everything_around_are_no_event() {
    clean(|lab| {
        unchanged_across(lab, "systemctl restart berthd", |lab| {
            drop(lab.exec(&["systemctl", "restart", "berthd.service"]).ok())
        });
        unchanged_across(lab, "kill -9 of the agent", Lab::crash_agent);
        unchanged_across(lab, "daemon-reload", |lab| {
            drop(lab.exec(&["systemctl", "daemon-reload"]).ok())
        });
        unchanged_across(lab, "daemon-reexec", |lab| {
            drop(lab.exec(&["systemctl", "daemon-reexec"]).ok())
        });
        unchanged_across(lab, "restart of the bus", |lab| {
            drop(lab.exec(&["systemctl", "restart", "dbus.service"]).ok())
        });
        lab.sh("systemctl reset-failed dbus.service dbus.socket 2>/dev/null || true");
    });
}

#[test]
fn stopping_the_agents_service_leaves_containers() {
    clean(|lab| {
        let id = patient(lab, &[]);
        let init = inspect(lab, &id)["State"]["Pid"].as_u64().unwrap();
        lab.stop_agent();
        assert_eq!(lab.sh(&format!("cat /proc/{init}/comm")), "sh");
        assert_eq!(lab.unit(&Lab::scope(&id), "ActiveState"), "active");
    });
}

#[test]
fn the_journal_knows_the_container() {
    clean(|lab| {
        let id = patient(lab, &["--name", "journaled"]);
        lab.docker(&["stop", &id]).ok();
        let text = lab.sh(&format!(
            "journalctl --sync; journalctl -o json CONTAINER_ID={id} --no-pager"
        ));
        assert!(text.contains("\"CONTAINER_NAME\":\"journaled\""), "{text}");
        let unit = lab.sh("journalctl -u berthd.service -n 20 --no-pager -o short-iso");
        assert!(!unit.is_empty());
    });
}

#[test]
fn a_second_agent_on_the_same_root_is_refused() {
    clean(|lab| {
        lab.http().get("/_ping").expect(200);
        let run = lab.exec(&["timeout", "10", "berthd", "-H", "unix:///run/second.sock"]);
        assert!(run.code() != 0 && run.code() != 124, "{}", run.describe());
        assert!(
            run.stderr().contains("/var/lib/berth") || run.stderr().contains("already"),
            "{}",
            run.describe()
        );
        lab.http().get("/_ping").expect(200);
    });
}

#[test]
fn a_bad_configuration_is_served_not_crashed_on() {
    clean(|lab| {
        lab.sh("mkdir -p /etc/berth; echo 'no-such-key = 1' >/etc/berth/berthd.toml");
        lab.stop_agent();
        for _ in 0..8 {
            let answer = lab.http().get("/containers/json");
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert!(
                answer.message().contains("no-such-key"),
                "{}",
                answer.text()
            );
        }
        assert_eq!(lab.unit("berth.socket", "ActiveState"), "active");
        lab.sh("rm -r /etc/berth");
        lab.stop_agent();
        lab.http().get("/containers/json").expect(200);
    });
}

#[test]
fn tcp_only_on_loopback_and_only_when_acknowledged() {
    clean(|lab| {
        let run = |args: &str| {
            lab.exec(&[
                "sh",
                "-c",
                &format!("timeout 10 berthd --data-root /tmp/b2 --run-root /run/b2 {args}"),
            ])
        };
        for args in [
            "-H tcp://127.0.0.1:2375",
            "-H tcp://0.0.0.0:2375 --insecure-tcp",
            "-H tcp://172.29.0.1:2375 --insecure-tcp",
        ] {
            let run = run(args);
            assert!(
                run.code() != 0 && run.code() != 124,
                "{args}: {}",
                run.describe()
            );
            assert!(run.stderr().contains("tcp"), "{args}: {}", run.describe());
        }
        lab.sh("rm -rf /tmp/b2 /run/b2");
    });
}

#[test]
fn the_service_says_what_it_does() {
    clean(|lab| {
        lab.http().get("/_ping").expect(200);
        assert_eq!(lab.unit("berthd.service", "ActiveState"), "active");
        assert!(!lab.unit("berthd.service", "StatusText").is_empty());
        assert_eq!(lab.unit("berthd.service", "Type"), "notify");
        let id = run_detached(lab, &["busybox", "sh", "-c", PATIENT]);
        wait_for_line(lab, &id, "ready");
        lab.exec(&["systemctl", "reload", "berthd.service"]).ok();
        assert_eq!(inspect(lab, &id)["State"]["Running"], true);
    });
}

#[test]
fn a_hung_agent_is_killed_and_comes_back() {
    clean(|lab| {
        let id = patient(lab, &[]);
        let dropin = "/run/systemd/system/berthd.service.d";
        lab.sh(&format!("mkdir -p {dropin}; printf '[Service]\\nWatchdogSec=2\\n' >{dropin}/watchdog.conf; systemctl daemon-reload"));
        lab.stop_agent();
        lab.http().get("/_ping").expect(200);
        let agent = lab.agent().unwrap();
        lab.sh("kill -STOP $(systemctl show --value -p MainPID berthd.service)");
        let ended = berth_tests::pid::wait_end(agent, std::time::Duration::from_secs(20));
        lab.sh(&format!("rm -r {dropin}; systemctl daemon-reload"));
        assert!(ended, "the watchdog bites");
        assert_eq!(inspect(lab, &id)["State"]["Running"], true);
        lab.stop_agent();
    });
}
