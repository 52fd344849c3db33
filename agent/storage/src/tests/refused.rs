//! What is not taken in, and that nothing is left of it.

use super::formats::{Files, oci, tar_of};
use super::*;

#[test]
fn content_that_is_not_what_it_says() {
    if !is_root() {
        return;
    }
    let layers = layers();
    let good = oci(&layers, &|bytes| gzip(bytes), "");
    let with = |change: &dyn Fn(&mut Files)| {
        let mut files = good.clone();
        change(&mut files);
        tar_of(&files)
    };
    let config = config_for(&layers);
    let archive = |config: &[u8], config_name: &str, layers: &[Vec<u8>], names: &[&str]| {
        let list: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let manifest = format!(
            r#"[{{"Config":"{config_name}","Layers":[{}]}}]"#,
            list.join(",")
        );
        let tar = Tar::new()
            .file("manifest.json", manifest.as_bytes())
            .file("c.json", config);
        layers
            .iter()
            .zip(["0", "1", "2"])
            .fold(tar, |tar, (layer, name)| tar.file(name, layer))
            .end()
    };
    let mut swapped = layers.clone();
    swapped.swap(0, 1);
    let mut damaged = layers.clone();
    damaged[1][600] ^= 1;
    let zipped: Vec<Vec<u8>> = damaged.iter().map(|layer| gzip(layer)).collect();
    let wrong_name = format!("{}.json", digest(b"x").hex());
    let wrong_blob = format!("blobs/sha256/{}", digest(b"x").hex());
    let named = |name: &str| {
        let manifest = format!(r#"[{{"Config":"{name}","Layers":[]}}]"#);
        Tar::new()
            .file("manifest.json", manifest.as_bytes())
            .file(name, &config_for(&[]))
            .end()
    };
    let both = br#"{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}"#.to_vec();
    let huge = {
        let mut huge = b"[".to_vec();
        huge.resize(64 << 20, b' ');
        huge
    };
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)).into_bytes();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("no tar", vec![b'x'; 2000]),
        ("an empty tar", Tar::new().end()),
        ("a root file system", layers[0].clone()),
        (
            "layers swapped",
            archive(&config, "c.json", &swapped, &["0", "1", "2"]),
        ),
        (
            "a plain layer changed",
            archive(&config, "c.json", &damaged, &["0", "1", "2"]),
        ),
        (
            "a packed layer changed",
            archive(&config, "c.json", &zipped, &["0", "1", "2"]),
        ),
        (
            "fewer layers than ids",
            archive(&config, "c.json", &layers, &["0", "1"]),
        ),
        (
            "more layers than ids",
            archive(&config, "c.json", &layers, &["0", "1", "2", "2"]),
        ),
        (
            "a layer that is not there",
            archive(&config, "c.json", &layers, &["0", "1", "3"]),
        ),
        (
            "a layer above",
            archive(&config, "c.json", &layers, &["0", "1", "../2"]),
        ),
        (
            "an absolute layer",
            archive(&config, "c.json", &layers, &["0", "1", "/etc/passwd"]),
        ),
        (
            "a configuration above",
            archive(&config, "../../etc/passwd", &layers, &["0", "1", "2"]),
        ),
        (
            "a configuration that is none",
            archive(b"[]", "c.json", &layers, &["0", "1", "2"]),
        ),
        ("a configuration under a wrong name", named(&wrong_name)),
        ("a configuration in a wrong blob", named(&wrong_blob)),
        (
            "links in a circle",
            Tar::new()
                .symlink("manifest.json", "a")
                .symlink("a", "manifest.json")
                .end(),
        ),
        (
            "a link out",
            Tar::new().symlink("manifest.json", "/etc/passwd").end(),
        ),
        (
            "a manifest of 64 MiB",
            Tar::new().file("manifest.json", &huge).end(),
        ),
        (
            "a manifest 100,000 deep",
            Tar::new().file("manifest.json", &nested).end(),
        ),
        (
            "manifest and index at once",
            Tar::new()
                .file("index.json", &both)
                .file("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}")
                .end(),
        ),
        (
            "no oci-layout",
            with(&|files| files.retain(|(name, _)| name != "oci-layout")),
        ),
        (
            "a blob with one byte changed",
            with(&|files| files[1].1[20] ^= 1),
        ),
        ("a blob one byte longer", with(&|files| files[1].1.push(0))),
        (
            "a manifest with one byte changed",
            with(&|files| *files[4].1.last_mut().unwrap() = b' '),
        ),
        (
            "a bad reference",
            with(&|files| {
                let index = files
                    .iter_mut()
                    .find(|(name, _)| name == "index.json")
                    .unwrap();
                index.1 = String::from_utf8(index.1.clone())
                    .unwrap()
                    .replace(
                        r#""annotations":{"#,
                        r#""annotations":{"io.containerd.image.name":"../../x:y""#,
                    )
                    .into_bytes();
            }),
        ),
    ];
    let bench = Bench::new("overlay");
    for (what, archive) in cases {
        let error = bench.load(&archive).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {error}");
        bench.assert_empty(what);
    }
    let mut windows = String::from_utf8(config.clone()).unwrap();
    windows = windows.replace("\"linux\"", "\"windows\"");
    let error = bench
        .load(&archive(
            windows.as_bytes(),
            "c.json",
            &layers,
            &["0", "1", "2"],
        ))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = bench
        .load(&archive(&config, "c.json", &damaged, &["0", "1", "2"]))
        .unwrap_err();
    let Error::Mismatch {
        expected, found, ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!((expected, found), (digest(&layers[1]), digest(&damaged[1])));
    // The good ones are good.
    bench.load(&with(&|_| {})).unwrap();
}

