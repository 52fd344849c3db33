//! The REST face on the wire: versions and their shapes, statuses and headers, streams, errors.

use std::io::BufRead;

use serde_json::json;

use crate::support::{PATIENT, clean, create, inspect, patient, script, wait_exit};

const UPGRADE: [(&str, &str); 2] = [("Connection", "Upgrade"), ("Upgrade", "tcp")];

#[test]
fn ping_has_its_headers() {
    clean(|lab| {
        for method in ["GET", "HEAD"] {
            let answer = lab
                .http()
                .send(method, "/_ping", &[], None)
                .unwrap()
                .expect(200);
            assert!(
                answer.header("api-version").is_some(),
                "{:?}",
                answer.headers
            );
            assert_eq!(answer.header("ostype"), Some("linux"));
            assert_eq!(
                answer.header("cache-control"),
                Some("no-cache, no-store, must-revalidate")
            );
            assert_eq!(
                answer
                    .header("content-type")
                    .map(|kind| kind.starts_with("text/plain")),
                Some(true)
            );
            assert_eq!(answer.text(), if method == "GET" { "OK" } else { "" });
        }
    });
}

#[test]
fn every_version_from_the_first_is_served() {
    clean(|lab| {
        let http = lab.http();
        let newest = http.get("/version").expect(200).json()["ApiVersion"]
            .as_str()
            .unwrap()
            .to_owned();
        let minor: u32 = newest.strip_prefix("1.").unwrap().parse().unwrap();
        assert!(minor >= 48, "docker CLI 28 speaks 1.48 and later: {newest}");
        for version in 0..=minor {
            let answer = http
                .get(&format!("/v1.{version}/containers/json?all=1"))
                .expect(200);
            assert_eq!(answer.json(), json!([]), "v1.{version}");
        }
    });
}

#[test]
fn other_versions_are_refused_with_both_limits() {
    clean(|lab| {
        let http = lab.http();
        let newest = http.get("/version").expect(200).json()["ApiVersion"]
            .as_str()
            .unwrap()
            .to_owned();
        for version in ["v1.999", "v2.0", "v99.99"] {
            let text = http.get(&format!("/{version}/_ping")).expect(400).text();
            assert!(
                text.contains("too new") && text.contains(&newest),
                "{version}: {text}"
            );
        }
        for version in ["v1.x", "vv1.24", "v-1.2", "v1.24.x"] {
            let answer = http.get(&format!("/{version}/containers/json"));
            assert!(
                matches!(answer.status, 400 | 404),
                "{version}: {}",
                answer.status
            );
        }
    });
}

#[test]
fn errors_are_json_with_a_message() {
    clean(|lab| {
        let http = lab.http();
        let answer = http.get("/containers/nobody/json").expect(404);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.message(), "No such container: nobody");
        let message = http.get("/images/nothing/json").expect(404).message();
        assert!(message.contains("No such image: nothing"), "{message}");
        assert_eq!(
            http.get("/no/such/page").expect(404).message(),
            "page not found"
        );
        http.post("/containers/nobody/start").expect(404);
        http.delete("/containers/nobody").expect(404);
        // Before 1.24 an error was its text.
        let old = http.get("/v1.12/containers/nobody/json").expect(404);
        assert!(
            old.header("content-type")
                .is_some_and(|kind| kind.starts_with("text/plain")),
            "{:?}",
            old.headers
        );
        assert!(old.text().contains("o such container"), "{}", old.text());
    });
}

