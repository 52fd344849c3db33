use std::io::BufReader;

use proptest::prelude::*;

use super::*;
use crate::archive::lower;
use crate::archive::rebuild::{Parts, rebuild};
use crate::testing::{Canary, Entry, Tar, is_root, listing, open};

/// One layer's directories.
struct Bench {
    dir: tempfile::TempDir,
    done: Unpacked,
}

impl Bench {
    fn root(&self) -> OwnedFd {
        open(&self.dir.path().join("fs"))
    }

    fn lower(&self) -> Lower {
        Lower {
            root: self.root(),
            marks: Marks::Overlay,
            opaque: self.done.opaque,
        }
    }

    fn names(&self) -> Vec<String> {
        listing(self.root())
            .into_keys()
            .filter(|name| name != ".")
            .collect()
    }

    /// What the layer's archive is when it is written again.
    fn again(&self) -> Vec<u8> {
        let parts = Parts {
            recipe: File::open(self.dir.path().join("recipe")).unwrap(),
            root: self.root(),
            aside: open(&self.dir.path().join("aside")),
            displaced: &self.done.displaced,
            what: "test".to_owned(),
        };
        let mut out = Vec::new();
        rebuild(parts, &mut out).unwrap();
        out
    }
}

fn unpacked(tar: &[u8], lowers: &[Lower], marks: Marks, space: u64) -> Result<Bench> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("fs")).unwrap();
    std::fs::create_dir(dir.path().join("aside")).unwrap();
    let job = Job {
        root: open(&dir.path().join("fs")),
        aside: open(&dir.path().join("aside")),
        recipe: RecipeWriter::new(File::create(dir.path().join("recipe")).unwrap()).unwrap(),
        marks,
        lowers,
        space,
        what: "layer test".to_owned(),
    };
    let done = std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            // A umask of its own; the empty namespace is left out so that the first wall is tested.
            berth_sys::ns::unshare(berth_sys::ns::Namespaces::MNT).unwrap();
            at::set_umask(0);
            unpack(BufReader::new(tar), job)
        });
        work.join().unwrap()
    })?;
    Ok(Bench { dir, done })
}

fn layer(tar: Tar, lowers: &[&Bench]) -> Bench {
    let lowers: Vec<Lower> = lowers.iter().map(|bench| bench.lower()).collect();
    unpacked(&tar.end(), &lowers, Marks::Overlay, u64::MAX).unwrap()
}

#[test]
fn all_kinds_with_all_metadata() {
    if !is_root() {
        return;
    }
    let capability =
        b"\x01\x00\x00\x02\x0a\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let tar = Tar::new()
        .add(
            Entry {
                name: b"./",
                flag: b'5',
                mode: 0o711,
                uid: 3,
                gid: 4,
                ..Entry::default()
            },
            b"",
        )
        .add(
            Entry {
                name: b"d/",
                flag: b'5',
                mode: 0o3770,
                uid: 1,
                gid: 2,
                mtime: 5,
                ..Entry::default()
            },
            b"",
        )
        .pax("mtime", b"1600000000.123456789")
        .pax("SCHILY.xattr.security.capability", capability)
        .pax("SCHILY.xattr.user.note", b"line\nline")
        .pax("SCHILY.xattr.trusted.overlay.opaque", b"y")
        .pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc")
        .pax("SCHILY.xattr.user.overlay.opaque", b"y")
        .pax("SCHILY.xattr.security.selinux", b"x")
        .add(
            Entry {
                name: b"d/suid",
                mode: 0o4755,
                uid: 1000,
                gid: 1001,
                ..Entry::default()
            },
            b"program",
        )
        .symlink("d/link", "../../outside")
        .hardlink("d/second", "d/suid")
        .add(
            Entry {
                name: b"null",
                flag: b'3',
                mode: 0o666,
                device: (1, 3),
                ..Entry::default()
            },
            b"",
        )
        .add(
            Entry {
                name: b"loop",
                flag: b'4',
                mode: 0o660,
                gid: 6,
                device: (7, 300),
                ..Entry::default()
            },
            b"",
        )
        .add(
            Entry {
                name: b"fifo",
                flag: b'6',
                mode: 0o622,
                ..Entry::default()
            },
            b"",
        );
    let bench = layer(tar.clone(), &[]);
    let list = listing(bench.root());
    let time = "FileTime { secs: 1700000000, nanos: 0 }";
    assert_eq!(list["."], format!("Dir 711 3:4 {time}"));
    assert_eq!(list["d"], "Dir 3770 1:2 FileTime { secs: 5, nanos: 0 } ");
    let suid = &list["d/suid"];
    assert!(
        suid.starts_with("File 4755 1000:1001 FileTime { secs: 1600000000, nanos: 123456789 } 7 "),
        "{suid}"
    );
    assert!(
        suid.contains(&format!("security.capability={}", hex::encode(capability))),
        "{suid}"
    );
    assert!(
        suid.contains("user.note=6c696e650a6c696e65") && !suid.contains("overlay"),
        "{suid}"
    );
    assert!(suid.ends_with(" = d/second = d/suid"), "{suid}");
    assert_eq!(
        list["d/link"],
        format!("Link 777 0:0 {time} -> ../../outside")
    );
    assert_eq!(list["null"], format!("Char 666 0:0 {time} (1, 3)"));
    assert_eq!(list["loop"], format!("Block 660 0:6 {time} (7, 300)"));
    assert_eq!(list["fifo"], format!("Fifo 622 0:0 {time} "));
    assert_eq!(bench.done.size, 7);
    assert!(bench.again() == tar.end());
}

