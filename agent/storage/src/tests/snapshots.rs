//! Containers' roots.

use super::*;

fn loaded(driver: &str, layers: &[Vec<u8>]) -> (Bench, Digest) {
    let bench = Bench::new(driver);
    let id = bench.load(&docker_archive(layers, "x:y")).unwrap()[0].id;
    (bench, id)
}

#[test]
fn both_drivers_show_the_same_tree() {
    if !is_root() {
        return;
    }
    let mut trees = Vec::new();
    for driver in ["overlay", "vfs"] {
        let (bench, id) = loaded(driver, &layers());
        bench.store.snapshot_create("c", Some(&id)).unwrap();
        trees.push(listing(bench.root_of("c")));
        assert_eq!(
            bench.store.image_size(&id).unwrap(),
            layers_size(),
            "{driver}"
        );
        assert_eq!(bench.store.snapshot_size("c").unwrap(), 0, "{driver}");
    }
    assert_eq!(trees[0], trees[1]);
    let tree = &trees[0];
    for gone in ["etc/gone", "opt/one", "opt/sub/two", "turn/x"] {
        assert!(!tree.contains_key(gone), "{gone}");
    }
    assert!(tree["suid"].starts_with("File 6755 5:6"));
    assert!(tree["suid"].contains("user.a=62"));
    assert!(tree["turn"].starts_with("File"));
    assert!(tree["swap"].starts_with("Dir"));
    assert!(tree["passwd2"].contains("etc/passwd = passwd2"));
    assert!(tree["deep/er"].starts_with("Dir 755 0:0"));
    assert!(tree["."].starts_with("Dir 755 0:0 FileTime { secs: 1,"));
    assert_eq!(
        tree["etc/mtab"].split(" -> ").nth(1).unwrap(),
        "/proc/mounts"
    );
}

fn layers_size() -> u64 {
    // Contents of regular files, each once.
    (11 + 1 + 1 + 1 + 6 + 1) + (1 + 2 + 10 + 2) + (1 + 3 + 4)
}

#[test]
fn the_init_layer_stands_whatever_the_image_has() {
    if !is_root() {
        return;
    }
    let canary = Canary::new();
    let out = canary.path();
    let secret = format!("{out}/secret");
    let fifo = |name: &'static [u8]| Entry {
        name,
        flag: b'6',
        ..Entry::default()
    };
    let images = [
        Tar::new()
            .symlink("proc", &out)
            .symlink("sys", &out)
            .symlink("dev", &out)
            .symlink("etc", &out),
        Tar::new()
            .file("proc", b"")
            .file("sys", b"")
            .file("dev", b"")
            .file("etc", b""),
        Tar::new()
            .add(fifo(b"proc"), b"")
            .add(fifo(b"dev"), b"")
            .add(fifo(b"etc"), b"")
            .add(fifo(b".dockerenv"), b""),
        Tar::new()
            .symlink("dev/console", &secret)
            .symlink("dev/pts", &out)
            .symlink("dev/shm", &out)
            .symlink("etc/hosts", &secret)
            .symlink("etc/hostname", &secret)
            .symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
            .symlink("etc/mtab", &secret)
            .symlink(".dockerenv", &secret),
        Tar::new()
            .dir("etc/hosts/")
            .file("etc/hosts/x", b"")
            .dir("dev/console/")
            .dir(".dockerenv/"),
        Tar::new(),
    ];
    for (at, image) in images.iter().enumerate() {
        let mut trees = Vec::new();
        for driver in ["overlay", "vfs"] {
            let (bench, id) = loaded(driver, &[image.clone().end()]);
            bench.store.snapshot_create("c", Some(&id)).unwrap();
            let tree = listing(bench.root_of("c"));
            for dir in ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"] {
                assert!(
                    tree[dir].starts_with("Dir 755 0:0"),
                    "{driver} {at} {dir}: {}",
                    tree[dir]
                );
            }
            for file in [
                ".dockerenv",
                "dev/console",
                "etc/hostname",
                "etc/hosts",
                "etc/resolv.conf",
            ] {
                assert!(
                    tree[file].starts_with("File ") && tree[file].contains(" 0 e3b0c44298fc"),
                    "{driver} {at} {file}"
                );
            }
            assert!(tree["etc/mtab"].ends_with("-> /proc/mounts"));
            trees.push(tree);
            canary.check(&format!("{driver} {at}"));
        }
        assert_eq!(trees[0], trees[1], "{at}");
    }
    let bench = Bench::new("overlay");
    bench.store.snapshot_create("nothing", None).unwrap();
    assert!(listing(bench.root_of("nothing")).contains_key("proc"));
}

