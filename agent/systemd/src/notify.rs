//! What the agent tells the service manager about itself (sd_notify(3)). Every function gives
//! `false` when nobody asked to be told (no `NOTIFY_SOCKET`).
//!
//! Each call opens a socket and may block while PID 1 is busy: call them off the reactor. The
//! variables stay set, because removing them is unsafe once there are threads; every child of the
//! agent gets an environment of its own.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;

/// A status line longer than this is of no use in `systemctl status`.
const STATUS_MAX: usize = 256;

/// Requests are answered from now on.
pub fn ready() -> io::Result<bool> {
    send(&[NotifyState::Ready])
}

/// Requests are answered from now on, and this is what the agent does.
pub fn ready_with_status(text: &str) -> io::Result<bool> {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(text))])
}

/// What the agent does, for `systemctl status`.
pub fn status(text: &str) -> io::Result<bool> {
    send(&[NotifyState::Status(&one_line(text))])
}

/// The configuration is being read again; [`ready`] ends it. The time is part of the message:
/// systemd 253 and later pair the two by it.
pub fn reloading() -> io::Result<bool> {
    send(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
}

/// The agent is about to leave: a request that comes now starts the next one.
pub fn stopping() -> io::Result<bool> {
    send(&[NotifyState::Stopping])
}

/// The agent is alive. To be sent more often than [`watchdog_interval`].
pub fn watchdog() -> io::Result<bool> {
    send(&[NotifyState::Watchdog])
}

/// The start (or stop) needs longer: the limit is `more` from now.
pub fn extend_timeout(more: Duration) -> io::Result<bool> {
    let usec = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::ExtendTimeoutUsec(usec)])
}

/// How long the manager waits for a sign of life; `None` = it does not.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn send(state: &[NotifyState<'_>]) -> io::Result<bool> {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(false);
    };
    if socket.as_encoded_bytes().first() == Some(&b'@') {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the notify socket is an abstract one, which is not supported",
        ));
    }
    sd_notify::notify(state)?;
    Ok(true)
}

/// A newline would start another field of the message.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(STATUS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_carry_another_field() {
        assert_eq!(one_line("up\nMAINPID=1"), "up MAINPID=1");
        assert_eq!(one_line(&"x".repeat(1000)).len(), STATUS_MAX);
    }
}
