//! `GET /containers/json`

use berth_engine::{Container, MountPoint, Status};
use berth_model::duration;
use berth_model::time::Timestamp;
use serde_json::{Value, json};

use super::network_view;
use crate::shape::{Span, image_id, keep, object};
use crate::version::ApiVersion;

const SPANS: &[Span] = &[
    ("ImageID", 21, 0),
    ("Labels", 18, 0),
    ("State", 23, 0),
    ("HostConfig", 20, 0),
    ("NetworkSettings", 22, 0),
    ("Mounts", 23, 0),
];

/// The whole answer; sizes are shown where the engine measured them.
pub fn body(containers: &[Container], now: Timestamp, version: ApiVersion) -> Value {
    containers
        .iter()
        .map(|c| element(c, now, version))
        .collect()
}

fn element(container: &Container, now: Timestamp, version: ApiVersion) -> Value {
    let mut map = object(json!({
        "Id": container.id,
        "Names": [format!("/{}", container.name)],
        "Image": container.image_ref,
        "ImageID": image_id(&container.image, version),
        "Command": command(&container.config.argv(), version),
        "Created": container.created.secs(),
        "Ports": network_view::listed_ports(container, version),
        "Labels": container.config.labels,
        "State": state_word(container.state.status, version),
        "Status": status_text(container, now, version),
        "HostConfig": { "NetworkMode": network_view::mode(container) },
        "NetworkSettings": { "Networks": network_view::networks(container, version) },
        "Mounts": container.mounts.iter().map(mount).collect::<Vec<_>>(),
    }));
    if version.at_least(46) && !container.spec.host.annotations.is_empty() {
        map["HostConfig"]["Annotations"] = json!(container.spec.host.annotations);
    }
    if let Some(size) = container.size_rw {
        map.insert("SizeRw".into(), json!(size));
    }
    if let Some(size) = container.size_root_fs {
        map.insert("SizeRootFs".into(), json!(size));
    }
    keep(&mut map, SPANS, version);
    Value::Object(map)
}

/// One entry of `Mounts`, here and in inspect.
pub(super) fn mount(mount: &MountPoint) -> Value {
    json!({
        "Type": mount.kind,
        "Source": mount.source,
        "Destination": mount.destination,
        "Mode": mount.mode,
        "RW": mount.rw,
        "Propagation": mount.propagation,
    })
}

/// The state's word: before 1.25 a container that is being removed read as exited.
pub(super) fn state_word(status: Status, version: ApiVersion) -> &'static str {
    match status {
        Status::Removing if !version.at_least(25) => Status::Exited.as_str(),
        status => status.as_str(),
    }
}

/// The command on one line: words with blanks in single quotes. Until 1.18 the whole came in double
/// quotes; since then the client adds them.
fn command(argv: &[String], version: ApiVersion) -> String {
    let mut words = argv.iter();
    let mut text = words.next().cloned().unwrap_or_default();
    for word in words {
        text.push(' ');
        if word.contains(' ') {
            text.push('\'');
            text.push_str(word);
            text.push('\'');
        } else {
            text.push_str(word);
        }
    }
    if version.at_least(19) {
        text
    } else {
        format!("\"{text}\"")
    }
}

/// What people read about the state: `Up 5 seconds`, `Exited (0) 3 minutes ago`. A container that
/// was never started had no text before 1.17.
pub fn status_text(container: &Container, now: Timestamp, version: ApiVersion) -> String {
    let state = &container.state;
    let ago = |at: Timestamp| duration::human(now.since(at));
    match state.status {
        Status::Running => format!("Up {}", ago(state.started_at)),
        Status::Paused => format!("Up {} (Paused)", ago(state.started_at)),
        Status::Restarting => format!(
            "Restarting ({}) {} ago",
            state.exit_code,
            ago(state.finished_at)
        ),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created | Status::Exited if state.started_at.is_zero() => {
            if version.at_least(17) {
                "Created".to_owned()
            } else {
                String::new()
            }
        }
        Status::Created => "Created".to_owned(),
        Status::Exited if state.finished_at.is_zero() => String::new(),
        Status::Exited => format!(
            "Exited ({}) {} ago",
            state.exit_code,
            ago(state.finished_at)
        ),
    }
}

#[cfg(test)]
mod tests;
