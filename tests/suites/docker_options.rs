//! What the options of `docker run` do, seen from inside the container and from the host.

use serde_json::json;

use crate::support::{clean, create, inspect, patient, run_detached, wait_exit};

#[test]
fn environment_user_directory_host_name_entrypoint() {
    clean(|lab| {
        let run = |args: &[&str]| lab.docker(&[&["run", "--rm"], args].concat()).ok();
        assert_eq!(
            run(&["-e", "A=b c", "busybox", "sh", "-c", "echo $A"]),
            "b c"
        );
        assert_eq!(
            run(&["-w", "/made/for/it", "busybox", "pwd"]),
            "/made/for/it"
        );
        assert_eq!(run(&["-h", "box", "busybox", "hostname"]), "box");
        assert_eq!(
            run(&["--entrypoint", "echo", "busybox", "as", "asked"]),
            "as asked"
        );
        assert_eq!(
            run(&["-u", "1000", "busybox", "id"]),
            "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)"
        );
        assert_eq!(run(&["-u", "user:0", "busybox", "id", "-g"]), "0");
        assert_eq!(run(&["-u", "12345", "busybox", "id", "-u"]), "12345");
        assert_eq!(run(&["--group-add", "77", "busybox", "id", "-G"]), "0 77");
        let home = run(&["-u", "user", "busybox", "sh", "-c", "echo $HOME"]);
        assert_eq!(home, "/home");
        // The agent's own environment never reaches a container.
        let environment = run(&["-h", "box", "busybox", "env"]);
        let mut names: Vec<&str> = environment
            .lines()
            .filter_map(|line| line.split('=').next())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["HOME", "HOSTNAME", "PATH"], "{environment}");
    });
}

#[test]
fn an_unknown_user_is_an_error() {
    clean(|lab| {
        let error = lab
            .docker(&["run", "--rm", "-u", "nobodyhere", "busybox", "true"])
            .fails(125);
        assert!(error.contains("unable to find user nobodyhere"), "{error}");
    });
}

#[test]
fn binds_show_the_hosts_directory_and_ro_holds() {
    clean(|lab| {
        lab.sh("rm -rf /srv/shared; mkdir -p /srv/shared; echo from host >/srv/shared/f");
        let text = lab
            .docker(&[
                "run",
                "--rm",
                "-v",
                "/srv/shared:/mnt/in",
                "busybox",
                "sh",
                "-c",
                "cat /mnt/in/f; echo back >/mnt/in/g",
            ])
            .ok();
        assert_eq!(text, "from host");
        assert_eq!(lab.sh("cat /srv/shared/g"), "back");
        let denied = lab
            .docker(&[
                "run",
                "--rm",
                "-v",
                "/srv/shared:/mnt/in:ro",
                "busybox",
                "touch",
                "/mnt/in/h",
            ])
            .fails(1);
        assert!(denied.contains("Read-only file system"), "{denied}");
        // A source that is missing is made by -v and refused by --mount, as docker does.
        lab.docker(&["run", "--rm", "-v", "/srv/made:/x", "busybox", "true"])
            .ok();
        assert_eq!(lab.sh("stat -c %F /srv/made; rmdir /srv/made"), "directory");
        let error = lab
            .docker(&[
                "run",
                "--rm",
                "--mount",
                "type=bind,src=/srv/none,dst=/x",
                "busybox",
                "true",
            ])
            .fails(125);
        assert!(error.contains("bind source path does not exist"), "{error}");
        lab.sh("rm -rf /srv/shared");
    });
}

#[test]
fn one_file_can_be_bound() {
    clean(|lab| {
        lab.sh("echo alone >/srv/file");
        assert_eq!(
            lab.docker(&[
                "run",
                "--rm",
                "-v",
                "/srv/file:/etc/it:ro",
                "busybox",
                "cat",
                "/etc/it"
            ])
            .ok(),
            "alone"
        );
        lab.sh("rm /srv/file");
    });
}