#[test]
fn holes_stay_holes() {
    if !is_root() {
        return;
    }
    let tar = Tar::new()
        .pax("GNU.sparse.size", b"1073741824")
        .pax("GNU.sparse.map", b"4096,4,1073741820,4")
        .file("holes", b"headtail");
    let bench = layer(tar.clone(), &[]);
    let file = File::open(bench.dir.path().join("fs/holes")).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), 1 << 30);
    assert!(std::os::unix::fs::MetadataExt::blocks(&meta) < 100);
    let mut tail = [0; 4];
    file.read_exact_at(&mut tail, (1 << 30) - 4).unwrap();
    assert_eq!(&tail, b"tail");
    assert!(bench.again() == tar.end());
}

#[test]
fn later_members_replace_earlier_ones() {
    if !is_root() {
        return;
    }
    let tar = Tar::new()
        .file("f", b"first")
        .file("f", b"second")
        .file("d/a", b"in a directory")
        .file("d", b"now a file")
        .dir("d/")
        .file("d/b", b"and back")
        .symlink("f", "d")
        .file("e", b"")
        .dir("e/")
        .dir("e/")
        .hardlink("e/g", "d/b")
        .file("d/b", b"replaced under the link");
    let bench = layer(tar.clone(), &[]);
    assert_eq!(bench.names(), ["d", "d/b", "e", "e/g", "f"]);
    let read = |name: &str| std::fs::read(bench.dir.path().join("fs").join(name)).unwrap();
    assert_eq!(read("e/g"), b"and back");
    assert_eq!(read("d/b"), b"replaced under the link");
    assert!(bench.again() == tar.end());
}

