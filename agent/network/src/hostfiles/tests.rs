use proptest::prelude::*;

use super::*;

const OWN: Ipv4Addr = Ipv4Addr::new(172, 29, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 29, 0, 1);

fn resolv(host: &str, upstream: Option<&str>) -> ResolvConf {
    resolv_conf(host, upstream, Overrides::default()).unwrap()
}

fn servers(file: &ResolvConf) -> Vec<&str> {
    file.text
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver "))
        .collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn hosts_are_dockers() {
    let names = Names {
        hostname: "web",
        domainname: "example.org",
    };
    let extra = [
        "db:10.0.0.9",
        "v6=[fd00::9]",
        "host.docker.internal:host-gateway",
    ]
    .map(|text| ExtraHost::parse(text).unwrap());
    assert_eq!(
        hosts(Some(OWN), names, &extra, Some(GATEWAY)).unwrap(),
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n\
         10.0.0.9\tdb\n\
         fd00::9\tv6\n\
         172.29.0.1\thost.docker.internal\n\
         172.29.0.2\tweb.example.org web\n"
    );
    let names = Names {
        domainname: "",
        ..names
    };
    assert!(
        hosts(Some(OWN), names, &[], None)
            .unwrap()
            .ends_with("\n172.29.0.2\tweb\n")
    );
    assert!(
        hosts(None, names, &[], None)
            .unwrap()
            .ends_with("ip6-allrouters\n")
    );
    assert!(hosts(None, names, &extra, None).is_err());
}

#[test]
fn the_hosts_own_file_gets_the_extra_hosts() {
    let extra = [ExtraHost::parse("db:10.0.0.9").unwrap()];
    assert_eq!(
        hosts_of_host("127.0.0.1 me", &extra, None).unwrap(),
        "127.0.0.1 me\n10.0.0.9\tdb\n"
    );
    assert_eq!(hosts_of_host("", &[], None).unwrap(), "");
}

#[test]
fn extra_hosts_are_read() {
    let v6 = ExtraHost::parse("a:fd00::1").unwrap();
    assert_eq!(v6, ExtraHost::parse("a=fd00::1").unwrap());
    assert_eq!(v6, ExtraHost::parse("a:[fd00::1]").unwrap());
    for bad in [
        "",
        "a",
        ":1.2.3.4",
        "a:",
        "a:b",
        "a b:1.2.3.4",
        "a\n:1.2.3.4",
        "a#:1.2.3.4",
        "a:1.2.3.4\n",
        "a:[1.2.3.4",
    ] {
        assert!(ExtraHost::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_hosts_servers_are_kept() {
    let file = resolv(
        "# a comment\n; another\nnameserver 192.168.1.1\n  nameserver\t10.0.0.1 # trailing words\n\
         search a.example b.example\noptions ndots:2\noptions edns0\nsortlist 1.2.3.0\n",
        None,
    );
    assert_eq!(
        file.text,
        "# Made by berth for this container.\n\nnameserver 192.168.1.1\nnameserver 10.0.0.1\n\
         search a.example b.example\noptions ndots:2 edns0\nsortlist 1.2.3.0\n"
    );
    assert_eq!(file.notice, None);
}

#[test]
fn the_last_of_domain_and_search_counts() {
    assert!(
        resolv("search a b\ndomain c\nnameserver 1.1.1.1", None)
            .text
            .contains("\nsearch c\n")
    );
    assert!(
        resolv("domain c\nsearch a b\nnameserver 1.1.1.1", None)
            .text
            .contains("\nsearch a b\n")
    );
    assert!(
        !resolv("search .\nnameserver 1.1.1.1", None)
            .text
            .contains("search")
    );
}

#[test]
fn servers_out_of_reach_are_left_out() {
    let file = resolv(
        "nameserver 127.0.0.1\nnameserver ::1\nnameserver fd00::1\nnameserver fe80::1%eth0\nnameserver 9.9.9.9\n",
        None,
    );
    assert_eq!(servers(&file), ["9.9.9.9"]);
    for none in [
        "",
        "nameserver 127.0.0.1\n",
        "nameserver ::1\nnameserver 2001:db8::1",
        "nameserver 0.0.0.0",
        "nameserver bad",
    ] {
        let file = resolv(none, None);
        assert_eq!(servers(&file), ["8.8.8.8", "8.8.4.4"], "{none}");
        assert!(file.notice.is_some(), "{none}");
    }
}

#[test]
fn the_stub_is_replaced_by_its_upstreams() {
    let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n";
    let file = resolv(stub, Some("nameserver 192.168.7.1\nsearch lan\n"));
    assert_eq!(servers(&file), ["192.168.7.1"]);
    assert!(file.text.contains("search lan") && !file.text.contains("trust-ad"));
    // Without the other file, or with a server besides the stub, the host's file is what there is.
    assert_eq!(
        servers(&resolv(stub, None)),
        PUBLIC_SERVERS.map(|server| server.to_string())
    );
    let mixed = format!("{stub}nameserver 10.1.1.1\n");
    assert_eq!(
        servers(&resolv(&mixed, Some("nameserver 192.168.7.1\n"))),
        ["10.1.1.1"]
    );
}

#[test]
fn what_the_user_says_counts() {
    let (servers_said, search, options) = (
        words(&["127.0.0.1", "fd00::1"]),
        words(&["x.example"]),
        words(&["ndots:0"]),
    );
    let said = Overrides {
        servers: &servers_said,
        search: &search,
        options: &options,
    };
    let host = "nameserver 127.0.0.53\nsearch a\noptions b\n";
    let file = resolv_conf(host, None, said).unwrap();
    assert_eq!(
        file.text,
        "# Made by berth for this container.\n\nnameserver 127.0.0.1\nnameserver fd00::1\nsearch x.example\noptions ndots:0\n"
    );
    assert_eq!(file.notice, None);
    let none = words(&["."]);
    let file = resolv_conf(
        "nameserver 1.1.1.1\nsearch a\n",
        None,
        Overrides {
            search: &none,
            ..Overrides::default()
        },
    )
    .unwrap();
    assert!(!file.text.contains("search"));
    for bad in ["dns.example", "1.1.1.1\nsearch evil", ""] {
        let bad = words(&[bad]);
        assert!(
            resolv_conf(
                "",
                None,
                Overrides {
                    servers: &bad,
                    ..Overrides::default()
                }
            )
            .is_err()
        );
    }
    let bad = words(&["a b"]);
    assert!(
        resolv_conf(
            "",
            None,
            Overrides {
                search: &bad,
                ..Overrides::default()
            }
        )
        .is_err()
    );
    assert!(
        resolv_conf(
            "",
            None,
            Overrides {
                options: &bad,
                ..Overrides::default()
            }
        )
        .is_err()
    );
}

proptest! {
    /// Whatever the host's file holds: there is a server, none is on a loopback address, and what
    /// is written reads the same again.
    #[test]
    fn the_result_is_always_usable(host in "[a-z0-9.:#; \tn\n]{0,200}|(nameserver [0-9.]{1,15}\n){0,4}") {
        let file = resolv(&host, Some("nameserver 10.0.0.1"));
        prop_assert!(!servers(&file).is_empty());
        for server in servers(&file) {
            prop_assert!(!server.parse::<Ipv4Addr>().unwrap().is_loopback());
        }
        prop_assert_eq!(&resolv(&file.text, None).text, &file.text);
    }
}