#[test]
fn tmpfs_and_shm_have_their_options() {
    clean(|lab| {
        let script = "grep ' /scratch ' /proc/mounts; df -k /scratch | tail -n 1; df -k /dev/shm | tail -n 1";
        let text = lab
            .docker(&[
                "run",
                "--rm",
                "--tmpfs",
                "/scratch:size=8m,mode=1700",
                "--shm-size",
                "32m",
                "busybox",
                "sh",
                "-c",
                script,
            ])
            .ok();
        let lines: Vec<&str> = text.lines().collect();
        for option in [
            "tmpfs",
            "noexec",
            "nosuid",
            "nodev",
            "size=8192k",
            "mode=1700",
        ] {
            assert!(lines[0].contains(option), "{option} in {text}");
        }
        assert_eq!(lines[1].split_whitespace().nth(1), Some("8192"), "{text}");
        assert_eq!(lines[2].split_whitespace().nth(1), Some("32768"), "{text}");
    });
}

#[test]
fn ulimits_and_sysctls() {
    clean(|lab| {
        let text = lab
            .docker(&[
                "run",
                "--rm",
                "--ulimit",
                "nofile=123:456",
                "--ulimit",
                "core=0",
                "busybox",
                "sh",
                "-c",
                "ulimit -n; ulimit -Hn; ulimit -c",
            ])
            .ok();
        assert_eq!(text, "123\n456\n0");
        let text = lab
            .docker(&[
                "run",
                "--rm",
                "--sysctl",
                "net.ipv4.ip_default_ttl=42",
                "--sysctl",
                "kernel.msgmax=9000",
                "busybox",
                "sh",
                "-c",
                "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax",
            ])
            .ok();
        assert_eq!(text, "42\n9000");
        let error = lab
            .docker(&[
                "run",
                "--rm",
                "--sysctl",
                "kernel.panic=1",
                "busybox",
                "true",
            ])
            .fails(125);
        assert!(error.contains("kernel.panic"), "{error}");
        let error = lab
            .docker(&[
                "run",
                "--rm",
                "--network",
                "host",
                "--sysctl",
                "net.ipv4.ip_default_ttl=42",
                "busybox",
                "true",
            ])
            .fails(125);
        assert!(error.contains("net.ipv4.ip_default_ttl"), "{error}");
    });
}

#[test]
fn init_reaps_and_forwards() {
    clean(|lab| {
        let text = lab
            .docker(&[
                "run",
                "--rm",
                "--init",
                "busybox",
                "sh",
                "-c",
                "echo $$; cat /proc/1/comm",
            ])
            .ok();
        let lines: Vec<&str> = text.lines().collect();
        assert_ne!(lines[0], "1", "the command is not PID 1: {text}");
        // A signal to PID 1 reaches the command, and its code is the container's.
        let id = patient(lab, &["--init"]);
        lab.docker(&["stop", &id]).ok();
        assert_eq!(inspect(lab, &id)["State"]["ExitCode"], 7);
        // Orphans are reaped: none is left as a zombie.
        let script =
            "for n in 1 2 3; do (sh -c 'true &'); done; sh -c 'sleep 0.2'; ps -o stat | grep -c Z";
        assert_eq!(
            lab.docker(&["run", "--rm", "--init", "busybox", "sh", "-c", script])
                .stdout(),
            "0"
        );
    });
}

#[test]
fn read_only_root() {
    clean(|lab| {
        let script = "touch /x 2>&1; touch /tmp/in 2>&1; touch /scratch/y && echo scratch";
        let run = lab.docker(&[
            "run",
            "--rm",
            "--read-only",
            "--tmpfs",
            "/scratch",
            "busybox",
            "sh",
            "-c",
            script,
        ]);
        let text = run.ok();
        assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
        assert!(text.ends_with("scratch"), "{text}");
    });
}

