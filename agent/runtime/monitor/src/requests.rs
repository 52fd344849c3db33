//! What an agent may ask of a monitor besides the start.

use std::io;
use std::os::fd::OwnedFd;

use berth_runtime::plan::StopRule;
use berth_runtime::protocol::{Attach, Hello, MonitorState, Phase, Reply, Request};
use rustix::io::Errno;

use crate::client::Owner;
use crate::fail::error_text;
use crate::parent::{Monitor, failed};

/// Carries a request out and answers it. False: the connection breaks the rules and is closed.
pub(crate) fn serve(
    monitor: &mut Monitor,
    conn: u32,
    tag: u32,
    request: Request,
    fds: Vec<OwnedFd>,
) -> bool {
    let Some(greeted) = monitor
        .conns
        .iter()
        .find(|known| known.serial == conn)
        .map(|known| known.greeted)
    else {
        return false;
    };
    let reply = match request {
        Request::Hello(theirs) => {
            if Hello::OURS.common(theirs).is_none() {
                return false;
            }
            for known in monitor
                .conns
                .iter_mut()
                .filter(|known| known.serial == conn)
            {
                known.greeted = true;
            }
            Reply::Hello {
                hello: Hello::OURS,
                id: monitor.id.clone(),
                monitor_pid: std::process::id(),
                phase: monitor.phase,
            }
        }
        _ if !greeted => return false,
        Request::Attach(attach) => match fds.into_iter().next() {
            Some(sock) => return attach_client(monitor, conn, tag, attach, sock),
            None => return false,
        },
        Request::Proceed { session } => {
            let epoll = &monitor.epoll;
            if monitor
                .pump
                .as_mut()
                .is_some_and(|pump| pump.proceed(epoll, session))
            {
                Reply::Done
            } else {
                failed(Errno::NOENT, "no such session")
            }
        }
        Request::Resize { rows, columns } => {
            match monitor
                .pump
                .as_ref()
                .and_then(|pump| pump.resize(rows, columns))
            {
                Some(result) => done(result),
                None => failed(Errno::NOTTY, "the container has no terminal"),
            }
        }
        Request::Signal { signal, by } => {
            let result = monitor.signal(signal);
            if result.is_ok()
                && let Some(by) = by
            {
                monitor.record.flags |= by.exit_flag();
            }
            done(result)
        }
        Request::Stop {
            signal,
            timeout_ms,
            by,
        } => done(monitor.stop(signal, timeout_ms, by)),
        Request::SetStop { signal, timeout_ms } => {
            monitor.stop_rule = StopRule { signal, timeout_ms };
            Reply::Done
        }
        Request::State => Reply::State(state(monitor)),
        Request::Watch => {
            for known in monitor
                .conns
                .iter_mut()
                .filter(|known| known.serial == conn)
            {
                known.watching = Some(tag);
            }
            // Answered by the exit.
            return true;
        }
        Request::Exec(_) | Request::Release(_) => {
            failed(Errno::NOSYS, "this monitor does not know how to do that")
        }
        Request::Start(_) | Request::Descriptors | Request::Go | Request::Abort => {
            failed(Errno::INVAL, "the container is not being started")
        }
    };
    monitor.reply(conn, tag, &reply, &[])
}

fn attach_client(
    monitor: &mut Monitor,
    conn: u32,
    tag: u32,
    attach: Attach,
    sock: OwnedFd,
) -> bool {
    let attached = match &mut monitor.pump {
        Some(pump) => pump.attach(&monitor.epoll, attach, sock, Owner { conn, tag }),
        None => Err(io::Error::from_raw_os_error(Errno::AGAIN.raw_os_error())),
    };
    let reply = match attached {
        Ok((session, log_position)) => Reply::Attached {
            session,
            log_position,
        },
        Err(error) => refused(&error),
    };
    // The answer goes before any `AttachEnded` of the same session.
    let open = monitor.reply(conn, tag, &reply, &[]);
    monitor.tell_ended();
    open
}

fn state(monitor: &Monitor) -> MonitorState {
    let exited = monitor.phase == Phase::Exited;
    MonitorState {
        phase: monitor.phase,
        pid: monitor.record.pid,
        started_at: monitor.record.started_at,
        stop_signal: monitor.stop_rule.signal,
        stop_timeout_ms: monitor.stop_rule.timeout_ms,
        sessions: monitor.pump.as_ref().map_or(0, crate::pump::Pump::sessions),
        terminal: monitor
            .pump
            .as_ref()
            .is_some_and(crate::pump::Pump::is_terminal),
        exit: exited.then_some(monitor.record),
    }
}

fn done(result: io::Result<()>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(error) => refused(&error),
    }
}

fn refused(error: &io::Error) -> Reply {
    Reply::Failed {
        errno: error.raw_os_error().unwrap_or(0),
        message: error_text(error),
    }
}
