//! Read-only and masked paths: the last mounts of a container, after pivot_root.
//!
//! A path that is not there is skipped; anything else that goes wrong fails the start. What covers a
//! file is a null device that was made here, in a tmpfs that the container cannot reach.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_runtime::protocol::Stage;
use berth_sys::mount::{self, MountAttr, Propagation};
use berth_sys::path::{self, OFlags};
use rustix::fs::{FileType, Mode};

use crate::fail::{At, Outcome, fail};
use crate::tree::in_kernel_place;

/// Binds each path on itself, read-only with all below it.
pub(crate) fn read_only(root: &OwnedFd, paths: &[String]) -> Outcome<()> {
    let mut checked = Checked::default();
    for path in paths {
        let what = || format!("making {path} read-only");
        let Some(target) = checked.open(root, path)? else {
            continue;
        };
        let tree = mount::clone_tree(&target, true).at(Stage::Mask, what)?;
        mount::set_attr(
            &tree,
            true,
            MountAttr::RDONLY,
            MountAttr::NONE,
            Some(Propagation::Private),
        )
        .at(Stage::Mask, what)?;
        mount::attach(tree.as_fd(), target.as_fd()).at(Stage::Mask, what)?;
    }
    Ok(())
}

/// Covers each file with the null device and each directory with an empty one.
pub(crate) fn masked(root: &OwnedFd, paths: &[String]) -> Outcome<()> {
    let mut checked = Checked::default();
    let mut covers: Option<Covers> = None;
    let result = paths.iter().try_for_each(|path| {
        let what = || format!("masking {path}");
        let Some(target) = checked.open(root, path)? else {
            return Ok(());
        };
        let covers = match &covers {
            Some(covers) => covers,
            None => covers.insert(Covers::new().at(Stage::Mask, || "making the masks".into())?),
        };
        let directory = path::is_dir(&target).at(Stage::Mask, what)?;
        let cover = covers.cover(directory).at(Stage::Mask, what)?;
        mount::attach(cover.as_fd(), target.as_fd()).at(Stage::Mask, what)
    });
    match covers {
        Some(covers) => result.and(
            covers
                .put_away()
                .at(Stage::Mask, || "leaving the masks".into()),
        ),
        None => result,
    }
}

/// The places of the kernel that were found to be real.
#[derive(Debug, Default)]
struct Checked {
    places: Vec<&'static str>,
}

impl Checked {
    /// Opens a path of the container; `None` when it is not there.
    fn open(&mut self, root: &OwnedFd, path: &str) -> Outcome<Option<OwnedFd>> {
        let what = || format!("opening {path}");
        let found = match in_kernel_place(path) {
            Some((place, magic)) => {
                self.check(root, place, magic)?;
                let flags = OFlags::PATH | OFlags::NOFOLLOW;
                let found = path::open_beneath(root, path.trim_start_matches('/'), flags, 0);
                if let Ok(fd) = &found
                    && path::fs_magic(fd).at(Stage::Mask, what)? != magic
                    && place == "/proc"
                {
                    return Err(fail(Stage::Mask, format!("{path} is not on procfs")));
                }
                found
            }
            // Elsewhere the path is the request's own, and links in it are the image's.
            None => path::open_in_root(root, path, OFlags::PATH, 0),
        };
        match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some).at(Stage::Mask, what),
        }
    }

    /// A missing path means something only below a real procfs or sysfs.
    fn check(&mut self, root: &OwnedFd, place: &'static str, magic: u32) -> Outcome<()> {
        if self.places.contains(&place) {
            return Ok(());
        }
        let what = || format!("checking {place}");
        let fd = path::open_beneath(root, &place[1..], OFlags::PATH | OFlags::NOFOLLOW, 0)
            .at(Stage::Mask, what)?;
        if path::fs_magic(&fd).at(Stage::Mask, what)? != magic {
            return Err(fail(
                Stage::Mask,
                format!("{place} of the container is not the kernel's"),
            ));
        }
        self.places.push(place);
        Ok(())
    }
}

/// A tmpfs with a null device and an empty directory, which lies over the container's root while
/// masks are cloned from it and nowhere afterwards.
#[derive(Debug)]
struct Covers {
    tmpfs: OwnedFd,
    null: OwnedFd,
    empty: OwnedFd,
}

impl Covers {
    fn new() -> io::Result<Covers> {
        let options = [("mode", "755"), ("size", "4k"), ("nr_inodes", "4")];
        let tmpfs = mount::new_fs(
            "tmpfs",
            &options,
            &[],
            MountAttr::NOSUID | MountAttr::NOEXEC,
        )?;
        rustix::fs::mkdirat(&tmpfs, "empty", Mode::from_raw_mode(0o555))?;
        let mode = Mode::from_raw_mode(0o666);
        let device = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(&tmpfs, "null", FileType::CharacterDevice, mode, device)?;
        // Only a mount of this namespace can be cloned. Nothing is resolved by path meanwhile.
        mount::attach(tmpfs.as_fd(), path::open_root("/")?.as_fd())?;
        let null = path::open_beneath(&tmpfs, "null", OFlags::PATH | OFlags::NOFOLLOW, 0)?;
        if path::char_device(&null)? != Some((1, 3)) {
            return Err(io::Error::other("the null device is another"));
        }
        let empty = path::open_beneath(&tmpfs, "empty", OFlags::PATH | OFlags::DIRECTORY, 0)?;
        Ok(Covers { tmpfs, null, empty })
    }

    fn cover(&self, directory: bool) -> io::Result<OwnedFd> {
        let (source, attrs) = if directory {
            (&self.empty, MountAttr::RDONLY | MountAttr::NODEV)
        } else {
            (&self.null, MountAttr::NONE)
        };
        let cover = mount::clone_tree(source, false)?;
        let attrs = attrs | MountAttr::NOSUID | MountAttr::NOEXEC;
        mount::set_attr(
            &cover,
            false,
            attrs,
            MountAttr::NONE,
            Some(Propagation::Private),
        )?;
        Ok(cover)
    }

    fn put_away(self) -> io::Result<()> {
        rustix::process::fchdir(&self.tmpfs)?;
        mount::unmount_detached(".")?;
        Ok(rustix::process::chdir("/")?)
    }
}
