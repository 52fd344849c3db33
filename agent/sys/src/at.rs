//! Files by directory descriptor and single name: what is needed to build, copy and remove trees
//! whose names come from others.
//!
//! A name here is always one component, handed to the kernel relative to an open directory and
//! never followed when it is a symbolic link. Callers reach the directory through [`crate::path`].
//! No policy: which names, owners and modes are allowed is decided above.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, FlockOperation, Mode, RenameFlags, Timespec, Timestamps,
};
use rustix::io::Errno;

use crate::path::OFlags;

/// What kind of file something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    File,
    Dir,
    Link,
    Char,
    Block,
    Fifo,
    Socket,
}

impl Kind {
    fn of(mode: u32) -> Option<Kind> {
        Some(match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Link,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            _ => return None,
        })
    }
}

/// A moment of a file: seconds since the epoch (may be negative) and nanoseconds in [0, 10⁹).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct FileTime {
    pub secs: i64,
    pub nanos: u32,
}

/// What stat(2) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub kind: Kind,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes, holes included.
    pub size: u64,
    /// The file system's own number and the file's number on it.
    pub dev: u64,
    pub ino: u64,
    pub links: u64,
    /// Major and minor of a device node.
    pub rdev: (u32, u32),
    pub mtime: FileTime,
}

fn meta(stat: &rustix::fs::Stat) -> io::Result<Meta> {
    let kind = Kind::of(stat.st_mode).ok_or_else(|| io::Error::other("a file of unknown type"))?;
    Ok(Meta {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        dev: stat.st_dev,
        ino: stat.st_ino,
        #[allow(
            clippy::useless_conversion,
            clippy::unnecessary_cast,
            reason = "the types differ between architectures"
        )]
        links: stat.st_nlink as u64,
        rdev: (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        ),
        mtime: FileTime {
            secs: stat.st_mtime,
            nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
    })
}

/// What an open file is (`O_PATH` descriptors too).
pub fn stat(fd: impl AsFd) -> io::Result<Meta> {
    meta(&rustix::fs::fstat(fd)?)
}

