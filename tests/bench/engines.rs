//! The engines that are compared: berth as installed, berth without systemd, Debian's dockerd; and one container's
//! whole life over the API, which is the same request by request for all of them.

use std::time::Instant;

use berth_tests::http::{Client, Connection};
use berth_tests::image::busybox;
use berth_tests::lab::Lab;
use serde_json::Value;

/// An engine that answers.
pub(crate) struct Engine<'a> {
    pub(crate) name: String,
    pub(crate) http: Client,
    /// For `docker -H`.
    pub(crate) host: String,
    lab: &'a Lab,
    /// The transient unit that it runs in, when it is not the lab's own.
    unit: Option<&'static str>,
}

pub(crate) fn berth(lab: &Lab) -> Engine<'_> {
    Engine {
        name: format!(
            "berth, containers as scopes: {}",
            lab.exec(&["berthd", "--version"]).ok()
        ),
        http: lab.http(),
        host: "unix:///run/berth/berth.sock".to_owned(),
        lab,
        unit: None,
    }
}

/// A second agent, on roots of its own, that drives the cgroup file system.
pub(crate) fn berth_without_systemd(lab: &Lab) -> Engine<'_> {
    lab.sh(
        "mkdir -p /run/bench; systemd-run --quiet --unit=bench-berthd -p Type=notify berthd -H unix:///run/bench/api.sock \
         --data-root /var/lib/berth/bench --run-root /run/bench --cgroup-driver cgroupfs --bridge bench0 --bridge-subnet 172.27.0.0/16",
    );
    Engine {
        name: "berth, cgroup file system".to_owned(),
        http: Client::new(lab.path("/run/bench/api.sock")),
        host: "unix:///run/bench/api.sock".to_owned(),
        lab,
        unit: Some("bench-berthd"),
    }
}

/// Debian's daemon with its defaults but for the cgroup driver, where that is the file system as in its own default on
/// such a host; None when the lab's root does not hold it.
pub(crate) fn dockerd(lab: &Lab) -> Option<Engine<'_>> {
    if lab.exec(&["test", "-x", "/usr/sbin/dockerd"]).code() != 0 {
        return None;
    }
    lab.sh(
        "systemd-run --quiet --unit=bench-dockerd -p Type=notify -p Delegate=yes dockerd -H unix:///run/docker.sock \
         --data-root /var/lib/docker --exec-root /run/docker-exec --exec-opt native.cgroupdriver=cgroupfs",
    );
    Some(Engine {
        name: format!("dockerd: {}", lab.exec(&["dockerd", "--version"]).ok()),
        http: Client::new(lab.path("/run/docker.sock")),
        host: "unix:///run/docker.sock".to_owned(),
        lab,
        unit: Some("bench-dockerd"),
    })
}

impl Engine<'_> {
    /// The image, and everything that is made once.
    pub(crate) fn warm_up(&self) {
        if self.http.get("/images/busybox:latest/json").status != 200 {
            self.http
                .post_bytes("/images/load", "application/x-tar", &busybox())
                .expect(200);
        }
        let mut connection = self.http.connect().unwrap();
        for _ in 0..5 {
            self.lifecycle(&mut connection);
        }
    }

    /// create, start, wait, remove on one connection: the times in ms, the whole first.
    pub(crate) fn lifecycle(&self, connection: &mut Connection) -> [f64; 5] {
        let begun = Instant::now();
        let mut last = begun;
        let mut lap = || {
            let now = Instant::now();
            let took = (now - last).as_secs_f64() * 1e3;
            last = now;
            took
        };
        let json = [("Content-Type", "application/json")];
        let body = br#"{"Image":"busybox","Cmd":["true"]}"#;
        let answer = connection
            .request("POST", "/v1.41/containers/create", &json, Some(body))
            .unwrap()
            .expect(201);
        let id = answer.json()["Id"].as_str().unwrap().to_owned();
        let create = lap();
        connection
            .request("POST", &format!("/v1.41/containers/{id}/start"), &[], None)
            .unwrap()
            .expect(204);
        let start = lap();
        let ended: Value = connection
            .request("POST", &format!("/v1.41/containers/{id}/wait"), &[], None)
            .unwrap()
            .expect(200)
            .json();
        assert_eq!(ended["StatusCode"], 0, "{ended}");
        let wait = lap();
        connection
            .request("DELETE", &format!("/v1.41/containers/{id}"), &[], None)
            .unwrap()
            .expect(204);
        let remove = lap();
        [
            begun.elapsed().as_secs_f64() * 1e3,
            create,
            start,
            wait,
            remove,
        ]
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        if let Some(unit) = self.unit {
            self.lab.exec(&["systemctl", "stop", unit]);
        }
    }
}
