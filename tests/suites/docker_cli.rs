//! The stock docker CLI: what its users do all day.

use std::io::{BufRead, BufReader, Read, Write};

use crate::support::{PATIENT, clean, inspect, patient, run_detached, wait_exit, wait_for_line};

#[test]
fn version_names_both_sides() {
    clean(|lab| {
        let text = lab.docker(&["version"]).ok();
        assert!(
            text.contains("Client:") && text.contains("Server:"),
            "{text}"
        );
        let api = lab
            .docker(&[
                "version",
                "--format",
                "{{.Server.MinAPIVersion}} {{.Server.APIVersion}} {{.Server.Os}}",
            ])
            .ok();
        assert!(api.ends_with(" linux"), "{api}");
    });
}

#[test]
fn info_tells_how_the_host_is_used() {
    clean(|lab| {
        let text = lab.docker(&["info", "--format", "{{.Driver}} {{.CgroupDriver}} {{.CgroupVersion}} {{.Containers}} {{.DockerRootDir}}"]).ok();
        assert_eq!(text, "overlay systemd 2 0 /var/lib/berth");
        lab.docker(&["info"]).ok();
    });
}

#[test]
fn run_prints_what_the_program_prints() {
    clean(|lab| {
        let run = lab.docker(&[
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "echo out; echo err >&2",
        ]);
        assert_eq!(run.ok(), "out");
        assert_eq!(run.stderr(), "err");
    });
}

#[test]
fn exit_codes_are_the_programs_own() {
    clean(|lab| {
        for code in [0, 1, 42, 126, 255] {
            assert_eq!(
                lab.docker(&[
                    "run",
                    "--rm",
                    "busybox",
                    "sh",
                    "-c",
                    &format!("exit {code}")
                ])
                .code(),
                code
            );
        }
        // A program that a signal ended: 128 + its number (with an init: PID 1 cannot kill itself).
        assert_eq!(
            lab.docker(&["run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$"])
                .code(),
            137
        );
    });
}

#[test]
fn a_program_that_cannot_start_has_dockers_codes_and_texts() {
    clean(|lab| {
        let missing = lab
            .docker(&["run", "--rm", "busybox", "/no/such/program"])
            .fails(127);
        assert!(missing.contains("no such file or directory"), "{missing}");
        let in_path = lab
            .docker(&["run", "--rm", "busybox", "nosuchprogram"])
            .fails(127);
        assert!(
            in_path.contains("executable file not found in $PATH"),
            "{in_path}"
        );
        let plain = lab
            .docker(&["run", "--rm", "busybox", "/etc/passwd"])
            .fails(126);
        assert!(plain.contains("permission denied"), "{plain}");
        let directory = lab.docker(&["run", "--rm", "busybox", "/etc"]).fails(126);
        assert!(
            directory.contains("is a directory") || directory.contains("permission denied"),
            "{directory}"
        );
    });
}

#[test]
fn a_missing_image_is_said_so() {
    clean(|lab| {
        let error = lab
            .docker(&["run", "--rm", "--pull", "never", "no-such-image"])
            .fails(125);
        assert!(error.to_lowercase().contains("no such image"), "{error}");
    });
}

#[test]
fn standard_input_reaches_the_program() {
    clean(|lab| {
        assert_eq!(
            lab.docker_with(&["run", "--rm", "-i", "busybox", "cat"], b"one\ntwo\n")
                .ok(),
            "one\ntwo"
        );
        let big = vec![b'x'; 3 << 20];
        let run = lab.docker_with(&["run", "--rm", "-i", "busybox", "wc", "-c"], &big);
        assert_eq!(run.ok(), (3 << 20).to_string());
    });
}

#[test]
fn much_output_arrives_whole() {
    clean(|lab| {
        let run = lab.docker(&[
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "yes berth | head -c 20000000",
        ]);
        run.ok();
        assert_eq!(run.stdout_bytes().len(), 20_000_000);
    });
}

#[test]
fn a_terminal_is_a_terminal() {
    clean(|lab| {
        // `script` gives the CLI the terminal that it asks for.
        let text = lab.sh("script -qec 'docker run --rm -it busybox sh -c \"test -t 0 && test -t 1 && stty size && tty\"' /dev/null </dev/null");
        assert!(
            text.contains("/dev/pts/0") || text.contains("/dev/console"),
            "{text}"
        );
    });
}

