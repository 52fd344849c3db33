//! Resource limits of the process and kernel settings of its namespaces (security specification
//! A.7): which are allowed, and what they are called in the kernel.

use std::collections::BTreeMap;

use crate::hostfacts::{HostFacts, NOFILE};
use crate::plan::{Rlimit, Sysctl};
use crate::spec::{IpcMode, NamespaceModes, NetMode, SpecError, Ulimit, UtsMode};

/// Settings of the System V IPC namespace that may be set.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Longest value: the kernel takes a page at the most.
const MAX_SYSCTL_VALUE: usize = 4095;

/// Open files of a container that asks for nothing: what systemd gives its services. Without it a container
/// would inherit the agent's own limit, which is raised for the agent's needs; programs that close
/// every possible descriptor crawl under a huge soft limit.
const NOFILE_SOFT: u64 = 1024;
const NOFILE_HARD: u64 = 524_288;

/// `--ulimit` in the kernel's numbers; a later one of the same name replaces an earlier one. The
/// limit of open files is always among them.
pub fn rlimits(ulimits: &[Ulimit], facts: &HostFacts) -> Result<Vec<Rlimit>, SpecError> {
    let mut limits: Vec<Rlimit> = Vec::new();
    for Ulimit { name, soft, hard } in ulimits {
        let Some(resource) = berth_sys::rlimit::number(name) else {
            return Err(SpecError::invalid(format!("invalid ulimit type: {name}")));
        };
        let value = |limit: i64| match limit {
            -1 => Ok(u64::MAX),
            other => u64::try_from(other).map_err(|_| {
                SpecError::invalid(format!("invalid ulimit {name}: {other} is below -1"))
            }),
        };
        let limit = Rlimit {
            resource,
            soft: value(*soft)?,
            hard: value(*hard)?,
        };
        if limit.soft > limit.hard {
            return Err(SpecError::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
        limits.retain(|other| other.resource != resource);
        limits.push(limit);
    }
    if !limits.iter().any(|limit| limit.resource == NOFILE) {
        let hard = NOFILE_HARD.min(facts.nofile_hard);
        limits.push(Rlimit {
            resource: NOFILE,
            soft: NOFILE_SOFT.min(hard),
            hard,
        });
    }
    limits.sort_by_key(|limit| limit.resource);
    Ok(limits)
}

/// The settings to write: Docker's defaults where the namespace is the container's own, then the request's.
pub fn sysctls(
    asked: &BTreeMap<String, String>,
    namespaces: &NamespaceModes,
) -> Result<Vec<Sysctl>, SpecError> {
    let mut settings: BTreeMap<String, Sysctl> = BTreeMap::new();
    if namespaces.net != NetMode::Host {
        for (path, value) in [
            ("net/ipv4/ip_unprivileged_port_start", "0"),
            ("net/ipv4/ping_group_range", "0 2147483647"),
        ] {
            let setting = Sysctl {
                path: path.to_owned(),
                value: value.to_owned(),
                optional: true,
            };
            settings.insert(path.to_owned(), setting);
        }
    }
    for (name, value) in asked {
        let path = sysctl_path(name)?;
        check_namespace(name, &path, namespaces)?;
        if value.len() > MAX_SYSCTL_VALUE || value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(SpecError::invalid(format!(
                "invalid value of sysctl {name:?}"
            )));
        }
        let setting = Sysctl {
            path: path.clone(),
            value: value.clone(),
            optional: false,
        };
        settings.insert(path, setting);
    }
    Ok(settings.into_values().collect())
}

/// The path below /proc/sys that a name means. As in sysctl(8) the first separator decides: in a
/// name with dots a slash stands for a dot within a part (`net.ipv4.conf.eth0/1.forwarding`), and
/// with slashes a dot is a dot.
fn sysctl_path(name: &str) -> Result<String, SpecError> {
    let wrong = || SpecError::invalid(format!("invalid sysctl name {name:?}"));
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_*./-".contains(c);
    if !name.chars().all(allowed) {
        return Err(wrong());
    }
    let path: String = match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('.') => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    };
    if path
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err(wrong());
    }
    Ok(path)
}

