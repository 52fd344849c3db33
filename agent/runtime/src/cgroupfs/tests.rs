use std::fs;
use std::os::fd::AsFd;

use super::*;
use crate::cgroup::tests::with_root;
use crate::devices::{self, filter};
use crate::spec::RunSpec;

const FILES: [(&str, &str); 8] = [
    ("memory.max", "536870912"),
    ("memory.low", "1048576"),
    ("memory.swap.max", "max"),
    ("cpu.weight", "42"),
    ("cpu.max", "75000 50000"),
    ("cpuset.cpus", "0-1"),
    ("cpuset.mems", "0"),
    ("pids.max", "7"),
];

fn limits() -> Limits {
    Limits {
        memory_max: Some(512 << 20),
        memory_low: Some(1 << 20),
        memory_swap_max: Some(-1),
        cpu_weight: Some(42),
        cpu_quota: Some(75_000),
        cpu_period: Some(50_000),
        pids_max: Some(7),
        cpuset_cpus: "0-1".to_owned(),
        cpuset_mems: "0".to_owned(),
    }
}

#[test]
fn groups_come_and_go() {
    with_root("cgroup2", || {
        let id = format!("test-{}", std::process::id());
        assert_eq!(group(&id), format!("/berth/{id}"));
        let payload = create(&id, &limits()).expect("created");
        assert!(list().expect("listed").contains(&id));
        assert!(payload.procs().expect("listed").is_empty());
        // Once more is the same group.
        create(&id, &Limits::default()).expect("there already");
        for privileged in [false, true] {
            let spec = RunSpec {
                privileged,
                device_cgroup_rules: vec!["b *:* rw".to_owned(), "c 4095:* m".to_owned()],
                ..RunSpec::default()
            };
            let program = filter::program(&devices::rules(&spec, &[]).expect("valid"));
            let attached = berth_sys::devfilter::attach(payload.as_fd(), &program);
            attached.expect("the kernel's verifier takes the fence");
        }
        remove(&id).expect("removed");
        remove(&id).expect("gone already");
        assert!(!list().expect("listed").contains(&id));
        // The hierarchy is the host's own; others may have groups there, then it stays.
        let _ = fs::remove_dir(directory(PARENT));
    });
}

#[test]
fn limits_are_written_in_the_kernels_words() {
    // A tmpfs stands for a hierarchy with controllers, which this host need not have: only what
    // cgroups-rs writes is looked at.
    with_root("tmpfs", || {
        let root = Path::new(ROOT);
        fs::write(
            root.join("cgroup.controllers"),
            "cpuset cpu io memory pids\n",
        )
        .expect("written");
        let dir = root.join("g");
        fs::create_dir(&dir).expect("directory");
        for (file, _) in FILES {
            fs::write(dir.join(file), "").expect("written");
        }
        fs::write(dir.join("cpu.max"), "max 100000\n").expect("written");
        let all = ["cpuset", "cpu", "memory", "pids"].map(str::to_owned);
        write(&dir, "g", &all, &limits()).expect("written");
        for (file, wanted) in FILES {
            let text = fs::read_to_string(dir.join(file)).expect("there");
            assert_eq!(text.trim_end(), wanted, "{file}");
        }
    });
}

#[test]
fn what_was_not_handed_on_is_passed_over() {
    with_root("tmpfs", || {
        let root = Path::new(ROOT);
        fs::write(root.join("cgroup.controllers"), "cpuset cpu memory pids\n").expect("written");
        let dir = root.join("g");
        fs::create_dir(&dir).expect("directory");
        write(&dir, "g", &[], &limits()).expect("nothing to write");
        assert_eq!(fs::read_dir(&dir).expect("read").count(), 0);
        // A limit that cannot be written is an error that names the file.
        fs::create_dir(dir.join("pids.max")).expect("in the way");
        let error =
            write(&dir, "g", &["pids".to_owned()], &limits()).expect_err("cannot be written");
        assert!(error.to_string().contains("pids.max"), "{error}");
    });
}
