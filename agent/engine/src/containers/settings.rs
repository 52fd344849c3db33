//! What a container gets: the request merged over the image's defaults, and what of it this version
//! does not serve, refused by name before anything is made. Pure.

use std::collections::BTreeMap;

use berth_model::image::config::ContainerDefaults;
use berth_model::signal;
use berth_network::hostfiles;

use crate::error::{Error, Result, Subject};
use crate::types::{ContainerSpec, EffectiveConfig, MountPoint};

/// Seconds between the stop signal and the kill, as Docker has it.
pub(crate) const DEFAULT_STOP_TIMEOUT: i64 = 10;

/// The request over the image's defaults.
pub(crate) fn merge(
    spec: &ContainerSpec,
    image: &ContainerDefaults,
    id: &str,
) -> Result<EffectiveConfig> {
    let or = |asked: &str, default: &str| {
        if asked.is_empty() {
            default.to_owned()
        } else {
            asked.to_owned()
        }
    };
    let mut labels = image.labels.clone();
    labels.extend(spec.labels.clone());
    let mut exposed = image.exposed_ports.clone();
    exposed.extend(
        spec.exposed_ports
            .iter()
            .filter(|p| !image.exposed_ports.contains(p))
            .cloned(),
    );
    // An entrypoint of the request's own silences the image's command; an empty one clears the image's.
    let asked_entrypoint = spec.entrypoint.as_ref().filter(|e| !e.is_empty());
    let cleared = asked_entrypoint.is_some_and(|e| e.len() == 1 && e[0].is_empty());
    let entrypoint = match asked_entrypoint {
        Some(_) if cleared => None,
        Some(entrypoint) => Some(entrypoint.clone()),
        None => image.entrypoint.clone().filter(|e| !e.is_empty()),
    };
    let asked_cmd = spec.cmd.clone().filter(|c| !c.is_empty());
    let cmd = match asked_cmd {
        Some(cmd) => Some(cmd),
        None if asked_entrypoint.is_some() => None,
        None => image.cmd.clone().filter(|c| !c.is_empty()),
    };
    let config = EffectiveConfig {
        hostname: or(&spec.hostname, &id[..12]),
        user: or(&spec.user, &image.user),
        env: environment(&spec.env, &image.env),
        entrypoint,
        cmd,
        working_dir: or(&spec.working_dir, &image.working_dir),
        labels,
        exposed_ports: exposed,
        volumes: image.volumes.iter().chain(&spec.volumes).cloned().collect(),
        stop_signal: spec
            .stop_signal
            .clone()
            .filter(|s| !s.is_empty())
            .or_else(|| image.stop_signal.clone()),
        on_build: Vec::new(),
    };
    if config.argv().first().is_none_or(String::is_empty) {
        return Err(invalid("no command specified"));
    }
    if let Some(name) = &config.stop_signal {
        signal::parse(name).map_err(|e| invalid(e.to_string()))?;
    }
    Ok(config)
}

/// The image's variables, those of the request over them; a bare `KEY` in the request takes it away,
/// in an image it means nothing.
fn environment(asked: &[String], image: &[String]) -> Vec<String> {
    let mut env: Vec<String> = image
        .iter()
        .filter(|entry| entry.find('=').is_some_and(|at| at > 0))
        .cloned()
        .collect();
    for entry in asked {
        let key = entry.split('=').next().unwrap_or_default();
        let place = env.iter().position(|e| e.split('=').next() == Some(key));
        match (entry.contains('='), place) {
            (true, Some(place)) => env[place].clone_from(entry),
            (true, None) => env.push(entry.clone()),
            (false, Some(place)) => {
                env.remove(place);
            }
            (false, None) => {}
        }
    }
    env
}

