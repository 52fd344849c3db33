use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn pool(subnet: &str) -> Pool {
    Pool::new(&BridgeConfig {
        subnet: subnet.parse().unwrap(),
        ..BridgeConfig::default()
    })
}

fn give(pool: &mut Pool, id: &str) -> Result<Ipv4Addr> {
    pool.take(id, &format!("veth-{id}"), None)
}

fn last(address: Ipv4Addr) -> u8 {
    address.octets()[3]
}

#[test]
fn the_first_container_gets_two_and_the_search_goes_on() {
    let mut pool = pool("172.29.0.0/29");
    let given: Vec<u8> = ["a", "b", "c"]
        .iter()
        .map(|id| last(give(&mut pool, id).unwrap()))
        .collect();
    assert_eq!(given, [2, 3, 4]);
    assert!(pool.give_back([172, 29, 0, 2].into(), "veth-a"));
    // Not the lowest free: the one behind the last.
    assert_eq!(last(give(&mut pool, "d").unwrap()), 5);
    assert_eq!(last(give(&mut pool, "e").unwrap()), 6);
    assert_eq!(last(give(&mut pool, "f").unwrap()), 2);
    let error = give(&mut pool, "g").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no address is left in 172.29.0.0/29 of bridge berth0: 5 are in use"
    );
    assert!(pool.give_back([172, 29, 0, 4].into(), "veth-c"));
    assert_eq!(last(give(&mut pool, "g").unwrap()), 4);
}

#[test]
fn a_gateway_in_the_middle_is_skipped() {
    let config = BridgeConfig {
        subnet: "10.0.0.0/29".parse().unwrap(),
        gateway: Some([10, 0, 0, 3].into()),
        ..BridgeConfig::default()
    };
    let mut pool = Pool::new(&config);
    let given: Vec<u8> = (0..5)
        .map(|n| last(give(&mut pool, &n.to_string()).unwrap()))
        .collect();
    assert_eq!(given, [1, 2, 4, 5, 6]);
    assert!(give(&mut pool, "5").is_err());
}

#[test]
fn one_container_has_one_address() {
    let mut pool = pool("10.0.0.0/24");
    give(&mut pool, "a").unwrap();
    assert!(matches!(
        give(&mut pool, "a"),
        Err(Error::AlreadyAttached { .. })
    ));
    assert!(matches!(
        pool.restore("a", "veth-x", [10, 0, 0, 9].into()),
        Err(Error::AlreadyAttached { .. })
    ));
}

#[test]
fn requests_are_checked_and_do_not_move_the_search() {
    let mut pool = pool("10.0.0.0/24");
    assert_eq!(
        last(
            pool.take("a", "veth-a", Some([10, 0, 0, 200].into()))
                .unwrap()
        ),
        200
    );
    assert_eq!(last(give(&mut pool, "b").unwrap()), 2);
    for unusable in [[10, 0, 0, 0], [10, 0, 0, 1], [10, 0, 0, 255], [10, 0, 1, 4]] {
        let result = pool.take("c", "veth-c", Some(unusable.into()));
        assert!(
            matches!(result, Err(Error::AddressUnusable { .. })),
            "{unusable:?}"
        );
    }
    let error = pool
        .take("c", "veth-c", Some([10, 0, 0, 200].into()))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "address 10.0.0.200 is in use by container a"
    );
}

#[test]
fn a_late_release_does_not_take_the_next_holders_address() {
    let mut pool = pool("10.0.0.0/30");
    let address = pool.take("a", "veth-a", None).unwrap();
    assert!(pool.give_back(address, "veth-a"));
    assert!(!pool.give_back(address, "veth-a"));
    assert_eq!(pool.take("b", "veth-b", None).unwrap(), address);
    assert!(!pool.give_back(address, "veth-a"));
    assert_eq!(pool.holder(address).unwrap().id, "b");
}

