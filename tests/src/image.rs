//! Images made from nothing, in every form that `load` knows, right and wrong ones. No registry is needed:
//! the base is Debian's static busybox.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// The name under which the suites know the base image.
pub const BUSYBOX: &str = "busybox:latest";

/// Where Debian's busybox-static puts its program.
const BUSYBOX_PROGRAM: &str = "/bin/busybox";

/// The base image as a docker archive.
pub fn busybox() -> Vec<u8> {
    Image::new(BUSYBOX).layer(busybox_layer()).docker_archive()
}

/// The base image's only layer: busybox, its applets as links, and the few files that programs look for.
pub fn busybox_layer() -> Layer {
    let program = fs::read(BUSYBOX_PROGRAM).expect("busybox-static is installed");
    let list = Command::new(BUSYBOX_PROGRAM)
        .arg("--list")
        .output()
        .unwrap();
    let mut layer = Layer::new();
    for (dir, mode) in [
        ("bin", 0o755),
        ("etc", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
        ("var", 0o755),
        ("home", 0o755),
    ] {
        layer = layer.dir(dir, mode);
    }
    layer = layer
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nuser:x:1000:1000::/home:/bin/sh\n")
        .file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\nuser:x:1000:\nextra:x:2000:user\n")
        .file("bin/busybox", 0o755, &program);
    for applet in String::from_utf8_lossy(&list.stdout)
        .lines()
        .filter(|name| *name != "busybox")
    {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer
}

/// A layer's tar as it is built.
#[derive(Debug, Default)]
pub struct Layer {
    tar: Vec<u8>,
}

impl Layer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a tar as it is.
    pub fn from_tar(bytes: &[u8]) -> Self {
        Self {
            tar: bytes.to_vec(),
        }
    }

    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path.as_bytes(), b"", mode, b"")
    }

    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path.as_bytes(), b"", mode, content)
    }

    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(
            EntryType::Symlink,
            path.as_bytes(),
            target.as_bytes(),
            0o777,
            b"",
        )
    }

    #[must_use]
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(
            EntryType::Link,
            path.as_bytes(),
            target.as_bytes(),
            0o644,
            b"",
        )
    }

    #[must_use]
    pub fn fifo(self, path: &str) -> Self {
        self.entry(EntryType::Fifo, path.as_bytes(), b"", 0o644, b"")
    }

    #[must_use]
    pub fn device(mut self, path: &str, kind: EntryType, major: u32, minor: u32) -> Self {
        let mut header = header(kind, path.as_bytes(), b"", 0o666, 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_cksum();
        self.tar.extend_from_slice(header.as_bytes());
        self
    }

    /// A file with extended attributes, as pax records.
    #[must_use]
    pub fn file_with_xattrs(
        mut self,
        path: &str,
        content: &[u8],
        xattrs: &[(&str, &[u8])],
    ) -> Self {
        let mut records = Vec::new();
        for (name, value) in xattrs {
            records.extend(pax_record(&format!("SCHILY.xattr.{name}"), value));
        }
        self = self.entry(EntryType::XHeader, b"PaxHeaders/x", b"", 0o644, &records);
        self.file(path, 0o755, content)
    }

    /// A pax header with this record in front of whatever is added next.
    #[must_use]
    pub fn pax(self, key: &str, value: &[u8]) -> Self {
        self.entry(
            EntryType::XHeader,
            b"PaxHeaders/x",
            b"",
            0o644,
            &pax_record(key, value),
        )
    }

    /// Any entry with any bytes as its names: nothing is checked, so that hostile ones can be made.
    #[must_use]
    pub fn entry(
        mut self,
        kind: EntryType,
        path: &[u8],
        link: &[u8],
        mode: u32,
        content: &[u8],
    ) -> Self {
        for (long, what) in [
            (path, EntryType::GNULongName),
            (link, EntryType::GNULongLink),
        ] {
            if long.len() > 100 {
                let mut bytes = long.to_vec();
                bytes.push(0);
                self.push(
                    header(what, b"././@LongLink", b"", 0o644, bytes.len()),
                    &bytes,
                );
            }
        }
        self.push(header(kind, path, link, mode, content.len()), content);
        self
    }

    fn push(&mut self, mut header: Header, content: &[u8]) {
        header.set_cksum();
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(content);
        let padding = content.len().next_multiple_of(512) - content.len();
        self.tar.resize(self.tar.len() + padding, 0);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.tar.resize(self.tar.len() + 1024, 0);
        self.tar
    }
}

/// A header without a checksum.
fn header(kind: EntryType, path: &[u8], link: &[u8], mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(u64::try_from(size).unwrap());
    let fields = header.as_old_mut();
    copy_name(&mut fields.name, path);
    copy_name(&mut fields.linkname, link);
    header
}

fn copy_name(field: &mut [u8; 100], name: &[u8]) {
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name[..length]);
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// An image to be: a name, a configuration and layers.
#[derive(Debug)]
pub struct Image {
    reference: String,
    config: Value,
    layers: Vec<Vec<u8>>,
}

