//! What stays, what goes, and what an early end leaves: nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

#[test]
fn a_cut_load_leaves_nothing() {
    if !is_root() {
        return;
    }
    let archive = docker_archive(&layers(), "x:y");
    let bench = Bench::new("overlay");
    for at in (0..archive.len() - 1024).step_by(1999) {
        let error = bench
            .store
            .load(
                &mut Cut {
                    bytes: &archive[..at],
                    panic: false,
                },
                &mut |_| {},
            )
            .unwrap_err();
        assert!(matches!(error, Error::Input { .. }), "{error}");
        bench.assert_empty("a cut load");
    }
    for at in [0, 5000] {
        let mut input = Cut {
            bytes: &archive[..at],
            panic: true,
        };
        assert!(
            catch_unwind(AssertUnwindSafe(|| bench
                .store
                .load(&mut input, &mut |_| {})))
            .is_err()
        );
        bench.assert_empty("a panic");
    }
    bench.load(&archive).unwrap();
}

#[test]
fn a_killed_load_leaves_nothing() {
    if !is_root() {
        return;
    }
    // As a kill leaves it: an ingest directory with half a layer, an orphaned layer, trash.
    let bench = Bench::new("overlay");
    let loaded = bench.load(&docker_archive(&layers(), "x:y")).unwrap();
    let root = bench.dir.path().to_owned();
    std::fs::create_dir_all(root.join("ingest/7/layer-0/fs/d")).unwrap();
    std::fs::write(root.join("ingest/7/layer-0/fs/d/f"), "half").unwrap();
    std::fs::write(root.join("ingest/blob-1"), "half").unwrap();
    std::fs::create_dir_all(root.join("discarded/x/y")).unwrap();
    std::fs::remove_file(root.join("content/config").join(loaded[0].id.hex())).unwrap();
    let bench = bench.reopened();
    assert!(bench.store.images().is_empty());
    assert_eq!(bench.entries("layers").len(), 3);
    let collected = bench.store.collect(&BTreeSet::new()).unwrap();
    assert_eq!(collected.layers, 3);
    bench.assert_empty("a killed load");
}

#[test]
fn progress_that_panics_leaves_nothing() {
    if !is_root() {
        return;
    }
    let archive = docker_archive(&layers(), "x:y");
    let bench = Bench::new("overlay");
    // The last step before names appear.
    let result = catch_unwind(AssertUnwindSafe(|| {
        bench.store.load(&mut &archive[..], &mut |step| {
            assert!(step != Progress::Storing, "on purpose")
        })
    }));
    assert!(result.is_err());
    bench.assert_empty("a panic before the end");
}

#[test]
fn layers_live_as_long_as_somebody_needs_them() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("overlay");
    let all = layers();
    let small = bench.load(&docker_archive(&all[..1], "small:1")).unwrap()[0].id;
    let big = bench.load(&docker_archive(&all, "big:1")).unwrap()[0].id;
    assert_eq!(bench.entries("layers").len(), 3);
    bench.store.snapshot_create("c1", Some(&big)).unwrap();
    assert_eq!(
        bench.store.remove_image(&big).unwrap(),
        0,
        "the snapshot needs all of them"
    );
    assert!(matches!(
        bench.store.remove_image(&big),
        Err(Error::NoImage(_))
    ));
    assert!(!bench.store.image_exists(&big));
    let bench = bench.reopened();
    assert_eq!(bench.store.images(), [small]);
    assert_eq!(
        bench.store.collect(&BTreeSet::from([small])).unwrap(),
        crate::Collected::default()
    );
    assert!(listing(bench.root_of("c1")).contains_key("opt/three"));
    bench.store.snapshot_remove("c1").unwrap();
    bench.store.snapshot_remove("c1").unwrap();
    assert_eq!(
        bench.entries("layers").len(),
        1,
        "what only the snapshot needed is gone"
    );
    assert!(bench.store.remove_image(&small).unwrap() > 0);
    bench.assert_empty("everything removed");
}

#[test]
fn a_sweep_spares_what_is_new_and_what_is_wanted() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("overlay");
    let all = layers();
    let kept = bench.load(&docker_archive(&all[..1], "kept:1")).unwrap()[0].id;
    let stale = bench.load(&docker_archive(&all, "stale:1")).unwrap()[0].id;
    assert_eq!(
        bench.store.collect(&BTreeSet::new()).unwrap(),
        crate::Collected::default(),
        "both are new"
    );
    let bench = bench.reopened();
    let collected = bench.store.collect(&BTreeSet::from([kept])).unwrap();
    assert_eq!((collected.images, collected.layers), (vec![stale], 2));
    assert_eq!(bench.store.images(), [kept]);
    assert_eq!(bench.entries("layers").len(), 1);
}

