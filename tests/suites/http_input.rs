//! Bad input at the API: shared rules C.1 to C.3 of the security specification. Whatever comes, the answer is a clear
//! error or a closed connection, nothing is executed, and the agent goes on answering.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use berth_tests::lab::Lab;
use serde_json::json;

use crate::support::{clean, create, script};

/// Sends bytes, returns the status of the answer (0: the connection was closed without one).
fn status_of(lab: &Lab, bytes: &[u8]) -> u16 {
    let answer = lab.http().raw(bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&answer);
    text.split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}

#[track_caller]
fn assert_alive(lab: &Lab, pid: Option<u32>) {
    assert_eq!(lab.http().get("/_ping").expect(200).text(), "OK");
    assert_eq!(lab.agent(), pid, "it is still the same agent");
}

#[test]
fn c1_garbage_is_refused_and_the_agent_goes_on() {
    clean(|lab| {
        let pid = lab.agent();
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"\0\0\0\0\0\0\0\0",
            b"GET /_ping\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /_ping HTTP/9.9\r\nHost: x\r\n\r\n",
            b"GET  /_ping HTTP/1.1 extra\r\nHost: x\r\n\r\n",
            b"GET /_ping HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
            b"GET /_ping HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n",
            b"GET /_ping HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        ] {
            let status = status_of(lab, bytes);
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
            assert!(matches!(status, 0 | 400..=499 | 501 | 505), "{shown:?}: {status}");
        }
        assert_alive(lab, pid);
        assert_eq!(lab.http().get("/containers/json?all=1").json(), json!([]));
    });
}

