//! Images in and out: every form that `load` knows, `save`, `import`, tags, removal, prune, and what a layer may hold.

use berth_tests::image::{Compression, Image, Layer, busybox_layer};
use berth_tests::lab::Lab;
use serde_json::{Value, json};
use tar::EntryType;

use crate::support::{clean, load_with, patient, remove_image};

fn load(lab: &Lab, archive: &[u8]) -> String {
    lab.http()
        .post_bytes("/images/load", "application/x-tar", archive)
        .expect(200)
        .text()
}

fn image(name: &str) -> Image {
    Image::new(name)
        .layer(busybox_layer())
        .layer(
            Layer::new()
                .dir("made", 0o755)
                .file("made/f", 0o640, b"content\n"),
        )
}

#[test]
fn load_reads_every_form() {
    clean(|lab| {
        let name = "forms:v1";
        let source = image(name);
        let id = source.id();
        for (form, archive) in [
            ("docker archive", source.docker_archive()),
            ("OCI layout", source.oci_layout(Compression::None)),
            (
                "OCI layout, gzip layers",
                source.oci_layout(Compression::Gzip),
            ),
            (
                "OCI layout, zstd layers",
                source.oci_layout(Compression::Zstd),
            ),
        ] {
            for compression in [
                Compression::None,
                Compression::Gzip,
                Compression::Zstd,
                Compression::Xz,
                Compression::Bzip2,
            ] {
                let text = load(lab, &compression.pack(&archive));
                assert!(
                    text.contains("Loaded image: forms:v1"),
                    "{form}, {compression:?}: {text}"
                );
                let detail = lab
                    .http()
                    .get(&format!("/images/{name}/json"))
                    .expect(200)
                    .json();
                assert_eq!(
                    detail["Id"],
                    id.as_str(),
                    "{form}, {compression:?}: the id is the digest of the configuration"
                );
                remove_image(lab, name);
            }
        }
        // The oldest form has no configuration of its own: one is made.
        load(lab, &source.legacy_archive());
        assert_eq!(
            lab.docker(&["run", "--rm", name, "cat", "/made/f"]).ok(),
            "content"
        );
        remove_image(lab, name);
    });
}

#[test]
fn the_cli_loads_and_saves() {
    clean(|lab| {
        std::fs::write(lab.share().join("in.tar"), image("cli:v1").docker_archive()).unwrap();
        assert_eq!(
            lab.docker(&["load", "-q", "-i", "/lab/in.tar"]).ok(),
            "Loaded image: cli:v1"
        );
        lab.docker(&["save", "-o", "/lab/out.tar", "cli:v1"]).ok();
        let id = lab
            .docker(&["image", "inspect", "-f", "{{.Id}}", "cli:v1"])
            .ok();
        lab.docker(&["rmi", "cli:v1"]).ok();
        lab.docker(&["image", "inspect", "cli:v1"]).fails(1);
        lab.docker(&["load", "-i", "/lab/out.tar"]).ok();
        assert_eq!(
            lab.docker(&["image", "inspect", "-f", "{{.Id}}", "cli:v1"])
                .ok(),
            id,
            "the same after a round trip"
        );
        assert_eq!(
            lab.docker(&["run", "--rm", "cli:v1", "cat", "/made/f"])
                .ok(),
            "content"
        );
        lab.docker(&["rmi", "cli:v1"]).ok();
    });
}

#[test]
fn what_is_saved_is_both_forms_and_verifies() {
    clean(|lab| {
        load(lab, &image("saved:v1").docker_archive());
        let bytes = lab.http().get("/images/saved:v1/get").expect(200).body;
        let mut files = std::collections::BTreeMap::new();
        let mut archive = tar::Archive::new(bytes.as_slice());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            files.insert(path, content);
        }
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"], json!(["saved:v1"]));
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["schemaVersion"], 2);
        assert!(files.contains_key("oci-layout"));
        for (path, content) in files
            .iter()
            .filter(|(path, content)| path.starts_with("blobs/sha256/") && !content.is_empty())
        {
            let name = path.rsplit('/').next().unwrap();
            assert_eq!(
                berth_tests::image::digest(content),
                format!("sha256:{name}")
            );
        }
        remove_image(lab, "saved:v1");
    });
}

