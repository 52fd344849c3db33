//! What attaching makes, and what packets then do.

use super::*;

#[test]
fn a_container_is_attached_as_docker_would() {
    on_a_host(|| async {
        let network = network();
        assert_eq!(link_names(), ["lo".to_owned()].into());
        let sandbox = network.attach("a", None, None).await.unwrap();
        let endpoint = &sandbox.endpoint;
        assert_eq!(
            (endpoint.ip, endpoint.prefix_len),
            ([172, 29, 0, 2].into(), 16)
        );
        assert_eq!(
            (endpoint.gateway, endpoint.mac.to_string()),
            ([172, 29, 0, 1].into(), "02:42:ac:1d:00:02".to_owned())
        );

        // The kernel tells the state of operation a moment later.
        eventually("the pair is in operation", || {
            let links = json("ip", &["-j", "link", "show", "dev", &endpoint.interface]);
            links[0]["operstate"] == "UP"
        })
        .await;
        let links = json("ip", &["-j", "-d", "link"]);
        let find = |name: &str| {
            links
                .as_array()
                .unwrap()
                .iter()
                .find(|link| link["ifname"] == name)
                .unwrap()
        };
        let bridge = find("berth0");
        assert_eq!(bridge["linkinfo"]["info_kind"], "bridge");
        assert_eq!(bridge["linkinfo"]["info_data"]["stp_state"], 0);
        assert_eq!(
            (&bridge["operstate"], &bridge["address"]),
            (&"UP".into(), &"02:42:ac:1d:00:01".into())
        );
        let host_side = find(&endpoint.interface);
        assert_eq!(
            (&host_side["master"], &host_side["operstate"]),
            (&"berth0".into(), &"UP".into())
        );
        for interface in ["berth0", &endpoint.interface] {
            assert_eq!(
                read(&format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6")),
                "1"
            );
            assert_eq!(
                read(&format!("/proc/sys/net/ipv6/conf/{interface}/accept_ra")),
                "0"
            );
        }
        assert!(
            json("ip", &["-j", "-6", "addr", "show", "dev", "berth0"])
                .to_string()
                .len()
                <= 4,
            "an IPv6 address"
        );
        assert_eq!(read("/proc/sys/net/ipv4/ip_forward"), "1");

        inside(&sandbox.netns, || {
            let addresses = json("ip", &["-j", "addr"]);
            let lo = addresses
                .as_array()
                .unwrap()
                .iter()
                .find(|link| link["ifname"] == "lo")
                .unwrap();
            assert_eq!(
                lo["addr_info"].as_array().unwrap().len(),
                2,
                "127.0.0.1 and ::1"
            );
            let eth0 = addresses
                .as_array()
                .unwrap()
                .iter()
                .find(|link| link["ifname"] == "eth0")
                .unwrap();
            let own = eth0["addr_info"].as_array().unwrap();
            assert_eq!(own.len(), 1, "no IPv6 address");
            assert_eq!(
                (&own[0]["local"], &own[0]["prefixlen"]),
                (&"172.29.0.2".into(), &16.into())
            );
            assert_eq!(own[0]["broadcast"], "172.29.255.255");
            assert_eq!(
                (&eth0["operstate"], &eth0["address"]),
                (&"UP".into(), &"02:42:ac:1d:00:02".into())
            );
            let routes = json("ip", &["-j", "route", "show", "default"]);
            assert_eq!(
                (&routes[0]["gateway"], &routes[0]["dev"]),
                (&"172.29.0.1".into(), &"eth0".into())
            );
            assert_eq!(routes[0].get("protocol"), None);
            assert_eq!(read("/proc/sys/net/ipv6/conf/eth0/disable_ipv6"), "1");
            assert_eq!(read("/proc/sys/net/ipv6/conf/eth0/accept_ra"), "0");
        });

        assert!(matches!(
            network.attach("a", None, None).await,
            Err(Error::AlreadyAttached { .. })
        ));
        let mac = "0e:00:00:00:00:07".parse().unwrap();
        let other = network
            .attach("b", Some(mac), Some([172, 29, 3, 4].into()))
            .await
            .unwrap();
        assert_eq!(
            (other.endpoint.ip, other.endpoint.mac),
            ([172, 29, 3, 4].into(), mac)
        );
        inside(&other.netns, || {
            assert!(tool("ip", &["link", "show", "eth0"]).contains("0e:00:00:00:00:07"))
        });
        assert_eq!(
            admitted().unwrap(),
            ["172.29.0.2", "172.29.3.4"].map(str::to_owned).into()
        );
        let taken = network
            .attach("c", None, Some([172, 29, 3, 4].into()))
            .await;
        assert!(matches!(taken, Err(Error::AddressInUse { .. })));
        assert!(matches!(
            network.attach("c", Some(Mac([1; 6])), None).await,
            Err(Error::MacUnusable { .. })
        ));
    });
}

#[test]
fn packets_go_where_they_should_and_nowhere_else() {
    on_a_host(|| async {
        let network = network();
        let (outside, other) = (machine(1), machine(2));
        let a = network.attach("a", None, None).await.unwrap();
        let b = network.attach("b", None, None).await.unwrap();
        let (on_a, on_outside) = (serve(&a.netns, [0; 4]), serve(&outside, [0; 4]));
        let at_a = SocketAddr::new(a.endpoint.ip.into(), on_a.port());
        let at_outside = SocketAddr::new(Ipv4Addr::new(10, 1, 0, 2).into(), on_outside.port());

        // Containers see each other as they are; the host sees them, they see the host.
        assert_eq!(
            seen_by(Some(&b.netns), at_a, ARRIVES).as_deref(),
            Some("172.29.0.3")
        );
        assert_eq!(seen_by(None, at_a, ARRIVES).as_deref(), Some("172.29.0.1"));
        assert!(is_reached(&b.netns, "172.29.0.1"));
        // The outside sees the host's address.
        assert_eq!(
            seen_by(Some(&b.netns), at_outside, ARRIVES).as_deref(),
            Some("10.1.0.1")
        );
        // The outside has a route to containers, and does not reach them.
        assert_eq!(seen_by(Some(&outside), at_a, LOST), None);
        // The host has become a router for nobody else, although forwarding is on.
        assert_eq!(seen_by(Some(&other), at_outside, LOST), None);
        assert!(seen_by(None, at_outside, ARRIVES).is_some());
        // A container cannot speak as somebody else.
        inside(&b.netns, || {
            tool("ip", &["addr", "add", "172.29.0.77/16", "dev", "eth0"])
        });
        let spoofed = inside(&b.netns, || {
            tool(
                "ip",
                &[
                    "route",
                    "add",
                    "10.1.0.2",
                    "via",
                    "172.29.0.1",
                    "src",
                    "172.29.0.77",
                ],
            );
            TcpStream::connect_timeout(&at_outside, LOST).is_ok()
        });
        assert!(!spoofed);

        // Released: nothing goes in or out any more although the namespace is still there.
        network.release(&a.endpoint).await.unwrap();
        assert_eq!(seen_by(Some(&b.netns), at_a, LOST), None);
        assert_eq!(seen_by(Some(&a.netns), at_outside, LOST), None);
    });
}

/// The first packet must not be lost: that costs a second.
#[test]
fn a_container_is_reached_and_reaches_at_once() {
    on_a_host(|| async {
        let network = network();
        let _first = network.attach("first", None, None).await.unwrap();
        let mut slowest = Duration::ZERO;
        for number in 0..10 {
            let sandbox = network
                .attach(&number.to_string(), None, None)
                .await
                .unwrap();
            let begin = Instant::now();
            if number % 2 == 0 {
                assert!(is_reached(&sandbox.netns, "172.29.0.1"));
            } else {
                let at = SocketAddr::new(sandbox.endpoint.ip.into(), 9);
                let error = TcpStream::connect_timeout(&at, ARRIVES).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            }
            slowest = slowest.max(begin.elapsed());
        }
        assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    });
}

/// What kernels before 6.8 need to learn that packets pass.
#[test]
fn changes_of_links_are_heard() {
    on_a_host(|| async {
        let events = crate::wire::LinkEvents::open().unwrap();
        assert!(!events.wait(Instant::now()).unwrap());
        assert!(
            !events
                .wait(Instant::now() + Duration::from_millis(20))
                .unwrap()
        );
        tool("ip", &["link", "set", "lo", "alias", "x"]);
        assert!(events.wait(Instant::now() + ARRIVES).unwrap());
        // All that was announced counts once.
        assert!(
            !events
                .wait(Instant::now() + Duration::from_millis(20))
                .unwrap()
        );
        (0..2000).for_each(|_| drop(Wire::open().unwrap().change(link::set_alias(1, "y"))));
        assert!(events.wait(Instant::now() + ARRIVES).unwrap());
    });
}

#[test]
fn forwarding_that_was_on_stays_unguarded() {
    on_a_host(|| async {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let (outside, other) = (machine(1), machine(2));
        let on_outside = serve(&outside, [0; 4]);
        let at_outside = SocketAddr::new(Ipv4Addr::new(10, 1, 0, 2).into(), on_outside.port());
        let network = network();
        network.attach("a", None, None).await.unwrap();
        assert_eq!(
            seen_by(Some(&other), at_outside, ARRIVES).as_deref(),
            Some("10.2.0.2")
        );
    });
}

#[test]
fn a_namespace_alone_has_its_loopback() {
    on_a_host(|| async {
        let network = network();
        let netns = network.isolated().await.unwrap();
        inside(&netns, || {
            let links = json("ip", &["-j", "addr"]);
            assert_eq!(
                links
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|link| link["operstate"] != "DOWN")
                    .count(),
                1
            );
            assert!(
                TcpListener::bind("127.0.0.1:0").is_ok() && TcpListener::bind("[::1]:0").is_ok()
            );
        });
        // Nothing was made on the host.
        assert_eq!(link_names(), ["lo".to_owned()].into());
        assert_eq!(admitted(), None);
        assert_eq!(read("/proc/sys/net/ipv4/ip_forward"), "0");
    });
}

