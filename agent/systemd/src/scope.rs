//! A container's scope as unit properties. Pure: what is sent is decided here, sending it is
//! `manager`'s.
//!
//! The set is the one that systemd 252 was seen to accept and to honour:
//! * `KillSignal=SIGURG`: programs ignore it by default and the monitor takes it (from PID 1 only)
//!   as "stop this container", so `systemctl stop` is a graceful stop with or without the agent.
//! * No `Controller`: it is forgotten for ever when the agent leaves the bus, and a stop would then
//!   reach nobody.
//! * No `KillMode`: on a scope anything but the default sends no polite signal at all.
//! * `DefaultDependencies=false` with an own order against shutdown.target: else the scope dies
//!   before the units that need it.

use zbus::Variant;

use crate::limits::{INFINITY, Limits};

/// The slice that scopes go to.
pub const DEFAULT_SLICE: &str = "berth.slice";

/// What the names of our scopes start and end with.
pub const PREFIX: &str = "berth-";
pub const SUFFIX: &str = ".scope";

/// `SIGURG` on every architecture that Linux serves containers on but MIPS, SPARC and PA-RISC,
/// for which berth is not built.
const STOP_SIGNAL: i32 = 23;

/// The longest description that is sent; it is for people to read.
const DESCRIPTION_MAX: usize = 256;

/// The properties that a scope of ours cannot do without: never dropped, even when the manager
/// says it does not know them.
const REQUIRED: [&str; 6] = [
    "Slice",
    "Delegate",
    "PIDs",
    "DefaultDependencies",
    "KillSignal",
    "TimeoutStopUSec",
];

/// One property as `StartTransientUnit` takes it.
pub type Property = (&'static str, Variant<'static>);

/// What a scope is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeSettings {
    /// What `systemctl status` shows; see [`description`].
    pub description: String,
    /// Fixed at creation.
    pub slice: String,
    /// From the stop job to SIGKILL, fixed at creation. The container's own stop timeout and some
    /// slack for the monitor; [`stop_limit`] makes it.
    pub timeout_stop_usec: u64,
    pub limits: Limits,
}

impl Default for ScopeSettings {
    fn default() -> Self {
        Self {
            description: String::new(),
            slice: DEFAULT_SLICE.to_owned(),
            timeout_stop_usec: stop_limit(10),
            limits: Limits::default(),
        }
    }
}

/// A scope that was started and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeStarted {
    /// The cgroup below the hierarchy's root, as the kernel names it (`/berth.slice/…`).
    pub control_group: String,
    /// Properties that this systemd does not know; the limits behind them do not hold.
    pub discarded: Vec<String>,
}

impl ScopeSettings {
    /// The properties for a scope whose first process is `pid`, without those in `unknown`.
    ///
    /// The second list is what was asked and left out.
    pub fn properties(
        &self,
        pid: u32,
        unknown: impl Fn(&str) -> bool,
    ) -> (Vec<Property>, Vec<String>) {
        let fixed = [
            ("Description", Variant::from(self.description.clone())),
            ("Slice", Variant::from(self.slice.clone())),
            ("Delegate", Variant::Bool(true)),
            ("PIDs", Variant::from(vec![pid])),
            ("DefaultDependencies", Variant::Bool(false)),
            ("Before", names(&["shutdown.target"])),
            ("Conflicts", names(&["shutdown.target"])),
            // At shutdown a container goes before the network and before the agent's socket.
            ("After", names(&["network.target", "berth-monitor.socket"])),
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("TimeoutStopUSec", Variant::U64(self.timeout_stop_usec)),
            ("KillSignal", Variant::I32(STOP_SIGNAL)),
            // One process that dies of memory is the container's affair, as in Docker.
            ("OOMPolicy", Variant::from("continue")),
            ("MemoryAccounting", Variant::Bool(true)),
            ("CPUAccounting", Variant::Bool(true)),
            ("TasksAccounting", Variant::Bool(true)),
            ("IOAccounting", Variant::Bool(true)),
        ];
        let mut discarded = Vec::new();
        let mut properties = Vec::new();
        for (name, value) in fixed.into_iter().chain(self.limits.properties()) {
            if unknown(name) && !is_required(name) {
                discarded.push(name.to_owned());
            } else {
                properties.push((name, value));
            }
        }
        (properties, discarded)
    }

    /// The properties that a living scope can still change: limits and description. The others
    /// are refused by the manager (`PropertyReadOnly`).
    pub fn changeable(&self, unknown: impl Fn(&str) -> bool) -> (Vec<Property>, Vec<String>) {
        let mut discarded = Vec::new();
        let mut properties = Vec::new();
        let description = (!self.description.is_empty())
            .then(|| ("Description", Variant::from(self.description.clone())));
        for (name, value) in description.into_iter().chain(self.limits.properties()) {
            if unknown(name) {
                discarded.push(name.to_owned());
            } else {
                properties.push((name, value));
            }
        }
        (properties, discarded)
    }
}

/// Whether a scope without this property would not be what the engine relies on.
pub(crate) fn is_required(property: &str) -> bool {
    REQUIRED.contains(&property)
}

