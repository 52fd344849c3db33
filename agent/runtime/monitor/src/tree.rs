//! The container's tree: mounts, nodes, links and directories, each at a place found by descriptor.
//!
//! Runs before pivot_root, with the container's root attached over the old one. No path of the
//! container is ever resolved but by openat2 below the root's descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_runtime::plan::{
    Create, FdTable, Mount, MountSource, Node, NodeKind, Propagation, TargetKind,
};
use berth_runtime::protocol::Stage;
use berth_sys::mount::{self, MountAttr};
use berth_sys::path::{self, OFlags};
use berth_sys::tty;
use rustix::fs::{AtFlags, FileType, Mode, StatxAttributes, StatxFlags};

use crate::fail::{At, Outcome, fail};

const PROC_MAGIC: u32 = 0x9fa0;
const SYSFS_MAGIC: u32 = 0x6265_6572;
const DEVPTS_MAGIC: u32 = 0x1cd1;

/// A terminal in the container's devpts.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// The tree under construction.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    fds: FdTable<OwnedFd>,
    terminal: Option<Terminal>,
}

impl Tree {
    pub(crate) fn new(root: OwnedFd, fds: FdTable<OwnedFd>) -> Tree {
        Tree {
            root,
            fds,
            terminal: None,
        }
    }

    /// The root and the terminal; all other descriptors of the plan are closed.
    pub(crate) fn finish(self) -> (OwnedFd, Option<Terminal>) {
        (self.root, self.terminal)
    }

    pub(crate) fn mount(&mut self, mount: &Mount) -> Outcome<()> {
        let what = || {
            format!(
                "mounting {} on {}",
                source_name(&mount.source),
                mount.target
            )
        };
        let (tree, target) = if mount.mode_of_target {
            let target = self.target(mount, None)?;
            let mode = rustix::fs::fstat(&target).at(Stage::Mount, what)?.st_mode & 0o7777;
            (self.source(mount, Some(mode))?, target)
        } else {
            let tree = self.source(mount, None)?;
            let target = self.target(mount, Some(&tree))?;
            (tree, target)
        };
        mount::attach(tree.as_fd(), target.as_fd()).at(Stage::Mount, what)?;
        // The directory may have been moved while it was looked up: then it is somewhere else now.
        let place = path::fd_path(&tree).at(Stage::Mount, what)?;
        if !place.is_absolute() {
            return Err(fail(
                Stage::Mount,
                format!("{}: the mount point moved away", what()),
            ));
        }
        Ok(())
    }

