//! The program itself, started as systemd starts it: listening sockets passed by number and name.
//! What needs an engine needs root and a cgroup v2 tree, and is ignored unless asked for.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const AGENT: &str = env!("CARGO_BIN_EXE_berthd");
const LONG: Duration = Duration::from_secs(60);
const PING: &str = "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n";

/// One place for an agent: roots, sockets, a log.
struct Place {
    dir: tempfile::TempDir,
    api: UnixListener,
    monitor: UnixListener,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let api = UnixListener::bind(dir.path().join("api")).expect("bind");
        let monitor = UnixListener::bind(dir.path().join("monitor")).expect("bind");
        Self { dir, api, monitor }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn args(&self) -> Vec<String> {
        let path = |name| self.path(name).display().to_string();
        let config = path("berthd.toml");
        if !Path::new(&config).exists() {
            fs::write(&config, "").expect("write");
        }
        let (data, run) = (path("data"), path("run"));
        [
            "--config",
            &config,
            "--data-root",
            &data,
            "--run-root",
            &run,
            "--monitor",
            "/bin/true",
            "--cgroup-driver",
            "cgroupfs",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Runs the agent to its end.
    fn run(&self, args: &[&str]) -> Output {
        program(AGENT)
            .args(self.args())
            .args(args)
            .output()
            .expect("the agent starts")
    }

    /// Starts the agent with descriptor 3 as the API's socket and 4 as the monitors'. `before` is shell
    /// for what has to happen first.
    fn activate(&self, before: &str, args: &[&str]) -> Child {
        let script = format!(
            "exec 3<&0 4<&1 1>&2 0</dev/null; {before} \
             LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=api:monitor exec \"$@\""
        );
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path("log"))
            .expect("log");
        program("sh")
            .args(["-c", &script, "sh", AGENT])
            .args(self.args())
            .args(args)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(
                self.api.try_clone().expect("clone"),
            )))
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(
                self.monitor.try_clone().expect("clone"),
            )))
            .stderr(log)
            .spawn()
            .expect("the agent starts")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// One request on a connection of its own.
    fn ask(&self, target: &str) -> String {
        let mut client = UnixStream::connect(self.path("api")).expect("connect");
        client.set_read_timeout(Some(LONG)).expect("timeout");
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        client
            .write_all(request.as_bytes())
            .expect("the request is taken");
        let mut answer = String::new();
        client
            .read_to_string(&mut answer)
            .expect("the request is answered");
        answer
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a test starts the program that it is about"
)]
fn program(name: &str) -> Command {
    Command::new(name)
}

fn signal(child: &Child, name: &str) {
    let sent = program("kill")
        .args(["-s", name, &child.id().to_string()])
        .status()
        .expect("kill runs");
    assert!(sent.success());
}

/// Waits for what a child does in its own time.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        thread::yield_now();
    }
}

#[test]
fn wrong_words_are_refused_with_a_reason() {
    let place = Place::new();
    let text = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let unknown = place.run(&["--bogus"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown).contains("--bogus"), "{}", text(&unknown));
    let open = place.run(&["-H", "tcp://0.0.0.0:2375", "--insecure-tcp"]);
    assert_eq!(open.status.code(), Some(1));
    assert!(text(&open).contains("loopback"), "{}", text(&open));
    let passed = place.run(&["-H", "fd://"]);
    assert!(
        text(&passed).contains("systemd passed no socket"),
        "{}",
        text(&passed)
    );
    let version = place.run(&["--version"]);
    assert!(version.status.success() && version.stdout.starts_with(b"berthd version "));
}

#[test]
fn a_bad_configuration_is_served_as_the_reason_while_systemd_holds_the_socket() {
    let place = Place::new();
    fs::write(place.path("berthd.toml"), "data-rot = \"/x\"\n").expect("write");
    let mut agent = place.activate("", &[]);
    for target in ["/_ping", "/v1.40/containers/json"] {
        let answer = place.ask(target);
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("data-rot"),
            "{answer}"
        );
    }
    assert!(place.log().contains("data-rot"), "{}", place.log());

    // Mended, but another mistake is found: the reason changes with the reload.
    fs::write(place.path("berthd.toml"), "idle-exit = -1\n").expect("write");
    signal(&agent, "HUP");
    eventually("the new reason", || {
        place.ask("/_ping").contains("idle-exit")
    });
    assert_eq!(agent.try_wait().expect("wait"), None, "it stays up");
    signal(&agent, "TERM");
    assert!(agent.wait().expect("wait").success());
}

