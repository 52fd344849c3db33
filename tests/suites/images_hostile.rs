//! Archives that lie, point elsewhere, or are made to exhaust: classes B.8 and B.9 of the security specification, by
//! `load` and by `import`. Refused or harmless; the canary stays, the agent lives, no half image is left.

use berth_tests::image::{Compression, Image, Layer, busybox_layer, digest};
use berth_tests::lab::Lab;
use berth_tests::pid;
use serde_json::{Value, json};
use tar::EntryType;

use crate::support::clean;

fn canary(lab: &Lab) {
    lab.sh("rm -rf /srv/canary; mkdir -p /srv/canary/empty; echo secret >/srv/canary/secret; chmod 600 /srv/canary/secret; ln /srv/canary/secret /srv/canary/twin");
}

#[track_caller]
fn canary_is_untouched(lab: &Lab) {
    assert_eq!(lab.sh("cat /srv/canary/secret; stat -c '%a %h %u' /srv/canary/secret; ls -A /srv/canary/empty | wc -l; ls /srv/canary | wc -l"), "secret\n600 2 0\n0\n3");
    lab.sh("rm -r /srv/canary");
}

/// What the store holds, by name.
fn store(lab: &Lab) -> String {
    lab.sh("cd /var/lib/berth; for d in content layers ingest; do find $d -mindepth 1 -maxdepth 3 2>/dev/null; done | sort")
}

/// Loads an archive that must be refused: an error of the client's, or one in the stream of a 200.
#[track_caller]
fn refused(lab: &Lab, what: &str, archive: &[u8]) {
    let agent = lab.agent();
    let before = store(lab);
    let images = lab.http().get("/images/json?all=1").json();
    let answer = lab
        .http()
        .post_bytes("/images/load", "application/x-tar", archive);
    let text = answer.text();
    assert!(
        answer.status >= 400 || text.contains("\"error\""),
        "B.8 {what}: accepted: {} {text}",
        answer.status
    );
    assert!(
        !text.contains("panicked") && !text.contains("src/"),
        "B.8 {what}: {text}"
    );
    assert_eq!(
        lab.http().get("/images/json?all=1").json(),
        images,
        "B.8 {what}: an image appeared"
    );
    assert_eq!(
        store(lab),
        before,
        "B.8 {what}: something is left in the store"
    );
    if agent.is_some() {
        assert_eq!(lab.agent(), agent, "B.8 {what}: the agent died");
    }
}

