use super::filter::tests::run;
use super::*;

fn program(spec: &RunSpec, devices: &[HostDevice]) -> Vec<u8> {
    filter::program(&rules(spec, devices).expect("valid"))
}

fn access(letters: &str) -> Access {
    Access::parse(letters).expect("letters")
}

#[test]
fn default_fence() {
    use NodeKind::{Block, Char};
    let program = program(&RunSpec::default(), &[]);
    for (kind, major, minor, letters, allowed) in [
        (Char, 1, 3, "rwm", true),
        (Char, 1, 5, "rw", true),
        (Char, 1, 7, "w", true),
        (Char, 1, 8, "r", true),
        (Char, 1, 9, "rw", true),
        (Char, 5, 0, "rw", true),
        (Char, 5, 1, "rw", true),
        (Char, 5, 2, "rw", true),
        (Char, 136, 7, "rw", true),
        (Char, 1, 1, "r", false),
        (Char, 1, 2, "w", false),
        (Char, 1, 11, "rw", false),
        (Char, 10, 200, "rw", false),
        (Char, 10, 229, "rw", false),
        (Char, 10, 229, "m", false),
        (Char, 10, 1, "m", true),
        (Block, 8, 0, "m", true),
        (Block, 8, 0, "r", false),
        (Block, 8, 0, "rm", false),
        (Block, 1, 3, "rw", false),
        (Block, 136, 0, "r", false),
    ] {
        assert_eq!(
            run(&program, kind, major, minor, access(letters)),
            allowed,
            "{kind:?} {major}:{minor} {letters}"
        );
    }
}

#[test]
fn the_request_widens_it_by_exactly_what_it_names() {
    use NodeKind::{Block, Char};
    let node = Node {
        path: "/dev/fuse".to_owned(),
        kind: Char,
        major: 10,
        minor: 229,
        mode: 0o666,
        uid: 0,
        gid: 0,
    };
    let devices = [HostDevice {
        node,
        access: access("rw"),
    }];
    let spec = RunSpec {
        device_cgroup_rules: vec!["b 8:* r".to_owned()],
        ..RunSpec::default()
    };
    let program = program(&spec, &devices);
    assert!(run(&program, Char, 10, 229, access("rw")));
    assert!(!run(&program, Char, 10, 229, access("m")));
    assert!(!run(&program, Char, 10, 228, access("r")));
    assert!(run(&program, Block, 8, 17, access("r")));
    assert!(!run(&program, Block, 8, 17, access("rw")));
}

#[test]
fn privileged_may_use_everything() {
    let spec = RunSpec {
        privileged: true,
        ..RunSpec::default()
    };
    let program = program(&spec, &[]);
    assert!(run(&program, NodeKind::Block, 8, 0, Access::ALL));
    assert!(run(&program, NodeKind::Char, 10, 229, Access::ALL));
}

#[test]
fn rules_of_the_request() {
    assert_eq!(parse_rule("a *:* rwm"), Ok(Rule::EVERYTHING));
    assert_eq!(
        parse_rule("c 10:229 r"),
        Ok(Rule::allow(
            NodeKind::Char,
            Some(10),
            Some(229),
            access("r")
        ))
    );
    for wrong in [
        "",
        "c",
        "c 1:3",
        "c 1:3 ",
        "c 1:3 rwx",
        "c 1:3 rr",
        "d 1:3 r",
        "c 1 r",
        "c -1:3 r",
        "c 1:+3 r",
        "c  1:3 r",
        "c 1:3 r r",
        "c 1:99999999999 r",
        "c :3 r",
        "c *:* ",
    ] {
        assert_eq!(
            parse_rule(wrong),
            Err(SpecError::invalid(format!(
                "invalid device cgroup rule format: '{wrong}'"
            ))),
        );
    }
}

fn spec_with(path: &str, target: &str, permissions: &str) -> RunSpec {
    let device = DeviceSpec {
        path_on_host: path.to_owned(),
        path_in_container: target.to_owned(),
        permissions: permissions.to_owned(),
    };
    RunSpec {
        devices: vec![device],
        ..RunSpec::default()
    }
}

#[test]
fn requests_without_sense_are_refused_early() {
    for (path, target, permissions) in [
        ("/dev/null", "", "rwx"),
        ("/dev/null", "relative", ""),
        ("relative", "/dev/x", ""),
        ("/dev/null", "/dev/pts/1", ""),
        ("/dev/null", "/dev/console", ""),
        ("/dev/null", "/dev/x/../shm", ""),
        ("/dev/null", "/etc/passwd", ""),
        ("/dev/null", "/dev/../etc/x", ""),
        ("/dev/null", "/dev", ""),
    ] {
        assert!(
            check(&spec_with(path, target, permissions).devices).is_err(),
            "{path} {target} {permissions}"
        );
    }
    assert!(check(&spec_with("/dev/null", "/dev/shmoo", "r").devices).is_ok());
}

#[test]
fn nodes_of_the_host() {
    let found = from_host(&spec_with("/dev/null", "/dev/nothing", "r")).expect("is there");
    assert_eq!(found.len(), 1);
    let HostDevice {
        node,
        access: found_access,
    } = &found[0];
    assert_eq!(
        (node.path.as_str(), node.kind, node.major, node.minor),
        ("/dev/nothing", NodeKind::Char, 1, 3)
    );
    assert_eq!(*found_access, access("r"));
    let error = from_host(&spec_with("/etc/passwd", "/dev/x", "")).expect_err("is no device");
    assert_eq!(
        error.to_string(),
        "error gathering device information while adding custom device \"/etc/passwd\": not a device node"
    );
    let error = from_host(&spec_with("/dev/missing", "", "")).expect_err("is not there");
    assert_eq!(
        error.to_string(),
        "error gathering device information while adding custom device \"/dev/missing\": no such file or directory"
    );
    let all = from_host(&RunSpec {
        privileged: true,
        ..RunSpec::default()
    })
    .expect("readable");
    assert!(all.iter().any(|d| d.node.path == "/dev/null"));
    assert!(
        !all.iter()
            .any(|d| d.node.path.starts_with("/dev/pts/") || d.node.path == "/dev/ptmx")
    );
}

#[test]
fn own_nodes_are_made_once() {
    let node = Node {
        path: "/dev/null".to_owned(),
        kind: NodeKind::Block,
        major: 8,
        minor: 0,
        mode: 0,
        uid: 0,
        gid: 0,
    };
    let steps = steps(&[HostDevice {
        node,
        access: Access::ALL,
    }]);
    let nulls: Vec<_> = steps
        .iter()
        .filter(|s| matches!(s, Step::Node(n) if n.path == "/dev/null"))
        .collect();
    assert_eq!(nulls.len(), 1);
    assert!(
        matches!(nulls[0], Step::Node(n) if n.major == 1 && n.minor == 3 && n.kind == NodeKind::Char)
    );
}

#[test]
fn device_numbers() {
    assert_eq!(numbers(0x0103), (1, 3));
    assert_eq!(numbers(0x1000_0805), (8, 0x1_0005));
}
