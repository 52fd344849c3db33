//! The default sandbox, rule by rule: part A of the security specification. Each test names its rules and fails when
//! the rule is taken out.

use std::collections::BTreeMap;

use berth_tests::image::probe;
use berth_tests::lab::Lab;
use serde_json::json;

use crate::support::{clean, create, inspect, patient, script};

const PROBE: &str = "berth-probe:latest";

/// `docker run` of the probe with options, its lines as name and result.
#[track_caller]
fn probed(lab: &Lab, options: &[&str], args: &[&str]) -> BTreeMap<String, String> {
    lab.ensure_image(PROBE, || probe(PROBE));
    let argv: Vec<&str> = ["run", "--rm"]
        .iter()
        .chain(options)
        .chain(&[PROBE, "/probe"])
        .chain(args)
        .copied()
        .collect();
    let text = lab.docker(&argv).ok();
    let lines: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, result)| (name.to_owned(), result.to_owned()))
        .collect();
    assert!(
        !lines.is_empty() || args == ["descriptors"],
        "the probe printed nothing"
    );
    lines
}

/// What a shell in a container prints.
#[track_caller]
fn shell(lab: &Lab, options: &[&str], text: &str) -> String {
    let argv: Vec<&str> = ["run", "--rm"]
        .iter()
        .chain(options)
        .chain(&["busybox", "sh", "-c", text])
        .copied()
        .collect();
    lab.docker(&argv).ok()
}

/// The five capability sets of a process in a container.
#[track_caller]
fn capabilities(lab: &Lab, options: &[&str]) -> BTreeMap<String, u64> {
    shell(lab, options, "grep ^Cap /proc/self/status")
        .lines()
        .map(|line| {
            let (name, value) = line.split_once(":\t").unwrap();
            (name.to_owned(), u64::from_str_radix(value, 16).unwrap())
        })
        .collect()
}

const DOCKER_DEFAULT: u64 = 0xa804_25fb;

#[test]
fn a1_default_capabilities() {
    clean(|lab| {
        let caps = capabilities(lab, &[]);
        for (set, value) in [
            ("CapInh", 0),
            ("CapPrm", DOCKER_DEFAULT),
            ("CapEff", DOCKER_DEFAULT),
            ("CapBnd", DOCKER_DEFAULT),
            ("CapAmb", 0),
        ] {
            assert_eq!(caps[set], value, "A.1 {set}: {:x}", caps[set]);
        }
    });
}

#[test]
fn a1_an_ordinary_user_has_none() {
    clean(|lab| {
        let caps = capabilities(lab, &["-u", "1000"]);
        for (set, value) in [
            ("CapInh", 0),
            ("CapPrm", 0),
            ("CapEff", 0),
            ("CapBnd", DOCKER_DEFAULT),
            ("CapAmb", 0),
        ] {
            assert_eq!(caps[set], value, "A.1, B.15 {set}: {:x}", caps[set]);
        }
        // Not even when capabilities are added for root.
        let caps = capabilities(lab, &["-u", "1000", "--cap-add", "SYS_ADMIN"]);
        assert_eq!(
            (
                caps["CapPrm"],
                caps["CapEff"],
                caps["CapInh"],
                caps["CapAmb"]
            ),
            (0, 0, 0, 0)
        );
    });
}

