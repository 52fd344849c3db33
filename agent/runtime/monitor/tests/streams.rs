//! What a container puts out and takes in: log, attached clients, terminal. Needs root, cgroup2 and
//! busybox.

#![allow(clippy::unwrap_used, reason = "a test that fails shall say where")]

mod support;

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use berth_runtime::Blob;
use berth_runtime::plan::{Log, Stdio};
use berth_runtime::protocol::{Attach, AttachEnd, Phase, Reply, Request};
use support::{Host, all, plan, raw, read_all, read_until, ready, run, unframe, with_terminal};

#[test]
fn output_reaches_log_and_clients() {
    let Some(host) = Host::new() else { return };
    let script = "echo out; echo err >&2; printf last";
    let mut running = ready(&host, plan(&["sh", "-c", script])).unwrap();
    let (mut framed, ..) = running.agent.attach(all());
    let (mut raw_client, ..) = running.agent.attach(Attach {
        stderr: false,
        ..raw()
    });
    running.go().unwrap();
    assert_eq!(
        unframe(&read_all(&mut framed)),
        (b"out\nlast".to_vec(), b"err\n".to_vec())
    );
    assert_eq!(read_all(&mut raw_client), b"out\nlast");
    assert!(running.wait_monitor().success());
    assert_eq!(host.logged("stdout"), "out\nlast");
    assert_eq!(host.logged("stderr"), "err\n");
}

#[test]
fn much_output_through_a_slow_client_loses_nothing() {
    let Some(host) = Host::new() else { return };
    let mut running = ready(&host, plan(&["seq", "1", "300000"])).unwrap();
    let (mut slow, ..) = running.agent.attach(Attach {
        stdin: false,
        ..all()
    });
    running.go().unwrap();
    // Far more than all buffers hold: the container has to wait.
    match running.connect(&host).ask(&Request::State) {
        Reply::State(state) => assert_eq!((state.phase, state.sessions), (Phase::Running, 1)),
        other => panic!("{other:?}"),
    }
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    let (out, _) = unframe(&read_all(&mut slow));
    assert!(
        out == expected.as_bytes(),
        "{} instead of {} bytes",
        out.len(),
        expected.len()
    );
    assert!(running.wait_monitor().success());
    assert!(host.logged("stdout") == expected);
}

#[test]
fn a_client_that_never_reads_holds_up_no_exit() {
    let Some(host) = Host::new() else { return };
    // More than a socket holds, less than socket and queue together.
    let mut running = ready(&host, plan(&["head", "-c", "200000", "/dev/zero"])).unwrap();
    let (mut never, ..) = running.agent.attach(Attach {
        stdin: false,
        ..raw()
    });
    running.go().unwrap();
    assert!(running.wait_monitor().success());
    assert_eq!(host.exit().unwrap().exit_code(), 0);
    // It was all left in the kernel's hands.
    assert_eq!(read_all(&mut never).len(), 200_000);
}

#[test]
fn a_client_that_vanishes_is_dropped() {
    let Some(host) = Host::new() else { return };
    let mut running = ready(&host, plan(&["seq", "1", "200000"])).unwrap();
    let (gone, session, tag) = running.agent.attach(Attach {
        stdin: false,
        ..all()
    });
    drop(gone);
    running.go().unwrap();
    match running.agent.reply(tag).unwrap().0 {
        Reply::AttachEnded {
            session: ended,
            end,
        } => {
            assert_eq!((ended, end), (session, AttachEnd::ClientGone));
        }
        other => panic!("{other:?}"),
    }
    assert!(running.wait_monitor().success());
    assert!(host.logged("stdout").ends_with("\n200000\n"));
}

#[test]
fn a_held_client_gets_what_is_not_in_the_log() {
    let Some(host) = Host::new() else { return };
    let script = "echo one; printf tw; read go; echo o; echo three; read end";
    let mut plan = plan(&["sh", "-c", script]);
    plan.stdio = Stdio {
        stdin: true,
        stdin_once: false,
        terminal: None,
    };
    let mut running = ready(&host, plan).unwrap();
    let (mut first, ..) = running.agent.attach(raw());
    running.go().unwrap();
    read_until(&mut first, "tw");
    let mut later = running.connect(&host);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let attach = Attach {
        hold: true,
        stdin: false,
        ..raw()
    };
    // The agent writes the log's past to the same socket, and waits while it does.
    let shared = theirs.try_clone().unwrap();
    let tag = later.send(&Request::Attach(attach), &[&theirs.into()]);
    let (session, position) = match later.reply(tag).unwrap().0 {
        Reply::Attached {
            session,
            log_position,
        } => (session, log_position),
        other => panic!("{other:?}"),
    };
    first.write_all(b"\n").unwrap();
    read_until(&mut first, "three\n");
    let log = host.log();
    let (before, _) = log.split_at(usize::try_from(position).unwrap());
    assert_eq!(before.lines().count(), 1);
    let flags = rustix::fs::fcntl_getfl(&shared).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    drop(shared);
    assert_eq!(later.ask(&Request::Proceed { session }), Reply::Done);
    first.write_all(b"\n").unwrap();
    let mut ours = ours;
    assert_eq!(read_all(&mut ours), b"two\nthree\n");
    assert!(running.wait_monitor().success());
}

