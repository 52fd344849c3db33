//! Classes of known faults, part B of the security specification: attackers inside a container and attackers who made
//! the image. The canary is a secret file and an empty directory of the host: never read, never changed.

use berth_tests::image::{Image, Layer, busybox_layer, probe};
use berth_tests::lab::Lab;
use serde_json::json;
use tar::EntryType;

use crate::support::{
    clean, load_with, patient, remove_image, run_detached, script, wait_for_line,
};

const PROBE: &str = "berth-probe:latest";
const SECRET: &str = "the secret of the host";

/// Puts the canary on the host.
fn canary(lab: &Lab) {
    lab.sh(&format!("rm -rf /srv/canary; mkdir -p /srv/canary/empty; echo '{SECRET}' >/srv/canary/secret; chmod 600 /srv/canary/secret"));
}

#[track_caller]
fn canary_is_untouched(lab: &Lab) {
    assert_eq!(
        lab.sh(
            "cat /srv/canary/secret; ls -A /srv/canary/empty | wc -l; stat -c %a /srv/canary/secret"
        ),
        format!("{SECRET}\n0\n600")
    );
    assert_eq!(
        lab.sh("ls /srv/canary | sort | tr '\\n' ' '"),
        "empty secret"
    );
    lab.sh("rm -r /srv/canary");
}

/// busybox without some of its entries is not wanted here: an image whose directories are what the attacker says.
#[track_caller]
fn hostile(lab: &Lab, name: &str, layer: Layer) {
    load_with(lab, name, layer);
}

#[test]
fn b1_the_kernels_directories_as_links_and_files() {
    clean(|lab| {
        canary(lab);
        let target = "/srv/canary/empty";
        let secret = "/srv/canary/secret";
        let layers: Vec<(&str, Layer)> = vec![
            ("proc-link", Layer::new().symlink("proc", target)),
            ("proc-file", Layer::new().file("proc", 0o644, b"x")),
            ("proc-fifo", Layer::new().fifo("proc")),
            (
                "proc-self",
                Layer::new().dir("proc", 0o755).symlink("proc/self", target),
            ),
            ("sys-link", Layer::new().symlink("sys", target)),
            ("sys-file", Layer::new().file("sys", 0o644, b"x")),
            ("dev-link", Layer::new().symlink("dev", target)),
            ("dev-file", Layer::new().file("dev", 0o644, b"x")),
            ("dev-fifo", Layer::new().fifo("dev")),
            (
                "pts-link",
                Layer::new().dir("dev", 0o755).symlink("dev/pts", target),
            ),
            (
                "shm-link",
                Layer::new().dir("dev", 0o755).symlink("dev/shm", target),
            ),
            (
                "null-link",
                Layer::new().dir("dev", 0o755).symlink("dev/null", secret),
            ),
            (
                "console-link",
                Layer::new()
                    .dir("dev", 0o755)
                    .symlink("dev/console", secret),
            ),
            (
                "ptmx-link",
                Layer::new().dir("dev", 0o755).symlink("dev/ptmx", secret),
            ),
            (
                "tty-link",
                Layer::new().dir("dev", 0o755).symlink("dev/tty", secret),
            ),
            ("etc-link", Layer::new().symlink("etc", target)),
            (
                "hosts-link",
                Layer::new().dir("etc", 0o755).symlink("etc/hosts", secret),
            ),
            (
                "resolv-link",
                Layer::new()
                    .dir("etc", 0o755)
                    .symlink("etc/resolv.conf", secret),
            ),
            (
                "hostname-dir",
                Layer::new().dir("etc", 0o755).dir("etc/hostname", 0o755),
            ),
            (
                "mtab-link",
                Layer::new().dir("etc", 0o755).symlink("etc/mtab", secret),
            ),
        ];
        for (name, layer) in layers {
            let image = format!("hostile-{name}:latest");
            hostile(lab, &image, layer);
            for terminal in [false, true] {
                let options = if terminal { "-t" } else { "-i" };
                // Either it does not start, or the sandbox is whole.
                let look = "test -c /dev/null && test \"$(stat -f -c %T /proc)\" = proc -o \"$(stat -f -c %t /proc)\" = 9fa0 && echo whole; echo x 2>/dev/null >/proc/sys/kernel/core_pattern && echo BAD; cat /srv/canary/secret 2>/dev/null; true";
                let run = lab.exec(&[
                    "script",
                    "-qec",
                    &format!(
                        "docker run --rm {options} {image} sh -c '{}'",
                        look.replace('\'', "'\\''")
                    ),
                    "/dev/null",
                ]);
                let text = run.stdout();
                assert!(
                    !text.contains("BAD") && !text.contains(SECRET),
                    "B.1, B.6 {name}: {text}"
                );
                assert!(
                    run.code() != 0 || text.contains("whole"),
                    "B.1, B.6 {name} terminal={terminal}: {}",
                    run.describe()
                );
            }
            remove_image(lab, &image);
        }
        canary_is_untouched(lab);
    });
}