    /// The detached mount with its attributes and propagation set; a new file system whose options
    /// name no mode takes `mode` for its root.
    fn source(&mut self, mount: &Mount, mode: Option<u32>) -> Outcome<OwnedFd> {
        let what = || {
            format!(
                "preparing {} for {}",
                source_name(&mount.source),
                mount.target
            )
        };
        let attrs = attributes(mount.attrs.0)?;
        let clear = attributes(mount.clear.0)?;
        let (tree, set) = match &mount.source {
            MountSource::Fd(role) => {
                let tree = self.fds.take(*role);
                let tree = tree.ok_or_else(|| fail(Stage::Mount, "a mount has no descriptor"))?;
                (tree, attrs)
            }
            MountSource::New {
                fstype,
                options,
                flags,
            } => {
                let mut options: Vec<_> = options
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str()))
                    .collect();
                let mode = mode.map(|mode| format!("{mode:o}"));
                if let Some(mode) = &mode
                    && options.iter().all(|(key, _)| *key != "mode")
                {
                    options.push(("mode", mode));
                }
                let flags: Vec<_> = flags.iter().map(String::as_str).collect();
                let tree = mount::new_fs(fstype, &options, &flags, attrs).at(Stage::Mount, what)?;
                (tree, MountAttr::NONE)
            }
        };
        if !set.is_empty() || !clear.is_empty() {
            mount::set_attr(&tree, mount.recursive, set, clear, None).at(Stage::Mount, what)?;
        }
        let propagation = match mount.propagation {
            Propagation::Private => mount::Propagation::Private,
            Propagation::Slave => mount::Propagation::Slave,
            Propagation::Shared => mount::Propagation::Shared,
            Propagation::Unbindable => mount::Propagation::Unbindable,
        };
        mount::set_attr(
            &tree,
            mount.propagation_recursive,
            MountAttr::NONE,
            MountAttr::NONE,
            Some(propagation),
        )
        .at(Stage::Mount, what)?;
        Ok(tree)
    }

    fn target(&self, mount: &Mount, source: Option<&OwnedFd>) -> Outcome<OwnedFd> {
        let what = || format!("opening the mount point {}", mount.target);
        let create = match (mount.create, source) {
            (Create::LikeSource, Some(source))
                if !path::is_dir(source).at(Stage::Mount, what)? =>
            {
                Create::File
            }
            (Create::LikeSource, _) => Create::Directory,
            (other, _) => other,
        };
        match mount.kind {
            TargetKind::Own | TargetKind::RequestProc => {
                self.own(&mount.target, create).at(Stage::Mount, what)
            }
            TargetKind::OwnFile => self.named(&mount.target, create).at(Stage::Mount, what),
            TargetKind::Request => {
                let target = self.named(&mount.target, create).at(Stage::Mount, what)?;
                self.refuse_kernel_places(&mount.target, &target)?;
                Ok(target)
            }
        }
    }

    /// A place of our own: every part of its path must be real.
    fn own(&self, target: &str, create: Create) -> std::io::Result<OwnedFd> {
        let relative = relative(target);
        let found = path::open_beneath(&self.root, relative, OFlags::PATH | OFlags::NOFOLLOW, 0);
        match (found, create) {
            (Err(error), Create::Directory) if error.kind() == std::io::ErrorKind::NotFound => {
                self.own_dir(relative)
            }
            (Err(error), Create::File) if error.kind() == std::io::ErrorKind::NotFound => {
                let (dir, name) = self.own_parent(target)?;
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
                drop(path::open_beneath(&dir, &name, flags, 0o644)?);
                path::open_beneath(&dir, &name, OFlags::PATH | OFlags::NOFOLLOW, 0)
            }
            (found, _) => found,
        }
    }

    /// Makes what is missing of a directory's path, without following a link anywhere.
    fn own_dir(&self, relative: &str) -> std::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut dir = path::open_beneath(&self.root, ".", flags, 0)?;
        for part in relative
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
        {
            dir = match path::open_beneath(&dir, part, flags, 0) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o755))?;
                    path::open_beneath(&dir, part, flags, 0)?
                }
                other => other?,
            };
        }
        Ok(dir)
    }

    /// The directory of a place of our own, made if missing, and the last part of the path.
    fn own_parent(&self, target: &str) -> std::io::Result<(OwnedFd, String)> {
        let relative = relative(target);
        let (parent, name) = relative.rsplit_once('/').unwrap_or((".", relative));
        if name.is_empty() || name == "." || name == ".." {
            return Err(rustix::io::Errno::INVAL.into());
        }
        Ok((self.own_dir(parent)?, name.to_owned()))
    }

    /// A place that somebody named: links are followed inside the root.
    fn named(&self, target: &str, create: Create) -> std::io::Result<OwnedFd> {
        match create {
            Create::Directory => path::mkdir_all_in_root(&self.root, target, 0o755),
            Create::File => path::create_file_in_root(&self.root, target, 0o644),
            Create::Nothing | Create::LikeSource => {
                path::open_in_root(&self.root, target, OFlags::PATH, 0)
            }
        }
    }

    /// After resolution, whatever the path was called: not the root, nothing in /proc, not /sys.
    fn refuse_kernel_places(&self, name: &str, target: &OwnedFd) -> Outcome<()> {
        let what = || format!("checking the mount point {name}");
        let root = rustix::fs::fstat(&self.root).at(Stage::Mount, what)?;
        let stat = rustix::fs::fstat(target).at(Stage::Mount, what)?;
        if (root.st_dev, root.st_ino) == (stat.st_dev, stat.st_ino) {
            return Err(fail(
                Stage::Mount,
                format!("invalid mount: {name} is the container's root"),
            ));
        }
        let magic = path::fs_magic(target).at(Stage::Mount, what)?;
        let covers_sys = magic == SYSFS_MAGIC && is_mount_root(target).at(Stage::Mount, what)?;
        if magic == PROC_MAGIC || covers_sys {
            let place = if covers_sys { "/sys" } else { "/proc" };
            return Err(fail(
                Stage::Mount,
                format!("invalid mount: {name} would cover {place}"),
            ));
        }
        Ok(())
    }

    pub(crate) fn node(&mut self, node: &Node) -> Outcome<()> {
        let what = || format!("making device {}", node.path);
        let (dir, name) = self.own_parent(&node.path).at(Stage::Device, what)?;
        let kind = match node.kind {
            NodeKind::Char => FileType::CharacterDevice,
            NodeKind::Block => FileType::BlockDevice,
            NodeKind::Fifo => FileType::Fifo,
        };
        let mode = Mode::from_raw_mode(node.mode & 0o7777);
        let device = rustix::fs::makedev(node.major, node.minor);
        rustix::fs::mknodat(&dir, &name, kind, mode, device).at(Stage::Device, what)?;
        if (node.uid, node.gid) != (0, 0) {
            rustix::fs::chownat(
                &dir,
                &name,
                Some(rustix::fs::Uid::from_raw(node.uid)),
                Some(rustix::fs::Gid::from_raw(node.gid)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .at(Stage::Device, what)?;
        }
        Ok(())
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> Outcome<()> {
        let what = || format!("linking {path} to {target}");
        let (dir, name) = self.own_parent(path).at(Stage::Device, what)?;
        rustix::fs::symlinkat(target, &dir, &name).at(Stage::Device, what)
    }

    pub(crate) fn make_dir(&mut self, path: &str, mode: u32) -> Outcome<()> {
        path::mkdir_all_in_root(&self.root, path, mode)
            .map(drop)
            .at(Stage::WorkingDirectory, || {
                format!("making directory {path}")
            })
    }

    /// Opens the terminal and puts its slave on /dev/console.
    pub(crate) fn console(&mut self, (rows, columns): (u16, u16)) -> Outcome<()> {
        let what = || "making the terminal".to_owned();
        let devpts = self
            .own("/dev/pts", Create::Nothing)
            .at(Stage::Terminal, what)?;
        if path::fs_magic(&devpts).at(Stage::Terminal, what)? != DEVPTS_MAGIC {
            return Err(fail(Stage::Terminal, "/dev/pts is not a devpts"));
        }
        let (master, slave) = tty::open_pty_in(&devpts).at(Stage::Terminal, what)?;
        if (rows, columns) != (0, 0) {
            tty::set_winsize(&master, rows, columns).at(Stage::Terminal, what)?;
        }
        let number = tty::pty_number(&slave).at(Stage::Terminal, what)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let node = path::open_beneath_one_mount(&devpts, number.to_string(), flags, 0)
            .at(Stage::Terminal, what)?;
        let same = |fd: &OwnedFd| {
            rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino, stat.st_rdev))
        };
        if same(&node).at(Stage::Terminal, what)? != same(&slave).at(Stage::Terminal, what)? {
            return Err(fail(Stage::Terminal, "the terminal's node is another's"));
        }
        let what = || "putting the terminal on /dev/console".to_owned();
        let tree = mount::clone_tree(&node, false).at(Stage::Terminal, what)?;
        let target = self
            .own("/dev/console", Create::File)
            .at(Stage::Terminal, what)?;
        mount::attach(tree.as_fd(), target.as_fd()).at(Stage::Terminal, what)?;
        self.terminal = Some(Terminal { master, slave });
        Ok(())
    }
}

fn is_mount_root(fd: &OwnedFd) -> std::io::Result<bool> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn attributes(bits: u64) -> Outcome<MountAttr> {
    u32::try_from(bits)
        .ok()
        .and_then(MountAttr::from_bits)
        .ok_or_else(|| fail(Stage::Mount, "the plan has an unknown mount attribute"))
}

/// A path of the plan for a lookup beneath the root.
fn relative(target: &str) -> &str {
    let relative = target.trim_start_matches('/');
    if relative.is_empty() { "." } else { relative }
}

fn source_name(source: &MountSource) -> String {
    match source {
        MountSource::Fd(role) => format!("{role:?}").to_lowercase(),
        MountSource::New { fstype, .. } => fstype.clone(),
    }
}

/// Whether a path of a plan lies in a place of the kernel's.
pub(crate) fn in_kernel_place(target: &str) -> Option<(&'static str, u32)> {
    let target = Path::new(target);
    [("/proc", PROC_MAGIC), ("/sys", SYSFS_MAGIC)]
        .into_iter()
        .find(|(place, _)| target.starts_with(place))
}
