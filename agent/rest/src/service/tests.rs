use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::Face;
use crate::socket::Listener;

fn outcome(method: &Method, path: &str) -> (u16, String) {
    match route(&routes::table(), method, path) {
        Ok(found) => (0, found.name),
        Err((Failure::Face(error), _)) => (error.status.as_u16(), error.message),
        Err((Failure::Engine(error), version)) => {
            let reply = berth_api::error::reply(Operation::Other, &error, version);
            (reply.status, error.full_message())
        }
    }
}

#[test]
fn paths_are_served_with_and_without_a_version() {
    for path in [
        "/containers/json",
        "/v1.24/containers/json",
        "/v1.0/containers/json",
        "/v1.51/containers/ps",
    ] {
        assert_eq!(outcome(&Method::GET, path), (0, String::new()), "{path}");
    }
    assert_eq!(
        outcome(&Method::GET, "/v1.41/containers/web%2Fdb/json"),
        (0, "web/db".to_owned())
    );
    assert_eq!(
        outcome(&Method::GET, "/images/a/b/c:d/history"),
        (0, "a/b/c:d".to_owned())
    );
    assert_eq!(outcome(&Method::HEAD, "/_ping"), (0, String::new()));
    assert_eq!(
        outcome(&Method::DELETE, "/v1.12/containers/web/db"),
        (0, "web/db".to_owned())
    );
}

#[test]
fn versions_that_are_not_spoken_are_refused_with_the_limit() {
    let (status, message) = outcome(&Method::GET, "/v1.99/info");
    assert_eq!(status, 400);
    assert_eq!(
        message,
        "client version 1.99 is too new. Maximum supported API version is 1.51"
    );
    assert_eq!(outcome(&Method::GET, "/v0.9/info").0, 400);
    assert_eq!(outcome(&Method::GET, "/v1..2/info").0, 400);
}

#[test]
fn what_does_not_exist_is_not_found() {
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/nonsense"),
        (Method::GET, "/v1.24"),
        (Method::GET, "//containers/json"),
        (Method::GET, "/containers/json/"),
        (Method::POST, "/containers/json"),
        (Method::HEAD, "/info"),
        (Method::PUT, "/containers/x"),
        // Not in that version.
        (Method::POST, "/v1.16/containers/x/rename"),
        (Method::POST, "/v1.24/containers/prune"),
        (Method::GET, "/images/viz"),
    ] {
        assert_eq!(outcome(&method, path).0, 404, "{method} {path}");
    }
    assert_eq!(outcome(&Method::GET, "/nonsense").1, "page not found");
    assert_eq!(outcome(&Method::GET, "/containers/%zz/json").0, 400);
}

#[test]
fn what_is_known_but_not_served_says_so() {
    let table = [
        (Method::POST, "/containers/x/exec", "exec"),
        (Method::POST, "/exec/abc/start", "exec"),
        (Method::POST, "/build", "building images"),
        (Method::POST, "/session", "building images"),
        (Method::POST, "/commit", "commit"),
        (Method::GET, "/containers/x/export", "exporting"),
        (Method::GET, "/containers/x/stats", "resource use"),
        (Method::GET, "/containers/x/changes", "changes"),
        (Method::GET, "/containers/x/attach/ws", "websocket"),
        (Method::HEAD, "/containers/x/archive", "copying"),
        (Method::PUT, "/containers/x/archive", "copying"),
        (Method::POST, "/containers/x/update", "updating"),
        (Method::GET, "/networks", "networks"),
        (Method::GET, "/volumes", "volumes"),
        (Method::GET, "/plugins", "plugins"),
        (Method::POST, "/swarm/init", "swarm"),
        (Method::GET, "/nodes", "swarm"),
        (Method::GET, "/services", "swarm"),
        (Method::GET, "/tasks", "swarm"),
        (Method::GET, "/secrets", "swarm"),
        (Method::GET, "/configs", "swarm"),
        (Method::GET, "/images/search", "registries"),
        (Method::POST, "/images/a/b/push", "registries"),
        (Method::POST, "/auth", "registries"),
        (Method::GET, "/distribution/a/b/json", "registries"),
        (Method::GET, "/system/df", "disk use"),
    ];
    for (method, path, word) in table {
        let (status, message) = outcome(&method, path);
        assert_eq!(status, 501, "{method} {path}");
        assert!(
            message.contains(word) && message.ends_with("not supported by this version of berth"),
            "{message}"
        );
    }
}

#[test]
fn no_route_hides_another() {
    let routes = routes::table();
    let entries: Vec<_> = routes.entries().collect();
    for (n, (method, pattern)) in entries.iter().enumerate() {
        let path = pattern.example();
        let (_, first) = entries
            .iter()
            .enumerate()
            .find(|(_, (m, p))| m == method && p.matches(&path).is_some())
            .map(|(i, _)| (0, i))
            .expect("itself");
        assert_eq!(first, n, "{method} {path} is taken by an earlier route");
    }
}

async fn get(path: &std::path::Path, request: &str) -> String {
    let mut client = UnixStream::connect(path).await.expect("connect");
    client.write_all(request.as_bytes()).await.expect("write");
    let mut answer = String::new();
    let read = client.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("in time")
        .expect("read");
    answer
}

fn face(
    backend: Backend,
) -> (
    Face,
    watch::Sender<Backend>,
    std::path::PathBuf,
    tempfile::TempDir,
) {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    let (sender, state) = watch::channel(backend);
    let face = Face::new("1.2.3", "abc", state);
    let serving = face.clone();
    tokio::spawn(async move {
        serving
            .serve(Listener::from_fd(listener.into()).expect("listener"))
            .await
    });
    (face, sender, path, dir)
}

#[tokio::test]
async fn an_agent_that_cannot_work_says_why_to_every_request() {
    let (_face, _sender, path, _dir) =
        face(Backend::Unavailable("the database is damaged".to_owned()));
    for request in [
        "GET /_ping",
        "GET /v1.24/containers/json",
        "POST /containers/create",
        "GET /nonsense",
    ] {
        let answer = get(
            &path,
            &format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.ends_with("{\"message\":\"the database is damaged\"}\n"),
            "{answer}"
        );
        assert!(answer.contains("\r\nRetry-After: "), "{answer}");
        assert!(answer.contains("\r\nServer: "), "{answer}");
    }
}

#[tokio::test]
async fn requests_wait_for_an_agent_that_opens() {
    let (_face, sender, path, _dir) = face(Backend::Opening);
    let request = "GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut waiting = std::pin::pin!(get(&path, request));
    tokio::time::timeout(Duration::from_millis(100), &mut waiting)
        .await
        .expect_err("no answer before there is one");
    sender.send_replace(Backend::Unavailable("no disk".to_owned()));
    assert!(waiting.await.contains("no disk"));
}

#[tokio::test]
async fn options_are_answered_everywhere() {
    let (_face, _sender, path, _dir) = face(Backend::Opening);
    let answer = get(
        &path,
        "OPTIONS /any HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
