//! The sockets that systemd holds for the agent (sd_listen_fds(3)), by name. Their order means
//! nothing: it differs between two loads of the same units.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use libsystemd::activation::IsType;

use crate::error::{Error, Result};

/// Names as our own units give them, and none of the characters that separate fields.
const NAME_MAX: usize = 255;

/// What kind of listener a descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Unix,
    Inet,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Unix => "unix",
            Family::Inet => "inet",
        })
    }
}

/// Takes the descriptors that the service manager passed, each with the name of its unit's
/// `FileDescriptorName=`. Empty when there are none, or when they were meant for another process.
///
/// They can be taken once: a second call fails. Call it before anything else opens descriptors.
/// A count or a name that is not as it should be is an error, because policy hangs on the names.
pub fn listen_fds() -> Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let passed = sd_notify::listen_fds_with_names().map_err(|source| {
        local(
            "the passed sockets cannot be read from the environment",
            source,
        )
    })?;
    let passed: Vec<(i32, String)> = passed.collect();
    if passed.is_empty() {
        return Ok(Vec::new());
    }
    if TAKEN.swap(true, Ordering::SeqCst) {
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(local("the passed sockets were taken already", source));
    }
    let mut taken = Vec::with_capacity(passed.len());
    for (number, name) in passed {
        check_name(&name)?;
        let fd = berth_sys::fd::take_inherited(number).map_err(|source| {
            local(
                &format!("descriptor {number} ({name}) was not passed after all"),
                source,
            )
        })?;
        taken.push((name, fd));
    }
    Ok(taken)
}

/// Which family of sockets a passed descriptor belongs to; an error for anything but a socket
/// that the agent can listen on.
pub fn family(name: &str, fd: &OwnedFd) -> Result<Family> {
    use std::os::fd::AsRawFd;
    let number = fd.as_raw_fd();
    if number.is_unix() {
        Ok(Family::Unix)
    } else if number.is_inet() {
        Ok(Family::Inet)
    } else {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        Err(local(
            &format!("passed descriptor {name} is not a stream socket"),
            source,
        ))
    }
}

fn check_name(name: &str) -> Result<()> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(allowed) {
        return Ok(());
    }
    let source = io::Error::from(io::ErrorKind::InvalidInput);
    Err(local(
        &format!("passed descriptor has the invalid name {name:?}"),
        source,
    ))
}

fn local(what: &str, source: io::Error) -> Error {
    Error::Local {
        what: what.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn names_are_strict() {
        for good in ["api", "monitor", "api-ro", "unknown", "a.b"] {
            check_name(good).unwrap();
        }
        for bad in ["", "API", "a b", "a\nb", "a:b", &"a".repeat(256)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_passed_is_nothing_taken() {
        // The test runner is not socket-activated.
        assert!(listen_fds().unwrap().is_empty());
    }

    #[test]
    fn families() {
        let dir = std::env::temp_dir().join(format!("berth-activation-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let unix = UnixListener::bind(dir.join("s")).unwrap();
        assert_eq!(family("api", &unix.into()).unwrap(), Family::Unix);
        std::fs::remove_dir_all(&dir).unwrap();
        let inet = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert_eq!(family("tcp", &inet.into()).unwrap(), Family::Inet);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(family("null", &file.into()).is_err());
    }
}
