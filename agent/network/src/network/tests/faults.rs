//! What is in the way, what fails half-way, what others change, and what a new agent finds.

use std::path::Path;

use super::*;

#[test]
fn what_is_in_the_way_is_named() {
    on_a_host(|| async {
        let attach = async || {
            network()
                .attach("a", None, None)
                .await
                .unwrap_err()
                .to_string()
        };
        tool("ip", &["link", "add", "berth0", "type", "bridge"]);
        assert!(
            attach()
                .await
                .starts_with("interface berth0 exists and was not made by berth")
        );
        tool("ip", &["link", "del", "berth0"]);

        tool("ip", &["link", "add", "wan", "type", "bridge"]);
        tool("ip", &["link", "set", "wan", "up"]);
        tool("ip", &["addr", "add", "172.29.7.1/24", "dev", "wan"]);
        let error = attach().await;
        assert!(
            error.contains("172.29.7.") && error.contains("on interface wan"),
            "{error}"
        );
        tool("ip", &["addr", "flush", "dev", "wan"]);
        tool("ip", &["addr", "add", "10.0.0.1/24", "dev", "wan"]);
        tool("ip", &["route", "add", "172.29.8.0/24", "via", "10.0.0.2"]);
        let error = attach().await;
        assert!(
            error.contains("the host's route to 172.29.8.0/24 on interface wan"),
            "{error}"
        );
        tool("ip", &["route", "del", "172.29.8.0/24"]);
        // Wider ones through a gateway lose.
        tool("ip", &["route", "add", "128.0.0.0/1", "via", "10.0.0.2"]);
        assert_eq!(
            (admitted(), link_names().contains("berth0")),
            (None, false),
            "nothing was made"
        );

        // Without the nft program there is no network, and the error says what to do.
        for path in [
            "/usr/sbin/nft",
            "/sbin/nft",
            "/usr/bin/nft",
            "/bin/nft",
            "/usr/local/sbin/nft",
            "/usr/local/bin/nft",
        ] {
            if Path::new(path).exists() {
                tool("mount", &["--bind", "/dev/null", path]);
            }
        }
        let error = attach().await;
        assert_eq!(
            error,
            "the nft program is not installed: install the package nftables"
        );
        assert_eq!(link_names(), ["lo".to_owned(), "wan".to_owned()].into());
    });
}

#[test]
fn a_configuration_that_cannot_be_is_an_error_at_use() {
    on_a_host(|| async {
        let config = BridgeConfig {
            name: "all".to_owned(),
            ..BridgeConfig::default()
        };
        let network = Network::with_ready(config, 0);
        assert_eq!(
            network.attach("a", None, None).await.unwrap_err().kind(),
            crate::ErrorKind::Invalid
        );
        network.isolated().await.unwrap();
        network
            .release(&endpoint("veth0000001", 2))
            .await
            .unwrap_err();
    });
}

/// Failures are the kernel's own: the namespace that the pool hands out is spoilt.
#[test]
fn a_failure_leaves_nothing() {
    on_a_host(|| async {
        let network = Network::with_ready(BridgeConfig::default(), 0);
        let first = network.attach("first", None, None).await.unwrap();
        let before = (link_names(), admitted());
        let spoil: [(&str, &[&[&str]]); 2] = [
            // The pair cannot be made.
            (
                "interface veth",
                &[&["link", "add", "eth0", "type", "bridge"]],
            ),
            // It is made, then the default route is taken.
            (
                "address and route",
                &[
                    &["link", "add", "other0", "type", "bridge"],
                    &["link", "set", "other0", "up"],
                    &["addr", "add", "10.9.9.1/24", "dev", "other0"],
                    &["route", "add", "default", "via", "10.9.9.2"],
                ],
            ),
        ];
        for (says, commands) in spoil {
            let switches = Switches::open().unwrap();
            let netns = Netns::create(&switches).unwrap();
            let fd = netns.as_fd().try_clone_to_owned().unwrap();
            inside(&fd, || {
                commands
                    .iter()
                    .for_each(|command| drop(tool("ip", command)))
            });
            drop(fd);
            network.0.warm.put(netns);
            let error = network.attach("second", None, None).await.unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(admitted(), before.1);
            assert_eq!(network.0.pool().leases().count(), 1);
            eventually("the pair is gone", || link_names() == before.0).await;
        }
        // The same container can be attached after that.
        let second = network.attach("second", None, None).await.unwrap();
        assert_eq!(second.endpoint.ip, Ipv4Addr::new(172, 29, 0, 5));
        drop(first);
    });
}