#[test]
fn a1_adding_and_dropping() {
    clean(|lab| {
        let all =
            u64::from_str_radix(lab.sh("grep CapBnd /proc/1/status | cut -f2").trim(), 16).unwrap();
        let effective = |options: &[&str]| capabilities(lab, options)["CapEff"];
        let net_admin = 1 << 12;
        let chown = 1;
        assert_eq!(
            effective(&["--cap-add", "net_admin"]),
            DOCKER_DEFAULT | net_admin
        );
        assert_eq!(
            effective(&["--cap-add", "CAP_NET_ADMIN"]),
            DOCKER_DEFAULT | net_admin
        );
        assert_eq!(effective(&["--cap-drop", "CHOWN"]), DOCKER_DEFAULT & !chown);
        assert_eq!(effective(&["--cap-drop", "ALL"]), 0);
        assert_eq!(
            effective(&["--cap-drop", "all", "--cap-add", "Chown"]),
            chown
        );
        assert_eq!(effective(&["--cap-add", "ALL"]), all);
        assert_eq!(
            effective(&["--cap-add", "ALL", "--cap-drop", "CHOWN"]),
            all & !chown
        );
        for option in ["--cap-add", "--cap-drop"] {
            let error = lab
                .docker(&["create", option, "CAP_FLY", "busybox"])
                .fails(1);
            assert!(error.contains("FLY"), "{error}");
        }
    });
}

#[test]
fn a2_no_new_privileges_only_when_asked() {
    clean(|lab| {
        assert_eq!(
            shell(lab, &[], "grep NoNewPrivs /proc/self/status"),
            "NoNewPrivs:\t0"
        );
        for option in [
            "no-new-privileges",
            "no-new-privileges:true",
            "no-new-privileges=true",
        ] {
            assert_eq!(
                shell(
                    lab,
                    &["--security-opt", option],
                    "grep NoNewPrivs /proc/self/status"
                ),
                "NoNewPrivs:\t1",
                "{option}"
            );
        }
        assert_eq!(
            shell(
                lab,
                &["--security-opt", "no-new-privileges:false"],
                "grep NoNewPrivs /proc/self/status"
            ),
            "NoNewPrivs:\t0"
        );
        // And the filter is there in both cases.
        for options in [
            &[][..],
            &["--security-opt", "no-new-privileges"],
            &["-u", "1000"],
            &["-u", "1000", "--security-opt", "no-new-privileges"],
        ] {
            assert_eq!(
                shell(lab, options, "grep Seccomp: /proc/self/status"),
                "Seccomp:\t2",
                "{options:?}"
            );
        }
    });
}

#[test]
fn a3_forbidden_calls_are_refused() {
    clean(|lab| {
        for options in [&[][..], &["-u", "1000"]] {
            let results = probed(lab, options, &["forbidden"]);
            assert!(results.len() > 40, "{results:?}");
            let let_through: Vec<_> = results
                .iter()
                .filter(|(_, result)| *result != "EPERM")
                .collect();
            assert!(
                let_through.is_empty(),
                "A.3 as {options:?}: {let_through:?}"
            );
        }
    });
}

#[test]
fn a3_ordinary_calls_are_not() {
    clean(|lab| {
        let results = probed(lab, &[], &["allowed"]);
        for call in [
            "getpid",
            "memfd_create",
            "pidfd_open",
            "close_range",
            "prctl",
            "mknodat",
            "chroot",
            "getrandom",
            "epoll_create1",
            "inotify_init1",
            "setpriority",
        ] {
            assert_eq!(results[call], "ok", "A.3 {call}");
        }
        assert_eq!(results["openat2"], "EINVAL", "the kernel's own answer");
        assert_eq!(results["statx"], "ENOENT");
        assert_eq!(results["ptrace"], "ESRCH");
    });
}

#[test]
fn a3_socket_families() {
    clean(|lab| {
        let results = probed(lab, &[], &["sockets"]);
        for family in ["unix", "inet", "inet6", "netlink", "packet"] {
            assert_eq!(results[family], "ok", "{family}");
        }
        assert_eq!(results["alg"], "EPERM", "A.3: AF_ALG");
        assert_eq!(results["vsock"], "EPERM", "A.3: AF_VSOCK");
    });
}

#[test]
fn a3_personalities() {
    clean(|lab| {
        let results = probed(lab, &[], &["personalities"]);
        for allowed in ["0", "0x8", "0x20000", "0x20008", "0xffffffff"] {
            assert_eq!(results[allowed], "ok", "{allowed}");
        }
        for refused in [
            "0x1",
            "0x40000",
            "0x400000",
            "0x4000000",
            "0x100000008",
            "0xffffffffffffffff",
        ] {
            assert_eq!(
                results[refused], "EPERM",
                "A.3, both halves are compared: {refused}"
            );
        }
    });
}

