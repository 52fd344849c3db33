//! Paths below a directory that somebody else controls, resolved by descriptor.
//!
//! Nothing here joins strings: a path is walked by the kernel with openat2(2), either with the
//! given directory as root (`*_in_root`: symbolic links and `..` stay inside) or strictly beneath
//! it without any symbolic link (`*_beneath`). A path that was checked once is never looked up a
//! second time; what comes back is a descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, ResolveFlags};

pub use rustix::fs::OFlags;

/// How often a lookup is repeated that raced with a rename (openat2 answers EAGAIN).
///
/// The container may rename in a tight loop on purpose, so there is a bound.
const RETRIES: usize = 128;

/// Opens a directory of the host by path, for use as the root of later lookups (`O_PATH`).
pub fn open_root(path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path.as_ref(),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens `path` with `root` as its root: absolute links and `..` cannot leave it, magic links
/// (`/proc/PID/fd/N`) are refused with ELOOP.
pub fn open_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: u32,
) -> io::Result<OwnedFd> {
    openat2(
        root,
        path.as_ref(),
        flags,
        mode,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Opens `path` strictly beneath `dir`: no symbolic link anywhere, no `..` upward, not absolute.
pub fn open_beneath(
    dir: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: u32,
) -> io::Result<OwnedFd> {
    openat2(
        dir,
        path.as_ref(),
        flags,
        mode,
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// As [`open_beneath`], and on one mount only.
pub fn open_beneath_one_mount(
    dir: impl AsFd,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: u32,
) -> io::Result<OwnedFd> {
    openat2(
        dir,
        path.as_ref(),
        flags,
        mode,
        ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV,
    )
}

fn openat2(
    dir: impl AsFd,
    path: &Path,
    flags: OFlags,
    mode: u32,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    // openat2 refuses mode bits where nothing is made.
    let creates = flags.intersects(OFlags::CREATE) || flags.contains(OFlags::TMPFILE);
    let mode = if creates {
        Mode::from_raw_mode(mode & 0o7777)
    } else {
        Mode::empty()
    };
    for _ in 0..RETRIES {
        match rustix::fs::openat2(&dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
            other => return Ok(other?),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// Opens the directory `path` in `root`, making what is missing, and gives its `O_PATH` descriptor.
///
/// Existing parts are resolved with links kept inside the root. From the first missing part on,
/// each is made and entered by descriptor without following links, so a part that a container
/// swaps for a link meanwhile is an error, not a way out. A dangling link counts as "exists but is
/// no directory" and is refused.
pub fn mkdir_all_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    mode: u32,
) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open_in_root(&root, path.as_ref(), flags, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let parts = normal_parts(path.as_ref())?;
    // The longest prefix that exists; the root itself always does.
    let mut existing = parts.len();
    let mut dir = loop {
        if existing == 0 {
            break open_in_root(&root, ".", flags, 0)?;
        }
        existing -= 1;
        let prefix: PathBuf = parts[..existing].iter().collect();
        let prefix = if existing == 0 {
            Path::new(".")
        } else {
            &prefix
        };
        match open_in_root(&root, prefix, flags, 0) {
            Ok(dir) => break dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
    };
    for part in &parts[existing..] {
        match rustix::fs::mkdirat(&dir, *part, Mode::from_raw_mode(mode & 0o7777)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        dir = open_beneath(&dir, part, flags, 0)?;
    }
    Ok(dir)
}

/// Opens the file `path` in `root` (`O_PATH`), making it and its directories when missing: what a
/// bind mount of a file needs as its target.
///
/// An existing final component may be of any kind but a directory; a link is followed inside the
/// root, and a dangling one is refused.
pub fn create_file_in_root(
    root: impl AsFd,
    path: impl AsRef<Path>,
    mode: u32,
) -> io::Result<OwnedFd> {
    let path = path.as_ref();
    match open_in_root(&root, path, OFlags::PATH, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(fd) if is_dir(&fd)? => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
        other => return other,
    }
    let parts = normal_parts(path)?;
    let Some((name, parents)) = parts.split_last() else {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    };
    let parents: PathBuf = parents.iter().collect();
    let parents = if parents.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &parents
    };
    let dir = mkdir_all_in_root(&root, parents, 0o755)?;
    let made = open_beneath(
        &dir,
        name,
        OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW,
        mode,
    )?;
    drop(made);
    open_beneath(&dir, name, OFlags::PATH | OFlags::NOFOLLOW, 0)
}

/// The parts of a path without `/` and `.`; `..` is refused, because in a path that does not exist
/// yet it has no meaning that could be checked.
fn normal_parts(path: &Path) -> io::Result<Vec<&std::ffi::OsStr>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => parts.push(part),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
        }
    }
    Ok(parts)
}

/// Opens the file behind a descriptor (an `O_PATH` one, mostly) again with other flags.
///
/// Goes through the caller's own procfs, which must be mounted.
pub fn reopen(fd: impl AsFd, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", crate::fd::number(&fd));
    Ok(rustix::fs::open(
        path,
        flags.difference(OFlags::NOFOLLOW) | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Where a descriptor points now, as the kernel words it for this process's root. For messages
/// and for checks that a path is still below another; never to be opened again.
pub fn fd_path(fd: impl AsFd) -> io::Result<PathBuf> {
    let path = format!("/proc/self/fd/{}", crate::fd::number(&fd));
    let target = rustix::fs::readlink(path, Vec::new())?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(
        target.into_bytes(),
    )))
}

/// Whether a descriptor stands for a directory.
pub fn is_dir(fd: impl AsFd) -> io::Result<bool> {
    Ok(file_type(fd)? == FileType::Directory)
}

fn file_type(fd: impl AsFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

/// The device number of a character device; `None` for any other kind of file.
pub fn char_device(fd: impl AsFd) -> io::Result<Option<(u32, u32)>> {
    let stat = rustix::fs::fstat(fd)?;
    let is_char = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Ok(is_char.then(|| {
        (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        )
    }))
}

/// The magic number of the file system that a descriptor lies on.
pub fn fs_magic(fd: impl AsFd) -> io::Result<u32> {
    // All magic numbers fit; the field's type differs between architectures.
    Ok(rustix::fs::fstatfs(fd)?.f_type as u32)
}

/// Whether `name` exists in `dir`, links not followed.
pub fn exists_in(dir: impl AsFd, name: impl AsRef<Path>) -> io::Result<bool> {
    match rustix::fs::statat(dir, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens any path of the host, following links: for paths that the administrator or the package
/// gave, never for a container's.
pub fn open_host(path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        CWD,
        path.as_ref(),
        flags | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

#[cfg(test)]
mod tests;
