//! `--init`: a small reaper as the container's PID 1. The program is its child; it passes signals on
//! to it, reaps what nobody else does, and ends with the program's status.
//!
//! It is a fork of the monitor's code, confined exactly as the program is, non-dumpable, and with
//! nothing open but the standard streams and its signals.

use std::os::fd::OwnedFd;

use berth_runtime::plan::Process;
use berth_runtime::protocol::Stage;
use berth_sys::clone::{ForkResult, clone_into};
use berth_sys::ns::Namespaces;
use berth_sys::signal::Signals;
use berth_sys::{pidfd, poll, signal};

use crate::exec;
use crate::fail::{At, Outcome};

/// The exit status of a reaper that could not do its work.
const BROKEN: i32 = 125;

/// Signal numbers that mean something to the reaper itself.
const SIGCHLD: i32 = 17;
const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;

/// Splits the process in two: comes back in the half that becomes the program. The other stays
/// PID 1 and ends with it.
#[allow(
    clippy::exit,
    reason = "PID 1 must not return into the code of its child"
)]
pub(crate) fn split(sync: &mut Option<OwnedFd>, process: &Process, terminal: bool) -> Outcome<()> {
    let what = || "making the reaper".to_owned();
    match clone_into(Namespaces::NONE, None).at(Stage::Clone, what)? {
        ForkResult::Child => {
            foreground(terminal).at(Stage::Terminal, || "taking the foreground".into())
        }
        ForkResult::Parent { pid, pidfd } => {
            drop(pidfd);
            // Only the program's half says how the start went.
            drop(sync.take());
            std::process::exit(reap(process, pid).unwrap_or(BROKEN));
        }
    }
}

/// Makes the program a group of its own, in the foreground of the terminal if there is one, so that
/// the keys of the terminal reach it and not the reaper.
fn foreground(terminal: bool) -> std::io::Result<()> {
    rustix::process::setpgid(None, None)?;
    if terminal {
        // SIGTTOU is blocked, like all signals here, so that this does not stop the caller.
        rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid())?;
    }
    Ok(())
}

fn reap(process: &Process, program: u32) -> Option<i32> {
    berth_sys::cred::set_name("berth-init").ok()?;
    let signals = Signals::new().ok()?;
    exec::confine(process, false).ok()?;
    let target = i32::try_from(program).ok()?;
    loop {
        poll::wait_readable(&signals, None).ok()?;
        while let Some(received) = signals.next().ok()? {
            match received.signal {
                SIGCHLD | SIGTTIN | SIGTTOU => {}
                // It may have ended already.
                number => drop(signal::kill(target, number)),
            }
        }
        while let Some((pid, status)) = pidfd::reap_any().ok()? {
            if pid == program {
                return Some(berth_runtime::exit::exit_code(status));
            }
        }
    }
}
