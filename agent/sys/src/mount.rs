//! Mounts by descriptor: file systems and trees are made detached, changed while nobody sees them,
//! and put at a place that is itself a descriptor.

use std::io;
use std::ops::BitOr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use crate::raw::MountAttrArgs;

/// The longest string that fsconfig(2) takes as a value, without its end.
const FSCONFIG_MAX: usize = 255;

/// Flags of one mount (not of the file system behind it).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountAttr(u32);

impl MountAttr {
    pub const NONE: MountAttr = MountAttr(0);
    pub const RDONLY: MountAttr = MountAttr(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    pub const NOSUID: MountAttr = MountAttr(MountAttrFlags::MOUNT_ATTR_NOSUID.bits());
    pub const NODEV: MountAttr = MountAttr(MountAttrFlags::MOUNT_ATTR_NODEV.bits());
    pub const NOEXEC: MountAttr = MountAttr(MountAttrFlags::MOUNT_ATTR_NOEXEC.bits());
    pub const NOATIME: MountAttr = MountAttr(MountAttrFlags::MOUNT_ATTR_NOATIME.bits());
    pub const STRICTATIME: MountAttr = MountAttr(MountAttrFlags::MOUNT_ATTR_STRICTATIME.bits());
    pub const NODIRATIME: MountAttr = MountAttr(MountAttrFlags::MOUNT_ATTR_NODIRATIME.bits());
    pub const NOSYMFOLLOW: MountAttr = MountAttr(MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW.bits());

    const ATIME_FIELD: u32 = MountAttrFlags::MOUNT_ATTR__ATIME.bits();
    const ALL: u32 = Self::RDONLY.0
        | Self::NOSUID.0
        | Self::NODEV.0
        | Self::NOEXEC.0
        | Self::NOATIME.0
        | Self::STRICTATIME.0
        | Self::NODIRATIME.0
        | Self::NOSYMFOLLOW.0;

    pub fn bits(self) -> u32 {
        self.0
    }

    /// Unknown bits are dropped: `None`.
    pub fn from_bits(bits: u32) -> Option<MountAttr> {
        (bits & !Self::ALL == 0).then_some(MountAttr(bits))
    }

    pub fn contains(self, other: MountAttr) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for MountAttr {
    type Output = MountAttr;
    fn bitor(self, other: MountAttr) -> MountAttr {
        MountAttr(self.0 | other.0)
    }
}

/// How mounts made below a mount spread to its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Slave,
    Shared,
    Unbindable,
}

impl Propagation {
    fn flags(self) -> MountPropagationFlags {
        match self {
            Propagation::Private => MountPropagationFlags::PRIVATE,
            Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
            Propagation::Shared => MountPropagationFlags::SHARED,
            Propagation::Unbindable => MountPropagationFlags::UNBINDABLE,
        }
    }
}

/// What an overlay can be asked beyond its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OverlayOptions {
    /// No writeback at all: after a crash of the host the upper directory is worthless, and the
    /// kernel refuses it until `work/incompat/volatile` is deleted.
    pub volatile: bool,
    /// Marks in `user.` instead of `trusted.` attributes (user namespaces).
    pub userxattr: bool,
    /// Copy up metadata without contents.
    pub metacopy: bool,
}

/// Makes a new file system and gives its detached mount.
///
/// `options` are key and value, `flags_only` keys without one, both as mount(8) writes them for
/// that file system.
pub fn new_fs(
    fstype: &str,
    options: &[(&str, &str)],
    flags_only: &[&str],
    attrs: MountAttr,
) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&fs, *key, *value)?;
    }
    for key in flags_only {
        rustix::mount::fsconfig_set_flag(&fs, *key)?;
    }
    rustix::mount::fsconfig_create(&fs)?;
    Ok(rustix::mount::fsmount(
        &fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attr_flags(attrs),
    )?)
}

