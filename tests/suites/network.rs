//! The first part of the network: bridge, host, none, another container's; addresses; outgoing NAT; the three files.

use berth_tests::lab::Lab;

use crate::support::{PATIENT, clean, inspect, patient, run_detached, wait_for_line};

/// A host beyond the lab: a network namespace joined by a veth, with a web server, outside of the containers' subnet.
struct Neighbour<'a>(&'a Lab);

impl<'a> Neighbour<'a> {
    fn new(lab: &'a Lab) -> Self {
        let this = Self(lab);
        lab.sh("mkdir -p /srv/www; echo hello from outside >/srv/www/index.html; \
            ip netns add outside; ip link add up0 type veth peer name eth0 netns outside; \
            ip addr add 198.51.100.1/24 dev up0; ip link set up0 up; \
            ip -n outside addr add 198.51.100.2/24 dev eth0; ip -n outside link set eth0 up; ip -n outside link set lo up; \
            ip netns exec outside busybox httpd -h /srv/www -p 198.51.100.2:80");
        this
    }
}

impl Drop for Neighbour<'_> {
    fn drop(&mut self) {
        self.0.exec(&["sh", "-c", "ip netns pids outside | xargs -r kill; ip netns del outside; ip link del up0; rm -r /srv/www; umount /run/netns; rmdir /run/netns"]);
    }
}

#[test]
fn a_bridge_with_addresses_of_its_own() {
    clean(|lab| {
        let one = inspect(lab, &patient(lab, &[]))["NetworkSettings"].clone();
        let two = inspect(lab, &patient(lab, &[]))["NetworkSettings"].clone();
        assert_ne!(one["IPAddress"], two["IPAddress"]);
        assert_eq!(one["Gateway"], "172.29.0.1");
        assert_eq!(one["IPPrefixLen"], 16);
        let address = two["IPAddress"].as_str().unwrap();
        lab.docker(&[
            "run", "--rm", "busybox", "ping", "-c", "1", "-W", "5", address,
        ])
        .ok();
        lab.docker(&[
            "run",
            "--rm",
            "busybox",
            "ping",
            "-c",
            "1",
            "-W",
            "5",
            "172.29.0.1",
        ])
        .ok();
        let link = lab
            .docker(&["run", "--rm", "busybox", "ip", "-o", "addr", "show", "eth0"])
            .ok();
        assert!(link.contains("172.29."), "{link}");
        let routes = lab.docker(&["run", "--rm", "busybox", "ip", "route"]).ok();
        assert!(
            routes.contains("default via 172.29.0.1 dev eth0"),
            "{routes}"
        );
    });
}

#[test]
fn what_goes_out_is_masqueraded() {
    clean(|lab| {
        {
            let _neighbour = Neighbour::new(lab);
            let get = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 198.51.100.2 80 | tail -n 1";
            let text = lab
                .docker(&["run", "--rm", "busybox", "sh", "-c", get])
                .ok();
            assert_eq!(text, "hello from outside");
            // The neighbour has no route to the containers: it cannot reach one unasked.
            let id = patient(lab, &[]);
            let address = inspect(lab, &id)["NetworkSettings"]["IPAddress"]
                .as_str()
                .unwrap()
                .to_owned();
            let run = lab.exec(&[
                "ip", "netns", "exec", "outside", "busybox", "ping", "-c", "1", "-W", "1", &address,
            ]);
            assert_ne!(run.code(), 0, "{}", run.describe());
            lab.docker(&["rm", "-f", &id]).ok();
        }
    });
}

#[test]
fn other_tables_are_not_touched() {
    clean(|lab| {
        lab.sh("nft add table inet foreign; nft add chain inet foreign c '{ type filter hook input priority 0; }'; nft add rule inet foreign c counter");
        let before = lab.sh("nft -s list table inet foreign");
        patient(lab, &[]);
        assert_eq!(lab.sh("nft -s list table inet foreign"), before);
        lab.sh("nft delete table inet foreign");
    });
}

#[test]
fn no_network_and_the_hosts() {
    clean(|lab| {
        let links = lab
            .docker(&[
                "run",
                "--rm",
                "--network",
                "none",
                "busybox",
                "ip",
                "-o",
                "link",
            ])
            .ok();
        assert!(
            links.contains(" lo:") && links.lines().count() == 1,
            "{links}"
        );
        lab.docker(&[
            "run",
            "--rm",
            "--network",
            "none",
            "busybox",
            "ping",
            "-c",
            "1",
            "127.0.0.1",
        ])
        .ok();
        let inside = lab
            .docker(&[
                "run",
                "--rm",
                "--network",
                "host",
                "busybox",
                "readlink",
                "/proc/self/ns/net",
            ])
            .ok();
        assert_eq!(inside, lab.sh("readlink /proc/1/ns/net"));
        assert_eq!(
            lab.docker(&["run", "--rm", "--network", "host", "busybox", "hostname"])
                .ok(),
            "berth-lab"
        );
    });
}

