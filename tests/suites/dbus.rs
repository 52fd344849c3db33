//! The D-Bus face, with busctl: objects, methods, properties, signals, errors, activation, and who may do what.

use std::io::{BufRead, BufReader};

use berth_tests::lab::Lab;
use berth_tests::output::Output;
use serde_json::{Value, json};

use crate::support::{PATIENT, clean, create, inspect, patient, script, wait_for_line};

const NAME: &str = "org.berth.Agent1";
const ROOT: &str = "/org/berth/Agent1";
const MANAGER: &str = "org.berth.Agent1.Manager";
const CONTAINER: &str = "org.berth.Agent1.Container";

/// `busctl call` of a method; signature and arguments in one.
pub(crate) fn call(
    lab: &Lab,
    path: &str,
    interface: &str,
    method: &str,
    arguments: &[&str],
) -> Output {
    let argv: Vec<&str> = [
        "busctl",
        "--json=short",
        "--timeout=60",
        "call",
        NAME,
        path,
        interface,
        method,
    ]
    .iter()
    .chain(arguments)
    .copied()
    .collect();
    lab.exec(&argv)
}

/// The values that a successful call answered.
#[track_caller]
pub(crate) fn answer(output: &Output) -> Value {
    let text = output.ok();
    if text.is_empty() {
        return Value::Null;
    }
    serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{error}: {text}"))["data"]
        .clone()
}

#[track_caller]
pub(crate) fn property(lab: &Lab, path: &str, interface: &str, name: &str) -> Value {
    let text = lab
        .exec(&[
            "busctl",
            "--json=short",
            "get-property",
            NAME,
            path,
            interface,
            name,
        ])
        .ok();
    serde_json::from_str::<Value>(&text).unwrap()["data"].clone()
}

pub(crate) fn object(id: &str) -> String {
    format!("{ROOT}/container/{id}")
}

const WAIT: [&str; 5] = ["a{sv}", "1", "wait", "b", "true"];

#[test]
fn a_whole_life_over_the_bus() {
    clean(|lab| {
        let spec = script(PATIENT).to_string();
        let made = answer(&call(
            lab,
            ROOT,
            MANAGER,
            "CreateContainer",
            &["ssa{sv}", "bussed", &spec, "0"],
        ));
        let path = made[0].as_str().unwrap().to_owned();
        let id = path.rsplit('/').next().unwrap().to_owned();
        assert_eq!(path, object(&id));
        assert_eq!(inspect(lab, &id)["Name"], "/bussed");
        assert_eq!(property(lab, &path, CONTAINER, "State"), "created");
        answer(&call(lab, &path, CONTAINER, "Start", &WAIT));
        wait_for_line(lab, &id, "ready");
        assert_eq!(property(lab, &path, CONTAINER, "State"), "running");
        assert_eq!(property(lab, &path, CONTAINER, "Unit"), Lab::scope(&id));
        let init = property(lab, &path, CONTAINER, "LeaderPID");
        assert_eq!(init, inspect(lab, &id)["State"]["Pid"]);
        answer(&call(lab, &path, CONTAINER, "Pause", &[]));
        assert_eq!(property(lab, &path, CONTAINER, "State"), "paused");
        answer(&call(lab, &path, CONTAINER, "Unpause", &[]));
        answer(&call(
            lab,
            &path,
            CONTAINER,
            "Restart",
            &["ta{sv}", "5000000", "1", "wait", "b", "true"],
        ));
        assert_ne!(property(lab, &path, CONTAINER, "LeaderPID"), init);
        answer(&call(
            lab,
            &path,
            CONTAINER,
            "Stop",
            &["ta{sv}", "0", "1", "wait", "b", "true"],
        ));
        assert_eq!(property(lab, &path, CONTAINER, "State"), "exited");
        let ended = answer(&call(lab, &path, CONTAINER, "Wait", &["s", "not-running"]));
        assert_eq!(ended[0], property(lab, &path, CONTAINER, "ExitCode"));
        answer(&call(lab, &path, CONTAINER, "Remove", &WAIT));
        assert_ne!(
            call(lab, ROOT, MANAGER, "GetContainer", &["s", "bussed"]).code(),
            0
        );
        lab.http()
            .get(&format!("/containers/{id}/json"))
            .expect(404);
    });
}