#[test]
fn a_load_under_way_keeps_what_it_counts_on() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("overlay");
    let all = layers();
    let small = bench.load(&docker_archive(&all[..1], "small:1")).unwrap()[0].id;
    let archive = docker_archive(&all, "big:1");
    let mut removed = false;
    let big = bench
        .store
        .load(&mut &archive[..], &mut |step| {
            // The load has found the lowest layer here; now its only image goes.
            if matches!(step, Progress::Exists { .. }) {
                assert_eq!(bench.store.remove_image(&small).unwrap(), 0);
                bench.store.collect(&BTreeSet::new()).unwrap();
                removed = true;
            }
        })
        .unwrap()[0]
        .id;
    assert!(removed);
    assert_eq!(bench.entries("layers").len(), 3);
    let bench = bench.reopened();
    assert_eq!(bench.store.images(), [big]);
}

#[test]
fn many_at_once() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("overlay");
    let all = layers();
    let archives = [
        docker_archive(&all[..1], "a:1"),
        docker_archive(&all[..2], "b:1"),
        docker_archive(&all, "c:1"),
    ];
    std::thread::scope(|scope| {
        for round in 0..8 {
            let (bench, archives) = (&bench, &archives);
            scope.spawn(move || {
                for turn in 0..6 {
                    let id = bench.load(&archives[(round + turn) % 3]).unwrap()[0].id;
                    let name = format!("s{round}-{turn}");
                    match bench.store.snapshot_create(&name, Some(&id)) {
                        Ok(()) => {
                            assert!(listing(bench.root_of(&name)).contains_key("etc/passwd"));
                            bench.store.snapshot_remove(&name).unwrap();
                        }
                        // Somebody else removed the image in between.
                        Err(Error::NoImage(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                    match bench.store.remove_image(&id) {
                        Ok(_) | Err(Error::NoImage(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    bench.assert_empty("the storm");
}

#[test]
fn damage_at_rest_concerns_its_image_alone() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("overlay");
    let all = layers();
    let good = bench.load(&docker_archive(&all[..1], "a:1")).unwrap()[0].id;
    let loaded = bench.load(&docker_archive(&all, "b:1")).unwrap();
    let bad = loaded[0].id;
    let root = bench.dir.path().to_owned();
    // A file of a layer changes: save must not give it out under the old name.
    let file = bench
        .entries("layers")
        .iter()
        .map(|name| root.join("layers").join(name).join("fs/opt/three"))
        .find(|path| path.exists())
        .unwrap();
    std::fs::write(&file, "X").unwrap();
    let images = [SaveImage {
        id: bad,
        refs: vec![],
    }];
    let error = bench.store.save(&images, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    std::fs::write(&file, "longer or shorter").unwrap();
    assert!(bench.store.save(&images, &mut Vec::new()).is_err());
    // A configuration changes.
    std::fs::write(root.join("content/config").join(bad.hex()), "{}").unwrap();
    let bench = bench.reopened();
    assert_eq!(bench.store.images(), [good]);
    // A layer's record is lost; loading again brings everything back.
    for layer in bench.entries("layers") {
        std::fs::write(
            root.join("layers").join(layer).join("layer.json"),
            "nonsense",
        )
        .unwrap();
    }
    std::fs::remove_file(root.join("content/config").join(bad.hex())).unwrap();
    let bench = bench.reopened();
    assert!(bench.store.images().is_empty());
    assert_eq!(bench.load(&docker_archive(&all, "b:1")).unwrap()[0].id, bad);
    assert!(!bench.save(&loaded).is_empty());
}

#[test]
fn one_agent_and_one_driver_per_data_root() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("overlay");
    let error = Store::open(bench.dir.path(), None).unwrap_err();
    assert!(matches!(error, Error::InUse(_)));
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let Bench { dir, store } = bench;
    let clone = store.clone();
    drop(store);
    assert!(matches!(
        Store::open(dir.path(), None),
        Err(Error::InUse(_))
    ));
    drop(clone);
    assert_eq!(
        Store::open(dir.path(), Some("vfs")).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(
        Store::open(dir.path(), Some("aufs")).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(
        Store::open(dir.path(), None).unwrap().driver_name(),
        "overlay"
    );
}

#[test]
fn directories_are_out_of_others_reach() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("overlay");
    bench.load(&docker_archive(&layers(), "x:y")).unwrap();
    let root = bench.dir.path();
    assert_eq!(stat_mode(root), 0o710);
    for dir in [
        "content",
        "content/config",
        "layers",
        "snapshots",
        "ingest",
        "discarded",
    ] {
        assert_eq!(stat_mode(&root.join(dir)), 0o700, "{dir}");
    }
    let layer = root.join("layers").join(&bench.entries("layers")[0]);
    assert_eq!(stat_mode(&layer), 0o700);
    assert_eq!(bench.store.driver_status()[0].0, "Backing Filesystem");
}
