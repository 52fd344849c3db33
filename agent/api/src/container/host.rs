//! Reading a `HostConfig`: how the host serves a container. Comes with create, and until API 1.23
//! with start.

use berth_engine::{
    Device, Error, HostSpec, LogConfig, PortBinding, Resources, RestartPolicy, Result, Ulimit,
};

use super::binds::{self, Short};
use super::mounts;
use crate::fields::Fields;
use crate::version::ApiVersion;

/// What a `HostConfig` asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostRequest {
    pub host: HostSpec,
    /// Mount points of anonymous volumes, which the short form of a mount may ask for.
    pub volumes: Vec<String>,
    /// Fields that say something and are not modelled.
    pub unsupported: Vec<String>,
}

/// Bounds of CPU shares before 1.19, when values outside were corrected in silence.
const SHARES: (i64, i64) = (2, 262_144);

/// Reads the whole object.
pub(super) fn read(mut fields: Fields, version: ApiVersion) -> Result<HostRequest> {
    let mut request = HostRequest::default();
    for text in fields.list("Binds")? {
        match binds::parse(&text)? {
            Short::Bind(bind) => request.host.binds.push(bind),
            Short::Volume(target) => request.volumes.push(target),
        }
    }
    let host = &mut request.host;
    for mount in fields.objects("Mounts")? {
        host.mounts.push(mounts::read(mount, version)?);
    }
    host.tmpfs = fields.pairs("Tmpfs")?;
    host.volumes_from = fields.list("VolumesFrom")?;
    host.volume_driver = fields.text("VolumeDriver")?;
    host.storage_opt = fields.pairs("StorageOpt")?;

    host.network_mode = fields.text("NetworkMode")?;
    host.ipc_mode = fields.text("IpcMode")?;
    host.pid_mode = fields.text("PidMode")?;
    host.uts_mode = fields.text("UTSMode")?;
    host.cgroupns_mode = fields.text("CgroupnsMode")?;
    host.userns_mode = fields.text("UsernsMode")?;
    host.port_bindings = ports(&mut fields)?;
    host.publish_all_ports = fields.flag("PublishAllPorts")?;
    host.links = fields.list("Links")?;
    host.extra_hosts = fields.list("ExtraHosts")?;
    host.dns = fields.list("Dns")?;
    host.dns_search = fields.list("DnsSearch")?;
    host.dns_options = fields.list("DnsOptions")?;

    host.privileged = fields.flag("Privileged")?;
    host.cap_add = fields.words("CapAdd")?.unwrap_or_default();
    host.cap_drop = fields.words("CapDrop")?.unwrap_or_default();
    host.group_add = fields.list("GroupAdd")?;
    host.security_opt = fields.list("SecurityOpt")?;
    host.read_only = fields.flag("ReadonlyRootfs")?;
    host.masked_paths = fields.opt_list("MaskedPaths")?;
    host.readonly_paths = fields.opt_list("ReadonlyPaths")?;
    host.sysctls = fields.pairs("Sysctls")?;
    for mut entry in fields.objects("Ulimits")? {
        host.ulimits.push(Ulimit {
            name: entry.text("Name")?,
            soft: entry.int("Soft")?,
            hard: entry.int("Hard")?,
        });
        entry.rest(&mut request.unsupported);
    }
    for mut entry in fields.objects("Devices")? {
        host.devices.push(Device {
            path_on_host: entry.text("PathOnHost")?,
            path_in_container: entry.text("PathInContainer")?,
            permissions: entry.text("CgroupPermissions")?,
        });
        entry.rest(&mut request.unsupported);
    }
    host.device_cgroup_rules = fields.list("DeviceCgroupRules")?;

    host.init = fields.opt_flag("Init")?;
    host.shm_size = fields.small("ShmSize")?.filter(|n| *n > 0);
    host.cgroup_parent = fields.text("CgroupParent")?;
    host.runtime = fields.text("Runtime")?;
    host.isolation = fields.text("Isolation")?;
    host.container_id_file = fields.text("ContainerIDFile")?;
    host.oom_score_adj = fields.opt_int("OomScoreAdj")?.filter(|n| *n != 0);
    host.oom_kill_disable = fields.flag("OomKillDisable")?;
    // Until 1.24 whoever asked for it removed the container itself.
    host.auto_remove = fields.flag("AutoRemove")? && version.at_least(25);
    let annotations = fields.pairs("Annotations")?;
    if version.at_least(43) {
        host.annotations = annotations;
    }
    let console = console(&mut fields)?;
    if version.at_least(42) {
        host.console_size = console;
    }
    if let Some(mut policy) = fields.object("RestartPolicy")? {
        host.restart = RestartPolicy {
            name: policy.text("Name")?,
            maximum_retry_count: policy.int("MaximumRetryCount")?,
        };
        policy.rest(&mut request.unsupported);
    }
    if let Some(mut log) = fields.object("LogConfig")? {
        host.log = LogConfig {
            driver: log.text("Type")?,
            options: log.pairs("Config")?,
        };
        log.rest(&mut request.unsupported);
    }
    host.resources = resources(&mut fields, version)?;
    fields.rest(&mut request.unsupported);
    Ok(request)
}

