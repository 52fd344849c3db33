use berth_engine::{HostSpec, Kind};
use proptest::prelude::*;

use super::*;

fn parse_at(minor: u32, text: &str) -> ContainerSpec {
    parse(None, None, text.as_bytes(), ApiVersion::new(1, minor))
        .unwrap()
        .spec
}

fn message(minor: u32, text: &str) -> String {
    let error = parse(None, None, text.as_bytes(), ApiVersion::new(1, minor)).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    error.full_message()
}

/// What the docker command line (28) sends for `docker run busybox true`.
const CLI: &str = r#"{
    "Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Tty":false,
    "OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":["true"],"Image":"busybox","Volumes":{},"WorkingDir":"",
    "Entrypoint":null,"OnBuild":null,"Labels":{},
    "HostConfig":{"Binds":null,"ContainerIDFile":"","LogConfig":{"Type":"","Config":{}},"NetworkMode":"default",
        "PortBindings":{},"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"",
        "VolumesFrom":null,"ConsoleSize":[0,0],"CapAdd":null,"CapDrop":null,"CgroupnsMode":"","Dns":[],"DnsOptions":[],
        "DnsSearch":[],"ExtraHosts":null,"GroupAdd":null,"IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,
        "PidMode":"","Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"",
        "UsernsMode":"","ShmSize":0,"Isolation":"","CpuShares":0,"Memory":0,"NanoCpus":0,"CgroupParent":"",
        "BlkioWeight":0,"BlkioWeightDevice":[],"BlkioDeviceReadBps":[],"BlkioDeviceWriteBps":[],
        "BlkioDeviceReadIOps":[],"BlkioDeviceWriteIOps":[],"CpuPeriod":0,"CpuQuota":0,"CpuRealtimePeriod":0,
        "CpuRealtimeRuntime":0,"CpusetCpus":"","CpusetMems":"","Devices":[],"DeviceCgroupRules":null,
        "DeviceRequests":null,"MemoryReservation":0,"MemorySwap":0,"MemorySwappiness":-1,"OomKillDisable":false,
        "PidsLimit":0,"Ulimits":[],"CpuCount":0,"CpuPercent":0,"IOMaximumIOps":0,"IOMaximumBandwidth":0,
        "MaskedPaths":null,"ReadonlyPaths":null},
    "NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"",
        "DriverOpts":null,"GwPriority":0,"NetworkID":"","EndpointID":"","Gateway":"","IPAddress":"","IPPrefixLen":0,
        "IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}}}}"#;

#[test]
fn the_command_lines_plain_run_asks_for_nothing_special() {
    let spec = parse_at(51, CLI);
    assert_eq!(spec.unsupported, Vec::<String>::new());
    assert_eq!(spec.cmd, Some(vec!["true".to_owned()]));
    assert!(spec.attach_stdout && spec.attach_stderr && !spec.attach_stdin);
    let host = HostSpec {
        network_mode: "default".into(),
        restart: berth_engine::RestartPolicy {
            name: "no".into(),
            maximum_retry_count: 0,
        },
        ..HostSpec::default()
    };
    assert_eq!(spec.host, host);
}