#[test]
fn a_holder_that_goes_lets_go() {
    let Some(host) = Host::new() else { return };
    let mut running = ready(&host, plan(&["seq", "1", "100000"])).unwrap();
    let mut later = running.connect(&host);
    let (_held, ..) = later.attach(Attach {
        hold: true,
        stdin: false,
        ..raw()
    });
    drop(later);
    running.go().unwrap();
    assert!(running.wait_monitor().success());
}

#[test]
fn input_arrives_and_ends_with_the_client() {
    let Some(host) = Host::new() else { return };
    let mut plan = plan(&["cat"]);
    plan.stdio = Stdio {
        stdin: true,
        stdin_once: true,
        terminal: None,
    };
    let mut running = ready(&host, plan).unwrap();
    let attach = Attach {
        initial: Blob(b"before ".to_vec()),
        ..raw()
    };
    let (mut client, ..) = running.agent.attach(attach);
    running.go().unwrap();
    let sent: Vec<u8> = (0..400_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
    let mut writer = client.try_clone().unwrap();
    let copy = sent.clone();
    let thread = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let got = read_all(&mut client);
    thread.join().unwrap();
    assert!(got == [b"before ".to_vec(), sent].concat());
    assert!(running.wait_monitor().success());
    assert_eq!(host.exit().unwrap().exit_code(), 0);
}

#[test]
fn input_that_was_sent_before_a_hang_up_still_arrives() {
    let Some(host) = Host::new() else { return };
    let mut plan = plan(&["wc", "-c"]);
    plan.stdio = Stdio {
        stdin: true,
        stdin_once: true,
        terminal: None,
    };
    let mut running = ready(&host, plan).unwrap();
    let (mut client, ..) = running.agent.attach(raw());
    // Read by the monitor only as the container takes it.
    client.write_all(&[b'x'; 180_000]).unwrap();
    drop(client);
    running.go().unwrap();
    assert!(running.wait_monitor().success());
    assert_eq!(host.logged("stdout").trim(), "180000");
}

#[test]
fn input_stays_open_for_the_next_client() {
    let Some(host) = Host::new() else { return };
    let mut plan = plan(&["sh", "-c", "read a; echo got $a; read b; echo got $b"]);
    plan.stdio = Stdio {
        stdin: true,
        stdin_once: false,
        terminal: None,
    };
    let mut running = ready(&host, plan).unwrap();
    let (mut first, ..) = running.agent.attach(raw());
    running.go().unwrap();
    first.write_all(b"one\n").unwrap();
    read_until(&mut first, "got one\n");
    // As Docker: the end of its input ends the attachment, not the container's input.
    first.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut first), b"");
    let (mut second, ..) = running.connect(&host).attach(raw());
    second.write_all(b"two\n").unwrap();
    read_until(&mut second, "got two\n");
    assert!(running.wait_monitor().success());
}

#[test]
fn a_terminal_talks_detaches_and_resizes() {
    let Some(host) = Host::new() else { return };
    let script = "while read -p '> ' line; do echo \"<$line>\"; stty size; done";
    let mut running = ready(&host, with_terminal(plan(&["sh", "-c", script]), (24, 80))).unwrap();
    let attach = Attach {
        detach_keys: Blob(vec![16, 17]),
        ..raw()
    };
    let (mut client, session, tag) = running.agent.attach(attach.clone());
    running.go().unwrap();
    read_until(&mut client, "> ");
    client.write_all(b"hello\n").unwrap();
    assert!(read_until(&mut client, "<hello>\r\n24 80\r\n> ").starts_with("hello\r\n"));
    client.write_all(b"x\x10").unwrap();
    client.write_all(b"\x11rest").unwrap();
    read_all(&mut client);
    match running.agent.reply(tag).unwrap().0 {
        Reply::AttachEnded {
            session: ended,
            end,
        } => {
            assert_eq!((ended, end), (session, AttachEnd::Detached));
        }
        other => panic!("{other:?}"),
    }
    let mut later = running.connect(&host);
    let (mut again, ..) = later.attach(attach);
    assert_eq!(
        later.ask(&Request::Resize {
            rows: 50,
            columns: 132
        }),
        Reply::Done
    );
    // The x is still there; then the key that ends the input.
    again.write_all(b"\n").unwrap();
    read_until(&mut again, "<x>\r\n50 132\r\n> ");
    again.write_all(b"\x04").unwrap();
    read_all(&mut again);
    assert!(running.wait_monitor().success());
    assert!(host.logged("stdout").contains("<x>\r\n"));
}

#[test]
fn a_terminal_outlives_its_last_user() {
    let Some(host) = Host::new() else { return };
    let script = "exec </dev/null >/dev/null 2>&1; sleep 0.2; echo back > /dev/console";
    let record = run(&host, with_terminal(plan(&["sh", "-c", script]), (0, 0))).unwrap();
    assert_eq!(
        (record.exit_code(), host.logged("stdout").as_str()),
        (0, "back\r\n")
    );
}

#[test]
fn a_log_that_is_not_wanted_is_not_written() {
    let Some(host) = Host::new() else { return };
    let mut plan = plan(&["echo", "hi"]);
    plan.log = Log::None;
    let mut running = ready(&host, plan).unwrap();
    let (mut client, ..) = running.agent.attach(raw());
    running.go().unwrap();
    assert_eq!(read_all(&mut client), b"hi\n");
    assert!(running.wait_monitor().success());
    assert!(!host.path("log").exists());
}