/// The entry kinds that try to leave the root.
fn escapes() -> Vec<(&'static str, Layer)> {
    let long = format!("{}/f", vec!["d"; 2000].join("/"));
    vec![
        (
            "dot dot",
            Layer::new().file("../../../../srv/canary/empty/f", 0o644, b"x"),
        ),
        (
            "dot dot inside",
            Layer::new()
                .dir("a", 0o755)
                .file("a/../../../../srv/canary/empty/f", 0o644, b"x"),
        ),
        (
            "through a link",
            Layer::new()
                .symlink("l", "/srv/canary/empty")
                .file("l/f", 0o644, b"x"),
        ),
        (
            "through a relative link",
            Layer::new()
                .symlink("l", "../../../../../../../srv/canary/empty")
                .file("l/f", 0o644, b"x"),
        ),
        (
            "through two links",
            Layer::new()
                .symlink("l", "m")
                .symlink("m", "/srv/canary/empty")
                .file("l/f", 0o644, b"x"),
        ),
        (
            "directory over a link",
            Layer::new()
                .symlink("l", "/srv/canary/empty")
                .dir("l", 0o777)
                .file("l/f", 0o644, b"x"),
        ),
        (
            "hard link out",
            Layer::new()
                .hardlink("h", "/srv/canary/secret")
                .file("h", 0o666, b"changed"),
        ),
        (
            "hard link dot dot",
            Layer::new().hardlink("h", "../../../../../../srv/canary/secret"),
        ),
        (
            "hard link through a link",
            Layer::new()
                .symlink("l", "/srv/canary")
                .hardlink("h", "l/secret"),
        ),
        (
            "hard link to a link",
            Layer::new()
                .symlink("l", "/srv/canary/secret")
                .hardlink("h", "l")
                .file("h", 0o666, b"changed"),
        ),
        (
            "file over a link",
            Layer::new()
                .symlink("l", "/srv/canary/secret")
                .file("l", 0o666, b"changed"),
        ),
        (
            "mode of a link",
            Layer::new().entry(EntryType::Symlink, b"l", b"/srv/canary/secret", 0o777, b""),
        ),
        (
            "pax path",
            Layer::new()
                .pax("path", b"../../../../srv/canary/empty/f")
                .file("x", 0o644, b"x"),
        ),
        (
            "pax link",
            Layer::new()
                .pax("linkpath", b"/srv/canary/secret")
                .hardlink("h", "x"),
        ),
        (
            "pax with zero byte",
            Layer::new().pax("path", b"a\0b").file("x", 0o644, b"x"),
        ),
        (
            "pax size that lies",
            Layer::new()
                .pax("size", b"99999999999999999999")
                .file("x", 0o644, b"x"),
        ),
        (
            "pax size negative",
            Layer::new().pax("size", b"-1").file("x", 0o644, b"x"),
        ),
        (
            "whiteout dot dot",
            Layer::new().file("a/.wh...", 0o644, b"").dir("a", 0o755),
        ),
        ("whiteout dot", Layer::new().file(".wh..", 0o644, b"")),
        ("whiteout of nothing", Layer::new().file(".wh.", 0o644, b"")),
        (
            "whiteout through a link",
            Layer::new()
                .symlink("l", "/srv/canary")
                .file("l/.wh.secret", 0o644, b""),
        ),
        (
            "opaque through a link",
            Layer::new()
                .symlink("l", "/srv/canary")
                .file("l/.wh..wh..opq", 0o644, b""),
        ),
        (
            "too deep",
            Layer::new().entry(EntryType::Regular, long.as_bytes(), b"", 0o644, b"x"),
        ),
        (
            "name too long",
            Layer::new().entry(EntryType::Regular, &[b'n'; 5000], b"", 0o644, b"x"),
        ),
        (
            "component too long",
            Layer::new().entry(EntryType::Regular, &[b'n'; 300], b"", 0o644, b"x"),
        ),
        (
            "empty name",
            Layer::new().entry(EntryType::Regular, b"", b"", 0o644, b"x"),
        ),
        (
            "the root as a file",
            Layer::new().entry(EntryType::Regular, b".", b"", 0o644, b"x"),
        ),
        (
            "the root as a link",
            Layer::new().entry(EntryType::Symlink, b"./", b"/srv/canary/empty", 0o777, b""),
        ),
        (
            "a kind nobody knows",
            Layer::new().entry(EntryType::new(b'Q'), b"q", b"", 0o644, b"x"),
        ),
        (
            "absolute",
            Layer::new().file("/srv/canary/empty/f", 0o644, b"x"),
        ),
        (
            "overlay attributes",
            Layer::new().file_with_xattrs(
                "x",
                b"x",
                &[
                    ("trusted.overlay.redirect", b"/srv/canary"),
                    ("trusted.overlay.opaque", b"y"),
                ],
            ),
        ),
        (
            "link to itself",
            Layer::new().symlink("l", "l").file("l/x", 0o644, b"x"),
        ),
        (
            "directory of a device",
            Layer::new()
                .device("d", EntryType::Char, 1, 3)
                .file("d/x", 0o644, b"x"),
        ),
        (
            "fifo with content",
            Layer::new().entry(EntryType::Fifo, b"p", b"", 0o644, b"content"),
        ),
    ]
}

#[test]
fn b8_entries_that_try_to_leave_the_root() {
    clean(|lab| {
        canary(lab);
        let agent = lab.agent();
        for (what, layer) in escapes() {
            let bytes = layer.finish();
            for way in ["load", "import"] {
                let answer = if way == "load" {
                    let mut source = Image::new("escape:v1").layer(busybox_layer());
                    source = source.layer(raw(&bytes));
                    lab.http().post_bytes(
                        "/images/load",
                        "application/x-tar",
                        &source.docker_archive(),
                    )
                } else {
                    lab.http().post_bytes(
                        "/images/create?fromSrc=-&repo=escape&tag=v1",
                        "application/x-tar",
                        &bytes,
                    )
                };
                // Refused, or unpacked where it belongs: below the root.
                assert!(
                    answer.status < 500 || answer.text().contains("message"),
                    "{what}: {}",
                    answer.text()
                );
                lab.http().delete("/images/escape:v1?force=1");
                assert_eq!(lab.agent(), agent, "B.8 {what} by {way}: the agent died");
            }
        }
        canary_is_untouched(lab);
    });
}

/// A layer whose tar is taken as it is.
fn raw(bytes: &[u8]) -> Layer {
    Layer::from_tar(bytes)
}

