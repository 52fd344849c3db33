//! What the files that are installed say is what the code does: interfaces and bus policy.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use zbus::object_server::Interface;

use crate::container::ContainerObject;
use crate::job::JobObject;
use crate::manager::ManagerObject;
use crate::objects::Objects;
use crate::shared::Slot;
use crate::view::tests::sample;

const POLICY: &str = include_str!("../org.berth.Agent1.conf");

/// An interface as the object server describes it, and as its file does.
struct Described {
    name: &'static str,
    code: String,
    file: &'static str,
}

fn interfaces() -> [Described; 3] {
    let manager = ManagerObject::new(Weak::new(), "1".to_owned());
    let slot = Arc::new(Slot::new(sample()));
    let container = ContainerObject::new(Weak::new(), sample().id, slot);
    let job = JobObject::sample();
    [
        Described {
            name: "org.berth.Agent1.Manager",
            code: introspected(&manager),
            file: include_str!("../interfaces/org.berth.Agent1.Manager.xml"),
        },
        Described {
            name: "org.berth.Agent1.Container",
            code: introspected(&container),
            file: include_str!("../interfaces/org.berth.Agent1.Container.xml"),
        },
        Described {
            name: "org.berth.Agent1.Job",
            code: introspected(&job),
            file: include_str!("../interfaces/org.berth.Agent1.Job.xml"),
        },
    ]
}

fn introspected(object: &dyn Interface) -> String {
    let mut xml = String::new();
    object.introspect_to_writer(&mut xml, 2);
    xml
}

/// The lines that mean something: no comments, no blanks, no indentation, no frame.
fn meaning(xml: &str) -> Vec<String> {
    let mut text = String::new();
    let mut rest = xml;
    while let Some((before, comment)) = rest.split_once("<!--") {
        text.push_str(before);
        rest = comment.split_once("-->").map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    text.lines()
        .map(str::trim)
        .filter(|line| {
            let framing = ["<!DOCTYPE", "\"http", "<node>", "</node>", "<?xml"];
            !line.is_empty() && !framing.iter().any(|start| line.starts_with(start))
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_interface_files_say_what_the_code_does() {
    for Described { name, code, file } in interfaces() {
        assert_eq!(
            meaning(file).join("\n"),
            meaning(&code).join("\n"),
            "interfaces/{name}.xml (left) is not what the code serves (right)"
        );
    }
}

#[test]
fn every_method_and_signal_is_explained() {
    for Described { name, file, .. } in interfaces() {
        let mut before = "";
        for line in file.lines().map(str::trim) {
            let is_member = line.starts_with("<method ") || line.starts_with("<signal ");
            assert!(
                !is_member || before.ends_with("-->"),
                "{name}: {line} has no comment"
            );
            before = line;
        }
    }
}

/// The bus lets everyone call exactly the methods that there are: polkit decides about each. What
/// the file does not list is for root.
#[test]
fn the_bus_policy_lists_every_method_and_nothing_else() {
    let mut served = BTreeSet::new();
    for Described { name, code, .. } in interfaces() {
        for method in attributes(&code, "<method name=\"") {
            served.insert(format!("{name}.{method}"));
        }
    }
    let one_line = POLICY.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut allowed = BTreeSet::new();
    for rule in one_line.split("<allow ").skip(1) {
        let rule = rule.split_once("/>").map_or("", |(rule, _)| rule);
        let interface = attributes(rule, "send_interface=\"").pop();
        let member = attributes(rule, "send_member=\"").pop();
        match (interface, member) {
            (Some(interface), Some(member)) => {
                if interface.starts_with("org.berth.") {
                    allowed.insert(format!("{interface}.{member}"));
                }
            }
            (None, None) => {}
            _ => panic!("a rule for a whole interface, or for a member of any: {rule}"),
        }
    }
    assert_eq!(allowed, served);
    assert!(one_line.contains(r#"<deny send_destination="org.berth.Agent1"/>"#));
}

#[test]
fn the_object_manager_has_the_standard_members() {
    let xml = introspected(&Objects::new(Weak::new()));
    assert!(
        xml.contains("GetManagedObjects") && xml.contains("a{oa{sa{sv}}}"),
        "{xml}"
    );
    assert!(
        xml.contains("oa{sa{sv}}") || xml.contains("InterfacesAdded"),
        "{xml}"
    );
}

/// The getters and the list behind `PropertiesChanged` and the object manager are written twice;
/// both must have the same names and types.
#[test]
fn the_property_list_is_the_interface() {
    let [_, container, job] = interfaces();
    let lists = [
        (container, sample().properties()),
        (job, JobObject::sample().properties()),
    ];
    for (described, list) in lists {
        let listed: BTreeSet<String> = list
            .iter()
            .map(|(name, value)| {
                format!(
                    "<property name=\"{name}\" type=\"{}\"",
                    value.value_signature()
                )
            })
            .collect();
        let served: BTreeSet<String> = meaning(&described.code)
            .iter()
            .filter(|line| line.starts_with("<property "))
            .map(|line| {
                let end = line.find(" access").expect("every property has an access");
                line[..end].to_owned()
            })
            .collect();
        assert_eq!(listed, served);
    }
}

fn attributes(text: &str, start: &str) -> Vec<String> {
    text.split(start)
        .skip(1)
        .filter_map(|rest| rest.split_once('"'))
        .map(|(value, _)| value.to_owned())
        .collect()
}