fn resources(fields: &mut Fields, version: ApiVersion) -> Result<Resources> {
    let shares = fields.int("CpuShares")?;
    let corrected = !version.at_least(19) && shares != 0;
    // The list of CPUs had a shorter name once.
    let cpuset = fields.word("Cpuset")?.filter(|_| !version.at_least(24));
    let kernel_memory = fields.int("KernelMemory")?;
    Ok(Resources {
        memory: fields.int("Memory")?,
        memory_swap: fields.int("MemorySwap")?,
        memory_reservation: fields.int("MemoryReservation")?,
        // −1 is the command line's word for "not given".
        memory_swappiness: fields.opt_int("MemorySwappiness")?.filter(|n| *n != -1),
        kernel_memory: if version.at_least(42) {
            0
        } else {
            kernel_memory
        },
        cpu_shares: if corrected {
            shares.clamp(SHARES.0, SHARES.1)
        } else {
            shares
        },
        nano_cpus: fields.int("NanoCpus")?,
        cpu_period: fields.int("CpuPeriod")?,
        cpu_quota: fields.int("CpuQuota")?,
        cpuset_cpus: fields.word("CpusetCpus")?.or(cpuset).unwrap_or_default(),
        cpuset_mems: fields.text("CpusetMems")?,
        // Both 0 and −1 mean no limit.
        pids_limit: fields.opt_int("PidsLimit")?.filter(|n| *n > 0),
        blkio_weight: fields.small("BlkioWeight")?.unwrap_or_default(),
    })
}

/// `{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}`, flattened. A port with `null` or no bindings
/// publishes nothing.
fn ports(fields: &mut Fields) -> Result<Vec<PortBinding>> {
    let mut bindings = Vec::new();
    let Some(serde_json::Value::Object(map)) = fields.take("PortBindings") else {
        return Ok(bindings);
    };
    for (port, list) in map {
        let container_port = port_with_proto(&port);
        let mut holder = serde_json::Map::new();
        holder.insert(port.clone(), list);
        let mut holder = Fields::at("HostConfig.PortBindings", holder);
        for mut entry in holder.objects(&port)? {
            bindings.push(PortBinding {
                container_port: container_port.clone(),
                host_ip: entry.text("HostIp")?,
                host_port: entry.text("HostPort")?,
            });
        }
    }
    Ok(bindings)
}

/// A port without a protocol is a TCP port.
pub(super) fn port_with_proto(port: &str) -> String {
    if port.contains('/') {
        port.to_owned()
    } else {
        format!("{port}/tcp")
    }
}

/// `[height, width]`; `[0, 0]` is nothing.
fn console(fields: &mut Fields) -> Result<Option<(u16, u16)>> {
    let Some(value) = fields.take("ConsoleSize") else {
        return Ok(None);
    };
    let fail = || {
        Error::invalid("invalid JSON: HostConfig.ConsoleSize must be two numbers, height and width")
    };
    let list = value.as_array().filter(|l| l.len() <= 2).ok_or_else(fail)?;
    let mut sizes = [0; 2];
    for (size, value) in sizes.iter_mut().zip(list) {
        *size = value
            .as_u64()
            .and_then(|n| u16::try_from(n).ok())
            .ok_or_else(fail)?;
    }
    Ok(Some((sizes[0], sizes[1])).filter(|s| *s != (0, 0)))
}
