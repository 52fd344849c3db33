//! The container's capabilities (security specification A.1): Docker's default set, what the request
//! adds and drops, cut to what the agent itself may give.

use berth_sys::cred::CapSet;

use crate::hostfacts::HostFacts;
use crate::plan::Capabilities;
use crate::spec::{RunSpec, SpecError};

/// Docker's default: AUDIT_WRITE, CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, MKNOD, NET_BIND_SERVICE,
/// NET_RAW, SETFCAP, SETGID, SETPCAP, SETUID, SYS_CHROOT.
pub const DEFAULT: CapSet = CapSet(0xa804_25fb);

/// What a container may have at most, and what could not be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounding {
    pub set: CapSet,
    /// One sentence for the user when the agent lacks something of it.
    pub warning: Option<String>,
}

/// The bounding set of a container.
pub fn bounding(spec: &RunSpec, facts: &HostFacts) -> Result<Bounding, SpecError> {
    let known = CapSet(facts.known_caps);
    let add = parse_list("CapAdd", &spec.cap_add, known)?;
    let drop = parse_list("CapDrop", &spec.cap_drop, known)?;
    let wanted = if spec.privileged {
        known
    } else if add.all {
        known & !drop.set
    } else if drop.all {
        add.set
    } else {
        (DEFAULT & !drop.set) | add.set
    };
    let lacking = wanted & !CapSet(facts.bounding);
    let warning = (!lacking.is_empty()).then(|| {
        format!(
            "capabilities that the agent itself does not have are left out: {}",
            lacking.names().join(", ")
        )
    });
    Ok(Bounding {
        set: wanted & !lacking,
        warning,
    })
}

/// The five sets for a process with this uid: inheritable and ambient are always empty, and only
/// root has any at once (B.15).
pub fn sets(bounding: CapSet, uid: u32) -> Capabilities {
    let held = if uid == 0 { bounding.0 } else { 0 };
    Capabilities {
        bounding: bounding.0,
        effective: held,
        permitted: held,
        inheritable: 0,
        ambient: 0,
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct List {
    all: bool,
    set: CapSet,
}

fn parse_list(field: &str, names: &[String], known: CapSet) -> Result<List, SpecError> {
    let mut list = List::default();
    for name in names {
        if name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL") {
            list.all = true;
            continue;
        }
        let Some(cap) = CapSet::parse(name) else {
            return Err(SpecError::invalid(format!(
                "invalid {field}: unknown capability: {name:?}"
            )));
        };
        if !known.contains(cap) {
            return Err(SpecError::invalid(format!(
                "invalid {field}: capability not supported by your kernel or not available in the current environment: {name:?}"
            )));
        }
        list.set = list.set | cap;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> CapSet {
        names.iter().fold(CapSet::EMPTY, |set, name| {
            set | CapSet::parse(name).expect("a capability")
        })
    }

    fn spec(add: &[&str], drop: &[&str]) -> RunSpec {
        RunSpec {
            cap_add: add.iter().map(|s| (*s).to_owned()).collect(),
            cap_drop: drop.iter().map(|s| (*s).to_owned()).collect(),
            ..RunSpec::default()
        }
    }

    #[test]
    fn the_default_is_dockers_fourteen() {
        let names = [
            "CHOWN",
            "DAC_OVERRIDE",
            "FSETID",
            "FOWNER",
            "MKNOD",
            "NET_RAW",
            "SETGID",
            "SETUID",
            "SETFCAP",
            "SETPCAP",
            "NET_BIND_SERVICE",
            "SYS_CHROOT",
            "KILL",
            "AUDIT_WRITE",
        ];
        assert_eq!(DEFAULT, set(&names));
    }

    #[test]
    fn adding_and_dropping() {
        let facts = HostFacts::sample();
        let all = CapSet(facts.known_caps);
        for (add, drop, wanted) in [
            (&[][..], &[][..], DEFAULT),
            (&["net_admin"], &[], DEFAULT | set(&["NET_ADMIN"])),
            (
                &["CAP_SYS_ADMIN"],
                &["Cap_Mknod", "CHOWN"],
                (DEFAULT & !set(&["MKNOD", "CHOWN"])) | set(&["SYS_ADMIN"]),
            ),
            (&[], &["ALL"], CapSet::EMPTY),
            (&["kill"], &["all"], set(&["KILL"])),
            (&["ALL"], &[], all),
            (&["ALL"], &["SYS_ADMIN"], all & !set(&["SYS_ADMIN"])),
            // Docker looks at the added ALL first.
            (&["ALL"], &["ALL"], all),
            (&["CHOWN"], &["CHOWN"], DEFAULT),
        ] {
            let got = bounding(&spec(add, drop), &facts).expect("is valid");
            assert_eq!(
                got,
                Bounding {
                    set: wanted,
                    warning: None
                },
                "+{add:?} -{drop:?}"
            );
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        let error =
            bounding(&spec(&["CAP_FLY"], &[]), &HostFacts::sample()).expect_err("is refused");
        assert_eq!(
            error,
            SpecError::invalid("invalid CapAdd: unknown capability: \"CAP_FLY\"")
        );
        assert!(bounding(&spec(&[], &[""]), &HostFacts::sample()).is_err());
        let old = HostFacts {
            known_caps: DEFAULT.0,
            ..HostFacts::sample()
        };
        assert!(bounding(&spec(&["BPF"], &[]), &old).is_err());
    }

    #[test]
    fn what_the_agent_lacks_is_left_out_and_said() {
        let facts = HostFacts {
            bounding: DEFAULT.0 & !set(&["MKNOD"]).0,
            ..HostFacts::sample()
        };
        let got = bounding(&RunSpec::default(), &facts).expect("is valid");
        assert_eq!(got.set, DEFAULT & !set(&["MKNOD"]));
        assert_eq!(
            got.warning.as_deref(),
            Some("capabilities that the agent itself does not have are left out: MKNOD")
        );
        let privileged = RunSpec {
            privileged: true,
            ..RunSpec::default()
        };
        assert_eq!(
            bounding(&privileged, &facts).expect("is valid").set.0,
            facts.bounding
        );
    }

    #[test]
    fn only_root_holds_any() {
        assert_eq!(sets(DEFAULT, 0).effective, DEFAULT.0);
        let user = sets(DEFAULT, 1000);
        assert_eq!(
            (
                user.bounding,
                user.effective,
                user.permitted,
                user.inheritable,
                user.ambient
            ),
            (DEFAULT.0, 0, 0, 0, 0)
        );
    }
}
