//! Device nodes of the container and who may use which device (security specification A.5). The
//! fence is a list of rules over a default of "no"; [`filter`] turns it into the program that the
//! kernel runs. Looking at the host's nodes is the only thing here that is not pure.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::mounts::clean;
use crate::plan::{Node, NodeKind, Step};
use crate::spec::{DeviceSpec, RunSpec, SpecError};

pub mod filter;

/// Most nodes taken over from the host for one container; a host with more has a device tree that
/// nobody wants copied at each start.
const MAX_HOST_DEVICES: usize = 4096;

/// Deepest directory below /dev that is looked into.
const MAX_DEPTH: usize = 8;

/// Where nodes of the container's own are, or file systems of ours: a request may not name them.
const RESERVED: [&str; 9] = [
    "/dev/console",
    "/dev/fd",
    "/dev/mqueue",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
    "/dev/stderr",
    "/dev/stdin",
    "/dev/stdout",
];

/// Uses of a device: a set of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl Access {
    pub const ALL: Self = Self {
        read: true,
        write: true,
        mknod: true,
    };
    const MKNOD: Self = Self {
        read: false,
        write: false,
        mknod: true,
    };

    /// Letters of `rwm`, each at most once; not empty.
    pub fn parse(letters: &str) -> Option<Self> {
        let mut access = Self::default();
        for letter in letters.chars() {
            let bit = match letter {
                'r' => &mut access.read,
                'w' => &mut access.write,
                'm' => &mut access.mknod,
                _ => return None,
            };
            if std::mem::replace(bit, true) {
                return None;
            }
        }
        (!letters.is_empty()).then_some(access)
    }
}

/// One rule of the fence. The last one that speaks of an access decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    /// None = character and block devices.
    pub kind: Option<NodeKind>,
    /// None = any.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: Access,
}

impl Rule {
    const fn allow(kind: NodeKind, major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        Self {
            allow: true,
            kind: Some(kind),
            major,
            minor,
            access,
        }
    }
    const EVERYTHING: Self = Self {
        allow: true,
        kind: None,
        major: None,
        minor: None,
        access: Access::ALL,
    };
}

/// A device of the host that the container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    pub node: Node,
    pub access: Access,
}

/// Name, major, minor of the nodes that every container has.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links in /dev.
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Nodes and links of a container whose /dev is its own.
pub(crate) fn steps(devices: &[HostDevice]) -> Vec<Step> {
    let own = NODES.map(|(name, major, minor)| Node {
        path: format!("/dev/{name}"),
        kind: NodeKind::Char,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    });
    let is_own = |path: &str| own.iter().any(|node| node.path == path);
    let host = devices
        .iter()
        .map(|device| device.node.clone())
        .filter(|node| !is_own(&node.path));
    let host: Vec<_> = host.collect();
    let links = LINKS.map(|(path, target)| Step::Symlink {
        path: path.to_owned(),
        target: target.to_owned(),
    });
    own.into_iter()
        .chain(host)
        .map(Step::Node)
        .chain(links)
        .collect()
}

/// The fence of a container, in the order in which the rules apply.
pub fn rules(spec: &RunSpec, devices: &[HostDevice]) -> Result<Vec<Rule>, SpecError> {
    use NodeKind::{Block, Char};
    if spec.privileged {
        return Ok(vec![Rule::EVERYTHING]);
    }
    // Making a node is harmless, opening it is not.
    let mut rules = vec![
        Rule::allow(Char, None, None, Access::MKNOD),
        Rule::allow(Block, None, None, Access::MKNOD),
    ];
    rules.extend(
        NODES.map(|(_, major, minor)| Rule::allow(Char, Some(major), Some(minor), Access::ALL)),
    );
    // console, ptmx, and the terminals of devpts
    rules.extend([
        Rule::allow(Char, Some(5), Some(1), Access::ALL),
        Rule::allow(Char, Some(5), Some(2), Access::ALL),
        Rule::allow(Char, Some(136), None, Access::ALL),
    ]);
    // fuse, not even its node; a request may allow it again
    rules.push(Rule {
        allow: false,
        ..Rule::allow(Char, Some(10), Some(229), Access::ALL)
    });
    for device in devices {
        let Node {
            kind, major, minor, ..
        } = device.node;
        if kind != NodeKind::Fifo {
            rules.push(Rule::allow(kind, Some(major), Some(minor), device.access));
        }
    }
    for rule in &spec.device_cgroup_rules {
        rules.push(parse_rule(rule)?);
    }
    Ok(rules)
}

/// `c 1:3 rwm`, `a *:* rwm`, `b 8:* r`
fn parse_rule(text: &str) -> Result<Rule, SpecError> {
    let parse = || {
        let mut parts = text.split(' ');
        let (kind, numbers, access) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let kind = match kind {
            "a" => None,
            "b" => Some(NodeKind::Block),
            "c" => Some(NodeKind::Char),
            _ => return None,
        };
        let (major, minor) = numbers.split_once(':')?;
        Some(Rule {
            allow: true,
            kind,
            major: parse_number(major)?,
            minor: parse_number(minor)?,
            access: Access::parse(access)?,
        })
    };
    parse()
        .ok_or_else(|| SpecError::invalid(format!("invalid device cgroup rule format: '{text}'")))
}