#[test]
fn deletions_hide_what_is_below_and_nothing_else() {
    if !is_root() {
        return;
    }
    let below = layer(
        Tar::new()
            .add(
                Entry {
                    name: b"d/",
                    flag: b'5',
                    mode: 0o700,
                    uid: 9,
                    mtime: 77,
                    ..Entry::default()
                },
                b"",
            )
            .file("d/a", b"1")
            .file("d/b", b"2")
            .file("gone", b"3")
            .dir("o/")
            .file("o/x", b"4")
            .file("both/x", b"5"),
        &[],
    );
    let upper = layer(
        Tar::new()
            .file("d/.wh.a", b"")
            .file(".wh.gone", b"")
            .file(".wh.never", b"")
            .file("nowhere/.wh.x", b"")
            .file("o/y", b"")
            .file("o/.wh.x", b"")
            .file("o/.wh..wh..opq", b"")
            .file("o/.wh.x", b"")
            .file(".wh.both", b"")
            .dir("both/")
            .file("both/y", b""),
        &[&below],
    );
    let list = listing(upper.root());
    // `d` is only implied: it looks as it does below.
    assert!(
        list["d"].starts_with("Dir 700 9:0 FileTime { secs: 77, nanos: 0 }"),
        "{}",
        list["d"]
    );
    assert!(list["d/a"].starts_with("Char 0 0:0") && list["d/a"].ends_with("(0, 0)"));
    assert!(list["gone"].starts_with("Char 0 0:0"));
    let opaque = "trusted.overlay.opaque=79";
    assert!(
        list["o"].ends_with(opaque) && list["both"].ends_with(opaque),
        "{list:#?}"
    );
    assert_eq!(
        upper.names(),
        ["both", "both/y", "d", "d/a", "gone", "o", "o/y"]
    );
    // A third layer sees through both.
    let view = [upper.lower(), below.lower()];
    let find = |name: &str| {
        lower::find(&view, &Name::clean(name.as_bytes()).unwrap())
            .unwrap()
            .map(|found| found.meta.kind)
    };
    assert_eq!(find("d/b"), Some(Kind::File));
    assert_eq!(find("d"), Some(Kind::Dir));
    for hidden in ["d/a", "gone", "o/x", "both/x", "d/a/b", "never"] {
        assert_eq!(find(hidden), None, "{hidden}");
    }
    assert_eq!(find("both/y"), Some(Kind::File));
}

#[test]
fn a_layer_that_hides_everything() {
    if !is_root() {
        return;
    }
    let below = layer(Tar::new().file("a", b"1"), &[]);
    let upper = layer(
        Tar::new()
            .file(".wh..wh..opq", b"")
            .file("b", b"")
            .file(".wh.a", b""),
        &[&below],
    );
    assert!(upper.done.opaque);
    assert_eq!(upper.names(), ["b"]);
    let view = [upper.lower(), below.lower()];
    assert!(
        lower::find(&view, &Name::clean(b"a").unwrap())
            .unwrap()
            .is_none()
    );
}

#[test]
fn leftovers_of_aufs_are_not_the_images() {
    if !is_root() {
        return;
    }
    let tar = Tar::new()
        .dir(".wh..wh.plnk/")
        .file(".wh..wh.plnk/1.2", b"x")
        .file(".wh..wh.aufs", b"")
        .file("a", b"");
    let bench = layer(tar.clone(), &[]);
    assert_eq!(bench.names(), ["a"]);
    assert!(bench.again() == tar.end());
}

#[test]
fn space_and_count_are_bounded() {
    if !is_root() {
        return;
    }
    let tar = Tar::new().file("a", &[1; 600]).file("b", &[1; 600]).end();
    assert!(unpacked(&tar, &[], Marks::Overlay, 1200).is_ok());
    assert!(matches!(
        unpacked(&tar, &[], Marks::Overlay, 1199),
        Err(Error::NoSpace { .. })
    ));
    // Contents that the header only promises do not help.
    let lie = Tar::new()
        .add(
            Entry {
                name: b"a",
                size: Some(1 << 50),
                ..Entry::default()
            },
            b"",
        )
        .end();
    assert!(unpacked(&lie, &[], Marks::Overlay, 1 << 30).is_err());
}

