//! The server around a small application: what clients do to connections, over real sockets.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;

use super::*;
use crate::reply::Hijack;
use crate::stream::BodyReader;
use crate::{access, intake};

/// Generous: only a hang takes this long.
const LONG: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Seen {
    /// Told when an endless request begins, and when it is dropped.
    began: Notify,
    dropped: Notify,
    hijacked: Mutex<Vec<Vec<u8>>>,
}

struct TestApp(Arc<Seen>);

struct TellsDrop(Arc<Seen>);
impl Drop for TellsDrop {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

impl App for TestApp {
    fn call(&self, request: Inbound) -> BoxFuture<'static, Result<Reply, Error>> {
        let seen = self.0.clone();
        async move {
            access::check(&request.head, &request.link.peer)?;
            match request.head.uri.path() {
                "/ping" => Ok(Reply::bytes(StatusCode::OK, "text/plain", "OK")),
                "/body" => {
                    let body = intake::read_whole(request.body, limits::JSON_BODY).await?;
                    Ok(Reply::bytes(
                        StatusCode::OK,
                        "text/plain",
                        format!("{} bytes", body.len()),
                    ))
                }
                "/refused" => {
                    seen.began.notify_one();
                    intake::discard(request.body).await;
                    Err(Error::unsupported("not here"))
                }
                "/archive" => {
                    let mut reader = BodyReader::start(request.body);
                    let copied = tokio::task::spawn_blocking(move || {
                        let copied = io::copy(&mut reader, &mut io::sink());
                        if copied.is_err() {
                            seen.dropped.notify_one();
                        }
                        copied
                    });
                    match copied.await.expect("thread") {
                        Ok(n) => Ok(Reply::bytes(
                            StatusCode::OK,
                            "text/plain",
                            format!("{n} bytes"),
                        )),
                        Err(error) => Err(Error::bad_request(error.to_string())),
                    }
                }
                "/panic" => panic!("asked to"),
                "/endless" => {
                    let _told = TellsDrop(seen.clone());
                    seen.began.notify_one();
                    std::future::pending().await
                }
                "/stream" => {
                    let told = TellsDrop(seen.clone());
                    seen.began.notify_one();
                    let pieces = stream::iter(0_u64..).map(move |_| {
                        let _held = &told;
                        Ok(Bytes::from(vec![b'x'; 16 << 10]))
                    });
                    Ok(Reply::stream("text/plain", pieces.boxed()))
                }
                "/slow" => {
                    seen.began.notify_one();
                    seen.dropped.notified().await;
                    Ok(Reply::bytes(StatusCode::OK, "text/plain", "slow"))
                }
                "/panic-body" => {
                    let pieces = stream::once(async { panic!("asked to") });
                    Ok(Reply::stream("text/plain", pieces.boxed()))
                }
                "/hijack" => Ok(Reply::Hijack(Hijack {
                    head: Bytes::from_static(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n"),
                    take: Box::new(move |fd: OwnedFd, initial: Vec<u8>| {
                        async move {
                            seen.hijacked.lock().expect("lock").push(initial);
                            std::os::unix::net::UnixStream::from(fd)
                                .write_all(b"raw")
                                .expect("write");
                        }
                        .boxed()
                    }),
                })),
                _ => Err(Error::page_not_found()),
            }
        }
        .boxed()
    }

    fn decorate(&self, headers: &mut HeaderMap) {
        headers.insert("server", hyper::header::HeaderValue::from_static("test"));
    }
}

struct Rig {
    server: Server,
    seen: Arc<Seen>,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("s");
    let listener = Listener::from_fd(
        std::os::unix::net::UnixListener::bind(&path)
            .expect("bind")
            .into(),
    );
    let seen = Arc::new(Seen::default());
    let server = Server::new(Box::new(TestApp(seen.clone())), Panics::default());
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(listener.expect("listener")).await });
    Rig {
        server,
        seen,
        path,
        _dir: dir,
    }
}

impl Rig {
    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.expect("connect")
    }

    /// Sends `request` and gives back all that comes until the server closes.
    async fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        // The server may answer and close before it has read everything.
        let _ = client.write_all(request.as_ref()).await;
        rest_of(&mut client).await
    }
}

async fn rest_of(client: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LONG, client.read_to_end(&mut answer))
        .await
        .expect("the server neither answers nor closes");
    // A reset after the answer is how a socket closes that still had something to read.
    drop(read);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads one answer with a known length.
