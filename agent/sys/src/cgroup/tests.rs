use super::*;

/// A group that tests may make groups in, and a name that no other test uses. `None` where the
/// machine has no cgroup2 that we may write to.
pub(crate) fn scratch(purpose: &str) -> Option<(Cgroup, String)> {
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        let Ok(root) = Cgroup::open(root) else {
            continue;
        };
        let name = format!("berth-sys-{purpose}-{}", std::process::id());
        if root.create_child(&name).is_ok() && root.remove_child(&name).is_ok() {
            return Some((root, name));
        }
    }
    eprintln!("no writable cgroup2 here: nothing tested");
    None
}

#[allow(clippy::disallowed_methods)]
fn sleeper() -> std::process::Child {
    std::process::Command::new("sleep")
        .arg("600")
        .spawn()
        .unwrap()
}

#[test]
fn files_are_parsed() {
    let events = parse_events("populated 1\nfrozen 0\nnew 7\n");
    assert_eq!(
        events,
        Events {
            populated: true,
            frozen: false
        }
    );
    let events =
        parse_memory_events("low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nbroken\n");
    assert_eq!((events.oom, events.oom_kill), (4, 5));
}

#[test]
fn other_directories_are_refused() {
    assert!(Cgroup::open("/tmp").is_err());
    assert_eq!(mode("/no/such/place").unwrap(), CgroupMode::None);
    assert_eq!(mode("/proc").unwrap(), CgroupMode::None);
}

#[test]
fn groups_live_and_die() {
    let Some((root, name)) = scratch("life") else {
        return;
    };
    let group = root.create_child(&name).unwrap();
    // Again is no error, and neither is removing what is not there.
    root.create_child(&name).unwrap();
    group.remove_child("nothing").unwrap();
    assert_eq!(group.events().unwrap(), Events::default());
    assert!(group.open_child("..").is_err());

    let mut child = sleeper();
    let payload = group.create_child("payload").unwrap();
    payload.add_pid(child.id()).unwrap();
    assert_eq!(payload.procs().unwrap(), [child.id()]);
    assert_eq!(group.children().unwrap(), ["payload"]);
    let path = crate::proc::cgroup_of(child.id()).unwrap();
    assert!(path.ends_with(&format!("/{name}/payload")), "{path}");
    assert!(root.remove_child(&name).is_err());

    let long = Duration::from_secs(10);
    payload.freeze(true).unwrap();
    assert!(payload.wait_frozen(true, long).unwrap());
    assert!(!payload.wait_empty(Duration::ZERO).unwrap());
    // A frozen group is killed without a thaw.
    payload.kill().unwrap();
    assert!(group.wait_empty(long).unwrap());
    child.wait().unwrap();
    root.remove_child(&name).unwrap();
    assert!(group.events().is_err());
}