#[test]
fn ps_shows_what_runs() {
    clean(|lab| {
        let id = patient(lab, &["--name", "shown", "--label", "a=b"]);
        let line = lab
            .docker(&[
                "ps",
                "--format",
                "{{.ID}} {{.Names}} {{.Image}} {{.State}} {{.Labels}}",
            ])
            .ok();
        assert_eq!(line, format!("{} shown busybox running a=b", &id[..12]));
        let status = lab.docker(&["ps", "--format", "{{.Status}}"]).ok();
        assert!(status.starts_with("Up "), "{status}");
        let command = lab
            .docker(&["ps", "--no-trunc", "--format", "{{.Command}}"])
            .ok();
        assert!(command.contains("trap"), "{command}");
        lab.docker(&["stop", "shown"]).ok();
        assert_eq!(lab.docker(&["ps", "-q"]).ok(), "");
        let gone = lab.docker(&["ps", "-a", "--format", "{{.Status}}"]).ok();
        assert!(gone.starts_with("Exited (7) "), "{gone}");
    });
}

#[test]
fn ps_filters() {
    clean(|lab| {
        let running = patient(lab, &["--name", "one", "--label", "tier=front"]);
        let ended = run_detached(lab, &["--name", "two", "busybox", "sh", "-c", "exit 3"]);
        assert_eq!(wait_exit(lab, &ended), 3);
        let ids = |filters: &[&str]| {
            let mut args = vec!["ps", "-aq", "--no-trunc"];
            args.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
            lab.docker(&args).ok()
        };
        assert_eq!(ids(&["label=tier"]), running);
        assert_eq!(ids(&["label=tier=front"]), running);
        assert_eq!(ids(&["label=tier=back"]), "");
        assert_eq!(ids(&["exited=3"]), ended);
        assert_eq!(ids(&["status=exited"]), ended);
        assert_eq!(ids(&["name=tw"]), ended);
        assert_eq!(ids(&[&format!("id={}", &running[..12])]), running);
        assert_eq!(ids(&["ancestor=busybox"]), format!("{ended}\n{running}"));
        assert_eq!(ids(&[&format!("before={ended}")]), running);
        assert_eq!(ids(&[&format!("since={running}")]), ended);
        let error = lab.docker(&["ps", "--filter", "colour=blue"]).fails(1);
        assert!(error.contains("invalid filter"), "{error}");
    });
}

#[test]
fn logs_are_kept_and_cut_as_asked() {
    clean(|lab| {
        let id = run_detached(
            lab,
            &[
                "--name",
                "logger",
                "busybox",
                "sh",
                "-c",
                "for n in 1 2 3 4 5; do echo line $n; done; echo oops >&2",
            ],
        );
        wait_exit(lab, &id);
        let logs = lab.docker(&["logs", "logger"]);
        assert_eq!(logs.ok(), "line 1\nline 2\nline 3\nline 4\nline 5");
        assert_eq!(logs.stderr(), "oops");
        // Two lines of the whole log, whichever stream they are on.
        let tail = lab.docker(&["logs", "--tail", "2", "logger"]);
        assert_eq!(
            (tail.ok().as_str(), tail.stderr().as_str()),
            ("line 5", "oops")
        );
        assert_eq!(lab.docker(&["logs", "--tail", "0", "logger"]).ok(), "");
        let stamped = lab.docker(&["logs", "-t", "logger"]).ok();
        let first = stamped.lines().next().unwrap();
        let (time, line) = first.split_once(' ').unwrap();
        assert!(
            time.ends_with('Z') && time.starts_with("20") && line == "line 1",
            "{first}"
        );
        // From that instant on: inclusive.
        assert_eq!(
            lab.docker(&["logs", "--since", time, "logger"])
                .ok()
                .lines()
                .count(),
            5
        );
        assert_eq!(
            lab.docker(&["logs", "--until", "2001-01-01T00:00:00Z", "logger"])
                .ok(),
            ""
        );
        assert_eq!(
            lab.docker(&["logs", "--since", "2101-01-01T00:00:00Z", "logger"])
                .ok(),
            ""
        );
    });
}

