use proptest::prelude::*;

use super::*;
use crate::exit::ExitRecord;
use crate::plan;
use crate::plan::tests::any_plan;
use crate::wire::{Wire, WireError};

fn any_record() -> impl Strategy<Value = ExitRecord> {
    (
        any::<(i32, u32, u32, i64, i64, u64, u64, u64)>(),
        any::<[u8; 16]>(),
    )
        .prop_map(
            |(
                (
                    wait_status,
                    pid,
                    flags,
                    started_at,
                    finished_at,
                    oom_kills,
                    cpu_usec,
                    memory_peak,
                ),
                boot_id,
            )| ExitRecord {
                wait_status,
                pid,
                flags,
                started_at,
                finished_at,
                oom_kills,
                cpu_usec,
                memory_peak,
                boot_id,
            },
        )
}

fn any_blob() -> impl Strategy<Value = Blob> {
    proptest::collection::vec(any::<u8>(), 0..64).prop_map(Blob)
}

fn any_by() -> impl Strategy<Value = StopBy> {
    prop_oneof![Just(StopBy::User), Just(StopBy::Unit), Just(StopBy::Agent)]
}

fn any_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        any::<(u8, u8)>().prop_map(|(newest, oldest)| Request::Hello(Hello { newest, oldest })),
        Just(Request::Descriptors),
        any_plan().prop_map(|plan| Request::Start(Box::new(plan))),
        Just(Request::Go),
        Just(Request::Abort),
        (any::<[bool; 5]>(), any_blob(), any_blob()).prop_map(
            |([stdin, stdout, stderr, framed, hold], detach_keys, initial)| {
                Request::Attach(Attach {
                    stdin,
                    stdout,
                    stderr,
                    framed,
                    detach_keys,
                    initial,
                    hold,
                })
            }
        ),
        any::<u32>().prop_map(|session| Request::Proceed { session }),
        any::<(u16, u16)>().prop_map(|(rows, columns)| Request::Resize { rows, columns }),
        (any::<i32>(), proptest::option::of(any_by()))
            .prop_map(|(signal, by)| Request::Signal { signal, by }),
        (any::<(i32, i64)>(), any_by()).prop_map(|((signal, timeout_ms), by)| Request::Stop {
            signal,
            timeout_ms,
            by
        }),
        any::<(i32, i64)>()
            .prop_map(|(signal, timeout_ms)| Request::SetStop { signal, timeout_ms }),
        Just(Request::State),
        Just(Request::Watch),
        any_blob().prop_map(Request::Exec),
        any_blob().prop_map(Request::Release),
    ]
}

fn any_phase() -> impl Strategy<Value = Phase> {
    (0u8..6).prop_map(|number| Phase::from_number(number).expect("a phase"))
}

fn any_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        (any::<(u8, u8, u32)>(), "[0-9a-f]{64}", any_phase()).prop_map(
            |((newest, oldest, monitor_pid), id, phase)| {
                Reply::Hello {
                    hello: Hello { newest, oldest },
                    id,
                    monitor_pid,
                    phase,
                }
            }
        ),
        any::<u32>().prop_map(|pid| Reply::Ready { pid }),
        any::<(u32, i64)>().prop_map(|(pid, started_at)| Reply::Started { pid, started_at }),
        (1u16..22, any::<i32>(), "[^\0]{0,40}").prop_map(|(stage, errno, message)| {
            Reply::StartFailed(StartFailed {
                stage: Stage::from_number(stage).expect("a stage"),
                errno,
                message,
            })
        }),
        Just(Reply::Done),
        (any::<i32>(), "[^\0]{0,40}").prop_map(|(errno, message)| Reply::Failed { errno, message }),
        any::<(u32, u64)>().prop_map(|(session, log_position)| Reply::Attached {
            session,
            log_position
        }),
        (any::<u32>(), 0u8..3).prop_map(|(session, end)| Reply::AttachEnded {
            session,
            end: AttachEnd::from_number(end).expect("an end")
        }),
        (
            any_phase(),
            any::<(u32, i64, i32, i64, u32, bool)>(),
            proptest::option::of(any_record())
        )
            .prop_map(
                |(
                    phase,
                    (pid, started_at, stop_signal, stop_timeout_ms, sessions, terminal),
                    exit,
                )| {
                    Reply::State(MonitorState {
                        phase,
                        pid,
                        started_at,
                        stop_signal,
                        stop_timeout_ms,
                        sessions,
                        terminal,
                        exit,
                    })
                }
            ),
        any_record().prop_map(Reply::Exited),
    ]
}