#[test]
fn c1_no_host_and_two_hosts() {
    clean(|lab| {
        assert_eq!(status_of(lab, b"GET /_ping HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(
            status_of(lab, b"GET /_ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            400
        );
        // The docker CLI sends an empty or made-up host.
        assert_eq!(
            status_of(
                lab,
                b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
            ),
            200
        );
        assert_eq!(status_of(lab, b"GET /_ping HTTP/1.0\r\n\r\n"), 200);
    });
}

#[test]
fn c1_no_proxy() {
    clean(|lab| {
        for request in [
            &b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET http://example.com/_ping HTTP/1.1\r\nHost: example.com\r\n\r\n",
        ] {
            let status = status_of(lab, request);
            assert!(matches!(status, 400..=405 | 501), "{status}");
        }
    });
}

#[test]
fn c1_limits_of_the_head() {
    clean(|lab| {
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20 << 10));
        assert!(matches!(status_of(lab, long.as_bytes()), 400 | 414 | 431));
        let fat = format!(
            "GET /_ping HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
            "a".repeat(80 << 10)
        );
        assert!(matches!(status_of(lab, fat.as_bytes()), 0 | 400 | 431));
        let many: String = (0..300).map(|n| format!("H{n}: v\r\n")).collect();
        assert_eq!(
            status_of(
                lab,
                format!("GET /_ping HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()
            ),
            431
        );
    });
}

#[test]
fn c1_a_body_that_is_cut_executes_nothing() {
    clean(|lab| {
        let body = script("true").to_string();
        let request = format!(
            "POST /containers/create?name=cut HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len() + 10
        );
        let status = status_of(lab, request.as_bytes());
        assert!(matches!(status, 0 | 400), "{status}");
        lab.http().get("/containers/cut/json").expect(404);
    });
}

#[test]
fn c1_idle_and_slow_connections_hold_nobody_up() {
    clean(|lab| {
        let socket = lab.path("/run/berth/berth.sock");
        let mut slow: Vec<UnixStream> = (0..300)
            .map(|_| UnixStream::connect(&socket).unwrap())
            .collect();
        for stream in &mut slow {
            stream.write_all(b"GET /_ping HTTP/1.1\r\nHo").unwrap();
        }
        let begun = std::time::Instant::now();
        lab.http().get("/_ping").expect(200);
        assert!(begun.elapsed().as_millis() < 1_000, "{:?}", begun.elapsed());
        // Each of them is answered when it gets on.
        for stream in &mut slow[..3] {
            stream
                .write_all(b"st: x\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(text.ends_with("OK"), "{text}");
        }
    });
}

#[test]
fn c1_pipelined_requests_are_answered_in_order() {
    clean(|lab| {
        let count = 2_000;
        let mut bytes = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n".repeat(count - 1);
        bytes.extend_from_slice(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut stream = UnixStream::connect(lab.path("/run/berth/berth.sock")).unwrap();
        let mut reader = stream.try_clone().unwrap();
        let read = std::thread::spawn(move || {
            let mut answer = Vec::new();
            reader.read_to_end(&mut answer).map(|_| answer)
        });
        stream.write_all(&bytes).unwrap();
        let answer = read.join().unwrap().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&answer)
                .matches("HTTP/1.1 200 OK")
                .count(),
            count
        );
    });
}

#[test]
fn c1_clients_that_vanish_cost_nothing() {
    // That the descriptors go back to what they were is checked by `clean`.
    clean(|lab| {
        let id = create(lab, None, &script("sleep 1000"));
        lab.http()
            .post(&format!("/containers/{id}/start"))
            .expect(204);
        for path in [
            "/events".to_owned(),
            format!("/containers/{id}/logs?stdout=1&follow=1"),
        ] {
            let streams: Vec<_> = (0..40)
                .map(|_| lab.http().open("GET", &path, &[], None).unwrap())
                .collect();
            assert!(streams.iter().all(|stream| stream.head.status == 200));
        }
        for _ in 0..40 {
            let upgrade = [("Connection", "Upgrade"), ("Upgrade", "tcp")];
            drop(
                lab.http()
                    .open(
                        "POST",
                        &format!("/containers/{id}/attach?stream=1&stdout=1"),
                        &upgrade,
                        None,
                    )
                    .unwrap(),
            );
            drop(
                lab.http()
                    .open("POST", &format!("/containers/{id}/wait"), &[], None)
                    .unwrap(),
            );
        }
        for _ in 0..500 {
            drop(lab.http().connect().unwrap());
        }
        lab.http().get("/_ping").expect(200);
    });
}

#[test]
fn c2_bodies_that_are_no_json() {
    clean(|lab| {
        let pid = lab.agent();
        let deep = "[".repeat(100_000);
        let keys = format!(
            "{{{}}}",
            (0..200_000)
                .map(|n| format!("\"k{n}\":1"))
                .collect::<Vec<_>>()
                .join(",")
        );
        for body in [
            "",
            "{",
            "[]",
            "null",
            "3",
            "\"x\"",
            "{} {}",
            "{\"Image\": 3}",
            "{\"Image\": \"busybox\", \"Cmd\": {}}",
            "{\"Image\": \"busybox\", \"HostConfig\": {\"Memory\": 1.5}}",
            "{\"Image\": \"busybox\", \"HostConfig\": {\"Memory\": \"64m\"}}",
            "{\"Image\": \"busybox\", \"HostConfig\": {\"Memory\": 99999999999999999999999}}",
            "{\"Image\": \"\\ud800\"}",
            &deep,
            &keys,
        ] {
            let answer =
                lab.http()
                    .post_bytes("/containers/create", "application/json", body.as_bytes());
            let shown: String = body.chars().take(60).collect();
            // A million unknown keys are no error of form, but such a request names no image.
            assert!(
                matches!(answer.status, 400 | 404),
                "{shown}: {} {}",
                answer.status,
                answer.text()
            );
            assert!(!answer.message().is_empty());
        }
        let answer = lab.http().post_bytes(
            "/containers/create",
            "application/json",
            b"{\"Image\":\"\xff\xfe\"}",
        );
        assert_eq!(answer.status, 400);
        assert_alive(lab, pid);
    });
}

#[test]
fn c2_a_wrong_type_names_its_field() {
    clean(|lab| {
        let answer = lab.http().post_bytes(
            "/containers/create",
            "application/json",
            b"{\"Image\":\"busybox\",\"HostConfig\":{\"Memory\":\"64m\"}}",
        );
        let text = answer.expect(400).message();
        assert!(text.contains("Memory"), "{text}");
    });
}

#[test]
fn c2_a_huge_body_is_too_large() {
    clean(|lab| {
        let pid = lab.agent();
        let body = format!(
            "{{\"Image\":\"busybox\",\"Labels\":{{\"x\":\"{}\"}}}}",
            "y".repeat(5 << 20)
        );
        let answer = lab.http().send(
            "POST",
            "/containers/create",
            &[("Content-Type", "application/json")],
            Some(body.as_bytes()),
        );
        // The answer may come before all was sent, and the rest then meets a closed connection.
        if let Ok(answer) = answer {
            assert_eq!(answer.status, 413, "{}", answer.text());
        }
        assert_alive(lab, pid);
        assert_eq!(lab.http().get("/containers/json?all=1").json(), json!([]));
    });
}

#[test]
fn c2_the_content_type_must_be_json() {
    clean(|lab| {
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
        ] {
            let answer = lab.http().post_bytes(
                "/containers/create",
                kind,
                script("true").to_string().as_bytes(),
            );
            assert!(
                matches!(answer.status, 400 | 415),
                "{kind}: {}",
                answer.status
            );
        }
        let answer = lab.http().post_bytes(
            "/containers/create",
            "application/json; charset=utf-8",
            script("true").to_string().as_bytes(),
        );
        assert_eq!(answer.status, 201, "{}", answer.text());
    });
}