#[test]
fn a3_no_namespaces_by_any_number() {
    clean(|lab| {
        let results = probed(lab, &[], &["clones"]);
        assert_eq!(results["plain"], "ok");
        for flag in [
            "newns",
            "newuser",
            "newpid",
            "newnet",
            "newuts",
            "newipc",
            "newcgroup",
        ] {
            assert_eq!(results[flag], "EPERM", "A.3 clone with {flag}");
        }
        assert_eq!(
            results["clone3"], "ENOSYS",
            "so that every libc falls back to clone"
        );
        assert_eq!(
            results["unknown"], "ENOSYS",
            "a call newer than the profile"
        );
        if let Some(x32) = results.get("x32-mount") {
            assert!(matches!(x32.as_str(), "EPERM" | "ENOSYS"), "A.3 x32: {x32}");
            assert!(
                matches!(results["x86-mount"].as_str(), "EPERM" | "ENOSYS"),
                "A.3 int 0x80: {}",
                results["x86-mount"]
            );
        }
    });
}

#[test]
fn a3_the_profile_follows_the_capabilities() {
    clean(|lab| {
        let results = probed(lab, &["--cap-add", "SYS_ADMIN"], &["forbidden"]);
        for call in ["mount", "fsopen", "bpf", "sethostname"] {
            assert_ne!(results[call], "EPERM", "allowed with SYS_ADMIN: {call}");
        }
        assert_eq!(results["keyctl"], "EPERM");
        assert_eq!(results["io_uring_setup"], "EPERM");
        let results = probed(lab, &["--cap-add", "SYS_ADMIN"], &["clones"]);
        assert_eq!(
            (results["newns"].as_str(), results["clone3"].as_str()),
            ("ok", "ok")
        );
        // Without CHROOT in the bounding set chroot is filtered too.
        assert_eq!(
            probed(lab, &["--cap-drop", "SYS_CHROOT"], &["allowed"])["chroot"],
            "EPERM"
        );
    });
}

#[test]
fn a3_profiles_of_the_request() {
    clean(|lab| {
        assert_eq!(
            shell(
                lab,
                &["--security-opt", "seccomp=unconfined"],
                "grep Seccomp: /proc/self/status"
            ),
            "Seccomp:\t0"
        );
        assert_eq!(
            shell(lab, &["--privileged"], "grep Seccomp: /proc/self/status"),
            "Seccomp:\t0"
        );
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }],
        });
        std::fs::write(lab.share().join("profile.json"), profile.to_string()).unwrap();
        let text = shell(
            lab,
            &["--security-opt", "seccomp=/lab/profile.json"],
            "mkdir /tmp/x 2>&1 || true",
        );
        assert!(text.contains("No space left on device"), "{text}");
        // An action that is known is honoured, one that is not is refused: never ignored.
        let bad = json!({ "defaultAction": "SCMP_ACT_WHATEVER" });
        let body = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "SecurityOpt": [format!("seccomp={bad}")] } });
        let answer = lab.http().post_json("/containers/create", &body);
        let refused = answer.status >= 400 || {
            let id = answer.json()["Id"].as_str().unwrap().to_owned();
            lab.http().post(&format!("/containers/{id}/start")).status >= 400
        };
        assert!(
            refused,
            "A.3: a profile that does not parse is never no profile"
        );
    });
}