/// Refuses what this version does not serve, naming each field: never a container that is not what was asked.
pub(crate) fn refuse_unsupported(spec: &ContainerSpec, image: &ContainerDefaults) -> Result<()> {
    let host = &spec.host;
    let mut fields: Vec<String> = spec.unsupported.clone();
    let mut refuse = |set: bool, field: &str| {
        if set {
            fields.push(field.to_owned());
        }
    };
    refuse(
        !host.port_bindings.is_empty(),
        "HostConfig.PortBindings (published ports)",
    );
    refuse(
        host.publish_all_ports,
        "HostConfig.PublishAllPorts (published ports)",
    );
    refuse(!host.links.is_empty(), "HostConfig.Links");
    refuse(!host.volumes_from.is_empty(), "HostConfig.VolumesFrom");
    refuse(!spec.volumes.is_empty(), "Volumes (anonymous volumes)");
    let covered = |path: &String| {
        let target = path.trim_end_matches('/');
        host.binds
            .iter()
            .map(|b| b.target.as_str())
            .chain(host.mounts.iter().map(|m| m.target.as_str()))
            .chain(host.tmpfs.keys().map(String::as_str))
            .any(|other| other.trim_end_matches('/') == target)
    };
    refuse(
        !image.volumes.iter().all(covered),
        "volumes declared by the image (mount something on them)",
    );
    refuse(
        host.binds.iter().any(|bind| !bind.source.starts_with('/')),
        "HostConfig.Binds with a volume name",
    );
    for mount in &host.mounts {
        refuse(
            !matches!(mount.kind.as_str(), "bind" | "tmpfs"),
            &format!("HostConfig.Mounts of type {}", mount.kind),
        );
        for option in &mount.unsupported {
            refuse(true, &format!("HostConfig.Mounts.{option}"));
        }
    }
    refuse(host.restart.is_set(), "HostConfig.RestartPolicy");
    let health = |test: &[String]| !test.is_empty() && test[0] != "NONE";
    refuse(
        spec.healthcheck.as_ref().is_some_and(|h| health(&h.test)),
        "Healthcheck",
    );
    refuse(
        image.healthcheck.as_ref().is_some_and(|h| health(&h.test)) && spec.healthcheck.is_none(),
        "the image's Healthcheck",
    );
    refuse(!host.devices.is_empty(), "HostConfig.Devices");
    refuse(
        !host.device_cgroup_rules.is_empty(),
        "HostConfig.DeviceCgroupRules",
    );
    refuse(
        !matches!(host.runtime.as_str(), "" | "berth"),
        "HostConfig.Runtime",
    );
    refuse(!host.storage_opt.is_empty(), "HostConfig.StorageOpt");
    refuse(!host.annotations.is_empty(), "HostConfig.Annotations");
    refuse(
        !matches!(host.log.driver.as_str(), "" | "json-file" | "none"),
        &format!("the log driver {}", host.log.driver),
    );
    refuse(
        !host.log.options.is_empty(),
        "HostConfig.LogConfig.Config (log options)",
    );
    refuse(
        !matches!(host.userns_mode.as_str(), "" | "host"),
        "HostConfig.UsernsMode",
    );
    refuse(!host.cgroup_parent.is_empty(), "HostConfig.CgroupParent");
    refuse(
        host.oom_kill_disable,
        "HostConfig.OomKillDisable (cgroup v2 has no such switch)",
    );
    refuse(host.resources.blkio_weight != 0, "HostConfig.BlkioWeight");
    refuse(host.resources.kernel_memory != 0, "HostConfig.KernelMemory");
    refuse(
        host.resources.memory_swappiness.is_some_and(|s| s >= 0),
        "HostConfig.MemorySwappiness (cgroup v2 has no such switch)",
    );
    refuse(
        !matches!(host.isolation.as_str(), "" | "default"),
        "HostConfig.Isolation",
    );
    for (mode, field) in [
        (&host.pid_mode, "PidMode"),
        (&host.ipc_mode, "IpcMode"),
        (&host.uts_mode, "UTSMode"),
        (&host.cgroupns_mode, "CgroupnsMode"),
    ] {
        refuse(
            mode.starts_with("container:"),
            &format!("HostConfig.{field} of another container"),
        );
    }
    if fields.is_empty() {
        return Ok(());
    }
    fields.dedup();
    Err(
        Error::unsupported(format!("not supported yet: {}", fields.join(", ")))
            .about(Subject::Container),
    )
}

/// Checks what becomes lines of the container's name files: a value that is none would forge others.
pub(crate) fn check_names(spec: &ContainerSpec) -> Result<()> {
    /// What the kernel keeps of a host name (uts_namespaces(7)).
    const NAME_MAX: usize = 64;
    let is_name = |name: &str| {
        name.len() <= NAME_MAX
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    for (value, what) in [
        (&spec.hostname, "hostname"),
        (&spec.domainname, "domainname"),
    ] {
        if !is_name(value) {
            return Err(invalid(format!("invalid {what}: {value:?}")));
        }
    }
    let wrong = |e: berth_network::Error| invalid(e.to_string());
    if let Some(mac) = spec.mac_address.as_deref().filter(|mac| !mac.is_empty()) {
        mac.parse::<berth_network::Mac>().map_err(wrong)?;
    }
    for text in &spec.host.extra_hosts {
        hostfiles::ExtraHost::parse(text).map_err(wrong)?;
    }
    let overrides = hostfiles::Overrides {
        servers: &spec.host.dns,
        search: &spec.host.dns_search,
        options: &spec.host.dns_options,
    };
    hostfiles::resolv_conf("", None, overrides)
        .map(drop)
        .map_err(wrong)
}

/// Whose network the container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NetworkMode {
    Bridge,
    Host,
    None,
    /// Another container, by reference.
    Container(String),
}