#[test]
fn containers_are_found_in_every_way() {
    clean(|lab| {
        let id = patient(lab, &["--name", "found"]);
        let path = object(&id);
        for reference in ["found", &id, &id[..12]] {
            assert_eq!(
                answer(&call(lab, ROOT, MANAGER, "GetContainer", &["s", reference]))[0],
                path.as_str()
            );
        }
        assert_eq!(
            answer(&call(
                lab,
                ROOT,
                MANAGER,
                "GetContainerByUnit",
                &["s", &Lab::scope(&id)]
            ))[0],
            path.as_str()
        );
        let init = inspect(lab, &id)["State"]["Pid"].to_string();
        assert_eq!(
            answer(&call(
                lab,
                ROOT,
                MANAGER,
                "GetContainerByPID",
                &["u", &init]
            ))[0],
            path.as_str()
        );
        let rows = answer(&call(lab, ROOT, MANAGER, "ListContainers", &["a{sv}", "0"]))[0].clone();
        assert_eq!(rows.as_array().unwrap().len(), 1);
        assert_eq!(
            (
                rows[0][1].as_str(),
                rows[0][2].as_str(),
                rows[0][3].as_str()
            ),
            (Some(id.as_str()), Some("found"), Some("running"))
        );
    });
}

#[test]
fn the_tree_shows_them_and_introspection_describes_them() {
    clean(|lab| {
        let id = create(lab, None, &script("true"));
        let tree = lab
            .exec(&["busctl", "--no-pager", "tree", "--list", NAME])
            .ok();
        assert!(tree.lines().any(|line| line == object(&id)), "{tree}");
        let text = lab
            .exec(&["busctl", "--no-pager", "introspect", NAME, &object(&id)])
            .ok();
        for member in [
            ".Start",
            ".Stop",
            ".Kill",
            ".Restart",
            ".Pause",
            ".Unpause",
            ".Remove",
            ".State",
            ".ExitCode",
            ".StateChanged",
        ] {
            assert!(text.contains(member), "{member}: {text}");
        }
        let managed = answer(&lab.exec(&[
            "busctl",
            "--json=short",
            "call",
            NAME,
            ROOT,
            "org.freedesktop.DBus.ObjectManager",
            "GetManagedObjects",
        ]));
        assert!(managed[0][object(&id)][CONTAINER].is_object(), "{managed}");
        lab.docker(&["rm", &id]).ok();
        let tree = lab
            .exec(&["busctl", "--no-pager", "tree", "--list", NAME])
            .ok();
        assert!(!tree.contains(&id), "{tree}");
    });
}

#[test]
fn what_the_agent_answers_is_what_its_interface_file_says() {
    clean(|lab| {
        let id = create(lab, None, &script("true"));
        // Every member of the published description is there, with its signature.
        for (path, interface) in [(ROOT.to_owned(), MANAGER), (object(&id), CONTAINER)] {
            let live = lab
                .exec(&[
                    "busctl",
                    "--xml-interface",
                    "introspect",
                    NAME,
                    &path,
                    interface,
                ])
                .ok();
            let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("../dbus/interfaces/{interface}.xml"));
            let published = std::fs::read_to_string(&file)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            for line in published.lines().map(str::trim).filter(|line| {
                line.starts_with("<method")
                    || line.starts_with("<property")
                    || line.starts_with("<signal")
            }) {
                let name = line
                    .split("name=\"")
                    .nth(1)
                    .and_then(|rest| rest.split('"').next())
                    .unwrap();
                assert!(
                    live.contains(&format!("name=\"{name}\"")),
                    "{interface}.{name} is published and not there"
                );
            }
        }
    });
}

