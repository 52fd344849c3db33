//! A picture of the lab's host: what must be the same before and after a test. It is read from the kernel and the
//! file system, never from the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use crate::lab::Lab;
use crate::pid;

/// Namespaces, links and trash go after the answer, when the kernel and a background thread get to it.
const SETTLE: Duration = Duration::from_secs(10);

/// Everything that a container makes on a host, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState(BTreeMap<&'static str, BTreeSet<String>>);

impl HostState {
    /// How the host is now.
    pub fn snapshot(lab: &Lab) -> HostState {
        let mut parts = BTreeMap::new();
        parts.insert("mounts", mounts(lab.init()));
        parts.insert(
            "links",
            words(&lab.exec(&["ip", "-o", "link", "show"]).ok(), 1),
        );
        parts.insert(
            "scopes",
            words(
                &lab.exec(&[
                    "systemctl",
                    "list-units",
                    "--all",
                    "--plain",
                    "--no-legend",
                    "berth-*.scope",
                ])
                .ok(),
                0,
            ),
        );
        parts.insert(
            "failed units",
            words(
                &lab.exec(&[
                    "systemctl",
                    "list-units",
                    "--all",
                    "--failed",
                    "--plain",
                    "--no-legend",
                ])
                .ok(),
                0,
            ),
        );
        parts.insert("cgroups", cgroups(&lab.cgroups()));
        parts.insert(
            "nftables",
            firewall(&lab.exec(&["nft", "list", "ruleset"]).ok()),
        );
        parts.insert("processes", processes(lab.init()));
        for (part, directory) in [
            ("containers", "/var/lib/berth/containers"),
            ("snapshots", "/var/lib/berth/snapshots"),
            ("trash", "/var/lib/berth/trash"),
            ("ingests", "/var/lib/berth/ingest"),
            ("run directories", "/run/berth/containers"),
        ] {
            parts.insert(part, names(&lab.path(directory)));
        }
        HostState(parts)
    }

    /// What differs from another picture, a line each.
    pub fn differences(&self, later: &HostState) -> Vec<String> {
        let mut lines = Vec::new();
        for (part, before) in &self.0 {
            let after = &later.0[part];
            lines.extend(
                after
                    .difference(before)
                    .map(|item| format!("{part}: left over: {item}")),
            );
            // What a test takes away of its own beginning is no trace, but for what every host must keep.
            if matches!(*part, "mounts" | "links") {
                lines.extend(
                    before
                        .difference(after)
                        .map(|item| format!("{part}: lost: {item}")),
                );
            }
        }
        lines
    }
}

/// Compares the host at its end with the host at its start: every test of the suites holds one.
#[derive(Debug)]
pub struct Hygiene<'a> {
    lab: &'a Lab,
    before: HostState,
    descriptors: Option<(u32, Vec<String>)>,
}

impl<'a> Hygiene<'a> {
    /// Takes the first picture, of a host without containers whose bridge and firewall table are made.
    pub fn begin(lab: &'a Lab) -> Self {
        lab.remove_all();
        if lab.exec(&["ip", "link", "show", "berth0"]).code() != 0 {
            lab.docker(&["run", "--rm", "busybox", "true"]).ok();
        }
        let mut watch = Watch::new(lab);
        let clean = |state: &HostState| {
            ["scopes", "containers", "trash", "run directories"]
                .iter()
                .all(|part| state.0[part].is_empty())
                && !state.0["links"].iter().any(|link| link.starts_with("veth"))
        };
        let end = Instant::now() + SETTLE;
        let mut before = HostState::snapshot(lab);
        while !clean(&before) {
            assert!(
                watch.next(end),
                "the host does not come to rest before the test: {before:#?}"
            );
            before = HostState::snapshot(lab);
        }
        Self {
            lab,
            before,
            descriptors: lab.agent().map(|pid| (pid, pid::descriptors(pid))),
        }
    }

    /// Fails unless everything is as it was; gives what is let go in the background its time.
    #[track_caller]
    pub fn end(self) {
        let mut watch = Watch::new(self.lab);
        let end = Instant::now() + SETTLE;
        let mut left = self.leftovers();
        while !left.is_empty() && watch.next(end) {
            left = self.leftovers();
        }
        assert!(
            left.is_empty(),
            "the test left its traces on the host:\n{}",
            left.join("\n")
        );
    }

    fn leftovers(&self) -> Vec<String> {
        let mut left = self.before.differences(&HostState::snapshot(self.lab));
        // Only the same agent can be compared with itself: another one starts with other descriptors.
        if let Some((pid, before)) = &self.descriptors
            && self.lab.agent() == Some(*pid)
        {
            let after = pid::descriptors(*pid);
            // One for what is made on first use and kept (the empty mount namespace), not one per operation.
            if after.len() > before.len() + 1 {
                left.push(format!(
                    "descriptors of the agent: {} before, {} after: {}",
                    before.len(),
                    after.len(),
                    extra(before, &after)
                ));
            }
        }
        left
    }
}

/// The targets that a descriptor list has more of than another.
fn extra(before: &[String], after: &[String]) -> String {
    let mut rest = before.to_vec();
    let mut more = Vec::new();
    for target in after {
        match rest.iter().position(|known| known == target) {
            Some(at) => drop(rest.swap_remove(at)),
            None => more.push(target.as_str()),
        }
    }
    more.join(", ")
}

