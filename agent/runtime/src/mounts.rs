//! The container's tree (security specification A.4 and A.6): the file systems of our own, what the
//! request mounts over them, and which paths are hidden or read-only. Pure: targets are compared as
//! strings here to refuse early and clearly; the monitor compares again after resolution.

use std::collections::{BTreeMap, BTreeSet};

use crate::hostfacts::HostFacts;
use crate::plan::{Create, FdRole, Mount, MountAttrs, MountSource, Propagation, Step, TargetKind};
use crate::security::SecurityOpts;
use crate::spec::{IpcMode, MountKind, MountSpec, ReadOnly, RunSpec, SpecError};

/// Size of /dev/shm unless the request says otherwise (Docker's).
const SHM_SIZE: u64 = 64 << 20;

/// The files of /proc that a request may cover, as runc lets through.
const PROC_TARGETS: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Docker's default (28.5.2); `thermal_throttle` of each processor comes on top.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

const SECURE: MountAttrs = MountAttrs::NOSUID
    .with(MountAttrs::NOEXEC)
    .with(MountAttrs::NODEV);

/// The tree, in the order in which it is made, and whether /dev is a tmpfs of the container's
/// (so that nodes are made in it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    /// Our own file systems up to /dev.
    pub(crate) before_nodes: Vec<Step>,
    pub(crate) own_dev: bool,
    /// Everything that comes after the nodes of /dev.
    pub(crate) after_nodes: Vec<Step>,
}

/// Plans all mounts. `roles` says which descriptors there are.
pub(crate) fn tree(
    spec: &RunSpec,
    security: &SecurityOpts,
    roles: &BTreeSet<FdRole>,
) -> Result<Tree, SpecError> {
    let asked = asked(spec)?;
    let covered = |target: &str| asked.contains_key(target);
    // A request's own /dev takes the place of all of ours below it.
    let dev_covered = covered("/dev");
    let dev_bound = asked
        .get("/dev")
        .is_some_and(|mount| matches!(mount.source, MountSource::Fd(_)));
    let skip = |target: &str| covered(target) || (dev_covered && target.starts_with("/dev/"));
    let writable = |yes: bool| {
        if yes {
            MountAttrs::NONE
        } else {
            MountAttrs::RDONLY
        }
    };

    let mut before_nodes = vec![own("/proc", "proc", &[], &[], SECURE)];
    let sys = own(
        "/sys",
        "sysfs",
        &[],
        &[],
        SECURE.with(writable(spec.privileged)),
    );
    let mut after_nodes = Vec::new();
    if !dev_covered {
        before_nodes.push(own(
            "/dev",
            "tmpfs",
            &[("mode", "755"), ("size", "65536k")],
            &[],
            MountAttrs::NOSUID.with(MountAttrs::STRICTATIME),
        ));
    }
    if !skip("/dev/pts") {
        after_nodes.push(own(
            "/dev/pts",
            "devpts",
            &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
            &["newinstance"],
            MountAttrs::NOSUID.with(MountAttrs::NOEXEC),
        ));
    }
    after_nodes.push(sys);
    if !skip("/sys/fs/cgroup") {
        let attrs = SECURE.with(writable(spec.privileged || security.writable_cgroups));
        after_nodes.push(own("/sys/fs/cgroup", "cgroup2", &[], &[], attrs));
    }
    if !skip("/dev/mqueue") {
        after_nodes.push(own("/dev/mqueue", "mqueue", &[], &[], SECURE));
    }
    if !skip("/dev/shm") {
        after_nodes.extend(shm(spec));
    }

    // What is asked for and our files over /etc, shallow targets first: a later mount may lie in an
    // earlier one, and never hides it.
    let mut rest: Vec<Mount> = asked.into_values().collect();
    for (role, target) in [
        (FdRole::Hosts, "/etc/hosts"),
        (FdRole::Hostname, "/etc/hostname"),
        (FdRole::ResolvConf, "/etc/resolv.conf"),
    ] {
        if roles.contains(&role) && !rest.iter().any(|mount| mount.target == target) {
            rest.push(file(role, target, spec.rootfs_readonly));
        }
    }
    rest.sort_by(|a, b| {
        depth(&a.target)
            .cmp(&depth(&b.target))
            .then_with(|| a.target.cmp(&b.target))
    });
    let (dev, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|mount| mount.target == "/dev");
    before_nodes.extend(dev.into_iter().map(Step::Mount));
    after_nodes.extend(rest.into_iter().map(Step::Mount));
    Ok(Tree {
        before_nodes,
        own_dev: !dev_bound,
        after_nodes,
    })
}

/// Read-only and masked paths, in that order.
pub(crate) fn protected_paths(
    spec: &RunSpec,
    security: &SecurityOpts,
    facts: &HostFacts,
) -> (Vec<String>, Vec<String>) {
    if spec.privileged || security.systempaths_unconfined {
        return (Vec::new(), Vec::new());
    }
    let list = |asked: &Option<Vec<String>>, default: &[&str]| match asked {
        Some(paths) => paths.clone(),
        None => default.iter().map(|path| (*path).to_owned()).collect(),
    };
    let readonly = list(&spec.readonly_paths, &READONLY);
    let mut masked = list(&spec.masked_paths, &MASKED);
    if spec.masked_paths.is_none() {
        let throttle = |cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
        masked.extend(facts.thermal_cpus.iter().map(throttle));
    }
    (readonly, masked)
}