#[test]
fn two_hundred_cycles_leave_nothing() {
    on_a_host(|| async {
        let network = Network::with_ready(BridgeConfig::default(), 2);
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        for cycle in 0..50 {
            let attach = |n: usize| {
                let network = network.clone();
                tokio::spawn(async move {
                    let sandbox = network
                        .attach(&format!("{cycle}-{n}"), None, None)
                        .await
                        .unwrap();
                    network.release(&sandbox.endpoint).await.unwrap();
                    // Twice is once.
                    network.release(&sandbox.endpoint).await.unwrap();
                    sandbox.endpoint.ip
                })
            };
            let tasks: Vec<_> = (0..4).map(attach).collect();
            let mut addresses = BTreeSet::new();
            for task in tasks {
                addresses.insert(task.await.unwrap());
            }
            assert_eq!(addresses.len(), 4, "an address was given twice in a row");
        }
        network.shutdown();
        assert_eq!(network.0.pool().leases().count(), 0);
        assert_eq!(admitted().unwrap(), BTreeSet::new());
        eventually("all pairs are gone", || {
            link_names() == ["berth0".to_owned(), "lo".to_owned()].into()
        })
        .await;
        // Other tests run beside this one and have descriptors too.
        eventually("all descriptors are closed", || descriptors() < 200).await;
        assert_eq!(network.0.warm.len(), 0);
    });
}

#[test]
fn the_pool_fills_when_idle_and_is_bounded() {
    on_a_host(|| async {
        let network = Network::with_ready(BridgeConfig::default(), 2);
        network.warm();
        eventually("the pool is full", || network.0.warm.len() == 2).await;
        assert_eq!(link_names(), ["lo".to_owned()].into());
        let ready = network.0.warm.starting();
        let a = network.attach("a", None, None).await.unwrap();
        assert_eq!(network.0.warm.len(), 1, "a start does not fill");
        assert!(is_reached(&a.netns, "172.29.0.1"));
        drop(ready);
        eventually("the pool is full again", || network.0.warm.len() == 2).await;
        network.shutdown();
        network.attach("b", None, None).await.unwrap();
        assert_eq!(network.0.warm.len(), 0);
    });
}
