//! Namespaces: naming, entering and making them.
//!
//! A process with several threads must not change its own namespaces; [`in_thread`] gives a thread
//! that may change its own and ends afterwards.

use std::io;
use std::ops::BitOr;
use std::os::fd::{AsFd, OwnedFd};

use crate::mount::{MountAttr, attach, make_private_recursive, new_fs, pivot_root_into, set_attr};
use crate::path::OFlags;
use crate::proc::ProcHandle;

/// One kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NsKind {
    Mnt,
    Pid,
    Net,
    Ipc,
    Uts,
    Cgroup,
    User,
    Time,
}

impl NsKind {
    /// The name of its file in `/proc/PID/ns`.
    pub fn file_name(self) -> &'static str {
        match self {
            NsKind::Mnt => "mnt",
            NsKind::Pid => "pid",
            NsKind::Net => "net",
            NsKind::Ipc => "ipc",
            NsKind::Uts => "uts",
            NsKind::Cgroup => "cgroup",
            NsKind::User => "user",
            NsKind::Time => "time",
        }
    }

    /// The set with this kind alone.
    pub fn set(self) -> Namespaces {
        match self {
            NsKind::Mnt => Namespaces::MNT,
            NsKind::Pid => Namespaces::PID,
            NsKind::Net => Namespaces::NET,
            NsKind::Ipc => Namespaces::IPC,
            NsKind::Uts => Namespaces::UTS,
            NsKind::Cgroup => Namespaces::CGROUP,
            NsKind::User => Namespaces::USER,
            NsKind::Time => Namespaces::TIME,
        }
    }
}

/// A set of kinds of namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces(u64);

impl Namespaces {
    pub const NONE: Namespaces = Namespaces(0);
    pub const MNT: Namespaces = Namespaces(libc::CLONE_NEWNS as u64);
    pub const PID: Namespaces = Namespaces(libc::CLONE_NEWPID as u64);
    pub const NET: Namespaces = Namespaces(libc::CLONE_NEWNET as u64);
    pub const IPC: Namespaces = Namespaces(libc::CLONE_NEWIPC as u64);
    pub const UTS: Namespaces = Namespaces(libc::CLONE_NEWUTS as u64);
    pub const CGROUP: Namespaces = Namespaces(libc::CLONE_NEWCGROUP as u64);
    pub const USER: Namespaces = Namespaces(libc::CLONE_NEWUSER as u64);
    pub const TIME: Namespaces = Namespaces(0x80);