#[test]
fn a4_masked_paths_are_empty_and_read_only_ones_hold() {
    clean(|lab| {
        let masked = "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap";
        let look = format!(
            "for p in {masked} /sys/devices/system/cpu/cpu*/thermal_throttle; do \
               if [ -d $p ]; then echo $p dir $(ls -A $p | wc -l) $(touch $p/x 2>/dev/null && echo written); \
               elif [ -e $p ]; then echo $p file $(cat $p | wc -c) $(grep -c \" $p \" /proc/mounts); fi; done"
        );
        let text = shell(lab, &[], &look);
        let mut seen = 0;
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields.as_slice() {
                [_, "dir", "0"] => seen += 1,
                [_, "file", "0", mounts] if *mounts != "0" => seen += 1,
                _ => panic!("A.4, B.17: {line}"),
            }
        }
        assert!(seen >= 4, "this kernel has some of them: {text}");
        let look = "for p in /proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger; do [ -e $p ] && grep -q \" $p proc ro\" /proc/mounts && echo $p; done; \
                    echo x 2>/dev/null >/proc/sys/kernel/core_pattern && echo BAD; echo b 2>/dev/null >/proc/sysrq-trigger && echo BAD; true";
        let text = shell(lab, &[], look);
        for path in [
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        ] {
            let exists = !shell(lab, &[], &format!("ls -d {path} 2>/dev/null || true")).is_empty();
            assert_eq!(
                text.lines().any(|line| line == path),
                exists,
                "A.4 {path}: {text}"
            );
        }
        assert!(!text.contains("BAD"), "A.4: {text}");
    });
}

#[test]
fn a4_the_lists_can_be_replaced_by_the_request_alone() {
    clean(|lab| {
        let count = |options: &[&str]| -> u32 {
            shell(lab, options, "grep -c ' /proc/[a-z]' /proc/mounts || true")
                .parse()
                .unwrap()
        };
        assert!(count(&[]) > 3);
        assert_eq!(count(&["--security-opt", "systempaths=unconfined"]), 0);
        let mut body = script("grep ' /proc/[a-z]' /proc/mounts | cut -d' ' -f2");
        body["HostConfig"] = json!({ "MaskedPaths": ["/proc/uptime"], "ReadonlyPaths": [] });
        let (code, out, err) = crate::support::run_over_api(lab, &body);
        assert_eq!((code, out.trim()), (0, "/proc/uptime"), "{err}");
    });
}

#[test]
fn a5_nodes_and_links_of_dev() {
    clean(|lab| {
        let text = shell(
            lab,
            &[],
            "cd /dev; stat -c '%n %t:%T %a %u' null zero full random urandom tty; for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done; ls",
        );
        for line in [
            "null 1:3 666 0",
            "zero 1:5 666 0",
            "full 1:7 666 0",
            "random 1:8 666 0",
            "urandom 1:9 666 0",
            "tty 5:0 666 0",
        ] {
            assert!(text.contains(line), "A.5 {line}: {text}");
        }
        for line in [
            "fd /proc/self/fd",
            "stdin /proc/self/fd/0",
            "stdout /proc/self/fd/1",
            "stderr /proc/self/fd/2",
            "ptmx pts/ptmx",
        ] {
            assert!(text.contains(line), "A.5 {line}: {text}");
        }
        for foreign in ["sda", "vda", "kmsg", "mem", "loop0", "fuse"] {
            assert!(
                !text.lines().any(|line| line == foreign),
                "A.5: /dev/{foreign} is there"
            );
        }
    });
}

#[test]
fn a5_the_device_fence() {
    clean(|lab| {
        let allowed = ["c:1:3", "c:1:5", "c:1:7", "c:1:8", "c:1:9"];
        // The disk, memory, kernel messages, fuse, tun, loop, device mapper, vhost, kvm, input, a made-up one …
        let refused = [
            "b:254:0", "b:8:0", "b:259:0", "b:7:0", "b:253:0", "b:11:0", "c:1:1", "c:1:2", "c:1:4",
            "c:1:11", "c:10:229", "c:10:200", "c:10:232", "c:10:235", "c:10:236", "c:10:237",
            "c:10:238", "c:4:0", "c:4:64", "c:29:0", "c:13:0", "c:21:0", "c:89:0", "c:180:0",
            "c:189:0", "c:240:0", "c:999:7",
        ];
        let results = probed(
            lab,
            &[],
            &[&["device"], &allowed[..], &refused[..]].concat(),
        );
        for node in allowed {
            assert_eq!(results[node], "ok", "A.5 {node}");
        }
        for node in refused {
            // Of fuse even the making is denied.
            assert!(
                matches!(results[node].as_str(), "EPERM" | "mknod-EPERM"),
                "A.5, B.19: {node}: {}",
                results[node]
            );
        }
    });
}

