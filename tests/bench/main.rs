//! `make bench`: what whole operations cost, berth and dockerd and the bare system calls in one run on one machine, in
//! the lab. It measures and prints; it judges nothing. Options: `--rounds N` (default 100), `--without-dockerd`.

#![allow(
    clippy::disallowed_methods,
    reason = "measures programs by running them"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that fails is a failed run"
)]
#![allow(clippy::print_stdout, reason = "the table is this program's answer")]

use std::time::{Duration, Instant};

use berth_tests::lab::Lab;
use berth_tests::pid;

mod engines;
mod floor;
mod sample;

use engines::Engine;
use sample::Sample;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rounds = args
        .iter()
        .position(|arg| arg == "--rounds")
        .and_then(|at| args.get(at + 1)?.parse().ok())
        .unwrap_or(100);
    let lab = Lab::get();
    println!("kernel {}, {} cpus", lab.sh("uname -r"), lab.sh("nproc"));

    let floor = floor::Floor::build(lab);
    println!("\n# The floor: bare system calls for one container");
    let bare = floor.run(lab, rounds, 1);
    println!("{:<28} {bare}", "one after the other");
    for workers in [4, 8] {
        println!(
            "{:<28} {:.0} per second",
            format!("{workers} at once"),
            floor.per_second(lab, rounds, workers)
        );
    }

    let mut results = Vec::new();
    results.push(("berth, scopes", measure(lab, &engines::berth(lab), rounds)));
    results.push((
        "berth, cgroup file system",
        measure(lab, &engines::berth_without_systemd(lab), rounds),
    ));
    if !args.iter().any(|arg| arg == "--without-dockerd") {
        match engines::dockerd(lab) {
            Some(engine) => results.push(("dockerd", measure(lab, &engine, (rounds / 5).max(10)))),
            None => {
                println!("\ndockerd is not in this lab's root: LAB_EXTRA=docker.io puts it there")
            }
        }
    }

    println!("\n# In one table (medians, ms)\n");
    println!(
        "{:<28} {:>12} {:>9} {:>14} {:>8} {:>8} {:>8}",
        "", "API cycle", "× floor", "docker run", "1/s", "4/s", "8/s"
    );
    for (name, result) in &results {
        let cycle = result.cycle.median();
        println!(
            "{name:<28} {cycle:>12.1} {:>9.2} {:>14.1} {:>8.1} {:>8.1} {:>8.1}",
            cycle / bare.median(),
            result.cli.median(),
            result.rates[0],
            result.rates[1],
            result.rates[2],
        );
    }
    if let Some((_, dockerd)) = results.iter().find(|(name, _)| *name == "dockerd") {
        for (name, result) in results.iter().filter(|(name, _)| *name != "dockerd") {
            println!(
                "{name} is {:.1} times as fast as dockerd",
                dockerd.cycle.median() / result.cycle.median()
            );
        }
    }
    println!("\n# The agent itself");
    println!("{:<28} {}", "first answer, ms", ready_time(lab));
    memory(lab);
}

struct Measured {
    cycle: Sample,
    cli: Sample,
    /// Lifecycles per second with 1, 4 and 8 clients.
    rates: [f64; 3],
}

fn measure(lab: &Lab, engine: &Engine<'_>, rounds: usize) -> Measured {
    println!("\n# {}", engine.name);
    engine.warm_up();
    let mut parts: [Vec<f64>; 5] = Default::default();
    let mut connection = engine.http.connect().unwrap();
    for _ in 0..rounds {
        let phases = engine.lifecycle(&mut connection);
        for (part, took) in parts.iter_mut().zip(phases) {
            part.push(took);
        }
    }
    let [total, create, start, wait, remove] = parts.map(Sample::new);
    println!("{:<28} {total}", "API cycle, ms");
    for (name, part) in [
        ("  create", create),
        ("  start", start),
        ("  wait", wait),
        ("  remove", remove),
    ] {
        println!("{name:<28} {part}");
    }
    let cli = Sample::of(rounds / 4, || {
        lab.exec(&[
            "docker",
            "-H",
            &engine.host,
            "run",
            "--rm",
            "busybox",
            "true",
        ])
        .ok();
    });
    println!("{:<28} {cli}", "docker run --rm true, ms");
    let rates = [1, 4, 8].map(|clients| {
        let each = (rounds / clients).max(5);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| {
                    let mut connection = engine.http.connect().unwrap();
                    for _ in 0..each {
                        engine.lifecycle(&mut connection);
                    }
                });
            }
        });
        let rate =
            f64::from(u32::try_from(each * clients).unwrap()) / begun.elapsed().as_secs_f64();
        println!(
            "{:<28} {rate:.1}",
            format!("lifecycles/s, {clients} clients")
        );
        rate
    });
    Measured {
        cycle: total,
        cli,
        rates,
    }
}

/// From the connection to an agent that does not run to its first answer.
fn ready_time(lab: &Lab) -> Sample {
    Sample::of_prepared(
        20,
        || lab.stop_agent(),
        || drop(lab.http().get("/_ping").expect(200)),
    )
}

/// Proportional set sizes with thirty sleeping containers.
fn memory(lab: &Lab) {
    let ids: Vec<String> = (0..30)
        .map(|_| lab.docker(&["run", "-d", "busybox", "sleep", "1000"]).ok())
        .collect();
    let agent = lab.agent().unwrap();
    println!(
        "{:<28} {} KiB with 30 containers",
        "PSS of the agent",
        pid::pss_kib(agent).unwrap()
    );
    lab.stop_agent();
    lab.http().get("/_ping").expect(200);
    println!(
        "{:<28} {} KiB",
        "  after a fresh start",
        pid::pss_kib(lab.agent().unwrap()).unwrap()
    );
    let monitors: Vec<f64> = pid::tree(lab.init())
        .into_iter()
        .filter(|pid| pid::name(*pid).as_deref() == Some("berth-monitor"))
        .filter_map(|pid| Some(f64::from(u32::try_from(pid::pss_kib(pid)?).ok()?)))
        .collect();
    assert_eq!(monitors.len(), ids.len(), "a monitor for each");
    println!("{:<28} {}", "PSS of a monitor, KiB", Sample::new(monitors));
    lab.remove_all();
    let agent = lab.agent().unwrap();
    assert!(
        !pid::wait_end(agent, Duration::from_millis(1)),
        "the agent stays"
    );
}
