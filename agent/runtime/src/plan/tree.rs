//! The container's tree as steps: mounts, nodes, links, directories.

use super::FdRole;
use crate::wire::{Reader, Wire, WireError, wire_enum, wire_struct};

/// Attributes of a mount, in the kernel's numbers (`MOUNT_ATTR_*`, mount_setattr(2)).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct MountAttrs(pub u64);

impl MountAttrs {
    pub const NONE: Self = Self(0);
    pub const RDONLY: Self = Self(0x1);
    pub const NOSUID: Self = Self(0x2);
    pub const NODEV: Self = Self(0x4);
    pub const NOEXEC: Self = Self(0x8);
    pub const NOATIME: Self = Self(0x10);
    pub const STRICTATIME: Self = Self(0x20);
    pub const NODIRATIME: Self = Self(0x80);
    pub const NOSYMFOLLOW: Self = Self(0x20_0000);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::RDONLY, "ro"),
        (Self::NOSUID, "nosuid"),
        (Self::NODEV, "nodev"),
        (Self::NOEXEC, "noexec"),
        (Self::NOATIME, "noatime"),
        (Self::STRICTATIME, "strictatime"),
        (Self::NODIRATIME, "nodiratime"),
        (Self::NOSYMFOLLOW, "nosymfollow"),
    ];

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// This set without the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::fmt::Debug for MountAttrs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = Self::NAMES
            .iter()
            .filter(|(bit, _)| self.contains(*bit))
            .map(|(_, name)| *name)
            .collect();
        f.write_str(&names.join(","))
    }
}

impl Wire for MountAttrs {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let bits = u64::get(input)?;
        let known = Self::NAMES.iter().fold(0, |known, (bit, _)| known | bit.0);
        if bits & !known != 0 {
            return Err(WireError::Unknown {
                what: "mount attribute",
                value: bits,
            });
        }
        Ok(Self(bits))
    }
}

/// How mount events travel between this mount and its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    #[default]
    Private,
    Slave,
    Shared,
    Unbindable,
}
wire_enum!(Propagation as u8 { Private = 0, Slave = 1, Shared = 2, Unbindable = 3 });

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// A detached mount that the agent made.
    Fd(FdRole),
    /// A new file system: type, options with values, options without.
    New {
        fstype: String,
        options: Vec<(String, String)>,
        flags: Vec<String>,
    },
}

impl Wire for MountSource {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Fd(role) => {
                0u8.put(out);
                role.put(out);
            }
            Self::New {
                fstype,
                options,
                flags,
            } => {
                1u8.put(out);
                fstype.put(out);
                options.put(out);
                flags.put(out);
            }
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::get(input)? {
            0 => Ok(Self::Fd(FdRole::get(input)?)),
            1 => Ok(Self::New {
                fstype: Wire::get(input)?,
                options: Wire::get(input)?,
                flags: Wire::get(input)?,
            }),
            value => Err(WireError::Unknown {
                what: "mount source",
                value: value.into(),
            }),
        }
    }
}

/// What is made at a mount's target when nothing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Create {
    /// Nothing: a missing target fails the start.
    #[default]
    Nothing,
    Directory,
    File,
    /// Directory or empty file, whichever the source (a descriptor) is.
    LikeSource,
}
wire_enum!(Create as u8 { Nothing = 0, Directory = 1, File = 2, LikeSource = 3 });

/// Whose mount point this is; decides how its path is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetKind {
    /// A mount point of our own: every component must be real (`RESOLVE_NO_SYMLINKS`), otherwise the start fails.
    #[default]
    Own,
    /// Named by the request: links are followed inside the root. After resolution, the root itself,
    /// anything on procfs, and the root of sysfs are refused.
    Request,
    /// Named by the request, one of the few files in /proc that may be covered: resolved as `Own`.
    RequestProc,
    /// One of our files over the image's (hosts, hostname, resolv.conf): resolved like `Request`.
    OwnFile,
}
wire_enum!(TargetKind as u8 { Own = 0, Request = 1, RequestProc = 2, OwnFile = 3 });

/// One mount of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute, cleaned path in the container.
    pub target: String,
    pub kind: TargetKind,
    pub source: MountSource,
    /// Attributes to set.
    pub attrs: MountAttrs,
    /// Attributes to clear first (a bind's source may carry some).
    pub clear: MountAttrs,
    /// Attributes apply to the whole tree below.
    pub recursive: bool,
    pub propagation: Propagation,
    pub propagation_recursive: bool,
    pub create: Create,
    /// A new tmpfs takes the permission bits of the directory that it covers, as with docker; only
    /// where the options name no mode.
    pub mode_of_target: bool,
}
wire_struct!(Mount {
    target,
    kind,
    source,
    attrs,
    clear,
    recursive,
    propagation,
    propagation_recursive,
    create,
    mode_of_target
});

/// Kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    Char,
    Block,
    Fifo,
}
wire_enum!(NodeKind as u8 { Char = 0, Block = 1, Fifo = 2 });

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Absolute path; missing directories are made with mode 0755.
    pub path: String,
    pub kind: NodeKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits, exact (no umask).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}
wire_struct!(Node {
    path,
    kind,
    major,
    minor,
    mode,
    uid,
    gid
});

/// One step in making the container's tree, executed in order before pivot_root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Mount(Mount),
    /// Below our own /dev: resolved without links.
    Node(Node),
    /// A symbolic link at `path`, below our own /dev; resolved without links.
    Symlink {
        path: String,
        target: String,
    },
    /// Opens the terminal in the container's devpts (major 136 checked, TIOCGPTPEER) and binds its
    /// slave on /dev/console. Only in plans with a terminal, once.
    Console,
    /// Makes a directory (and missing parents) inside the root; fine if it is there.
    MakeDir {
        path: String,
        mode: u32,
    },
}

impl Wire for Step {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Mount(mount) => {
                0u8.put(out);
                mount.put(out);
            }
            Self::Node(node) => {
                1u8.put(out);
                node.put(out);
            }
            Self::Symlink { path, target } => {
                2u8.put(out);
                path.put(out);
                target.put(out);
            }
            Self::Console => 3u8.put(out),
            Self::MakeDir { path, mode } => {
                4u8.put(out);
                path.put(out);
                mode.put(out);
            }
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::get(input)? {
            0 => Ok(Self::Mount(Wire::get(input)?)),
            1 => Ok(Self::Node(Wire::get(input)?)),
            2 => Ok(Self::Symlink {
                path: Wire::get(input)?,
                target: Wire::get(input)?,
            }),
            3 => Ok(Self::Console),
            4 => Ok(Self::MakeDir {
                path: Wire::get(input)?,
                mode: Wire::get(input)?,
            }),
            value => Err(WireError::Unknown {
                what: "step",
                value: value.into(),
            }),
        }
    }
}
