use super::*;
use crate::samples;

#[test]
fn one_container_in_every_age() {
    let container = samples::container();
    for minor in [51, 40, 24, 21, 20, 19, 18, 14, 12, 11, 7] {
        let shown = body(&container, ApiVersion::new(1, minor));
        insta::assert_snapshot!(
            format!("inspect_1_{minor}"),
            serde_json::to_string_pretty(&shown).unwrap()
        );
    }
}

#[test]
fn bare_ones() {
    for minor in [51, 12] {
        let shown = body(&samples::bare_container(), ApiVersion::new(1, minor));
        insta::assert_snapshot!(
            format!("inspect_bare_1_{minor}"),
            serde_json::to_string_pretty(&shown).unwrap()
        );
    }
}

#[test]
fn bollard_decodes_every_version_since_1_24() {
    for minor in 24..=51 {
        for container in [samples::container(), samples::bare_container()] {
            let shown = body(&container, ApiVersion::new(1, minor));
            let decoded: bollard_stubs::models::ContainerInspectResponse =
                serde_json::from_value(shown).unwrap_or_else(|e| panic!("1.{minor}: {e}"));
            assert_eq!(decoded.id.as_deref(), Some(samples::ID));
        }
    }
}

/// What inspect shows can be sent back to create and means the same.
#[test]
fn create_reads_what_inspect_shows() {
    let container = samples::container();
    for minor in [51, 40, 25] {
        let version = ApiVersion::new(1, minor);
        let shown = body(&container, version);
        let mut request = shown["Config"].clone();
        request["HostConfig"] = shown["HostConfig"].clone();
        let spec = super::super::create::parse(None, None, request.to_string().as_bytes(), version)
            .unwrap()
            .spec;
        assert_eq!(spec.unsupported, Vec::<String>::new(), "1.{minor}");
        assert_eq!(spec.host.binds, container.spec.host.binds);
        assert_eq!(spec.host.mounts, container.spec.host.mounts);
        assert_eq!(spec.host.ulimits, container.spec.host.ulimits);
        assert_eq!(
            spec.host.resources.memory,
            container.spec.host.resources.memory
        );
        assert_eq!(spec.host.port_bindings, container.spec.host.port_bindings);
        assert_eq!(spec.stop_timeout, container.spec.stop_timeout);
    }
}

#[test]
fn sizes_are_shown_where_measured() {
    let mut container = samples::container();
    (container.size_rw, container.size_root_fs) = (Some(5), Some(10));
    let shown = body(&container, ApiVersion::MAX);
    assert_eq!(
        (&shown["SizeRw"], &shown["SizeRootFs"]),
        (&json!(5), &json!(10))
    );
}
