use super::*;

fn flags(args: &[&str]) -> Flags {
    match Command::parse(args.iter().map(OsString::from)) {
        Ok(Command::Run(flags)) => flags,
        other => panic!("{other:?}"),
    }
}

/// Settings from a file's text, a drop-in's text and flags.
fn load(file: &str, drop_in: &str, args: &[&str]) -> Result<Settings> {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("berthd.toml");
    fs::write(&path, file).expect("write");
    fs::create_dir(dir.path().join("berthd.toml.d")).expect("mkdir");
    fs::write(dir.path().join("berthd.toml.d/10.toml"), drop_in).expect("write");
    fs::write(dir.path().join("berthd.toml.d/ignored.txt"), "nonsense").expect("write");
    let mut flags = flags(args);
    flags.config = Some(path);
    flags.load()
}

fn refusal(file: &str, args: &[&str]) -> String {
    load(file, "", args).expect_err(file).to_string()
}

#[test]
fn flags_go_over_drop_ins_over_the_file() {
    let file = "data-root = \"/a\"\nrun-root = \"/b\"\nlog-level = \"warn\"\n[bridge]\nname = \"br7\"\nmtu = 1400\n";
    let settings = load(
        file,
        "run-root = \"/c\"\n[bridge]\nmtu = 1300\n",
        &["--data-root", "/d"],
    )
    .expect("settings");
    assert_eq!(settings.data_root, Path::new("/d"));
    assert_eq!(settings.run_root, Path::new("/c"));
    assert_eq!(settings.log_level, LogLevel::Warn);
    assert_eq!(
        (settings.bridge.name.as_str(), settings.bridge.mtu),
        ("br7", Some(1300))
    );
    let settings = load(file, "", &["--bridge", "br8", "--bridge-mtu=1200"]).expect("settings");
    assert_eq!(
        (settings.bridge.name.as_str(), settings.bridge.mtu),
        ("br8", Some(1200))
    );
}

#[test]
fn unknown_keys_and_values_are_named_with_their_file() {
    let text = refusal("data-rot = \"/a\"\n", &[]);
    assert!(
        text.contains("berthd.toml") && text.contains("data-rot"),
        "{text}"
    );
    assert!(refusal("[bridge]\nsubnets = \"x\"\n", &[]).contains("subnets"));
    assert!(refusal("log-level = \"loud\"\n", &[]).contains("loud"));
    assert!(refusal("", &["--log-level", "loud"]).contains("loud"));
    assert!(refusal("idle-exit = -1.0\n", &[]).contains("idle-exit"));
    assert!(
        refusal("data-root = \"relative\"\n", &[]).contains("data-root must be an absolute path")
    );
    assert!(refusal("", &["--bridge-subnet", "10.0.0.0/33"]).contains("33"));
    for args in [
        &["--bogus"][..],
        &["stray"],
        &["--data-root"],
        &["--idle-exit", "soon"],
    ] {
        Command::parse(args.iter().map(OsString::from)).expect_err("refused");
    }
}

#[test]
fn a_missing_file_is_an_error_only_when_it_was_named() {
    let mut named = flags(&["--config", "/nonexistent/berthd.toml"]);
    assert!(
        named
            .load()
            .expect_err("missing")
            .to_string()
            .contains("/nonexistent/berthd.toml")
    );
    named.config = None;
    // The default file does not exist on machines that build berth; where it does, it must be right.
    named.load().expect("defaults");
}

#[test]
fn idle_exit_depends_on_activation_until_it_is_said() {
    let limit =
        |args: &[&str], activated| load("", "", args).expect("settings").idle_exit(activated);
    assert_eq!(limit(&[], true), Some(Duration::from_secs(30)));
    assert_eq!(limit(&[], false), None);
    assert_eq!(limit(&["--idle-exit", "0"], true), None);
    assert_eq!(
        limit(&["--idle-exit", "5"], false),
        Some(Duration::from_secs(5))
    );
    assert_eq!(
        load("idle-exit = 7", "", &[])
            .expect("settings")
            .idle_exit(true),
        Some(Duration::from_secs(7))
    );
}

#[test]
fn hosts() {
    let host = |text, insecure| parse_host(text, insecure).map_err(|e| e.to_string());
    assert_eq!(
        host("unix:///run/x.sock", false),
        Ok(Host::Unix("/run/x.sock".into()))
    );
    assert_eq!(host("fd://", false), Ok(Host::Passed));
    assert_eq!(
        host("tcp://127.0.0.1:2375", true),
        Ok(Host::Tcp("127.0.0.1:2375".parse().expect("address")))
    );
    assert_eq!(
        host("tcp://localhost:2375", true),
        Ok(Host::Tcp("127.0.0.1:2375".parse().expect("address")))
    );
    assert_eq!(
        host("tcp://[::1]:2375", true),
        Ok(Host::Tcp("[::1]:2375".parse().expect("address")))
    );
    assert!(
        host("tcp://127.0.0.1:2375", false)
            .expect_err("plain")
            .contains("--insecure-tcp")
    );
    assert!(
        host("tcp://0.0.0.0:2375", true)
            .expect_err("open")
            .contains("loopback")
    );
    assert!(
        host("tcp://192.0.2.1:2375", true)
            .expect_err("open")
            .contains("TLS")
    );
    for bad in [
        "unix://relative",
        "unix://@abstract",
        "unix://",
        "fd://3",
        "tcp://host",
        "http://x",
        "/run/x",
        "",
    ] {
        host(bad, true).expect_err(bad);
    }
    let said = load(
        "hosts = [\"fd://\"]",
        "",
        &["-H", "unix:///x", "--host=fd://"],
    )
    .expect("settings");
    assert_eq!(
        said.hosts().expect("hosts"),
        [Host::Unix("/x".into()), Host::Passed]
    );
    assert_eq!(
        load("", "", &[])
            .expect("settings")
            .hosts_or_default(true)
            .expect("hosts"),
        []
    );
    assert_eq!(
        load("", "", &[])
            .expect("settings")
            .hosts_or_default(false)
            .expect("hosts"),
        [Host::Unix("/run/berth/berth.sock".into())]
    );
}