#[test]
fn what_comes_later_is_501_never_a_fake() {
    clean(|lab| {
        let http = lab.http();
        let id = patient(lab, &[]);
        for (method, path) in [
            ("POST", format!("/containers/{id}/exec")),
            ("POST", format!("/containers/{id}/update")),
            ("GET", format!("/containers/{id}/stats?stream=0")),
            ("GET", format!("/containers/{id}/changes")),
            ("GET", format!("/containers/{id}/export")),
            ("GET", format!("/containers/{id}/archive?path=/etc")),
            (
                "POST",
                "/images/create?fromImage=busybox&tag=latest".to_owned(),
            ),
            ("POST", "/build".to_owned()),
            ("POST", "/commit".to_owned()),
            ("POST", "/volumes/create".to_owned()),
            ("POST", "/networks/create".to_owned()),
            ("GET", "/swarm".to_owned()),
        ] {
            let body = json!({ "Name": "x", "Cmd": ["true"] }).to_string();
            let body = (method == "POST").then_some(body.as_bytes());
            let answer = http
                .send(method, &path, &[("Content-Type", "application/json")], body)
                .unwrap();
            assert_eq!(answer.status, 501, "{method} {path}: {}", answer.text());
            assert!(
                answer.message().contains("not supported"),
                "{method} {path}: {}",
                answer.message()
            );
        }
        let answer = http.post_json(
            "/containers/create",
            &json!({ "Image": "busybox", "HostConfig": { "PortBindings": { "80/tcp": [{ "HostPort": "8080" }] } } }),
        );
        assert_eq!(answer.status, 501, "{}", answer.text());
        for (field, value) in [
            ("RestartPolicy", json!({ "Name": "always" })),
            (
                "Devices",
                json!([{ "PathOnHost": "/dev/zero", "PathInContainer": "/dev/z", "CgroupPermissions": "r" }]),
            ),
            ("Annotations", json!({ "a": "b" })),
            ("Binds", json!(["named:/data"])),
        ] {
            let answer = http.post_json(
                "/containers/create",
                &json!({ "Image": "busybox", "HostConfig": { field: value } }),
            );
            assert_eq!(answer.status, 501, "{field}: {}", answer.text());
            assert!(
                answer.message().contains(field),
                "{field} is named: {}",
                answer.message()
            );
        }
    });
}

#[test]
fn create_start_stop_remove_statuses() {
    clean(|lab| {
        let http = lab.http();
        let answer = http
            .post_json("/containers/create?name=life", &script(PATIENT))
            .expect(201);
        let id = answer.json()["Id"].as_str().unwrap().to_owned();
        assert!(answer.json()["Warnings"].is_array(), "{}", answer.text());
        http.post("/containers/life/stop").expect(304);
        http.post("/containers/life/start").expect(204);
        http.post("/containers/life/start").expect(304);
        http.delete("/containers/life").expect(409);
        http.post("/containers/life/kill?signal=0x7f").expect(400);
        http.post("/containers/life/kill?signal=SIGNOPE")
            .expect(400);
        http.post("/containers/life/stop?t=5").expect(204);
        http.post("/containers/life/kill").expect(409);
        http.post("/containers/life/pause").expect(409);
        http.delete("/containers/life?v=1").expect(204);
        http.get(&format!("/containers/{id}/json")).expect(404);
    });
}

#[test]
fn a_container_is_found_by_name_and_by_prefix() {
    clean(|lab| {
        let http = lab.http();
        let id = create(lab, Some("finder"), &script("true"));
        for reference in ["finder", "/finder", &id, &id[..12], &id[..4]] {
            let found = http
                .get(&format!(
                    "/containers/{}/json",
                    reference.replace('/', "%2F")
                ))
                .expect(200)
                .json();
            assert_eq!(found["Id"], id.as_str());
        }
    });
}

#[test]
fn attach_is_upgraded_and_framed() {
    clean(|lab| {
        let http = lab.http();
        let mut body = script("echo out; echo err >&2; read x; echo got $x");
        body["OpenStdin"] = json!(true);
        let id = create(lab, None, &body);
        let path = format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1");
        let mut stream = http.open("POST", &path, &UPGRADE, None).unwrap();
        assert_eq!(stream.head.status, 101);
        assert_eq!(stream.head.header("upgrade"), Some("tcp"));
        assert_eq!(
            stream.head.header("content-type"),
            Some("application/vnd.docker.multiplexed-stream")
        );
        http.post(&format!("/containers/{id}/start")).expect(204);
        let mut two = [stream.frame().unwrap(), stream.frame().unwrap()];
        two.sort();
        assert_eq!(two, [(1, b"out\n".to_vec()), (2, b"err\n".to_vec())]);
        stream.write(b"all\n");
        assert_eq!(stream.frame(), Some((1, b"got all\n".to_vec())));
        assert_eq!(stream.frame(), None);
    });
}

#[test]
fn attach_without_upgrade_is_the_old_hijack() {
    clean(|lab| {
        let id = create(lab, None, &script("echo plain"));
        let path = format!("/v1.12/containers/{id}/attach?stream=1&stdout=1");
        let mut stream = lab.http().open("POST", &path, &[], None).unwrap();
        assert_eq!(stream.head.status, 200);
        assert_eq!(
            stream.head.header("content-type"),
            Some("application/vnd.docker.raw-stream")
        );
        lab.http()
            .post(&format!("/containers/{id}/start"))
            .expect(204);
        assert_eq!(stream.frames().0, "plain\n");
    });
}