#[test]
fn c3_names_and_ids() {
    clean(|lab| {
        for name in [
            "..%2Fx",
            "a%2Fb",
            "-x",
            ".x",
            "a%00b",
            "a%0Ab",
            "a%20b",
            "%E2%80%AEx",
            "x",
            &"n".repeat(300),
        ] {
            let answer = lab
                .http()
                .post_json(&format!("/containers/create?name={name}"), &script("true"));
            assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        }
        for id in [
            "..%2f..%2fetc%2fpasswd",
            "%2e%2e",
            "..",
            "%00",
            "a%0Ab",
            "%252e%252e",
        ] {
            let answer = lab.http().get(&format!("/containers/{id}/json"));
            assert!(
                matches!(answer.status, 400 | 404),
                "{id}: {} {}",
                answer.status,
                answer.text()
            );
        }
        for image in [
            "UPPER",
            "a b",
            "-x",
            "a:b:c",
            "x@sha256:12",
            &format!("x:{}", "t".repeat(129)),
        ] {
            let answer = lab
                .http()
                .post_json("/containers/create", &json!({ "Image": image }));
            assert!(
                matches!(answer.status, 400 | 404),
                "{image}: {} {}",
                answer.status,
                answer.text()
            );
        }
    });
}

#[test]
fn c3_queries() {
    clean(|lab| {
        let http = lab.http();
        for query in [
            "/containers/json?limit=many",
            "/containers/json?filters=nonsense",
            "/containers/json?filters=%5B1%5D",
            "/containers/json?filters=%7B%22colour%22%3A%5B%22blue%22%5D%7D",
            "/images/json?filters=%7B%22colour%22%3A%5B%22blue%22%5D%7D",
        ] {
            http.get(query).expect(400);
        }
        let id = create(lab, None, &script("true"));
        http.post(&format!("/containers/{id}/resize?h=-1&w=9"))
            .expect(400);
        http.post(&format!("/containers/{id}/resize?h=x&w=9"))
            .expect(400);
        http.post(&format!("/containers/{id}/rename")).expect(400);
        http.post(&format!("/containers/{id}/rename?name=%2Fbad%2Fname"))
            .expect(400);
        http.post(&format!("/containers/{id}/stop?t=soon"))
            .expect(400);
    });
}

#[test]
fn c3_fields_that_would_reach_files() {
    clean(|lab| {
        let mut accepted = Vec::new();
        for body in [
            json!({ "Image": "busybox", "Hostname": "a\nb" }),
            json!({ "Image": "busybox", "Hostname": "a b" }),
            json!({ "Image": "busybox", "Domainname": "x\ny" }),
            json!({ "Image": "busybox", "HostConfig": { "ExtraHosts": ["name:1.2.3.4\n6.6.6.6 evil"] } }),
            json!({ "Image": "busybox", "HostConfig": { "ExtraHosts": ["noaddress"] } }),
            json!({ "Image": "busybox", "HostConfig": { "Dns": ["not an address"] } }),
            json!({ "Image": "busybox", "HostConfig": { "DnsSearch": ["a\nnameserver 6.6.6.6"] } }),
            json!({ "Image": "busybox", "HostConfig": { "DnsOptions": ["a\nb"] } }),
            json!({ "Image": "busybox", "Env": ["A=\u{0}"] }),
            json!({ "Image": "busybox", "Cmd": ["a\u{0}b"] }),
            json!({ "Image": "busybox", "Env": [format!("A={}", "x".repeat(200 << 10))] }),
            json!({ "Image": "busybox", "StopSignal": "SIGNOPE" }),
            json!({ "Image": "busybox", "StopSignal": "65" }),
            json!({ "Image": "busybox", "HostConfig": { "LogConfig": { "Type": "telegraph" } } }),
            json!({ "Image": "busybox", "HostConfig": { "LogConfig": { "Type": "json-file", "Config": { "colour": "blue" } } } }),
            json!({ "Image": "busybox", "HostConfig": { "LogConfig": { "Type": "json-file", "Config": { "max-size": "big" } } } }),
            json!({ "Image": "busybox", "HostConfig": { "Binds": ["relative:/x"] } }),
            json!({ "Image": "busybox", "HostConfig": { "Binds": ["/a:relative"] } }),
            json!({ "Image": "busybox", "HostConfig": { "Binds": ["/a:/"] } }),
            json!({ "Image": "busybox", "HostConfig": { "Binds": ["/a:/b:wild"] } }),
            json!({ "Image": "busybox", "HostConfig": { "Binds": ["/a:/b:ro:rw"] } }),
            json!({ "Image": "busybox", "HostConfig": { "Binds": ["/a:/x", "/b:/x"] } }),
            json!({ "Image": "busybox", "User": "99999999999" }),
            json!({ "Image": "busybox", "HostConfig": { "Ulimits": [{ "Name": "nonsense", "Soft": 1, "Hard": 1 }] } }),
            json!({ "Image": "busybox", "HostConfig": { "Ulimits": [{ "Name": "nofile", "Soft": 9, "Hard": 1 }] } }),
            json!({ "Image": "busybox", "HostConfig": { "RestartPolicy": { "Name": "sometimes" } } }),
            json!({ "Image": "busybox", "HostConfig": { "RestartPolicy": { "Name": "always" }, "AutoRemove": true } }),
            json!({ "Image": "busybox", "HostConfig": { "CapAdd": ["FLY"] } }),
            json!({ "Image": "busybox", "HostConfig": { "NetworkMode": "container:" } }),
            json!({ "Image": "busybox", "MacAddress": "zz:zz" }),
        ] {
            let answer = lab.http().post_json("/containers/create", &body);
            if !matches!(answer.status, 400 | 501) {
                let shown: String = body.to_string().chars().take(120).collect();
                accepted.push(format!("{shown}: {} {}", answer.status, answer.text()));
            }
        }
        assert!(accepted.is_empty(), "C.3:\n{}", accepted.join("\n"));
    });
}