    pub fn contains(self, other: Namespaces) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The CLONE_NEW* bits.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl BitOr for Namespaces {
    type Output = Namespaces;
    fn bitor(self, other: Namespaces) -> Namespaces {
        Namespaces(self.0 | other.0)
    }
}

/// Opens a namespace of a process by its number. The number may be taken by another process at any
/// time: hold a pidfd and use [`open_ns_of`] where that matters.
pub fn open_ns(pid: u32, kind: NsKind) -> io::Result<OwnedFd> {
    // The last part is a magic link, so it is opened in a step of its own, from a directory that is
    // verified to be on procfs.
    let proc = ProcHandle::shared()?;
    let dir = proc.open_file(&format!("{pid}/ns"), OFlags::PATH | OFlags::DIRECTORY)?;
    Ok(rustix::fs::openat(
        &dir,
        kind.file_name(),
        OFlags::RDONLY | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?)
}

/// Opens a namespace of the process behind a pidfd; ESRCH when that has ended.
pub fn open_ns_of(pidfd: impl AsFd, kind: NsKind) -> io::Result<OwnedFd> {
    let fd = open_ns(crate::pidfd::pid_of(&pidfd)?, kind)?;
    // Alive after the look-up means that the number was its own during the look-up.
    if crate::pidfd::is_alive(&pidfd)? {
        Ok(fd)
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// Moves the calling thread into a namespace. For a pid namespace: its future children.
pub fn setns(fd: impl AsFd, kind: NsKind) -> io::Result<()> {
    let flags = libc::c_int::try_from(kind.set().bits()).map_err(io::Error::other)?;
    Ok(nix::sched::setns(
        fd,
        nix::sched::CloneFlags::from_bits_retain(flags),
    )?)
}

/// Gives the calling thread new namespaces. For [`Namespaces::MNT`] in a thread of a bigger process
/// its file-system attributes (root, working directory, umask) become its own too.
pub fn unshare(kinds: Namespaces) -> io::Result<()> {
    crate::raw::unshare(kinds.bits())
}

/// Runs `f` on a thread of its own that ends afterwards, so that it may change its namespaces and
/// identity without touching the rest of the process. A panic in `f` becomes an error.
pub fn in_thread<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("berth-ns".to_owned())
            .spawn_scoped(scope, f)?
            .join()
            .map_err(|_| io::Error::other("a namespace thread panicked"))
    })
}

/// A new network namespace with nothing in it but its loopback device, down.
pub fn new_netns() -> io::Result<OwnedFd> {
    in_thread(|| {
        unshare(Namespaces::NET)?;
        open_own(NsKind::Net)
    })?
}

/// A mount namespace that holds an empty read-only tmpfs, and in it a clean `/proc` and `/sys`: the
/// kernel lets a container in a user namespace mount its own only where an unmasked one is visible.
///
/// A process that enters it has nothing of the host's tree.
pub fn empty_mount_ns() -> io::Result<OwnedFd> {
    // Taken before the thread's own view of /proc changes.
    ProcHandle::shared()?;
    in_thread(|| {
        unshare(Namespaces::MNT)?;
        make_private_recursive()?;
        let quiet = MountAttr::NOSUID | MountAttr::NODEV | MountAttr::NOEXEC;
        let root = new_fs(
            "tmpfs",
            &[("mode", "755"), ("size", "4k")],
            &[],
            MountAttr::NOSUID,
        )?;
        attach(root.as_fd(), crate::path::open_root("/")?.as_fd())?;
        for (name, fstype) in [("proc", "proc"), ("sys", "sysfs")] {
            rustix::fs::mkdirat(&root, name, rustix::fs::Mode::from_raw_mode(0o555))?;
            let target =
                crate::path::open_beneath(&root, name, OFlags::PATH | OFlags::DIRECTORY, 0)?;
            attach(new_fs(fstype, &[], &[], quiet)?.as_fd(), target.as_fd())?;
        }
        set_attr(
            &root,
            false,
            MountAttr::RDONLY | quiet,
            MountAttr::NONE,
            None,
        )?;
        pivot_root_into(root.as_fd())?;
        open_own(NsKind::Mnt)
    })?
}

/// Opens a namespace of the calling thread.
pub fn open_own(kind: NsKind) -> io::Result<OwnedFd> {
    let proc = ProcHandle::shared()?;
    let path = format!("{}/task/{}/ns", std::process::id(), tid());
    let dir = proc.open_file(&path, OFlags::PATH | OFlags::DIRECTORY)?;
    Ok(rustix::fs::openat(
        &dir,
        kind.file_name(),
        OFlags::RDONLY | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?)
}

/// Device and inode: two descriptors stand for one namespace when these are equal.
pub fn identity(ns: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(ns)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The number of the calling thread.
pub fn tid() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs()
}

/// Names the host of the calling thread's uts namespace.
pub fn set_hostname(name: &[u8]) -> io::Result<()> {
    Ok(rustix::system::sethostname(name)?)
}

/// Names the NIS domain of the calling thread's uts namespace.
pub fn set_domainname(name: &[u8]) -> io::Result<()> {
    Ok(rustix::system::setdomainname(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            eprintln!("not root: nothing tested");
        }
        root
    }

    #[test]
    fn threads_give_results_and_contain_panics() {
        assert_eq!(in_thread(|| 7).unwrap(), 7);
        assert!(in_thread(|| panic!("on purpose")).is_err());
    }

    #[test]
    fn own_namespaces_are_found() {
        let own = identity(open_own(NsKind::Net).unwrap()).unwrap();
        assert_eq!(
            identity(open_ns(std::process::id(), NsKind::Net).unwrap()).unwrap(),
            own
        );
        let pidfd = crate::pidfd::open(std::process::id()).unwrap();
        assert_eq!(
            identity(open_ns_of(&pidfd, NsKind::Net).unwrap()).unwrap(),
            own
        );
    }

    #[test]
    fn a_new_network_namespace_is_another() {
        if !root() {
            return;
        }
        let own = identity(open_own(NsKind::Net).unwrap()).unwrap();
        let new = new_netns().unwrap();
        assert_ne!(identity(&new).unwrap(), own);
        let inside = in_thread(|| {
            setns(&new, NsKind::Net).unwrap();
            identity(open_own(NsKind::Net).unwrap()).unwrap()
        });
        assert_eq!(inside.unwrap(), identity(&new).unwrap());
        assert_eq!(identity(open_own(NsKind::Net).unwrap()).unwrap(), own);
        // A descriptor of another kind is refused.
        assert!(in_thread(|| setns(&new, NsKind::Uts)).unwrap().is_err());
    }

    #[test]
    fn the_empty_mount_namespace_holds_proc_and_sys_only() {
        if !root() {
            return;
        }
        let ns = empty_mount_ns().unwrap();
        in_thread(|| {
            unshare(Namespaces::MNT).unwrap();
            setns(&ns, NsKind::Mnt).unwrap();
            let mut names: Vec<_> = std::fs::read_dir("/")
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            assert_eq!(names, ["proc", "sys"]);
            assert!(std::fs::write("/x", "").is_err());
            assert!(
                std::fs::read_to_string("/proc/thread-self/mountinfo")
                    .unwrap()
                    .lines()
                    .count()
                    == 3
            );
            assert!(std::fs::exists("/sys/kernel").unwrap());
        })
        .unwrap();
    }

    #[test]
    fn names_are_of_the_namespace() {
        if !root() {
            return;
        }
        in_thread(|| {
            unshare(Namespaces::UTS).unwrap();
            set_hostname(b"inside").unwrap();
            set_domainname(b"domain").unwrap();
            assert_eq!(rustix::system::uname().nodename().to_bytes(), b"inside");
        })
        .unwrap();
        assert_ne!(rustix::system::uname().nodename().to_bytes(), b"inside");
    }
}