/// Mounts layers over each other and gives the detached mount.
///
/// `lowers` has the topmost layer first and is never empty; without `upper_work` the result is
/// read-only. Layers are named one by one where the kernel can (6.7); an older kernel takes them
/// through mount(2) in a mount namespace that lives for this call only.
pub fn overlay(
    lowers: &[PathBuf],
    upper_work: Option<(&Path, &Path)>,
    options: &OverlayOptions,
) -> io::Result<OwnedFd> {
    if lowers.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "an overlay without a lower layer",
        ));
    }
    match overlay_by_fsopen(lowers, upper_work, options) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !knows_lowerdir_add() => {
            overlay_by_mount(lowers, upper_work, options)
        }
        other => other,
    }
}

fn overlay_flags(options: &OverlayOptions) -> Vec<(&'static str, Option<&'static str>)> {
    let mut flags = Vec::new();
    if options.volatile {
        flags.push(("volatile", None));
    }
    if options.userxattr {
        flags.push(("userxattr", None));
    }
    if options.metacopy {
        flags.push(("metacopy", Some("on")));
    }
    flags
}

fn overlay_by_fsopen(
    lowers: &[PathBuf],
    upper_work: Option<(&Path, &Path)>,
    options: &OverlayOptions,
) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Descriptors whose /proc/self/fd path stands in for an unfit one live until the mount is made.
    let mut held = Vec::new();
    for lower in lowers {
        set_dir(&fs, "lowerdir+", lower, &mut held)?;
    }
    if let Some((upper, work)) = upper_work {
        set_dir(&fs, "upperdir", upper, &mut held)?;
        set_dir(&fs, "workdir", work, &mut held)?;
    }
    for (key, value) in overlay_flags(options) {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(&fs, key, value)?,
            None => rustix::mount::fsconfig_set_flag(&fs, key)?,
        }
    }
    rustix::mount::fsconfig_create(&fs)?;
    let attrs = if upper_work.is_none() {
        MountAttr::RDONLY
    } else {
        MountAttr::NONE
    };
    Ok(rustix::mount::fsmount(
        &fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attr_flags(attrs),
    )?)
}

/// Names a directory to overlay: by its path, or through a descriptor when the path is too long
/// for fsconfig(2) or holds a character that overlay's option parser gives a meaning.
fn set_dir(fs: &OwnedFd, key: &str, path: &Path, held: &mut Vec<OwnedFd>) -> io::Result<()> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let plain = bytes.len() <= FSCONFIG_MAX && !bytes.iter().any(|byte| b"\\:,".contains(byte));
    if plain {
        return Ok(rustix::mount::fsconfig_set_string(fs, key, path)?);
    }
    let dir = crate::path::open_root(path)?;
    let name = format!("/proc/self/fd/{}", crate::fd::number(&dir));
    held.push(dir);
    Ok(rustix::mount::fsconfig_set_string(fs, key, name)?)
}

/// Whether this kernel's overlay takes layers one by one; asked once.
pub fn knows_lowerdir_add() -> bool {
    static KNOWN: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *KNOWN.get_or_init(|| {
        let Ok(fs) = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) else {
            return false;
        };
        rustix::mount::fsconfig_set_string(&fs, "lowerdir+", "/").is_ok()
    })
}

fn overlay_by_mount(
    lowers: &[PathBuf],
    upper_work: Option<(&Path, &Path)>,
    options: &OverlayOptions,
) -> io::Result<OwnedFd> {
    crate::ns::in_thread(|| {
        crate::ns::unshare(crate::ns::Namespaces::MNT)?;
        make_private_recursive()?;
        // mount(2) takes one page of options, so every directory goes by a short name.
        let mut held = Vec::new();
        let mut short = |path: &Path| -> io::Result<String> {
            let dir = crate::path::open_root(path)?;
            let name = format!("/proc/thread-self/fd/{}", crate::fd::number(&dir));
            held.push(dir);
            Ok(name)
        };
        let names = lowers
            .iter()
            .map(|lower| short(lower))
            .collect::<io::Result<Vec<_>>>()?;
        let mut data = format!("lowerdir={}", names.join(":"));
        if let Some((upper, work)) = upper_work {
            data.push_str(&format!(
                ",upperdir={},workdir={}",
                short(upper)?,
                short(work)?
            ));
        }
        for (key, value) in overlay_flags(options) {
            data.push(',');
            data.push_str(key);
            if let Some(value) = value {
                data.push('=');
                data.push_str(value);
            }
        }
        let flags = if upper_work.is_none() {
            MountFlags::RDONLY
        } else {
            MountFlags::empty()
        };
        let data = std::ffi::CString::new(data)?;
        // Over its own topmost layer: a directory that exists, in a namespace that nobody shares.
        rustix::mount::mount(
            "overlay",
            &lowers[0],
            "overlay",
            flags,
            Some(data.as_c_str()),
        )?;
        clone_tree(crate::path::open_root(&lowers[0])?, false)
    })?
}

