use std::fs::File;
use std::os::fd::AsFd;

use berth_sys::mount::{MountAttr, attach, make_private_recursive, new_fs};
use berth_sys::ns::{Namespaces, in_thread, unshare};
use berth_sys::path::{OFlags, open_host, open_root};

use super::*;

const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Runs with a file system of this type at [`ROOT`] that nobody else sees; only as root.
pub(crate) fn with_root(fstype: &str, test: impl FnOnce() + Send) {
    let caps = berth_sys::cred::read_caps().expect("capabilities");
    if caps.effective.0 & CAP_SYS_ADMIN == 0 {
        eprintln!("skipped: needs CAP_SYS_ADMIN");
        return;
    }
    in_thread(|| {
        unshare(Namespaces::MNT).expect("unshared");
        make_private_recursive().expect("private");
        let mount = new_fs(fstype, &[], &[], MountAttr::NONE).expect("file system");
        let target = open_root(ROOT).expect("mount point");
        attach(mount.as_fd(), target.as_fd()).expect("attached");
        test();
    })
    .expect("thread");
}

#[test]
fn groups_are_named_from_the_root() {
    assert_eq!(
        directory("/a.slice/b.scope"),
        Path::new("/sys/fs/cgroup/a.slice/b.scope")
    );
    assert_eq!(directory("berth/x"), Path::new("/sys/fs/cgroup/berth/x"));
}

#[test]
fn a_scope_is_divided() {
    with_root("cgroup2", || {
        let root = Cgroup::open(ROOT).expect("root");
        let name = format!("berth-test-scope-{}", std::process::id());
        let scope = root.create_child(&name).expect("scope");
        let sleep = open_host("/bin/sleep", OFlags::RDONLY).expect("sleep");
        let stdin = File::open("/dev/null").expect("null").into();
        let mut child =
            berth_sys::spawn::spawn_sealed(sleep.as_fd(), &["sleep", "60"], stdin, None)
                .expect("spawned");
        scope.add_pid(child.pid).expect("moved");
        let payload = prepare_scope(&format!("/{name}"), child.pid).expect("divided");
        let monitors = scope
            .open_child(MONITOR)
            .expect("monitor group")
            .procs()
            .expect("listed");
        let inside = scope.procs().expect("listed");
        let empty = payload.procs().expect("listed");
        child.kill().expect("killed");
        child.wait().expect("reaped");
        root.remove_child(&name).expect("scope removed");
        assert_eq!((monitors, inside, empty), (vec![child.pid], vec![], vec![]));
    });
}
