//! The small process that stands over one container.
//!
//! It is started by the agent with a control socket as its standard input, receives a plan and
//! descriptors, makes the container's first process, and stays: it carries the output to the log
//! and to attached clients, passes signals on, and writes down how the container ended. It lives on
//! when the agent does not. It decides nothing that the plan does not say, reads no configuration,
//! and has one thread.

mod begin;
mod child;
mod client;
mod conn;
mod detach;
mod exec;
mod fail;
mod farewell;
mod init;
mod jsonlog;
mod mask;
mod outbox;
mod parent;
mod pump;
mod requests;
mod start;
mod sync;
mod tree;
mod watch;

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::process::ExitCode;

use berth_sys::{cred, fd, signal};

use crate::parent::{End, Monitor};

fn main() -> ExitCode {
    match run() {
        Ok(End::Exit(code)) => ExitCode::from(code),
        Ok(End::Child(context)) => child::run(*context),
        Err(error) => {
            // Nobody but the agent that started us reads this, and only before the start is over.
            eprintln!("berth-monitor: {}", fail::error_text(&error));
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<End> {
    // Before anything else: what this process holds is nobody's business.
    cred::dumpable(false)?;
    fd::close_inherited(3)?;
    cred::set_name("berth-monitor")?;
    signal::block_all()?;
    // Already the leader of a session when started by hand from a shell.
    let _ = rustix::process::setsid();
    cred::become_subreaper()?;
    let control = take_control()?;
    let boot_id = parse_boot_id(&berth_sys::proc::boot_id()?)?;
    rustix::process::chdir("/")?;
    Monitor::new(control, boot_id)?.run()
}

/// Moves the control socket away from descriptor 0, and leaves the null device there.
fn take_control() -> io::Result<OwnedFd> {
    let inherited = fd::take_inherited(0)?;
    let control = fd::dup_above(&inherited, 3)?;
    // The number stays in use, so that no later file gets it.
    let _ = inherited.into_raw_fd();
    let stdout = rustix::stdio::stdout();
    let stderr = rustix::stdio::stderr();
    fd::install_stdio(stdout, stdout, stderr)?;
    Ok(control)
}

/// The 16 bytes of the kernel's textual boot id.
fn parse_boot_id(text: &str) -> io::Result<[u8; 16]> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| *byte != b'-')
        .map(|byte| (byte as char).to_digit(16))
        .map_while(|digit| digit.and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect();
    <[u8; 16]>::try_from(bytes).map_err(|_| io::Error::other("the boot id is no UUID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_ids_are_uuids() {
        let id = parse_boot_id("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!((id[0], id[1], id[15]), (0, 0x11, 0xff));
        assert!(parse_boot_id("00112233").is_err());
        assert!(parse_boot_id("0011223x-4455-6677-8899-aabbccddeeff").is_err());
    }
}