#[test]
fn what_a_container_writes_is_its_own() {
    if !is_root() {
        return;
    }
    for driver in ["overlay", "vfs"] {
        let (bench, id) = loaded(driver, &layers());
        bench.store.snapshot_create("one", Some(&id)).unwrap();
        bench.store.snapshot_create("two", Some(&id)).unwrap();
        let root = bench.root_of("one");
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::from(at::create_at(&root, "written", 0o644).unwrap());
        file.write_all_at(&[7; 5000], 0).unwrap();
        at::unlink_at(&root, "suid").unwrap();
        drop((file, root));
        assert_eq!(bench.store.snapshot_size("one").unwrap(), 5000, "{driver}");
        let bench = bench.reopened();
        let tree = listing(bench.root_of("one"));
        assert!(
            tree.contains_key("written") && !tree.contains_key("suid"),
            "{driver}"
        );
        let tree = listing(bench.root_of("two"));
        assert!(
            !tree.contains_key("written") && tree.contains_key("suid"),
            "{driver}"
        );
        assert_eq!(bench.store.snapshots().unwrap(), ["one", "two"]);
    }
}

#[test]
fn names_and_repeats() {
    if !is_root() {
        return;
    }
    let (bench, id) = loaded("overlay", &layers());
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "-x",
        "a\0",
        "a\n",
        &"x".repeat(129),
    ] {
        assert_eq!(
            bench
                .store
                .snapshot_create(name, Some(&id))
                .unwrap_err()
                .kind(),
            ErrorKind::Invalid,
            "{name:?}"
        );
        assert_eq!(
            bench.store.snapshot_remove(name).unwrap_err().kind(),
            ErrorKind::Invalid,
            "{name:?}"
        );
    }
    bench.store.snapshot_create("c", Some(&id)).unwrap();
    assert!(matches!(
        bench.store.snapshot_create("c", Some(&id)),
        Err(Error::SnapshotExists(_))
    ));
    assert!(matches!(
        bench.store.snapshot_create("d", Some(&digest(b"none"))),
        Err(Error::NoImage(_))
    ));
    assert!(matches!(
        bench.store.snapshot_mount("d", &MountOptions::default()),
        Err(Error::NoSnapshot(_))
    ));
    assert!(matches!(
        bench.store.snapshot_size("d"),
        Err(Error::NoSnapshot(_))
    ));
    bench.store.snapshot_remove("d").unwrap();
    // Removal does not wait for the mount, nor does the mount for it.
    let mount = bench
        .store
        .snapshot_mount("c", &MountOptions::default())
        .unwrap();
    bench.store.snapshot_remove("c").unwrap();
    bench.store.settle();
    assert!(bench.entries("snapshots").is_empty() && bench.entries("discarded").is_empty());
    drop(mount);
    // The name is free at once.
    bench.store.snapshot_create("c", Some(&id)).unwrap();
}

#[test]
fn mounts_without_writeback_come_back_within_one_boot() {
    if !is_root() {
        return;
    }
    let (bench, id) = loaded("overlay", &layers());
    bench.store.snapshot_create("c", Some(&id)).unwrap();
    let volatile = MountOptions { volatile: true };
    for options in [&volatile, &volatile, &MountOptions::default(), &volatile] {
        let mount = bench.store.snapshot_mount("c", options).unwrap();
        drop(at::create_at(at::open_again(&mount).unwrap(), "x", 0o600));
    }
    let bench = bench.reopened();
    drop(bench.store.snapshot_mount("c", &volatile).unwrap());
    // As after a crash of the host: the note of that boot is another's, or was never written back.
    let note = bench.dir.path().join("snapshots/c/volatile");
    std::fs::write(&note, "another boot").unwrap();
    for options in [&volatile, &MountOptions::default()] {
        assert!(matches!(
            bench.store.snapshot_mount("c", options),
            Err(Error::Volatile(_))
        ));
    }
    std::fs::remove_file(&note).unwrap();
    assert!(matches!(
        bench.store.snapshot_mount("c", &volatile),
        Err(Error::Volatile(_))
    ));
    bench.store.snapshot_remove("c").unwrap();
}

