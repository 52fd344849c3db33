use super::*;
use crate::path::{OFlags, open_in_root, open_root};

/// Runs `test` in a mount namespace of its own; without the right to make one there is nothing to
/// test, and the test says so.
fn private(test: impl FnOnce() + Send) {
    let made = crate::ns::in_thread(|| -> io::Result<()> {
        crate::ns::unshare(crate::ns::Namespaces::MNT)?;
        make_private_recursive()?;
        test();
        Ok(())
    })
    .unwrap();
    match made {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!("not root: no mount namespace, nothing tested");
        }
        other => other.unwrap(),
    }
}

fn read(root: &OwnedFd, path: &str) -> io::Result<String> {
    let mut text = String::new();
    let mut file = std::fs::File::from(open_in_root(root, path, OFlags::RDONLY, 0)?);
    std::io::Read::read_to_string(&mut file, &mut text)?;
    Ok(text)
}

#[test]
fn flags_know_their_bits() {
    let attrs = MountAttr::RDONLY | MountAttr::NOSUID;
    assert!(attrs.contains(MountAttr::RDONLY) && !attrs.contains(MountAttr::NODEV));
    assert_eq!(MountAttr::from_bits(attrs.bits()), Some(attrs));
    assert_eq!(
        MountAttr::from_bits(MountAttrFlags::MOUNT_ATTR_IDMAP.bits()),
        None
    );
    assert!(MountAttr::NONE.is_empty());
}

type Make = fn(&[PathBuf], Option<(&Path, &Path)>, &OverlayOptions) -> io::Result<OwnedFd>;

fn overlay_test(make: Make) {
    private(|| {
        let base = tempfile::tempdir().unwrap();
        // An overlay's upper may not itself lie on an overlay, as a test machine's /tmp may.
        let tmpfs = new_fs("tmpfs", &[], &[], MountAttr::NONE).unwrap();
        attach(tmpfs.as_fd(), open_root(base.path()).unwrap().as_fd()).unwrap();
        let dir = |name: &str| {
            let dir = base.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            dir
        };
        let long = "x".repeat(250);
        let (top, bottom, upper, work) = (
            dir("top"),
            dir(&format!("b,:\\{long}")),
            dir("upper"),
            dir("work"),
        );
        std::fs::write(top.join("which"), "top").unwrap();
        std::fs::write(bottom.join("which"), "bottom").unwrap();
        std::fs::write(bottom.join("only"), "bottom").unwrap();
        let lowers = [top.clone(), bottom.clone()];

        let read_only = make(&lowers, None, &OverlayOptions::default()).unwrap();
        assert_eq!(read(&read_only, "which").unwrap(), "top");
        assert_eq!(read(&read_only, "only").unwrap(), "bottom");
        let create = OFlags::CREATE | OFlags::WRONLY;
        let error = open_in_root(&read_only, "new", create, 0o644).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));

        let options = OverlayOptions {
            volatile: true,
            ..OverlayOptions::default()
        };
        let writable = make(&lowers, Some((&upper, &work)), &options).unwrap();
        open_in_root(&writable, "new", create, 0o644).unwrap();
        assert!(upper.join("new").exists());
        assert!(work.join("work/incompat/volatile").exists());
    });
}

#[test]
fn overlay_layers_are_in_order() {
    overlay_test(overlay);
}

#[test]
fn the_old_way_mounts_the_same() {
    overlay_test(|lowers, upper, options| {
        // The long and odd name goes by descriptor here too.
        overlay_by_mount(lowers, upper, options)
    });
}

#[test]
fn an_overlay_needs_a_layer() {
    assert!(overlay(&[], None, &OverlayOptions::default()).is_err());
}

#[test]
fn trees_are_cloned_changed_and_attached() {
    private(|| {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("here")).unwrap();
        std::fs::create_dir(base.path().join("there")).unwrap();
        std::fs::write(base.path().join("here/file"), "text").unwrap();
        let tree = clone_tree(open_root(base.path().join("here")).unwrap(), true).unwrap();
        set_attr(
            &tree,
            true,
            MountAttr::RDONLY | MountAttr::NOATIME,
            MountAttr::NONE,
            Some(Propagation::Private),
        )
        .unwrap();
        attach(
            tree.as_fd(),
            open_root(base.path().join("there")).unwrap().as_fd(),
        )
        .unwrap();
        assert_eq!(
            std::fs::read_to_string(base.path().join("there/file")).unwrap(),
            "text"
        );
        let error = std::fs::write(base.path().join("there/file"), "x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        set_attr(&tree, false, MountAttr::NONE, MountAttr::RDONLY, None).unwrap();
        std::fs::write(base.path().join("there/file"), "x").unwrap();
        unmount_detached(base.path().join("there")).unwrap();
        assert!(!base.path().join("there/file").exists());
    });
}

#[test]
fn pivoting_leaves_nothing_behind() {
    private(|| {
        let root = new_fs(
            "tmpfs",
            &[("size", "1m"), ("mode", "755")],
            &[],
            MountAttr::NOSUID,
        )
        .unwrap();
        attach(root.as_fd(), open_root("/").unwrap().as_fd()).unwrap();
        pivot_root_into(root.as_fd()).unwrap();
        assert_eq!(std::fs::read_dir("/").unwrap().count(), 0);
        assert_eq!(
            rustix::process::getcwd(Vec::new()).unwrap().to_bytes(),
            b"/"
        );
    });
}
