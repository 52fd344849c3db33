//! Against the kernel, as root, each test on a host of its own: a thread in a network and a mount
//! namespace that nobody else has. What is checked is what `ip` and `nft` say, and what packets do.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use serde_json::Value;

use berth_sys::ns::{self, Namespaces, NsKind};
use berth_sys::spawn::run_tool;

use super::*;
use crate::link::{self, VethPair};
use crate::wire::Wire;

mod attach;
mod faults;

/// How long a packet that arrives may take, and one that does not is waited for.
const ARRIVES: Duration = Duration::from_secs(5);
const LOST: Duration = Duration::from_millis(400);

fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    if !is_root() {
        eprintln!("not root: nothing tested");
        return;
    }
    ns::in_thread(|| {
        ns::unshare(Namespaces::NET | Namespaces::MNT).unwrap();
        berth_sys::mount::make_private_recursive().unwrap();
        tool("ip", &["link", "set", "lo", "up"]);
        // Its threads are born in the namespaces of this one.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    })
    .unwrap();
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t0\t"))
}

fn tool(program: &str, args: &[&str]) -> String {
    let output = run_tool(program, args, b"", Duration::from_secs(20)).unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn json(program: &str, args: &[&str]) -> Value {
    let text = tool(program, args);
    if text.trim().is_empty() {
        Value::Array(Vec::new())
    } else {
        serde_json::from_str(&text).unwrap()
    }
}

fn inside<T: Send>(netns: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    ns::in_thread(|| {
        ns::setns(netns, NsKind::Net).unwrap();
        work()
    })
    .unwrap()
}

fn link_names() -> BTreeSet<String> {
    let links = json("ip", &["-j", "link"]);
    links
        .as_array()
        .unwrap()
        .iter()
        .map(|link| link["ifname"].as_str().unwrap().to_owned())
        .collect()
}

/// What the set of the default bridge holds; `None` without a table.
fn admitted() -> Option<BTreeSet<String>> {
    let tables = json("nft", &["-j", "list", "ruleset"]);
    let set = tables["nftables"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|entry| entry.get("set"))?
        .clone();
    assert_eq!(
        (set["table"].as_str(), set["name"].as_str()),
        (Some("berth"), Some("addresses-berth0"))
    );
    let elements = set
        .get("elem")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    Some(
        elements
            .iter()
            .map(|element| element.as_str().unwrap().to_owned())
            .collect(),
    )
}

fn network() -> Network {
    Network::with_ready(BridgeConfig::default(), 0)
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A server that tells each client the address it sees, and its address.
fn serve(netns: &OwnedFd, address: [u8; 4]) -> SocketAddr {
    let listener = inside(netns, move || {
        TcpListener::bind((Ipv4Addr::from(address), 0)).unwrap()
    });
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut client, from)) = listener.accept() {
            let _ = client.write_all(from.ip().to_string().as_bytes());
        }
    });
    at
}

/// Which address the server sees of us; `None` if it is not reached.
fn seen_by(netns: Option<&OwnedFd>, server: SocketAddr, patience: Duration) -> Option<String> {
    let ask = move || {
        let mut stream = TcpStream::connect_timeout(&server, patience).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        Some(text)
    };
    match netns {
        Some(netns) => inside(netns, ask),
        None => ask(),
    }
}

/// Whether a host answers, be it with a refusal.
fn is_reached(netns: &OwnedFd, host: &str) -> bool {
    let address = SocketAddr::new(host.parse().unwrap(), 9);
    match inside(netns, || TcpStream::connect_timeout(&address, ARRIVES)) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
    }
}

/// Another machine: 10.N.0.2, joined to the host at 10.N.0.1, with its default route there.
fn machine(number: u8) -> OwnedFd {
    let netns = ns::new_netns().unwrap();
    let cable = format!("cable{number}");
    let pair = VethPair {
        name: &cable,
        bridge: 0,
        mtu: 1500,
        peer_name: "eth0",
        peer_mac: Mac::of([10, number, 0, 2].into()),
        peer_netns: netns.as_fd(),
    };
    Wire::open().unwrap().change(pair.create()).unwrap();
    // A macvlan stands for hardware, which a test has none of.
    let uplink = format!("up{number}");
    tool("ip", &["link", "set", &cable, "up"]);
    tool(
        "ip",
        &[
            "link", "add", "link", &cable, "name", &uplink, "type", "macvlan",
        ],
    );
    tool(
        "ip",
        &[
            "addr",
            "add",
            &format!("10.{number}.0.1/24"),
            "dev",
            &uplink,
        ],
    );
    tool("ip", &["link", "set", &uplink, "up"]);
    inside(&netns, || {
        tool(
            "ip",
            &["addr", "add", &format!("10.{number}.0.2/24"), "dev", "eth0"],
        );
        tool("ip", &["link", "set", "eth0", "up"]);
        tool(
            "ip",
            &[
                "route",
                "add",
                "default",
                "via",
                &format!("10.{number}.0.1"),
            ],
        );
    });
    netns
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

fn endpoint(interface: &str, host: u8) -> Endpoint {
    let ip = Ipv4Addr::new(172, 29, 0, host);
    Endpoint {
        interface: interface.to_owned(),
        ip,
        prefix_len: 16,
        gateway: [172, 29, 0, 1].into(),
        mac: Mac::of(ip),
        bridge: "berth0".to_owned(),
    }
}

fn admitted_in(table: &str) -> BTreeSet<String> {
    let set = json(
        "nft",
        &["-j", "list", "set", "inet", table, "addresses-berth0"],
    );
    let set = set["nftables"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|entry| entry.get("set"))
        .unwrap()
        .clone();
    let elements = set
        .get("elem")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    elements
        .iter()
        .map(|element| element.as_str().unwrap().to_owned())
        .collect()
}