/// What `name` in `dir` is; a link is itself, not its target.
pub fn stat_at(dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<Meta> {
    meta(&rustix::fs::statat(
        dir,
        name.as_ref(),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// As [`stat_at`], with `None` for what is not there.
pub fn find_at(dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<Option<Meta>> {
    match stat_at(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Whether an error says that a symbolic link stood where none may be followed.
pub fn is_link_error(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
}

/// Opens the directory `name` in `dir` for reading its entries and changing its metadata.
pub fn open_dir_at(dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    crate::path::open_beneath(
        dir,
        name.as_ref(),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        0,
    )
}

/// Opens the directory above one that is open. Where that is decides the tree, not the caller: check
/// that it is the one meant.
pub fn open_parent(dir: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, "..", flags, Mode::empty())?)
}

/// Opens a directory again for reading: a descriptor with a position of its own.
pub fn open_again(dir: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, ".", flags, Mode::empty())?)
}

/// Whether directory entries tell their kind (overlayfs needs that). True for an empty directory.
pub fn entries_tell_kind(dir: impl AsFd) -> io::Result<bool> {
    let mut entries = rustix::fs::Dir::read_from(dir)?;
    while let Some(entry) = entries.read() {
        if entry?.file_type() == FileType::Unknown {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens the existing regular file `name` in `dir` for reading; anything else is refused unopened,
/// so that a fifo cannot block nor a device act.
pub fn open_file_at(dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    if stat_at(&dir, name.as_ref())?.kind != Kind::File {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let fd = crate::path::open_beneath(dir, name.as_ref(), flags, 0)?;
    if stat(&fd)?.kind != Kind::File {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok(fd)
}

/// Makes the file `name` in `dir`, which must not exist, and opens it for reading and writing.
pub fn create_at(dir: impl AsFd, name: impl AsRef<OsStr>, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    crate::path::open_beneath(dir, name.as_ref(), flags, mode)
}

/// Makes a directory. The umask applies; EEXIST when the name is taken.
pub fn mkdir_at(dir: impl AsFd, name: impl AsRef<OsStr>, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(
        dir,
        name.as_ref(),
        Mode::from_raw_mode(mode & 0o7777),
    )?)
}

/// Makes a device node or a fifo. The umask applies.
pub fn mknod_at(
    dir: impl AsFd,
    name: impl AsRef<OsStr>,
    kind: Kind,
    mode: u32,
    rdev: (u32, u32),
) -> io::Result<()> {
    let file_type = match kind {
        Kind::Char => FileType::CharacterDevice,
        Kind::Block => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::File | Kind::Dir | Kind::Link => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a kind of node",
            ));
        }
    };
    let device = rustix::fs::makedev(rdev.0, rdev.1);
    Ok(rustix::fs::mknodat(
        dir,
        name.as_ref(),
        file_type,
        Mode::from_raw_mode(mode & 0o7777),
        device,
    )?)
}

/// Makes a symbolic link whose text is `target`.
pub fn symlink_at(target: &[u8], dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    Ok(rustix::fs::symlinkat(
        OsStr::from_bytes(target),
        dir,
        name.as_ref(),
    )?)
}

/// The text of a symbolic link.
pub fn readlink_at(dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name.as_ref(), Vec::new())?.into_bytes())
}

/// Gives the file `old` in `old_dir` a second name. A symbolic link is linked itself.
pub fn link_at(
    old_dir: impl AsFd,
    old: impl AsRef<OsStr>,
    new_dir: impl AsFd,
    new: impl AsRef<OsStr>,
) -> io::Result<()> {
    Ok(rustix::fs::linkat(
        old_dir,
        old.as_ref(),
        new_dir,
        new.as_ref(),
        AtFlags::empty(),
    )?)
}

/// Removes a name that is no directory.
pub fn unlink_at(dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(dir, name.as_ref(), AtFlags::empty())?)
}

/// Removes an empty directory.
pub fn rmdir_at(dir: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    Ok(rustix::fs::unlinkat(
        dir,
        name.as_ref(),
        AtFlags::REMOVEDIR,
    )?)
}

/// Renames, replacing what may be there (an empty directory counts as replaceable).
pub fn rename_at(
    old_dir: impl AsFd,
    old: impl AsRef<OsStr>,
    new_dir: impl AsFd,
    new: impl AsRef<OsStr>,
) -> io::Result<()> {
    Ok(rustix::fs::renameat(
        old_dir,
        old.as_ref(),
        new_dir,
        new.as_ref(),
    )?)
}

/// Renames; EEXIST when the new name is taken.
pub fn rename_new_at(
    old_dir: impl AsFd,
    old: impl AsRef<OsStr>,
    new_dir: impl AsFd,
    new: impl AsRef<OsStr>,
) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(
        old_dir,
        old.as_ref(),
        new_dir,
        new.as_ref(),
        RenameFlags::NOREPLACE,
    )?)
}

/// Gives an open file to somebody. Clears its set-id bits and file capability, as the kernel does.
pub fn chown(fd: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = owner(uid, gid)?;
    Ok(rustix::fs::fchown(fd, uid, gid)?)
}

/// Gives `name` in `dir` to somebody; a link itself, not its target.
pub fn chown_at(dir: impl AsFd, name: impl AsRef<OsStr>, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = owner(uid, gid)?;
    Ok(rustix::fs::chownat(
        dir,
        name.as_ref(),
        uid,
        gid,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn owner(uid: u32, gid: u32) -> io::Result<(Option<rustix::fs::Uid>, Option<rustix::fs::Gid>)> {
    // The kernel takes the last number for "leave as it is", which no caller means.
    if uid == u32::MAX || gid == u32::MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "4294967295 is no user or group",
        ));
    }
    Ok((
        Some(rustix::fs::Uid::from_raw(uid)),
        Some(rustix::fs::Gid::from_raw(gid)),
    ))
}