proptest! {
    #[test]
    fn requests_round_trip_in_any_pieces(
        requests in proptest::collection::vec((any_request(), any::<u32>(), 0usize..4), 1..4),
        piece in 1usize..200,
    ) {
        let mut stream = Vec::new();
        let mut starts = Vec::new();
        for (request, tag, fds) in &requests {
            starts.push((stream.len(), *fds));
            stream.extend(encode_request(request, *tag, *fds).expect("encodes"));
        }
        let mut reader = FrameReader::new(MAX_PAYLOAD);
        let mut received = Vec::new();
        let mut next_fd = 0;
        for (number, bytes) in stream.chunks(piece).enumerate() {
            let from = number * piece;
            let fds: usize =
                starts.iter().filter(|(at, _)| (from..from + bytes.len()).contains(at)).map(|(_, fds)| fds).sum();
            reader.push(bytes, next_fd..next_fd + fds).expect("accepts");
            next_fd += fds;
            while let Some(frame) = reader.next_request().expect("decodes") {
                received.push(frame);
            }
        }
        prop_assert!(reader.is_empty());
        let mut fd = 0;
        prop_assert_eq!(received.len(), requests.len());
        for (frame, (request, tag, fds)) in received.into_iter().zip(requests) {
            prop_assert_eq!(frame.message, request);
            prop_assert_eq!(frame.tag, tag);
            prop_assert_eq!(frame.fds, (fd..fd + fds).collect::<Vec<_>>());
            fd += fds;
        }
    }

    #[test]
    fn replies_round_trip(reply in any_reply(), tag in any::<u32>()) {
        let bytes = encode_reply(&reply, tag, 0).expect("encodes");
        let mut reader = FrameReader::<()>::new(MAX_LATER_PAYLOAD);
        reader.push(&bytes, []).expect("accepts");
        let frame = reader.next_reply().expect("decodes").expect("is whole");
        prop_assert_eq!(frame.message, reply);
        prop_assert_eq!(frame.tag, tag);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0u16..130) {
        let mut reader = FrameReader::<()>::new(MAX_PAYLOAD);
        reader.push(&bytes, []).expect("accepts");
        let _ = reader.next_request();
        // The same bytes as the payload of a well-formed frame.
        let mut framed = Vec::new();
        u32::try_from(bytes.len()).expect("short").put(&mut framed);
        framed.extend_from_slice(&[PROTOCOL_VERSION, 0]);
        kind.put(&mut framed);
        0u32.put(&mut framed);
        framed.extend_from_slice(&bytes);
        for request in [true, false] {
            let mut reader = FrameReader::<()>::new(MAX_PAYLOAD);
            reader.push(&framed, []).expect("accepts");
            if request {
                let _ = reader.next_request();
            } else {
                let _ = reader.next_reply();
            }
        }
    }

    #[test]
    fn a_changed_byte_never_panics(request in any_request(), at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = encode_request(&request, 1, 0).expect("encodes");
        let at = at.index(bytes.len());
        bytes[at] = value;
        let mut reader = FrameReader::<()>::new(MAX_PAYLOAD);
        reader.push(&bytes, []).expect("accepts");
        let _ = reader.next_request();
    }
}

#[test]
fn frames_over_the_limit_are_refused_before_they_arrive() {
    let mut reader = FrameReader::<()>::new(100);
    let mut header = Vec::new();
    101u32.put(&mut header);
    header.extend_from_slice(&[PROTOCOL_VERSION, 0, 10, 0, 0, 0, 0, 0]);
    reader.push(&header, []).expect("accepts");
    assert_eq!(reader.next_request(), Err(WireError::TooLong));
}

#[test]
fn descriptors_without_a_frame_are_bounded() {
    let mut reader = FrameReader::new(100);
    assert!(reader.push(&[], 0..plan::MAX_FDS).is_ok());
    assert!(reader.push(&[], [0]).is_err());
}

#[test]
fn other_versions_are_named() {
    let mut bytes = encode_request(&Request::State, 1, 0).expect("encodes");
    bytes[4] = 9;
    let mut reader = FrameReader::<()>::new(100);
    reader.push(&bytes, []).expect("accepts");
    assert_eq!(
        reader.next_request(),
        Err(WireError::Version { found: 9, ours: 1 })
    );
    assert_eq!(
        Hello {
            newest: 3,
            oldest: 1
        }
        .common(Hello::OURS),
        Some(1)
    );
    assert_eq!(
        Hello {
            newest: 3,
            oldest: 2
        }
        .common(Hello::OURS),
        None
    );
}

#[test]
fn exec_errors_read_as_dockers() {
    assert_eq!(
        exec_error("nope", true, 2),
        "exec: \"nope\": executable file not found in $PATH"
    );
    assert_eq!(
        exec_error("/nope", false, 2),
        "exec: \"/nope\": stat /nope: no such file or directory"
    );
    assert_eq!(
        exec_error("/etc", false, 13),
        "exec: \"/etc\": permission denied"
    );
    assert_eq!(exec_error("/x", false, 8), "exec /x: exec format error");
    assert_eq!(
        exec_error("/x", false, 40),
        "exec: \"/x\": too many levels of symbolic links"
    );
    let failed = |stage, errno| {
        start_exit_code(&StartFailed {
            stage,
            errno,
            message: String::new(),
        })
    };
    assert_eq!(failed(Stage::Exec, 2), 127);
    assert_eq!(failed(Stage::Exec, 13), 126);
    assert_eq!(failed(Stage::Mount, 2), 128);
}
