//! What a monitor weighs while its container sleeps. Only with the program as it is shipped:
//! `BERTH_MONITOR=path/of/the/static/berth-monitor`. Needs root, cgroup2 and busybox.

#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]

mod support;

use berth_runtime::protocol::{Reply, Request};
use support::{Host, plan, ready};

/// KiB of a container's monitor, its share of what is shared included.
const BUDGET: u64 = 250;

/// A share is only fair among some.
const CONTAINERS: usize = 20;

#[test]
fn a_sleeping_monitor_is_small() {
    if std::env::var_os("BERTH_MONITOR").is_none() {
        eprintln!("BERTH_MONITOR is not set: nothing weighed");
        return;
    }
    let mut all = Vec::new();
    for _ in 0..CONTAINERS {
        let Some(host) = Host::new() else { return };
        let mut running = ready(&host, plan(&["sleep", "600"])).unwrap();
        running.go().unwrap();
        all.push((host, running));
    }
    let mut total = 0;
    for (_, running) in &all {
        let text =
            std::fs::read_to_string(format!("/proc/{}/smaps_rollup", running.monitor.pid)).unwrap();
        let pss = text
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .unwrap();
        total += pss
            .trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .unwrap();
    }
    let each = total / CONTAINERS as u64;
    eprintln!("{each} KiB PSS for each of {CONTAINERS} monitors");
    assert!(each <= BUDGET, "{each} KiB");
    for (host, mut running) in all {
        assert_eq!(
            running.agent.ask(&Request::Signal {
                signal: 9,
                by: None
            }),
            Reply::Done
        );
        assert!(running.wait_monitor().success());
        assert_eq!(host.exit().unwrap().exit_code(), 137);
    }
}