/// security.md B.8: what archives have tried, against a canary on the host.
#[test]
fn hostile_members() {
    if !is_root() {
        return;
    }
    let canary = Canary::new();
    let out = canary.path();
    let up = "../".repeat(20);
    let outside = format!("{up}{out}");
    let deep = "d/".repeat(1500);
    let file = |name: &str| Tar::new().file(name, b"owned");
    let node = |name: &[u8], flag, device| {
        Tar::new().add(
            Entry {
                name,
                flag,
                device,
                ..Entry::default()
            },
            b"",
        )
    };
    let refused: Vec<(&str, Tar)> = vec![
        ("file above", file("../x")),
        ("file far above", file(&format!("{outside}/empty/x"))),
        (
            "file above from within",
            file(&format!("a/{outside}/empty/x")),
        ),
        (
            "directory above",
            Tar::new().dir(&format!("{outside}/empty/x/")),
        ),
        (
            "file through a link",
            Tar::new().symlink("l", &out).file("l/secret", b"owned"),
        ),
        (
            "file through a relative link",
            Tar::new()
                .symlink("l", &outside)
                .file("l/empty/x", b"owned"),
        ),
        (
            "directory through a link",
            Tar::new().symlink("l", &out).dir("l/empty/x/"),
        ),
        (
            "link through a link",
            Tar::new().symlink("l", &out).symlink("l/empty/x", "y"),
        ),
        (
            "through two links",
            Tar::new()
                .symlink("a", &out)
                .symlink("b", "a")
                .file("b/secret", b"owned"),
        ),
        (
            "through a link in the middle",
            Tar::new()
                .dir("d/")
                .symlink("d/l", &out)
                .file("d/l/empty/x", b"owned"),
        ),
        (
            "hard link out",
            Tar::new().hardlink("x", &format!("{outside}/secret")),
        ),
        (
            "hard link to an absolute name",
            Tar::new().hardlink("x", &format!("{out}/secret")),
        ),
        (
            "hard link through a link",
            Tar::new().symlink("l", &out).hardlink("x", "l/secret"),
        ),
        (
            "hard link to a directory",
            Tar::new().dir("d/").hardlink("x", "d"),
        ),
        ("hard link to nothing", Tar::new().hardlink("x", "none")),
        (
            "hard link to itself",
            Tar::new().file("x", b"1").hardlink("x", "x"),
        ),
        ("hard link to the root", Tar::new().hardlink("x", "/")),
        ("whiteout above", file("../.wh.secret")),
        (
            "whiteout through a link",
            Tar::new().symlink("l", &out).file("l/.wh.secret", b""),
        ),
        (
            "opaque through a link",
            Tar::new().symlink("l", &out).file("l/.wh..wh..opq", b""),
        ),
        ("whiteout of the directory", file("d/.wh..")),
        ("whiteout of the parent", file("d/.wh...")),
        ("whiteout of nothing", file("d/.wh.")),
        ("whiteout of a whiteout", file("d/.wh..wh.x")),
        ("member below a whiteout", file("d/.wh.x/y")),
        ("overlay's own whiteout", node(b"x", b'3', (0, 0))),
        (
            "pax path above",
            Tar::new().pax("path", b"../x").file("x", b"owned"),
        ),
        (
            "pax path with NUL",
            Tar::new().pax("path", b"a\0b").file("x", b"owned"),
        ),
        (
            "pax linkpath out",
            Tar::new()
                .pax("linkpath", format!("{outside}/secret").as_bytes())
                .hardlink("x", "y"),
        ),
        ("1,500 levels", file(&format!("{deep}x"))),
        ("a long component", file(&"n".repeat(256))),
        ("the root as a file", Tar::new().file("/", b"x")),
        (
            "below a file",
            Tar::new().file("f", b"x").file("f/x", b"owned"),
        ),
        (
            "below a device",
            node(b"dev", b'4', (8, 0)).file("dev/x", b"owned"),
        ),
        (
            "below a fifo",
            node(b"fifo", b'6', (0, 0)).file("fifo/x", b"owned"),
        ),
        ("an empty link", Tar::new().symlink("l", "")),
        (
            "an attribute too many",
            (0..100)
                .fold(Tar::new(), |tar, at| {
                    tar.pax(&format!("SCHILY.xattr.user.{at}"), b"x")
                })
                .file("f", b""),
        ),
        (
            "user −1",
            Tar::new().pax("uid", b"4294967295").file("f", b""),
        ),
        (
            "user beyond 32 bits",
            Tar::new().pax("uid", b"4294967296").file("f", b""),
        ),
        ("a tape label", node(b"x", b'V', (0, 0))),
    ];
    for (what, tar) in refused {
        let below = layer(
            Tar::new().dir("d/").file("d/x", b"").file("secret", b""),
            &[],
        );
        for marks in [Marks::Overlay, Marks::Files] {
            let result = unpacked(&tar.clone().end(), &[below.lower()], marks, u64::MAX);
            assert!(result.is_err(), "{what}");
            canary.check(what);
        }
    }
    // What means something inside, and must stay inside.
    let contained: Vec<(&str, Tar)> = vec![
        ("absolute file", file(&format!("{out}/empty/x"))),
        (
            "absolute directory",
            Tar::new().dir(&format!("{out}/empty/x/")),
        ),
        ("absolute whiteout", file(&format!("{out}/.wh.secret"))),
        (
            "link out",
            Tar::new().symlink("l", &format!("{out}/secret")),
        ),
        (
            "file over a link out",
            Tar::new()
                .symlink("l", &format!("{out}/secret"))
                .file("l", b"owned"),
        ),
        (
            "directory over a link out",
            Tar::new()
                .symlink("l", &out)
                .dir("l/")
                .file("l/secret", b"owned"),
        ),
        (
            "modes over a link out",
            Tar::new().symlink("l", &format!("{out}/secret")).add(
                Entry {
                    name: b"l",
                    mode: 0o4777,
                    uid: 7,
                    ..Entry::default()
                },
                b"",
            ),
        ),
        (
            "hard link to a link out",
            Tar::new()
                .symlink("l", &format!("{out}/secret"))
                .hardlink("h", "l")
                .file("h", b"owned"),
        ),
        ("disk", node(b"sda", b'4', (8, 0)).hardlink("b", "sda")),
        (
            "orders to overlayfs",
            Tar::new()
                .pax("SCHILY.xattr.trusted.overlay.redirect", out.as_bytes())
                .dir("d/")
                .pax("SCHILY.xattr.trusted.overlay.metacopy", b"")
                .file("f", b""),
        ),
        (
            "300 members of one name",
            (0..300).fold(Tar::new(), |tar, _| tar.file("same", b"x")),
        ),
        ("1,000 levels", file(&format!("{}x", "d/".repeat(1000)))),
    ];
    for (what, tar) in contained {
        let bench = layer(tar.clone(), &[]);
        canary.check(what);
        for line in listing(bench.root()).values() {
            assert!(!line.contains("trusted."), "{what}: {line}");
        }
        assert!(bench.again() == tar.end(), "{what}");
    }
}