#[test]
fn errors_have_their_names() {
    clean(|lab| {
        let text = |output: Output| {
            assert_ne!(output.code(), 0, "{}", output.describe());
            output.stderr()
        };
        let id = create(lab, Some("taken"), &script("true"));
        assert!(
            text(call(lab, ROOT, MANAGER, "GetContainer", &["s", "nobody"]))
                .to_lowercase()
                .contains("no such container")
        );
        let spec = script("true").to_string();
        // busctl prints the text alone; what it receives, and with it the name, is in its debugging output.
        let named = |name: &str, method: &str, arguments: &[&str]| {
            let argv = [
                &[
                    "env",
                    "SYSTEMD_LOG_LEVEL=debug",
                    "busctl",
                    "call",
                    NAME,
                    ROOT,
                    MANAGER,
                    method,
                ][..],
                arguments,
            ]
            .concat();
            let output = lab.exec(&argv);
            assert!(
                output.stderr().contains(name),
                "{name}: {}",
                output.describe()
            );
        };
        named(
            "org.berth.Agent1.Error.NoSuchContainer",
            "GetContainer",
            &["s", "nobody"],
        );
        named(
            "org.berth.Agent1.Error.NameInUse",
            "CreateContainer",
            &["ssa{sv}", "taken", &spec, "0"],
        );
        named(
            "org.berth.Agent1.Error.InvalidSpec",
            "CreateContainer",
            &["ssa{sv}", "", "{", "0"],
        );
        named(
            "org.berth.Agent1.Error.NoSuchImage",
            "CreateContainer",
            &["ssa{sv}", "", "{\"Image\":\"nothing\"}", "0"],
        );
        named(
            "org.berth.Agent1.Error.UnsupportedOption",
            "CreateContainer",
            &["ssa{sv}", "", &spec, "1", "colour", "s", "blue"],
        );
        let path = object(&id);
        let error = text(call(
            lab,
            &path,
            CONTAINER,
            "Start",
            &["a{sv}", "1", "colour", "s", "blue"],
        ));
        assert!(error.contains("unsupported option: colour"), "{error}");
        assert_ne!(
            call(lab, &path, CONTAINER, "Kill", &["si", "leader", "9"]).code(),
            0,
            "it does not run"
        );
        assert_ne!(
            call(lab, &path, CONTAINER, "Kill", &["si", "leader", "-1"]).code(),
            0
        );
    });
}

#[test]
fn signals_tell_what_happens() {
    clean(|lab| {
        let mut monitor = lab.spawn(&["busctl", "--json=short", "monitor", NAME]);
        let mut out = BufReader::new(monitor.child().stdout.take().unwrap());
        let mut err = BufReader::new(monitor.child().stderr.take().unwrap());
        let mut line = String::new();
        // "Monitoring bus message stream." comes once the monitor is one.
        while !line.contains("Monitoring") {
            line.clear();
            assert_ne!(err.read_line(&mut line).unwrap(), 0, "busctl monitor ended");
        }
        let id = create(lab, None, &script("exit 6"));
        lab.http()
            .post(&format!("/containers/{id}/start"))
            .expect(204);
        crate::support::wait_exit(lab, &id);
        lab.http().delete(&format!("/containers/{id}")).expect(204);
        let mut seen = Vec::new();
        let mut states = Vec::new();
        loop {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "{seen:?}");
            let Ok(message) = serde_json::from_str::<Value>(line.trim()) else {
                continue;
            };
            if message["type"] != "signal" {
                continue;
            }
            let member = message["member"].as_str().unwrap_or_default().to_owned();
            let data = &message["payload"]["data"];
            match member.as_str() {
                "StateChanged" => states.push(format!(
                    "{}→{}",
                    data[0].as_str().unwrap(),
                    data[1].as_str().unwrap()
                )),
                "Exited" => assert_eq!(data[0], 6),
                _ => {}
            }
            let last = member == "InterfacesRemoved";
            seen.push(member);
            if last {
                break;
            }
        }
        for member in [
            "InterfacesAdded",
            "ContainerNew",
            "StateChanged",
            "PropertiesChanged",
            "Exited",
        ] {
            assert!(seen.iter().any(|name| name == member), "{member}: {seen:?}");
        }
        assert_eq!(
            states.first().map(String::as_str),
            Some("created→running"),
            "{states:?}"
        );
        assert!(
            states.iter().any(|state| state == "running→exited"),
            "{states:?}"
        );
    });
}