/// Wakes when something of what a picture shows may have changed: links, directories of the agent. What the kernel
/// announces to nobody (descriptors, cgroups of a dying namespace) is looked at again after a short while.
struct Watch {
    links: std::process::Child,
    files: rustix::fd::OwnedFd,
}

impl Watch {
    fn new(lab: &Lab) -> Watch {
        let files =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
        for directory in [
            "/var/lib/berth/trash",
            "/var/lib/berth/containers",
            "/var/lib/berth/snapshots",
            "/run/berth/containers",
        ] {
            let path = lab.path(directory);
            if path.is_dir() {
                inotify::add_watch(
                    &files,
                    &path,
                    inotify::WatchFlags::DELETE | inotify::WatchFlags::MOVED_FROM,
                )
                .unwrap();
            }
        }
        let links = std::process::Command::new("nsenter")
            .args([
                "--net",
                "--target",
                &lab.init().to_string(),
                "ip",
                "monitor",
                "link",
            ])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        Watch { links, files }
    }

    /// Returns after an event or a moment; false once `end` has passed.
    fn next(&mut self, end: Instant) -> bool {
        if Instant::now() >= end {
            return false;
        }
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let links = self.links.stdout.as_mut().unwrap();
        let mut ready = [
            PollFd::new(links, PollFlags::IN),
            PollFd::new(&self.files, PollFlags::IN),
        ];
        poll(&mut ready, Some(&moment)).unwrap();
        let (link_event, file_event) = (
            !ready[0].revents().is_empty(),
            !ready[1].revents().is_empty(),
        );
        let mut buffer = [0; 8192];
        if link_event {
            let _ = BufReader::new(links).read(&mut buffer);
        }
        if file_event {
            let _ = rustix::io::read(&self.files, &mut buffer);
        }
        true
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.links.kill();
        let _ = self.links.wait();
    }
}

/// Waits for a directory to go away.
#[derive(Debug)]
pub struct Removal {
    path: std::path::PathBuf,
    events: rustix::fd::OwnedFd,
}

impl Removal {
    /// Starts to watch; what happens from now on is not missed.
    pub fn of(path: &Path) -> Removal {
        let events = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        let parent = path.parent().unwrap();
        let changes = inotify::WatchFlags::DELETE | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(&events, parent, changes).unwrap();
        Removal {
            path: path.to_owned(),
            events,
        }
    }

    /// False when it is still there after `deadline`.
    pub fn wait(self, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        while self.path.exists() {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap();
            if left.is_zero()
                || poll(
                    &mut [PollFd::new(&self.events, PollFlags::IN)],
                    Some(&timeout),
                )
                .unwrap()
                    == 0
            {
                return false;
            }
            let _ = rustix::io::read(&self.events, &mut [0; 4096]);
        }
        true
    }
}

/// Target, type and root of every mount in the host's own namespace.
fn mounts(init: u32) -> BTreeSet<String> {
    let text = fs::read_to_string(format!("/proc/{init}/mountinfo")).unwrap();
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let separator = fields.iter().position(|field| *field == "-")?;
            Some(format!(
                "{} on {} ({})",
                fields.get(3)?,
                fields.get(4)?,
                fields.get(separator + 1)?
            ))
        })
        // systemd mounts credentials for units as they come and go.
        .filter(|mount| !mount.contains("/run/credentials/") && !mount.contains("/run/user/"))
        .collect()
}

/// The cgroups that belong to containers, with the processes in them counted.
fn cgroups(root: &Path) -> BTreeSet<String> {
    fn walk(directory: &Path, root: &Path, found: &mut BTreeSet<String>) {
        let Ok(entries) = fs::read_dir(directory) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let path = entry.path();
                let name = path
                    .strip_prefix(root)
                    .unwrap_or(&path)
                    .display()
                    .to_string();
                if name.contains("berth-") || name.starts_with("berth/") {
                    found.insert(name);
                }
                walk(&path, root, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(root, root, &mut found);
    found
}

/// Monitors, and everything whose parent is one.
fn processes(init: u32) -> BTreeSet<String> {
    pid::tree(init)
        .into_iter()
        .filter(|process| {
            fs::read_to_string(format!("/proc/{process}/cgroup"))
                .is_ok_and(|cgroup| cgroup.contains("/berth.slice/") || cgroup.contains("/berth/"))
                || pid::name(*process).is_some_and(|name| name.contains("berth-monitor"))
        })
        .map(|process| format!("{process} {}", pid::name(process).unwrap_or_default()))
        .collect()
}

/// The ruleset without its counters.
fn firewall(ruleset: &str) -> BTreeSet<String> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for line in ruleset.lines() {
        *counts
            .entry(line.trim().split(" counter ").next().unwrap_or_default())
            .or_default() += 1;
    }
    counts
        .into_iter()
        .map(|(line, count)| format!("{count}× {line}"))
        .collect()
}

fn names(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The n-th word of each line.
fn words(text: &str, index: usize) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.split_whitespace().nth(index))
        .map(|word| word.trim_end_matches(':').to_owned())
        .collect()
}
