//! What a process may do: capabilities, ids, and the switches of prctl(2) around them.
//!
//! All of it concerns the calling thread only.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::ops::{BitAnd, BitOr, Not};

use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The names of the capabilities, without `CAP_`, by number (capabilities(7), Linux 6.18).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities; bit n is capability number n.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CapSet(pub u64);

impl CapSet {
    pub const EMPTY: CapSet = CapSet(0);
    /// Every capability that has a name here.
    pub const NAMED: CapSet = CapSet((1 << NAMES.len()) - 1);

    /// The set with one capability by number; empty beyond 63.
    pub fn of(number: u32) -> CapSet {
        CapSet(1_u64.checked_shl(number).unwrap_or(0))
    }

    /// One capability by name: with or without `CAP_`, in any case. `ALL` is no capability.
    pub fn parse(name: &str) -> Option<CapSet> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = NAMES.iter().position(|known| *known == bare)?;
        Some(CapSet(1 << number))
    }

    pub fn contains(self, other: CapSet) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The numbers in the set, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |number| self.0 >> number & 1 == 1)
    }

    /// Names without `CAP_`, ascending; a capability without a name as its number.
    pub fn names(self) -> Vec<String> {
        self.numbers()
            .map(|number| {
                NAMES
                    .get(number as usize)
                    .map_or_else(|| number.to_string(), |name| (*name).to_owned())
            })
            .collect()
    }
}

impl BitOr for CapSet {
    type Output = CapSet;
    fn bitor(self, other: CapSet) -> CapSet {
        CapSet(self.0 | other.0)
    }
}

impl BitAnd for CapSet {
    type Output = CapSet;
    fn bitand(self, other: CapSet) -> CapSet {
        CapSet(self.0 & other.0)
    }
}

impl Not for CapSet {
    type Output = CapSet;
    fn not(self) -> CapSet {
        CapSet(!self.0)
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapSet({:016x})", self.0)
    }
}

/// The five sets of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caps {
    pub effective: CapSet,
    pub permitted: CapSet,
    pub inheritable: CapSet,
    pub bounding: CapSet,
    pub ambient: CapSet,
}

/// The capabilities that this kernel knows.
pub fn known_caps() -> CapSet {
    let known = (0..u64::BITS).take_while(|cap| crate::raw::read_bounding(*cap).is_ok());
    known.fold(CapSet::EMPTY, |set, cap| set | CapSet::of(cap))
}

/// The calling thread's bounding set: no process started from here can have more.
pub fn bounding() -> CapSet {
    let held =
        (0..u64::BITS).map_while(|cap| crate::raw::read_bounding(cap).ok().map(|held| (cap, held)));
    held.filter(|(_, held)| *held)
        .fold(CapSet::EMPTY, |set, (cap, _)| set | CapSet::of(cap))
}

/// Reads the five sets.
pub fn read_caps() -> io::Result<Caps> {
    let sets = rustix::thread::capabilities(None)?;
    let mut ambient = CapSet::EMPTY;
    for cap in known_caps().numbers() {
        if crate::raw::ambient(libc::PR_CAP_AMBIENT_IS_SET, cap)? {
            ambient = ambient | CapSet::of(cap);
        }
    }
    Ok(Caps {
        effective: CapSet(sets.effective.bits()),
        permitted: CapSet(sets.permitted.bits()),
        inheritable: CapSet(sets.inheritable.bits()),
        bounding: bounding(),
        ambient,
    })
}

/// Takes everything that is not in `keep` out of the bounding set. Needs SETPCAP; do it before
/// the ids change.
pub fn drop_bounding(keep: CapSet) -> io::Result<()> {
    for cap in (known_caps() & !keep).numbers() {
        // Dropping what is not there costs a call and succeeds; asking first would cost one too.
        crate::raw::drop_bounding(cap)?;
    }
    Ok(())
}

/// Sets effective, permitted and inheritable, and makes the ambient set exactly `caps.ambient`.
/// The bounding set is not touched: see [`drop_bounding`].
///
/// An ambient capability must be permitted and inheritable as well, or the kernel answers EPERM.
pub fn set_caps(caps: &Caps) -> io::Result<()> {
    crate::raw::ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::from_bits_retain(caps.effective.0),
            permitted: CapabilitySet::from_bits_retain(caps.permitted.0),
            inheritable: CapabilitySet::from_bits_retain(caps.inheritable.0),
        },
    )?;
    for cap in caps.ambient.numbers() {
        crate::raw::ambient(libc::PR_CAP_AMBIENT_RAISE, cap)?;
    }
    Ok(())
}

/// Replaces the supplementary groups.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    crate::raw::setgroups(groups)
}

/// Sets real, effective and saved ids, the group first.
///
/// A change from uid 0 to another empties the permitted set unless [`keepcaps`] is on, and the
/// effective set in any case. It also clears the dumpable switch and the parent-death signal.
pub fn set_uid_gid(uid: u32, gid: u32) -> io::Result<()> {
    crate::raw::setresgid(gid)?;
    crate::raw::setresuid(uid)
}

