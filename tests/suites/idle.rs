//! The agent leaves when there is nothing to do, although containers run, and comes back when it is needed: by a
//! request, by a D-Bus call, by a container's exit. Nobody loses anything by that.

use std::time::Duration;

use berth_tests::lab::Lab;
use berth_tests::pid;

use crate::support::{PATIENT, clean, inspect, patient, run_detached, wait_exit, wait_for_line};

const QUICK: Duration = Duration::from_secs(15);

/// With an agent that leaves after a third of a second.
fn with_quick_exit(test: impl FnOnce(&Lab)) {
    clean(|lab| {
        lab.sh("mkdir -p /etc/berth; echo 'idle-exit = 0.3' >/etc/berth/berthd.toml");
        lab.stop_agent();
        test(lab);
        lab.sh("rm -r /etc/berth");
        lab.stop_agent();
        lab.http().get("/_ping").expect(200);
    });
}

/// Wakes the agent, waits until it has left by itself, and checks that this counts as success.
#[track_caller]
fn leaves(lab: &Lab) {
    lab.http().get("/_ping").expect(200);
    if let Some(agent) = lab.agent() {
        assert!(pid::wait_end(agent, QUICK), "the agent stays");
    }
    // Its unit is down once systemd has seen the end; a stop job waits for exactly that.
    lab.exec(&["systemctl", "stop", "berthd.service"]).ok();
    assert_eq!(lab.unit("berthd.service", "Result"), "success");
}

#[test]
fn it_leaves_and_a_request_brings_it_back() {
    with_quick_exit(|lab| {
        leaves(lab);
        assert_eq!(lab.unit("berth.socket", "SubState"), "listening");
        lab.http().get("/containers/json").expect(200);
        assert!(lab.agent().is_some());
        leaves(lab);
    });
}

#[test]
fn nothing_of_a_container_changes_meanwhile() {
    with_quick_exit(|lab| {
        let id = patient(lab, &["--name", "steady"]);
        let before = inspect(lab, &id);
        for _ in 0..3 {
            leaves(lab);
            let after = inspect(lab, &id);
            assert_eq!(after["State"], before["State"]);
            assert_eq!(after["NetworkSettings"], before["NetworkSettings"]);
        }
        lab.docker(&["stop", "steady"]).ok();
        assert_eq!(inspect(lab, &id)["State"]["ExitCode"], 7);
    });
}

#[test]
fn output_goes_on_into_the_log() {
    with_quick_exit(|lab| {
        // The container writes when it is told to by a file of the host, while no agent runs.
        lab.sh("rm -f /srv/fifo; mkfifo /srv/fifo");
        let id = run_detached(
            lab,
            &[
                "-v",
                "/srv/fifo:/fifo",
                "busybox",
                "sh",
                "-c",
                "echo ready; cat /fifo; echo end; sleep 1000",
            ],
        );
        wait_for_line(lab, &id, "ready");
        leaves(lab);
        lab.sh("yes line | head -n 50000 >/srv/fifo");
        assert_eq!(lab.agent(), None, "written without an agent");
        wait_for_line(lab, &id, "end");
        assert_eq!(lab.docker(&["logs", &id]).ok().lines().count(), 50_002);
        lab.sh("rm /srv/fifo");
    });
}

#[test]
fn an_exit_brings_it_back() {
    with_quick_exit(|lab| {
        let id = patient(lab, &["--rm"]);
        let init = inspect(lab, &id)["State"]["Pid"].as_u64().unwrap();
        leaves(lab);
        assert_eq!(lab.agent(), None);
        // Nobody asks: the monitor's report activates the agent, and that removes the container as it was told to.
        let directory = lab.path("/var/lib/berth/containers").join(&id);
        let removed = berth_tests::state::Removal::of(&directory);
        lab.sh(&format!("kill -TERM {init}"));
        assert!(removed.wait(QUICK), "nobody removed the container");
        lab.http()
            .get(&format!("/containers/{id}/json"))
            .expect(404);
    });
}

#[test]
fn an_exit_code_is_kept_for_whoever_asks_later() {
    with_quick_exit(|lab| {
        let id = patient(lab, &[]);
        let init = inspect(lab, &id)["State"]["Pid"].as_u64().unwrap();
        leaves(lab);
        lab.sh(&format!("kill -TERM {init}"));
        assert_eq!(wait_exit(lab, &id), 7);
    });
}

#[test]
fn it_does_not_leave_while_somebody_waits() {
    with_quick_exit(|lab| {
        let id = patient(lab, &[]);
        let mut waiting = lab
            .http()
            .open(
                "POST",
                &format!("/containers/{id}/wait"),
                &[("Connection", "close")],
                None,
            )
            .unwrap();
        let agent = lab.agent().expect("it runs");
        assert!(
            !pid::wait_end(agent, Duration::from_secs(2)),
            "it left although a client waits"
        );
        lab.http()
            .post(&format!("/containers/{id}/stop"))
            .expect(204);
        let text = String::from_utf8_lossy(&waiting.rest()).into_owned();
        assert!(text.contains("\"StatusCode\":7"), "{text}");
    });
}

#[test]
fn attach_survives_the_agents_leaving() {
    with_quick_exit(|lab| {
        let id = lab
            .docker(&[
                "run",
                "-di",
                "busybox",
                "sh",
                "-c",
                "echo ready; while read x; do echo got $x; done",
            ])
            .ok();
        wait_for_line(lab, &id, "ready");
        let upgrade = [("Connection", "Upgrade"), ("Upgrade", "tcp")];
        let mut stream = lab
            .http()
            .open(
                "POST",
                &format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1"),
                &upgrade,
                None,
            )
            .unwrap();
        stream.write(b"one\n");
        assert_eq!(stream.frame(), Some((1, b"got one\n".to_vec())));
        // The client's socket is the monitor's: the agent is not in between.
        if lab.agent().is_some() {
            lab.crash_agent();
        }
        stream.write(b"two\n");
        assert_eq!(stream.frame(), Some((1, b"got two\n".to_vec())));
        lab.docker(&["rm", "-f", &id]).ok();
    });
}

#[test]
fn no_request_is_lost_around_an_exit() {
    with_quick_exit(|lab| {
        lab.sh("echo 'idle-exit = 0.02' >/etc/berth/berthd.toml");
        lab.stop_agent();
        let mut instances = std::collections::BTreeSet::new();
        for round in 0..60_u64 {
            lab.http().get("/containers/json?all=1").expect(200);
            let bus = lab.exec(&[
                "busctl",
                "get-property",
                "org.berth.Agent1",
                "/org/berth/Agent1",
                "org.berth.Agent1.Manager",
                "Version",
            ]);
            assert_eq!(bus.code(), 0, "round {round}: {}", bus.describe());
            instances.insert(lab.unit("berthd.service", "InvocationID"));
            // At different distances from the moment at which it leaves: the lab's own init does not end.
            pid::wait_end(lab.init(), Duration::from_millis(round % 40));
        }
        assert!(instances.len() > 5, "it came and went: {instances:?}");
        assert_ne!(lab.unit("berth.socket", "ActiveState"), "failed");
    });
}

#[test]
fn it_is_ready_soon() {
    with_quick_exit(|lab| {
        // Containers to reconcile make a start longer, not a first answer late.
        for _ in 0..5 {
            run_detached(lab, &["busybox", "sh", "-c", PATIENT]);
        }
        leaves(lab);
        let begun = std::time::Instant::now();
        lab.http().get("/_ping").expect(200);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}