#[test]
fn b8_metadata_that_points_elsewhere() {
    clean(|lab| {
        canary(lab);
        let source = Image::new("meta:v1").layer(Layer::new().file("f", 0o644, b"x"));
        let config = source.config_bytes();
        let archive = |manifest: Value, extra: Layer| {
            extra
                .file("manifest.json", 0o644, manifest.to_string().as_bytes())
                .finish()
        };
        let with_config = || Layer::new().file("c.json", 0o644, &config);
        for (what, bytes) in [
            (
                "config by path",
                archive(
                    json!([{ "Config": "../../../../srv/canary/secret", "RepoTags": ["meta:v1"], "Layers": [] }]),
                    Layer::new(),
                ),
            ),
            (
                "config absolute",
                archive(
                    json!([{ "Config": "/srv/canary/secret", "RepoTags": ["meta:v1"], "Layers": [] }]),
                    Layer::new(),
                ),
            ),
            (
                "layer by path",
                archive(
                    json!([{ "Config": "c.json", "RepoTags": ["meta:v1"], "Layers": ["../../../../../srv/canary/secret"] }]),
                    with_config(),
                ),
            ),
            (
                "layer by link",
                archive(
                    json!([{ "Config": "c.json", "RepoTags": ["meta:v1"], "Layers": ["l"] }]),
                    with_config().symlink("l", "/srv/canary/secret"),
                ),
            ),
            (
                "config by link",
                archive(
                    json!([{ "Config": "l", "RepoTags": ["meta:v1"], "Layers": [] }]),
                    Layer::new().symlink("l", "/srv/canary/secret"),
                ),
            ),
            (
                "no config",
                archive(
                    json!([{ "Config": "none.json", "RepoTags": ["meta:v1"], "Layers": [] }]),
                    Layer::new(),
                ),
            ),
            (
                "fewer layers than ids",
                archive(
                    json!([{ "Config": "c.json", "RepoTags": ["meta:v1"], "Layers": [] }]),
                    with_config(),
                ),
            ),
            (
                "wrong layer",
                archive(
                    json!([{ "Config": "c.json", "RepoTags": ["meta:v1"], "Layers": ["l"] }]),
                    with_config().file(
                        "l",
                        0o644,
                        &Layer::new().file("f", 0o644, b"other").finish(),
                    ),
                ),
            ),
            (
                "bad tag",
                archive(
                    json!([{ "Config": "c.json", "RepoTags": ["../../etc:x y"], "Layers": ["l"] }]),
                    with_config().file("l", 0o644, &Layer::new().file("f", 0o644, b"x").finish()),
                ),
            ),
            (
                "manifest is a link",
                Layer::new()
                    .symlink("manifest.json", "/srv/canary/secret")
                    .finish(),
            ),
            (
                "manifest is a FIFO",
                Layer::new().fifo("manifest.json").finish(),
            ),
            (
                "manifest is no JSON",
                Layer::new().file("manifest.json", 0o644, b"{").finish(),
            ),
            (
                "manifest is a number",
                Layer::new().file("manifest.json", 0o644, b"7").finish(),
            ),
            (
                "manifest with null",
                Layer::new()
                    .file("manifest.json", 0o644, b"[null]")
                    .finish(),
            ),
            (
                "deep manifest",
                Layer::new()
                    .file("manifest.json", 0o644, "[".repeat(200_000).as_bytes())
                    .finish(),
            ),
            ("empty archive", Layer::new().finish()),
            (
                "no archive",
                b"this is no archive at all, but it is longer than nothing".repeat(40),
            ),
            ("nothing", Vec::new()),
            ("cut archive", {
                let mut bytes = source.docker_archive();
                bytes.truncate(bytes.len() / 2);
                bytes
            }),
            ("cut gzip", {
                let mut bytes = Compression::Gzip.pack(&source.docker_archive());
                bytes.truncate(bytes.len() - 20);
                bytes
            }),
            (
                "legacy id by path",
                Layer::new()
                    .file(
                        "repositories",
                        0o644,
                        br#"{"meta":{"v1":"../../../srv/canary"}}"#,
                    )
                    .finish(),
            ),
            (
                "legacy without json",
                Layer::new()
                    .file(
                        "repositories",
                        0o644,
                        format!(r#"{{"meta":{{"v1":"{}"}}}}"#, "a".repeat(64)).as_bytes(),
                    )
                    .finish(),
            ),
        ] {
            refused(lab, what, &bytes);
        }
        canary_is_untouched(lab);
    });
}

#[test]
fn b8_a_layer_that_is_its_own_parent() {
    clean(|lab| {
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let layer = Layer::new().file("f", 0o644, b"x").finish();
        for (first, second) in [(&one, &one), (&two, &one)] {
            let mut archive = Layer::new();
            for (id, parent) in [(&one, first), (&two, second)] {
                archive = archive
                    .file(
                        &format!("{id}/json"),
                        0o644,
                        json!({ "id": id, "parent": parent }).to_string().as_bytes(),
                    )
                    .file(&format!("{id}/layer.tar"), 0o644, &layer);
            }
            let repositories = json!({ "loop": { "v1": one } }).to_string();
            refused(
                lab,
                "parents in a circle",
                &archive
                    .file("repositories", 0o644, repositories.as_bytes())
                    .finish(),
            );
        }
    });
}

#[test]
fn b9_blobs_that_are_not_what_they_are_called() {
    clean(|lab| {
        let source = Image::new("wrong:v1").layer(Layer::new().file("f", 0o644, b"right"));
        let good = source.oci_layout(Compression::None);
        // One byte of a blob is changed, and nothing else.
        let at = good
            .windows(5)
            .position(|window| window == b"right")
            .unwrap();
        let mut bad = good.clone();
        bad[at] ^= 1;
        refused(lab, "one byte changed", &bad);
        // A document that is a manifest and an index at once.
        let config = source.config_bytes();
        let both = json!({
            "schemaVersion": 2,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len() },
            "layers": [], "manifests": [],
        })
        .to_string();
        let hex = |bytes: &[u8]| digest(bytes).split_once(':').unwrap().1.to_owned();
        let index = json!({ "schemaVersion": 2, "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(both.as_bytes()), "size": both.len(),
            "annotations": { "org.opencontainers.image.ref.name": "wrong:v1" } }] }).to_string();
        let archive = Layer::new()
            .file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)
            .file(&format!("blobs/sha256/{}", hex(&config)), 0o644, &config)
            .file(
                &format!("blobs/sha256/{}", hex(both.as_bytes())),
                0o644,
                both.as_bytes(),
            )
            .file("index.json", 0o644, index.as_bytes())
            .finish();
        refused(lab, "manifest and index at once", &archive);
        for bad in [
            "sha256:../../x",
            "sha256:12",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "../../srv/canary/secret",
            "",
        ] {
            let index = json!({ "schemaVersion": 2, "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": bad, "size": 3 }] }).to_string();
            let archive = Layer::new()
                .file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)
                .file("index.json", 0o644, index.as_bytes())
                .finish();
            refused(lab, bad, &archive);
        }
    });
}

