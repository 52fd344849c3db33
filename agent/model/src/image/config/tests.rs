use proptest::prelude::*;

use super::*;

const LAYER: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn a_config_as_docker_writes_it() {
    let bytes = format!(
        r#"{{
            "architecture":"amd64","os":"linux","created":"2024-05-01T10:00:00.5Z","author":"a",
            "config":{{"User":"1000:1000","Env":["PATH=/bin","A=b"],"Entrypoint":["/e"],"Cmd":["c","d"],
                "WorkingDir":"/w","Labels":{{"k":"v"}},"ExposedPorts":{{"80/tcp":{{}}}},"Volumes":{{"/data":{{}}}},
                "StopSignal":"SIGINT","OnBuild":["RUN x"],"Shell":["/bin/sh","-c"],
                "Healthcheck":{{"Test":["CMD","true"],"Interval":5000000000,"Retries":3}}}},
            "rootfs":{{"type":"layers","diff_ids":["{LAYER}"]}},
            "history":[{{"created":"2024-05-01T10:00:00Z","created_by":"COPY"}},{{"created_by":"CMD","empty_layer":true}}]
        }}"#
    );
    let image = ImageConfig::parse(bytes.as_bytes()).unwrap();
    assert_eq!(image.created.unwrap().to_string(), "2024-05-01T10:00:00.5Z");
    assert_eq!(image.diff_ids, [LAYER.parse().unwrap()]);
    assert_eq!(image.config.argv(), ["/e", "c", "d"]);
    assert_eq!(image.config.user, "1000:1000");
    assert_eq!(image.config.exposed_ports, ["80/tcp"]);
    assert_eq!(image.config.volumes, ["/data"]);
    assert_eq!(image.config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(
        image.config.healthcheck.as_ref().unwrap().interval,
        5_000_000_000
    );
    assert_eq!(image.config.on_build, ["RUN x"]);
    assert_eq!(image.history.len(), 2);
    assert!(image.history[1].empty_layer);
    // Written anew by us it says the same.
    assert_eq!(ImageConfig::parse(&image.to_json()).unwrap(), image);
}

#[test]
fn nulls_strings_and_other_case_are_read() {
    let bytes = format!(
        r#"{{"Architecture":"arm64","config":{{"Cmd":"one","Entrypoint":null,"env":null,"Labels":{{"a":1,"b":"c"}}}},
            "rootfs":{{"diff_ids":["{LAYER}"]}},"created":"nonsense","history":null}}"#
    );
    let image = ImageConfig::parse(bytes.as_bytes()).unwrap();
    assert_eq!(image.architecture, "arm64");
    assert_eq!(image.config.cmd, Some(vec!["one".to_owned()]));
    assert_eq!(image.config.entrypoint, None);
    assert_eq!(image.config.labels.len(), 1);
    assert_eq!(image.created, None);
    let bare = ImageConfig::parse(br#"{"config":null,"rootfs":{"type":"layers","diff_ids":null}}"#)
        .unwrap();
    assert_eq!(bare, ImageConfig::default());
    assert_eq!(
        ImageConfig::parse(br#"{"created":"1970-01-01T00:00:00Z","rootfs":{}}"#)
            .unwrap()
            .created,
        Some(Timestamp::EPOCH)
    );
}

#[test]
fn wrong_layers_are_refused() {
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"rootfs":{"type":"windows","diff_ids":[]}}"#,
        r#"{"rootfs":{"type":"layers","diff_ids":["sha256:1"]}}"#,
        r#"{"rootfs":{"type":"layers","diff_ids":[7]}}"#,
        r#"{"rootfs":{"type":"layers","diff_ids":"x"}}"#,
    ] {
        assert!(ImageConfig::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(matches!(
        ImageConfig::parse(&vec![b' '; CONFIG_MAX + 1]),
        Err(ConfigError::TooLarge(_))
    ));
}

#[test]
fn legacy_records_of_both_spellings() {
    let lower = br#"{"id":"x","created":"2014-06-09T10:00:00Z","docker_version":"1.0.0","config":{"Cmd":["/bin/sh"]},"architecture":"amd64","os":"linux"}"#;
    let camel = br#"{"Id":"x","Created":"2014-06-09T10:00:00Z","Config":{"Cmd":["/bin/sh"]},"Architecture":"amd64","Os":"linux"}"#;
    let (lower, camel) = (
        ImageConfig::parse_legacy(lower).unwrap(),
        ImageConfig::parse_legacy(camel).unwrap(),
    );
    assert_eq!(lower.config, camel.config);
    assert_eq!(lower.created, camel.created);
    assert_eq!(lower.os, camel.os);
    assert_eq!(lower.docker_version, "1.0.0");
}

#[test]
fn same_content_same_digest() {
    let image = ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        ..Default::default()
    };
    assert_eq!(image.to_json(), image.clone().to_json());
}

proptest! {
    #[test]
    fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ImageConfig::parse(&bytes);
        let _ = ImageConfig::parse_legacy(&bytes);
    }

    #[test]
    fn written_configs_read_back(user in "\\PC{0,10}", env in proptest::collection::vec("[A-Z]=\\PC{0,5}", 0..3), labels in proptest::collection::btree_map("[a-z]{1,4}", "\\PC{0,5}", 0..3), layers in proptest::collection::vec(any::<[u8; 32]>(), 0..3)) {
        let image = ImageConfig {
            os: "linux".into(),
            config: ContainerDefaults { user, env, labels, ..Default::default() },
            diff_ids: layers.into_iter().map(Digest::from_bytes).collect(),
            ..Default::default()
        };
        prop_assert_eq!(ImageConfig::parse(&image.to_json()).unwrap(), image);
    }
}