#[test]
fn a_caller_that_goes_away_leaves_nothing() {
    on_a_host(|| async {
        let network = network();
        network.attach("first", None, None).await.unwrap();
        let abandoned = network.clone();
        let task =
            tokio::spawn(async move { abandoned.attach("second", None, None).await.map(drop) });
        tokio::task::yield_now().await;
        task.abort();
        let _ = task.await;
        eventually("the address is free", || {
            network.0.pool().leases().count() == 1
        })
        .await;
        eventually("the pair is gone", || {
            link_names() == ["berth0".to_owned(), "lo".to_owned()].into()
        })
        .await;
        assert_eq!(admitted().unwrap(), ["172.29.0.2".to_owned()].into());
    });
}

#[test]
fn a_new_agent_takes_over_and_repairs() {
    on_a_host(|| async {
        let outside = machine(1);
        let old = network();
        let a = old.attach("a", None, None).await.unwrap();
        let b = old.attach("b", None, None).await.unwrap();
        let at_outside = SocketAddr::new(
            Ipv4Addr::new(10, 1, 0, 2).into(),
            serve(&outside, [0; 4]).port(),
        );
        let rules = || tool("nft", &["list", "table", "inet", "berth"]);
        let before = rules();
        assert!(
            before.contains("iifname \"up1\" oifname \"up1\" drop"),
            "{before}"
        );
        drop(old);

        // Another program deletes the bridge; one flushes everything and has a table of its own.
        let records = [
            ("a".to_owned(), a.endpoint.clone()),
            ("b".to_owned(), b.endpoint.clone()),
        ];
        tool("ip", &["link", "del", "berth0"]);
        assert!(network().restore(records.clone()).await.unwrap().is_empty());
        tool("nft", &["flush", "ruleset"]);
        tool("nft", &["add", "table", "inet", "theirs"]);
        let network = network();
        assert!(network.restore(records.clone()).await.unwrap().is_empty());
        // The guard too, although forwarding was found switched on.
        assert_eq!(rules(), before);
        tool("nft", &["list", "table", "inet", "theirs"]);
        assert_eq!(
            seen_by(Some(&a.netns), at_outside, ARRIVES).as_deref(),
            Some("10.1.0.1")
        );
        let on_b = SocketAddr::new(b.endpoint.ip.into(), serve(&b.netns, [0; 4]).port());
        assert_eq!(
            seen_by(Some(&a.netns), on_b, ARRIVES).as_deref(),
            Some("172.29.0.2")
        );
        let c = network.attach("c", None, None).await.unwrap();
        assert_eq!(c.endpoint.ip, Ipv4Addr::new(172, 29, 0, 4));
        assert!(matches!(
            network.attach("a", None, None).await,
            Err(Error::AlreadyAttached { .. })
        ));

        // With nothing to repair nothing is run and nothing changes; stale elements go.
        tool(
            "nft",
            &[
                "add",
                "element",
                "inet",
                "berth",
                "addresses-berth0",
                "{ 172.29.9.9 }",
            ],
        );
        drop(network);
        let network = Network::with_ready(BridgeConfig::default(), 0);
        network.restore(records.clone()).await.unwrap();
        assert_eq!(
            admitted_in("berth"),
            ["172.29.0.2", "172.29.0.3"].map(str::to_owned).into()
        );
        // C has no record in this agent: its port goes. A is said to be dead: so does its.
        let deleted = network
            .cleanup_stale(&["b".to_owned()].into())
            .await
            .unwrap();
        let expected: BTreeSet<_> =
            [a.endpoint.interface.clone(), c.endpoint.interface.clone()].into();
        assert_eq!(deleted.into_iter().collect::<BTreeSet<_>>(), expected);
        assert_eq!(admitted_in("berth"), ["172.29.0.3".to_owned()].into());
        assert!(link_names().contains(&b.endpoint.interface));

        // Records that cannot be true.
        let elsewhere = Endpoint {
            ip: [10, 0, 0, 9].into(),
            ..endpoint("veth0000001", 9)
        };
        let twice = endpoint("veth0000002", 3);
        let refused = network
            .restore([("x".to_owned(), elsewhere), ("y".to_owned(), twice)])
            .await
            .unwrap();
        assert_eq!(refused.len(), 2);
    });
}

