use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use super::*;

const PASSWD: &str = "\
# comment:x:9:9::/:/
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1::/usr/sbin:
broken
app:x:1000:1001:An app:/home/app:/bin/sh
nohome:x:1002:1002
1234:x:77:77::/seven:
huge:x:4294967295:0::/:
wide:x:4294967296:0::/:
";
const GROUP: &str = "\
root:x:0:
wheel:x:10:root,app
audio:x:20: app , other
app:x:1001:
docker:x:999:nobody
";

fn ids(user: &str, add: &[&str]) -> Result<(u32, u32, Vec<u32>, String), String> {
    let add: Vec<_> = add.iter().map(|s| (*s).to_owned()).collect();
    lookup(user, &add, PASSWD, GROUP)
        .map(|ids| (ids.uid, ids.gid, ids.groups, ids.home))
        .map_err(|error| error.to_string())
}

fn is(
    uid: u32,
    gid: u32,
    groups: &[u32],
    home: &str,
) -> Result<(u32, u32, Vec<u32>, String), String> {
    Ok((uid, gid, groups.to_vec(), home.to_owned()))
}

#[test]
fn spellings() {
    assert_eq!(ids("", &[]), is(0, 0, &[0, 10], "/root"));
    assert_eq!(ids("root", &[]), is(0, 0, &[0, 10], "/root"));
    assert_eq!(ids("0", &[]), is(0, 0, &[0, 10], "/root"));
    assert_eq!(
        ids("app", &[]),
        is(1000, 1001, &[10, 20, 1001], "/home/app")
    );
    assert_eq!(
        ids("1000", &[]),
        is(1000, 1001, &[10, 20, 1001], "/home/app")
    );
    // A group that is named takes the place of those of the file.
    assert_eq!(ids("app:wheel", &[]), is(1000, 10, &[10], "/home/app"));
    assert_eq!(ids("app:5", &[]), is(1000, 5, &[5], "/home/app"));
    assert_eq!(
        ids("app:", &[]),
        is(1000, 1001, &[10, 20, 1001], "/home/app")
    );
    assert_eq!(ids(":wheel", &[]), is(0, 10, &[10], "/root"));
    assert_eq!(ids("4242", &[]), is(4242, 0, &[0], "/"));
    assert_eq!(
        ids("4242:43", &["audio", "7", "7"]),
        is(4242, 43, &[7, 20, 43], "/")
    );
    assert_eq!(ids("4294967294", &[]), is(4_294_967_294, 0, &[0], "/"));
    // Digits are a number, never the name of an entry.
    assert_eq!(ids("1234", &[]), is(1234, 0, &[0], "/"));
    assert_eq!(ids("nohome", &[]), is(1002, 1002, &[1002], "/"));
}

#[test]
fn unknown_is_an_error_and_never_root() {
    for user in [
        "nobody",
        "0x0",
        "1000 ",
        " root",
        "root\n",
        "huge",
        "wide",
        "broken",
        "comment",
        "root:nogroup",
        "00x",
    ] {
        assert!(ids(user, &[]).is_err(), "{user:?}");
    }
    for user in [
        "4294967295",
        "4294967296",
        "99999999999999999999",
        "-1",
        "+1",
        "0:-1",
        "0:4294967295",
    ] {
        assert_eq!(
            ids(user, &[]),
            Err("uids and gids must be in range 0-4294967294".to_owned()),
            "{user}"
        );
        assert!(check(user, &[]).is_err());
    }
    assert_eq!(
        ids("x", &[]),
        Err("unable to find user x: no matching entries in passwd file".to_owned())
    );
    assert_eq!(
        ids("", &["x"]),
        Err("unable to find group x: no matching entries in group file".to_owned())
    );
    assert!(check("app:wheel", &["x".to_owned()]).is_ok());
}

fn root(make: impl FnOnce(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::create_dir(dir.path().join("etc")).expect("etc");
    make(&dir.path().join("etc"));
    dir
}

fn resolve_in(dir: &tempfile::TempDir, user: &str) -> Result<Ids, UserError> {
    let fd = berth_sys::path::open_root(dir.path()).expect("root");
    resolve(fd.as_fd(), user, &[])
}

#[test]
fn files_of_the_root() {
    let dir = root(|etc| fs::write(etc.join("passwd"), PASSWD).expect("passwd"));
    assert_eq!(resolve_in(&dir, "app").expect("found").gid, 1001);
    let empty = root(|_| ());
    assert_eq!(resolve_in(&empty, "").expect("root").home, "/");
    assert!(resolve_in(&empty, "app").is_err());
}

#[test]
fn links_fifos_devices_and_big_files_are_refused() {
    let link = root(|etc| {
        fs::write(etc.join("real"), PASSWD).expect("file");
        std::os::unix::fs::symlink("real", etc.join("passwd")).expect("link");
    });
    assert!(matches!(
        resolve_in(&link, "app"),
        Err(UserError::File { .. })
    ));
    let out =
        root(|etc| std::os::unix::fs::symlink("/etc/passwd", etc.join("passwd")).expect("link"));
    assert!(resolve_in(&out, "0").is_err());
    let fifo = root(|etc| {
        berth_sys::at::mknod_at(
            berth_sys::path::open_root(etc).expect("etc"),
            "passwd",
            berth_sys::at::Kind::Fifo,
            0o644,
            (0, 0),
        )
        .expect("fifo");
    });
    let error = resolve_in(&fifo, "0").expect_err("is refused");
    assert!(error.to_string().contains("no regular file"), "{error}");
    let big = root(|etc| {
        fs::File::create(etc.join("passwd"))
            .and_then(|file| file.set_len(150 << 20))
            .expect("sparse file");
    });
    assert!(
        resolve_in(&big, "0")
            .expect_err("is refused")
            .to_string()
            .contains("larger than 1 MiB")
    );
    let directory = root(|etc| fs::create_dir(etc.join("passwd")).expect("directory"));
    assert!(resolve_in(&directory, "0").is_err());
}

#[test]
fn a_linked_directory_stays_inside() {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::os::unix::fs::symlink("/other", dir.path().join("etc")).expect("link");
    fs::create_dir(dir.path().join("other")).expect("other");
    fs::write(dir.path().join("other/passwd"), "in:x:5:6::/in:").expect("passwd");
    assert_eq!(resolve_in(&dir, "in").expect("found").uid, 5);
}