pub(crate) fn network_mode(spec: &ContainerSpec) -> Result<NetworkMode> {
    if spec.network_disabled {
        return Ok(NetworkMode::None);
    }
    match spec.host.network_mode.as_str() {
        "" | "default" | "bridge" => Ok(NetworkMode::Bridge),
        "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        other => match other.strip_prefix("container:") {
            Some("") => Err(invalid(
                "invalid network mode: container: needs a container",
            )),
            Some(reference) => Ok(NetworkMode::Container(reference.to_owned())),
            None => Err(Error::unsupported(format!(
                "networks other than bridge, host and none are not supported yet: {other}"
            ))
            .about(Subject::Network)),
        },
    }
}

/// The mounts of a container as inspect shows them.
pub(crate) fn mount_points(spec: &ContainerSpec) -> Vec<MountPoint> {
    let mut points: BTreeMap<String, MountPoint> = BTreeMap::new();
    let propagation = |asked: &str| {
        if asked.is_empty() {
            "rprivate".to_owned()
        } else {
            asked.to_owned()
        }
    };
    for bind in &spec.host.binds {
        points.insert(
            bind.target.clone(),
            MountPoint {
                kind: "bind".into(),
                source: bind.source.clone(),
                destination: bind.target.clone(),
                mode: bind.mode.clone(),
                rw: !bind.read_only,
                propagation: propagation(&bind.propagation),
            },
        );
    }
    for mount in &spec.host.mounts {
        points.insert(
            mount.target.clone(),
            MountPoint {
                kind: mount.kind.clone(),
                source: mount.source.clone(),
                destination: mount.target.clone(),
                mode: String::new(),
                rw: !mount.read_only,
                propagation: if mount.kind == "bind" {
                    propagation(&mount.propagation)
                } else {
                    String::new()
                },
            },
        );
    }
    points.into_values().collect()
}

/// Number of the stop signal; SIGTERM when none is named. Names were checked at create.
pub(crate) fn stop_signal(config: &EffectiveConfig) -> i32 {
    config
        .stop_signal
        .as_deref()
        .and_then(|name| signal::parse(name).ok())
        .unwrap_or(15)
}

/// Milliseconds of grace; negative = for ever.
pub(crate) fn grace_ms(asked: Option<i64>, spec: &ContainerSpec) -> i64 {
    match asked.or(spec.stop_timeout).unwrap_or(DEFAULT_STOP_TIMEOUT) {
        seconds if seconds < 0 => -1,
        seconds => seconds.saturating_mul(1000),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::invalid(message).about(Subject::Container)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef";

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    fn image() -> ContainerDefaults {
        ContainerDefaults {
            env: strings(&["PATH=/bin", "A=1", "junk", "=x"]),
            cmd: Some(strings(&["sh"])),
            entrypoint: Some(strings(&["/entry"])),
            ..ContainerDefaults::default()
        }
    }

    #[test]
    fn command_and_entrypoint_merge_as_dockers() {
        let argv = |entrypoint: Option<&[&str]>, cmd: Option<&[&str]>| {
            let spec = ContainerSpec {
                entrypoint: entrypoint.map(strings),
                cmd: cmd.map(strings),
                ..ContainerSpec::default()
            };
            merge(&spec, &image(), ID).map(|c| c.argv())
        };
        assert_eq!(argv(None, None).expect("defaults"), ["/entry", "sh"]);
        assert_eq!(argv(None, Some(&["ls"])).expect("cmd"), ["/entry", "ls"]);
        assert_eq!(argv(Some(&["/mine"]), None).expect("entrypoint"), ["/mine"]);
        assert_eq!(argv(Some(&[""]), Some(&["ls"])).expect("cleared"), ["ls"]);
        assert!(argv(Some(&[""]), None).is_err());
    }

    #[test]
    fn the_environment_is_the_images_then_the_requests() {
        let spec = ContainerSpec {
            env: strings(&["A=2", "B=", "PATH"]),
            ..ContainerSpec::default()
        };
        assert_eq!(
            merge(&spec, &image(), ID).expect("merged").env,
            ["A=2", "B="]
        );
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        let mut spec = ContainerSpec::default();
        assert!(refuse_unsupported(&spec, &ContainerDefaults::default()).is_ok());
        spec.host.publish_all_ports = true;
        spec.host.restart.name = "always".into();
        let error = refuse_unsupported(&spec, &ContainerDefaults::default()).expect_err("refused");
        assert_eq!(error.kind(), crate::Kind::Unsupported);
        assert!(
            error.to_string().contains("PublishAllPorts")
                && error.to_string().contains("RestartPolicy")
        );
    }
}