#[test]
fn members_of_image_archives_stay_inside() {
    if !is_root() {
        return;
    }
    let canary = Canary::new();
    let out = canary.path();
    let bench = Bench::new("overlay");
    for (what, layer) in [
        (
            "through a link",
            Tar::new().symlink("l", &out).file("l/secret", b"owned"),
        ),
        (
            "above",
            Tar::new().file(&format!("{}{out}/secret", "../".repeat(30)), b"owned"),
        ),
        (
            "hard link",
            Tar::new().hardlink("x", &format!("{}{out}/secret", "../".repeat(30))),
        ),
    ] {
        let layer = layer.end();
        let error = bench
            .load(&docker_archive(std::slice::from_ref(&layer), "x:y"))
            .expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {error}");
        let error = bench
            .store
            .import(&mut &layer[..], crate::ImportConfig::default())
            .expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {error}");
        canary.check(what);
        bench.assert_empty(what);
    }
    // The archive's own members are never unpacked anywhere.
    let outer = Tar::new()
        .symlink("d", &out)
        .file("d/secret", b"owned")
        .hardlink("e", &format!("{out}/secret"))
        .add(
            Entry {
                name: b"sda",
                flag: b'4',
                device: (8, 0),
                ..Entry::default()
            },
            b"",
        );
    let outer = outer.raw(&docker_archive(&layers(), "x:y")).end();
    bench.load(&outer).unwrap();
    canary.check("outer members");
}

#[test]
fn bombs() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("overlay");
    let many = (0..crate::limits::ARCHIVE_ENTRIES_MAX + 1)
        .fold(Tar::new(), |tar, _| tar.dir("d/"))
        .end();
    // 64 MiB of zeros behind 64 KiB of gzip, as an image archive and as a layer.
    let zeros = gzip(&vec![0; 64 << 20]);
    let sparse = Tar::new()
        .pax("GNU.sparse.size", b"9")
        .pax("GNU.sparse.map", b"0,4")
        .file("index.json", b"head");
    for (what, archive) in [
        ("100,001 members", many),
        ("zeros", zeros),
        ("a sparse document", sparse.end()),
    ] {
        let error = bench.load(&archive).expect_err(what);
        assert!(
            matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported),
            "{what}: {error}"
        );
        bench.assert_empty(what);
    }
}

/// A data root on a file system of its own, of this size, that exists for one thread alone.
fn on_small_disk(options: &[(&str, &str)], test: impl FnOnce(Bench) + Send) {
    use berth_sys::mount::{MountAttr, attach, make_private_recursive, new_fs};
    use std::os::fd::AsFd;
    berth_sys::ns::in_thread(|| {
        berth_sys::ns::unshare(berth_sys::ns::Namespaces::MNT).unwrap();
        make_private_recursive().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let disk = new_fs("tmpfs", options, &[], MountAttr::NONE).unwrap();
        attach(
            disk.as_fd(),
            berth_sys::path::open_root(dir.path()).unwrap().as_fd(),
        )
        .unwrap();
        let store = Store::open(dir.path(), Some("overlay")).unwrap();
        let path = dir.path().to_owned();
        test(Bench { dir, store });
        berth_sys::mount::unmount_detached(path).unwrap();
    })
    .unwrap();
}

#[test]
fn full_disks() {
    if !is_root() {
        return;
    }
    let incompressible = |seed: u64, len: usize| -> Vec<u8> {
        let mut state = seed;
        (0..len)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) as u8
            })
            .collect()
    };
    on_small_disk(&[("size", "8m")], |bench| {
        let small = bench
            .load(&docker_archive(
                &[Tar::new().file("a", &incompressible(1, 1 << 20)).end()],
                "a:1",
            ))
            .unwrap()[0]
            .id;
        let before = bench.entries("layers");
        // More than the half that is free, seen before it is full; packed, so that only unpacking tells.
        let large = Tar::new().file("b", &vec![7; 6 << 20]).end();
        for archive in [
            docker_archive(std::slice::from_ref(&large), "b:1"),
            gzip(&docker_archive(&[large], "b:1")),
        ] {
            let error = bench.load(&archive).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            bench.store.settle();
            assert_eq!(
                (bench.entries("layers"), bench.entries("ingest")),
                (before.clone(), vec![])
            );
        }
        bench.store.snapshot_create("c", Some(&small)).unwrap();
        // To the last block.
        let filler = bench.dir.path().join("filler");
        let mut rest = vec![0; 8 << 20];
        while !rest.is_empty() && std::fs::write(&filler, &rest).is_err() {
            rest.truncate(rest.len() - 4096);
        }
        assert_eq!(
            bench
                .load(&docker_archive(&layers(), "c:1"))
                .unwrap_err()
                .kind(),
            ErrorKind::NoSpace
        );
        assert_eq!(
            bench
                .store
                .snapshot_create("d", Some(&small))
                .unwrap_err()
                .kind(),
            ErrorKind::NoSpace
        );
        bench.store.snapshot_remove("c").unwrap();
        assert!(bench.store.remove_image(&small).unwrap() > 0);
        bench.assert_empty("a full disk");
    });
    on_small_disk(&[("size", "64m"), ("nr_inodes", "200")], |bench| {
        let many = (0..300).fold(Tar::new(), |tar, at| tar.file(&format!("f{at}"), b""));
        let error = bench
            .load(&docker_archive(&[many.end()], "a:1"))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        bench.assert_empty("no inodes");
    });
}