#[test]
fn following_a_log_ends_with_the_container() {
    clean(|lab| {
        let id = patient(lab, &[]);
        let mut follow = lab.spawn(&["docker", "logs", "-f", &id]);
        let mut out = BufReader::new(follow.child().stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        lab.docker(&["stop", &id]).ok();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        assert_eq!(follow.finish().code(), 0);
    });
}

#[test]
fn attach_joins_and_passes_the_exit_code_on() {
    clean(|lab| {
        let id = lab
            .docker(&[
                "create",
                "-i",
                "busybox",
                "sh",
                "-c",
                "echo hello; read line; echo got $line; exit 5",
            ])
            .ok();
        let mut attached = lab.spawn(&["docker", "start", "-ai", &id]);
        let mut out = BufReader::new(attached.child().stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "hello\n");
        // A second reader sees what comes from now on.
        let mut second = lab
            .http()
            .open(
                "POST",
                &format!("/containers/{id}/attach?stream=1&stdout=1"),
                &UPGRADE,
                None,
            )
            .unwrap();
        assert_eq!(second.head.status, 101);
        attached
            .child()
            .stdin
            .take()
            .unwrap()
            .write_all(b"it\n")
            .unwrap();
        line.clear();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "got it\n");
        assert_eq!(second.frames().0, "got it\n");
        assert_eq!(attached.finish().code(), 5);
    });
}

const UPGRADE: [(&str, &str); 2] = [("Connection", "Upgrade"), ("Upgrade", "tcp")];

#[test]
fn detach_keys_leave_the_container_running() {
    clean(|lab| {
        let id = lab
            .docker(&["run", "-dit", "--name", "term", "busybox", "sh"])
            .ok();
        let path = format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x,q");
        let mut stream = lab.http().open("POST", &path, &UPGRADE, None).unwrap();
        assert_eq!(stream.head.status, 101);
        stream.write(b"\x18q");
        stream.rest();
        assert_eq!(inspect(lab, &id)["State"]["Running"], true);
    });
}

#[test]
fn stop_is_polite_and_kill_is_not() {
    clean(|lab| {
        let id = patient(lab, &[]);
        lab.docker(&["stop", &id]).ok();
        assert_eq!(inspect(lab, &id)["State"]["ExitCode"], 7);
        let id = patient(lab, &[]);
        lab.docker(&["kill", &id]).ok();
        assert_eq!(wait_exit(lab, &id), 137);
        let id = patient(lab, &[]);
        lab.docker(&["kill", "-s", "TERM", &id]).ok();
        assert_eq!(wait_exit(lab, &id), 7);
        // Deaf to its stop signal: killed after the grace, 137.
        let id = run_detached(
            lab,
            &[
                "busybox",
                "sh",
                "-c",
                "trap '' TERM; echo ready; sleep 1000 & wait",
            ],
        );
        wait_for_line(lab, &id, "ready");
        lab.docker(&["stop", "-t", "1", &id]).ok();
        assert_eq!(inspect(lab, &id)["State"]["ExitCode"], 137);
    });
}

#[test]
fn the_stop_signal_is_the_containers() {
    clean(|lab| {
        let body = "trap 'exit 9' USR1; echo ready; sleep 1000 & wait";
        let id = run_detached(
            lab,
            &["--stop-signal", "SIGUSR1", "busybox", "sh", "-c", body],
        );
        wait_for_line(lab, &id, "ready");
        lab.docker(&["stop", &id]).ok();
        assert_eq!(inspect(lab, &id)["State"]["ExitCode"], 9);
    });
}

#[test]
fn restart_gives_a_fresh_process_and_keeps_the_files() {
    clean(|lab| {
        let id = run_detached(
            lab,
            &[
                "busybox",
                "sh",
                "-c",
                &format!("echo x >>/count; wc -l </count; {PATIENT}"),
            ],
        );
        wait_for_line(lab, &id, "ready");
        let before = inspect(lab, &id)["State"]["Pid"].clone();
        lab.docker(&["restart", &id]).ok();
        let after = inspect(lab, &id);
        assert_eq!(after["State"]["Running"], true);
        assert_ne!(after["State"]["Pid"], before);
        assert_eq!(after["RestartCount"], 0, "a restart by hand is not counted");
        lab.docker(&["stop", &id]).ok();
        assert_eq!(lab.docker(&["logs", &id]).ok(), "1\nready\n2\nready");
    });
}