#[test]
fn b1_a_mount_point_that_is_swapped_for_a_link() {
    clean(|lab| {
        canary(lab);
        lab.ensure_image(PROBE, || probe(PROBE));
        lab.sh("rm -rf /srv/shared; mkdir -p /srv/shared/dir/sub; ln -s /srv/canary/empty /srv/shared/link");
        // The attacker exchanges a directory and a link to the host's (in its own root: nothing) as fast as it can.
        let attacker = run_detached(
            lab,
            &[
                "-v",
                "/srv/shared:/shared",
                PROBE,
                "/probe",
                "swap",
                "/shared/dir",
                "/shared/link",
            ],
        );
        wait_for_line(lab, &attacker, "swapping");
        let mut started = 0;
        for _ in 0..60 {
            let run = lab.docker(&[
                "run",
                "--rm",
                "-v",
                "/srv/shared:/shared",
                "--tmpfs",
                "/shared/dir/sub/deep",
                "busybox",
                "sh",
                "-c",
                "echo up; touch /shared/dir/sub/deep/x",
            ]);
            started += usize::from(run.stdout().contains("up"));
        }
        assert!(started > 0, "some of them won their race");
        lab.docker(&["rm", "-f", &attacker]).ok();
        lab.sh("rm -rf /srv/shared");
        canary_is_untouched(lab);
    });
}

#[test]
fn b1_a_volume_through_a_link_of_the_image() {
    clean(|lab| {
        canary(lab);
        lab.sh("mkdir -p /srv/v; echo volume >/srv/v/f");
        let layer = Layer::new()
            .dir("real", 0o755)
            .symlink("data", "/real")
            .symlink("out", "/srv/canary/empty")
            .symlink("pr", "/proc")
            .symlink("up", "../../../../proc/self");
        hostile(lab, "hostile-links:latest", layer);
        // Resolved in the container's root.
        let text = lab
            .docker(&[
                "run",
                "--rm",
                "-v",
                "/srv/v:/data/deep",
                "hostile-links",
                "cat",
                "/real/deep/f",
            ])
            .ok();
        assert_eq!(text, "volume");
        // What leads to nothing inside is refused or made inside: never on the host.
        for target in ["/out", "/out/deeper"] {
            let run = lab.docker(&[
                "run",
                "--rm",
                "-v",
                &format!("/srv/v:{target}"),
                "hostile-links",
                "cat",
                &format!("{target}/f"),
            ]);
            assert!(
                run.code() != 0 || run.stdout() == "volume",
                "B.1 {target}: {}",
                run.describe()
            );
        }
        for target in ["/pr", "/pr/sys", "/up", "/up/attr"] {
            let run = lab.docker(&[
                "run",
                "--rm",
                "-v",
                &format!("/srv/v:{target}"),
                "hostile-links",
                "sh",
                "-c",
                "stat -f -c %t /proc",
            ]);
            assert!(
                run.code() != 0,
                "B.1, compared after resolution: {target}: {}",
                run.describe()
            );
        }
        remove_image(lab, "hostile-links:latest");
        lab.sh("rm -r /srv/v");
        canary_is_untouched(lab);
    });
}

#[test]
fn b2_a_working_directory_on_a_descriptor() {
    clean(|lab| {
        for number in 0..16 {
            let directory = format!("/proc/self/fd/{number}");
            let run = lab.docker(&[
                "run",
                "--rm",
                "-w",
                &directory,
                "busybox",
                "sh",
                "-c",
                "pwd; ls ../../../../etc/machine-id ../../../lab 2>/dev/null; true",
            ]);
            let text = run.stdout();
            assert!(
                !text.contains("machine-id") && !text.contains("lab"),
                "B.2 {directory}: {text}"
            );
            assert!(
                run.code() != 0 || text.starts_with('/'),
                "B.2 {directory}: {}",
                run.describe()
            );
        }
    });
}

