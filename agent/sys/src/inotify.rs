//! Being told that a file grew or was replaced, instead of asking again and again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// A watch on one file.
#[derive(Debug)]
pub struct FileWatch(Inotify);

/// What a look at the watch found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Written to, moved away or deleted.
    Changed,
    /// Nothing since the last look.
    Nothing,
}

impl FileWatch {
    /// Watches `path`; its descriptor becomes readable when something happens. Not blocking.
    pub fn new(path: impl AsRef<Path>) -> io::Result<FileWatch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(
            path.as_ref(),
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF,
        )?;
        Ok(FileWatch(inotify))
    }

    /// Takes what has been reported so far.
    pub fn drain(&self) -> io::Result<Wake> {
        let mut wake = Wake::Nothing;
        loop {
            match self.0.read_events() {
                Ok(events) if events.is_empty() => return Ok(wake),
                Ok(_) => wake = Wake::Changed,
                Err(nix::errno::Errno::EAGAIN) => return Ok(wake),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A watch on the entries of one directory.
#[derive(Debug)]
pub struct DirWatch(Inotify);

impl DirWatch {
    /// Watches for entries that appear in `directory`; the descriptor becomes readable when one
    /// does, or when the directory itself goes away. Not blocking.
    pub fn new(directory: impl AsRef<Path>) -> io::Result<DirWatch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(
            directory.as_ref(),
            AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_DELETE_SELF
                | AddWatchFlags::IN_MOVE_SELF
                | AddWatchFlags::IN_ONLYDIR,
        )?;
        Ok(DirWatch(inotify))
    }
}

impl From<DirWatch> for OwnedFd {
    fn from(watch: DirWatch) -> OwnedFd {
        watch.0.into()
    }
}

impl AsFd for DirWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_reported_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let watch = FileWatch::new(file.path()).unwrap();
        assert_eq!(watch.drain().unwrap(), Wake::Nothing);
        std::fs::write(file.path(), "x").unwrap();
        assert_eq!(watch.drain().unwrap(), Wake::Changed);
        assert_eq!(watch.drain().unwrap(), Wake::Nothing);
    }

    #[test]
    fn a_new_entry_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let watch = DirWatch::new(dir.path()).unwrap();
        assert!(!crate::poll::readable_now(&watch).unwrap());
        std::fs::write(dir.path().join("a"), "").unwrap();
        assert!(crate::poll::readable_now(&watch).unwrap());
        assert!(DirWatch::new(dir.path().join("a")).is_err());
    }
}
