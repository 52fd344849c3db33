//! `POST /containers/create`: the request in every version's spelling, and the answer.

use berth_engine::{ContainerSpec, Created, Error, Healthcheck, Result};
use serde_json::{Value, json};

use super::binds;
use super::host::{self, port_with_proto};
use crate::fields::{self, Fields};
use crate::version::ApiVersion;

/// A container to make.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateRequest {
    /// Without the leading slash. Whether it may be a name is for the engine to say.
    pub name: Option<String>,
    pub spec: ContainerSpec,
}

/// Reads a request: the `name` and `platform` parameters and the body. What it asks for and the
/// engine has no word for is named in `spec.unsupported`.
pub fn parse(
    name: Option<&str>,
    platform: Option<&str>,
    body: &[u8],
    version: ApiVersion,
) -> Result<CreateRequest> {
    let mut fields = fields::body(body, version)?;
    let mut spec = config(&mut fields)?;

    if let Some(mut inner) = fields.object("HostConfig")? {
        if !version.at_least(24) {
            old_places(&mut fields, &mut inner)?;
        }
        apply(&mut spec, host::read(inner, version)?);
    } else if !version.at_least(24) {
        let mut inner = Fields::at("HostConfig", serde_json::Map::new());
        old_places(&mut fields, &mut inner)?;
        apply(&mut spec, host::read(inner, version)?);
    }
    drop_covered_volumes(&mut spec);
    networking(&mut fields, &mut spec, version)?;
    if version.at_least(41) {
        check_platform(platform.unwrap_or_default(), &mut spec.unsupported)?;
    }
    fields.rest(&mut spec.unsupported);
    if let Some(check) = spec.healthcheck.as_mut().filter(|_| !version.at_least(44)) {
        check.start_interval = 0;
    }
    let name = name.unwrap_or_default();
    let name = name.strip_prefix('/').unwrap_or(name);
    Ok(CreateRequest {
        name: Some(name.to_owned()).filter(|n| !n.is_empty()),
        spec,
    })
}

/// The answer.
pub fn created(created: &Created, version: ApiVersion) -> Value {
    let warnings = if created.warnings.is_empty() && !version.at_least(24) {
        Value::Null
    } else {
        json!(created.warnings)
    };
    json!({ "Id": created.id, "Warnings": warnings })
}

/// The container's own part of the body, which an image has too.
fn config(fields: &mut Fields) -> Result<ContainerSpec> {
    let mut spec = ContainerSpec {
        image: fields.text("Image")?,
        hostname: fields.text("Hostname")?,
        domainname: fields.text("Domainname")?,
        user: fields.text("User")?,
        attach_stdin: fields.flag("AttachStdin")?,
        attach_stdout: fields.flag("AttachStdout")?,
        attach_stderr: fields.flag("AttachStderr")?,
        tty: fields.flag("Tty")?,
        open_stdin: fields.flag("OpenStdin")?,
        stdin_once: fields.flag("StdinOnce")?,
        env: fields.list("Env")?,
        cmd: fields.words("Cmd")?,
        entrypoint: fields.words("Entrypoint")?,
        working_dir: fields.text("WorkingDir")?,
        labels: fields.pairs("Labels")?,
        exposed_ports: fields
            .set("ExposedPorts")?
            .iter()
            .map(|p| port_with_proto(p))
            .collect(),
        stop_signal: fields.word("StopSignal")?,
        stop_timeout: fields.opt_int("StopTimeout")?,
        network_disabled: fields.flag("NetworkDisabled")?,
        mac_address: fields.word("MacAddress")?,
        healthcheck: healthcheck(fields)?,
        shell: fields.words("Shell")?,
        ..ContainerSpec::default()
    };
    for target in fields.set("Volumes")? {
        match binds::parse(&target)? {
            binds::Short::Volume(target) => spec.volumes.push(target),
            // `-v host:container` once came here when the client did not split it.
            binds::Short::Bind(bind) => spec.host.binds.push(bind),
        }
    }
    for port in fields.list("PortSpecs")? {
        let port = port_with_proto(port.rsplit(':').next().unwrap_or_default());
        if !spec.exposed_ports.contains(&port) {
            spec.exposed_ports.push(port);
        }
    }
    // Clients send the image's whole configuration back; these say nothing about a container.
    fields.ignore(&["OnBuild", "ArgsEscaped"]);
    Ok(spec)
}

fn healthcheck(fields: &mut Fields) -> Result<Option<Healthcheck>> {
    let Some(mut check) = fields.object("Healthcheck")? else {
        return Ok(None);
    };
    let read = Healthcheck {
        test: check.words("Test")?.unwrap_or_default(),
        interval: check.int("Interval")?,
        timeout: check.int("Timeout")?,
        start_period: check.int("StartPeriod")?,
        start_interval: check.int("StartInterval")?,
        retries: check.int("Retries")?,
    };
    Ok(Some(read).filter(|r| *r != Healthcheck::default()))
}