#[test]
fn b3_the_monitors_program_cannot_be_written() {
    clean(|lab| {
        lab.ensure_image(PROBE, || probe(PROBE));
        let before = lab.sh("sha256sum /usr/libexec/berth/berth-monitor /usr/bin/berthd");
        for entry in ["/proc/self/exe", "/bin/sh"] {
            for _ in 0..10 {
                let run = lab.docker(&[
                    "run",
                    "--rm",
                    "--entrypoint",
                    entry,
                    "busybox",
                    "-c",
                    "true",
                ]);
                assert_ne!(run.code(), -1, "{}", run.describe());
            }
        }
        let image = "hostile-shebang:latest";
        hostile(
            lab,
            image,
            Layer::new().file("script", 0o755, b"#!/proc/self/exe\n"),
        );
        for _ in 0..10 {
            let run = lab.docker(&["run", "--rm", image, "/script"]);
            assert_ne!(run.code(), 0, "{}", run.describe());
        }
        remove_image(lab, image);
        // With the host's pids in sight, all capabilities and no filter, the monitors still cannot be written to.
        patient(lab, &[]);
        let text = lab.docker(&["run", "--rm", "--pid", "host", "--privileged", PROBE, "sh", "-c",
            "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = berth-monitor ] || continue; echo seen; (printf x >>$p/exe) 2>/dev/null && echo WRITTEN; done; true"]).ok();
        assert!(
            text.contains("seen") && !text.contains("WRITTEN"),
            "B.3: {text}"
        );
        assert_eq!(
            lab.sh("sha256sum /usr/libexec/berth/berth-monitor /usr/bin/berthd"),
            before
        );
    });
}

#[test]
fn b4_labels_choose_nothing() {
    clean(|lab| {
        let image = "hostile-labels:latest";
        let labels = json!({
            "io.containerd.runtime": "/bin/sh", "org.systemd.property.ExecStop": "'/bin/touch /srv/label'", "run.oci.handler": "krun",
            "io.kubernetes.cri-o.Devices": "/dev/sda", "org.systemd.property.MemoryMax": "uint64 1", "logdriver": "binary:///bin/sh",
        });
        let archive = Image::new(image)
            .set("Labels", labels.clone())
            .layer(busybox_layer())
            .docker_archive();
        lab.http()
            .post_bytes("/images/load", "application/x-tar", &archive)
            .expect(200);
        let mut body = script("trap 'exit 0' TERM; echo ready; sleep 1000 & wait");
        body["Image"] = json!(image);
        let id = crate::support::create(lab, None, &body);
        lab.http()
            .post(&format!("/containers/{id}/start"))
            .expect(204);
        wait_for_line(lab, &id, "ready");
        let scope = Lab::scope(&id);
        assert_eq!(lab.unit(&scope, "MemoryMax"), "infinity", "B.4");
        assert_eq!(lab.unit(&scope, "ExecStop"), "");
        lab.docker(&["rm", "-f", &id]).ok();
        assert_eq!(lab.sh("ls /srv/label 2>/dev/null | wc -l"), "0");
        remove_image(lab, image);
        for runtime in ["/bin/sh", "../../bin/sh", "io.containerd.runc.v2", "krun"] {
            let answer = lab.http().post_json(
                "/containers/create",
                &json!({ "Image": "busybox", "HostConfig": { "Runtime": runtime } }),
            );
            assert!(
                matches!(answer.status, 400 | 501),
                "B.4 {runtime}: {}",
                answer.text()
            );
        }
    });
}

#[test]
fn b4_programs_of_the_image_are_never_run_by_the_agent() {
    clean(|lab| {
        lab.sh("rm -f /srv/marker");
        let trojan = b"#!/bin/sh\ntouch /srv/marker\n";
        let mut layer = Layer::new().dir("usr", 0o755).dir("usr/bin", 0o755);
        for name in [
            "xz", "unxz", "gzip", "unpigz", "zstd", "tar", "ps", "nft", "ip", "modprobe",
        ] {
            layer = layer.file(&format!("usr/bin/{name}"), 0o755, trojan);
        }
        let image = "hostile-trojans:latest";
        hostile(lab, image, layer);
        let id = run_detached(lab, &[image, "sh", "-c", crate::support::PATIENT]);
        wait_for_line(lab, &id, "ready");
        lab.docker(&["top", &id]).ok();
        lab.docker(&["save", "-o", "/tmp/x.tar", image]).ok();
        lab.docker(&["rm", "-f", &id]).ok();
        assert_eq!(
            lab.sh("rm /tmp/x.tar; ls /srv/marker 2>/dev/null | wc -l"),
            "0",
            "B.4"
        );
        remove_image(lab, image);
    });
}

