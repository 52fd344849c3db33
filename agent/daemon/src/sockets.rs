//! The agent's listening sockets: those that systemd passed, by name, and those that it makes itself,
//! which appear under their name only when their mode and owner are right.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use berth_systemd::activation::{self, Family};

use crate::config::Host;

/// The name of the API's sockets among those passed.
const API: &str = "api";
/// The name of the socket that monitors report to.
const MONITOR: &str = "monitor";
/// Members may use the API.
const GROUP: &str = "berth";
/// Everybody's rights are taken away explicitly where it matters; images keep their own modes.
const UMASK: u32 = 0o022;
const RLIMIT_NOFILE: u32 = 7;
/// Descriptors for 4,096 connections, and for what a few thousand containers need.
const DESCRIPTORS: u64 = 65_536;

/// What the service manager passed.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    pub(crate) api: Vec<OwnedFd>,
    pub(crate) monitor: Option<OwnedFd>,
    /// Set when something was passed that has no place here: a mistake in a unit, to be told.
    pub(crate) trouble: Option<String>,
}

impl Passed {
    pub(crate) fn activated(&self) -> bool {
        !self.api.is_empty()
    }
}

/// Takes the passed sockets. A socket with a strange name is no reason to leave the others unanswered.
pub(crate) fn take_passed() -> Result<Passed, berth_systemd::Error> {
    let mut passed = Passed::default();
    for (name, fd) in activation::listen_fds()? {
        let family = activation::family(&name, &fd);
        match (name.as_str(), family) {
            (API, Ok(_)) => passed.api.push(fd),
            (MONITOR, Ok(Family::Unix)) if passed.monitor.is_none() => passed.monitor = Some(fd),
            (_, Ok(_)) => {
                let known = format!("{API} or {MONITOR} (once, a unix socket)");
                passed.trouble = Some(format!(
                    "a socket named {name:?} was passed: FileDescriptorName= must be {known}"
                ));
            }
            (_, Err(error)) => passed.trouble = Some(error.to_string()),
        }
    }
    Ok(passed)
}

/// What the process needs before it opens anything.
pub(crate) fn prepare_process() -> io::Result<()> {
    berth_sys::cred::umask(UMASK);
    // Secrets of clients pass through this memory: no core dumps, no tracing by others of the same uid.
    berth_sys::cred::dumpable(false)?;
    let (soft, hard) = berth_sys::rlimit::get(RLIMIT_NOFILE)?;
    if soft < DESCRIPTORS.min(hard) {
        berth_sys::rlimit::set(RLIMIT_NOFILE, DESCRIPTORS.min(hard), hard)?;
    }
    Ok(())
}

/// A unix socket of our own; its name goes with it.
#[derive(Debug)]
pub(crate) struct Named {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for Named {
    fn drop(&mut self) {
        // Somebody else's by now? Then it is not ours to remove.
        if fs::symlink_metadata(&self.path)
            .is_ok_and(|meta| (meta.dev(), meta.ino()) == self.identity)
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens the listener for one `-H`.
pub(crate) fn open(host: &Host) -> io::Result<(OwnedFd, Option<Named>)> {
    match host {
        Host::Unix(path) => {
            let group = group_id(GROUP);
            let (fd, named) = bind_unix(path, 0o660, group)?;
            Ok((fd, Some(named)))
        }
        Host::Tcp(address) => Ok((TcpListener::bind(address)?.into(), None)),
        Host::Passed => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "passed sockets are taken, not opened",
        )),
    }
}

/// Binds `path` so that nobody can connect before mode and group are set: under another name first.
pub(crate) fn bind_unix(
    path: &Path,
    mode: u32,
    group: Option<u32>,
) -> io::Result<(OwnedFd, Named)> {
    if let Ok(meta) = fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the path exists and is no socket",
            ));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another process listens there",
            ));
        }
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(OsString::from(format!(".{}.new", std::process::id())));
    let temporary = PathBuf::from(temporary);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The process's mask leaves writing, which is what connecting asks for, to the owner alone.
    let listener = UnixListener::bind(&temporary)?;
    let set_up = || {
        chown(&temporary, None, group)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
        let meta = fs::symlink_metadata(&temporary)?;
        fs::rename(&temporary, path)?;
        io::Result::Ok(Named {
            path: path.to_owned(),
            identity: (meta.dev(), meta.ino()),
        })
    };
    let named = set_up();
    if named.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    Ok((listener.into(), named?))
}

/// The group's number out of the group file (group(5)); `None` where there is no such group.
fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_appears_with_its_mode_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("sub/s.sock");
        let (listener, named) = bind_unix(&path, 0o660, None).expect("bind");
        let meta = fs::symlink_metadata(&path).expect("there");
        assert!(meta.file_type().is_socket());
        assert_eq!(meta.permissions().mode() & 0o7777, 0o660);
        assert_eq!(
            fs::read_dir(dir.path().join("sub")).expect("list").count(),
            1,
            "no temporary name is left"
        );
        UnixStream::connect(&path).expect("connect");
        assert_eq!(
            bind_unix(&path, 0o660, None).expect_err("in use").kind(),
            io::ErrorKind::AddrInUse
        );
        drop(listener);
        drop(named);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("s.sock");
        drop(UnixListener::bind(&path).expect("bind"));
        let (_listener, old) = bind_unix(&path, 0o600, None).expect("replaces");
        // One that was replaced itself leaves its successor alone.
        fs::remove_file(&path).expect("remove");
        let (_second, _named) = bind_unix(&path, 0o600, None).expect("bind");
        drop(old);
        assert!(path.exists());
        let file = dir.path().join("file");
        fs::write(&file, "precious").expect("write");
        assert_eq!(
            bind_unix(&file, 0o600, None).expect_err("a file").kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read_to_string(&file).expect("read"), "precious");
    }

    #[test]
    fn groups_are_read_from_the_file() {
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("no-such-group-here"), None);
    }
}