#[test]
fn pause_freezes_and_unpause_thaws() {
    clean(|lab| {
        let id = patient(lab, &["--name", "frozen"]);
        lab.docker(&["pause", "frozen"]).ok();
        let state = inspect(lab, &id)["State"].clone();
        assert_eq!(
            (
                state["Paused"].as_bool(),
                state["Running"].as_bool(),
                state["Status"].as_str()
            ),
            (Some(true), Some(true), Some("paused"))
        );
        let status = lab.docker(&["ps", "--format", "{{.Status}}"]).ok();
        assert!(status.ends_with("(Paused)"), "{status}");
        let again = lab.docker(&["pause", "frozen"]).fails(1);
        assert!(again.contains("already paused"), "{again}");
        lab.docker(&["unpause", "frozen"]).ok();
        assert_eq!(inspect(lab, &id)["State"]["Status"], "running");
        let again = lab.docker(&["unpause", "frozen"]).fails(1);
        assert!(again.contains("not paused"), "{again}");
        // A paused container can be stopped and removed all the same.
        lab.docker(&["pause", "frozen"]).ok();
        lab.docker(&["rm", "-f", "frozen"]).ok();
    });
}

#[test]
fn rename_moves_the_name() {
    clean(|lab| {
        patient(lab, &["--name", "old"]);
        lab.docker(&["rename", "old", "new"]).ok();
        assert_eq!(lab.docker(&["ps", "--format", "{{.Names}}"]).ok(), "new");
        lab.docker(&["inspect", "old"]).fails(1);
        patient(lab, &["--name", "old"]);
        let clash = lab.docker(&["rename", "old", "new"]).fails(1);
        assert!(
            clash.contains("already in use") && clash.contains("/new"),
            "{clash}"
        );
    });
}

#[test]
fn a_name_is_taken_once() {
    clean(|lab| {
        let first = lab
            .docker(&["create", "--name", "only", "busybox", "true"])
            .ok();
        let clash = lab
            .docker(&["create", "--name", "only", "busybox", "true"])
            .fails(1);
        assert!(
            clash.contains("already in use by container") && clash.contains(&first),
            "{clash}"
        );
        lab.docker(&["rm", "only"]).ok();
        lab.docker(&["create", "--name", "only", "busybox", "true"])
            .ok();
    });
}

#[test]
fn top_lists_the_processes_inside() {
    clean(|lab| {
        let id = patient(lab, &[]);
        let text = lab.docker(&["top", &id]).ok();
        assert!(text.lines().next().unwrap().contains("PID"), "{text}");
        assert!(text.contains("sleep 1000"), "{text}");
        let text = lab.docker(&["top", &id, "-o", "pid,comm"]).ok();
        assert_eq!(
            text.lines()
                .next()
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>(),
            ["PID", "COMMAND"]
        );
    });
}

#[test]
fn removing_asks_for_force_when_it_must() {
    clean(|lab| {
        let id = patient(lab, &["--name", "busy"]);
        let error = lab.docker(&["rm", "busy"]).fails(1);
        assert!(error.contains("container is running"), "{error}");
        lab.docker(&["rm", "-f", "busy"]).ok();
        lab.docker(&["inspect", &id]).fails(1);
        let error = lab.docker(&["rm", "busy"]).fails(1);
        assert!(error.contains("No such container"), "{error}");
    });
}

#[test]
fn auto_remove_leaves_nothing() {
    clean(|lab| {
        let id = run_detached(lab, &["--rm", "busybox", "sh", "-c", PATIENT]);
        wait_for_line(lab, &id, "ready");
        let removed = lab.spawn(&[
            "docker",
            "events",
            "--filter",
            "event=destroy",
            "--filter",
            &format!("container={id}"),
            "--since",
            "1",
        ]);
        let mut removed = removed;
        lab.docker(&["stop", &id]).ok();
        let mut line = String::new();
        BufReader::new(removed.child().stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains("container destroy"), "{line}");
        lab.docker(&["inspect", &id]).fails(1);
    });
}

