//! What everybody may see of a container: the properties of its object. Made from the engine's copy,
//! compared with the one before, and the differences are what `PropertiesChanged` tells.

use zbus::Variant;

use berth_engine::{Container, Status};
use berth_model::time::Timestamp;

/// The public side of one container. Field for field the properties of `…Container`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub id: String,
    pub name: String,
    pub image_id: String,
    pub image_ref: String,
    pub state: Status,
    pub exit_code: i32,
    pub exit_reason: &'static str,
    pub oom_killed: bool,
    pub restart_count: u32,
    /// Microseconds since the epoch; 0 = never.
    pub created_at: u64,
    pub started_at: u64,
    pub finished_at: u64,
    pub leader_pid: u32,
    pub unit: String,
    pub slice: String,
    pub control_group: String,
    /// `no`, `always`, …, and the most restarts (0 = no bound).
    pub restart_policy: (String, u32),
}

impl View {
    pub(crate) fn of(container: &Container) -> View {
        let state = &container.state;
        let policy = &container.spec.host.restart;
        View {
            id: container.id.clone(),
            name: container.name.clone(),
            image_id: container.image.to_string(),
            image_ref: container.image_ref.clone(),
            state: state.status,
            exit_code: clamped(state.exit_code),
            exit_reason: exit_reason(container),
            oom_killed: state.oom_killed,
            restart_count: u32::try_from(container.restart_count).unwrap_or(u32::MAX),
            created_at: micros(container.created),
            started_at: micros(state.started_at),
            finished_at: micros(state.finished_at),
            leader_pid: state.pid,
            unit: container.unit.clone(),
            slice: slice(&container.control_group).to_owned(),
            control_group: container.control_group.clone(),
            restart_policy: (
                if policy.name.is_empty() {
                    "no".to_owned()
                } else {
                    policy.name.clone()
                },
                u32::try_from(policy.maximum_retry_count).unwrap_or(0),
            ),
        }
    }

    /// Every property under its name, as the bus carries it.
    pub(crate) fn properties(&self) -> Vec<(&'static str, Variant<'static>)> {
        vec![
            ("Id", text(&self.id)),
            ("Name", text(&self.name)),
            ("ImageID", text(&self.image_id)),
            ("ImageRef", text(&self.image_ref)),
            ("State", Variant::from(self.state.as_str())),
            ("ExitCode", Variant::I32(self.exit_code)),
            ("ExitReason", Variant::from(self.exit_reason)),
            ("OOMKilled", Variant::Bool(self.oom_killed)),
            ("RestartCount", Variant::U32(self.restart_count)),
            ("CreatedAt", Variant::U64(self.created_at)),
            ("StartedAt", Variant::U64(self.started_at)),
            ("FinishedAt", Variant::U64(self.finished_at)),
            ("LeaderPID", Variant::U32(self.leader_pid)),
            ("Unit", text(&self.unit)),
            ("Slice", text(&self.slice)),
            ("ControlGroup", text(&self.control_group)),
            ("RestartPolicy", Variant::from(self.restart_policy.clone())),
        ]
    }

    /// The properties of `self` that are not as they were in `before`.
    pub(crate) fn changes_since(&self, before: &View) -> Vec<(&'static str, Variant<'static>)> {
        let before = before.properties();
        self.properties()
            .into_iter()
            .zip(before)
            .filter(|(now, then)| now.1 != then.1)
            .map(|(now, _)| now)
            .collect()
    }

    /// Whether the container counts as running in the manager's `NRunning`.
    pub(crate) fn is_running(&self) -> bool {
        self.state.is_live()
    }
}

/// Why the container last ended: `exited`, `oom`, `stopped`, `error` (it could not be started), or
/// nothing when it has not ended.
fn exit_reason(container: &Container) -> &'static str {
    let state = &container.state;
    if state.status.is_live() {
        ""
    } else if !state.error.is_empty() {
        "error"
    } else if micros(state.finished_at) == 0 {
        ""
    } else if state.oom_killed {
        "oom"
    } else if state.stopped_by_user {
        "stopped"
    } else {
        "exited"
    }
}

/// The innermost slice in a cgroup path.
fn slice(control_group: &str) -> &str {
    control_group
        .rsplit('/')
        .find(|part| part.ends_with(".slice"))
        .unwrap_or_default()
}

pub(crate) fn micros(time: Timestamp) -> u64 {
    u64::try_from(time.nanos() / 1000).unwrap_or(0)
}

pub(crate) fn clamped(exit_code: i64) -> i32 {
    i32::try_from(exit_code).unwrap_or(i32::MAX)
}

fn text(text: &str) -> Variant<'static> {
    Variant::from(text.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A running container.
    pub(crate) fn sample() -> View {
        View {
            id: "0123456789abcdef".repeat(4),
            name: "web".to_owned(),
            image_id: format!("sha256:{}", "ab".repeat(32)),
            image_ref: "nginx:1".to_owned(),
            state: Status::Running,
            exit_code: 0,
            exit_reason: "",
            oom_killed: false,
            restart_count: 2,
            created_at: 1_700_000_000_000_000,
            started_at: 1_700_000_001_000_000,
            finished_at: 0,
            leader_pid: 4242,
            unit: "berth-0123456789ab.scope".to_owned(),
            slice: "berth.slice".to_owned(),
            control_group: "/berth.slice/berth-0123456789ab.scope".to_owned(),
            restart_policy: ("no".to_owned(), 0),
        }
    }

    #[test]
    fn only_differences_are_told() {
        let before = sample();
        assert!(before.changes_since(&before).is_empty());
        let after = View {
            state: Status::Exited,
            exit_code: 137,
            leader_pid: 0,
            ..before.clone()
        };
        let names: Vec<&str> = after
            .changes_since(&before)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["State", "ExitCode", "LeaderPID"]);
    }

    #[test]
    fn slices_are_found_in_paths() {
        assert_eq!(slice("/berth.slice/berth-a.scope"), "berth.slice");
        assert_eq!(
            slice("/berth.slice/berth-x.slice/a.scope/payload"),
            "berth-x.slice"
        );
        assert_eq!(slice("/berth/abc/payload"), "");
        assert_eq!(slice(""), "");
    }

    #[test]
    fn secrets_have_no_property() {
        for (name, _) in sample().properties() {
            assert!(
                !["Labels", "Env", "Cmd", "Args", "Mounts"].contains(&name),
                "{name}"
            );
        }
    }

    #[test]
    fn times() {
        assert_eq!(micros(Timestamp::ZERO), 0);
        assert_eq!(micros(Timestamp::from_nanos(1_500_000)), 1500);
        assert_eq!(clamped(i64::MAX), i32::MAX);
    }
}