#[test]
fn as_many_layers_as_allowed() {
    if !is_root() {
        return;
    }
    let layers: Vec<Vec<u8>> = (0..crate::limits::LAYERS_MAX)
        .map(|at| Tar::new().file(&format!("f{at}"), b"x").end())
        .collect();
    let (bench, id) = loaded("overlay", &layers);
    bench.store.snapshot_create("c", Some(&id)).unwrap();
    let tree = listing(bench.root_of("c"));
    assert!(tree.contains_key("f0") && tree.contains_key("f126"));
    let one_more: Vec<Vec<u8>> = layers.into_iter().chain([Tar::new().end()]).collect();
    let error = Bench::new("overlay")
        .load(&docker_archive(&one_more, "x:y"))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[test]
fn a_layer_may_hide_all_others() {
    if !is_root() {
        return;
    }
    let layers = [
        Tar::new().file("a", b"1").dir("d/").end(),
        Tar::new().file(".wh..wh..opq", b"").file("b", b"2").end(),
        Tar::new().file("c", b"3").end(),
    ];
    let mut trees = Vec::new();
    for driver in ["overlay", "vfs"] {
        let (bench, id) = loaded(driver, &layers);
        bench.store.snapshot_create("c", Some(&id)).unwrap();
        let tree = listing(bench.root_of("c"));
        assert!(
            !tree.contains_key("a") && !tree.contains_key("d"),
            "{driver}"
        );
        assert!(tree.contains_key("b") && tree.contains_key("c"), "{driver}");
        trees.push(tree);
    }
    assert_eq!(trees[0], trees[1]);
}

mod random {
    use proptest::prelude::*;

    use super::*;

    fn layer() -> impl Strategy<Value = Vec<(u8, String)>> {
        let name = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
            .prop_map(|parts| parts.join("/"));
        prop::collection::vec((0u8..6, name), 0..12)
    }

    fn tar_of(members: &[(u8, String)]) -> Vec<u8> {
        let tar = members
            .iter()
            .enumerate()
            .fold(Tar::new(), |tar, (at, (kind, name))| {
                let (dir, leaf) = name.rsplit_once('/').unwrap_or((".", name));
                let mode = 0o700 + (at as u32 % 8);
                match kind {
                    0 | 1 => tar.add(
                        Entry {
                            name: name.as_bytes(),
                            mode,
                            ..Entry::default()
                        },
                        name.as_bytes(),
                    ),
                    2 => tar.add(
                        Entry {
                            name: name.as_bytes(),
                            flag: b'5',
                            mode,
                            mtime: at as u64,
                            ..Entry::default()
                        },
                        b"",
                    ),
                    3 => tar.symlink(name, "elsewhere"),
                    4 => tar.file(&format!("{dir}/.wh.{leaf}"), b""),
                    _ => tar.file(&format!("{dir}/.wh..wh..opq"), b""),
                }
            });
        tar.end()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// Stacking and copying agree on what layers mean, whatever they are.
        #[test]
        fn drivers_agree(layers in prop::collection::vec(layer(), 1..4)) {
            if !is_root() {
                return Ok(());
            }
            let layers: Vec<Vec<u8>> = layers.iter().map(|members| tar_of(members)).collect();
            let archive = docker_archive(&layers, "x:y");
            let mut trees = Vec::new();
            for driver in ["overlay", "vfs"] {
                let bench = Bench::new(driver);
                let Ok(loaded) = bench.load(&archive) else { continue };
                bench.store.snapshot_create("c", Some(&loaded[0].id)).unwrap();
                trees.push(listing(bench.root_of("c")));
                let saved = bench.save(&loaded);
                prop_assert_eq!(Bench::new(driver).load(&saved).unwrap(), loaded);
            }
            prop_assert!(trees.is_empty() || trees.len() == 2, "one driver refuses what the other takes");
            if let [one, two] = &trees[..] {
                prop_assert_eq!(one, two);
            }
        }
    }
}