/// A random layer: few names, so that members meet each other.
fn any_layer() -> impl Strategy<Value = Vec<(u8, String, Vec<u8>)>> {
    let name = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|parts| parts.join("/"));
    let contents = prop::collection::vec(any::<u8>(), 0..700);
    prop::collection::vec((0u8..7, name, contents), 0..25)
}

fn tar_of(members: &[(u8, String, Vec<u8>)]) -> Tar {
    members
        .iter()
        .fold(Tar::new(), |tar, (kind, name, contents)| {
            let (dir, leaf) = name.rsplit_once('/').unwrap_or((".", name));
            match kind {
                0 | 1 => tar.file(name, contents),
                2 => tar.dir(&format!("{name}/")),
                3 => tar.symlink(name, "a/b"),
                4 => tar.file(&format!("{dir}/.wh.{leaf}"), b""),
                5 => tar.file(&format!("{dir}/.wh..wh..opq"), b""),
                _ => tar.add(
                    Entry {
                        name: name.as_bytes(),
                        flag: b'6',
                        ..Entry::default()
                    },
                    b"",
                ),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever can be unpacked can be written again byte for byte, and what it deletes is not seen.
    #[test]
    fn archives_come_back_byte_for_byte(below in any_layer(), upper in any_layer()) {
        if !is_root() {
            return Ok(());
        }
        let below = tar_of(&below).end();
        let Ok(below_bench) = unpacked(&below, &[], Marks::Overlay, u64::MAX) else { return Ok(()) };
        prop_assert!(below_bench.again() == below);
        let upper = tar_of(&upper).end();
        let Ok(upper_bench) = unpacked(&upper, &[below_bench.lower()], Marks::Overlay, u64::MAX) else { return Ok(()) };
        prop_assert!(upper_bench.again() == upper);
    }
}
