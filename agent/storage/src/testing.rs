//! What the tests of several modules share: archives made by hand, so that they can be wrong on
//! purpose, and stores in directories of their own.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_model::digest::Digest;
use berth_sys::at::{self, Kind};
use berth_sys::path::{self, OFlags};

use crate::archive::pax::write_record;
use crate::tree::size::visit;

/// A tar archive in the making.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tar {
    pub(crate) bytes: Vec<u8>,
    pending: Vec<u8>,
}

/// One member's header.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) flag: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    /// The size in the header, when it is not that of the contents.
    pub(crate) size: Option<u64>,
    pub(crate) device: (u32, u32),
}

impl Default for Entry<'_> {
    fn default() -> Self {
        Entry {
            name: b"",
            link: b"",
            flag: b'0',
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
            size: None,
            device: (0, 0),
        }
    }
}

impl Tar {
    pub(crate) fn new() -> Self {
        Tar::default()
    }

    /// A record of the extended header of the next member.
    pub(crate) fn pax(mut self, key: &str, value: &[u8]) -> Self {
        write_record(&mut self.pending, key.as_bytes(), value);
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn add(mut self, entry: Entry<'_>, contents: &[u8]) -> Self {
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            self.append(
                &Entry {
                    name: b"pax",
                    flag: b'x',
                    ..Entry::default()
                },
                &pending,
            );
        }
        self.append(&entry, contents);
        self
    }

    fn append(&mut self, entry: &Entry<'_>, contents: &[u8]) {
        if entry.name.len() > 100 {
            let mut name = entry.name.to_vec();
            name.push(0);
            self.append(
                &Entry {
                    name: b"././@LongLink",
                    flag: b'L',
                    ..Entry::default()
                },
                &name,
            );
        }
        let mut header = tar::Header::new_gnu();
        let old = header.as_old_mut();
        let cut = entry.name.len().min(100);
        old.name[..cut].copy_from_slice(&entry.name[..cut]);
        let cut = entry.link.len().min(100);
        old.linkname[..cut].copy_from_slice(&entry.link[..cut]);
        old.linkflag[0] = entry.flag;
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_mtime(entry.mtime);
        header.set_size(entry.size.unwrap_or(contents.len() as u64));
        header.set_device_major(entry.device.0).unwrap();
        header.set_device_minor(entry.device.1).unwrap();
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(contents);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    pub(crate) fn file(self, name: &str, contents: &[u8]) -> Self {
        self.add(
            Entry {
                name: name.as_bytes(),
                ..Entry::default()
            },
            contents,
        )
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.add(
            Entry {
                name: name.as_bytes(),
                flag: b'5',
                mode: 0o755,
                ..Entry::default()
            },
            b"",
        )
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        let entry = Entry {
            name: name.as_bytes(),
            link: target.as_bytes(),
            flag: b'2',
            mode: 0o777,
            ..Entry::default()
        };
        self.add(entry, b"")
    }

    pub(crate) fn hardlink(self, name: &str, target: &str) -> Self {
        self.add(
            Entry {
                name: name.as_bytes(),
                link: target.as_bytes(),
                flag: b'1',
                ..Entry::default()
            },
            b"",
        )
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// An image configuration for these plain layers.
pub(crate) fn config_for(layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("\"{}\"", Digest::of(layer)))
        .collect();
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["sh"]}},"unknown":{{"kept":[1.0,1e2]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    )
    .into_bytes()
}

/// An archive as `docker save` wrote it between 1.10 and 25.
pub(crate) fn docker_archive(layers: &[Vec<u8>], tag: &str) -> Vec<u8> {
    let config = config_for(layers);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let mut tar = Tar::new();
    let mut names = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let name = format!("layer{at}/layer.tar");
        tar = tar
            .dir(&format!("layer{at}/"))
            .file(&format!("layer{at}/VERSION"), b"1.0")
            .file(&name, layer);
        names.push(format!("\"{name}\""));
    }
    let manifest = format!(
        r#"[{{"Config":"{config_name}","RepoTags":["{tag}"],"Layers":[{}]}}]"#,
        names.join(",")
    );
    tar.file(&config_name, &config)
        .file("manifest.json", manifest.as_bytes())
        .end()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn open(dir: &Path) -> OwnedFd {
    path::open_host(dir, OFlags::RDONLY | OFlags::DIRECTORY).unwrap()
}

/// Everything that a tree shows, one line for each name: for comparing trees.
pub(crate) fn listing(root: OwnedFd) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let top = at::stat(&root).unwrap();
    lines.insert(
        ".".to_owned(),
        format!("Dir {:o} {}:{} {:?}", top.mode, top.uid, top.gid, top.mtime),
    );
    let mut linked: BTreeMap<(u64, u64), Vec<String>> = BTreeMap::new();
    visit(root, &mut |cursor, name, meta| {
        let path = String::from_utf8_lossy(&cursor.path_of(name)).into_owned();
        let os = crate::tree::os(name);
        let more = match meta.kind {
            Kind::Link => format!(
                "-> {}",
                String::from_utf8_lossy(&at::readlink_at(cursor.dir(), os)?)
            ),
            Kind::File => {
                let fd = at::open_file_at(cursor.dir(), os)?;
                let attributes = attributes(&fd);
                let mut file = std::fs::File::from(fd);
                let (digest, size) = crate::archive::rebuild::digest_of(&mut file, "test").unwrap();
                format!("{size} {} {attributes}", digest.short())
            }
            Kind::Dir => attributes(at::open_dir_at(cursor.dir(), os)?),
            Kind::Char | Kind::Block => format!("{:?}", meta.rdev),
            Kind::Fifo | Kind::Socket => String::new(),
        };
        if meta.kind != Kind::Dir && meta.links > 1 {
            linked
                .entry((meta.dev, meta.ino))
                .or_default()
                .push(path.clone());
        }
        let line = format!(
            "{:?} {:o} {}:{} {:?} {more}",
            meta.kind, meta.mode, meta.uid, meta.gid, meta.mtime
        );
        lines.insert(path, line);
        Ok(())
    })
    .unwrap();
    for mut names in linked.into_values() {
        names.sort();
        for name in &names {
            if let Some(line) = lines.get_mut(name) {
                line.push_str(&format!(" = {}", names.join(" = ")));
            }
        }
    }
    lines
}

