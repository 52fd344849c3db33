//! What `info` tells of the host and the agent: read when asked, never guessed.

use std::path::Path;

use berth_model::time::Timestamp;

use crate::Engine;
use crate::error::Result;
use crate::types::{Info, Status};

impl Engine {
    pub async fn info(&self) -> Result<Info> {
        let inner = self.inner.clone();
        let (driver_status, host) =
            crate::blocking::run("reading the host's state failed", move || {
                (inner.store.driver_status(), Host::read())
            })
            .await?;
        let inner = &self.inner;
        let mut info = Info {
            id: machine_identity(),
            images: inner.images.count() as u64,
            driver: inner.store.driver_name().to_owned(),
            driver_status,
            data_root: inner.paths.data().to_string_lossy().into_owned(),
            cgroup_driver: if inner.manager.is_some() {
                "systemd"
            } else {
                "cgroupfs"
            }
            .to_owned(),
            kernel_version: host.kernel,
            operating_system: host.os_name,
            os_version: host.os_version,
            architecture: std::env::consts::ARCH.to_owned(),
            cpus: inner.facts.cpus.into(),
            memory: host.memory,
            hostname: host.name,
            ipv4_forwarding: host.forwarding,
            logging_driver: "json-file".to_owned(),
            event_listeners: inner.events.listeners() as u64,
            open_descriptors: host.descriptors,
            system_time: Timestamp::now(),
            init: inner.init.clone(),
            ..Info::default()
        };
        for handle in inner.containers.all() {
            info.containers += 1;
            match handle.status() {
                Status::Running | Status::Restarting => info.running += 1,
                Status::Paused => info.paused += 1,
                _ => info.stopped += 1,
            }
        }
        let has = |controller: &str| inner.facts.has_controller(controller);
        info.memory_limit = has("memory");
        info.swap_limit = has("memory");
        info.cpu_cfs = has("cpu");
        info.cpu_shares = has("cpu");
        info.cpuset = has("cpuset");
        info.pids_limit = has("pids");
        // cgroup v2 has no switch for it.
        info.oom_kill_disable = false;
        if inner.facts.seccomp {
            info.security_options
                .push("name=seccomp,profile=builtin".into());
        }
        info.security_options.push("name=cgroupns".into());
        info.warnings = self.warnings(&info);
        Ok(info)
    }

    fn warnings(&self, info: &Info) -> Vec<String> {
        let mut warnings = Vec::new();
        for (there, what) in [
            (info.memory_limit, "memory limit"),
            (info.swap_limit, "swap limit"),
            (info.cpu_cfs, "cpu cfs quota"),
            (info.cpu_shares, "cpu shares"),
            (info.cpuset, "cpuset"),
            (info.pids_limit, "pids limit"),
        ] {
            if !there {
                warnings.push(format!("WARNING: No {what} support"));
            }
        }
        if !info.ipv4_forwarding {
            warnings.push(
                "WARNING: IPv4 forwarding is disabled until the first container joins a bridge"
                    .into(),
            );
        }
        let missing = self.inner.facts.known_caps & !self.inner.facts.bounding;
        if missing != 0 {
            warnings.push(format!(
                "WARNING: the agent itself lacks capabilities of the kernel (mask {missing:016x}): no container can have them"
            ));
        }
        if !self.inner.facts.seccomp {
            warnings.push("WARNING: No seccomp support".into());
        }
        let damaged = self
            .inner
            .damaged
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        warnings.extend(damaged.iter().map(|text| format!("WARNING: {text}")));
        warnings
    }
}

/// Stable for this machine, and not the machine id itself, which is nobody's business.
fn machine_identity() -> String {
    const APPLICATION: &str = "b3a3b6d49b8f4ac4a0d0e5c3f4f7b1a2";
    libsystemd::id128::Id128::parse_str(APPLICATION)
        .and_then(|application| libsystemd::id128::get_machine_app_specific(&application))
        .map(|id| id.lower_hex())
        .unwrap_or_default()
}

#[derive(Debug, Default)]
struct Host {
    kernel: String,
    name: String,
    os_name: String,
    os_version: String,
    /// Bytes.
    memory: u64,
    forwarding: bool,
    descriptors: u64,
}

impl Host {
    fn read() -> Self {
        let text = |path: &str| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let release = ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| std::fs::read_to_string(Path::new(path)).ok())
            .unwrap_or_default();
        let field = |key: &str| {
            release
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|value| value.trim_matches('"').to_owned())
                .unwrap_or_default()
        };
        let memory = text("/proc/meminfo")
            .lines()
            .find_map(|line| {
                line.strip_prefix("MemTotal:")?
                    .trim()
                    .strip_suffix("kB")?
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
            .unwrap_or(0);
        Self {
            kernel: text("/proc/sys/kernel/osrelease"),
            name: text("/proc/sys/kernel/hostname"),
            os_name: field("PRETTY_NAME"),
            os_version: field("VERSION_ID"),
            memory: memory * 1024,
            forwarding: text("/proc/sys/net/ipv4/ip_forward") == "1",
            descriptors: std::fs::read_dir("/proc/self/fd")
                .map_or(0, |entries| entries.count() as u64),
        }
    }
}
