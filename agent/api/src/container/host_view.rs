//! The `HostConfig` as inspect shows it: what was asked, with the defaults that hold filled in.

use berth_engine::{Container, HostSpec};
use serde_json::{Map, Value, json};

use super::{binds, mounts, network_view};
use crate::shape::{Span, keep, nil_list, object, omit_empty};
use crate::version::ApiVersion;

/// Bytes of `/dev/shm` where nothing was asked.
const SHM_SIZE: u64 = 64 * 1024 * 1024;

/// Since and until when each field is shown.
const SPANS: &[Span] = &[
    ("LxcConf", 0, 22),
    ("RestartPolicy", 14, 0),
    ("CapAdd", 14, 0),
    ("CapDrop", 14, 0),
    ("Devices", 14, 0),
    ("ExtraHosts", 15, 0),
    ("IpcMode", 16, 0),
    ("SecurityOpt", 17, 0),
    ("ReadonlyRootfs", 17, 0),
    ("PidMode", 17, 0),
    ("LogConfig", 18, 0),
    ("Ulimits", 18, 0),
    ("CgroupParent", 18, 0),
    ("Memory", 18, 0),
    ("MemorySwap", 18, 0),
    ("CpuShares", 18, 0),
    ("CpusetCpus", 18, 0),
    ("CpusetMems", 19, 0),
    ("CpuPeriod", 19, 0),
    ("CpuQuota", 19, 0),
    ("BlkioWeight", 19, 0),
    ("OomKillDisable", 19, 0),
    ("UTSMode", 19, 0),
    ("GroupAdd", 20, 0),
    ("MemorySwappiness", 20, 0),
    ("VolumeDriver", 21, 0),
    ("KernelMemory", 21, 42),
    ("MemoryReservation", 21, 0),
    ("DnsOptions", 21, 0),
    ("ConsoleSize", 21, 0),
    ("OomScoreAdj", 22, 0),
    ("Tmpfs", 22, 0),
    ("ShmSize", 22, 0),
    ("BlkioWeightDevice", 22, 0),
    ("BlkioDeviceReadBps", 22, 0),
    ("BlkioDeviceWriteBps", 22, 0),
    ("BlkioDeviceReadIOps", 22, 0),
    ("BlkioDeviceWriteIOps", 22, 0),
    ("Isolation", 22, 0),
    ("Cgroup", 22, 0),
    ("PidsLimit", 23, 0),
    ("UsernsMode", 23, 0),
    ("StorageOpt", 24, 0),
    ("Sysctls", 24, 0),
    ("Runtime", 24, 0),
    ("CpuCount", 24, 0),
    ("CpuPercent", 24, 0),
    ("IOMaximumIOps", 24, 0),
    ("IOMaximumBandwidth", 24, 0),
    ("AutoRemove", 25, 0),
    ("NanoCpus", 25, 0),
    ("CpuRealtimePeriod", 25, 0),
    ("CpuRealtimeRuntime", 25, 0),
    ("Init", 25, 0),
    ("Mounts", 25, 0),
    ("DeviceCgroupRules", 28, 0),
    ("MaskedPaths", 38, 0),
    ("ReadonlyPaths", 38, 0),
    ("DeviceRequests", 40, 0),
    ("CgroupnsMode", 41, 0),
    ("Annotations", 43, 0),
];

/// Fields that are left out when empty.
const OMITTED: &[&str] = &[
    "Annotations",
    "StorageOpt",
    "Tmpfs",
    "Sysctls",
    "Runtime",
    "Init",
    "Mounts",
];