#[test]
fn b11_users_are_read_with_care() {
    clean(|lab| {
        let id = |user: &str| lab.docker(&["run", "--rm", "-u", user, "busybox", "id", "-u"]);
        assert_eq!(id("0").ok(), "0");
        assert_eq!(id("4294967294").ok(), "4294967294");
        for user in [
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "-1",
            "+1",
            "0x10",
            "1e3",
            "1.0",
            "root:-1",
            "1:2:3",
            "1000 ",
            "nosuch",
            ":nosuch",
        ] {
            let run = id(user);
            assert!(
                run.code() != 0 && run.stdout() != "0",
                "B.11 {user:?}: {}",
                run.describe()
            );
        }
    });
}

#[test]
fn b11_a_passwd_that_is_no_plain_file() {
    clean(|lab| {
        canary(lab);
        let big = vec![b'x'; 4 << 20];
        let layers: Vec<(&str, Layer)> = vec![
            ("fifo", Layer::new().dir("etc", 0o755).fifo("etc/passwd")),
            (
                "link",
                Layer::new()
                    .dir("etc", 0o755)
                    .symlink("etc/passwd", "/srv/canary/secret"),
            ),
            (
                "zero",
                Layer::new()
                    .dir("etc", 0o755)
                    .symlink("etc/passwd", "/dev/zero"),
            ),
            (
                "device",
                Layer::new()
                    .dir("etc", 0o755)
                    .device("etc/passwd", EntryType::Char, 1, 5),
            ),
            (
                "long",
                Layer::new()
                    .dir("etc", 0o755)
                    .file("etc/passwd", 0o644, &big),
            ),
            (
                "directory",
                Layer::new().dir("etc", 0o755).dir("etc/passwd", 0o755),
            ),
            (
                "newline",
                Layer::new().dir("etc", 0o755).file(
                    "etc/passwd",
                    0o644,
                    b"user:x:1000:1000::/home\r\x00:/bin/sh\nuser:x:0:0\n",
                ),
            ),
        ];
        for (name, layer) in layers {
            let image = format!("hostile-passwd-{name}:latest");
            hostile(lab, &image, layer);
            let begun = std::time::Instant::now();
            // A name is looked up there: an error, or the right user.
            let run = lab.docker(&["run", "--rm", "-u", "user", &image, "id", "-u"]);
            assert!(
                run.code() != 0 || run.stdout() == "1000",
                "B.11 {name}: {}",
                run.describe()
            );
            let run = lab.docker(&[
                "run",
                "--rm",
                "-u",
                "1000",
                &image,
                "sh",
                "-c",
                "echo $(id -u)",
            ]);
            assert!(
                run.code() != 0 || run.stdout() == "1000",
                "B.11 {name}: {}",
                run.describe()
            );
            assert!(
                begun.elapsed().as_secs() < 10,
                "B.11 {name}: {:?}",
                begun.elapsed()
            );
            remove_image(lab, &image);
        }
        canary_is_untouched(lab);
    });
}

#[test]
fn b11_environment_entries_without_an_equals_sign() {
    clean(|lab| {
        let image = "hostile-env:latest";
        let archive = Image::new(image)
            .set(
                "Env",
                json!(["PATH=/bin", "INVOCATION_ID", "NOTIFY_SOCKET", "=x", ""]),
            )
            .layer(busybox_layer())
            .docker_archive();
        lab.http()
            .post_bytes("/images/load", "application/x-tar", &archive)
            .expect(200);
        let text = lab.docker(&["run", "--rm", image, "env"]).ok();
        assert!(
            !text.contains("INVOCATION_ID") && !text.contains("NOTIFY_SOCKET"),
            "B.11: {text}"
        );
        remove_image(lab, image);
    });
}