#[test]
fn several_readers_see_the_same_and_one_that_leaves_harms_nobody() {
    clean(|lab| {
        let http = lab.http();
        let mut body = script("read x; for n in 1 2 3; do echo $n; done");
        body["OpenStdin"] = json!(true);
        let id = create(lab, None, &body);
        let open = |query: &str| {
            http.open(
                "POST",
                &format!("/containers/{id}/attach?stream=1&{query}"),
                &UPGRADE,
                None,
            )
            .unwrap()
        };
        let mut one = open("stdout=1");
        let mut two = open("stdout=1&stderr=1");
        drop(open("stdout=1"));
        let mut writer = open("stdin=1");
        http.post(&format!("/containers/{id}/start")).expect(204);
        writer.write(b"go\n");
        assert_eq!(one.frames().0, "1\n2\n3\n");
        assert_eq!(two.frames().0, "1\n2\n3\n");
        assert_eq!(wait_exit(lab, &id), 0);
    });
}

#[test]
fn half_closed_input_is_an_end_of_file() {
    clean(|lab| {
        let http = lab.http();
        let mut body = script("cat; echo end");
        body["OpenStdin"] = json!(true);
        body["StdinOnce"] = json!(true);
        let id = create(lab, None, &body);
        let mut stream = http
            .open(
                "POST",
                &format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1"),
                &UPGRADE,
                None,
            )
            .unwrap();
        http.post(&format!("/containers/{id}/start")).expect(204);
        stream.write(b"some text\n");
        stream.finish_writing();
        assert_eq!(stream.frames().0, "some text\nend\n");
    });
}

#[test]
fn a_terminal_streams_raw_and_resizes() {
    clean(|lab| {
        let http = lab.http();
        let mut body = script(
            "read x; stty size; trap 'stty size; exit 0' WINCH; echo set; sleep 1000 & wait",
        );
        body["OpenStdin"] = json!(true);
        body["Tty"] = json!(true);
        let id = create(lab, None, &body);
        let mut stream = http
            .open(
                "POST",
                &format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1"),
                &UPGRADE,
                None,
            )
            .unwrap();
        assert_eq!(
            stream.head.header("content-type"),
            Some("application/vnd.docker.raw-stream")
        );
        http.post(&format!("/containers/{id}/start")).expect(204);
        http.post(&format!("/containers/{id}/resize?h=33&w=99"))
            .expect(200);
        stream.write(b"go\n");
        let mut text = String::new();
        while !text.contains("set") {
            assert_ne!(stream.stream.read_line(&mut text).unwrap(), 0, "{text}");
        }
        assert!(text.contains("33 99"), "{text}");
        http.post(&format!("/containers/{id}/resize?h=44&w=111"))
            .expect(200);
        let rest = String::from_utf8_lossy(&stream.rest()).into_owned();
        assert!(rest.contains("44 111"), "{rest}");
    });
}

#[test]
fn attach_with_logs_replays_what_was_said() {
    clean(|lab| {
        let id = patient(lab, &[]);
        let mut stream = lab
            .http()
            .open(
                "POST",
                &format!("/containers/{id}/attach?logs=1&stream=1&stdout=1"),
                &UPGRADE,
                None,
            )
            .unwrap();
        assert_eq!(stream.frame(), Some((1, b"ready\n".to_vec())));
        lab.http()
            .post(&format!("/containers/{id}/stop"))
            .expect(204);
        assert_eq!(stream.frame(), None);
    });
}

#[test]
fn wait_conditions() {
    clean(|lab| {
        let http = lab.http();
        // Not running yet: that condition holds at once; the next exit is still to come.
        let id = create(lab, None, &script("exit 9"));
        assert_eq!(
            http.post(&format!("/containers/{id}/wait?condition=not-running"))
                .expect(200)
                .json()["StatusCode"],
            0
        );
        let mut next = http
            .open(
                "POST",
                &format!("/containers/{id}/wait?condition=next-exit"),
                &[("Connection", "close")],
                None,
            )
            .unwrap();
        let mut removed = http
            .open(
                "POST",
                &format!("/containers/{id}/wait?condition=removed"),
                &[("Connection", "close")],
                None,
            )
            .unwrap();
        http.post(&format!("/containers/{id}/start")).expect(204);
        let text = String::from_utf8_lossy(&next.rest()).into_owned();
        assert!(text.contains("\"StatusCode\":9"), "{text}");
        http.delete(&format!("/containers/{id}")).expect(204);
        let text = String::from_utf8_lossy(&removed.rest()).into_owned();
        assert!(text.contains("\"StatusCode\":9"), "{text}");
        let id = create(lab, None, &script("true"));
        http.post(&format!("/containers/{id}/wait?condition=whenever"))
            .expect(400);
    });
}

