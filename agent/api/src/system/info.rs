//! `GET /info`

use berth_engine::Info;
use serde_json::{Map, Value, json};

use super::kernel_arch;
use crate::container::inspect::EXEC_DRIVER;
use crate::shape::{Span, keep, object};
use crate::version::ApiVersion;

/// Since and until when each field is shown; the rest is as old as the API.
const SPANS: &[Span] = &[
    ("ContainersRunning", 22, 0),
    ("ContainersPaused", 22, 0),
    ("ContainersStopped", 22, 0),
    ("ExecutionDriver", 0, 24),
    ("InitSha1", 0, 17),
    ("InitPath", 0, 17),
    ("OperatingSystem", 13, 0),
    ("ID", 16, 0),
    ("NCPU", 16, 0),
    ("MemTotal", 16, 0),
    ("Name", 16, 0),
    ("Labels", 16, 0),
    ("DockerRootDir", 17, 0),
    ("SystemTime", 18, 0),
    ("HttpProxy", 18, 0),
    ("HttpsProxy", 18, 0),
    ("NoProxy", 18, 0),
    ("RegistryConfig", 18, 0),
    ("CpuCfsPeriod", 19, 0),
    ("CpuCfsQuota", 19, 0),
    ("OomKillDisable", 19, 0),
    ("LoggingDriver", 19, 0),
    ("ExperimentalBuild", 19, 0),
    ("CPUShares", 21, 0),
    ("CPUSet", 21, 0),
    ("Plugins", 21, 0),
    ("ServerVersion", 21, 0),
    ("OSType", 22, 0),
    ("Architecture", 22, 0),
    ("CgroupDriver", 23, 0),
    ("Runtimes", 24, 0),
    ("DefaultRuntime", 24, 0),
    ("Swarm", 24, 0),
    ("LiveRestoreEnabled", 24, 0),
    ("SecurityOptions", 24, 0),
    ("Isolation", 25, 0),
    ("InitBinary", 25, 0),
    ("ContainerdCommit", 25, 0),
    ("RuncCommit", 25, 0),
    ("InitCommit", 25, 0),
    ("GenericResources", 30, 0),
    ("Warnings", 39, 0),
    ("PidsLimit", 40, 0),
    ("OSVersion", 41, 0),
    ("CgroupVersion", 41, 0),
    ("DefaultAddressPools", 41, 0),
    ("CDISpecDirs", 44, 0),
];

/// Booleans that were 1 and 0 until 1.18.
const OLD_NUMBERS: &[&str] = &["Debug", "MemoryLimit", "SwapLimit", "IPv4Forwarding"];

/// The whole answer.
pub fn info(info: &Info, agent_version: &str, version: ApiVersion) -> Value {
    let status: Vec<Value> = info
        .driver_status
        .iter()
        .map(|(key, value)| json!([key, value]))
        .collect();
    let mut map = object(json!({
        "ID": info.id,
        "Containers": info.containers,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": info.driver,
        "DriverStatus": if status.is_empty() { Value::Null } else { Value::Array(status) },
        "ExecutionDriver": EXEC_DRIVER,
        "InitSha1": "",
        "InitPath": "",
        "Plugins": {
            "Volume": null, "Network": ["bridge", "host", "null"], "Authorization": null, "Log": [info.logging_driver],
        },
        "MemoryLimit": info.memory_limit,
        "SwapLimit": info.swap_limit,
        "CpuCfsPeriod": info.cpu_cfs,
        "CpuCfsQuota": info.cpu_cfs,
        "CPUShares": info.cpu_shares,
        "CPUSet": info.cpuset,
        "PidsLimit": info.pids_limit,
        "IPv4Forwarding": info.ipv4_forwarding,
    }));
    map.append(&mut object(json!({
        "Debug": false,
        "NFd": info.open_descriptors,
        "OomKillDisable": info.oom_kill_disable,
        "NGoroutines": 0,
        "SystemTime": info.system_time,
        "LoggingDriver": info.logging_driver,
        "CgroupDriver": info.cgroup_driver,
        "CgroupVersion": "2",
        "NEventsListener": info.event_listeners,
        "KernelVersion": info.kernel_version,
        "OperatingSystem": info.operating_system,
        "OSVersion": info.os_version,
        "OSType": "linux",
        "Architecture": kernel_arch(&info.architecture),
        "IndexServerAddress": "",
        "RegistryConfig": { "InsecureRegistryCIDRs": [], "IndexConfigs": {}, "Mirrors": null },
        "NCPU": info.cpus,
        "MemTotal": info.memory,
        "GenericResources": null,
        "DockerRootDir": info.data_root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": info.hostname,
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": agent_version,
    })));
    map.append(&mut object(json!({
        "Runtimes": { EXEC_DRIVER: { "path": "berth-monitor" } },
        "DefaultRuntime": EXEC_DRIVER,
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null,
        },
        // Containers never end with the agent.
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "berth-monitor",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
        "SecurityOptions": info.security_options,
        "DefaultAddressPools": null,
        "CDISpecDirs": [],
        "Warnings": if info.warnings.is_empty() { Value::Null } else { json!(info.warnings) },
    })));
    keep(&mut map, SPANS, version);
    if !version.at_least(19) {
        old_numbers(&mut map);
    }
    if version.at_least(24) && !version.at_least(25) {
        old_security_options(&mut map);
    }
    Value::Object(map)
}

fn old_numbers(map: &mut Map<String, Value>) {
    for key in OLD_NUMBERS {
        if let Some(value) = map.get_mut(*key) {
            *value = json!(u8::from(value.as_bool().unwrap_or_default()));
        }
    }
}

/// 1.24 knew names alone: `seccomp` for what is `name=seccomp,profile=builtin` since.
fn old_security_options(map: &mut Map<String, Value>) {
    if let Some(Value::Array(options)) = map.get_mut("SecurityOptions") {
        for option in options {
            let name = option
                .as_str()
                .and_then(|o| o.split(',').find_map(|part| part.strip_prefix("name=")));
            if let Some(name) = name {
                *option = json!(name);
            }
        }
    }
}
