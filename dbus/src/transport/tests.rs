//! Over a real bus of the test's own. Without a dbus-daemon on the machine there is nothing to test
//! against, and the tests say so.

#![allow(clippy::disallowed_methods, reason = "starts a bus for the test alone")]

use std::io::{BufRead, BufReader as StdBufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Notify;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, MatchRule, MessageStream, connection, interface};

use super::*;
use crate::subscribers::until_gone;

const LIMIT: Duration = Duration::from_secs(20);

struct Bus {
    daemon: Child,
    address: String,
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Bus {
    fn start() -> Option<Bus> {
        let started = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut daemon) = started else {
            println!("skipped: no dbus-daemon on this machine");
            return None;
        };
        let mut address = String::new();
        let output = daemon.stdout.take().unwrap();
        StdBufReader::new(output).read_line(&mut address).unwrap();
        Some(Bus {
            daemon,
            address: address.trim().to_owned(),
        })
    }

    async fn client(&self) -> Connection {
        connection::Builder::address(self.address.as_str())
            .build()
            .await
            .unwrap()
    }

    /// A connection over our own socket, with an object on it.
    async fn service(&self, calls: &Calls, gate: &Gate, object: Slow) -> Connection {
        let address: Address = self.address.parse().unwrap();
        let socket = connect(&address).await.unwrap();
        connection::Builder::socket(Stream::new(socket, calls.clone(), gate.clone()))
            .serve_at("/slow", object)
            .build()
            .await
            .unwrap()
    }
}

/// Answers when it is told to.
#[derive(Clone, Default)]
struct Slow {
    begun: Arc<Notify>,
    go: Arc<Notify>,
}

#[interface(name = "org.berth.Agent1.Slow")]
impl Slow {
    async fn work(&self, words: Vec<String>) -> u64 {
        self.begun.notify_one();
        self.go.notified().await;
        words.iter().map(|word| word.len() as u64).sum()
    }

    #[zbus(signal)]
    async fn moved(emitter: &SignalEmitter<'_>, number: u32) -> zbus::Result<()>;
}

fn calls() -> (Calls, Arc<Mutex<usize>>) {
    let held = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&held);
    let calls = Calls::new(move || {
        *counted.lock().unwrap() += 1;
        Box::new(())
    });
    (calls, held)
}

async fn call(client: &Connection, service: &str, words: &[&str]) -> zbus::Result<u64> {
    let reply = client
        .call_method(
            Some(service),
            "/slow",
            Some("org.berth.Agent1.Slow"),
            "Work",
            &words,
        )
        .await?;
    reply.body().deserialize()
}

#[tokio::test]
async fn a_call_is_open_until_its_answer_is_on_the_wire() {
    let Some(bus) = Bus::start() else { return };
    let (calls, held) = calls();
    let object = Slow::default();
    let service = bus.service(&calls, &Gate::default(), object.clone()).await;
    let name = service.unique_name().unwrap().to_string();
    let client = bus.client().await;
    // Larger than one read, so that the message comes in pieces.
    let long = "x".repeat(300_000);
    let calling = tokio::spawn(async move { call(&client, &name, &[&long, "y"]).await });
    object.begun.notified().await;
    assert_eq!(*held.lock().unwrap(), 1);
    let all = calls.all_answered();
    tokio::pin!(all);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), &mut all)
            .await
            .is_err(),
        "the call is not answered yet"
    );
    object.go.notify_one();
    tokio::time::timeout(LIMIT, all).await.unwrap();
    let answer = tokio::time::timeout(LIMIT, calling).await.unwrap();
    assert_eq!(answer.unwrap().unwrap(), 300_001);
}

#[tokio::test]
async fn wrong_calls_are_answered_and_not_held() {
    let Some(bus) = Bus::start() else { return };
    let (calls, _) = calls();
    let service = bus.service(&calls, &Gate::default(), Slow::default()).await;
    let name = service.unique_name().unwrap().as_str();
    let client = bus.client().await;
    for (path, interface, member) in [
        ("/slow", "org.berth.Agent1.Slow", "Nothing"),
        ("/slow", "org.berth.Agent1.Slow", "Work"),
        ("/slow", "org.berth.Agent1.Nothing", "Work"),
        ("/nothing", "org.berth.Agent1.Slow", "Work"),
    ] {
        let call = client.call_method(Some(name), path, Some(interface), member, &());
        let answer = tokio::time::timeout(LIMIT, call).await.unwrap();
        assert!(answer.is_err(), "{path} {interface} {member}");
    }
    tokio::time::timeout(LIMIT, calls.all_answered())
        .await
        .unwrap();
}

#[tokio::test]
async fn signals_wait_for_the_name() {
    let Some(bus) = Bus::start() else { return };
    let (calls, _) = calls();
    let gate = Gate::default();
    let service = bus.service(&calls, &gate, Slow::default()).await;
    let client = bus.client().await;
    let rule = MatchRule::builder()
        .msg_type(message::Type::Signal)
        .interface("org.berth.Agent1.Slow")
        .build()
        .unwrap();
    let mut signals = MessageStream::for_match_rule(rule, &client, None)
        .await
        .unwrap();
    let emitter = SignalEmitter::new(&service, "/slow").unwrap();
    Slow::moved(&emitter, 1).await.unwrap();
    gate.open();
    Slow::moved(&emitter, 2).await.unwrap();
    let first = tokio::time::timeout(LIMIT, signals.next()).await.unwrap();
    let first = first.unwrap().unwrap();
    assert_eq!(first.body().deserialize::<u32>().unwrap(), 2);
}

#[tokio::test]
async fn a_caller_that_leaves_is_noticed() {
    let Some(bus) = Bus::start() else { return };
    let (watcher, caller) = (bus.client().await, bus.client().await);
    let name = caller.unique_name().unwrap().to_string();
    let gone = until_gone(&watcher, &name);
    tokio::pin!(gone);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), &mut gone)
            .await
            .is_err(),
        "it is still there"
    );
    caller.close().await.unwrap();
    tokio::time::timeout(LIMIT, gone).await.unwrap();
    // And one that had left before.
    tokio::time::timeout(LIMIT, until_gone(&watcher, &name))
        .await
        .unwrap();
}

#[tokio::test]
async fn only_the_hosts_own_bus_is_spoken_to() {
    let address: Address = "tcp:host=localhost,port=1".parse().unwrap();
    let error = connect(&address).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_bus_that_appears_is_noticed() {
    let dir = std::env::temp_dir().join(format!("berth-bus-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let socket = dir.join("run/bus");
    let address: Address = format!("unix:path={}", socket.display()).parse().unwrap();
    let appears = appears(&address);
    tokio::pin!(appears);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), &mut appears)
            .await
            .is_err(),
        "nothing is there"
    );
    std::fs::create_dir(dir.join("run")).unwrap();
    tokio::time::timeout(LIMIT, appears).await.unwrap().unwrap();
    // The directory is there now, the socket is made before anyone watches it.
    std::fs::write(&socket, "").unwrap();
    tokio::time::timeout(LIMIT, super::appears(&address))
        .await
        .unwrap()
        .unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}