fn apply(spec: &mut ContainerSpec, request: host::HostRequest) {
    let early_binds = std::mem::take(&mut spec.host.binds);
    spec.host = request.host;
    spec.host.binds.extend(early_binds);
    for target in request.volumes {
        if !spec.volumes.contains(&target) {
            spec.volumes.push(target);
        }
    }
    spec.unsupported.extend(request.unsupported);
}

/// A mount covers an anonymous volume at the same target; some clients list the targets of all
/// mounts in `Volumes`.
fn drop_covered_volumes(spec: &mut ContainerSpec) {
    let host = &spec.host;
    spec.volumes.retain(|target| {
        !host.binds.iter().any(|b| b.target == *target)
            && !host
                .mounts
                .iter()
                .any(|m| binds::clean(&m.target) == *target)
            && !host.tmpfs.keys().any(|t| binds::clean(t) == *target)
    });
}

/// Settings that moved from the body into its `HostConfig`: limits with 1.18, the volume driver with
/// 1.21, name servers and volumes-from with 1.10. The new place wins.
fn old_places(fields: &mut Fields, inner: &mut Fields) -> Result<()> {
    for key in [
        "Memory",
        "MemorySwap",
        "CpuShares",
        "Cpuset",
        "CpusetCpus",
        "CpusetMems",
        "VolumeDriver",
        "Dns",
    ] {
        if let Some(value) = fields.take(key) {
            inner.put_if_silent(key, value);
        }
    }
    match fields.take("VolumesFrom") {
        Some(Value::String(list)) => {
            let list: Vec<&str> = list.split(',').filter(|p| !p.is_empty()).collect();
            inner.put_if_silent("VolumesFrom", json!(list));
        }
        Some(value) => inner.put_if_silent("VolumesFrom", value),
        None => {}
    }
    Ok(())
}

/// The settings of the network that the container joins. One network is known: the one that
/// `NetworkMode` names; clients list it here with everything empty.
fn networking(fields: &mut Fields, spec: &mut ContainerSpec, version: ApiVersion) -> Result<()> {
    let Some(mut networking) = fields.object("NetworkingConfig")? else {
        return Ok(());
    };
    let endpoints = networking.members("EndpointsConfig")?;
    networking.rest(&mut spec.unsupported);
    if endpoints.len() > 1 && !version.at_least(44) {
        let names: Vec<&str> = endpoints.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Error::invalid(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        )));
    }
    let main = match spec.host.network_mode.as_str() {
        "" | "default" => "bridge".to_owned(),
        mode => mode.to_owned(),
    };
    for (name, mut endpoint) in endpoints {
        let joined = if name == "default" {
            "bridge"
        } else {
            name.as_str()
        };
        // Before 1.44 the only entry was taken whatever it was called.
        if joined != main && version.at_least(44) {
            spec.unsupported
                .push(format!("NetworkingConfig.EndpointsConfig.{name}"));
            continue;
        }
        if joined != main {
            spec.host.network_mode.clone_from(&name);
        }
        let mac = endpoint.word("MacAddress")?;
        if version.at_least(44) {
            match (&spec.mac_address, mac) {
                (Some(general), Some(own)) if *general != own => {
                    return Err(Error::invalid(
                        "the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty",
                    ));
                }
                (None, Some(own)) => spec.mac_address = Some(own),
                _ => {}
            }
        }
        // What an inspect shows of a running container; clients send it back unread.
        endpoint.ignore(&[
            "NetworkID",
            "EndpointID",
            "Gateway",
            "IPAddress",
            "IPPrefixLen",
            "IPv6Gateway",
            "GlobalIPv6Address",
            "GlobalIPv6PrefixLen",
            "DNSNames",
        ]);
        endpoint.rest(&mut spec.unsupported);
    }
    Ok(())
}

/// `os[/arch[/variant]]`: what this host is needs no word from the engine, anything else does.
fn check_platform(platform: &str, unsupported: &mut Vec<String>) -> Result<()> {
    if platform.is_empty() {
        return Ok(());
    }
    let mut parts = platform.split('/');
    let (first, second) = (
        parts.next().unwrap_or_default().to_ascii_lowercase(),
        parts.next(),
    );
    let part_ok = |p: &str| {
        !p.is_empty()
            && p.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    if !platform.split('/').all(part_ok) || platform.split('/').count() > 3 {
        return Err(Error::invalid(format!(
            "{platform:?} is an invalid platform specifier"
        )));
    }
    // A lone word may be either an operating system or an architecture.
    let here = match second {
        None => first == "linux" || is_native(&first),
        Some(arch) => first == "linux" && is_native(&arch.to_ascii_lowercase()),
    };
    if !here {
        unsupported.push(format!("platform={platform}"));
    }
    Ok(())
}

fn is_native(arch: &str) -> bool {
    let go = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    };
    arch == go || arch == std::env::consts::ARCH
}

#[cfg(test)]
mod tests;