#[test]
fn a6_every_mount_has_its_options() {
    clean(|lab| {
        let text = shell(lab, &[], "cat /proc/mounts");
        let mounts: BTreeMap<&str, (&str, Vec<&str>)> = text
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split(' ').collect();
                Some((
                    *fields.get(1)?,
                    (*fields.get(2)?, fields.get(3)?.split(',').collect()),
                ))
            })
            .collect();
        for (target, kind, options) in [
            ("/", "overlay", &["rw"][..]),
            ("/proc", "proc", &["rw", "nosuid", "nodev", "noexec"]),
            ("/dev", "tmpfs", &["nosuid", "size=65536k", "mode=755"]),
            (
                "/dev/pts",
                "devpts",
                &["nosuid", "noexec", "gid=5", "mode=620", "ptmxmode=666"],
            ),
            ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
            (
                "/sys/fs/cgroup",
                "cgroup2",
                &["ro", "nosuid", "nodev", "noexec"],
            ),
            ("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]),
            (
                "/dev/shm",
                "tmpfs",
                &["nosuid", "nodev", "noexec", "size=65536k"],
            ),
        ] {
            let (found, have) = mounts
                .get(target)
                .unwrap_or_else(|| panic!("A.6: no {target} in {text}"));
            assert_eq!(*found, kind, "A.6 {target}");
            for option in options {
                assert!(
                    have.contains(option),
                    "A.6 {target} lacks {option}: {have:?}"
                );
            }
        }
        for file in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
            assert!(mounts.contains_key(file), "A.6: {file} is the agent's");
        }
        // Nothing of the host's own tree is in sight.
        assert!(
            !text.contains("/lab") && !text.contains("/var/lib/berth "),
            "{text}"
        );
        let propagation = shell(
            lab,
            &[],
            "grep -c 'shared:\\|master:' /proc/self/mountinfo || true",
        );
        assert_eq!(propagation, "0", "A.6: everything is private");
    });
}

#[test]
fn a6_volumes_over_the_kernels_directories_are_refused() {
    clean(|lab| {
        lab.sh("mkdir -p /srv/v");
        for target in [
            "/",
            "/proc",
            "/proc/",
            "//proc",
            "/./proc",
            "/x/../proc",
            "/proc/self",
            "/proc/self/attr",
            "/proc/sys",
            "/proc/sysrq-trigger",
            "/sys",
        ] {
            for options in [["-v", &format!("/srv/v:{target}")], ["--tmpfs", target]] {
                let run = lab.docker(&["run", "--rm", options[0], options[1], "busybox", "true"]);
                assert!(
                    matches!(run.code(), 125..=127),
                    "A.6, B.1: {options:?}: {}",
                    run.describe()
                );
            }
        }
        // The few files that are harmless may be replaced.
        lab.sh("echo 77 >/srv/v/up");
        assert_eq!(
            lab.docker(&[
                "run",
                "--rm",
                "-v",
                "/srv/v/up:/proc/uptime",
                "busybox",
                "cat",
                "/proc/uptime"
            ])
            .ok(),
            "77"
        );
        lab.sh("rm -r /srv/v");
    });
}