fn names(list: &[&str]) -> Variant<'static> {
    Variant::from(
        list.iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )
}

/// The unit name of a container: `berth-` and the first twelve digits of its id.
pub fn unit_name(id: &str) -> String {
    let short = id.get(..12).unwrap_or(id);
    format!("{PREFIX}{short}{SUFFIX}")
}

/// `TimeoutStopUSec` for a stop timeout in seconds (−1 = for ever): five seconds more, so that the
/// monitor kills, not the manager.
pub fn stop_limit(stop_timeout_seconds: i64) -> u64 {
    const SLACK_SECONDS: u64 = 5;
    match u64::try_from(stop_timeout_seconds) {
        Ok(seconds) => seconds
            .saturating_add(SLACK_SECONDS)
            .checked_mul(1_000_000)
            .unwrap_or(INFINITY),
        Err(_) => INFINITY,
    }
}

/// `Container NAME (IMAGE)`, safe in a unit file: one line, no control characters, bounded.
pub fn description(name: &str, image: &str) -> String {
    let mut text: String = format!("Container {name} ({image})")
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.len() > DESCRIPTION_MAX {
        let cut = (0..=DESCRIPTION_MAX - '…'.len_utf8())
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// Whether the manager would take this as a unit's name (unit_name_is_valid): 255 bytes of a
/// small alphabet with a known suffix. Checked before anything goes to the bus.
pub(crate) fn is_valid_unit_name(name: &str) -> bool {
    const MAX: usize = 255;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    let suffix = [".scope", ".slice", ".service"]
        .iter()
        .any(|suffix| name.len() > suffix.len() && name.ends_with(suffix));
    name.len() <= MAX && suffix && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ScopeSettings {
        ScopeSettings {
            description: description("web", "nginx:1"),
            limits: Limits {
                memory_max: Some(1 << 20),
                ..Limits::default()
            },
            ..ScopeSettings::default()
        }
    }

    #[test]
    fn the_whole_set() {
        let (properties, discarded) = settings().properties(42, |_| false);
        assert!(discarded.is_empty());
        let text: Vec<String> = properties
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        assert_eq!(
            text,
            [
                r#"Description "Container web (nginx:1)""#,
                r#"Slice "berth.slice""#,
                "Delegate true",
                "PIDs [uint32 42]",
                "DefaultDependencies false",
                r#"Before ["shutdown.target"]"#,
                r#"Conflicts ["shutdown.target"]"#,
                r#"After ["network.target", "berth-monitor.socket"]"#,
                r#"CollectMode "inactive-or-failed""#,
                "TimeoutStopUSec uint64 15000000",
                "KillSignal 23",
                r#"OOMPolicy "continue""#,
                "MemoryAccounting true",
                "CPUAccounting true",
                "TasksAccounting true",
                "IOAccounting true",
                "MemoryMax uint64 1048576",
            ]
        );
    }

    #[test]
    fn never_a_controller_or_a_kill_mode() {
        let (properties, _) = settings().properties(1, |_| false);
        for (name, _) in properties {
            assert!(
                !["Controller", "KillMode", "PIDFDs"].contains(&name),
                "{name}"
            );
        }
    }

    #[test]
    fn unknown_properties_are_left_out_but_never_the_required_ones() {
        let (properties, discarded) = settings().properties(1, |_| true);
        let kept: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            kept,
            [
                "Slice",
                "Delegate",
                "PIDs",
                "DefaultDependencies",
                "TimeoutStopUSec",
                "KillSignal"
            ]
        );
        assert!(discarded.contains(&"MemoryMax".to_owned()));
    }

    #[test]
    fn only_limits_and_description_change_later() {
        let (properties, _) = settings().changeable(|_| false);
        let names: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["Description", "MemoryMax"]);
    }

    #[test]
    fn names_and_times() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(unit_name(&id), "berth-0123456789ab.scope");
        assert_eq!(stop_limit(10), 15_000_000);
        assert_eq!(stop_limit(-1), INFINITY);
        assert_eq!(stop_limit(i64::MAX), INFINITY);
    }

    #[test]
    fn descriptions_stay_on_one_line_and_short() {
        assert_eq!(
            description("a\nExecStart=/bin/sh", "b\0\u{7f}"),
            "Container a ExecStart=/bin/sh (b  )"
        );
        let long = description(&"ü".repeat(400), "x");
        assert!(long.len() <= DESCRIPTION_MAX && long.ends_with('…'));
    }

    #[test]
    fn unit_names() {
        for good in ["berth-abc.scope", "a@b.service", r"x\x2dy.slice"] {
            assert!(is_valid_unit_name(good), "{good}");
        }
        for bad in [
            "",
            ".scope",
            "a b.scope",
            "a/b.scope",
            "a.socket",
            "a\n.scope",
        ] {
            assert!(!is_valid_unit_name(bad), "{bad}");
        }
        assert!(!is_valid_unit_name(&format!("{}.scope", "a".repeat(250))));
    }
}