#[test]
fn a_full_request() {
    let spec = parse_at(
        51,
        r#"{"Image":"img","Hostname":"h","Domainname":"d","User":"1:2","Tty":true,"OpenStdin":true,"StdinOnce":true,
        "Env":["A=1"],"Cmd":"one","Entrypoint":["e"],"WorkingDir":"/w","Labels":{"k":"v"},"ExposedPorts":{"80":{},"53/udp":{}},
        "Volumes":{"/data":{}},"StopSignal":"INT","StopTimeout":3,"MacAddress":"02:00:00:00:00:01","Shell":["/bin/sh"],
        "Healthcheck":{"Test":["CMD","true"],"Interval":5,"StartInterval":7},
        "HostConfig":{"Binds":["/a:/b:ro,rslave","/anon"],"Mounts":[{"Type":"bind","Source":"/s","Target":"/t","ReadOnly":true,
            "BindOptions":{"Propagation":"rshared","CreateMountpoint":true}},{"Type":"tmpfs","Target":"/x","TmpfsOptions":{"SizeBytes":10,"Mode":511}}],
        "Tmpfs":{"/tmp":"size=1m"},"NetworkMode":"host","PortBindings":{"80/tcp":[{"HostIp":"127.0.0.1","HostPort":"8080"}],"81":null},
        "Privileged":true,"CapAdd":["ALL"],"CapDrop":["MKNOD"],"SecurityOpt":["no-new-privileges"],"ReadonlyRootfs":true,
        "MaskedPaths":[],"ReadonlyPaths":["/p"],"Ulimits":[{"Name":"nofile","Soft":1,"Hard":2}],"Sysctls":{"a.b":"1"},
        "Devices":[{"PathOnHost":"/dev/a","PathInContainer":"/dev/b","CgroupPermissions":"r"}],"Init":true,"ShmSize":1024,
        "RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},"AutoRemove":true,"LogConfig":{"Type":"json-file","Config":{"max-size":"1m"}},
        "OomScoreAdj":-5,"Memory":1048576,"MemorySwap":-1,"NanoCpus":1500000000,"CpuShares":2,"PidsLimit":10,"CpusetCpus":"0-1",
        "ConsoleSize":[24,80],"Annotations":{"n":"o"},"CgroupParent":"p.slice"}}"#,
    );
    assert_eq!(spec.unsupported, Vec::<String>::new());
    assert_eq!(spec.cmd, Some(vec!["one".to_owned()]));
    assert_eq!(spec.exposed_ports, ["80/tcp", "53/udp"]);
    assert_eq!(spec.volumes, ["/data", "/anon"]);
    assert_eq!(spec.healthcheck.as_ref().unwrap().start_interval, 7);
    let host = &spec.host;
    assert!(host.binds[0].read_only && host.binds[0].propagation == "rslave");
    assert!(host.mounts[0].create_mountpoint && host.mounts[0].propagation == "rshared");
    assert_eq!(
        (host.mounts[1].tmpfs_size, host.mounts[1].tmpfs_mode),
        (Some(10), Some(511))
    );
    assert_eq!(host.port_bindings.len(), 1);
    assert_eq!(host.masked_paths, Some(vec![]));
    assert_eq!(host.console_size, Some((24, 80)));
    assert_eq!(host.resources.pids_limit, Some(10));
    assert_eq!(host.oom_score_adj, Some(-5));
    assert_eq!(host.restart.maximum_retry_count, 3);
}

#[test]
fn what_is_not_modelled_is_named() {
    let spec = parse_at(
        51,
        r#"{"Image":"x","Memory":5,"Nonsense":true,"Empty":"","HostConfig":{"DeviceRequests":[{"Driver":"nvidia","Count":-1}],
        "BlkioDeviceReadBps":[{"Path":"/dev/sda","Rate":5}],"CpuCount":2,"Mounts":[{"Type":"volume","Source":"v","Target":"/v",
        "VolumeOptions":{"NoCopy":true,"Labels":{}}}]},"NetworkingConfig":{"EndpointsConfig":{"bridge":{"Aliases":["a"]},"other":{}}}}"#,
    );
    assert_eq!(
        spec.unsupported,
        [
            "HostConfig.DeviceRequests",
            "HostConfig.BlkioDeviceReadBps",
            "HostConfig.CpuCount",
            "NetworkingConfig.EndpointsConfig.bridge.Aliases",
            "NetworkingConfig.EndpointsConfig.other",
            "Memory",
            "Nonsense",
        ]
    );
    assert_eq!(
        spec.host.mounts[0].unsupported,
        ["HostConfig.Mounts[0].VolumeOptions.NoCopy"]
    );
}