#[test]
fn a7_namespaces_are_its_own() {
    clean(|lab| {
        let inside = shell(
            lab,
            &[],
            "for n in mnt pid net ipc uts cgroup user; do readlink /proc/self/ns/$n; done",
        );
        let outside =
            lab.sh("for n in mnt pid net ipc uts cgroup user; do readlink /proc/1/ns/$n; done");
        for (own, host) in inside.lines().zip(outside.lines()) {
            if own.starts_with("user:") {
                assert_eq!(own, host);
            } else {
                assert_ne!(own, host, "A.7");
            }
        }
        assert_eq!(shell(lab, &[], "echo $$"), "1", "the command is PID 1");
        assert_eq!(shell(lab, &[], "grep ^0:: /proc/self/cgroup"), "0::/");
        assert_eq!(
            shell(
                lab,
                &[],
                "mkdir /sys/fs/cgroup/x 2>&1 | grep -c 'Read-only'"
            ),
            "1",
            "A.7, B.15: the cgroup tree is read-only"
        );
        assert_eq!(
            shell(lab, &[], "ls /proc/1/root/lab 2>/dev/null | wc -l"),
            "0"
        );
    });
}

#[test]
fn a7_descriptors_umask_and_directory() {
    clean(|lab| {
        lab.ensure_image(PROBE, || probe(PROBE));
        for options in [&[][..], &["-u", "1000"], &["-i"]] {
            let argv: Vec<&str> = ["run", "--rm"]
                .iter()
                .chain(options)
                .chain(&[PROBE, "/probe", "descriptors"])
                .copied()
                .collect();
            assert_eq!(lab.docker(&argv).ok(), "0\n1\n2", "A.7, B.2: {options:?}");
        }
        let tty = lab.sh(&format!(
            "script -qec 'docker run --rm -t {PROBE} /probe descriptors' /dev/null </dev/null"
        ));
        assert_eq!(
            tty.split_whitespace().collect::<Vec<_>>(),
            ["0", "1", "2"],
            "A.7, B.2, with a terminal"
        );
        assert_eq!(shell(lab, &[], "umask; pwd"), "0022\n/");
    });
}

#[test]
fn a7_the_session_keyring_is_new() {
    clean(|lab| {
        let text = shell(
            lab,
            &[
                "--security-opt",
                "seccomp=unconfined",
                "--security-opt",
                "systempaths=unconfined",
            ],
            "cat /proc/keys",
        );
        let id_like = text.lines().any(|line| {
            line.contains("keyring") && line.contains("_ses.") && !line.contains("_ses.0")
        });
        let own = text.lines().any(|line| line.contains("keyring"));
        assert!(
            own && !id_like,
            "A.7: a keyring of its own, none of a login session: {text}"
        );
    });
}

#[test]
fn a7_pids_and_names_that_leave_the_hierarchy() {
    clean(|lab| {
        for parent in [
            "../../x",
            "/../x.slice",
            "a/b",
            "x.service",
            "-.slice/..",
            "bad name.slice",
        ] {
            let body = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": { "CgroupParent": parent } });
            let answer = lab.http().post_json("/containers/create", &body);
            assert!(
                matches!(answer.status, 400 | 501),
                "A.7 CgroupParent {parent}: {} {}",
                answer.status,
                answer.text()
            );
        }
        for sysctl in [
            "kernel/../vm.swappiness",
            "net..ipv4",
            "net.ipv4/../../kernel.panic",
            "../x",
            "kernel.core_pattern",
            "vm.swappiness",
            "fs.file-max",
        ] {
            let body = json!({ "Image": "busybox", "HostConfig": { "Sysctls": { sysctl: "1" } } });
            lab.http()
                .post_json("/containers/create", &body)
                .expect(400);
        }
    });
}

#[test]
fn a7_defaults_for_ports_and_ping() {
    clean(|lab| {
        let text = shell(
            lab,
            &[],
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range",
        );
        let fields: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(fields, ["0", "0", "2147483647"]);
    });
}

