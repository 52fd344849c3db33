//! `GET /containers/{id}/json`: one container in full. From 1.13 to 1.51 the object grew; until
//! 1.11 the id had another key, until 1.19 volumes were two maps instead of a list of mounts.

use berth_engine::{Container, Status};
use serde_json::{Map, Value, json};

use super::{config_view, host_view, list, network_view};
use crate::shape::{Span, image_id, keep, nil_list, object};
use crate::version::ApiVersion;

const SPANS: &[Span] = &[
    ("LogPath", 17, 0),
    ("RestartCount", 17, 0),
    ("AppArmorProfile", 17, 0),
    ("ExecIDs", 17, 0),
    ("ExecDriver", 0, 22),
    ("Volumes", 0, 20),
    ("VolumesRW", 0, 20),
    ("Mounts", 20, 0),
    ("GraphDriver", 21, 0),
    ("Platform", 32, 0),
    ("HostConfig", 8, 0),
];

const STATE_SPANS: &[Span] = &[
    ("Status", 21, 0),
    ("Restarting", 14, 0),
    ("OOMKilled", 17, 0),
    ("Dead", 19, 0),
    ("Error", 17, 0),
];

/// The whole answer; sizes are shown where the engine measured them.
pub fn body(container: &Container, version: ApiVersion) -> Value {
    let argv = container.config.argv();
    let (path, args) = argv
        .split_first()
        .map_or(("", &[][..]), |(path, args)| (path.as_str(), args));
    let mut map = object(json!({
        "Id": container.id,
        "Created": container.created,
        "Path": path,
        "Args": args,
        "State": state(container, version),
        "Image": image_id(&container.image, version),
        "ResolvConfPath": container.resolv_conf_path,
        "HostnamePath": container.hostname_path,
        "HostsPath": container.hosts_path,
        "LogPath": container.log_path,
        "Name": format!("/{}", container.name),
        "RestartCount": container.restart_count,
        "Driver": container.driver,
        "ExecDriver": EXEC_DRIVER,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_view::view(container, version),
        "GraphDriver": { "Data": null, "Name": container.driver },
    }));
    if let Some(size) = container.size_rw {
        map.insert("SizeRw".into(), json!(size));
    }
    if let Some(size) = container.size_root_fs {
        map.insert("SizeRootFs".into(), json!(size));
    }
    let (volumes, writable) = volumes(container);
    map.append(&mut object(json!({
        "Mounts": container.mounts.iter().map(list::mount).collect::<Vec<_>>(),
        "Volumes": volumes,
        "VolumesRW": writable,
        "Config": config_view::view(container, version),
        "NetworkSettings": network_view::settings(container, version),
    })));
    keep(&mut map, SPANS, version);
    if !version.at_least(13) {
        map.insert("Args".into(), nil_list(args));
    }
    if !version.at_least(12) {
        let id = map.shift_remove("Id").unwrap_or_default();
        map.shift_insert(0, "ID".into(), id);
    }
    Value::Object(map)
}

/// The name under which versions before 1.22 see what runs the containers.
pub(crate) const EXEC_DRIVER: &str = "berth";

fn state(container: &Container, version: ApiVersion) -> Value {
    let state = &container.state;
    let status = state.status;
    let mut map = object(json!({
        "Status": list::state_word(status, version),
        "Running": status.is_live(),
        "Paused": status == Status::Paused,
        "Restarting": status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }));
    // A container between two runs counts as running, so that `docker stop` ends the cycle.
    if status == Status::Restarting {
        map.insert("Running".into(), Value::Bool(true));
    }
    keep(&mut map, STATE_SPANS, version);
    Value::Object(map)
}

/// The two maps of old: container path to host path, and container path to whether it is writable.
fn volumes(container: &Container) -> (Map<String, Value>, Map<String, Value>) {
    let mounts = container.mounts.iter().filter(|m| m.kind != "tmpfs");
    mounts
        .map(|m| {
            (
                (m.destination.clone(), json!(m.source)),
                (m.destination.clone(), json!(m.rw)),
            )
        })
        .unzip()
}

#[cfg(test)]
mod tests;
