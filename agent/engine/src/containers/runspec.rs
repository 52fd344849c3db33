//! From the engine's record to the runtime's words, and the checks that both need: what a start could
//! not honour is refused when the container is created.

use berth_runtime::spec::{
    DeviceSpec, LogSpec, MountKind, MountSpec, NamespaceModes, NetMode, ReadOnly, RunSpec,
    SpecError, Ulimit, validate,
};
use berth_systemd::limits::{DockerLimits, Limits};

use super::settings::{self, NetworkMode, stop_signal};
use crate::Engine;
use crate::error::{Error, Kind, Result, Subject};
use crate::inner::Inner;
use crate::paths::Paths;
use crate::record::Body;
use crate::types::{Resources, Status};

impl Engine {
    /// Checks a request against what the runtime and this host can do; the answer is warnings.
    pub(crate) fn check_request(&self, id: &str, body: &Body) -> Result<Vec<String>> {
        settings::check_names(&body.spec)?;
        let spec = run_spec(id, "", body)?;
        for mount in spec.mounts.iter().filter(|m| m.kind == MountKind::Bind) {
            if mount.source == "/" && !body.spec.host.privileged {
                // Docker allows it; it is the host, so it is at least said.
                tracing::warn!(
                    container_id = id,
                    "the host's root directory is bound into a container"
                );
            }
        }
        validate(&spec, &self.inner.facts).map_err(spec_error)
    }
}

impl Inner {
    /// The limits of a scope, and the warnings for those that this host cannot set.
    pub(crate) fn limits(&self, resources: &Resources) -> Result<Limits> {
        Limits::from_docker(&DockerLimits {
            memory: resources.memory,
            memory_swap: resources.memory_swap,
            memory_reservation: resources.memory_reservation,
            cpu_shares: resources.cpu_shares,
            nano_cpus: resources.nano_cpus,
            cpu_period: resources.cpu_period,
            cpu_quota: resources.cpu_quota,
            cpuset_cpus: &resources.cpuset_cpus,
            cpuset_mems: &resources.cpuset_mems,
            pids_limit: resources.pids_limit,
            blkio_weight: resources.blkio_weight,
        })
        .map_err(|e| Error::invalid(e.to_string()).about(Subject::Container))
    }

    /// Docker's rules for limits that are wrong in themselves, and its warnings for those that do not hold here.
    pub(crate) fn limit_warnings(&self, resources: &Resources) -> Result<Vec<String>> {
        /// 6 MiB, Docker's floor: a process cannot be started in less.
        const LEAST_MEMORY: i64 = 6 * 1024 * 1024;
        let invalid = |message: String| Err(Error::invalid(message).about(Subject::Container));
        if resources.memory != 0 && resources.memory < LEAST_MEMORY {
            return invalid("Minimum memory limit allowed is 6MB".into());
        }
        if resources.memory_reservation > 0
            && resources.memory > 0
            && resources.memory_reservation > resources.memory
        {
            return invalid(
                "Minimum memory limit can not be less than memory reservation limit, see usage"
                    .into(),
            );
        }
        let cpus = i64::from(self.facts.cpus);
        if resources.nano_cpus < 0 || resources.nano_cpus > cpus.saturating_mul(1_000_000_000) {
            return invalid(format!(
                "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
            ));
        }
        if resources.cpu_period != 0 && !(1_000..=1_000_000).contains(&resources.cpu_period) {
            return invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)".into());
        }
        if resources.cpu_quota > 0 && resources.cpu_quota < 1_000 {
            return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)".into());
        }
        let limits = self.limits(resources)?;
        if let Some(wrong) = beyond(&limits.allowed_cpus, self.facts.cpus) {
            return invalid(format!(
                "Requested CPUs are not available - requested {}, available: 0-{}; CPU {wrong} does not exist",
                resources.cpuset_cpus,
                self.facts.cpus.saturating_sub(1)
            ));
        }
        let controllers: Vec<&str> = self.facts.controllers.iter().map(String::as_str).collect();
        Ok(limits
            .without_effect(&controllers)
            .into_iter()
            .map(without_effect)
            .collect())
    }
}