impl Image {
    pub fn new(reference: &str) -> Self {
        let config = json!({ "Cmd": ["sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] });
        Self {
            reference: reference.to_owned(),
            config,
            layers: Vec::new(),
        }
    }

    /// Sets one field of the image's `config`.
    #[must_use]
    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer.finish());
        self
    }

    /// The image's configuration document.
    pub fn config_bytes(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let history: Vec<Value> = self
            .layers
            .iter()
            .map(|_| json!({ "created": "2023-11-14T22:13:20Z", "created_by": "test" }))
            .collect();
        json!({
            "architecture": docker_architecture(),
            "os": "linux",
            "created": "2023-11-14T22:13:20Z",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": history,
        })
        .to_string()
        .into_bytes()
    }

    /// `sha256:…` of the configuration: what `docker images --no-trunc` shows.
    pub fn id(&self) -> String {
        digest(&self.config_bytes())
    }

    /// What `docker save` has written since 1.10: manifest.json, a configuration, a directory per layer.
    pub fn docker_archive(&self) -> Vec<u8> {
        let config = self.config_bytes();
        let config_name = format!("{}.json", hex_of(&config));
        let names: Vec<String> = self
            .layers
            .iter()
            .map(|layer| format!("{}/layer.tar", hex_of(layer)))
            .collect();
        let manifest =
            json!([{ "Config": config_name, "RepoTags": [self.reference], "Layers": names }]);
        let mut archive = Layer::new().file(&config_name, 0o644, &config);
        for (name, layer) in names.iter().zip(&self.layers) {
            archive = archive.file(name, 0o644, layer);
        }
        archive
            .file("manifest.json", 0o644, manifest.to_string().as_bytes())
            .finish()
    }

    /// What `docker save` wrote before 1.10: `repositories`, and a directory per layer with its own metadata.
    pub fn legacy_archive(&self) -> Vec<u8> {
        let (name, tag) = self
            .reference
            .rsplit_once(':')
            .unwrap_or((&self.reference, "latest"));
        let mut archive = Layer::new();
        let mut parent: Option<String> = None;
        for (index, layer) in self.layers.iter().enumerate() {
            let id = hex_of(&[layer.as_slice(), &index.to_be_bytes()].concat());
            let mut metadata = json!({
                "id": id, "created": "2013-06-13T14:03:50Z", "architecture": docker_architecture(), "os": "linux",
                "config": self.config,
            });
            if let Some(parent) = &parent {
                metadata["parent"] = json!(parent);
            }
            archive = archive
                .dir(&id, 0o755)
                .file(&format!("{id}/VERSION"), 0o644, b"1.0")
                .file(
                    &format!("{id}/json"),
                    0o644,
                    metadata.to_string().as_bytes(),
                )
                .file(&format!("{id}/layer.tar"), 0o644, layer);
            parent = Some(id);
        }
        let repositories = json!({ name: { tag: parent } });
        archive
            .file("repositories", 0o644, repositories.to_string().as_bytes())
            .finish()
    }

    /// An OCI image layout, its layers compressed as their media type says.
    pub fn oci_layout(&self, compression: Compression) -> Vec<u8> {
        let config = self.config_bytes();
        let mut blobs = vec![config.clone()];
        let mut layers = Vec::new();
        for layer in &self.layers {
            let packed = compression.pack(layer);
            layers.push(json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar{}", compression.suffix()),
                "digest": digest(&packed), "size": packed.len(),
            }));
            blobs.push(packed);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len() },
            "layers": layers,
        })
        .to_string()
        .into_bytes();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest), "size": manifest.len(),
                "annotations": { "io.containerd.image.name": format!("docker.io/library/{}", self.reference), "org.opencontainers.image.ref.name": self.reference },
            }],
        });
        blobs.push(manifest);
        let mut archive =
            Layer::new().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        for blob in &blobs {
            archive = archive.file(&format!("blobs/sha256/{}", hex_of(blob)), 0o644, blob);
        }
        archive
            .file("index.json", 0o644, index.to_string().as_bytes())
            .finish()
    }
}

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Compression {
    pub fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Compression::None => bytes.to_vec(),
            Compression::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Bzip2 => {
                let mut encoder =
                    bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
            Compression::None | Compression::Xz | Compression::Bzip2 => "",
        }
    }
}

/// `sha256:` and the digest of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex_of(bytes))
}

fn hex_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Go's name of this machine's architecture.
pub fn docker_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Compiles the probe, a static program that tries what containers must not do, and wraps it in an image.
pub fn probe(reference: &str) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/probe.c");
    let program = std::env::temp_dir().join(format!("berth-probe-{}", std::process::id()));
    let built = Command::new("cc")
        .args(["-static", "-O1", "-Wall", "-o"])
        .arg(&program)
        .arg(&source)
        .output()
        .unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let bytes = fs::read(&program).unwrap();
    fs::remove_file(&program).unwrap();
    Image::new(reference)
        .layer(busybox_layer())
        .layer(Layer::new().file("probe", 0o755, &bytes))
        .docker_archive()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pax_record_counts_itself() {
        assert_eq!(pax_record("path", b"x"), b"9 path=x\n");
        let long = pax_record("path", &[b'y'; 90]);
        assert_eq!(long.len(), 99);
        assert!(long.starts_with(b"99 path="));
        assert!(pax_record("path", &[b'y'; 91]).starts_with(b"101 "));
    }

    #[test]
    fn what_is_built_is_a_tar_that_others_read() {
        let tar = Layer::new()
            .dir("d", 0o755)
            .file("d/f", 0o640, b"text")
            .symlink("l", "d/f")
            .finish();
        let mut archive = tar::Archive::new(tar.as_slice());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["d", "d/f", "l"]);
    }
}