#[test]
fn a_change_by_others_is_repaired_by_the_next_start() {
    on_a_host(|| async {
        let network = network();
        let a = network.attach("a", None, None).await.unwrap();
        tool("nft", &["flush", "ruleset"]);
        let _b = network.attach("b", None, None).await.unwrap();
        assert_eq!(
            admitted().unwrap(),
            ["172.29.0.2", "172.29.0.3"].map(str::to_owned).into()
        );
        tool("ip", &["link", "set", "berth0", "down"]);
        let _c = network.attach("c", None, None).await.unwrap();
        tool("ip", &["link", "del", "berth0"]);
        let d = network.attach("d", None, None).await.unwrap();
        assert!(is_reached(&a.netns, "172.29.0.1"));
        assert!(is_reached(&a.netns, &d.endpoint.ip.to_string()));
        tool("ip", &["link", "set", "berth0", "name", "stolen"]);
        // The other bridge now holds our subnet.
        let error = network.attach("e", None, None).await.unwrap_err();
        assert!(matches!(error, Error::Overlap { .. }), "{error}");
    });
}

#[test]
fn another_subnet_waits_until_nobody_uses_the_old_one() {
    on_a_host(|| async {
        let old = network();
        let a = old.attach("a", None, None).await.unwrap();
        let config = BridgeConfig {
            subnet: "10.77.0.0/24".parse().unwrap(),
            ..BridgeConfig::default()
        };
        let new = Network::with_ready(config, 0);
        assert!(matches!(
            new.attach("b", None, None).await,
            Err(Error::BridgeInUse { .. })
        ));
        drop(a.netns);
        eventually("the old pair is gone", || link_names().len() == 2).await;
        let b = new.attach("b", None, None).await.unwrap();
        assert_eq!(b.endpoint.ip, Ipv4Addr::new(10, 77, 0, 2));
        let addresses = json("ip", &["-j", "-4", "addr", "show", "dev", "berth0"]);
        assert_eq!(addresses[0]["addr_info"].as_array().unwrap().len(), 1);
        assert!(is_reached(&b.netns, "10.77.0.1"));
    });
}

#[test]
fn a_full_bridge_is_named() {
    on_a_host(|| async {
        let network = network();
        let first = network.attach("first", None, None).await.unwrap();
        let mut wire = Wire::open().unwrap();
        let bridge = link::by_name(&mut wire, "berth0").unwrap().unwrap().index;
        // One namespace with the other ends of all.
        let parking = ns::new_netns().unwrap();
        for number in 0..1022u16 {
            let [high, low] = number.to_be_bytes();
            let pair = VethPair {
                name: &format!("p{number}"),
                bridge,
                mtu: 1500,
                peer_name: &format!("p{number}"),
                peer_mac: Mac([2, 0, 0, 0, high, low]),
                peer_netns: parking.as_fd(),
            };
            wire.change(pair.create()).unwrap();
        }
        let error = network.attach("more", None, None).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "bridge berth0 has no free port: the kernel allows 1023 on one bridge"
        );
        assert_eq!(error.kind(), crate::ErrorKind::Exhausted);
        assert_eq!(admitted().unwrap(), ["172.29.0.2".to_owned()].into());
        drop(first);
    });
}