#[test]
fn list_entries_have_their_fields() {
    clean(|lab| {
        let id = patient(lab, &["--name", "entry", "--label", "k=v"]);
        let list = lab
            .http()
            .get("/v1.44/containers/json?size=1")
            .expect(200)
            .json();
        let entry = &list[0];
        assert_eq!(entry["Id"], id.as_str());
        assert_eq!(entry["Names"], json!(["/entry"]));
        assert_eq!(entry["Image"], "busybox");
        assert!(entry["ImageID"].as_str().unwrap().starts_with("sha256:"));
        assert_eq!(entry["State"], "running");
        assert_eq!(entry["Labels"], json!({ "k": "v" }));
        assert_eq!(entry["Ports"], json!([]));
        assert_eq!(entry["HostConfig"]["NetworkMode"], "bridge");
        assert!(
            entry["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
                .as_str()
                .is_some_and(|ip| ip.contains('.'))
        );
        assert!(
            entry["SizeRootFs"].as_i64().is_some_and(|size| size > 0),
            "{entry}"
        );
        assert!(entry["Created"].is_i64());
        // 1.12 knew neither state nor labels.
        let old = lab.http().get("/v1.12/containers/json").expect(200).json();
        assert!(
            old[0].get("State").is_none() && old[0].get("Labels").is_none(),
            "{old}"
        );
        assert_eq!(old[0]["Names"], json!(["/entry"]));
    });
}

#[test]
fn inspect_keeps_1_12s_shape_for_1_12() {
    clean(|lab| {
        let id = patient(lab, &["--name", "old"]);
        let old = lab
            .http()
            .get(&format!("/v1.12/containers/{id}/json"))
            .expect(200)
            .json();
        assert_eq!(old["Name"], "/old");
        assert_eq!(old["State"]["Running"], true);
        assert!(old["State"].get("Status").is_none(), "{}", old["State"]);
        assert_eq!(old["NetworkSettings"]["Bridge"], "berth0");
        let new = inspect(lab, &id);
        assert_eq!(new["State"]["Status"], "running");
        assert!(new["NetworkSettings"]["Networks"]["bridge"].is_object());
        assert_eq!(new["Mounts"], json!([]));
    });
}

#[test]
fn logs_follow_over_chunks_and_know_their_bounds() {
    clean(|lab| {
        let http = lab.http();
        let id = patient(lab, &[]);
        http.get(&format!("/containers/{id}/logs")).expect(400);
        http.get(&format!("/containers/{id}/logs?stdout=1&since=yesterday"))
            .expect(400);
        let answer = http
            .get(&format!("/containers/{id}/logs?stdout=1&tail=1"))
            .expect(200);
        assert_eq!(
            answer.header("content-type"),
            Some("application/vnd.docker.multiplexed-stream")
        );
        assert_eq!(answer.body, b"\x01\0\0\0\0\0\0\x06ready\n");
    });
}

#[test]
fn events_stream_and_filters() {
    clean(|lab| {
        let http = lab.http();
        let filters = "%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22start%22%5D%7D";
        let mut events = http
            .open(
                "GET",
                &format!("/events?filters={filters}"),
                &[("Connection", "close")],
                None,
            )
            .unwrap();
        assert_eq!(events.head.status, 200);
        let id = create(lab, Some("watched"), &script("true"));
        http.post(&format!("/containers/{id}/start")).expect(204);
        let mut line = String::new();
        while !line.contains('{') {
            line.clear();
            assert_ne!(events.stream.read_line(&mut line).unwrap(), 0);
        }
        let event: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
        assert_eq!(
            (event["Type"].as_str(), event["Action"].as_str()),
            (Some("container"), Some("start"))
        );
        assert_eq!(event["Actor"]["ID"], id.as_str());
        assert_eq!(event["Actor"]["Attributes"]["name"], "watched");
        assert_eq!(event["Actor"]["Attributes"]["image"], "busybox");
        assert!(event["timeNano"].is_i64() && event["time"].is_i64());
        http.get("/events?filters=nonsense").expect(400);
        http.get("/events?since=never").expect(400);
    });
}

#[test]
fn many_requests_on_one_connection() {
    clean(|lab| {
        let mut connection = lab.http().connect().unwrap();
        for _ in 0..500 {
            let answer = connection.request("GET", "/_ping", &[], None).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "OK"));
        }
    });
}