async fn answer(client: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = String::new();
    let read = async {
        let mut byte = [0];
        while !text.ends_with("\r\n\r\n") {
            client.read_exact(&mut byte).await.expect("head");
            text.push(char::from(byte[0]));
        }
        let length = text
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")
                    .map(str::to_owned)
            })
            .map_or(0, |n| n.parse().expect("length"));
        let mut body = vec![0; length];
        client.read_exact(&mut body).await.expect("body");
        text.push_str(&String::from_utf8_lossy(&body));
    };
    tokio::time::timeout(LONG, read)
        .await
        .expect("answer in time");
    text
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

const PING: &str = "GET /ping HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_refused_request_may_finish_and_its_connection_serves_on() {
    let rig = rig();
    let mut client = rig.connect().await;
    for body in ["{\"Name\":\"n\"}", "{}"] {
        let head = format!(
            "POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.write_all(head.as_bytes()).await.expect("head");
        // The request is looked at before its body comes.
        rig.seen.began.notified().await;
        client.write_all(body.as_bytes()).await.expect("body");
        assert_eq!(status(&answer(&mut client).await), "501");
        client.write_all(PING.as_bytes()).await.expect("write");
        assert_eq!(status(&answer(&mut client).await), "200");
    }
}

#[tokio::test]
async fn a_refused_request_that_does_not_finish_is_answered_all_the_same() {
    let rig = rig();
    for head in [
        "Content-Length: 9",
        "Content-Length: 99999999",
        "Transfer-Encoding: chunked",
    ] {
        let mut client = rig.connect().await;
        let request = format!("POST /refused HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("head");
        assert_eq!(status(&answer(&mut client).await), "501", "{head}");
    }
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order() {
    let rig = rig();
    let mut client = rig.connect().await;
    for _ in 0..3 {
        client.write_all(PING.as_bytes()).await.expect("write");
        let text = answer(&mut client).await;
        assert_eq!(status(&text), "200");
        assert!(text.ends_with("OK"));
        assert!(text.contains("Server: test"));
    }
    let pipelined = PING.repeat(500);
    let writer = async { client.write_all(pipelined.as_bytes()).await.expect("write") };
    // Both at once: unread answers would stop the server, and then us.
    let (mut read, mut write) = rig.connect().await.into_split();
    drop(writer);
    let sent = async {
        write.write_all(pipelined.as_bytes()).await.expect("write");
        write.shutdown().await.expect("shutdown");
    };
    let ((), all) = tokio::join!(sent, rest_of(&mut read));
    assert_eq!(all.matches("200 OK").count(), 500);
}

#[tokio::test]
async fn wrong_requests_get_an_answer_and_the_connection_closes() {
    let rig = rig();
    let many = format!(
        "GET /ping HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "A: b\r\n".repeat(300)
    );
    let large = format!(
        "GET /ping HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
        "b".repeat(70 << 10)
    );
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "x".repeat(17 << 10)
    );
    let cases: &[(&str, &str)] = &[
        ("\x16\x03\x01\x02\x00\x01\x00", "400"),
        ("garbage\r\n\r\n", "400"),
        ("GET /ping HTTP/9.9\r\nHost: x\r\n\r\n", "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", "400"),
        ("GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
        (
            "GET /ping HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
            "400",
        ),
        (
            "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "400",
        ),
        (
            "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "400",
        ),
        (
            "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
            "400",
        ),
        (
            "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "400",
        ),
        (
            "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            "400",
        ),
        ("GET /ping HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", "400"),
        (
            "GET /ping HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n",
            "400",
        ),
        (
            "GET http://example.org/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "TRACE /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "405",
        ),
        (
            "CONNECT example.org:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "405",
        ),
        (&many, "431"),
        (&large, "431"),
        (&long, "414"),
        (
            "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 4194305\r\n\r\n",
            "413",
        ),
    ];
    for (request, expected) in cases {
        let text = rig.exchange(request).await;
        assert_eq!(
            status(&text),
            *expected,
            "{:?} → {text:?}",
            &request[..request.len().min(80)]
        );
    }
    assert_eq!(rig.server.panics(), 0);
}

#[tokio::test]
async fn a_length_that_contradicts_chunking_never_smuggles_a_request() {
    let rig = rig();
    for request in [
        "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /panic HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\nGET /panic HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let text = rig.exchange(request).await;
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    }
    assert_eq!(rig.server.panics(), 0, "the second request was not run");
}

#[tokio::test]
async fn slow_headers_and_slow_bodies_are_given_up() {
    let rig = rig();
    let (mut slow, mut stalled, mut silent) = (
        rig.connect().await,
        rig.connect().await,
        rig.connect().await,
    );
    slow.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\nX: ")
        .await
        .expect("write");
    stalled
        .write_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
        .await
        .expect("write");
    let (slow, stalled, silent) = tokio::join!(
        rest_of(&mut slow),
        rest_of(&mut stalled),
        rest_of(&mut silent)
    );
    assert_eq!(status(&slow), "408");
    assert_eq!(status(&stalled), "408");
    assert_eq!(
        silent, "",
        "a connection that never says anything is closed without a word"
    );
}

#[tokio::test]
async fn old_http_is_answered_and_closed() {
    let rig = rig();
    let text = rig.exchange("GET /ping HTTP/1.0\r\n\r\n").await;
    assert!(
        text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with("OK"),
        "{text}"
    );
}

#[tokio::test]
async fn bodies_are_whole_or_refused() {
    let rig = rig();
    let mut client = rig.connect().await;
    client
        .write_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc")
        .await
        .expect("write");
    client.shutdown().await.expect("shutdown");
    assert_eq!(
        status(&rest_of(&mut client).await),
        "400",
        "shorter than announced"
    );

    let chunked = "POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert!(rig.exchange(chunked).await.ends_with("5 bytes"));

    let mut big = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..70 {
        big.extend_from_slice(b"10000\r\n");
        big.extend_from_slice(&[b'x'; 0x10000]);
        big.extend_from_slice(b"\r\n");
    }
    let mut client = rig.connect().await;
    let (mut read, mut write) = client.split();
    let (_, text) = tokio::join!(write.write_all(&big), rest_of(&mut read));
    assert_eq!(status(&text), "413");
}

#[tokio::test]
async fn a_client_that_expects_to_be_asked_is_asked() {
    let rig = rig();
    let mut client = rig.connect().await;
    client
        .write_all(
            b"POST /body HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        )
        .await
        .expect("write");
    assert_eq!(status(&answer(&mut client).await), "100");
    client.write_all(b"abc").await.expect("write");
    assert!(answer(&mut client).await.ends_with("3 bytes"));
}

#[tokio::test]
async fn a_panic_ends_its_request_alone_and_is_counted() {
    let rig = rig();
    let mut client = rig.connect().await;
    client
        .write_all(b"GET /panic HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .expect("write");
    let text = answer(&mut client).await;
    assert_eq!(status(&text), "500");
    assert!(text.contains("\"message\""));
    assert_eq!(rig.server.panics(), 1);
    // The same connection goes on.
    client.write_all(PING.as_bytes()).await.expect("write");
    assert_eq!(status(&answer(&mut client).await), "200");

    let text = rig
        .exchange("GET /panic-body HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert!(
        !text.contains("\r\n0\r\n"),
        "the body is visibly cut: {text}"
    );
    rig.server.drain();
    drop(client);
    tokio::time::timeout(LONG, rig.server.drained())
        .await
        .expect("drained");
    assert_eq!(rig.server.panics(), 2);
}

#[tokio::test]
async fn a_vanished_client_ends_its_work_and_a_half_closed_one_does_not() {
    let rig = rig();
    let mut client = rig.connect().await;
    client
        .write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .expect("write");
    rig.seen.began.notified().await;
    client.shutdown().await.expect("shutdown");
    tokio::time::timeout(Duration::from_millis(200), rig.seen.dropped.notified())
        .await
        .expect_err("a client that only finished sending still waits for its answer");
    drop(client);
    tokio::time::timeout(LONG, rig.seen.dropped.notified())
        .await
        .expect("the work ends with its client");
}

#[tokio::test]
async fn a_stream_stops_for_a_client_that_does_not_read_and_ends_with_it() {
    let rig = rig();
    let mut client = rig.connect().await;
    client
        .write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .expect("write");
    rig.seen.began.notified().await;
    let mut some = vec![0; 64 << 10];
    client.read_exact(&mut some).await.expect("read");
    drop(client);
    tokio::time::timeout(LONG, rig.seen.dropped.notified())
        .await
        .expect("the stream ends with its client");
}

#[tokio::test]
async fn an_upload_that_is_cut_fails_its_reader() {
    let rig = rig();
    let mut client = rig.connect().await;
    client
        .write_all(
            b"POST /archive HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        )
        .await
        .expect("write");
    drop(client);
    tokio::time::timeout(LONG, rig.seen.dropped.notified())
        .await
        .expect("the reader is told");
}

#[tokio::test]
async fn a_hijacked_connection_is_handed_over_with_what_was_read_beyond_the_request() {
    let rig = rig();
    // Behind an answered request, and with input already sent.
    let mut client = rig.connect().await;
    let request = format!("{PING}POST /hijack HTTP/1.1\r\nHost: x\r\n\r\nfirst keys");
    client.write_all(request.as_bytes()).await.expect("write");
    let text = rest_of(&mut client).await;
    let (ping, raw) = text.split_once("OKHTTP/1.1 101").expect("both answers");
    assert_eq!(status(ping), "200");
    assert!(raw.ends_with("\r\n\r\nraw"), "{raw}");
    assert_eq!(
        *rig.seen.hijacked.lock().expect("lock"),
        [b"first keys".to_vec()]
    );
}

#[tokio::test]
async fn a_drain_answers_what_was_sent_and_tells_clients_that_the_rest_was_not_read() {
    let rig = rig();
    let mut idle = rig.connect().await;
    idle.write_all(PING.as_bytes()).await.expect("write");
    assert_eq!(status(&answer(&mut idle).await), "200");
    let mut slow = rig.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .expect("write");
    rig.seen.began.notified().await;
    // One that sent its request in the same instant, one that is still in the queue.
    idle.write_all(PING.as_bytes()).await.expect("write");
    let mut queued = UnixStream::connect(&rig.path).await.expect("connect");
    queued.write_all(PING.as_bytes()).await.expect("write");

    rig.server.drain();
    assert_eq!(status(&rest_of(&mut idle).await), "200");
    assert!(
        idle.write_all(PING.as_bytes()).await.is_err(),
        "a later request is refused by the kernel"
    );
    assert_eq!(status(&rest_of(&mut queued).await), "200");
    // The one that is being worked on is waited for.
    tokio::time::timeout(Duration::from_millis(100), rig.server.drained())
        .await
        .expect_err("a request is open");
    rig.seen.dropped.notify_one();
    assert!(rest_of(&mut slow).await.ends_with("slow"));
    tokio::time::timeout(LONG, rig.server.drained())
        .await
        .expect("drained");

    // What came after the drain waits for whoever listens next.
    let mut late = UnixStream::connect(&rig.path).await.expect("connect");
    late.write_all(PING.as_bytes()).await.expect("write");
    rig.server.resume();
    assert_eq!(status(&answer(&mut late).await), "200");
    rig.server.end();
    assert_eq!(rest_of(&mut late).await, "");
}

#[tokio::test]
async fn a_drain_waits_for_the_first_request_of_a_fresh_connection_but_not_for_ever() {
    let rig = rig();
    let mut fresh = rig.connect().await;
    let mut silent = rig.connect().await;
    // Both are accepted by now: a later one was answered.
    assert_eq!(
        status(
            &rig.exchange("GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .await
        ),
        "200"
    );
    rig.server.drain();
    tokio::time::timeout(Duration::from_millis(50), rig.server.drained())
        .await
        .expect_err("two may still begin");
    fresh.write_all(PING.as_bytes()).await.expect("not refused");
    let text = rest_of(&mut fresh).await;
    assert!(
        text.starts_with("HTTP/1.1 200") && text.contains("Connection: close"),
        "{text}"
    );
    assert_eq!(rest_of(&mut silent).await, "");
    tokio::time::timeout(LONG, rig.server.drained())
        .await
        .expect("drained");
}

#[tokio::test]
async fn on_tcp_the_end_of_input_is_the_end_of_the_client() {
    let seen = Arc::new(Seen::default());
    let server = Server::new(Box::new(TestApp(seen.clone())), Panics::default());
    let std = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = std.local_addr().expect("address");
    let listener = Listener::from_fd(std.into()).expect("listener");
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    let mut client = TcpStream::connect(address).await.expect("connect");
    let request = format!("GET /endless HTTP/1.1\r\nHost: {address}\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("write");
    seen.began.notified().await;
    drop(client);
    tokio::time::timeout(LONG, seen.dropped.notified())
        .await
        .expect("the work ends with its client");
}

#[tokio::test]
async fn many_dropped_connections_leave_nothing() {
    let rig = rig();
    for n in 0..300 {
        let mut client = rig.connect().await;
        if n % 3 != 0 {
            client
                .write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n")
                .await
                .expect("write");
        }
        if n % 3 == 2 {
            client.write_all(b"\r\n").await.expect("write");
        }
    }
    rig.server.drain();
    tokio::time::timeout(LONG, rig.server.drained())
        .await
        .expect("every connection ended");
}

#[tokio::test]
async fn only_listening_sockets_are_taken() {
    let file = std::fs::File::open("/dev/null").expect("open");
    assert!(Listener::from_fd(file.into()).is_err());
    let dir = tempfile::tempdir().expect("tempdir");
    let unix = UnixListener::bind(dir.path().join("s"))
        .expect("bind")
        .into_std()
        .expect("std");
    assert!(matches!(
        Listener::from_fd(unix.into()),
        Ok(Listener::Unix(_))
    ));
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    assert!(matches!(
        Listener::from_fd(tcp.into()),
        Ok(Listener::Tcp(_))
    ));
}
