use std::os::unix::fs::symlink;

use super::*;

fn tree() -> (tempfile::TempDir, OwnedFd) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("root/etc")).unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    std::fs::write(dir.path().join("root/etc/file"), "inside").unwrap();
    let root = open_root(dir.path().join("root")).unwrap();
    (dir, root)
}

fn read(fd: OwnedFd) -> String {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::fs::File::from(fd), &mut text).unwrap();
    text
}

#[test]
fn links_and_dots_stay_inside() {
    let (dir, root) = tree();
    symlink("/etc/file", dir.path().join("root/absolute")).unwrap();
    symlink("../../../etc/file", dir.path().join("root/etc/up")).unwrap();
    symlink(dir.path().join("secret"), dir.path().join("root/out")).unwrap();
    for path in ["absolute", "/etc/up", "../../etc/file", "etc/../etc/./file"] {
        assert_eq!(
            read(open_in_root(&root, path, OFlags::RDONLY, 0).unwrap()),
            "inside",
            "{path}"
        );
    }
    let error = open_in_root(&root, "out", OFlags::RDONLY, 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    for path in ["absolute", "/etc/file", "../secret", "etc/../../secret"] {
        assert!(
            open_beneath(&root, path, OFlags::RDONLY, 0).is_err(),
            "{path}"
        );
    }
}

#[test]
fn magic_links_are_refused() {
    let proc = open_root("/proc").unwrap();
    let fd = format!("{}/fd/{}", std::process::id(), crate::fd::number(&proc));
    let error = open_in_root(&proc, fd, OFlags::PATH, 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
}

#[test]
fn missing_directories_are_made_inside() {
    let (dir, root) = tree();
    symlink("etc", dir.path().join("root/link")).unwrap();
    let made = mkdir_all_in_root(&root, "/link/a/./b", 0o700).unwrap();
    assert_eq!(fd_path(&made).unwrap(), dir.path().join("root/etc/a/b"));
    // Again: it exists now.
    mkdir_all_in_root(&root, "etc/a/b", 0o700).unwrap();
    mkdir_all_in_root(&root, "/", 0o700).unwrap();
}

#[test]
fn a_dangling_link_is_no_way_out() {
    let (dir, root) = tree();
    symlink(dir.path().join("made"), dir.path().join("root/dangling")).unwrap();
    assert!(mkdir_all_in_root(&root, "dangling", 0o755).is_err());
    assert!(mkdir_all_in_root(&root, "dangling/below", 0o755).is_err());
    assert!(create_file_in_root(&root, "dangling", 0o644).is_err());
    assert!(create_file_in_root(&root, "dangling/file", 0o644).is_err());
    assert!(!dir.path().join("made").exists());
    assert!(mkdir_all_in_root(&root, "new/../x", 0o755).is_err());
    assert!(!dir.path().join("root/new").exists());
}

#[test]
fn files_are_made_with_their_directories() {
    let (dir, root) = tree();
    let file = create_file_in_root(&root, "/run/a/resolv.conf", 0o644).unwrap();
    assert_eq!(
        fd_path(&file).unwrap(),
        dir.path().join("root/run/a/resolv.conf")
    );
    assert_eq!(
        read(
            reopen(
                create_file_in_root(&root, "etc/file", 0).unwrap(),
                OFlags::RDONLY
            )
            .unwrap()
        ),
        "inside"
    );
    let error = create_file_in_root(&root, "etc", 0o644).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
    assert!(create_file_in_root(&root, "/", 0o644).is_err());
    assert!(create_file_in_root(&root, "etc/file/below", 0o644).is_err());
}

#[test]
fn devices_and_file_systems_are_told_apart() {
    let null = open_host("/dev/null", OFlags::PATH).unwrap();
    assert_eq!(char_device(&null).unwrap(), Some((1, 3)));
    let (_dir, root) = tree();
    assert_eq!(char_device(&root).unwrap(), None);
    let proc = open_root("/proc").unwrap();
    assert_eq!(fs_magic(&proc).unwrap(), libc::PROC_SUPER_MAGIC as u32);
    assert!(exists_in(&root, "etc").unwrap() && !exists_in(&root, "nothing").unwrap());
}