/// The mounts that the request names, by cleaned target.
pub(crate) fn asked(spec: &RunSpec) -> Result<BTreeMap<String, Mount>, SpecError> {
    let mut mounts: BTreeMap<String, Mount> = BTreeMap::new();
    let mut add = |mount: Mount| match mounts.insert(mount.target.clone(), mount) {
        None => Ok(()),
        Some(earlier) => Err(SpecError::invalid(format!(
            "duplicate mount point: {}",
            earlier.target
        ))),
    };
    for (index, mount) in spec.mounts.iter().enumerate() {
        add(match mount.kind {
            MountKind::Bind => {
                let index =
                    u16::try_from(index).map_err(|_| SpecError::invalid("too many mounts"))?;
                bind(mount, FdRole::Bind(index))?
            }
            MountKind::Tmpfs => {
                let mut options = mount.tmpfs_options.clone();
                let mut push = |option: String| {
                    if !options.is_empty() {
                        options.push(',');
                    }
                    options.push_str(&option);
                };
                if let Some(size) = mount.tmpfs_size {
                    push(format!("size={size}"));
                }
                if let Some(mode) = mount.tmpfs_mode {
                    push(format!("mode={mode:o}"));
                }
                if mount.read_only != ReadOnly::No {
                    push("ro".to_owned());
                }
                tmpfs(&mount.target, &options)?
            }
        })?;
    }
    for (target, options) in &spec.tmpfs {
        add(tmpfs(target, options)?)?;
    }
    Ok(mounts)
}

fn bind(spec: &MountSpec, role: FdRole) -> Result<Mount, SpecError> {
    let (target, kind) = target(&spec.target)?;
    let (propagation, propagation_recursive) = propagation(&spec.propagation).ok_or_else(|| {
        SpecError::invalid(format!(
            "invalid mount config for type \"bind\": invalid propagation mode: {}",
            spec.propagation
        ))
    })?;
    let (attrs, recursive) = match spec.read_only {
        ReadOnly::No => (MountAttrs::NONE, false),
        ReadOnly::Recursive => (MountAttrs::RDONLY, true),
        ReadOnly::TopOnly => (MountAttrs::RDONLY, false),
    };
    Ok(Mount {
        target,
        kind,
        source: MountSource::Fd(role),
        attrs,
        clear: MountAttrs::NONE,
        recursive,
        propagation,
        propagation_recursive,
        create: Create::LikeSource,
        mode_of_target: false,
    })
}

/// Docker's words; empty = rprivate.
fn propagation(word: &str) -> Option<(Propagation, bool)> {
    Some(match word {
        "" | "rprivate" => (Propagation::Private, true),
        "private" => (Propagation::Private, false),
        "rslave" => (Propagation::Slave, true),
        "slave" => (Propagation::Slave, false),
        "rshared" => (Propagation::Shared, true),
        "shared" => (Propagation::Shared, false),
        _ => return None,
    })
}

fn tmpfs(path: &str, options: &str) -> Result<Mount, SpecError> {
    let (target, kind) = target(path)?;
    if kind == TargetKind::RequestProc {
        return Err(proc_error(&target));
    }
    let mut attrs = SECURE;
    let mut propagated = (Propagation::Private, true);
    let mut values: Vec<(String, String)> = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let wrong = || SpecError::invalid(format!("invalid tmpfs option {option:?}"));
        match option {
            "rw" => attrs = attrs.without(MountAttrs::RDONLY),
            "ro" => attrs = attrs.with(MountAttrs::RDONLY),
            "suid" => attrs = attrs.without(MountAttrs::NOSUID),
            "nosuid" => attrs = attrs.with(MountAttrs::NOSUID),
            "dev" => attrs = attrs.without(MountAttrs::NODEV),
            "nodev" => attrs = attrs.with(MountAttrs::NODEV),
            "exec" => attrs = attrs.without(MountAttrs::NOEXEC),
            "noexec" => attrs = attrs.with(MountAttrs::NOEXEC),
            "noatime" => {
                attrs = attrs
                    .with(MountAttrs::NOATIME)
                    .without(MountAttrs::STRICTATIME)
            }
            "strictatime" => {
                attrs = attrs
                    .with(MountAttrs::STRICTATIME)
                    .without(MountAttrs::NOATIME)
            }
            "relatime" | "atime" => {
                attrs = attrs.without(MountAttrs::NOATIME.with(MountAttrs::STRICTATIME))
            }
            "nodiratime" => attrs = attrs.with(MountAttrs::NODIRATIME),
            "diratime" => attrs = attrs.without(MountAttrs::NODIRATIME),
            // What tmpfs does anyway.
            "defaults" | "async" | "nomand" => {}
            _ => {
                if let Some(found) = propagation(option) {
                    propagated = found;
                    continue;
                }
                let (key, value) = option.split_once('=').ok_or_else(wrong)?;
                if !tmpfs_value(key, value) {
                    return Err(wrong());
                }
                values.retain(|(known, _)| known != key);
                values.push((key.to_owned(), value.to_owned()));
            }
        }
    }
    let mode_of_target = !values.iter().any(|(key, _)| key == "mode");
    Ok(Mount {
        target,
        kind,
        source: MountSource::New {
            fstype: "tmpfs".to_owned(),
            options: values,
            flags: Vec::new(),
        },
        attrs,
        clear: MountAttrs::NONE,
        recursive: false,
        propagation: propagated.0,
        propagation_recursive: propagated.1,
        create: Create::Directory,
        mode_of_target,
    })
}