/// Refuses what would change the host: what belongs to no namespace, or to one that is the host's.
fn check_namespace(name: &str, path: &str, namespaces: &NamespaceModes) -> Result<(), SpecError> {
    let host_ipc = namespaces.ipc == IpcMode::Host;
    let ok = match path {
        _ if path.starts_with("net/") => {
            if namespaces.net == NetMode::Host {
                return Err(SpecError::invalid(format!(
                    "sysctl {name:?} not allowed in host network namespace"
                )));
            }
            true
        }
        _ if path.starts_with("fs/mqueue/") || IPC_SYSCTLS.contains(&path) => {
            if host_ipc {
                return Err(SpecError::invalid(format!(
                    "sysctl {name:?} not allowed in host ipc namespace"
                )));
            }
            true
        }
        "kernel/domainname" => namespaces.uts != UtsMode::Host,
        "kernel/hostname" => {
            return Err(SpecError::invalid(format!(
                "sysctl {name:?} is not allowed as it conflicts with the hostname"
            )));
        }
        _ => false,
    };
    if ok {
        Ok(())
    } else {
        Err(SpecError::invalid(format!(
            "sysctl {name:?} is not in a separate kernel namespace"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, namespaces: &NamespaceModes) -> Result<String, SpecError> {
        let asked = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
        let all = sysctls(&asked, namespaces)?;
        Ok(all
            .into_iter()
            .find(|s| !s.optional)
            .expect("the one asked for")
            .path)
    }

    #[test]
    fn names_are_normalised_before_they_are_matched() {
        let own = NamespaceModes::default();
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            (
                "net.ipv4.conf.eth0/1.forwarding",
                "net/ipv4/conf/eth0.1/forwarding",
            ),
            (
                "net/ipv4/conf/eth0.1/forwarding",
                "net/ipv4/conf/eth0.1/forwarding",
            ),
            ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
            ("kernel/domainname", "kernel/domainname"),
        ] {
            assert_eq!(one(name, &own).as_deref(), Ok(path), "{name}");
        }
    }

    #[test]
    fn what_is_not_the_containers_is_refused() {
        let own = NamespaceModes::default();
        for name in [
            "kernel.core_pattern",
            "kernel/core_pattern",
            "net",
            "net.",
            "net..ipv4",
            "net/../kernel/core_pattern",
            "net.ipv4././kernel.x",
            "/net/ipv4/ip_forward",
            "kernel.hostname",
            "vm.swappiness",
            "",
            "kernel.shmmax/x",
            "net.ipv4.ip forward",
            "net.ipv4\0.x",
            "NET.ipv4.x",
            "fs.mqueue",
            "kernel.msgmax+net.x",
        ] {
            assert!(one(name, &own).is_err(), "{name}");
        }
        let host = NamespaceModes {
            net: NetMode::Host,
            ipc: IpcMode::Host,
            uts: UtsMode::Host,
            ..own
        };
        for name in [
            "net.ipv4.ip_forward",
            "kernel.shmmax",
            "fs.mqueue.msg_max",
            "kernel.domainname",
        ] {
            assert!(one(name, &host).is_err(), "{name}");
        }
    }

    #[test]
    fn a_dot_part_is_no_way_up() {
        // In a name with dots, `..` between slashes would turn into `//`; both forms are refused.
        let own = NamespaceModes::default();
        for name in [
            "net.ipv4/../../kernel.core_pattern",
            "net/./ipv4",
            "net.ipv4.//.x",
        ] {
            let got = one(name, &own);
            assert!(
                got.is_err()
                    || !got
                        .as_deref()
                        .unwrap_or_default()
                        .split('/')
                        .any(|p| p == ".."),
                "{name}"
            );
        }
    }

    #[test]
    fn defaults_stay_out_of_the_hosts_network() {
        let none = BTreeMap::new();
        let own = sysctls(&none, &NamespaceModes::default()).expect("valid");
        assert_eq!(own.len(), 2);
        assert!(own.iter().all(|s| s.optional));
        let host = NamespaceModes {
            net: NetMode::Host,
            ..NamespaceModes::default()
        };
        assert_eq!(sysctls(&none, &host), Ok(Vec::new()));
        let asked = BTreeMap::from([(
            "net.ipv4.ip_unprivileged_port_start".to_owned(),
            "1024".to_owned(),
        )]);
        let changed = sysctls(&asked, &NamespaceModes::default()).expect("valid");
        assert!(changed.iter().any(|s| s.value == "1024" && !s.optional));
        assert_eq!(changed.len(), 2);
    }

    #[test]
    fn values_are_one_line() {
        let asked = BTreeMap::from([("net.ipv4.ip_forward".to_owned(), "1\n2".to_owned())]);
        assert!(sysctls(&asked, &NamespaceModes::default()).is_err());
    }

    #[test]
    fn ulimits() {
        let facts = HostFacts::sample();
        let ulimit = |name: &str, soft, hard| Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        };
        let one = |name, soft, hard| rlimits(&[ulimit(name, soft, hard)], &facts);
        assert_eq!(
            rlimits(
                &[
                    ulimit("nofile", 5, 6),
                    ulimit("core", -1, -1),
                    ulimit("nofile", 1, 2)
                ],
                &facts
            ),
            Ok(vec![
                Rlimit {
                    resource: 4,
                    soft: u64::MAX,
                    hard: u64::MAX
                },
                Rlimit {
                    resource: 7,
                    soft: 1,
                    hard: 2
                }
            ])
        );
        assert_eq!(
            one("files", 1, 1),
            Err(SpecError::invalid("invalid ulimit type: files"))
        );
        assert!(one("nofile", 2, 1).is_err());
        assert!(one("nofile", -1, 1).is_err());
        assert!(one("nofile", -2, -2).is_err());
    }

    #[test]
    fn open_files_do_not_follow_the_agents_limit() {
        let with = |nofile_hard| {
            rlimits(
                &[],
                &HostFacts {
                    nofile_hard,
                    ..HostFacts::sample()
                },
            )
        };
        assert_eq!(
            with(1 << 20),
            Ok(vec![Rlimit {
                resource: 7,
                soft: 1024,
                hard: 524_288
            }])
        );
        assert_eq!(
            with(4096),
            Ok(vec![Rlimit {
                resource: 7,
                soft: 1024,
                hard: 4096
            }])
        );
        assert_eq!(
            with(100),
            Ok(vec![Rlimit {
                resource: 7,
                soft: 100,
                hard: 100
            }])
        );
    }
}