#[test]
fn limits_are_properties_of_the_scope() {
    clean(|lab| {
        let id = patient(
            lab,
            &[
                "--name",
                "limited",
                "-m",
                "64m",
                "--memory-swap",
                "128m",
                "--memory-reservation",
                "32m",
                "--cpus",
                "1.5",
                "--cpu-shares",
                "512",
                "--pids-limit",
                "77",
                "--cpuset-cpus",
                "0",
            ],
        );
        let scope = berth_tests::lab::Lab::scope(&id);
        let show = |property: &str| lab.unit(&scope, property);
        assert_eq!(show("MemoryMax"), (64u64 << 20).to_string());
        assert_eq!(
            show("MemorySwapMax"),
            (64u64 << 20).to_string(),
            "swap alone: the total less the memory"
        );
        assert_eq!(show("MemoryLow"), (32u64 << 20).to_string());
        assert_eq!(show("CPUQuotaPerSecUSec"), "1.500000s");
        assert_eq!(show("TasksMax"), "77");
        assert_eq!(show("AllowedCPUs"), "0");
        // 512 shares are half of Docker's default of 1024; systemd's default weight is 100.
        let weight: u64 = show("CPUWeight").parse().unwrap();
        assert!((19..=59).contains(&weight), "CPUWeight={weight}");
        let host = inspect(lab, &id)["HostConfig"].clone();
        assert_eq!(host["Memory"], 64 << 20);
        assert_eq!(host["MemorySwap"], 128 << 20);
        assert_eq!(host["NanoCpus"], 1_500_000_000);
        assert_eq!(host["CpuShares"], 512);
        assert_eq!(host["PidsLimit"], 77);
        assert_eq!(host["CpusetCpus"], "0");
    });
}

#[test]
fn a_limit_without_its_controller_is_a_warning() {
    clean(|lab| {
        // The lab's kernel hands no controllers to the unified tree; a host that has them warns of nothing.
        let controllers = lab.sh("cat /sys/fs/cgroup/cgroup.controllers");
        let answer = lab
            .http()
            .post_json(
                "/containers/create",
                &json!({ "Image": "busybox", "HostConfig": { "Memory": 64 << 20 } }),
            )
            .expect(201)
            .json();
        let warnings = answer["Warnings"].to_string();
        let info = lab.http().get("/info").expect(200).json();
        if controllers.split_whitespace().any(|name| name == "memory") {
            assert_eq!(info["MemoryLimit"], true);
            assert!(!warnings.contains("memory limit"), "{warnings}");
        } else {
            assert_eq!(info["MemoryLimit"], false);
            assert!(warnings.contains("memory limit"), "{warnings}");
            assert!(
                info["Warnings"].to_string().contains("memory limit"),
                "{}",
                info["Warnings"]
            );
        }
    });
}

#[test]
fn impossible_limits_are_refused_with_the_bounds() {
    clean(|lab| {
        for (host, word) in [
            (json!({ "Memory": 1 << 20 }), "6MB"),
            (
                json!({ "Memory": 64 << 20, "MemorySwap": 32 << 20 }),
                "memory",
            ),
            (
                json!({ "Memory": 64 << 20, "MemoryReservation": 128 << 20 }),
                "reservation",
            ),
            (json!({ "MemorySwap": 64 << 20 }), "memory"),
            (json!({ "NanoCpus": 1_000_000_000_000_i64 }), "CPUs"),
            (json!({ "NanoCpus": -1 }), "CPUs"),
            (json!({ "CpuPeriod": 10 }), "period"),
            (json!({ "CpuQuota": 10 }), "quota"),
            (json!({ "CpuShares": -1 }), "shares"),
            (json!({ "CpusetCpus": "0-99999" }), "cpu"),
            (json!({ "CpusetCpus": "x" }), "cpu"),
            (json!({ "OomScoreAdj": 1001 }), "1000"),
            (json!({ "ShmSize": -1 }), "shm"),
        ] {
            let answer = lab.http().post_json(
                "/containers/create",
                &json!({ "Image": "busybox", "HostConfig": host }),
            );
            let text = answer.clone().expect(400).message();
            assert!(
                text.to_lowercase().contains(&word.to_lowercase()),
                "{host}: {text}"
            );
        }
    });
}

#[test]
fn oom_score_is_the_containers() {
    clean(|lab| {
        assert_eq!(
            lab.docker(&[
                "run",
                "--rm",
                "--oom-score-adj",
                "500",
                "busybox",
                "cat",
                "/proc/self/oom_score_adj"
            ])
            .ok(),
            "500"
        );
        assert_eq!(
            lab.docker(&["run", "--rm", "busybox", "cat", "/proc/self/oom_score_adj"])
                .ok(),
            "0"
        );
    });
}

