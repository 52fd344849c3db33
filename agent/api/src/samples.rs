//! Objects that tests show in all versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_engine::{
    Bind, Container, ContainerSpec, EffectiveConfig, Event, HostSpec, ImageDetail, ImageSummary,
    Info, Mount, MountPoint, PortBinding, Resources, State, Status, Ulimit,
};
use berth_model::digest::Digest;
use berth_model::image::config::{ContainerDefaults, ImageConfig};
use berth_model::time::Timestamp;

pub(crate) const ID: &str = "4c01db0b339c5e7d4e1f6f3a0b7f6f6d0c9a2b8e7f5d4c3b2a190817263544ff";

/// Five seconds after the sample was started.
pub(crate) fn now() -> Timestamp {
    at("2024-05-01T10:00:05.5Z")
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|w| (*w).to_owned()).collect()
}

fn pairs(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

pub(crate) fn container() -> Container {
    let host = HostSpec {
        binds: vec![Bind {
            source: "/srv/data".into(),
            target: "/data".into(),
            read_only: true,
            mode: "ro".into(),
            ..Bind::default()
        }],
        mounts: vec![Mount {
            kind: "tmpfs".into(),
            target: "/scratch".into(),
            tmpfs_size: Some(1 << 20),
            ..Mount::default()
        }],
        port_bindings: vec![PortBinding {
            container_port: "80/tcp".into(),
            host_ip: String::new(),
            host_port: "8080".into(),
        }],
        cap_add: words(&["NET_ADMIN"]),
        ulimits: vec![Ulimit {
            name: "nofile".into(),
            soft: 1024,
            hard: 2048,
        }],
        sysctls: pairs(&[("net.core.somaxconn", "1024")]),
        init: Some(true),
        resources: Resources {
            memory: 64 << 20,
            nano_cpus: 500_000_000,
            cpu_shares: 512,
            cpuset_cpus: "0-1".into(),
            pids_limit: Some(100),
            ..Resources::default()
        },
        ..HostSpec::default()
    };
    Container {
        id: ID.into(),
        name: "web".into(),
        created: at("2024-05-01T09:59:59.123456789Z"),
        image: Digest::of(b"image"),
        image_ref: "busybox:latest".into(),
        spec: ContainerSpec {
            image: "busybox".into(),
            attach_stdout: true,
            attach_stderr: true,
            stop_timeout: Some(3),
            host,
            ..ContainerSpec::default()
        },
        config: EffectiveConfig {
            hostname: "4c01db0b339c".into(),
            env: words(&["PATH=/bin"]),
            entrypoint: None,
            cmd: Some(words(&["sh", "-c", "sleep 1000"])),
            labels: pairs(&[("tier", "front")]),
            exposed_ports: words(&["443/tcp", "80/tcp"]),
            ..EffectiveConfig::default()
        },
        state: State { status: Status::Running, pid: 4242, started_at: at("2024-05-01T10:00:00.5Z"), ..State::default() },
        endpoint: serde_json::from_value(serde_json::json!({
            "interface": "veth1234567", "ip": "172.29.0.2", "prefix_len": 16, "gateway": "172.29.0.1",
            "mac": "02:42:ac:1d:00:02", "bridge": "berth0",
        }))
        .unwrap(),
        mounts: vec![MountPoint {
            kind: "bind".into(),
            source: "/srv/data".into(),
            destination: "/data".into(),
            mode: "ro".into(),
            rw: false,
            propagation: "rprivate".into(),
        }],
        restart_count: 0,
        driver: "overlay",
        log_path: format!("/var/lib/berth/containers/{ID}/{ID}-json.log"),
        hosts_path: format!("/run/berth/containers/{ID}/hosts"),
        hostname_path: format!("/run/berth/containers/{ID}/hostname"),
        resolv_conf_path: format!("/run/berth/containers/{ID}/resolv.conf"),
        unit: "berth-4c01db0b339c.scope".into(),
        control_group: "/berth.slice/berth-4c01db0b339c.scope".into(),
        size_rw: None,
        size_root_fs: None,
    }
}

/// One that was never started and asked for as little as possible.
pub(crate) fn bare_container() -> Container {
    Container {
        spec: ContainerSpec {
            image: "busybox".into(),
            ..ContainerSpec::default()
        },
        config: EffectiveConfig {
            cmd: Some(words(&["true"])),
            ..EffectiveConfig::default()
        },
        state: State::default(),
        endpoint: None,
        mounts: Vec::new(),
        ..container()
    }
}

pub(crate) fn image_summary() -> ImageSummary {
    ImageSummary {
        id: Digest::of(b"image"),
        created: at("2024-04-01T00:00:00Z"),
        tags: words(&["busybox:latest", "busybox:1.36"]),
        digests: Vec::new(),
        size: 4_261_550,
        labels: pairs(&[("maintainer", "m")]),
        containers: 2,
    }
}

pub(crate) fn image() -> ImageDetail {
    ImageDetail {
        summary: image_summary(),
        config: Arc::new(ImageConfig {
            created: Some(at("2024-04-01T00:00:00Z")),
            architecture: "amd64".into(),
            os: "linux".into(),
            config: ContainerDefaults {
                env: words(&["PATH=/bin"]),
                cmd: Some(words(&["sh"])),
                ..ContainerDefaults::default()
            },
            diff_ids: vec![Digest::of(b"layer")],
            ..ImageConfig::default()
        }),
        last_tagged: at("2024-05-01T00:00:00Z"),
        driver: "overlay",
        driver_data: BTreeMap::new(),
    }
}

pub(crate) fn event() -> Event {
    Event {
        time: at("2024-05-01T10:00:00.5Z"),
        kind: "container".into(),
        action: "start".into(),
        actor: ID.into(),
        attributes: pairs(&[("image", "busybox"), ("name", "web"), ("tier", "front")]),
    }
}

pub(crate) fn info() -> Info {
    Info {
        id: "id".into(),
        containers: 3,
        running: 1,
        paused: 1,
        stopped: 1,
        images: 2,
        driver: "overlay".into(),
        driver_status: vec![("Backing Filesystem".into(), "ext4".into())],
        data_root: "/var/lib/berth".into(),
        cgroup_driver: "systemd".into(),
        kernel_version: "6.18.0".into(),
        operating_system: "Debian GNU/Linux 12 (bookworm)".into(),
        os_version: "12".into(),
        architecture: "x86_64".into(),
        cpus: 2,
        memory: 8 << 30,
        hostname: "host".into(),
        memory_limit: true,
        cpu_cfs: true,
        ipv4_forwarding: true,
        security_options: words(&["name=seccomp,profile=builtin", "name=cgroupns"]),
        logging_driver: "json-file".into(),
        event_listeners: 1,
        open_descriptors: 20,
        warnings: words(&["WARNING: No swap limit support"]),
        system_time: at("2024-05-01T10:00:00Z"),
        ..Info::default()
    }
}