#[test]
fn a_call_activates_the_agent() {
    clean(|lab| {
        let id = patient(lab, &[]);
        lab.stop_agent();
        assert_eq!(
            answer(&call(lab, ROOT, MANAGER, "GetContainer", &["s", &id]))[0],
            object(&id).as_str()
        );
        assert!(lab.agent().is_some());
    });
}

#[test]
fn jobs_end_with_a_signal() {
    clean(|lab| {
        let id = create(lab, None, &script(PATIENT));
        let mut monitor = lab.spawn(&[
            "busctl",
            "--json=short",
            "monitor",
            "--match",
            "type='signal',member='JobRemoved'",
            NAME,
        ]);
        let mut err = BufReader::new(monitor.child().stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("Monitoring") {
            line.clear();
            assert_ne!(err.read_line(&mut line).unwrap(), 0);
        }
        let job = answer(&call(
            lab,
            &object(&id),
            CONTAINER,
            "Start",
            &["a{sv}", "0"],
        ));
        let job = job[0].as_str().unwrap().to_owned();
        assert!(job.starts_with(&format!("{ROOT}/job/")), "{job}");
        let mut out = BufReader::new(monitor.child().stdout.take().unwrap());
        let message = loop {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "no JobRemoved");
            if let Ok(message) = serde_json::from_str::<Value>(line.trim())
                && message["member"] == "JobRemoved"
                && message["interface"] == MANAGER
            {
                break message;
            }
        };
        let data = &message["payload"]["data"];
        assert_eq!(
            (data[1].as_str(), data[2].as_str(), data[3].as_str()),
            (Some(job.as_str()), Some(object(&id).as_str()), Some("done"))
        );
    });
}

#[test]
fn the_policy_denies_by_default_and_polkit_decides() {
    clean(|lab| {
        let id = patient(lab, &["--name", "mine"]);
        let path = object(&id);
        let as_alice = |arguments: &[&str]| {
            let argv: Vec<&str> = ["busctl", "--json=short", "--timeout=30"]
                .iter()
                .chain(arguments)
                .copied()
                .collect();
            lab.exec_as("alice", &argv)
        };
        // Looking is for everybody; what may be secret is not, nor is any change.
        assert_eq!(
            as_alice(&["get-property", NAME, &path, CONTAINER, "State"]).code(),
            0
        );
        for arguments in [
            &["call", NAME, &path, CONTAINER, "Stop", "ta{sv}", "0", "0"][..],
            &["call", NAME, &path, CONTAINER, "Start", "a{sv}", "0"],
            &["call", NAME, &path, CONTAINER, "Kill", "si", "leader", "9"],
            &[
                "call", NAME, &path, CONTAINER, "Remove", "a{sv}", "1", "force", "b", "true",
            ],
            &["call", NAME, &path, CONTAINER, "Describe"],
            &[
                "call",
                NAME,
                ROOT,
                MANAGER,
                "CreateContainer",
                "ssa{sv}",
                "x",
                &script("true").to_string(),
                "0",
            ],
            &[
                "call",
                NAME,
                &path,
                "org.freedesktop.DBus.Properties",
                "Set",
                "ssv",
                CONTAINER,
                "State",
                "s",
                "x",
            ],
        ] {
            let run = as_alice(arguments);
            assert_ne!(run.code(), 0, "alice may: {arguments:?}");
            let said = run.stderr().to_lowercase();
            assert!(
                said.contains("denied")
                    || said.contains("authenticat")
                    || said.contains("authoriz")
                    || said.contains("read-only")
                    || said.contains("not"),
                "{arguments:?}: {said}"
            );
        }
        assert_eq!(inspect(lab, &id)["State"]["Running"], true);
        // A rule of the administrator opens one verb on one container, and nothing else.
        let rule = "polkit.addRule(function(action, subject) { if (subject.user == 'alice' && action.id.indexOf('org.berth.agent1.') == 0 && action.lookup('name') == 'mine' && action.lookup('verb') == 'stop') return polkit.Result.YES; });";
        lab.sh(&format!("cat >/etc/polkit-1/rules.d/10-lab.rules <<'RULE'\n{rule}\nRULE\nchmod 644 /etc/polkit-1/rules.d/10-lab.rules; systemctl restart polkit"));
        let stopped = as_alice(&[
            "call", NAME, &path, CONTAINER, "Stop", "ta{sv}", "0", "1", "wait", "b", "true",
        ]);
        let removed = as_alice(&["call", NAME, &path, CONTAINER, "Remove", "a{sv}", "0"]);
        lab.sh("rm /etc/polkit-1/rules.d/10-lab.rules; systemctl restart polkit");
        stopped.ok();
        assert_ne!(removed.code(), 0, "B.13: one verb alone");
        assert_eq!(inspect(lab, &id)["State"]["ExitCode"], 7);
    });
}

