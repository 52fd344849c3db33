//! Who may do what: every method that changes something, or tells what may be secret, comes through
//! here. Root may; everyone else is polkit's to judge, by the sender's bus name. One question per
//! call, with what will really be done in the details; nothing is remembered.

use zbus::Connection;
use zbus::message::{Flags, Header};

use crate::calls::{Calls, Key};
use crate::error::{BusError, Result, Verb};
use crate::view::View;
use berth_engine::{ContainerSpec, HostSpec};
use berth_systemd::polkit::{Authority, Decision, Subject};

/// The polkit actions. Their defaults are in `org.berth.Agent1.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A container that stays in the default sandbox.
    Create,
    /// A container that is given some of the host.
    CreatePrivileged,
    /// Start, stop, rename, remove…
    Manage,
    /// Environment, labels, command lines, mounts.
    Inspect,
}

impl Action {
    pub(crate) fn id(self) -> &'static str {
        match self {
            Action::Create => "org.berth.agent1.create",
            Action::CreatePrivileged => "org.berth.agent1.create-privileged",
            Action::Manage => "org.berth.agent1.manage",
            Action::Inspect => "org.berth.agent1.inspect",
        }
    }

    /// The action behind a verb; `None` for what everyone may.
    pub(crate) fn of(verb: Verb) -> Option<Action> {
        match verb {
            Verb::Look => None,
            Verb::Inspect | Verb::Subscribe | Verb::Wait => Some(Action::Inspect),
            Verb::Create => Some(Action::Create),
            Verb::Start
            | Verb::Stop
            | Verb::Restart
            | Verb::Kill
            | Verb::Pause
            | Verb::Unpause
            | Verb::Rename
            | Verb::Remove => Some(Action::Manage),
        }
    }
}

/// One call that is being carried out.
#[derive(Debug)]
pub(crate) struct Call {
    pub connection: Connection,
    /// The caller's unique name.
    pub sender: String,
    pub key: Key,
    subject: Subject,
    interactive: bool,
    /// Set when no answer is due: the end of the call is ours to report.
    silent: Option<Calls>,
}

impl Call {
    /// A message without a sender cannot be judged; no bus delivers one.
    pub(crate) fn new(connection: &Connection, header: &Header<'_>, calls: &Calls) -> Result<Call> {
        let (Some(sender), Some(subject), Some(key)) = (
            header.sender(),
            Subject::from_header(header),
            Key::of_call(header),
        ) else {
            return Err(BusError::denied("the caller is unknown"));
        };
        let flags = header.primary().flags();
        Ok(Call {
            connection: connection.clone(),
            sender: sender.to_string(),
            key,
            subject,
            interactive: flags.contains(Flags::ALLOW_INTERACTIVE_AUTH),
            silent: flags
                .contains(Flags::NO_REPLY_EXPECTED)
                .then(|| calls.clone()),
        })
    }

    /// Asks about a verb on a container.
    pub(crate) async fn may(&self, verb: Verb, view: &View) -> Result<()> {
        let Some(action) = Action::of(verb) else {
            return Ok(());
        };
        let details = [
            ("verb", verb.as_str()),
            ("container", view.id.as_str()),
            ("name", view.name.as_str()),
            ("image", view.image_ref.as_str()),
            ("unit", view.unit.as_str()),
        ];
        self.ask(action, &details).await
    }

    /// Asks about a container that is to be made: about the parsed request, not about its text.
    pub(crate) async fn may_create(&self, name: &str, spec: &ContainerSpec) -> Result<()> {
        let privilege = privilege(spec);
        let action = match privilege {
            Some(_) => Action::CreatePrivileged,
            None => Action::Create,
        };
        let details = [
            ("verb", Verb::Create.as_str()),
            ("name", name),
            ("image", spec.image.as_str()),
            ("privileged", privilege.unwrap_or("no")),
        ];
        self.ask(action, &details).await
    }