#[test]
fn old_clients_keep_limits_in_the_body() {
    let spec = parse_at(
        12,
        r#"{"Image":"x","Memory":1048576,"MemorySwap":-1,"CpuShares":1,"Cpuset":"0,1","PortSpecs":["8080:80","53/udp"],
        "Cmd":["a"],"Volumes":{"/v":{}},"VolumesFrom":"a,b:ro","OnBuild":["RUN x"]} trailing"#,
    );
    let limits = &spec.host.resources;
    assert_eq!(
        (limits.memory, limits.memory_swap, limits.cpu_shares),
        (1_048_576, -1, 2)
    );
    assert_eq!(limits.cpuset_cpus, "0,1");
    assert_eq!(spec.exposed_ports, ["80/tcp", "53/udp"]);
    assert_eq!(spec.host.volumes_from, ["a", "b:ro"]);
    assert_eq!(spec.unsupported, Vec::<String>::new());
    // With both, the newer place wins.
    let both = parse_at(
        18,
        r#"{"Image":"x","Memory":5,"CpuShares":7,"HostConfig":{"Memory":6,"CpuShares":0}}"#,
    );
    assert_eq!(
        (both.host.resources.memory, both.host.resources.cpu_shares),
        (6, 7)
    );
}

#[test]
fn fields_newer_than_the_version_do_not_count() {
    let text = r#"{"Image":"x","Healthcheck":{"Test":["NONE"],"StartInterval":5},"HostConfig":{"AutoRemove":true,"Annotations":{"a":"b"},
        "ConsoleSize":[1,2],"KernelMemory":5,"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","BindOptions":{"NonRecursive":true,"CreateMountpoint":true}}]}}"#;
    let old = parse_at(24, text);
    assert!(
        !old.host.auto_remove && old.host.annotations.is_empty() && old.host.console_size.is_none()
    );
    assert_eq!(old.healthcheck.unwrap().start_interval, 0);
    assert!(!old.host.mounts[0].non_recursive && !old.host.mounts[0].create_mountpoint);
    assert_eq!(old.host.resources.kernel_memory, 5);
    let new = parse_at(51, text);
    assert!(
        new.host.auto_remove
            && new.host.mounts[0].non_recursive
            && new.host.mounts[0].create_mountpoint
    );
    assert_eq!(new.host.resources.kernel_memory, 0);
}