#[test]
fn records_are_taken_over() {
    let mut pool = pool("10.0.0.0/24");
    pool.restore("a", "veth-a", [10, 0, 0, 7].into()).unwrap();
    pool.restore("a", "veth-a", [10, 0, 0, 7].into()).unwrap();
    assert!(matches!(
        pool.restore("b", "veth-b", [10, 0, 0, 7].into()),
        Err(Error::AddressInUse { .. })
    ));
    assert!(matches!(
        pool.restore("b", "veth-b", [10, 9, 0, 7].into()),
        Err(Error::AddressUnusable { .. })
    ));
    assert_eq!(last(give(&mut pool, "c").unwrap()), 8);
}

#[test]
fn a_subnet_of_65533_is_given_out_whole() {
    let mut pool = pool("172.29.0.0/16");
    for n in 0..65533u32 {
        give(&mut pool, &n.to_string()).unwrap();
    }
    assert!(matches!(
        give(&mut pool, "more"),
        Err(Error::AddressesExhausted { used: 65533, .. })
    ));
}

#[derive(Debug, Clone)]
enum Step {
    Take(u8),
    Ask(u8, u8),
    Release(u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<u8>().prop_map(Step::Take),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(id, host)| Step::Ask(id, host)),
        3 => any::<u8>().prop_map(Step::Release),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Against the plainest model: never one address twice, never an unusable one, exhausted
    /// only when it is, and the same after a restart from the records.
    #[test]
    fn no_address_is_given_twice(steps in steps(), length in 24u8..=30, gateway in 1u8..=2) {
        let config = BridgeConfig {
            subnet: Subnet::containing([10, 0, 0, 0].into(), length),
            gateway: Some([10, 0, 0, gateway].into()),
            ..BridgeConfig::default()
        };
        let usable = usize::try_from(config.subnet.size()).unwrap() - 3;
        let mut pool = Pool::new(&config);
        let mut model: HashMap<u8, (Ipv4Addr, String)> = HashMap::new();
        for (round, step) in steps.into_iter().enumerate() {
            match step {
                Step::Take(id) | Step::Ask(id, _) => {
                    let asked = match step { Step::Ask(_, host) => Some(Ipv4Addr::new(10, 0, 0, host)), _ => None };
                    let interface = format!("veth{round}");
                    match pool.take(&id.to_string(), &interface, asked) {
                        Ok(address) => {
                            prop_assert!(asked.is_none_or(|asked| asked == address));
                            prop_assert!(config.subnet.contains(address));
                            prop_assert!(address != config.gateway());
                            prop_assert!(address != config.subnet.network() && address != config.subnet.broadcast());
                            prop_assert!(model.values().all(|(taken, _)| *taken != address));
                            prop_assert!(model.insert(id, (address, interface)).is_none());
                        }
                        Err(Error::AlreadyAttached { .. }) => prop_assert!(model.contains_key(&id)),
                        Err(Error::AddressesExhausted { used, .. }) => {
                            prop_assert_eq!(used, usable);
                            prop_assert_eq!(model.len(), usable);
                        }
                        Err(Error::AddressInUse { address, .. }) => {
                            prop_assert!(model.values().any(|(taken, _)| *taken == address));
                        }
                        Err(Error::AddressUnusable { .. }) => prop_assert!(asked.is_some()),
                        Err(other) => prop_assert!(false, "{other}"),
                    }
                }
                Step::Release(id) => {
                    if let Some((address, interface)) = model.remove(&id) {
                        prop_assert!(!pool.give_back(address, "another"));
                        prop_assert!(pool.give_back(address, &interface));
                        prop_assert!(!pool.give_back(address, &interface));
                    }
                }
                Step::Restart => {
                    pool = Pool::new(&config);
                    for (id, (address, interface)) in &model {
                        pool.restore(&id.to_string(), interface, *address).unwrap();
                    }
                }
            }
            let held: HashSet<_> = pool.leases().map(|(address, lease)| (address, lease.interface.clone())).collect();
            prop_assert_eq!(held, model.values().cloned().collect::<HashSet<_>>());
        }
    }
}