    /// Asks about everything at once: events tell of all containers.
    pub(crate) async fn may_subscribe(&self) -> Result<()> {
        let details = [("verb", Verb::Subscribe.as_str())];
        self.ask(Action::Inspect, &details).await
    }

    async fn ask(&self, action: Action, details: &[(&str, &str)]) -> Result<()> {
        match self.decision(action, details, self.interactive).await {
            Decision::Allowed => Ok(()),
            Decision::Challenge => Err(BusError::needs_interaction()),
            Decision::Denied(reason) => Err(BusError::denied(reason)),
        }
    }

    pub(crate) async fn decision(
        &self,
        action: Action,
        details: &[(&str, &str)],
        interactive: bool,
    ) -> Decision {
        Authority::on(self.connection.clone())
            .check(&self.subject, action.id(), details, interactive)
            .await
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(calls) = &self.silent {
            calls.end(&self.key);
        }
    }
}

/// What of the host a container would be given, in a word for the administrator's rules; `None`
/// when it stays in the default sandbox.
///
/// Every field is named on purpose: one that is added to the specification must be judged here
/// before this compiles again.
fn privilege(spec: &ContainerSpec) -> Option<&'static str> {
    let HostSpec {
        binds,
        mounts,
        volumes_from,
        privileged,
        cap_add,
        masked_paths,
        readonly_paths,
        ulimits,
        devices,
        device_cgroup_rules,
        cgroup_parent,
        runtime,
        oom_score_adj,
        oom_kill_disable,
        container_id_file,
        volume_driver,
        isolation,
        // Judged as a whole below.
        network_mode: _,
        ipc_mode: _,
        pid_mode: _,
        uts_mode: _,
        cgroupns_mode: _,
        userns_mode: _,
        security_opt: _,
        // Memory of the container's own, its own files, names in its own resolver.
        tmpfs: _,
        shm_size: _,
        extra_hosts: _,
        dns: _,
        dns_search: _,
        dns_options: _,
        links: _,
        // Less than the default.
        cap_drop: _,
        read_only: _,
        resources: _,
        // Groups matter on what is shared with the host; sysctls must be namespaced; both are
        // nothing in the default sandbox.
        group_add: _,
        sysctls: _,
        // Ports of the host are not served yet; when they are, low ones need an action.
        port_bindings: _,
        publish_all_ports: _,
        init: _,
        restart: _,
        auto_remove: _,
        log: _,
        annotations: _,
        console_size: _,
        storage_opt: _,
    } = &spec.host;
    let found = [
        (*privileged, "privileged"),
        (shares_namespace(&spec.host), "namespace"),
        (!binds.is_empty(), "bind"),
        (mounts.iter().any(|mount| mount.kind != "tmpfs"), "mount"),
        (!volumes_from.is_empty(), "volumes-from"),
        (!volume_driver.is_empty(), "volume-driver"),
        (
            !devices.is_empty() || !device_cgroup_rules.is_empty(),
            "device",
        ),
        (!cap_add.is_empty(), "capability"),
        (weakens_security(&spec.host), "security-opt"),
        (
            masked_paths.is_some() || readonly_paths.is_some(),
            "system-paths",
        ),
        (!cgroup_parent.is_empty(), "cgroup-parent"),
        (
            oom_score_adj.is_some_and(|score| score < 0) || *oom_kill_disable,
            "oom",
        ),
        (!ulimits.is_empty(), "ulimit"),
        (!runtime.is_empty() || !isolation.is_empty(), "runtime"),
        (!container_id_file.is_empty(), "host-file"),
    ];
    found
        .into_iter()
        .find_map(|(is_so, word)| is_so.then_some(word))
}

