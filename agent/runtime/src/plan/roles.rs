//! Which descriptors come with a plan, and how each is found again on the other side.

use crate::wire::{Reader, Wire, WireError};

/// What a descriptor that comes with a plan is for. [`super::Plan::fds`] lists them in the order in which
/// they are sent: that list is the whole meaning of a descriptor's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FdRole {
    /// The container's root: a detached mount, attached once.
    Root,
    /// Directory of the payload cgroup; init is cloned into it.
    PayloadCgroup,
    /// The file (read-write, empty) that receives the exit record.
    ExitRecord,
    /// The monitor's listening unix stream socket.
    Listener,
    /// O_PATH directory in which `monitor.sock` lies, which the monitor connects to when a container
    /// ends and nobody watches.
    RunRoot,
    /// A mount namespace with nothing in it but a clean proc and sysfs; the monitor enters it first.
    MountNs,
    /// The log file, opened for append.
    Log,
    /// Directory of the log file, for rotation.
    LogDir,
    /// Namespaces to join.
    NetNs,
    PidNs,
    IpcNs,
    UtsNs,
    CgroupNs,
    /// Detached mounts of the single files `hosts`, `hostname`, `resolv.conf`.
    Hosts,
    Hostname,
    ResolvConf,
    /// Detached mount for /dev/shm: another container's or the host's.
    Shm,
    /// Detached mount that is the source of the n-th bind of the request.
    Bind(u16),
    /// A connected socket for the journal (`/run/systemd/journal/socket`).
    Journal,
}

impl Wire for FdRole {
    fn put(&self, out: &mut Vec<u8>) {
        let (kind, index): (u8, u16) = match self {
            Self::Root => (1, 0),
            Self::PayloadCgroup => (2, 0),
            Self::ExitRecord => (3, 0),
            Self::Listener => (4, 0),
            Self::RunRoot => (5, 0),
            Self::MountNs => (6, 0),
            Self::Log => (7, 0),
            Self::LogDir => (8, 0),
            Self::NetNs => (9, 0),
            Self::PidNs => (10, 0),
            Self::IpcNs => (11, 0),
            Self::UtsNs => (12, 0),
            Self::CgroupNs => (13, 0),
            Self::Hosts => (14, 0),
            Self::Hostname => (15, 0),
            Self::ResolvConf => (16, 0),
            Self::Shm => (17, 0),
            Self::Bind(index) => (18, *index),
            Self::Journal => (19, 0),
        };
        kind.put(out);
        index.put(out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let kind = u8::get(input)?;
        let index = u16::get(input)?;
        let role = match kind {
            1 => Self::Root,
            2 => Self::PayloadCgroup,
            3 => Self::ExitRecord,
            4 => Self::Listener,
            5 => Self::RunRoot,
            6 => Self::MountNs,
            7 => Self::Log,
            8 => Self::LogDir,
            9 => Self::NetNs,
            10 => Self::PidNs,
            11 => Self::IpcNs,
            12 => Self::UtsNs,
            13 => Self::CgroupNs,
            14 => Self::Hosts,
            15 => Self::Hostname,
            16 => Self::ResolvConf,
            17 => Self::Shm,
            18 => Self::Bind(index),
            19 => Self::Journal,
            value => {
                return Err(WireError::Unknown {
                    what: "descriptor role",
                    value: value.into(),
                });
            }
        };
        if index != 0 && !matches!(role, Self::Bind(_)) {
            return Err(WireError::Inconsistent("a single descriptor has an index"));
        }
        Ok(role)
    }
}

/// Descriptors (or whatever stands for them) by role: the received side of [`super::Plan::fds`].
#[derive(Debug)]
pub struct FdTable<T> {
    entries: Vec<(FdRole, Option<T>)>,
}

impl<T> FdTable<T> {
    /// Pairs the roles of a plan with what was received for them; both must be equally many.
    pub fn new(roles: &[FdRole], items: Vec<T>) -> Result<Self, WireError> {
        if roles.len() != items.len() {
            return Err(WireError::Inconsistent(
                "the number of descriptors is not the plan's",
            ));
        }
        let entries = roles
            .iter()
            .copied()
            .zip(items.into_iter().map(Some))
            .collect();
        Ok(Self { entries })
    }
    /// Whether this role is present and not yet taken.
    pub fn has(&self, role: FdRole) -> bool {
        self.get(role).is_some()
    }
    /// Looks at the descriptor of a role.
    pub fn get(&self, role: FdRole) -> Option<&T> {
        self.entries
            .iter()
            .find(|(r, _)| *r == role)
            .and_then(|(_, item)| item.as_ref())
    }
    /// Takes the descriptor of a role out: each can be had once.
    pub fn take(&mut self, role: FdRole) -> Option<T> {
        self.entries
            .iter_mut()
            .find(|(r, _)| *r == role)
            .and_then(|(_, item)| item.take())
    }
}
