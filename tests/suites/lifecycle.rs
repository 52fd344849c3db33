//! What a container makes on the host and what is left of it: nothing, also when a start fails at any step, also when
//! many come and go at once.

use berth_tests::pid;
use serde_json::json;

use crate::support::{
    clean, create, inspect, load_with, patient, remove_image, run_detached, script, wait_exit,
};
use berth_tests::image::Layer;

#[test]
fn a_failed_start_leaves_nothing() {
    clean(|lab| {
        let http = lab.http();
        // Failures at different depths: before the monitor, while mounting, at exec.
        for (what, body) in [
            (
                "no program",
                json!({ "Image": "busybox", "Cmd": ["/no/such"] }),
            ),
            (
                "no permission",
                json!({ "Image": "busybox", "Cmd": ["/etc/passwd"] }),
            ),
            (
                "no such user",
                json!({ "Image": "busybox", "Cmd": ["true"], "User": "ghost" }),
            ),
            (
                "target is a file's child",
                json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "Tmpfs": { "/etc/passwd/x": "" } } }),
            ),
            (
                "working directory is a file",
                json!({ "Image": "busybox", "Cmd": ["true"], "WorkingDir": "/etc/passwd" }),
            ),
            (
                "file over a directory",
                json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "Binds": ["/etc/hostname:/etc"] } }),
            ),
            (
                "sysctl that the kernel refuses",
                json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "Sysctls": { "net.ipv4.ip_default_ttl": "many" } } }),
            ),
            (
                "network of nobody",
                json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "NetworkMode": "container:nobody" } }),
            ),
        ] {
            let answer = http.post_json("/containers/create", &body);
            if answer.status == 201 {
                let id = answer.json()["Id"].as_str().unwrap().to_owned();
                let start = http.post(&format!("/containers/{id}/start"));
                assert!(
                    matches!(start.status, 400 | 404 | 409 | 500),
                    "{what}: {} {}",
                    start.status,
                    start.text()
                );
                assert!(!start.message().is_empty());
                let state = inspect(lab, &id)["State"].clone();
                assert_eq!(state["Running"], false, "{what}");
                assert_eq!(state["Pid"], 0, "{what}");
                assert_ne!(state["ExitCode"], 0, "{what}: {state}");
                assert!(
                    !state["Error"].as_str().unwrap().is_empty(),
                    "{what}: {state}"
                );
                http.delete(&format!("/containers/{id}")).expect(204);
            } else {
                assert!(
                    matches!(answer.status, 400 | 404 | 409),
                    "{what}: {} {}",
                    answer.status,
                    answer.text()
                );
            }
        }
    });
}

#[test]
fn a_container_that_failed_to_start_can_be_started_again() {
    clean(|lab| {
        lab.sh("rm -rf /srv/late");
        let mut body = script("cat /in/f");
        body["HostConfig"] =
            json!({ "Mounts": [{ "Type": "bind", "Source": "/srv/late", "Target": "/in" }] });
        lab.sh("mkdir /srv/late");
        let id = create(lab, None, &body);
        lab.sh("rmdir /srv/late");
        let answer = lab.http().post(&format!("/containers/{id}/start"));
        assert!(answer.status >= 400, "{}", answer.text());
        lab.sh("mkdir /srv/late; echo now >/srv/late/f");
        lab.http()
            .post(&format!("/containers/{id}/start"))
            .expect(204);
        assert_eq!(wait_exit(lab, &id), 0);
        assert_eq!(lab.docker(&["logs", &id]).ok(), "now");
        lab.sh("rm -r /srv/late");
    });
}

#[test]
fn a_running_container_is_where_it_should_be() {
    clean(|lab| {
        let id = patient(lab, &["--name", "placed"]);
        let container = inspect(lab, &id);
        let init = u32::try_from(container["State"]["Pid"].as_u64().unwrap()).unwrap();
        let scope = berth_tests::lab::Lab::scope(&id);
        let group = lab.unit(&scope, "ControlGroup");
        assert_eq!(group, format!("/berth.slice/{scope}"));
        assert_eq!(
            lab.sh(&format!("grep ^0:: /proc/{init}/cgroup")),
            format!("0::{group}/payload")
        );
        let parent = lab.sh(&format!("cut -d' ' -f4 /proc/{init}/stat"));
        assert_eq!(
            lab.sh(&format!("grep ^0:: /proc/{parent}/cgroup")),
            format!("0::{group}/monitor")
        );
        assert_eq!(
            lab.sh(&format!("cat /sys/fs/cgroup{group}/cgroup.procs")),
            "",
            "nothing in the scope itself"
        );
        // No mount of the container is in the host's namespace, and the monitor's holds nothing of the host's.
        let monitor_mounts = lab.sh(&format!("cut -d' ' -f5 /proc/{parent}/mountinfo"));
        assert!(
            !monitor_mounts.contains("/var") && !monitor_mounts.contains("/lab"),
            "{monitor_mounts}"
        );
        assert_eq!(
            lab.sh(&format!("ls /proc/{parent}/task | wc -l")),
            "1",
            "single-threaded"
        );
    });
}

#[test]
fn two_hundred_lives_leave_nothing() {
    clean(|lab| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let id = create(lab, None, &script("exit 3"));
                        lab.http()
                            .post(&format!("/containers/{id}/start"))
                            .expect(204);
                        assert_eq!(wait_exit(lab, &id), 3);
                        lab.http().delete(&format!("/containers/{id}")).expect(204);
                    }
                });
            }
        });
    });
}

