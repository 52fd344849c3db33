//! Builds and runs the floor program (`floor.c`) in the lab.

use std::path::Path;
use std::process::Command;

use berth_tests::lab::Lab;
use serde_json::Value;

/// The built program and its place.
#[derive(Debug)]
pub(crate) struct Floor;

/// What it answered.
#[derive(Debug)]
pub(crate) struct Times {
    median: f64,
    p10: f64,
    p90: f64,
}

impl Times {
    pub(crate) fn median(&self) -> f64 {
        self.median
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>9.2}  (p10 {:.2}, p90 {:.2})",
            self.median, self.p10, self.p90
        )
    }
}

impl Floor {
    pub(crate) fn build(lab: &Lab) -> Floor {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/floor.c");
        let built = Command::new("cc")
            .args(["-O2", "-static", "-o"])
            .arg(lab.share().join("floor"))
            .arg(source)
            .arg("-lseccomp")
            .output()
            .unwrap();
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        // On the disk that containers have their layers on.
        lab.sh(
            "mkdir -p /var/lib/berth/floor/root/bin /var/lib/berth/floor/work; cd /var/lib/berth/floor/root; \
             mkdir -p etc proc sys dev tmp; cp /bin/busybox bin/busybox; ln -sf busybox bin/true; touch etc/hosts etc/hostname etc/resolv.conf",
        );
        Floor
    }

    pub(crate) fn run(&self, lab: &Lab, rounds: usize, workers: usize) -> Times {
        let answer = self.ask(lab, rounds, workers);
        let number = |key: &str| answer[key].as_f64().unwrap();
        Times {
            median: number("median_ms"),
            p10: number("p10_ms"),
            p90: number("p90_ms"),
        }
    }

    pub(crate) fn per_second(&self, lab: &Lab, rounds: usize, workers: usize) -> f64 {
        self.ask(lab, rounds, workers)["per_second"]
            .as_f64()
            .unwrap()
    }

    fn ask(&self, lab: &Lab, rounds: usize, workers: usize) -> Value {
        let text = lab.sh(&format!(
            "unshare -n /lab/floor /var/lib/berth/floor/root /var/lib/berth/floor/work /sys/fs/cgroup {rounds} {workers}"
        ));
        serde_json::from_str(&text).unwrap()
    }
}