#[test]
fn several_images_in_one_archive() {
    clean(|lab| {
        load(lab, &image("one:v1").docker_archive());
        lab.docker(&["tag", "one:v1", "two:v2"]).ok();
        let bytes = lab
            .http()
            .get("/images/get?names=one:v1&names=two:v2")
            .expect(200)
            .body;
        lab.docker(&["rmi", "one:v1", "two:v2"]).ok();
        let text = load(lab, &bytes);
        assert!(text.contains("one:v1") && text.contains("two:v2"), "{text}");
        lab.docker(&["rmi", "one:v1", "two:v2"]).ok();
        lab.http().get("/images/nosuch:v1/get").expect(404);
    });
}

#[test]
fn list_inspect_history() {
    clean(|lab| {
        load(
            lab,
            &image("listed:v1")
                .set("Labels", json!({ "team": "a" }))
                .docker_archive(),
        );
        let line = lab
            .docker(&[
                "images",
                "--format",
                "{{.Repository}}:{{.Tag}}",
                "--filter",
                "label=team=a",
            ])
            .ok();
        assert_eq!(line, "listed:v1");
        assert_eq!(
            lab.docker(&[
                "images",
                "-q",
                "--no-trunc",
                "--filter",
                "reference=listed:*"
            ])
            .ok(),
            image("listed:v1")
                .set("Labels", json!({ "team": "a" }))
                .id()
        );
        let detail = lab.http().get("/images/listed:v1/json").expect(200).json();
        assert_eq!(detail["RootFS"]["Layers"].as_array().unwrap().len(), 2);
        assert_eq!(detail["Os"], "linux");
        assert_eq!(detail["RepoTags"], json!(["listed:v1"]));
        assert_eq!(detail["Created"], "2023-11-14T22:13:20Z");
        assert!(detail["Size"].as_u64().unwrap() > 500_000);
        let history = lab
            .http()
            .get("/images/listed:v1/history")
            .expect(200)
            .json();
        assert_eq!(history.as_array().unwrap().len(), 2);
        assert_eq!(history[0]["Id"], detail["Id"]);
        assert_eq!(history[1]["Id"], "<missing>");
        remove_image(lab, "listed:v1");
    });
}

#[test]
fn tags_move_and_images_go_with_their_last() {
    clean(|lab| {
        load(lab, &image("first:v1").docker_archive());
        lab.docker(&["tag", "first:v1", "localhost:5000/deep/name:other"])
            .ok();
        let error = lab.docker(&["tag", "first:v1", "Upper:v1"]).fails(1);
        assert!(
            error.contains("must be lowercase") || error.contains("invalid reference format"),
            "{error}"
        );
        let text = lab.docker(&["rmi", "first:v1"]).ok();
        assert_eq!(text, "Untagged: first:v1");
        let text = lab.docker(&["rmi", "localhost:5000/deep/name:other"]).ok();
        assert!(
            text.starts_with("Untagged: localhost:5000/deep/name:other\nDeleted: sha256:"),
            "{text}"
        );

        let error = lab.docker(&["rmi", "first:v1"]).fails(1);
        assert!(error.contains("No such image"), "{error}");
    });
}

#[test]
fn an_image_in_use_is_kept() {
    clean(|lab| {
        load(lab, &image("used:v1").docker_archive());
        let id = lab.docker(&["create", "used:v1", "true"]).ok();
        let error = lab.docker(&["rmi", "used:v1"]).fails(1);
        assert!(
            error.contains("is being used by") || error.contains("container"),
            "{error}"
        );
        lab.http().delete("/images/used:v1").expect(409);
        let text = lab.docker(&["rmi", "-f", "used:v1"]).ok();
        assert!(text.contains("Untagged: used:v1"), "{text}");
        // Without its name, but still there: the container can be started.
        lab.docker(&["start", "-a", &id]).ok();
        lab.docker(&["rm", &id]).ok();
        lab.docker(&["image", "prune", "-f"]).ok();
    });
}