#[test]
fn a7_the_monitor_and_the_agent_are_protected_from_the_oom_killer() {
    clean(|lab| {
        let id = patient(lab, &[]);
        let pid = inspect(lab, &id)["State"]["Pid"].as_u64().unwrap();
        let parent = lab.sh(&format!("cut -d' ' -f4 /proc/{pid}/stat"));
        assert_eq!(lab.sh(&format!("cat /proc/{parent}/comm")), "berth-monitor");
        assert_eq!(lab.sh(&format!("cat /proc/{pid}/oom_score_adj")), "0");
        // Only SYS_RESOURCE may lower the score, which a build machine's root can lack: then nothing can be seen here.
        let all = lab.sh("grep CapEff /proc/1/status | cut -f2");
        if u64::from_str_radix(&all, 16).unwrap() >> 24 & 1 == 1 {
            assert_eq!(lab.sh(&format!("cat /proc/{parent}/oom_score_adj")), "-999");
            assert_eq!(
                lab.sh("cat /proc/$(systemctl show --value -p MainPID berthd)/oom_score_adj"),
                "-500"
            );
        }
    });
}

#[test]
fn a11_privileged_does_not_share_and_does_not_leak() {
    clean(|lab| {
        lab.ensure_image(PROBE, || probe(PROBE));
        assert_eq!(
            lab.docker(&[
                "run",
                "--rm",
                "--privileged",
                PROBE,
                "/probe",
                "descriptors"
            ])
            .ok(),
            "0\n1\n2"
        );
        let text = shell(
            lab,
            &["--privileged"],
            "grep -c 'shared:' /proc/self/mountinfo; readlink /proc/self/ns/net; grep -c ' /proc/[a-z]' /proc/mounts; true",
        );
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "0");
        assert_ne!(lines[1], lab.sh("readlink /proc/1/ns/net"));
        assert_eq!(lines[2], "0", "nothing masked");
        // no_new_privs stays as asked, and a named profile is used.
        assert_eq!(
            shell(
                lab,
                &["--privileged", "--security-opt", "no-new-privileges"],
                "grep NoNewPrivs /proc/self/status"
            ),
            "NoNewPrivs:\t1"
        );
        let results = probed(lab, &["--privileged"], &["device", "c:1:11", "c:10:229"]);
        assert!(
            results.values().all(|result| result != "EPERM"),
            "A.11: {results:?}"
        );
    });
}

#[test]
fn b12_the_socket_is_for_root_and_the_group() {
    clean(|lab| {
        assert_eq!(
            lab.sh("stat -c '%a %U %G' /run/berth/berth.sock"),
            "660 root berth"
        );
        assert_eq!(
            lab.exec_as("bob", &["docker", "ps", "-q"]).code(),
            0,
            "bob is in the group"
        );
        let denied = lab.exec_as("alice", &["docker", "ps", "-q"]).fails(1);
        assert!(denied.contains("permission denied"), "{denied}");
        // No abstract sockets: they would be open to containers with the host's network.
        patient(lab, &["--network", "host"]);
        assert_eq!(
            lab.sh("grep -c '@.*berth' /proc/net/unix || true"),
            "0",
            "B.12"
        );
    });
}

#[test]
fn b14_modes_of_the_agents_directories() {
    clean(|lab| {
        let id = create(lab, None, &script("true"));
        assert_eq!(lab.sh("stat -c '%a %U' /var/lib/berth"), "710 root");
        assert_eq!(lab.sh("stat -c '%a %U' /run/berth"), "711 root");
        assert_ne!(
            lab.exec_as("alice", &["cat", "/var/lib/berth/db.sqlite"])
                .code(),
            0,
            "B.14"
        );
        assert_eq!(
            lab.sh(&format!("stat -c %a /var/lib/berth/containers/{id}")),
            "700"
        );
        // What is setuid in an image must not be reachable by a local user.
        assert_ne!(lab.exec_as("alice", &["ls", "/var/lib/berth"]).code(), 0);
        assert_ne!(
            lab.exec_as("alice", &["ls", "/var/lib/berth/layers"])
                .code(),
            0
        );
        assert_eq!(lab.sh("grep 'Max core file size' /proc/$(systemctl show --value -p MainPID berthd)/limits | awk '{print $5}'"), "0");
    });
}
