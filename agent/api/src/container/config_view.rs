//! The container's own configuration as inspect shows it: the request merged over the image.

use berth_engine::Container;
use berth_model::image::config as image;
use serde_json::{Map, Value, json};

use crate::shape::{Span, keep, nil_list, nil_set, object, omit_empty};
use crate::version::ApiVersion;

/// Since and until when each field is shown. Limits were here until 1.19; from 1.20 on they are
/// in the `HostConfig` only.
const SPANS: &[Span] = &[
    ("Memory", 0, 20),
    ("MemorySwap", 0, 20),
    ("CpuShares", 0, 20),
    ("Cpuset", 0, 20),
    ("PortSpecs", 0, 20),
    ("VolumeDriver", 18, 21),
    ("MacAddress", 15, 0),
    ("Labels", 18, 0),
    ("StopSignal", 21, 0),
    ("StopTimeout", 25, 0),
    ("Healthcheck", 24, 0),
    ("Shell", 24, 0),
];

pub(super) fn view(container: &Container, version: ApiVersion) -> Value {
    let (spec, config, resources) = (
        &container.spec,
        &container.config,
        &container.spec.host.resources,
    );
    let mut map = object(json!({
        "Hostname": config.hostname,
        "Domainname": spec.domainname,
        "User": config.user,
        "Memory": resources.memory,
        "MemorySwap": resources.memory_swap,
        "CpuShares": resources.cpu_shares,
        "Cpuset": resources.cpuset_cpus,
        "AttachStdin": spec.attach_stdin,
        "AttachStdout": spec.attach_stdout,
        "AttachStderr": spec.attach_stderr,
        "PortSpecs": null,
        "ExposedPorts": nil_set(&config.exposed_ports),
        "Tty": spec.tty,
        "OpenStdin": spec.open_stdin,
        "StdinOnce": spec.stdin_once,
        "Env": if version.at_least(24) { json!(config.env) } else { nil_list(&config.env) },
        "Cmd": config.cmd,
        "Healthcheck": spec.healthcheck.as_ref().map(image::Healthcheck::to_value),
        "Image": spec.image,
        "Volumes": nil_set(&config.volumes),
        "VolumeDriver": spec.host.volume_driver,
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "NetworkDisabled": spec.network_disabled,
        "MacAddress": spec.mac_address.clone().unwrap_or_default(),
        "OnBuild": nil_list(&config.on_build),
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "StopTimeout": spec.stop_timeout,
        "Shell": spec.shell,
    }));
    if version.at_least(20) {
        omit_empty(
            &mut map,
            &[
                "ExposedPorts",
                "NetworkDisabled",
                "MacAddress",
                "StopSignal",
                "StopTimeout",
                "Healthcheck",
                "Shell",
            ],
        );
    }
    keep(&mut map, SPANS, version);
    Value::Object(map)
}

/// An image's configuration in the same words, as image inspect shows it.
pub(crate) fn image_view(
    config: &image::ContainerDefaults,
    version: ApiVersion,
) -> Map<String, Value> {
    let mut map = object(json!({
        "Hostname": config.hostname,
        "Domainname": config.domainname,
        "User": config.user,
        "Memory": 0,
        "MemorySwap": 0,
        "CpuShares": 0,
        "Cpuset": "",
        "AttachStdin": config.attach_stdin,
        "AttachStdout": config.attach_stdout,
        "AttachStderr": config.attach_stderr,
        "PortSpecs": null,
        "ExposedPorts": nil_set(&config.exposed_ports),
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": nil_list(&config.env),
        "Cmd": config.cmd,
        "Healthcheck": config.healthcheck.as_ref().map(image::Healthcheck::to_value),
        "ArgsEscaped": config.args_escaped,
        "Image": config.image,
        "Volumes": nil_set(&config.volumes),
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "OnBuild": nil_list(&config.on_build),
        "Labels": if config.labels.is_empty() { Value::Null } else { json!(config.labels) },
        "StopSignal": config.stop_signal,
        "Shell": config.shell,
    }));
    if version.at_least(20) {
        omit_empty(
            &mut map,
            &[
                "ExposedPorts",
                "StopSignal",
                "Healthcheck",
                "Shell",
                "ArgsEscaped",
            ],
        );
    } else {
        map.shift_remove("ArgsEscaped");
    }
    keep(&mut map, SPANS, version);
    // Fields that mean nothing for an image went with 1.50 unless an image has them set.
    if version.at_least(50) {
        omit_empty(
            &mut map,
            &[
                "Hostname",
                "Domainname",
                "AttachStdin",
                "AttachStdout",
                "AttachStderr",
                "Tty",
                "OpenStdin",
                "StdinOnce",
                "Image",
            ],
        );
    }
    map
}
