//! Both faces call the same engine: the same verbs through REST and through D-Bus leave the same container, the same
//! events and the same kinds of error.

use berth_tests::lab::Lab;
use serde_json::Value;

use crate::dbus::{answer, call, object};
use crate::support::{PATIENT, clean, create, inspect, script, wait_for_lines};

const ROOT: &str = "/org/berth/Agent1";
const MANAGER: &str = "org.berth.Agent1.Manager";
const CONTAINER: &str = "org.berth.Agent1.Container";

/// One way to speak to the agent.
trait Face {
    fn create(&self, lab: &Lab, name: &str, body: &Value) -> String;
    /// `ok`, or the kind of error in words that both faces have.
    fn act(&self, lab: &Lab, id: &str, verb: &str) -> &'static str;
}

struct Rest;
struct Bus;

impl Face for Rest {
    fn create(&self, lab: &Lab, name: &str, body: &Value) -> String {
        create(lab, Some(name), body)
    }

    fn act(&self, lab: &Lab, id: &str, verb: &str) -> &'static str {
        let http = lab.http();
        let path = match verb {
            "kill" => format!("/containers/{id}/kill?signal=TERM"),
            other => format!("/containers/{id}/{other}"),
        };
        let answer = if verb == "remove" {
            http.delete(&format!("/containers/{id}"))
        } else {
            http.post(&path)
        };
        match answer.status {
            204 => "ok",
            304 => "already",
            404 => "missing",
            409 => "conflict",
            other => panic!("REST {verb}: {other} {}", answer.text()),
        }
    }
}

impl Face for Bus {
    fn create(&self, lab: &Lab, name: &str, body: &Value) -> String {
        let made = answer(&call(
            lab,
            ROOT,
            MANAGER,
            "CreateContainer",
            &["ssa{sv}", name, &body.to_string(), "0"],
        ));
        made[0]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    }

    fn act(&self, lab: &Lab, id: &str, verb: &str) -> &'static str {
        let wait = ["1", "wait", "b", "true"];
        let (method, arguments): (&str, Vec<&str>) = match verb {
            "start" => ("Start", [&["a{sv}"][..], &wait].concat()),
            "stop" => ("Stop", [&["ta{sv}", "0"][..], &wait].concat()),
            "restart" => ("Restart", [&["ta{sv}", "0"][..], &wait].concat()),
            "remove" => ("Remove", [&["a{sv}"][..], &wait].concat()),
            "kill" => ("Kill", vec!["si", "leader", "15"]),
            "pause" => ("Pause", vec![]),
            "unpause" => ("Unpause", vec![]),
            other => panic!("{other}"),
        };
        let run = call(lab, &object(id), CONTAINER, method, &arguments);
        if run.code() == 0 {
            return "ok";
        }
        let said = run.stderr().to_lowercase();
        match () {
            () if said.contains("already started")
                || said.contains("already stopped")
                || said.contains("already running")
                || said.contains("not modified")
                || said.contains("already") && (verb == "start" || verb == "stop") =>
            {
                "already"
            }
            () if said.contains("no such container") || said.contains("unknown object") => {
                "missing"
            }
            () => "conflict",
        }
    }
}

/// Walks every verb, in right and wrong states, and gives what was answered and what the container then was.
fn walk(lab: &Lab, face: &dyn Face, name: &str) -> Vec<String> {
    let mut story = Vec::new();
    let since = lab.sh("date +%s.%N");
    let id = face.create(lab, name, &script(PATIENT));
    let mut note = |what: &str, answer: &str| {
        let state = lab.http().get(&format!("/containers/{id}/json"));
        let state = if state.status == 200 {
            let state = state.json()["State"].clone();
            format!(
                "{} {} {}",
                state["Status"], state["ExitCode"], state["Error"]
            )
        } else {
            "gone".to_owned()
        };
        story.push(format!("{what}: {answer}, then {state}"));
    };
    for verb in [
        "stop", "kill", "pause", "unpause", "start", "start", "pause", "pause", "remove",
        "unpause", "unpause",
    ] {
        note(verb, face.act(lab, &id, verb));
    }
    wait_for_lines(lab, &id, "ready", 1);
    for verb in ["stop", "stop", "start"] {
        note(verb, face.act(lab, &id, verb));
    }
    wait_for_lines(lab, &id, "ready", 2);
    note("restart", face.act(lab, &id, "restart"));
    assert_eq!(inspect(lab, &id)["State"]["Running"], true);
    wait_for_lines(lab, &id, "ready", 3);
    note("stop", face.act(lab, &id, "stop"));
    note("remove", face.act(lab, &id, "remove"));
    note("remove", face.act(lab, &id, "remove"));
    let until = lab.sh("date +%s.%N");
    let events = lab
        .docker(&[
            "events",
            "--since",
            &since,
            "--until",
            &until,
            "--filter",
            &format!("container={id}"),
            "--format",
            "{{.Action}} {{index .Actor.Attributes \"exitCode\"}}",
        ])
        .ok();
    story.push(events);
    story
}

#[test]
fn the_same_verbs_have_the_same_results() {
    clean(|lab| {
        let rest = walk(lab, &Rest, "same");
        let bus = walk(lab, &Bus, "same");
        for (one, other) in rest.iter().zip(&bus) {
            assert_eq!(one, other, "\nREST: {rest:#?}\nD-Bus: {bus:#?}");
        }
        assert_eq!(rest.len(), bus.len());
    });
}

#[test]
fn both_describe_the_same_container() {
    clean(|lab| {
        let id = create(lab, Some("described"), &script("true"));
        let text = answer(&call(lab, &object(&id), CONTAINER, "Describe", &[]));
        let bus: Value = serde_json::from_str(text[0].as_str().unwrap()).unwrap();
        assert_eq!(bus, inspect(lab, &id));
    });
}