fn attributes(fd: impl AsFd) -> String {
    let mut all: Vec<String> = berth_sys::xattr::list(&fd)
        .unwrap()
        .into_iter()
        .filter(|name| !name.to_string_lossy().starts_with("security.selinux"))
        .map(|name| {
            let value = berth_sys::xattr::get(&fd, &name)
                .unwrap()
                .unwrap_or_default();
            format!("{}={}", name.to_string_lossy(), hex::encode(value))
        })
        .collect();
    all.sort();
    all.join(" ")
}

/// A host file and an empty directory that no archive may touch.
#[derive(Debug)]
pub(crate) struct Canary {
    dir: tempfile::TempDir,
}

impl Canary {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        Canary { dir }
    }

    pub(crate) fn path(&self) -> String {
        self.dir.path().to_str().unwrap().to_owned()
    }

    pub(crate) fn check(&self, after: &str) {
        let secret = self.dir.path().join("secret");
        assert_eq!(std::fs::read(&secret).unwrap(), b"secret", "after {after}");
        let meta = at::stat_at(open(self.dir.path()), "secret").unwrap();
        assert_eq!(
            (meta.links, meta.uid, meta.mode),
            (1, 0, 0o644),
            "after {after}"
        );
        assert_eq!(
            std::fs::read_dir(self.dir.path().join("empty"))
                .unwrap()
                .count(),
            0,
            "after {after}"
        );
        assert_eq!(
            std::fs::read_dir(self.dir.path()).unwrap().count(),
            2,
            "after {after}"
        );
    }
}

/// Unpacking and mounting need root; without it such tests say so and pass.
pub(crate) fn is_root() -> bool {
    // The owner of a process's own directory is its effective user.
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    if !root {
        eprintln!("not root: nothing tested");
    }
    root
}
