use super::*;

fn base() -> RunSpec {
    RunSpec {
        argv: vec!["true".to_owned()],
        ..RunSpec::default()
    }
}

fn check(change: impl FnOnce(&mut RunSpec)) -> Result<Vec<String>, SpecError> {
    let mut spec = base();
    change(&mut spec);
    validate(&spec, &HostFacts::sample())
}

#[test]
fn a_plain_spec_is_fine() {
    assert_eq!(check(|_| ()), Ok(Vec::new()));
}

#[test]
fn refused_with_dockers_words() {
    let text = |change: fn(&mut RunSpec)| match check(change) {
        Err(SpecError::Invalid(text)) => text,
        other => panic!("{other:?}"),
    };
    let s = |text: &str| text.to_owned();
    assert_eq!(text(|c| c.argv.clear()), "no command specified");
    assert_eq!(
        text(|c| c.argv = vec![String::new()]),
        "no command specified"
    );
    assert_eq!(
        text(|c| c.cwd = "x".to_owned()),
        "the working directory 'x' is invalid, it needs to be an absolute path"
    );
    assert_eq!(
        text(|c| c.cap_add = vec!["FLY".to_owned()]),
        "invalid CapAdd: unknown capability: \"FLY\""
    );
    assert_eq!(
        text(|c| c.oom_score_adj = 1001),
        "invalid value 1001, range for oom score adj is [-1000, 1000]"
    );
    assert_eq!(
        text(|c| c.user = "4294967295".to_owned()),
        "uids and gids must be in range 0-4294967294"
    );
    assert_eq!(
        text(|c| c.env = vec!["=x".to_owned()]),
        s("invalid environment variable: =x")
    );
    assert_eq!(
        text(|c| c.device_cgroup_rules = vec!["x".to_owned()]),
        "invalid device cgroup rule format: 'x'"
    );
    assert_eq!(
        text(|c| c.security_opt = vec!["x".to_owned()]),
        "invalid --security-opt 1: \"x\""
    );
    assert!(text(|c| c.argv.push("a\0b".to_owned())).contains("NUL"));
    assert_eq!(
        text(|c| c.argv.push("x".repeat(131_072))),
        "argument list too long"
    );
    assert_eq!(
        text(|c| c.env = vec![format!("A={}", "x".repeat(100_000)); 50]),
        "argument list too long"
    );
    assert!(text(|c| c.hostname = "h".repeat(65)).contains("longer than 64"));
    assert!(text(|c| c.masked_paths = Some(vec!["x".to_owned()])).contains("absolute"));
    assert!(text(|c| c.stop_signal = 65).contains("stop signal"));
    assert!(
        text(|c| c.mounts = vec![MountSpec {
            target: "/proc".to_owned(),
            ..MountSpec::default()
        }])
        .contains("/proc")
    );
    assert!(
        text(|c| c
            .sysctls
            .extend([("kernel.core_pattern".to_owned(), String::new())]))
        .contains("kernel.core_pattern")
    );
    assert!(
        text(|c| c.ulimits = vec![Ulimit {
            name: "x".to_owned(),
            soft: 0,
            hard: 0
        }])
        .contains("ulimit")
    );
}

#[test]
fn hosts_without_cgroup_v2_are_refused() {
    let facts = HostFacts {
        cgroup_v2: false,
        cgroup_mode: "hybrid".to_owned(),
        ..HostFacts::sample()
    };
    assert!(
        matches!(validate(&base(), &facts), Err(SpecError::Unsupported(text)) if text.contains("hybrid"))
    );
}

#[test]
fn specs_are_stored_as_json() {
    let spec = RunSpec {
        mounts: vec![MountSpec {
            target: "/x".to_owned(),
            ..MountSpec::default()
        }],
        log: LogSpec::JsonFile {
            file: "f".to_owned(),
            max_size: 1,
            max_files: 1,
            attrs: Vec::new(),
        },
        ..base()
    };
    let text = serde_json::to_string(&spec).expect("encodes");
    assert_eq!(
        serde_json::from_str::<RunSpec>(&text).expect("decodes"),
        spec
    );
    assert_eq!(
        serde_json::from_str::<RunSpec>("{}").expect("decodes"),
        RunSpec::default()
    );
}