#[test]
fn another_containers_network() {
    clean(|lab| {
        let id = patient(lab, &["--name", "server"]);
        let mode = "container:server";
        let own = lab
            .docker(&[
                "run",
                "--rm",
                "--network",
                mode,
                "busybox",
                "readlink",
                "/proc/self/ns/net",
            ])
            .ok();
        let init = inspect(lab, &id)["State"]["Pid"].as_u64().unwrap();
        assert_eq!(own, lab.sh(&format!("readlink /proc/{init}/ns/net")));
        // Its files are shared, so is its name.
        assert_eq!(
            lab.docker(&["run", "--rm", "--network", mode, "busybox", "hostname"])
                .ok(),
            id[..12]
        );
        lab.docker(&["stop", "server"]).ok();
        let error = lab.docker(&["run", "--rm", "--network", mode, "busybox", "true"]);
        assert_ne!(error.code(), 0);
        assert!(
            error.stderr().contains("non running container")
                || error.stderr().contains("is not running"),
            "{}",
            error.describe()
        );
    });
}

#[test]
fn hosts_hostname_resolv_conf() {
    clean(|lab| {
        let run = |options: &[&str], text: &str| {
            let argv: Vec<&str> = ["run", "--rm"]
                .iter()
                .chain(options)
                .chain(&["busybox", "sh", "-c", text])
                .copied()
                .collect();
            lab.docker(&argv).ok()
        };
        let hosts = run(
            &["-h", "box", "--add-host", "db:10.1.2.3"],
            "cat /etc/hosts; cat /etc/hostname",
        );
        assert!(
            hosts.contains("127.0.0.1\tlocalhost") && hosts.contains("10.1.2.3\tdb"),
            "{hosts}"
        );
        assert!(
            hosts
                .lines()
                .any(|line| line.starts_with("172.29.") && line.ends_with("\tbox")),
            "{hosts}"
        );
        assert!(hosts.ends_with("box"));
        assert!(
            run(&[], "cat /etc/resolv.conf").contains("nameserver 192.0.2.53"),
            "the host's servers"
        );
        let asked = run(
            &[
                "--dns",
                "192.0.2.7",
                "--dns-search",
                "example.org",
                "--dns-option",
                "ndots:2",
            ],
            "grep -v '^#' /etc/resolv.conf",
        );
        for line in [
            "nameserver 192.0.2.7",
            "search example.org",
            "options ndots:2",
        ] {
            assert!(asked.contains(line), "{line}: {asked}");
        }
        assert!(!asked.contains("192.0.2.53"), "{asked}");
    });
}

#[test]
fn a_local_stub_is_replaced_by_its_upstreams() {
    clean(|lab| {
        lab.sh("cp /etc/resolv.conf /tmp/resolv.keep; mkdir -p /run/systemd/resolve; echo nameserver 192.0.2.99 >/run/systemd/resolve/resolv.conf; echo nameserver 127.0.0.53 >/etc/resolv.conf");
        let text = lab.docker(&["run", "--rm", "busybox", "cat", "/etc/resolv.conf"]);
        lab.sh(
            "cat /tmp/resolv.keep >/etc/resolv.conf; rm -r /run/systemd/resolve /tmp/resolv.keep",
        );
        let text = text.ok();
        assert!(
            text.contains("192.0.2.99") && !text.contains("127.0.0.53"),
            "{text}"
        );
    });
}

#[test]
fn addresses_return_to_the_pool_and_survive_the_agent() {
    clean(|lab| {
        let id = patient(lab, &[]);
        let address = inspect(lab, &id)["NetworkSettings"]["IPAddress"].clone();
        lab.crash_agent();
        let other = patient(lab, &[]);
        assert_ne!(
            inspect(lab, &other)["NetworkSettings"]["IPAddress"],
            address,
            "not given twice"
        );
        assert_eq!(inspect(lab, &id)["NetworkSettings"]["IPAddress"], address);
        let gone = lab.docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", &{
            let ended = run_detached(lab, &["busybox", "true"]);
            crate::support::wait_exit(lab, &ended);
            ended
        }]);
        assert_eq!(gone.ok(), "", "an ended container has none");
    });
}

#[test]
fn the_default_gateways_own_address_is_set_when_asked() {
    clean(|lab| {
        let id = run_detached(
            lab,
            &[
                "--mac-address",
                "02:42:ac:1d:00:99",
                "busybox",
                "sh",
                "-c",
                PATIENT,
            ],
        );
        wait_for_line(lab, &id, "ready");
        assert_eq!(
            inspect(lab, &id)["NetworkSettings"]["MacAddress"],
            "02:42:ac:1d:00:99"
        );
        let init = inspect(lab, &id)["State"]["Pid"].as_u64().unwrap();
        let link = lab.sh(&format!("nsenter -n -t {init} ip -o link show eth0"));
        assert!(link.contains("02:42:ac:1d:00:99"), "{link}");
    });
}