#[test]
fn prune_takes_what_has_no_name() {
    clean(|lab| {
        let archive = |content: &[u8]| {
            Image::new("moving:v1")
                .layer(Layer::new().file("f", 0o644, content))
                .docker_archive()
        };
        load(lab, &archive(b"old"));
        let old = lab
            .docker(&["image", "inspect", "-f", "{{.Id}}", "moving:v1"])
            .ok();
        load(lab, &archive(b"new"));
        assert_eq!(
            lab.docker(&["images", "-q", "--no-trunc", "--filter", "dangling=true"])
                .ok(),
            old
        );
        let answer = lab.http().post("/images/prune").expect(200).json();
        assert!(
            answer["ImagesDeleted"].to_string().contains(&old),
            "{answer}"
        );
        assert!(answer["SpaceReclaimed"].as_u64().unwrap() > 0, "{answer}");
        assert_eq!(
            lab.docker(&["images", "-q", "--filter", "dangling=true"])
                .ok(),
            ""
        );
        remove_image(lab, "moving:v1");
    });
}

#[test]
fn import_makes_an_image_of_a_tree() {
    clean(|lab| {
        let tar = busybox_layer().file("hello", 0o644, b"imported\n").finish();
        std::fs::write(
            lab.share().join("tree.tar.gz"),
            Compression::Gzip.pack(&tar),
        )
        .unwrap();
        let id = lab
            .docker(&[
                "import",
                "-c",
                "CMD [\"cat\", \"/hello\"]",
                "-c",
                "ENV A=b",
                "-m",
                "from a tree",
                "/lab/tree.tar.gz",
                "tree:v1",
            ])
            .ok();
        assert!(id.starts_with("sha256:"), "{id}");
        assert_eq!(lab.docker(&["run", "--rm", "tree:v1"]).ok(), "imported");
        let comment = lab
            .docker(&["history", "--format", "{{.Comment}}", "tree:v1"])
            .ok();
        assert_eq!(comment, "from a tree");
        let env = lab
            .docker(&["image", "inspect", "-f", "{{.Config.Env}}", "tree:v1"])
            .ok();
        assert_eq!(env, "[A=b]");
        let error = lab
            .docker(&["import", "-c", "RUN true", "/lab/tree.tar.gz"])
            .fails(1);
        assert!(error.to_lowercase().contains("run"), "{error}");
        remove_image(lab, "tree:v1");
    });
}