#[test]
fn b8_bombs() {
    clean(|lab| {
        let agent = lab.agent().unwrap();
        let before = pid::pss_kib(agent).unwrap();
        let huge = "x".repeat(64 << 20);
        let manifest = Layer::new()
            .file("manifest.json", 0o644, huge.as_bytes())
            .finish();
        refused(lab, "manifest of 64 MiB", &manifest);
        let nested = (0..6).fold(vec![0; 1 << 20], |bytes, _| Compression::Gzip.pack(&bytes));
        refused(lab, "gzip in gzip", &nested);
        let zeros = Compression::Gzip.pack(&vec![0; 512 << 20]);
        refused(lab, "zeros", &zeros);
        let pax = Layer::new()
            .entry(EntryType::XHeader, b"x", b"", 0o644, &vec![b'1'; 16 << 20])
            .file("manifest.json", 0o644, b"[]")
            .finish();
        refused(lab, "a pax header of 16 MiB", &pax);
        let after = pid::pss_kib(agent).unwrap();
        assert!(
            after < before + (64 << 10),
            "C.4: the agent grew from {before} to {after} KiB"
        );
    });
}

#[test]
fn a_load_whose_client_vanishes_leaves_nothing() {
    use std::io::Write;
    clean(|lab| {
        let before = store(lab);
        let archive = Image::new("vanished:v1")
            .layer(busybox_layer())
            .docker_archive();
        let head = format!(
            "POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
            archive.len()
        );
        let mut stream =
            std::os::unix::net::UnixStream::connect(lab.path("/run/berth/berth.sock")).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&archive[..archive.len() / 2]).unwrap();
        drop(stream);
        lab.http().get("/images/vanished:v1/json").expect(404);
        // The next load is not held up, and what the first had written is gone.
        lab.http()
            .post_bytes("/images/load", "application/x-tar", &archive)
            .expect(200);
        lab.http().delete("/images/vanished:v1?force=1").expect(200);
        assert_eq!(store(lab), before);
    });
}
