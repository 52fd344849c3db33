//! Extended attributes by descriptor or by path, links never followed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// How often a size that changed between asking and reading is asked again.
const RETRIES: usize = 8;

/// Reads with a buffer of the size that the kernel asks for.
fn sized(
    query: impl Fn() -> rustix::io::Result<usize>,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    for _ in 0..RETRIES {
        let mut buffer = vec![0; query()?];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => continue,
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

fn optional(result: rustix::io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn names(list: rustix::io::Result<Vec<u8>>) -> io::Result<Vec<OsString>> {
    let list = optional(list)?.unwrap_or_default();
    let parts = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    Ok(parts
        .map(|name| OsString::from_vec(name.to_vec()))
        .collect())
}

/// One attribute of an open file (not of an `O_PATH` one); `None` when it has no such attribute.
pub fn get(fd: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<Option<Vec<u8>>> {
    let name = name.as_ref().as_bytes();
    optional(sized(
        || rustix::fs::fgetxattr_query(&fd, name),
        |buffer| rustix::fs::fgetxattr(&fd, name, buffer),
    ))
}

/// Sets one attribute of an open file.
pub fn set(fd: impl AsFd, name: impl AsRef<OsStr>, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        fd,
        name.as_ref(),
        value,
        XattrFlags::empty(),
    )?)
}

/// Removes one attribute of an open file; no error when it has none.
pub fn remove(fd: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<()> {
    match rustix::fs::fremovexattr(fd, name.as_ref()) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The names of all attributes of an open file.
pub fn list(fd: impl AsFd) -> io::Result<Vec<OsString>> {
    names(sized(
        || rustix::fs::flistxattr_query(&fd),
        |buffer| rustix::fs::flistxattr(&fd, buffer),
    ))
}

/// One attribute by path; the last part is not followed when it is a link.
pub fn get_path(path: impl AsRef<Path>, name: impl AsRef<OsStr>) -> io::Result<Option<Vec<u8>>> {
    let (path, name) = (path.as_ref(), name.as_ref().as_bytes());
    optional(sized(
        || rustix::fs::lgetxattr_query(path, name),
        |buffer| rustix::fs::lgetxattr(path, name, buffer),
    ))
}

/// Sets one attribute by path; the last part is not followed when it is a link.
pub fn set_path(path: impl AsRef<Path>, name: impl AsRef<OsStr>, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(
        path.as_ref(),
        name.as_ref(),
        value,
        XattrFlags::empty(),
    )?)
}

/// The names of all attributes by path; the last part is not followed when it is a link.
pub fn list_path(path: impl AsRef<Path>) -> io::Result<Vec<OsString>> {
    let path = path.as_ref();
    names(sized(
        || rustix::fs::llistxattr_query(path),
        |buffer| rustix::fs::llistxattr(path, buffer),
    ))
}

/// The path under which a file beneath an open directory can be given to the `*_path` functions:
/// by the directory's descriptor, so no part but the last is looked up again. `name` must be a
/// single part.
pub fn path_in(dir: impl AsFd, name: impl AsRef<Path>) -> std::path::PathBuf {
    Path::new(&format!("/proc/self/fd/{}", crate::fd::number(dir))).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_set_read_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("file")).unwrap();
        match set(&file, "user.test", b"value") {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                eprintln!("no attributes on this file system: nothing tested");
                return;
            }
            other => other.unwrap(),
        }
        assert_eq!(
            get(&file, "user.test").unwrap().as_deref(),
            Some(&b"value"[..])
        );
        assert_eq!(get(&file, "user.other").unwrap(), None);
        assert!(list(&file).unwrap().contains(&OsString::from("user.test")));
        let handle = crate::path::open_root(dir.path()).unwrap();
        let path = path_in(&handle, "file");
        set_path(&path, "user.empty", b"").unwrap();
        assert_eq!(
            get_path(&path, "user.empty").unwrap().as_deref(),
            Some(&b""[..])
        );
        assert_eq!(list_path(&path).unwrap(), list(&file).unwrap());
        remove(&file, "user.test").unwrap();
        remove(&file, "user.test").unwrap();
        assert_eq!(get(&file, "user.test").unwrap(), None);
    }
}
