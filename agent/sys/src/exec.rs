//! Becoming another program.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Arguments or environment, ready for execve(2): made before the last privileges go, so that
/// nothing has to be allocated afterwards.
#[derive(Debug)]
pub struct CStringArray {
    pointers: Vec<*const libc::c_char>,
    // The strings that the pointers point into; moving the array does not move them.
    _strings: Vec<CString>,
}

impl CStringArray {
    /// EINVAL when a string holds a NUL.
    pub fn new<T: AsRef<[u8]>>(strings: impl IntoIterator<Item = T>) -> io::Result<CStringArray> {
        let strings = strings
            .into_iter()
            .map(|string| CString::new(string.as_ref()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Ok(CStringArray {
            pointers,
            _strings: strings,
        })
    }
}

/// execve(2): the calling process becomes `path`, or gets the error.
pub fn execve(path: &CStr, argv: &CStringArray, envp: &CStringArray) -> io::Result<Infallible> {
    Err(crate::raw::execve(path, &argv.pointers, &envp.pointers))
}

/// Finds a program as execvpe(3) would, in this process's own root: a name with a slash is taken as
/// it is, any other is looked for in the directories of `path` (`PATH` of the new environment).
///
/// EACCES when candidates exist but none may be executed; EISDIR when a name with a slash is a
/// directory; ENOENT when there is nothing. The caller executes what is returned and so sees every
/// other error itself.
pub fn find_program(name: &[u8], path: Option<&[u8]>) -> io::Result<CString> {
    if name.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    if name.contains(&b'/') {
        check(Path::new(OsStr::from_bytes(name)))?;
        return CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut denied = false;
    for dir in path.unwrap_or_default().split(|byte| *byte == b':') {
        // An empty part means the working directory, as it does for every shell.
        let dir = if dir.is_empty() { &b"."[..] } else { dir };
        let candidate = Path::new(OsStr::from_bytes(dir)).join(OsStr::from_bytes(name));
        match check(&candidate) {
            Ok(()) => {
                return CString::new(candidate.into_os_string().into_encoded_bytes())
                    .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
            }
            Err(error) => denied |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    Err(io::Error::from_raw_os_error(if denied {
        libc::EACCES
    } else {
        libc::ENOENT
    }))
}

/// Whether a path is a file that this process may execute, with the ids that execve uses.
fn check(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    Ok(rustix::fs::accessat(
        rustix::fs::CWD,
        path,
        rustix::fs::Access::EXEC_OK,
        rustix::fs::AtFlags::EACCESS,
    )?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn programs_are_found_as_by_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        file("plain", 0o644);
        file("run", 0o755);
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        let bytes = dir.path().as_os_str().as_bytes();
        let path = [b"/no/such:", bytes].concat();
        let errno = |name: &[u8]| find_program(name, Some(&path)).unwrap_err().raw_os_error();
        let found = find_program(b"run", Some(&path)).unwrap();
        assert_eq!(
            found.to_bytes(),
            dir.path().join("run").as_os_str().as_bytes()
        );
        assert_eq!(errno(b"plain"), Some(libc::EACCES));
        assert_eq!(errno(b"nothing"), Some(libc::ENOENT));
        assert_eq!(errno(b""), Some(libc::ENOENT));
        assert_eq!(errno(b"dir"), Some(libc::ENOENT));
        assert_eq!(errno(bytes), Some(libc::EISDIR));
        assert_eq!(errno(&[bytes, b"/plain"].concat()), Some(libc::EACCES));
        assert_eq!(errno(&[bytes, b"/run/x"].concat()), Some(libc::ENOTDIR));
        assert!(find_program(b"run", None).is_err());
    }

    #[test]
    fn strings_with_a_nul_are_refused() {
        assert!(CStringArray::new(["a", "b\0c"]).is_err());
        assert_eq!(CStringArray::new(["a", "b"]).unwrap().pointers.len(), 3);
        let array = CStringArray::new(["x"]).unwrap();
        assert!(execve(c"/no/such/program", &array, &array).is_err());
    }
}