#[test]
fn a_layer_keeps_what_a_file_system_holds() {
    clean(|lab| {
        let image = "content:v1";
        let mut capability = vec![0x01, 0, 0, 2];
        capability.extend_from_slice(&(1u32 << 10).to_le_bytes());
        capability.resize(20, 0);
        load_with(
            lab,
            image,
            Layer::new()
                .dir("d", 0o1777)
                .file("d/setuid", 0o4755, b"x")
                .file("d/setgid", 0o2755, b"x")
                .hardlink("d/hard", "d/setuid")
                .symlink("d/soft", "../etc/passwd")
                .fifo("d/pipe")
                .device("d/node", EntryType::Char, 1, 3)
                .file_with_xattrs(
                    "d/capable",
                    b"x",
                    &[("security.capability", &capability), ("user.note", b"kept")],
                )
                .entry(
                    EntryType::Regular,
                    format!("d/{}", "n".repeat(200)).as_bytes(),
                    b"",
                    0o644,
                    b"long",
                )
                .pax("path", "d/umläut".as_bytes())
                .file("d/short", 0o644, b"pax"),
        );
        let text = lab.docker(&["run", "--rm", image, "sh", "-c",
            "cd /d; stat -c '%n %a %h %F' . setuid setgid hard pipe node; readlink soft; ls | wc -l; cat n*; cat uml*; stat -c '%Y' setgid"]).ok();
        for line in [
            ". 1777",
            "setuid 4755 2",
            "setgid 2755 1",
            "hard 4755 2",
            "pipe 644 1 fifo",
            "node 666 1 character special file",
            "../etc/passwd",
            "longpax",
            "1700000000",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        // A capability of a file works: NET_BIND_SERVICE for a user who has none.
        let layers = lab.sh("find /var/lib/berth -name capable -path '*d/capable' | head -n 1");
        assert_eq!(lab.sh(&format!("python3 -c \"import os; print(os.getxattr('{layers}', 'security.capability').hex(), os.getxattr('{layers}', 'user.note').decode())\"")),
            format!("{} kept", capability.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
        remove_image(lab, image);
    });
}

#[test]
fn whiteouts_and_opaque_directories_hide() {
    clean(|lab| {
        let lower = Layer::new()
            .dir("a", 0o755)
            .file("a/keep", 0o644, b"k")
            .file("a/gone", 0o644, b"g")
            .dir("b", 0o755)
            .file("b/old", 0o644, b"o")
            .dir("c", 0o755)
            .dir("c/deep", 0o755)
            .file("c/deep/f", 0o644, b"f")
            .dir("t", 0o755)
            .file("t/f", 0o644, b"f");
        let upper = Layer::new()
            .file("a/.wh.gone", 0o644, b"")
            .dir("b", 0o755)
            .file("b/.wh..wh..opq", 0o644, b"")
            .file("b/new", 0o644, b"n")
            .file(".wh.c", 0o644, b"")
            .file("t", 0o644, b"a file now");
        let archive = Image::new("whited:v1")
            .layer(busybox_layer())
            .layer(lower)
            .layer(upper)
            .docker_archive();
        load(lab, &archive);
        let text = lab
            .docker(&[
                "run",
                "--rm",
                "whited:v1",
                "sh",
                "-c",
                "ls /a /b; test -e /c || echo no c; cat /t; find / -xdev -name '.wh.*'",
            ])
            .ok();
        assert_eq!(text, "/a:\nkeep\n\n/b:\nnew\nno c\na file now");
        remove_image(lab, "whited:v1");
    });
}

#[test]
fn layers_are_stored_once() {
    clean(|lab| {
        load(lab, &image("shared:a").docker_archive());
        let before = lab.sh("ls /var/lib/berth/layers | wc -l");
        load(
            lab,
            &Image::new("shared:b")
                .set("Env", json!(["X=1"]))
                .layer(busybox_layer())
                .layer(
                    Layer::new()
                        .dir("made", 0o755)
                        .file("made/f", 0o640, b"content\n"),
                )
                .docker_archive(),
        );
        assert_eq!(lab.sh("ls /var/lib/berth/layers | wc -l"), before);
        lab.docker(&["rmi", "shared:a"]).ok();
        assert_eq!(
            lab.docker(&["run", "--rm", "shared:b", "cat", "/made/f"])
                .ok(),
            "content",
            "what is shared stays"
        );
        lab.docker(&["rmi", "shared:b"]).ok();
    });
}

#[test]
fn two_loads_at_once() {
    clean(|lab| {
        let archive = image("twice:v1").docker_archive();
        std::thread::scope(|scope| {
            let loads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| load(lab, &archive)))
                .collect();
            for result in loads {
                assert!(result.join().unwrap().contains("twice:v1"));
            }
        });
        assert_eq!(
            lab.docker(&["run", "--rm", "twice:v1", "cat", "/made/f"])
                .ok(),
            "content"
        );
        remove_image(lab, "twice:v1");
    });
}

#[test]
fn many_layers() {
    clean(|lab| {
        let mut source = Image::new("tall:v1").layer(busybox_layer());
        for number in 0..120 {
            source = source.layer(Layer::new().file(
                &format!("f{number}"),
                0o644,
                number.to_string().as_bytes(),
            ));
        }
        load(lab, &source.docker_archive());
        assert_eq!(
            lab.docker(&[
                "run",
                "--rm",
                "tall:v1",
                "sh",
                "-c",
                "ls / | grep -c '^f[0-9]'; cat /f119"
            ])
            .ok(),
            "120\n119"
        );
        remove_image(lab, "tall:v1");
    });
}

#[test]
fn the_running_container_outlives_its_tag() {
    clean(|lab| {
        load(lab, &image("fleeting:v1").docker_archive());
        let id = patient(lab, &[]);
        lab.docker(&["rmi", "fleeting:v1"]).ok();
        assert_eq!(crate::support::inspect(lab, &id)["State"]["Running"], true);
    });
}
