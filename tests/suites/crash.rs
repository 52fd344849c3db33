//! The agent killed at every named point of create, start, stop, exit, remove and load: afterwards everything is whole
//! or gone, exit codes are exact, and running containers have not noticed. Reliability specification, 3.1.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use berth_tests::image::{Image, Layer};
use berth_tests::lab::Lab;
use berth_tests::pid;

use crate::support::{PATIENT, clean, create, inspect, patient, script, wait_exit, wait_for_line};

/// Every name that the agent's source passes to its failpoints.
fn points() -> BTreeSet<String> {
    fn read(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                read(&path, found);
            } else if path.extension().is_some_and(|it| it == "rs") {
                for part in fs::read_to_string(&path)
                    .unwrap()
                    .split("failpoint::hit(\"")
                    .skip(1)
                {
                    found.insert(part.split('"').next().unwrap().to_owned());
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    read(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent"),
        &mut found,
    );
    found
}

/// The agent of these tests is not restarted by systemd behind their back: the next request does that.
fn with_failpoints(test: impl FnOnce(&Lab)) {
    clean(|lab| {
        lab.sh("mkdir -p /run/systemd/system/berthd.service.d; printf '[Service]\\nRestart=no\\n' >/run/systemd/system/berthd.service.d/crash.conf; systemctl daemon-reload");
        lab.stop_agent();
        test(lab);
        lab.sh("rm -r /run/systemd/system/berthd.service.d; systemctl daemon-reload; systemctl reset-failed berthd.service 2>/dev/null || true");
        lab.stop_agent();
        lab.http().get("/_ping").expect(200);
    });
}

/// Runs `act` against an agent that dies at `point`, and returns when it is dead. The next request gets a new one.
#[track_caller]
fn crash_at(lab: &Lab, point: &str, act: impl FnOnce()) {
    lab.stop_agent();
    lab.sh(&format!(
        "systemctl set-environment BERTH_FAILPOINT={point}"
    ));
    lab.http().get("/_ping").expect(200);
    let agent = lab.agent().expect("the agent runs");
    act();
    assert!(
        pid::wait_end(agent, Duration::from_secs(20)),
        "{point} was never reached"
    );
    lab.sh("systemctl unset-environment BERTH_FAILPOINT; systemctl reset-failed berthd.service 2>/dev/null || true");
}

/// Sends a request that the agent may not live to answer.
fn ask(lab: &Lab, method: &str, path: &str) {
    let _ = lab.http().send(method, path, &[], None);
}

#[test]
fn every_point_is_known_here() {
    let known = [
        "create.", "start.", "stop.", "exit.", "remove.", "load.", "restore.",
    ];
    let all = points();
    assert!(all.len() >= 15, "{all:?}");
    let strange: Vec<_> = all
        .iter()
        .filter(|name| !known.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    assert!(strange.is_empty(), "no test reaches {strange:?}");
}

fn points_of(operation: &str) -> Vec<String> {
    let found: Vec<String> = points()
        .into_iter()
        .filter(|name| name.starts_with(operation))
        .collect();
    assert!(!found.is_empty(), "{operation} has no points");
    found
}

#[test]
fn create_is_whole_or_nothing() {
    with_failpoints(|lab| {
        for point in points_of("create.") {
            crash_at(lab, &point, || {
                let _ = lab.http().send(
                    "POST",
                    "/containers/create?name=crash",
                    &[("Content-Type", "application/json")],
                    Some(script(PATIENT).to_string().as_bytes()),
                );
            });
            let http = lab.http();
            let again = http.post_json("/containers/create?name=crash", &script(PATIENT));
            assert!(
                matches!(again.status, 201 | 409),
                "{point}: {}",
                again.text()
            );
            http.post("/containers/crash/start").expect(204);
            wait_for_line(lab, "crash", "ready");
            http.delete("/containers/crash?force=1").expect(204);
            assert_eq!(
                http.get("/containers/json?all=1").json(),
                serde_json::json!([]),
                "{point}"
            );
        }
    });
}

#[test]
fn start_is_running_and_managed_or_stopped_and_clean() {
    with_failpoints(|lab| {
        for point in points_of("start.") {
            let id = create(lab, Some("crash"), &script(PATIENT));
            crash_at(lab, &point, || {
                ask(lab, "POST", &format!("/containers/{id}/start"))
            });
            let http = lab.http();
            http.get("/containers/json?all=1").expect(200);
            let state = inspect(lab, &id)["State"].clone();
            if state["Running"] == true {
                let init = state["Pid"].as_u64().unwrap();
                assert_eq!(
                    lab.sh(&format!("grep ^0:: /proc/{init}/cgroup")),
                    format!("0::/berth.slice/{}/payload", Lab::scope(&id)),
                    "{point}"
                );
            } else {
                assert_eq!(state["Pid"], 0, "{point}: {state}");
                assert_eq!(
                    lab.unit(&Lab::scope(&id), "ActiveState"),
                    "inactive",
                    "{point}"
                );
                http.post(&format!("/containers/{id}/start")).expect(204);
            }
            wait_for_line(lab, &id, "ready");
            http.post(&format!("/containers/{id}/stop")).expect(204);
            assert_eq!(inspect(lab, &id)["State"]["ExitCode"], 7, "{point}");
            http.delete(&format!("/containers/{id}")).expect(204);
        }
    });
}

#[test]
fn stop_never_loses_the_exit_code() {
    with_failpoints(|lab| {
        for point in points_of("stop.") {
            let id = patient(lab, &[]);
            crash_at(lab, &point, || {
                ask(lab, "POST", &format!("/containers/{id}/stop"))
            });
            let again = lab.http().post(&format!("/containers/{id}/stop"));
            assert!(
                matches!(again.status, 204 | 304),
                "{point}: {}",
                again.text()
            );
            let state = inspect(lab, &id)["State"].clone();
            assert_eq!(
                (state["Status"].as_str(), state["ExitCode"].as_i64()),
                (Some("exited"), Some(7)),
                "{point}"
            );
            lab.http().delete(&format!("/containers/{id}")).expect(204);
        }
    });
}

#[test]
fn an_exit_is_recorded_once_and_exactly() {
    with_failpoints(|lab| {
        for point in points_of("exit.") {
            let id = patient(lab, &[]);
            let init = inspect(lab, &id)["State"]["Pid"].as_u64().unwrap();
            crash_at(lab, &point, || {
                lab.sh(&format!("kill -TERM {init}"));
            });
            assert_eq!(wait_exit(lab, &id), 7, "{point}");
            let state = inspect(lab, &id)["State"].clone();
            assert_eq!(
                (state["Status"].as_str(), state["ExitCode"].as_i64()),
                (Some("exited"), Some(7)),
                "{point}"
            );
            lab.http().delete(&format!("/containers/{id}")).expect(204);
        }
    });
}

#[test]
fn remove_goes_on_to_its_end() {
    with_failpoints(|lab| {
        for point in points_of("remove.") {
            let id = patient(lab, &["--name", "crash"]);
            crash_at(lab, &point, || {
                ask(lab, "DELETE", &format!("/containers/{id}?force=1"))
            });
            lab.http().get("/containers/json?all=1").expect(200);
            let left = lab.http().delete(&format!("/containers/{id}?force=1"));
            assert!(
                matches!(left.status, 204 | 404 | 409),
                "{point}: {}",
                left.text()
            );
            // The name is free.
            create(lab, Some("crash"), &script("true"));
            lab.http().delete("/containers/crash").expect(204);
        }
    });
}

#[test]
fn load_is_whole_or_nothing() {
    with_failpoints(|lab| {
        let archive = Image::new("crashed:v1")
            .layer(berth_tests::image::busybox_layer())
            .layer(Layer::new().file("f", 0o644, b"loaded"))
            .docker_archive();
        for point in points_of("load.") {
            crash_at(lab, &point, || {
                let _ = lab.http().send(
                    "POST",
                    "/images/load",
                    &[("Content-Type", "application/x-tar")],
                    Some(&archive),
                );
            });
            let there = lab.http().get("/images/crashed:v1/json").status;
            assert!(matches!(there, 200 | 404), "{point}: {there}");
            if there == 404 {
                lab.http()
                    .post_bytes("/images/load", "application/x-tar", &archive)
                    .expect(200);
            }
            assert_eq!(
                lab.docker(&["run", "--rm", "crashed:v1", "cat", "/f"]).ok(),
                "loaded",
                "{point}"
            );
            lab.http().delete("/images/crashed:v1?force=1").expect(200);
        }
        assert_eq!(
            lab.sh("find /var/lib/berth/ingest -mindepth 1 | wc -l"),
            "0",
            "nothing half-loaded is left"
        );
    });
}

#[test]
fn recovery_can_be_killed_too() {
    with_failpoints(|lab| {
        let running = patient(lab, &[]);
        let init = inspect(lab, &running)["State"]["Pid"].clone();
        for point in points()
            .into_iter()
            .filter(|name| name.starts_with("restore."))
        {
            lab.stop_agent();
            lab.sh(&format!(
                "systemctl set-environment BERTH_FAILPOINT={point}"
            ));
            ask(lab, "GET", "/containers/json");
            lab.sh("systemctl unset-environment BERTH_FAILPOINT; systemctl stop berthd.service; systemctl reset-failed berthd.service 2>/dev/null || true");
            assert_eq!(inspect(lab, &running)["State"]["Pid"], init, "{point}");
        }
        lab.docker(&["stop", &running]).ok();
        assert_eq!(inspect(lab, &running)["State"]["ExitCode"], 7);
    });
}

#[test]
fn a_container_does_not_notice_that_the_agent_dies() {
    with_failpoints(|lab| {
        let id = patient(lab, &["--name", "steady"]);
        let before = inspect(lab, &id)["State"].clone();
        for _ in 0..10 {
            lab.crash_agent();
            let after = inspect(lab, &id)["State"].clone();
            assert_eq!(after, before);
        }
        assert_eq!(lab.docker(&["logs", &id]).ok(), "ready");
    });
}

#[test]
fn exits_while_the_agent_is_away_are_exact() {
    with_failpoints(|lab| {
        for (signal, code) in [("TERM", 0), ("TERM", 42), ("KILL", 137)] {
            let text = format!("trap 'exit {code}' TERM; echo ready; sleep 1000 & wait");
            let id = crate::support::run_detached(lab, &["busybox", "sh", "-c", &text]);
            wait_for_line(lab, &id, "ready");
            let init = inspect(lab, &id)["State"]["Pid"].as_u64().unwrap();
            lab.crash_agent();
            lab.sh(&format!("kill -{signal} {init}"));
            assert_eq!(wait_exit(lab, &id), code);
        }
    });
}

/// Kills at moments that no name describes. The seed is printed: a failure can be tried again.
#[test]
fn kills_at_random_moments() {
    with_failpoints(|lab| {
        let seed = u64::from(std::process::id());
        println!("seed {seed}");
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        for round in 0..25 {
            let name = format!("r{round}");
            lab.http().get("/_ping").expect(200);
            let agent = lab.agent().expect("the agent runs");
            let pause = Duration::from_micros(random(60_000));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let _ = lab.http().send(
                        "POST",
                        &format!("/containers/create?name={name}"),
                        &[("Content-Type", "application/json")],
                        Some(script("exit 5").to_string().as_bytes()),
                    );
                    for (method, path) in [
                        ("POST", format!("/containers/{name}/start")),
                        ("POST", format!("/containers/{name}/wait")),
                        ("DELETE", format!("/containers/{name}?force=1")),
                    ] {
                        ask(lab, method, &path);
                    }
                });
                // A timer by nature: it waits for a process that does not end by itself.
                pid::wait_end(agent, pause);
                pid::kill(agent);
            });
            lab.http().get("/containers/json?all=1").expect(200);
            let left = lab.http().delete(&format!("/containers/{name}?force=1"));
            assert!(
                matches!(left.status, 204 | 404 | 409),
                "round {round} after {pause:?}: {}",
                left.text()
            );
            create(lab, Some(&name), &script("true"));
            lab.http()
                .delete(&format!("/containers/{name}"))
                .expect(204);
        }
    });
}
