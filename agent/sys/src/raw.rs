//! System calls that neither rustix nor nix wraps, with their structures as the kernel's headers
//! give them. Crate-private: the modules beside this one give them a safe face.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Turns libc's −1 convention into a result.
pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// `struct mount_attr` of mount_setattr(2), first version (32 bytes).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MountAttrArgs {
    pub(crate) attr_set: u64,
    pub(crate) attr_clr: u64,
    pub(crate) propagation: u64,
    pub(crate) userns_fd: u64,
}

/// mount_setattr(2) on a descriptor (kernel 5.12).
pub(crate) fn mount_setattr(
    fd: BorrowedFd<'_>,
    flags: libc::c_uint,
    args: &MountAttrArgs,
) -> io::Result<()> {
    // SAFETY: the path is a static NUL-terminated string, the structure outlives the call, and the
    // size passed is the size of that structure.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags | libc::AT_EMPTY_PATH as libc::c_uint,
            std::ptr::from_ref(args),
            size_of::<MountAttrArgs>(),
        )
    };
    check(result).map(drop)
}

/// close_range(2) (kernel 5.9; the close-on-exec flag since 5.11).
pub(crate) fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: only integers are passed. With CLOSE_RANGE_CLOEXEC no descriptor is closed; the one
    // caller without it runs before the program owns any in the range, by its contract.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// `keyctl(KEYCTL_JOIN_SESSION_KEYRING, name)`; gives the serial number of the new keyring.
pub(crate) fn keyctl_join_session(name: &CStr) -> io::Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the name is NUL-terminated and outlives the call.
    let serial = check(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr())
    })?;
    i32::try_from(serial).map_err(io::Error::other)
}

/// `keyctl(KEYCTL_SETPERM, serial, permissions)`.
pub(crate) fn keyctl_setperm(serial: i32, permissions: u32) -> io::Result<()> {
    const KEYCTL_SETPERM: libc::c_long = 5;
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, serial, permissions) }).map(drop)
}

/// setgroups(2) for the calling thread only, with the whole list.
pub(crate) fn setgroups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length describe one slice that outlives the call.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// setresgid(2) for the calling thread.
pub(crate) fn setresgid(gid: u32) -> io::Result<()> {
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// setresuid(2) for the calling thread.
pub(crate) fn setresuid(uid: u32) -> io::Result<()> {
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// `prctl(PR_CAPBSET_DROP)`.
pub(crate) fn drop_bounding(cap: u32) -> io::Result<()> {
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, cap, 0, 0, 0) }).map(drop)
}

/// `prctl(PR_CAPBSET_READ)`: whether the capability is in the bounding set; an error when the
/// kernel does not know it.
pub(crate) fn read_bounding(cap: u32) -> io::Result<bool> {
    // SAFETY: only integers are passed.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_READ, cap, 0, 0, 0) })
        .map(|value| value == 1)
}

/// `prctl(PR_CAP_AMBIENT, operation, cap)`.
pub(crate) fn ambient(operation: libc::c_int, cap: u32) -> io::Result<bool> {
    // SAFETY: only integers are passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_prctl,
            libc::PR_CAP_AMBIENT,
            operation,
            libc::c_ulong::from(cap),
            0,
            0,
        )
    })
    .map(|value| value == 1)
}

/// unshare(2) of the calling thread.
pub(crate) fn unshare(flags: u64) -> io::Result<()> {
    let flags =
        libc::c_int::try_from(flags).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the callers pass namespace flags and CLONE_FS only, never CLONE_FILES or CLONE_VM
    // with another thread alive, so no descriptor and no memory changes under safe code.
    check(libc::c_long::from(unsafe { libc::unshare(flags) })).map(drop)
}

/// A check without effect: EINVAL when the process has more than one thread.
///
/// unshare(2): CLONE_THREAD "can be specified if the caller is single threaded; in this case it
/// has no effect", otherwise the call fails.
pub(crate) fn single_threaded() -> bool {
    // SAFETY: CLONE_THREAD alone changes nothing.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// execve(2). Comes back only with an error.
pub(crate) fn execve(
    path: &CStr,
    argv: &[*const libc::c_char],
    envp: &[*const libc::c_char],
) -> io::Error {
    debug_assert!(argv.last().is_some_and(|last| last.is_null()));
    debug_assert!(envp.last().is_some_and(|last| last.is_null()));
    // SAFETY: both arrays end in a null pointer and point to NUL-terminated strings that the
    // caller keeps alive for the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}