/// Sets the permission bits of an open file, set-id and sticky included.
pub fn chmod(fd: impl AsFd, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777))?)
}

/// Sets the time of last change of an open file; the time of last access becomes the same.
pub fn set_mtime(fd: impl AsFd, time: FileTime) -> io::Result<()> {
    Ok(rustix::fs::futimens(fd, &stamps(time))?)
}

/// As [`set_mtime`], for `name` in `dir`; a link itself, not its target.
pub fn set_mtime_at(dir: impl AsFd, name: impl AsRef<OsStr>, time: FileTime) -> io::Result<()> {
    Ok(rustix::fs::utimensat(
        dir,
        name.as_ref(),
        &stamps(time),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

fn stamps(time: FileTime) -> Timestamps {
    let spec = Timespec {
        tv_sec: time.secs,
        tv_nsec: i64::from(time.nanos) as _,
    };
    Timestamps {
        last_access: spec,
        last_modification: spec,
    }
}

/// The names in a directory, without `.` and `..`, in the order the file system has them.
/// The directory must be open for reading (not `O_PATH`).
pub fn names(dir: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    each_name(dir, |name| {
        all.push(name.to_vec());
        Ok(())
    })?;
    Ok(all)
}

/// Calls `f` for each name in a directory without holding them all.
pub fn each_name(dir: impl AsFd, mut f: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut entries = rustix::fs::Dir::read_from(dir)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            f(name)?;
        }
    }
    Ok(())
}

/// An unnamed file in `dir`, open for reading and writing, that vanishes with its last descriptor
/// (and so with a killed process).
pub fn temporary_file(dir: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL;
    Ok(rustix::fs::openat(
        dir,
        ".",
        flags | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o600),
    )?)
}

/// Sets the length of an open file; beyond its end it is a hole.
pub fn set_len(fd: impl AsFd, len: u64) -> io::Result<()> {
    Ok(rustix::fs::ftruncate(fd, len)?)
}

/// Gives back the blocks of a range; it reads as zeros afterwards. EOPNOTSUPP where unknown.
pub fn punch_hole(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(
        fd,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        offset,
        len,
    )?)
}

/// Bytes that the file system of `fd` still has for unprivileged writers.
pub fn free_space(fd: impl AsFd) -> io::Result<u64> {
    let stat = rustix::fs::fstatvfs(fd)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Takes the exclusive lock of an open file, without waiting; `false` when another holds it.
pub fn try_lock(fd: impl AsFd) -> io::Result<bool> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sets the calling thread's umask (the whole process's, unless the thread has unshared its
/// file-system attributes).
pub fn set_umask(mask: u32) {
    rustix::process::umask(Mode::from_raw_mode(mask & 0o777));
}

/// Copies contents between two open regular files of the same length, holes kept: shares blocks
/// where the file system can, else copies range by range inside the kernel.
pub fn copy_contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    set_len(to, size)?;
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole until the end.
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(data))?;
        copy_range(from, to, data, end.min(size))?;
        at = end;
    }
    Ok(())
}

fn copy_range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    let (mut source, mut target) = (start, start);
    while source < end {
        let want = usize::try_from(end - source)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), want) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(Errno::INTR) => {}
            // Different file systems, or one that does not know the call.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_by_hand(from, to, source, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: BorrowedFd<'_>, to: BorrowedFd<'_>, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    while at < end {
        let want = buffer
            .len()
            .min(usize::try_from(end - at).unwrap_or(usize::MAX));
        let got = rustix::io::retry_on_intr(|| rustix::io::pread(from, &mut buffer[..want], at))?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut written = 0;
        while written < got {
            let offset = at + written as u64;
            written += rustix::io::retry_on_intr(|| {
                rustix::io::pwrite(to, &buffer[written..got], offset)
            })?;
        }
        at += got as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
