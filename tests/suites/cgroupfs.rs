//! Without systemd as init: the same agent drives the cgroup file system itself. Here in a mount namespace of the lab
//! in which systemd cannot be seen, with roots of its own.

use berth_tests::http::Client;
use berth_tests::image::{BUSYBOX, busybox};
use berth_tests::lab::{Background, Lab};
use serde_json::json;

use crate::support::{PATIENT, clean, script};

struct Other {
    _agent: Background,
    http: Client,
}

/// An agent of its own, in a namespace without a systemd.
fn start(lab: &Lab, options: &str) -> Other {
    // Its database lies beside the lab's, on the disk: an overlay's upper layer must.
    lab.sh("rm -rf /var/lib/berth/other /run/other; mkdir -p /run/other");
    let mut agent = lab.spawn(&[
        "unshare", "-m", "sh", "-ec",
        &format!("mount -t tmpfs none /run/systemd; unset NOTIFY_SOCKET; exec berthd -H unix:///run/other/api.sock --data-root /var/lib/berth/other --run-root /run/other --bridge other0 --bridge-subnet 172.28.0.0/16 {options}"),
    ]);
    // It says on standard error when it is ready; then the socket is there.
    let mut errors = std::io::BufReader::new(agent.child().stderr.take().unwrap());
    let mut said = String::new();
    while !lab.path("/run/other/api.sock").exists() {
        assert_ne!(
            std::io::BufRead::read_line(&mut errors, &mut said).unwrap(),
            0,
            "the agent does not start: {said}"
        );
    }
    // What it says later must not fill the pipe.
    std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
    Other {
        _agent: agent,
        http: Client::new(lab.path("/run/other/api.sock")),
    }
}

fn finish(lab: &Lab, other: Other) {
    drop(other);
    lab.sh("ip link del other0 2>/dev/null || true; rmdir /sys/fs/cgroup/berth 2>/dev/null || true; rm -rf /var/lib/berth/other /run/other");
}

#[test]
fn the_cgroup_file_system_is_driven_directly() {
    clean(|lab| {
        let other = start(lab, "");
        let info = other.http.get("/info").expect(200).json();
        assert_eq!(info["CgroupDriver"], "cgroupfs", "chosen at run time");
        other
            .http
            .post_bytes("/images/load", "application/x-tar", &busybox())
            .expect(200);
        other
            .http
            .get(&format!("/images/{BUSYBOX}/json"))
            .expect(200);
        let mut body = script(PATIENT);
        body["HostConfig"] = json!({ "NetworkMode": "none" });
        let id = other
            .http
            .post_json("/containers/create", &body)
            .expect(201)
            .json()["Id"]
            .as_str()
            .unwrap()
            .to_owned();
        other
            .http
            .post(&format!("/containers/{id}/start"))
            .expect(204);
        let state = other
            .http
            .get(&format!("/containers/{id}/json"))
            .expect(200)
            .json()["State"]
            .clone();
        assert_eq!(state["Running"], true);
        let init = state["Pid"].as_u64().unwrap();
        let group = lab.sh(&format!("grep ^0:: /proc/{init}/cgroup"));
        assert!(group.ends_with(&format!("/berth/{id}/payload")), "{group}");
        other
            .http
            .post(&format!("/containers/{id}/pause"))
            .expect(204);
        assert_eq!(
            lab.sh(&format!(
                "cat /sys/fs/cgroup/berth/{id}/payload/cgroup.freeze"
            )),
            "1"
        );
        other
            .http
            .post(&format!("/containers/{id}/unpause"))
            .expect(204);
        other
            .http
            .post(&format!("/containers/{id}/stop"))
            .expect(204);
        let state = other
            .http
            .get(&format!("/containers/{id}/json"))
            .expect(200)
            .json()["State"]
            .clone();
        assert!(
            matches!(state["ExitCode"].as_i64(), Some(7 | 143)),
            "{state}"
        );
        other.http.delete(&format!("/containers/{id}")).expect(204);
        assert_eq!(
            lab.sh(&format!(
                "test -e /sys/fs/cgroup/berth/{id} && echo left || true"
            )),
            ""
        );
        other.http.delete(&format!("/images/{BUSYBOX}")).expect(200);
        finish(lab, other);
    });
}

#[test]
fn the_plain_copy_driver_does_the_same() {
    clean(|lab| {
        let other = start(lab, "--storage-driver vfs");
        assert_eq!(other.http.get("/info").expect(200).json()["Driver"], "vfs");
        other
            .http
            .post_bytes("/images/load", "application/x-tar", &busybox())
            .expect(200);
        let mut body = script("echo x >/made; test -e /bin/busybox && exit 3");
        body["HostConfig"] = json!({ "NetworkMode": "none" });
        let id = other
            .http
            .post_json("/containers/create", &body)
            .expect(201)
            .json()["Id"]
            .as_str()
            .unwrap()
            .to_owned();
        other
            .http
            .post(&format!("/containers/{id}/start"))
            .expect(204);
        assert_eq!(
            other
                .http
                .post(&format!("/containers/{id}/wait"))
                .expect(200)
                .json()["StatusCode"],
            3
        );
        other.http.delete(&format!("/containers/{id}")).expect(204);
        finish(lab, other);
    });
}