/// Docker's sentence for a limit that the kernel cannot hold; named by the unit's property.
fn without_effect(property: &str) -> String {
    let (what, so) = match property {
        "MemorySwapMax" => ("swap limit capabilities", "Memory limited without swap."),
        "MemoryLow" => ("memory soft limit capabilities", "Limitation discarded."),
        "CPUWeight" => ("CPU shares", "Shares discarded."),
        "CPUQuotaPerSecUSec" | "CPUQuotaPeriodUSec" => ("CPU CFS scheduler", "Quota discarded."),
        "TasksMax" => ("PIDs limit capabilities", "PIDs limit discarded."),
        "AllowedCPUs" | "AllowedMemoryNodes" => ("cpuset", "Cpuset discarded."),
        "MemoryMax" => ("memory limit capabilities", "Limitation discarded."),
        other => (other, "Limitation discarded."),
    };
    format!("Your kernel does not support {what} or the cgroup is not mounted. {so}")
}

/// The first processor of the bitmap that this machine cannot have.
fn beyond(bitmap: &[u8], possible: u32) -> Option<u32> {
    (0..u32::try_from(bitmap.len()).unwrap_or(u32::MAX) * 8)
        .filter(|bit| bitmap[(bit / 8) as usize] & (1 << (bit % 8)) != 0)
        .find(|&bit| bit >= possible)
}

/// The container in the runtime's words.
pub(crate) fn run_spec(id: &str, name: &str, body: &Body) -> Result<RunSpec> {
    let (spec, host, config) = (&body.spec, &body.spec.host, &body.config);
    let network = settings::network_mode(spec)?;
    let net = match network {
        NetworkMode::Host => NetMode::Host,
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Container(_) => NetMode::Joined,
    };
    let namespaces = NamespaceModes::parse(
        net,
        &host.ipc_mode,
        &host.pid_mode,
        &host.uts_mode,
        &host.cgroupns_mode,
        &host.userns_mode,
    )
    .map_err(spec_error)?;
    namespaces
        .check_hostname(&spec.hostname, &spec.domainname)
        .map_err(spec_error)?;
    let shares_names = network == NetworkMode::Host || host.uts_mode == "host";
    Ok(RunSpec {
        id: id.to_owned(),
        name: name.to_owned(),
        argv: config.argv(),
        env: config.env.clone(),
        cwd: config.working_dir.clone(),
        user: config.user.clone(),
        group_add: host.group_add.clone(),
        // With the host's names a name of one's own is refused, unless it was only the default.
        hostname: if host.uts_mode == "host" && spec.hostname.is_empty() {
            String::new()
        } else {
            config.hostname.clone()
        },
        domainname: spec.domainname.clone(),
        tty: spec.tty,
        console_size: host.console_size.filter(|&size| size != (0, 0)),
        open_stdin: spec.open_stdin,
        stdin_once: spec.stdin_once,
        rootfs_readonly: host.read_only,
        mounts: mounts(body)?,
        tmpfs: host.tmpfs.clone(),
        shm_size: host.shm_size,
        privileged: host.privileged,
        cap_add: host.cap_add.clone(),
        cap_drop: host.cap_drop.clone(),
        security_opt: host.security_opt.clone(),
        masked_paths: host.masked_paths.clone(),
        readonly_paths: host.readonly_paths.clone(),
        ulimits: host
            .ulimits
            .iter()
            .map(|u| Ulimit {
                name: u.name.clone(),
                soft: u.soft,
                hard: u.hard,
            })
            .collect(),
        sysctls: host.sysctls.clone(),
        init: host.init.unwrap_or(false),
        namespaces,
        devices: host
            .devices
            .iter()
            .map(|d| DeviceSpec {
                path_on_host: d.path_on_host.clone(),
                path_in_container: d.path_in_container.clone(),
                permissions: d.permissions.clone(),
            })
            .collect(),
        device_cgroup_rules: host.device_cgroup_rules.clone(),
        oom_score_adj: host.oom_score_adj.unwrap_or(0),
        stop_signal: stop_signal(config),
        stop_timeout: Some(spec.stop_timeout.unwrap_or(settings::DEFAULT_STOP_TIMEOUT)),
        log: match host.log.driver.as_str() {
            "none" => LogSpec::None,
            _ => LogSpec::JsonFile {
                file: Paths::log_name(id),
                max_size: 0,
                max_files: 1,
                attrs: Vec::new(),
            },
        },
    })
    .map(|mut run| {
        if shares_names && host.uts_mode != "host" && spec.hostname.is_empty() {
            // Docker: with the host's network a container is called as the host, unless told otherwise.
            if let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
                run.hostname = name.trim().to_owned();
            }
        }
        run
    })
}