/// A detached copy of the mount at `fd` (with `recursive`, of all below it too): a bind mount that
/// is nowhere yet. EINVAL when the mount belongs to another mount namespace.
pub fn clone_tree(fd: impl AsFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(rustix::mount::open_tree(fd, "", flags)?)
}

/// Changes the flags and propagation of the mount at `fd` (with `recursive`, of all below it).
/// Flags that are neither set nor cleared stay as they are.
pub fn set_attr(
    fd: impl AsFd,
    recursive: bool,
    set: MountAttr,
    clear: MountAttr,
    propagation: Option<Propagation>,
) -> io::Result<()> {
    let mut clear_bits = clear.0;
    if (set.0 | clear.0) & MountAttr::ATIME_FIELD != 0 {
        // The access-time modes are one field: the kernel wants it cleared whole before it is set.
        clear_bits |= MountAttr::ATIME_FIELD;
    }
    let args = MountAttrArgs {
        attr_set: set.0.into(),
        attr_clr: clear_bits.into(),
        propagation: propagation.map_or(0, |value| value.flags().bits().into()),
        userns_fd: 0,
    };
    let flags = if recursive {
        libc::AT_RECURSIVE as libc::c_uint
    } else {
        0
    };
    crate::raw::mount_setattr(fd.as_fd(), flags, &args)
}

/// Maps the ids of a detached mount through a user namespace.
pub fn set_idmap(mount: impl AsFd, user_namespace: impl AsFd, recursive: bool) -> io::Result<()> {
    let bits = u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits());
    let args = MountAttrArgs {
        attr_set: bits,
        userns_fd: u64::try_from(crate::fd::number(user_namespace)).map_err(io::Error::other)?,
        ..MountAttrArgs::default()
    };
    let flags = if recursive {
        libc::AT_RECURSIVE as libc::c_uint
    } else {
        0
    };
    crate::raw::mount_setattr(mount.as_fd(), flags, &args)
}

/// Puts a detached mount at the place that `target` stands for (an `O_PATH` descriptor).
///
/// A descriptor can be attached once; EINVAL the second time.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::mount::move_mount(
        mount,
        "",
        target,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )?)
}

/// Makes an attached mount the root of the calling process's mount namespace and lets go of the
/// old one. The namespace must not propagate to others: [`make_private_recursive`] first.
pub fn pivot_root_into(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    // The old root now lies over the new one at "/"; the working directory is the new one's.
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Nothing mounted in this namespace is seen by others, and nothing of theirs here.
pub fn make_private_recursive() -> io::Result<()> {
    Ok(rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?)
}

/// Nothing mounted in this namespace is seen by others, but theirs still arrives.
pub fn make_slave_recursive() -> io::Result<()> {
    Ok(rustix::mount::mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?)
}

/// Takes a mount away at once from the paths of this namespace; it ends with its last user.
pub fn unmount_detached(path: impl AsRef<Path>) -> io::Result<()> {
    Ok(rustix::mount::unmount(
        path.as_ref(),
        UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
    )?)
}

fn attr_flags(attrs: MountAttr) -> MountAttrFlags {
    MountAttrFlags::from_bits_retain(attrs.0)
}

#[cfg(test)]
mod tests;