pub(super) fn view(container: &Container, version: ApiVersion) -> Value {
    let host = &container.spec.host;
    let mut map = object(json!({
        "Binds": nil_list(&host.binds.iter().map(binds::format).collect::<Vec<_>>()),
        "ContainerIDFile": host.container_id_file,
        "LxcConf": null,
        "LogConfig": { "Type": or(&host.log.driver, "json-file"), "Config": host.log.options },
        "NetworkMode": network_view::mode(container),
        "PortBindings": port_bindings(host),
        "RestartPolicy": {
            "Name": or(&host.restart.name, "no"), "MaximumRetryCount": host.restart.maximum_retry_count,
        },
        "AutoRemove": host.auto_remove,
        "VolumeDriver": host.volume_driver,
        "VolumesFrom": nil_list(&host.volumes_from),
        "ConsoleSize": host.console_size.map_or([0, 0], |(height, width)| [height, width]),
        "Annotations": host.annotations,
        "CapAdd": nil_list(&host.cap_add),
        "CapDrop": nil_list(&host.cap_drop),
        "CgroupnsMode": or(&host.cgroupns_mode, "private"),
        "Dns": host.dns,
        "DnsOptions": host.dns_options,
        "DnsSearch": host.dns_search,
        "ExtraHosts": nil_list(&host.extra_hosts),
        "GroupAdd": nil_list(&host.group_add),
        "IpcMode": or(&host.ipc_mode, "private"),
        "Cgroup": "",
        "Links": nil_list(&host.links),
        "OomScoreAdj": host.oom_score_adj.unwrap_or_default(),
        "PidMode": host.pid_mode,
        "Privileged": host.privileged,
        "PublishAllPorts": host.publish_all_ports,
        "ReadonlyRootfs": host.read_only,
        "SecurityOpt": nil_list(&host.security_opt),
        "StorageOpt": host.storage_opt,
        "Tmpfs": host.tmpfs,
        "UTSMode": host.uts_mode,
        "UsernsMode": host.userns_mode,
        "ShmSize": host.shm_size.unwrap_or(SHM_SIZE),
        "Sysctls": host.sysctls,
        "Runtime": host.runtime,
        "Isolation": host.isolation,
    }));
    map.append(&mut resources(host));
    map.append(&mut object(json!({
        "Mounts": host.mounts.iter().map(mounts::view).collect::<Vec<_>>(),
        "Init": host.init,
        "MaskedPaths": host.masked_paths,
        "ReadonlyPaths": host.readonly_paths,
    })));
    omit_empty(&mut map, OMITTED);
    if host.init == Some(false) {
        map.insert("Init".into(), Value::Bool(false));
    }
    keep(&mut map, SPANS, version);
    if !version.at_least(13) {
        // Lists were written as null when empty, and so was the map of ports.
        for key in ["Dns", "DnsSearch", "PortBindings"] {
            if map.get(key).is_some_and(|v| {
                v.as_array().is_some_and(Vec::is_empty) || v.as_object().is_some_and(Map::is_empty)
            }) {
                map.insert(key.into(), Value::Null);
            }
        }
        map.shift_remove("DnsOptions");
    }
    Value::Object(map)
}

fn resources(host: &HostSpec) -> Map<String, Value> {
    let r = &host.resources;
    // As much swap as memory is what holds when only memory is limited.
    let swap = if r.memory > 0 && r.memory_swap == 0 {
        r.memory.saturating_mul(2)
    } else {
        r.memory_swap
    };
    let devices: Vec<Value> = host
        .devices
        .iter()
        .map(|d| {
            json!({
                "PathOnHost": d.path_on_host, "PathInContainer": d.path_in_container, "CgroupPermissions": d.permissions,
            })
        })
        .collect();
    let ulimits: Vec<Value> = host
        .ulimits
        .iter()
        .map(|u| json!({"Name": u.name, "Hard": u.hard, "Soft": u.soft}))
        .collect();
    object(json!({
        "CpuShares": r.cpu_shares,
        "Memory": r.memory,
        "NanoCpus": r.nano_cpus,
        "CgroupParent": host.cgroup_parent,
        "BlkioWeight": r.blkio_weight,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [],
        "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteIOps": [],
        "CpuPeriod": r.cpu_period,
        "CpuQuota": r.cpu_quota,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": r.cpuset_cpus,
        "CpusetMems": r.cpuset_mems,
        "Devices": devices,
        "DeviceCgroupRules": nil_list(&host.device_cgroup_rules),
        "DeviceRequests": null,
        "KernelMemory": r.kernel_memory,
        "MemoryReservation": r.memory_reservation,
        "MemorySwap": swap,
        "MemorySwappiness": r.memory_swappiness,
        "OomKillDisable": host.oom_kill_disable,
        "PidsLimit": r.pids_limit,
        "Ulimits": ulimits,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }))
}

fn port_bindings(host: &HostSpec) -> Value {
    let mut map = Map::new();
    for binding in &host.port_bindings {
        let list = map
            .entry(binding.container_port.clone())
            .or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json!({"HostIp": binding.host_ip, "HostPort": binding.host_port}));
        }
    }
    Value::Object(map)
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}