fn mode_error(what: &str, value: &str) -> Error {
    Error::invalid(format!("invalid {what}: {value}")).about(Subject::Container)
}

/// Binds first, then the newer form: the order in which their sources are sent.
fn mounts(body: &Body) -> Result<Vec<MountSpec>> {
    let host = &body.spec.host;
    let mut mounts: Vec<MountSpec> = host
        .binds
        .iter()
        .map(|bind| MountSpec {
            kind: MountKind::Bind,
            source: bind.source.clone(),
            target: bind.target.clone(),
            read_only: if bind.read_only {
                ReadOnly::Recursive
            } else {
                ReadOnly::No
            },
            propagation: bind.propagation.clone(),
            ..MountSpec::default()
        })
        .collect();
    for mount in &host.mounts {
        mounts.push(MountSpec {
            kind: match mount.kind.as_str() {
                "bind" => MountKind::Bind,
                "tmpfs" => MountKind::Tmpfs,
                other => return Err(mode_error("mount type", other)),
            },
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: match (
                mount.read_only,
                mount.read_only_non_recursive || mount.non_recursive,
            ) {
                (false, _) => ReadOnly::No,
                (true, false) => ReadOnly::Recursive,
                (true, true) => ReadOnly::TopOnly,
            },
            propagation: mount.propagation.clone(),
            tmpfs_size: mount.tmpfs_size,
            tmpfs_mode: mount.tmpfs_mode,
            tmpfs_options: String::new(),
        });
    }
    Ok(mounts)
}

/// Whether the n-th mount of the request makes its source when it is missing (`-v`), or is refused (`--mount`).
pub(crate) fn makes_source(body: &Body, index: usize) -> bool {
    match index.checked_sub(body.spec.host.binds.len()) {
        None => true,
        Some(later) => body
            .spec
            .host
            .mounts
            .get(later)
            .is_some_and(|m| m.create_mountpoint),
    }
}

/// Whether the n-th mount of the request brings what is mounted below its source.
pub(crate) fn is_recursive(body: &Body, index: usize) -> bool {
    match index.checked_sub(body.spec.host.binds.len()) {
        None => !body.spec.host.binds[index]
            .mode
            .split(',')
            .any(|option| option == "bind" || option == "nonrecursive"),
        Some(later) => !body
            .spec
            .host
            .mounts
            .get(later)
            .is_some_and(|m| m.non_recursive),
    }
}

pub(crate) fn spec_error(error: SpecError) -> Error {
    let kind = match error {
        SpecError::Invalid(_) => Kind::Invalid,
        SpecError::Unsupported(_) => Kind::Unsupported,
    };
    Error::new(kind, error.to_string()).about(Subject::Container)
}

/// The container whose network another one shares, while it runs.
pub(crate) fn network_owner(engine: &Engine, reference: &str) -> Result<u32> {
    let other = engine.inner.containers.find(reference)?;
    let record = other.record();
    match record.status() {
        Status::Running | Status::Paused => Ok(record.stored.state.pid),
        _ => Err(Error::conflict(format!(
            "cannot join network of a non running container: {}",
            other.id
        ))
        .about(Subject::Container)),
    }
}

#[cfg(test)]
mod tests {
    use super::beyond;

    #[test]
    fn processors_that_do_not_exist_are_found() {
        assert_eq!(beyond(&[0b11], 2), None);
        assert_eq!(beyond(&[0b101], 2), Some(2));
        assert_eq!(beyond(&[0, 1], 8), Some(8));
        assert_eq!(beyond(&[], 2), None);
    }
}
