//! The store as its users see it, on real directories and mounts. As root; without it they say so.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_model::digest::Digest;
use berth_model::reference::Reference;
use berth_sys::at;

use crate::testing::{Canary, Entry, Tar, config_for, docker_archive, gzip, is_root, listing};
use crate::{Error, ErrorKind, LoadedImage, MountOptions, Progress, Result, SaveImage, Store};

mod formats;
mod lifetime;
mod refused;
mod snapshots;

/// A store in a directory of its own.
struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new(driver: &str) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Some(driver)).unwrap();
        Bench { dir, store }
    }

    /// The store after an orderly or disorderly end of the agent.
    fn reopened(self) -> Bench {
        let driver = self.store.driver_name();
        drop(self.store);
        let store = Store::open(self.dir.path(), Some(driver)).unwrap();
        Bench {
            dir: self.dir,
            store,
        }
    }

    fn load(&self, archive: &[u8]) -> Result<Vec<LoadedImage>> {
        self.store.load(&mut &*archive, &mut |_| {})
    }

    fn save(&self, images: &[LoadedImage]) -> Vec<u8> {
        let images: Vec<SaveImage> = images
            .iter()
            .map(|image| SaveImage {
                id: image.id,
                refs: image.refs.clone(),
            })
            .collect();
        let mut out = Vec::new();
        self.store.save(&images, &mut out).unwrap();
        out
    }

    fn root_of(&self, snapshot: &str) -> OwnedFd {
        let mount = self
            .store
            .snapshot_mount(snapshot, &MountOptions::default())
            .unwrap();
        at::open_again(&mount).unwrap()
    }

    fn entries(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path().join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("init-"))
            .collect();
        names.sort();
        names
    }

    /// Nothing of any image or operation is left.
    fn assert_empty(&self, after: &str) {
        self.store.settle();
        for dir in [
            "content/config",
            "layers",
            "snapshots",
            "ingest",
            "discarded",
        ] {
            assert!(
                self.entries(dir).is_empty(),
                "{after}: {dir} has {:?}",
                self.entries(dir)
            );
        }
        assert!(self.store.images().is_empty(), "{after}");
    }
}

/// Three layers with a bit of everything.
fn layers() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .add(
                Entry {
                    name: b"./",
                    flag: b'5',
                    mode: 0o755,
                    mtime: 1,
                    ..Entry::default()
                },
                b"",
            )
            .add(
                Entry {
                    name: b"etc/",
                    flag: b'5',
                    mode: 0o750,
                    gid: 3,
                    mtime: 2,
                    ..Entry::default()
                },
                b"",
            )
            .file("etc/passwd", b"root:x:0:0\n")
            .file("etc/gone", b"x")
            .dir("opt/")
            .file("opt/one", b"1")
            .dir("opt/sub/")
            .file("opt/sub/two", b"2")
            .file("swap", b"a file")
            .dir("turn/")
            .file("turn/x", b"x")
            .hardlink("passwd2", "etc/passwd")
            .symlink("bin", "usr/bin")
            .end(),
        Tar::new()
            .file("etc/.wh.gone", b"")
            .file("opt/.wh..wh..opq", b"")
            .file("opt/three", b"3")
            .file(".wh.swap", b"")
            .dir("swap/")
            .file("swap/in", b"in")
            .file(".wh.turn", b"")
            .file("turn", b"now a file")
            .pax("SCHILY.xattr.user.a", b"b")
            .add(
                Entry {
                    name: b"suid",
                    mode: 0o6755,
                    uid: 5,
                    gid: 6,
                    ..Entry::default()
                },
                b"#!",
            )
            .end(),
        Tar::new()
            .dir("implied/by/")
            .file("deep/er/than/any/entry", b"!")
            .file("etc/shadow", b"new")
            .file("opt/sub/again", b"back")
            .end(),
    ]
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::of(bytes)
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// Gives bytes, then fails or panics.
struct Cut<'a> {
    bytes: &'a [u8],
    panic: bool,
}

impl Read for Cut<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            assert!(!self.panic, "on purpose");
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.bytes.read(into)
    }
}

fn stat_mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::symlink_metadata(path)
        .unwrap()
        .permissions()
        .mode()
        & 0o7777
}