/// A number, or `*` as None. The kernel's own numbers are below 2³¹ by far, and the program compares signed ones.
fn parse_number(text: &str) -> Option<Option<u32>> {
    if text == "*" {
        return Some(None);
    }
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse::<i32>().ok().filter(|_| plain)?;
    u32::try_from(number).ok().map(Some)
}

/// Checks `--device` as far as that goes without the host.
pub(crate) fn check(devices: &[DeviceSpec]) -> Result<(), SpecError> {
    for device in devices {
        container_path(device)?;
        access_of(device)?;
        if !device.path_on_host.starts_with('/') {
            return Err(SpecError::invalid(format!(
                "error gathering device information while adding custom device {:?}: path is not absolute",
                device.path_on_host
            )));
        }
    }
    Ok(())
}

fn access_of(device: &DeviceSpec) -> Result<Access, SpecError> {
    if device.permissions.is_empty() {
        return Ok(Access::ALL);
    }
    Access::parse(&device.permissions)
        .ok_or_else(|| SpecError::invalid(format!("invalid device mode: {}", device.permissions)))
}

fn container_path(device: &DeviceSpec) -> Result<String, SpecError> {
    let asked = if device.path_in_container.is_empty() {
        &device.path_on_host
    } else {
        &device.path_in_container
    };
    if !asked.starts_with('/') {
        return Err(SpecError::invalid(format!(
            "invalid device path {asked:?}: path is not absolute"
        )));
    }
    let path = clean(asked);
    if !path.starts_with("/dev/") {
        return Err(SpecError::unsupported(format!(
            "device path {path:?} outside /dev is not supported yet"
        )));
    }
    let reserved = |r: &str| {
        path.strip_prefix(r)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if RESERVED.iter().any(|r| reserved(r)) {
        return Err(SpecError::invalid(format!(
            "device path {path:?} is the container's own"
        )));
    }
    Ok(path)
}

/// The devices of the request as they are on this host now; with `privileged` all of the host's.
/// A directory stands for all devices in it.
pub fn from_host(spec: &RunSpec) -> Result<Vec<HostDevice>, SpecError> {
    if spec.privileged {
        let mut devices = Vec::new();
        collect(
            Path::new("/dev"),
            "/dev",
            Access::ALL,
            true,
            0,
            &mut devices,
        )
        .map_err(|error| {
            SpecError::invalid(format!(
                "error gathering device information from /dev: {}",
                plain(&error)
            ))
        })?;
        return Ok(devices);
    }
    let mut devices: Vec<HostDevice> = Vec::new();
    for device in &spec.devices {
        let failed = |reason: &str| {
            SpecError::invalid(format!(
                "error gathering device information while adding custom device {:?}: {reason}",
                device.path_on_host
            ))
        };
        let target = container_path(device)?;
        let access = access_of(device)?;
        let host = Path::new(&device.path_on_host);
        let meta = fs::metadata(host).map_err(|error| failed(&plain(&error)))?;
        let mut found = Vec::new();
        if meta.is_dir() {
            collect(host, &target, access, false, 0, &mut found)
                .map_err(|error| failed(&plain(&error)))?;
        } else {
            found.extend(device_of(&meta, &target, access));
        }
        if found.is_empty() {
            return Err(failed("not a device node"));
        }
        // A path named twice is the later one.
        devices.retain(|known| !found.iter().any(|new| new.node.path == known.node.path));
        devices.extend(found);
    }
    Ok(devices)
}

/// The error's own words, without the number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn device_of(meta: &fs::Metadata, path: &str, access: Access) -> Option<HostDevice> {
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => NodeKind::Char,
        kind if kind.is_block_device() => NodeKind::Block,
        _ => return None,
    };
    let (major, minor) = numbers(meta.rdev());
    let node = Node {
        path: path.to_owned(),
        kind,
        major,
        minor,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    };
    Some(HostDevice { node, access })
}

/// Linux's split of a device number (makedev(3)).
fn numbers(rdev: u64) -> (u32, u32) {
    let major = ((rdev >> 8) & 0xfff) | ((rdev >> 32) & 0xffff_f000);
    let minor = (rdev & 0xff) | ((rdev >> 12) & 0xffff_ff00);
    (major as u32, minor as u32)
}

/// All devices in a directory and below, without following links; those of the container's own are left out.
fn collect(
    dir: &Path,
    target: &str,
    access: Access,
    whole_dev: bool,
    depth: usize,
    found: &mut Vec<HostDevice>,
) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(dir)?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let skipped = ["pts", "shm", "fd", "mqueue", "console", "ptmx"].contains(&name)
            || name.starts_with(".l");
        if whole_dev && depth == 0 && (skipped || name == ".udev") {
            continue;
        }
        // It may have gone since the directory was read.
        let Ok(meta) = fs::symlink_metadata(entry.path()) else {
            continue;
        };
        let path = format!("{target}/{name}");
        if meta.is_dir() {
            if depth < MAX_DEPTH {
                match collect(&entry.path(), &path, access, whole_dev, depth + 1, found) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        } else {
            found.extend(device_of(&meta, &path, access));
        }
        if found.len() > MAX_HOST_DEVICES {
            return Err(io::Error::other("too many devices"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