#[test]
fn wrong_requests_say_what_is_wrong() {
    assert_eq!(
        message(51, ""),
        "invalid JSON: got EOF while reading request body"
    );
    assert_eq!(
        message(51, r#"{"Cmd":5}"#),
        "invalid JSON: Cmd must be a string or a list of strings"
    );
    assert_eq!(
        message(51, r#"{"HostConfig":{"Memory":"1g"}}"#),
        "invalid JSON: HostConfig.Memory must be a whole number"
    );
    assert_eq!(
        message(51, r#"{"HostConfig":{"Binds":["a:b:c:d"]}}"#),
        "invalid volume specification: 'a:b:c:d'"
    );
    assert_eq!(
        message(
            51,
            r#"{"HostConfig":{"Mounts":[{"Type":"bind","Target":"/b","TmpfsOptions":{"Mode":1}}]}}"#
        ),
        "TmpfsOptions must not be specified on mount type \"bind\""
    );
    assert_eq!(
        message(
            40,
            r#"{"NetworkingConfig":{"EndpointsConfig":{"a":{},"b":{}}}}"#
        ),
        "Container cannot be created with multiple network endpoints: a, b"
    );
    assert!(
        message(
            51,
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":8080}]}}}"#
        )
        .contains("HostPort must be a string")
    );
}

#[test]
fn networks_and_addresses() {
    let named = parse_at(
        40,
        r#"{"NetworkingConfig":{"EndpointsConfig":{"net":{"MacAddress":"02:00:00:00:00:01"}}}}"#,
    );
    assert_eq!(
        (named.host.network_mode.as_str(), named.mac_address),
        ("net", None)
    );
    let mac = parse_at(
        51,
        r#"{"NetworkingConfig":{"EndpointsConfig":{"default":{"MacAddress":"02:00:00:00:00:01"}}}}"#,
    );
    assert_eq!(mac.mac_address.as_deref(), Some("02:00:00:00:00:01"));
    assert!(message(51, r#"{"MacAddress":"02:00:00:00:00:02","NetworkingConfig":{"EndpointsConfig":{"bridge":{"MacAddress":"02:00:00:00:00:01"}}}}"#).contains("must match"));
}

#[test]
fn names_and_platforms() {
    let ask = |name, platform| parse(Some(name), platform, b"{}", ApiVersion::MAX);
    assert_eq!(ask("/web", None).unwrap().name.as_deref(), Some("web"));
    assert_eq!(ask("", None).unwrap().name, None);
    let both = format!("linux/{}", std::env::consts::ARCH);
    for here in ["linux", "Linux", std::env::consts::ARCH, &both] {
        assert!(
            ask("", Some(here)).unwrap().spec.unsupported.is_empty(),
            "{here}"
        );
    }
    assert_eq!(
        ask("", Some("linux/mips")).unwrap().spec.unsupported,
        ["platform=linux/mips"]
    );
    assert!(ask("", Some("a/b/c/d")).is_err());
    assert!(ask("", Some("linux/")).is_err());
}

#[test]
fn mounts_cover_anonymous_volumes() {
    let spec = parse_at(
        51,
        r#"{"Volumes":{"/a":{},"/b":{},"/c/":{},"/d":{}},"HostConfig":{"Binds":["/x:/a"],"Tmpfs":{"/b":""},
        "Mounts":[{"Type":"tmpfs","Target":"/c"}]}}"#,
    );
    assert_eq!(spec.volumes, ["/d"]);
}

#[test]
fn the_answer() {
    let made = Created {
        id: "abc".into(),
        warnings: vec![],
    };
    assert_eq!(
        created(&made, ApiVersion::MAX),
        json!({"Id": "abc", "Warnings": []})
    );
    assert_eq!(
        created(&made, ApiVersion::new(1, 12)),
        json!({"Id": "abc", "Warnings": null})
    );
    serde_json::from_value::<bollard_stubs::models::ContainerCreateResponse>(created(
        &made,
        ApiVersion::MAX,
    ))
    .unwrap();
}

/// What bollard sends must be read without a rest.
#[test]
fn a_request_of_bollards_models() {
    let body = bollard_stubs::models::ContainerCreateBody {
        image: Some("busybox".into()),
        cmd: Some(vec!["true".into()]),
        host_config: Some(bollard_stubs::models::HostConfig {
            memory: Some(1 << 20),
            binds: Some(vec!["/a:/b".into()]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let spec = parse_at(51, &serde_json::to_string(&body).unwrap());
    assert_eq!(spec.host.resources.memory, 1 << 20);
    assert!(spec.unsupported.is_empty());
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(
                (
                    prop_oneof![
                        Just("Binds".to_owned()),
                        Just("Mounts".to_owned()),
                        Just("Type".to_owned()),
                        "[A-Z][a-z]{1,6}"
                    ],
                    inner
                ),
                0..4
            )
            .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn parsing_never_panics(minor in 0_u32..=51, config in json_value(), host in json_value(), net in json_value()) {
        let body = json!({"Image": "x", "Cmd": config, "Volumes": host, "HostConfig": host, "NetworkingConfig": net});
        let _ = parse(None, None, body.to_string().as_bytes(), ApiVersion::new(1, minor));
        if let Value::Object(_) = host {
            let _ = parse(None, None, host.to_string().as_bytes(), ApiVersion::new(1, minor));
        }
    }
}