#[test]
fn thirty_at_once() {
    clean(|lab| {
        let ids: Vec<String> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..30).map(|_| scope.spawn(|| patient(lab, &[]))).collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        let addresses: std::collections::BTreeSet<String> = ids
            .iter()
            .map(|id| {
                inspect(lab, id)["NetworkSettings"]["IPAddress"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        assert_eq!(addresses.len(), 30, "an address each");
        // Their program is one sealed copy that all of them share.
        let monitors: Vec<u64> = pid::tree(lab.init())
            .into_iter()
            .filter(|pid| pid::name(*pid).as_deref() == Some("berth-monitor"))
            .map(|pid| pid::pss_kib(pid).unwrap())
            .collect();
        assert_eq!(monitors.len(), 30);
        let average = monitors.iter().sum::<u64>() / 30;
        assert!(average <= 250, "PSS of a monitor: {average} KiB");
        assert_eq!(lab.docker(&["ps", "-q"]).ok().lines().count(), 30);
        let argv: Vec<&str> = ["rm", "-f"]
            .into_iter()
            .chain(ids.iter().map(String::as_str))
            .collect();
        lab.docker(&argv).ok();
    });
}

#[test]
fn exit_codes_and_signals_are_exact() {
    clean(|lab| {
        for (text, code) in [
            ("exit 0", 0),
            ("exit 77", 77),
            ("kill -TERM $$; sleep 9", 143),
            ("kill -ABRT $$; sleep 9", 134),
            ("kill -SEGV $$; sleep 9", 139),
        ] {
            // PID 1 ignores signals that it sends itself without a handler: a child of --init does not.
            let id = run_detached(lab, &["--init", "busybox", "sh", "-c", text]);
            assert_eq!(wait_exit(lab, &id), code, "{text}");
            let state = inspect(lab, &id)["State"].clone();
            assert_eq!(state["ExitCode"], code);
            assert_eq!(state["OOMKilled"], false);
            assert!(
                state["FinishedAt"].as_str().unwrap() > state["StartedAt"].as_str().unwrap(),
                "{state}"
            );
        }
    });
}

#[test]
fn a_lost_monitor_takes_its_container_along() {
    clean(|lab| {
        let id = patient(lab, &[]);
        let init = inspect(lab, &id)["State"]["Pid"].as_u64().unwrap();
        let monitor = lab.sh(&format!("cut -d' ' -f4 /proc/{init}/stat"));
        lab.sh(&format!("kill -9 {monitor}"));
        // No container without one that stands over it.
        let code = wait_exit(lab, &id);
        assert!(matches!(code, 137 | 255), "{code}");
        assert_eq!(inspect(lab, &id)["State"]["Running"], false);
        assert_eq!(
            lab.exec(&["test", "-e", &format!("/proc/{init}")]).code(),
            1
        );
    });
}

#[test]
fn the_first_process_killed_from_outside() {
    clean(|lab| {
        let id = patient(lab, &[]);
        let init = inspect(lab, &id)["State"]["Pid"].as_u64().unwrap();
        lab.sh(&format!("kill -9 {init}"));
        assert_eq!(wait_exit(lab, &id), 137);
    });
}

#[test]
fn a_container_keeps_its_files_until_it_is_removed() {
    clean(|lab| {
        let id = run_detached(
            lab,
            &[
                "busybox",
                "sh",
                "-c",
                "test -e /mark && exit 8; touch /mark; exit 4",
            ],
        );
        assert_eq!(wait_exit(lab, &id), 4);
        lab.http()
            .post(&format!("/containers/{id}/start"))
            .expect(204);
        assert_eq!(wait_exit(lab, &id), 8);
        let size = lab
            .docker(&["ps", "-a", "--size", "--format", "{{.Size}}"])
            .ok();
        assert!(size.contains("virtual"), "{size}");
    });
}

#[test]
fn removing_a_big_tree_does_not_wait_for_it() {
    clean(|lab| {
        let id = run_detached(
            lab,
            &[
                "busybox",
                "sh",
                "-c",
                "mkdir /d; cd /d; for i in $(seq 4000); do echo $i >f$i; done",
            ],
        );
        assert_eq!(wait_exit(lab, &id), 0);
        let begun = std::time::Instant::now();
        lab.http().delete(&format!("/containers/{id}")).expect(204);
        assert!(
            begun.elapsed().as_millis() < 500,
            "renamed away, emptied in the background: {:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn the_image_of_a_stopped_container_can_be_replaced() {
    clean(|lab| {
        let image = load_with(lab, "replaced:v1", Layer::new().file("v", 0o644, b"one"));
        let id = run_detached(lab, &[&image, "cat", "/v"]);
        assert_eq!(wait_exit(lab, &id), 0);
        load_with(lab, "replaced:v1", Layer::new().file("v", 0o644, b"two"));
        lab.http()
            .post(&format!("/containers/{id}/start"))
            .expect(204);
        assert_eq!(wait_exit(lab, &id), 0);
        assert_eq!(
            lab.docker(&["logs", &id]).ok(),
            "oneone",
            "it keeps the image that it was made of"
        );
        lab.docker(&["rm", &id]).ok();
        remove_image(lab, &image);
        lab.docker(&["image", "prune", "-f"]).ok();
    });
}
