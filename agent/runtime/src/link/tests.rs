use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::mpsc as channel;

use super::*;
use crate::protocol::encode_reply;

type Script =
    Box<dyn FnOnce(&StdStream, &mut dyn FnMut() -> Option<Frame<Request, OwnedFd>>) + Send>;

/// A monitor that does what the script says, on a thread of its own.
fn monitor(script: Script) -> (Link, std::thread::JoinHandle<()>) {
    let (ours, theirs) = StdStream::pair().expect("socket pair");
    let thread = std::thread::spawn(move || {
        let mut reader = FrameReader::new(MAX_LATER_PAYLOAD);
        let mut buffer = [0; 4096];
        let socket = theirs.try_clone().expect("clone");
        let mut next = move || loop {
            if let Some(frame) = reader.next_request().expect("a request") {
                return Some(frame);
            }
            let (count, fds) = recv_with_fds(&socket, &mut buffer).expect("receive");
            if count == 0 {
                return None;
            }
            reader.push(&buffer[..count], fds).expect("accepted");
        };
        script(&theirs, &mut next);
    });
    (Link::new(ours).expect("link"), thread)
}

fn reply(mut socket: &StdStream, tag: u32, reply: &Reply) {
    socket
        .write_all(&encode_reply(reply, tag, 0).expect("encodes"))
        .expect("written");
}

/// Waits without standing in the way of the link's own tasks.
async fn join(thread: std::thread::JoinHandle<()>) {
    tokio::task::spawn_blocking(|| thread.join().expect("no panic"))
        .await
        .expect("joined");
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(test);
}

#[test]
fn answers_find_their_questions_in_any_order() {
    run(async {
        let (link, thread) = monitor(Box::new(|socket, next| {
            let first = next().expect("first");
            let second = next().expect("second");
            let third = next().expect("third");
            assert_eq!(first.message, Request::Watch);
            let record = ExitRecord {
                wait_status: 3 << 8,
                ..ExitRecord::default()
            };
            reply(
                socket,
                third.tag,
                &Reply::Failed {
                    errno: 22,
                    message: "there is no terminal".to_owned(),
                },
            );
            reply(socket, 4711, &Reply::Done);
            reply(socket, second.tag, &Reply::Done);
            reply(socket, first.tag, &Reply::Exited(record));
            assert!(next().is_none(), "the link closes");
        }));
        let watch = tokio::spawn({
            let link = link.clone();
            async move { link.watch().await }
        });
        tokio::task::yield_now().await;
        let (signal, resize) = tokio::join!(link.signal(15, None), link.resize(1, 1));
        signal.expect("done");
        let refused = resize.expect_err("is refused");
        assert_eq!(refused.to_string(), "there is no terminal");
        assert_eq!(
            watch.await.expect("no panic").expect("exited").exit_code(),
            3
        );
        assert!(link.is_open());
        drop(link);
        join(thread).await;
    });
}

#[test]
fn the_end_of_a_monitor_ends_every_question() {
    run(async {
        let (link, thread) = monitor(Box::new(|_, next| {
            next();
        }));
        assert!(matches!(link.watch().await, Err(LinkError::Closed)));
        assert!(!link.is_open());
        assert!(matches!(link.state().await, Err(LinkError::Closed)));
        join(thread).await;
    });
}

#[test]
fn nonsense_ends_the_connection() {
    run(async {
        let (link, thread) = monitor(Box::new(|mut socket, next| {
            next();
            socket.write_all(&[0xff; 64]).expect("written");
            assert!(next().is_none(), "the link closes by itself");
        }));
        assert!(matches!(link.state().await, Err(LinkError::Closed)));
        link.closed().await;
        join(thread).await;
    });
}

