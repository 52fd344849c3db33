use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;

use super::*;

fn dir() -> (tempfile::TempDir, OwnedFd) {
    let dir = tempfile::tempdir().unwrap();
    let fd = crate::path::open_host(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
    (dir, fd)
}

#[test]
fn names_are_single_and_never_followed() {
    let (tree, fd) = dir();
    symlink_at(b"/etc/passwd", &fd, "link").unwrap();
    assert_eq!(stat_at(&fd, "link").unwrap().kind, Kind::Link);
    assert_eq!(readlink_at(&fd, "link").unwrap(), b"/etc/passwd");
    assert!(create_at(&fd, "link", 0o600).is_err());
    assert!(open_file_at(&fd, "link").is_err());
    assert!(open_dir_at(&fd, "..").is_err());
    assert!(find_at(&fd, "none").unwrap().is_none());
    mknod_at(&fd, "fifo", Kind::Fifo, 0o600, (0, 0)).unwrap();
    // Would wait for a writer if it were opened.
    assert!(open_file_at(&fd, "fifo").is_err());
    let mut all = names(&fd).unwrap();
    all.sort();
    assert_eq!(all, [b"fifo".to_vec(), b"link".to_vec()]);
    set_mtime_at(&fd, "link", FileTime { secs: -5, nanos: 7 }).unwrap();
    let stat = std::fs::symlink_metadata(tree.path().join("link")).unwrap();
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (-5, 7));
    assert!(chown_at(&fd, "link", u32::MAX, 0).is_err());
}

#[test]
fn renames_can_refuse_to_replace() {
    let (_tree, fd) = dir();
    create_at(&fd, "a", 0o600).unwrap();
    create_at(&fd, "b", 0o600).unwrap();
    assert_eq!(
        rename_new_at(&fd, "a", &fd, "b").unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    rename_at(&fd, "a", &fd, "b").unwrap();
    assert_eq!(names(&fd).unwrap(), [b"b".to_vec()]);
}

#[test]
fn copies_keep_holes() {
    let (_tree, fd) = dir();
    let mut from = std::fs::File::from(create_at(&fd, "from", 0o600).unwrap());
    from.set_len(1 << 30).unwrap();
    from.seek(io::SeekFrom::Start(1 << 20)).unwrap();
    from.write_all(b"in the middle").unwrap();
    let to = create_at(&fd, "to", 0o600).unwrap();
    copy_contents(from.as_fd(), to.as_fd(), 1 << 30).unwrap();
    let mut to = std::fs::File::from(to);
    assert_eq!(to.metadata().unwrap().len(), 1 << 30);
    assert!(to.metadata().unwrap().blocks() < 1024);
    to.seek(io::SeekFrom::Start(1 << 20)).unwrap();
    let mut text = [0; 13];
    to.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"in the middle");
}

#[test]
fn one_holder_of_a_lock() {
    let (_tree, fd) = dir();
    let first = create_at(&fd, "lock", 0o600).unwrap();
    let second = open_file_at(&fd, "lock").unwrap();
    assert!(try_lock(&first).unwrap());
    assert!(!try_lock(&second).unwrap());
    drop(first);
    assert!(try_lock(&second).unwrap());
}

#[test]
fn temporary_files_have_no_name() {
    let (_tree, fd) = dir();
    let file = temporary_file(&fd).unwrap();
    assert!(names(&fd).unwrap().is_empty());
    assert_eq!(stat(&file).unwrap().links, 0);
    assert!(free_space(&fd).unwrap() > 0);
}
