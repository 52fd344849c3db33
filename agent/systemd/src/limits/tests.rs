use proptest::prelude::*;

use super::*;

fn docker(change: impl FnOnce(&mut DockerLimits<'_>)) -> Result<Limits, LimitError> {
    let mut asked = DockerLimits::default();
    change(&mut asked);
    Limits::from_docker(&asked)
}

#[test]
fn nothing_asked_sends_nothing() {
    let limits = docker(|_| ()).unwrap();
    assert!(limits.is_empty());
    assert!(limits.properties().is_empty());
}

#[test]
fn swap_is_what_remains_of_the_total() {
    const M: i64 = 64 << 20;
    for (memory, total, want) in [
        (M, 0, Some(M as u64)),
        (M, M, Some(0)),
        (M, 3 * M, Some(2 * M as u64)),
        (M, -1, Some(INFINITY)),
        (0, -1, Some(INFINITY)),
        (0, 0, None),
    ] {
        let limits = docker(|l| (l.memory, l.memory_swap) = (memory, total)).unwrap();
        assert_eq!(limits.memory_swap_max, want, "{memory} {total}");
    }
    assert_eq!(
        docker(|l| (l.memory, l.memory_swap) = (M, M - 1)),
        Err(LimitError::SwapBelowMemory {
            total: M - 1,
            memory: M
        })
    );
    assert_eq!(
        docker(|l| l.memory_swap = M),
        Err(LimitError::SwapWithoutMemory)
    );
}

#[test]
fn shares_become_weights() {
    for (shares, weight) in [
        (1, 1),
        (2, 1),
        (512, 20),
        (1024, 39),
        (262_144, 10_000),
        (i64::MAX, 10_000),
    ] {
        let limits = docker(|l| l.cpu_shares = shares).unwrap();
        assert_eq!(limits.cpu_weight, Some(weight), "{shares}");
    }
}

#[test]
fn quotas_are_rounded_up_to_whole_percent() {
    for (nano, quota, period, want) in [
        (500_000_000, 0, 0, Some(500_000)),
        (1_500_000_000, 0, 0, Some(1_500_000)),
        // 12.3456 % is kept as 13 %: 12 % would take away what was asked for.
        (123_456_000, 0, 0, Some(130_000)),
        (1, 0, 0, Some(10_000)),
        (0, 50_000, 0, Some(500_000)),
        (0, 50_000, 25_000, Some(2_000_000)),
        (0, 1000, 1_000_000, Some(10_000)),
        (0, -1, 0, Some(INFINITY)),
        (0, 0, 50_000, None),
    ] {
        let limits = docker(|l| {
            (l.nano_cpus, l.cpu_quota, l.cpu_period) = (nano, quota, period);
        })
        .unwrap();
        assert_eq!(
            limits.cpu_quota_per_sec_usec, want,
            "{nano} {quota} {period}"
        );
    }
    assert_eq!(
        docker(|l| (l.nano_cpus, l.cpu_quota) = (1, 1)),
        Err(LimitError::TwoQuotas)
    );
}

#[test]
fn sets_become_bitmaps() {
    for (list, want) in [
        ("", vec![]),
        ("0", vec![0b1]),
        ("0-3,5", vec![0b0010_1111]),
        ("8", vec![0, 1]),
        ("5,0-3,5", vec![0b0010_1111]),
        ("7-8", vec![0b1000_0000, 1]),
    ] {
        assert_eq!(set_to_bitmap(list).unwrap(), want, "{list}");
    }
    for list in [
        ",",
        "0,",
        "a",
        "3-1",
        "1-",
        "-1",
        "+1",
        " 1",
        "8192",
        "0-4294967296",
    ] {
        assert!(set_to_bitmap(list).is_err(), "{list}");
    }
}

#[test]
fn pids_and_blkio() {
    assert_eq!(
        docker(|l| l.pids_limit = Some(0)).unwrap().tasks_max,
        Some(INFINITY)
    );
    assert_eq!(
        docker(|l| l.pids_limit = Some(-1)).unwrap().tasks_max,
        Some(INFINITY)
    );
    assert_eq!(
        docker(|l| l.pids_limit = Some(7)).unwrap().tasks_max,
        Some(7)
    );
    assert_eq!(docker(|l| l.blkio_weight = 10).unwrap().io_weight, Some(1));
    assert_eq!(
        docker(|l| l.blkio_weight = 1000).unwrap().io_weight,
        Some(10_000)
    );
    assert!(docker(|l| l.blkio_weight = 5).is_err());
    assert!(docker(|l| l.memory = -5).is_err());
}

#[test]
fn missing_controllers_are_named() {
    let limits = docker(|l| {
        l.memory = 1 << 20;
        l.pids_limit = Some(5);
        l.cpuset_cpus = "0";
    })
    .unwrap();
    assert_eq!(
        limits.without_effect(&["memory"]),
        ["TasksMax", "AllowedCPUs"]
    );
    assert_eq!(
        limits.without_effect(&["memory", "pids", "cpuset"]),
        [""; 0]
    );
}

#[test]
fn properties_read_back_as_the_same_limits() {
    let limits = docker(|l| {
        l.memory = 64 << 20;
        l.nano_cpus = 250_000_000;
        l.cpuset_cpus = "1,9";
        l.pids_limit = Some(12);
    })
    .unwrap();
    let mut map: HashMap<String, OwnedVariant> = limits
        .properties()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.try_to_owned().unwrap()))
        .collect();
    assert_eq!(Limits::from_properties(&map), limits);
    // As systemd 252 gives sets back.
    let padded = Variant::from(vec![2_u8, 2, 0, 0, 0, 0, 0, 0])
        .try_to_owned()
        .unwrap();
    map.insert("AllowedCPUs".to_owned(), padded);
    assert_eq!(Limits::from_properties(&map), limits);
}

proptest! {
    #[test]
    fn any_set_text_is_taken_or_refused(list in "[0-9,\\- ]{0,24}") {
        if let Ok(bitmap) = set_to_bitmap(&list) {
            prop_assert!(bitmap.len() <= 1024);
        }
    }

    #[test]
    fn a_quota_is_never_less_than_asked(quota in 1_i64..i64::MAX, period in 1000_i64..1_000_000) {
        let limits = docker(|l| (l.cpu_quota, l.cpu_period) = (quota, period)).unwrap();
        let given = u128::from(limits.cpu_quota_per_sec_usec.unwrap());
        let asked = u128::try_from(quota).unwrap() * 1_000_000 / u128::try_from(period).unwrap();
        prop_assert!(given >= asked.min(u128::from(u64::MAX)));
    }
}