#[test]
fn the_image_id_and_its_defaults_are_merged() {
    clean(|lab| {
        let id = create(
            lab,
            Some("merged"),
            &json!({ "Image": "busybox", "Env": ["X=1", "PATH"], "Labels": { "l": "v" } }),
        );
        let container = inspect(lab, &id);
        assert_eq!(container["Config"]["Image"], "busybox");
        assert!(
            container["Image"].as_str().unwrap().starts_with("sha256:"),
            "{}",
            container["Image"]
        );
        assert_eq!(container["Config"]["Cmd"], json!(["sh"]));
        assert_eq!(
            container["Config"]["Env"],
            json!(["X=1"]),
            "an entry without = unsets the image's"
        );
        assert_eq!(container["Config"]["Labels"]["l"], "v");
        assert_eq!(container["Config"]["Hostname"], id[..12].to_owned());
        assert_eq!(container["State"]["Status"], "created");
        assert_eq!(container["State"]["StartedAt"], "0001-01-01T00:00:00Z");
    });
}

#[test]
fn privileged_lifts_the_sandbox_and_nothing_else() {
    clean(|lab| {
        let script = "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; mount -t tmpfs none /tmp && echo mounted; grep ^0:: /proc/self/cgroup; ls /proc | grep -c '^[0-9]'";
        let text = lab
            .docker(&["run", "--rm", "--privileged", "busybox", "sh", "-c", script])
            .ok();
        let all = lab
            .sh("grep CapBnd /proc/1/status")
            .replace("CapBnd", "CapEff");
        assert!(
            text.contains(&all),
            "{text}: all capabilities that the host has: {all}"
        );
        assert!(
            text.contains("Seccomp:\t0") && text.contains("mounted"),
            "{text}"
        );
        // Still a pid namespace of its own, and a cgroup namespace.
        assert!(text.contains("0::/\n"), "{text}");
        let processes: u32 = text.lines().last().unwrap().parse().unwrap();
        assert!(processes < 10, "{text}");
    });
}

#[test]
fn security_options_are_checked_at_create() {
    clean(|lab| {
        for option in [
            "no-new-privileges:maybe",
            "seccomp=/no/such/file.json",
            "nonsense",
            "nonsense=1",
            "apparmor=../x",
        ] {
            let run = lab.docker(&["create", "--security-opt", option, "busybox", "true"]);
            assert_ne!(run.code(), 0, "{option}: {}", run.describe());
        }
        let answer = lab.http().post_json(
            "/containers/create",
            &json!({ "Image": "busybox", "HostConfig": { "SecurityOpt": ["seccomp={not json"] } }),
        );
        assert!(matches!(answer.status, 400 | 500), "{}", answer.text());
    });
}

#[test]
fn unknown_modes_are_refused() {
    clean(|lab| {
        for (key, value) in [
            ("PidMode", "hst"),
            ("IpcMode", "wrong"),
            ("UTSMode", "x"),
            ("UsernsMode", "some"),
            ("CgroupnsMode", "maybe"),
            ("Runtime", "/bin/sh"),
            ("Isolation", "hyperv"),
        ] {
            let answer = lab.http().post_json(
                "/containers/create",
                &json!({ "Image": "busybox", "HostConfig": { key: value } }),
            );
            assert!(
                matches!(answer.status, 400 | 501),
                "{key}={value}: {} {}",
                answer.status,
                answer.text()
            );
        }
    });
}

#[test]
fn host_namespaces_on_request() {
    clean(|lab| {
        let text = lab
            .docker(&[
                "run",
                "--rm",
                "--pid",
                "host",
                "busybox",
                "cat",
                "/proc/1/comm",
            ])
            .ok();
        assert_eq!(text, "systemd");
        let text = lab
            .docker(&["run", "--rm", "--uts", "host", "busybox", "hostname"])
            .ok();
        assert_eq!(text, "berth-lab");
        let id = run_detached(lab, &["--ipc", "host", "busybox", "true"]);
        assert_eq!(wait_exit(lab, &id), 0);
    });
}