#[test]
fn no_polkit_means_root_alone() {
    clean(|lab| {
        let id = patient(lab, &[]);
        lab.sh("systemctl stop polkit; systemctl mask --runtime polkit");
        let alice = lab.exec_as(
            "alice",
            &[
                "busctl",
                "--timeout=30",
                "call",
                NAME,
                &object(&id),
                CONTAINER,
                "Stop",
                "ta{sv}",
                "0",
                "0",
            ],
        );
        let root = call(
            lab,
            &object(&id),
            CONTAINER,
            "Stop",
            &["ta{sv}", "0", "1", "wait", "b", "true"],
        );
        lab.sh("systemctl unmask --runtime polkit");
        assert_ne!(alice.code(), 0, "B.13: an error is a no");
        root.ok();
    });
}

#[test]
fn the_name_comes_back_with_the_bus() {
    clean(|lab| {
        let id = patient(lab, &[]);
        lab.exec(&["systemctl", "restart", "dbus.service"]).ok();
        assert_eq!(
            answer(&call(lab, ROOT, MANAGER, "GetContainer", &["s", &id]))[0],
            object(&id).as_str()
        );
        lab.http().get("/containers/json").expect(200);
        lab.sh("systemctl reset-failed dbus.service dbus.socket 2>/dev/null || true");
    });
}

#[test]
fn bad_arguments_are_refused() {
    clean(|lab| {
        let pid = lab.agent();
        for (method, arguments) in [
            ("GetContainer", vec!["s", ""]),
            ("GetContainer", vec!["s", "../../etc"]),
            ("GetContainerByPID", vec!["u", "0"]),
            ("GetContainerByPID", vec!["u", "1"]),
            ("GetContainerByUnit", vec!["s", "ssh.service"]),
            ("GetJob", vec!["u", "4000000000"]),
            (
                "CreateContainer",
                vec!["ssa{sv}", "../x", "{\"Image\":\"busybox\"}", "0"],
            ),
            ("CreateContainer", vec!["ssa{sv}", "", "[]", "0"]),
            (
                "CreateContainer",
                vec![
                    "ssa{sv}",
                    "",
                    "{\"Image\":\"busybox\"}",
                    "1",
                    "nonsense",
                    "b",
                    "true",
                ],
            ),
            ("NoSuchMethod", vec![]),
        ] {
            let run = call(lab, ROOT, MANAGER, method, &arguments);
            assert_ne!(
                run.code(),
                0,
                "C.6 {method} {arguments:?}: {}",
                run.describe()
            );
        }
        assert_eq!(lab.agent(), pid);
        assert_eq!(lab.http().get("/containers/json?all=1").json(), json!([]));
    });
}