/// Joins a namespace of the host or of another container. A private or default one is harmless.
fn shares_namespace(host: &HostSpec) -> bool {
    let joins = |mode: &str| !matches!(mode, "" | "private" | "none" | "shareable");
    // For the network, names stand for networks of ours; only these two share one.
    let network = host.network_mode == "host" || host.network_mode.starts_with("container:");
    network
        || joins(&host.ipc_mode)
        || joins(&host.pid_mode)
        || joins(&host.uts_mode)
        || joins(&host.cgroupns_mode)
        || joins(&host.userns_mode)
}

/// Only a stricter option is harmless.
fn weakens_security(host: &HostSpec) -> bool {
    !host.security_opt.iter().all(|option| {
        matches!(
            option.as_str(),
            "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true"
        )
    })
}

#[cfg(test)]
mod tests {
    use berth_engine::{Bind, Device, Mount, Ulimit};

    use super::*;

    #[test]
    fn the_default_sandbox_is_no_privilege() {
        let mut spec = ContainerSpec {
            image: "busybox".to_owned(),
            ..ContainerSpec::default()
        };
        spec.host.network_mode = "bridge".to_owned();
        spec.host.ipc_mode = "private".to_owned();
        spec.host.security_opt = vec!["no-new-privileges".to_owned()];
        spec.host.cap_drop = vec!["ALL".to_owned()];
        spec.host.mounts = vec![Mount {
            kind: "tmpfs".to_owned(),
            ..Mount::default()
        }];
        assert_eq!(privilege(&spec), None);
    }

    #[test]
    fn everything_of_the_host_is_a_privilege() {
        type Change = fn(&mut HostSpec);
        let table: [(Change, &str); 20] = [
            (|h| h.privileged = true, "privileged"),
            (|h| h.network_mode = "host".into(), "namespace"),
            (|h| h.network_mode = "container:x".into(), "namespace"),
            (|h| h.ipc_mode = "host".into(), "namespace"),
            (|h| h.pid_mode = "container:x".into(), "namespace"),
            (|h| h.uts_mode = "host".into(), "namespace"),
            (|h| h.cgroupns_mode = "host".into(), "namespace"),
            (|h| h.userns_mode = "host".into(), "namespace"),
            (|h| h.binds = vec![Bind::default()], "bind"),
            (
                |h| {
                    h.mounts = vec![Mount {
                        kind: "bind".into(),
                        ..Mount::default()
                    }]
                },
                "mount",
            ),
            (|h| h.volumes_from = vec!["x".into()], "volumes-from"),
            (|h| h.devices = vec![Device::default()], "device"),
            (|h| h.device_cgroup_rules = vec!["a".into()], "device"),
            (|h| h.cap_add = vec!["NET_ADMIN".into()], "capability"),
            (
                |h| h.security_opt = vec!["seccomp=unconfined".into()],
                "security-opt",
            ),
            (
                |h| h.security_opt = vec!["no-new-privileges=false".into()],
                "security-opt",
            ),
            (|h| h.masked_paths = Some(vec![]), "system-paths"),
            (|h| h.cgroup_parent = "system.slice".into(), "cgroup-parent"),
            (|h| h.oom_score_adj = Some(-1), "oom"),
            (|h| h.ulimits = vec![Ulimit::default()], "ulimit"),
        ];
        for (change, want) in table {
            let mut spec = ContainerSpec::default();
            change(&mut spec.host);
            assert_eq!(privilege(&spec), Some(want));
        }
    }

    #[test]
    fn every_verb_but_looking_has_an_action() {
        for verb in Verb::ALL {
            assert_eq!(Action::of(verb).is_none(), verb == Verb::Look, "{verb:?}");
        }
    }

    #[test]
    fn the_policy_file_has_every_action() {
        let policy = include_str!("../org.berth.Agent1.policy");
        for action in [
            Action::Create,
            Action::CreatePrivileged,
            Action::Manage,
            Action::Inspect,
        ] {
            assert!(policy.contains(&format!("<action id=\"{}\">", action.id())));
        }
    }
}