#[test]
fn clients_are_handed_over() {
    run(async {
        let (sender, passed) = channel::channel();
        let (link, thread) = monitor(Box::new(move |socket, next| {
            let mut attach = next().expect("attach");
            assert!(
                matches!(&attach.message, Request::Attach(a) if a.stdout && a.hold && a.initial.0 == b"ls\n")
            );
            sender
                .send(attach.fds.pop().expect("a descriptor"))
                .expect("sent");
            reply(
                socket,
                attach.tag,
                &Reply::Attached {
                    session: 7,
                    log_position: 99,
                },
            );
            let proceed = next().expect("proceed");
            assert_eq!(proceed.message, Request::Proceed { session: 7 });
            reply(socket, proceed.tag, &Reply::Done);
            reply(
                socket,
                attach.tag,
                &Reply::AttachEnded {
                    session: 7,
                    end: AttachEnd::Detached,
                },
            );
        }));
        let (client, mut other) = StdStream::pair().expect("socket pair");
        let request = Attach {
            stdout: true,
            hold: true,
            initial: crate::wire::Blob(b"ls\n".to_vec()),
            ..Attach::default()
        };
        let attachment = link.attach(request, client.into()).await.expect("attached");
        assert_eq!((attachment.session, attachment.log_position), (7, 99));
        attachment.proceed().await.expect("done");
        assert_eq!(
            attachment.ended().await.expect("ended"),
            AttachEnd::Detached
        );
        let mut passed = StdStream::from(passed.recv().expect("the client"));
        passed.write_all(b"hello").expect("written");
        drop(passed);
        let mut text = String::new();
        std::io::Read::read_to_string(&mut other, &mut text).expect("read");
        assert_eq!(text, "hello");
        join(thread).await;
    });
}

#[test]
fn a_large_request_is_written_whole() {
    run(async {
        let (link, thread) = monitor(Box::new(|socket, next| {
            let start = next().expect("exec");
            assert!(matches!(&start.message, Request::Exec(blob) if blob.0.len() == 100_000));
            reply(socket, start.tag, &Reply::Done);
        }));
        let blob = crate::wire::Blob(vec![7; 100_000]);
        link.done("exec", Request::Exec(blob)).await.expect("done");
        join(thread).await;
    });
}

#[test]
fn greetings() {
    run(async {
        let dir = tempfile::tempdir().expect("temporary directory");
        // Longer than the 108 bytes of a socket address.
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).expect("directory");
        let path = deep.join("monitor.sock");
        let error = Link::connect(&path, "x").await.expect_err("nobody there");
        assert!(matches!(error, LinkError::Connect { .. }), "{error}");
        let listener =
            std::os::unix::net::UnixListener::from(crate::launch::listen(&path).expect("bound"));
        let answers = |id: &'static str, hello| {
            let listener = listener.try_clone().expect("clone");
            std::thread::spawn(move || {
                let (mut socket, _) = listener.accept().expect("accepted");
                let mut reader = FrameReader::<OwnedFd>::new(MAX_LATER_PAYLOAD);
                let mut buffer = [0; 256];
                let (count, fds) = recv_with_fds(&socket, &mut buffer).expect("received");
                reader.push(&buffer[..count], fds).expect("accepted");
                let tag = reader.next_request().expect("decodes").expect("whole").tag;
                let answer = Reply::Hello {
                    hello,
                    id: id.to_owned(),
                    monitor_pid: 5,
                    phase: Phase::Running,
                };
                socket
                    .write_all(&encode_reply(&answer, tag, 0).expect("encodes"))
                    .expect("written");
            })
        };
        let thread = answers("abc", Hello::OURS);
        let (_, peer) = Link::connect(&path, "abc").await.expect("connected");
        assert_eq!(
            (peer.id.as_str(), peer.monitor_pid, peer.phase),
            ("abc", 5, Phase::Running)
        );
        join(thread).await;
        let thread = answers("other", Hello::OURS);
        assert!(matches!(
            Link::connect(&path, "abc").await,
            Err(LinkError::OtherContainer { .. })
        ));
        join(thread).await;
        let thread = answers(
            "abc",
            Hello {
                newest: 200,
                oldest: 100,
            },
        );
        assert!(matches!(
            Link::connect(&path, "abc").await,
            Err(LinkError::Protocol(_))
        ));
        join(thread).await;
        // A second socket takes the place of the first.
        drop(crate::launch::listen(&path).expect("bound again"));
    });
}