/// From here on no execve gains privileges; cannot be taken back.
pub fn no_new_privs() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Whether the permitted set outlives a change of ids away from 0.
pub fn keepcaps(on: bool) -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(on)?)
}

/// Whether others with the same ids may trace the process and open its `/proc` files. An execve
/// switches it on again.
pub fn dumpable(on: bool) -> io::Result<()> {
    let behaviour = if on {
        DumpableBehavior::Dumpable
    } else {
        DumpableBehavior::NotDumpable
    };
    Ok(rustix::process::set_dumpable_behavior(behaviour)?)
}

/// Sets which mode bits files of this process never get at their creation (umask(2)); gives back what was.
pub fn umask(mask: u32) -> u32 {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask)).as_raw_mode()
}

/// Which signal the calling thread gets when its parent ends; `None` = none. Check afterwards that
/// the parent has not ended already.
pub fn pdeathsig(signal: Option<i32>) -> io::Result<()> {
    let signal = match signal {
        Some(number) => Some(
            rustix::process::Signal::from_named_raw(number)
                .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?,
        ),
        None => None,
    };
    Ok(rustix::process::set_parent_process_death_signal(signal)?)
}

/// Orphans of this process's descendants become its own children.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}

/// How the process is called in `ps` and `/proc/PID/comm`; cut at 15 bytes.
pub fn set_name(name: &str) -> io::Result<()> {
    Ok(rustix::thread::set_name(&CString::new(name)?)?)
}

/// Joins a new session keyring that nobody else holds, so that keys of whoever started this process
/// are out of reach, and lets only its own user search it.
///
/// Returns false where the kernel has no keyrings: then there is nothing to be out of reach.
pub fn join_session_keyring(name: &str) -> io::Result<bool> {
    /// Possessor: all; user: view, read, search; group and others: nothing (keyctl_setperm(3)).
    const PERMISSIONS: u32 = 0x3f0b_0000;
    let serial = match crate::raw::keyctl_join_session(&CString::new(name)?) {
        Ok(serial) => serial,
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return Ok(false),
        Err(error) => return Err(error),
    };
    crate::raw::keyctl_setperm(serial, PERMISSIONS)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_spelling() {
        for name in ["NET_ADMIN", "cap_net_admin", "CAP_NET_ADMIN", "Net_Admin"] {
            assert_eq!(CapSet::parse(name), Some(CapSet::of(12)), "{name}");
        }
        for name in ["", "ALL", "CAP_", "CAP_CAP_CHOWN", "NET-ADMIN", " CHOWN"] {
            assert_eq!(CapSet::parse(name), None, "{name}");
        }
        assert_eq!(CapSet::parse("CHECKPOINT_RESTORE"), Some(CapSet::of(40)));
    }

    #[test]
    fn sets_list_their_members() {
        let set = CapSet(0xa804_25fb);
        assert_eq!(set.numbers().count(), 14);
        assert_eq!(set.names()[0], "CHOWN");
        assert_eq!(set.names()[13], "SETFCAP");
        assert_eq!(CapSet::of(63).names(), ["63"]);
        assert_eq!(CapSet::of(64), CapSet::EMPTY);
        assert!(CapSet::NAMED.contains(set) && !set.contains(CapSet::NAMED));
    }

    #[test]
    fn the_kernel_answers() {
        assert!(known_caps().contains(CapSet(0x1f_ffff_ffff)));
        let caps = read_caps().unwrap();
        assert!(caps.permitted.contains(caps.effective));
        assert!(known_caps().contains(caps.bounding));
    }

    #[test]
    fn capabilities_of_a_thread_shrink() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: nothing tested");
            return;
        }
        let keep = CapSet(0xa804_25fb);
        // Capabilities are per thread, so the rest of the test process keeps its own.
        let caps = crate::ns::in_thread(|| {
            drop_bounding(keep).unwrap();
            set_caps(&Caps {
                effective: keep,
                permitted: keep,
                ..Caps::default()
            })
            .unwrap();
            read_caps().unwrap()
        })
        .unwrap();
        let expected = Caps {
            effective: keep,
            permitted: keep,
            bounding: keep,
            ..Caps::default()
        };
        assert_eq!(caps, expected);
    }

    #[test]
    fn ids_change_and_capabilities_go() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: nothing tested");
            return;
        }
        let (caps, uid, groups) = crate::ns::in_thread(|| {
            join_session_keyring("test").unwrap();
            set_groups(&[7, 8]).unwrap();
            set_uid_gid(1000, 1001).unwrap();
            no_new_privs().unwrap();
            let groups = rustix::process::getgroups().unwrap();
            (
                read_caps().unwrap(),
                rustix::process::getuid().as_raw(),
                groups.len(),
            )
        })
        .unwrap();
        assert!(caps.permitted.is_empty() && caps.effective.is_empty());
        assert_eq!((uid, groups), (1000, 2));
    }
}