#[test]
fn b11_a_working_directory_through_a_link() {
    clean(|lab| {
        canary(lab);
        let image = "hostile-workdir:latest";
        let layer = Layer::new().symlink("work", "/srv/canary/empty");
        let archive = Image::new(image)
            .set("WorkingDir", json!("/work/made"))
            .layer(busybox_layer())
            .layer(layer)
            .docker_archive();
        lab.http()
            .post_bytes("/images/load", "application/x-tar", &archive)
            .expect(200);
        let run = lab.docker(&["run", "--rm", image, "pwd"]);
        assert!(
            run.code() != 0 || run.stdout() == "/srv/canary/empty/made",
            "B.11: {}",
            run.describe()
        );
        remove_image(lab, image);
        canary_is_untouched(lab);
    });
}

#[test]
fn b15_no_setuid_program_gains_what_was_dropped() {
    clean(|lab| {
        let image = "setuid:latest";
        let program = std::fs::read("/bin/busybox").unwrap();
        hostile(
            lab,
            image,
            Layer::new()
                .dir("s", 0o755)
                .file("s/busybox", 0o4755, &program),
        );
        let text = lab
            .docker(&[
                "run",
                "--rm",
                "-u",
                "1000",
                "--cap-drop",
                "ALL",
                image,
                "/s/busybox",
                "grep",
                "CapEff",
                "/proc/self/status",
            ])
            .ok();
        assert_eq!(
            text, "CapEff:\t0000000000000000",
            "B.15: the bounding set is empty"
        );
        remove_image(lab, image);
    });
}

#[test]
fn b16_floods_that_nobody_reads() {
    clean(|lab| {
        let pid = lab.agent();
        // Attached and never read: the container blocks, the agent and the others do not.
        let id = run_detached(lab, &["busybox", "sh", "-c", "yes"]);
        let upgrade = [("Connection", "Upgrade"), ("Upgrade", "tcp")];
        let unread: Vec<_> = (0..5)
            .map(|_| {
                lab.http()
                    .open(
                        "POST",
                        &format!("/containers/{id}/attach?stream=1&stdout=1"),
                        &upgrade,
                        None,
                    )
                    .unwrap()
            })
            .collect();
        let follow = lab
            .http()
            .open(
                "GET",
                &format!("/containers/{id}/logs?stdout=1&follow=1"),
                &[],
                None,
            )
            .unwrap();
        assert_eq!(
            lab.docker(&["run", "--rm", "busybox", "echo", "others go on"])
                .ok(),
            "others go on"
        );
        lab.docker(&["rm", "-f", &id]).ok();
        drop((unread, follow));
        assert_eq!(lab.agent(), pid, "the same agent");
    });
}

#[test]
fn b16_a_fork_bomb_dies_with_its_container() {
    clean(|lab| {
        let id = run_detached(
            lab,
            &[
                "--ulimit",
                "nproc=200:200",
                "-u",
                "4242",
                "busybox",
                "sh",
                "-c",
                "echo ready; f() { f | f & }; f; sleep 1000",
            ],
        );
        wait_for_line(lab, &id, "ready");
        lab.docker(&["rm", "-f", &id]).ok();
    });
}

#[test]
fn b19_a_node_that_came_with_a_layer() {
    clean(|lab| {
        let image = "hostile-nodes:latest";
        hostile(
            lab,
            image,
            Layer::new()
                .device("disk", EntryType::Block, 254, 0)
                .device("kmsg", EntryType::Char, 1, 11)
                .device("mem", EntryType::Char, 1, 1),
        );
        let text = lab
            .docker(&[
                "run",
                "--rm",
                image,
                "sh",
                "-c",
                "for n in disk kmsg mem; do head -c 1 /$n 2>&1; done; true",
            ])
            .ok();
        assert_eq!(
            text.matches("Operation not permitted").count(),
            3,
            "B.19: {text}"
        );
        remove_image(lab, image);
    });
}

#[test]
fn b20_volumes_of_the_image_stay_in_its_root() {
    clean(|lab| {
        canary(lab);
        let image = "hostile-volumes:latest";
        let archive = Image::new(image)
            .set(
                "Volumes",
                json!({ "/../../srv/canary/empty": {}, "/proc/self": {}, "/": {} }),
            )
            .layer(busybox_layer())
            .docker_archive();
        lab.http()
            .post_bytes("/images/load", "application/x-tar", &archive)
            .expect(200);
        let run = lab.docker(&["run", "--rm", image, "cat", "/srv/canary/secret"]);
        assert!(
            !run.stdout().contains(SECRET) && run.code() != 0,
            "B.20: {}",
            run.describe()
        );
        remove_image(lab, image);
        canary_is_untouched(lab);
    });
}