#[test]
fn a_wrong_flag_is_no_reason_to_refuse_connections() {
    let place = Place::new();
    let mut agent = place.activate("", &["--bogus"]);
    assert!(place.ask("/_ping").contains("--bogus"));
    // Reading the configuration again does not mend the command line.
    signal(&agent, "HUP");
    assert!(place.ask("/_ping").contains("--bogus"));
    signal(&agent, "TERM");
    assert!(agent.wait().expect("wait").success());
}

#[test]
fn a_root_in_use_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path("data")).expect("mkdir");
    let lock = fs::File::create(place.path("data/berthd.lock")).expect("create");
    lock.lock().expect("lock");
    let refused = place.run(&["-H", &format!("unix://{}", place.path("own").display())]);
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        text.contains("another agent") && text.contains("/data"),
        "{text}"
    );
    assert!(!place.path("own").exists(), "it did not listen");

    let mut agent = place.activate("", &[]);
    let answer = place.ask("/info");
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("another agent"),
        "{answer}"
    );
    signal(&agent, "TERM");
    assert!(agent.wait().expect("wait").success());
}

/// Gives the agent the cgroup tree that it asks for, in a mount namespace of its own.
const CGROUP2: &str = "exec unshare -m --propagation private sh -c \
                       'mount -t cgroup2 cgroup2 /sys/fs/cgroup && LISTEN_PID=$$ LISTEN_FDS=2 \
                       LISTEN_FDNAMES=api:monitor exec \"$@\"' sh \"$@\";";

/// As systemd does: whenever somebody waits in a queue, an agent is started; when it ends, systemd looks
/// again.
struct Manager {
    stop: Arc<AtomicBool>,
    runs: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl Manager {
    fn start(place: Arc<Place>, args: &'static [&'static str]) -> Self {
        let (stop, runs) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, counted) = (stop.clone(), runs.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                if berth_sys::poll::wait_readable(&place.api, Some(Duration::from_millis(50)))
                    .unwrap_or(false)
                {
                    counted.fetch_add(1, Ordering::Relaxed);
                    let status = place.activate(CGROUP2, args).wait().expect("wait");
                    assert!(
                        status.success(),
                        "code {:?} signal {:?}\n{}",
                        status.code(),
                        status.signal(),
                        place.log()
                    );
                }
            }
        });
        Self { stop, runs, thread }
    }

    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("every agent ended well");
        self.runs.load(Ordering::Relaxed)
    }
}

#[test]
#[ignore = "needs root: the agent opens its engine"]
fn exits_at_any_moment_lose_no_request() {
    let place = Arc::new(Place::new());
    // An agent that leaves as soon as it can, so that clients meet it in every state of leaving.
    let manager = Manager::start(place.clone(), &["--idle-exit", "0.002"]);
    let clients: Vec<_> = (0..2)
        .map(|client| {
            let place = place.clone();
            thread::spawn(move || {
                if client % 2 == 0 {
                    new_connections(&place, 250)
                } else {
                    kept_connection(&place, 250)
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("a request was lost");
    }
    let runs = manager.finish();
    assert!(
        runs > 20,
        "the agent left {runs} times only: nothing was tested"
    );
    assert!(!place.log().contains("panicked"), "{}", place.log());
}

fn new_connections(place: &Place, count: u64) {
    for n in 0..count {
        let answer = place.ask("/_ping");
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("OK"),
            "{answer}"
        );
        pause(n);
    }
}

/// A client that keeps its connection and, as HTTP clients do, takes a refused write for "not sent".
fn kept_connection(place: &Place, count: u64) {
    let mut connection: Option<UnixStream> = None;
    for n in 0..count {
        loop {
            let reused = connection.is_some();
            let mut client = connection
                .take()
                .unwrap_or_else(|| UnixStream::connect(place.path("api")).expect("connect"));
            match client.write_all(PING.as_bytes()) {
                Ok(()) => {}
                Err(error)
                    if reused
                        && matches!(
                            error.kind(),
                            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                        ) =>
                {
                    continue;
                }
                Err(error) => panic!("a new connection was refused: {error}"),
            }
            let mut answer = Vec::new();
            let mut part = [0; 1024];
            while !answer.ends_with(b"OK") {
                let n = client.read(&mut part).expect("answer");
                assert_ne!(
                    n, 0,
                    "a request that was taken was not answered (reused: {reused})"
                );
                answer.extend_from_slice(&part[..n]);
            }
            if !String::from_utf8_lossy(&answer).contains("Connection: close") {
                connection = Some(client);
            }
            break;
        }
        pause(n * 7);
    }
}

/// Between nothing and fifteen milliseconds, differently each time.
fn pause(n: u64) {
    let until = Instant::now() + Duration::from_micros(n * 7919 % 15_000);
    while Instant::now() < until {
        thread::yield_now();
    }
}
