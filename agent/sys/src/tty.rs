//! Terminals: a pty from a given devpts, its size and its modes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Winsize};

use crate::path::{OFlags, char_device, fs_magic, open_beneath_one_mount};

/// Major number of the slave side of every pty that devpts makes.
const PTS_MAJOR: u32 = 136;

/// Makes a pty in the devpts whose root directory is given, and gives (master, slave).
///
/// Nothing is looked up by a path that a container could have replaced: `ptmx` is opened by the
/// descriptor of the devpts itself, the slave through the master, and both are checked to be what
/// they should be. Neither becomes the caller's controlling terminal.
pub fn open_pty_in(devpts: impl AsFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let master = open_beneath_one_mount(devpts, "ptmx", flags, 0)?;
    if fs_magic(&master)? != libc::DEVPTS_SUPER_MAGIC as u32
        || char_device(&master)? != Some((5, 2))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "ptmx is not a devpts's",
        ));
    }
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    match char_device(&slave)? {
        Some((PTS_MAJOR, _)) => Ok((master, slave)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the slave of a pty is not on devpts",
        )),
    }
}

/// The number of a pty's slave: the name of its node in the devpts.
pub fn pty_number(slave: impl AsFd) -> io::Result<u32> {
    match char_device(slave)? {
        Some((PTS_MAJOR, minor)) => Ok(minor),
        _ => Err(io::Error::from_raw_os_error(libc::ENOTTY)),
    }
}

/// Tells a terminal its size; programs in the foreground get SIGWINCH when it changes.
pub fn set_winsize(fd: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(fd, size)?)
}

/// A terminal's size: (rows, columns).
pub fn winsize(fd: impl AsFd) -> io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(fd)?;
    Ok((size.ws_row, size.ws_col))
}

/// Switches a terminal to raw mode and gives the mode it had.
pub fn raw(fd: impl AsFd) -> io::Result<SavedMode> {
    let saved = rustix::termios::tcgetattr(&fd)?;
    let mut raw = saved.clone();
    raw.make_raw();
    rustix::termios::tcsetattr(&fd, OptionalActions::Now, &raw)?;
    Ok(SavedMode(saved))
}

/// A terminal's mode, to be put back.
#[derive(Debug, Clone)]
pub struct SavedMode(rustix::termios::Termios);

impl SavedMode {
    pub fn restore(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(rustix::termios::tcsetattr(
            fd,
            OptionalActions::Now,
            &self.0,
        )?)
    }
}

/// Makes a terminal the controlling one of the caller, which must lead a session without one.
pub fn make_controlling(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(fd)?)
}

/// Whether a descriptor is a terminal.
pub fn is_terminal(fd: impl AsFd) -> bool {
    rustix::termios::isatty(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::{MountAttr, new_fs};

    #[test]
    fn a_pty_of_a_detached_devpts_works() {
        let options = [("ptmxmode", "0666"), ("mode", "0620")];
        let devpts = match new_fs("devpts", &options, &[], MountAttr::NOSUID) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("not root: nothing tested");
                return;
            }
            other => other.unwrap(),
        };
        let (master, slave) = open_pty_in(&devpts).unwrap();
        assert!(is_terminal(&slave));
        assert_eq!(pty_number(&slave).unwrap(), 0);
        assert!(pty_number(&devpts).is_err());
        set_winsize(&master, 24, 81).unwrap();
        assert_eq!(winsize(&slave).unwrap(), (24, 81));
        let saved = raw(&slave).unwrap();
        rustix::io::write(&master, b"\x03x").unwrap();
        let mut buffer = [0; 4];
        assert_eq!(rustix::io::read(&slave, &mut buffer).unwrap(), 2);
        saved.restore(&slave).unwrap();
        drop(slave);
        assert_eq!(
            rustix::io::read(&master, &mut buffer),
            Err(rustix::io::Errno::IO)
        );
    }

    #[test]
    fn a_directory_with_a_ptmx_is_no_devpts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ptmx"), "").unwrap();
        assert!(open_pty_in(crate::path::open_root(dir.path()).unwrap()).is_err());
    }
}