#[test]
fn prune_takes_the_stopped_only() {
    clean(|lab| {
        let running = patient(lab, &[]);
        let ended = run_detached(lab, &["--label", "keep=yes", "busybox", "true"]);
        wait_exit(lab, &ended);
        let other = run_detached(lab, &["busybox", "true"]);
        wait_exit(lab, &other);
        let text = lab
            .docker(&["container", "prune", "-f", "--filter", "label!=keep"])
            .ok();
        assert!(
            text.contains(&other) && !text.contains(&ended) && !text.contains(&running),
            "{text}"
        );
        assert_eq!(
            lab.docker(&["ps", "-aq", "--no-trunc"]).ok(),
            format!("{ended}\n{running}")
        );
    });
}

#[test]
fn wait_answers_with_the_code() {
    clean(|lab| {
        let id = patient(lab, &[]);
        let waiting = lab.spawn(&["docker", "wait", &id]);
        lab.docker(&["stop", &id]).ok();
        assert_eq!(waiting.finish().ok(), "7");
        assert_eq!(
            lab.docker(&["wait", &id]).ok(),
            "7",
            "of a container that has ended already"
        );
    });
}

#[test]
fn events_are_replayed_and_live() {
    clean(|lab| {
        let since = lab.sh("date +%s.%N");
        let id = run_detached(
            lab,
            &["--name", "eventful", "busybox", "sh", "-c", "exit 4"],
        );
        wait_exit(lab, &id);
        lab.docker(&["rm", "eventful"]).ok();
        let until = lab.sh("date +%s.%N");
        let text = lab
            .docker(&[
                "events",
                "--since",
                &since,
                "--until",
                &until,
                "--filter",
                &format!("container={id}"),
                "--format",
                "{{.Action}} {{index .Actor.Attributes \"exitCode\"}} {{.Actor.Attributes.name}}",
            ])
            .ok();
        let actions: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            actions,
            [
                "create  eventful",
                "start  eventful",
                "die 4 eventful",
                "destroy  eventful"
            ]
        );
    });
}

#[test]
fn cidfile_and_inspect_formats() {
    clean(|lab| {
        let text = lab.sh("rm -f /tmp/cid; docker run --cidfile /tmp/cid --name filed -e A=1 -w /tmp -h box busybox true; cat /tmp/cid");
        assert_eq!(text.len(), 64);
        let format = "{{.Name}} {{.Config.Hostname}} {{.Config.WorkingDir}} {{.State.Status}} {{.State.ExitCode}} {{.HostConfig.NetworkMode}} {{.Path}}";
        assert_eq!(
            lab.docker(&["inspect", "-f", format, "filed"]).ok(),
            "/filed box /tmp exited 0 bridge true"
        );
        let env = lab
            .docker(&["inspect", "-f", "{{.Config.Env}}", "filed"])
            .ok();
        assert!(env.contains("A=1") && env.contains("PATH="), "{env}");
    });
}

#[test]
fn what_is_not_there_yet_says_so() {
    clean(|lab| {
        let id = patient(lab, &[]);
        for command in [
            vec!["exec", &id, "true"],
            vec!["run", "--rm", "-p", "8080:80", "busybox", "true"],
            vec!["volume", "create", "v"],
            vec!["network", "create", "n"],
            vec!["pull", "busybox"],
            vec!["commit", &id, "x"],
            vec!["cp", &format!("{id}:/etc/passwd"), "/tmp/"],
            vec!["diff", &id],
            vec!["update", "--memory", "64m", &id],
        ] {
            let run = lab.docker(&command);
            assert_ne!(run.code(), 0, "{}", run.describe());
            assert!(run.stderr().contains("not supported"), "{}", run.describe());
        }
    });
}

#[test]
fn a_program_that_leaves_children_ends_with_them() {
    clean(|lab| {
        let run = lab.docker(&[
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "sleep 1000 & sleep 1000 & echo done",
        ]);
        assert_eq!(run.ok(), "done");
    });
}

#[test]
fn start_of_a_running_container_is_no_error() {
    clean(|lab| {
        let id = patient(lab, &[]);
        lab.docker(&["start", &id]).ok();
        lab.docker(&["stop", &id]).ok();
        lab.docker(&["stop", &id]).ok();
        let error = lab.docker(&["kill", &id]).fails(1);
        assert!(error.contains("is not running"), "{error}");
    });
}