/// Whether tmpfs takes this option (tmpfs(5)); what the kernel would refuse is refused at create.
fn tmpfs_value(key: &str, value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let sized = |text: &str| {
        digits(
            text.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G'])
                .unwrap_or(text),
        )
    };
    match key {
        "size" => sized(value) || value.strip_suffix('%').is_some_and(digits),
        "nr_inodes" | "nr_blocks" => sized(value),
        "mode" => u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777) && digits(value),
        "uid" | "gid" => digits(value) && value.parse::<u32>().is_ok_and(|id| id != u32::MAX),
        "mpol" => {
            !value.is_empty()
                && value
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b":-=".contains(&b))
        }
        _ => false,
    }
}

fn shm(spec: &RunSpec) -> Option<Step> {
    let source = match &spec.namespaces.ipc {
        IpcMode::None => return None,
        IpcMode::Host | IpcMode::Container(_) => MountSource::Fd(FdRole::Shm),
        IpcMode::Private | IpcMode::Shareable => {
            let size = match spec.shm_size {
                None | Some(0) => SHM_SIZE,
                Some(size) => size,
            };
            MountSource::New {
                fstype: "tmpfs".to_owned(),
                options: vec![
                    ("mode".to_owned(), "1777".to_owned()),
                    ("size".to_owned(), size.to_string()),
                ],
                flags: Vec::new(),
            }
        }
    };
    Some(Step::Mount(Mount {
        target: "/dev/shm".to_owned(),
        kind: TargetKind::Own,
        source,
        attrs: SECURE,
        clear: MountAttrs::NONE,
        recursive: false,
        propagation: Propagation::Private,
        propagation_recursive: true,
        create: Create::Directory,
        mode_of_target: false,
    }))
}

fn own(
    target: &str,
    fstype: &str,
    options: &[(&str, &str)],
    flags: &[&str],
    attrs: MountAttrs,
) -> Step {
    let options = options
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Step::Mount(Mount {
        target: target.to_owned(),
        kind: TargetKind::Own,
        source: MountSource::New {
            fstype: fstype.to_owned(),
            options,
            flags,
        },
        attrs,
        clear: MountAttrs::NONE,
        recursive: false,
        propagation: Propagation::Private,
        propagation_recursive: false,
        create: if target == "/sys/fs/cgroup" {
            Create::Nothing
        } else {
            Create::Directory
        },
        mode_of_target: false,
    })
}

fn file(role: FdRole, target: &str, readonly: bool) -> Mount {
    Mount {
        target: target.to_owned(),
        kind: TargetKind::OwnFile,
        source: MountSource::Fd(role),
        attrs: if readonly {
            MountAttrs::RDONLY
        } else {
            MountAttrs::NONE
        },
        clear: MountAttrs::NONE,
        recursive: false,
        propagation: Propagation::Private,
        propagation_recursive: true,
        create: Create::File,
        mode_of_target: false,
    }
}

/// The cleaned target of a request's mount; refuses the root, /proc and the whole of /sys.
fn target(path: &str) -> Result<(String, TargetKind), SpecError> {
    if !path.starts_with('/') {
        return Err(SpecError::invalid(format!(
            "invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    let clean = clean(path);
    if clean == "/" {
        return Err(SpecError::invalid(
            "invalid specification: destination can't be '/'",
        ));
    }
    if clean == "/sys" {
        return Err(SpecError::invalid(
            "\"/sys\" cannot be mounted because it would replace the container's sysfs",
        ));
    }
    if PROC_TARGETS.contains(&clean.as_str()) {
        return Ok((clean, TargetKind::RequestProc));
    }
    if clean == "/proc" || clean.starts_with("/proc/") {
        return Err(proc_error(&clean));
    }
    Ok((clean, TargetKind::Request))
}

fn proc_error(target: &str) -> SpecError {
    SpecError::invalid(format!(
        "{target:?} cannot be mounted because it is inside /proc"
    ))
}

/// The path without empty parts, `.` and `..`, as text.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

fn depth(path: &str) -> usize {
    path.split('/').filter(|part| !part.is_empty()).count()
}

#[cfg(test)]
mod tests;