#[test]
fn c3_one_of_many_gets_a_name() {
    clean(|lab| {
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..20)
                .map(|_| {
                    scope.spawn(|| {
                        lab.http()
                            .post_json("/containers/create?name=race", &script("true"))
                            .status
                    })
                })
                .collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .collect()
        });
        assert_eq!(
            statuses.iter().filter(|status| **status == 201).count(),
            1,
            "{statuses:?}"
        );
        assert!(
            statuses.iter().all(|status| matches!(status, 201 | 409)),
            "{statuses:?}"
        );
    });
}

#[test]
fn c3_start_and_remove_races() {
    clean(|lab| {
        for _ in 0..5 {
            let id = create(lab, None, &script("sleep 1000"));
            let race = |path: String, method: &'static str| {
                let statuses: Vec<u16> = std::thread::scope(|scope| {
                    let clients: Vec<_> = (0..10)
                        .map(|_| {
                            scope
                                .spawn(|| lab.http().send(method, &path, &[], None).unwrap().status)
                        })
                        .collect();
                    clients
                        .into_iter()
                        .map(|client| client.join().unwrap())
                        .collect()
                });
                assert_eq!(
                    statuses.iter().filter(|status| **status == 204).count(),
                    1,
                    "{path}: {statuses:?}"
                );
                assert!(
                    statuses
                        .iter()
                        .all(|status| matches!(status, 204 | 304 | 404 | 409)),
                    "{path}: {statuses:?}"
                );
            };
            race(format!("/containers/{id}/start"), "POST");
            race(format!("/containers/{id}?force=1"), "DELETE");
        }
    });
}

#[test]
fn c5_browsers_get_nothing_over_tcp() {
    clean(|lab| {
        lab.sh(
            "mkdir -p /run/tcp; systemd-run --quiet --unit=tcp-berthd -p Type=notify berthd -H tcp://127.0.0.1:2375 --insecure-tcp \
             --data-root /var/lib/berth/tcp --run-root /run/tcp --cgroup-driver cgroupfs --bridge tcp0 --bridge-subnet 172.26.0.0/16",
        );
        let ask = |headers: &str| {
            lab.sh(&format!(
                "python3 -c \"import http.client; c = http.client.HTTPConnection('127.0.0.1', 2375); c.putrequest('POST', '/containers/prune', skip_host=True); \
                 [c.putheader(*h.split('=')) for h in '{headers}'.split(',')]; c.putheader('Content-Length', '0'); c.endheaders(); print(c.getresponse().status)\""
            ))
        };
        let plain = ask("Host=127.0.0.1:2375");
        let mut refused = Vec::new();
        for headers in [
            "Host=127.0.0.1:2375,Origin=http://evil.example",
            "Host=127.0.0.1:2375,Sec-Fetch-Site=cross-site",
            "Host=evil.example:2375",
            "Host=evil.example",
        ] {
            refused.push((headers, ask(headers)));
        }
        lab.sh("systemctl stop tcp-berthd; ip link del tcp0 2>/dev/null || true; rm -rf /var/lib/berth/tcp /run/tcp");
        assert_eq!(plain, "200");
        for (headers, status) in refused {
            assert_eq!(status, "403", "C.5 {headers}");
        }
    });
}
