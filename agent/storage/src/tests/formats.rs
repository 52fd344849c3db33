//! What comes in and goes out.

use std::io::Write;

use super::*;

type Pack<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
/// Names and contents of an archive.
pub(super) type Files = Vec<(String, Vec<u8>)>;

/// The OCI layout of these layers, each with the compression asked for.
pub(super) fn oci(
    layers: &[Vec<u8>],
    pack: &dyn Fn(&[u8]) -> Vec<u8>,
    annotations: &str,
) -> Vec<(String, Vec<u8>)> {
    let config = config_for(layers);
    let mut blobs = Files::new();
    let mut add = |bytes: &[u8]| {
        blobs.push((
            format!("blobs/sha256/{}", digest(bytes).hex()),
            bytes.to_vec(),
        ));
        format!(r#""digest":"{}","size":{}"#, digest(bytes), bytes.len())
    };
    let packed: Vec<String> = layers
        .iter()
        .map(|layer| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip",{}}}"#,
                add(&pack(layer))
            )
        })
        .collect();
    let config = add(&config);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json",{config}}},"layers":[{}]}}"#,
        packed.join(",")
    );
    let manifest = add(manifest.as_bytes());
    let other = digest(b"not in the archive");
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[
            {{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{other}","size":5,"platform":{{"os":"linux","architecture":"m68k"}}}},
            {{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{other}","size":5,"platform":{{"os":"unknown","architecture":"unknown"}}}},
            {{"mediaType":"application/vnd.oci.image.manifest.v1+json",{manifest},"platform":{{"os":"linux","architecture":"{}"}}}}]}}"#,
        if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        }
    );
    let index = add(index.as_bytes());
    let top = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json",{index},"annotations":{{{annotations}}}}}]}}"#
    );
    blobs.push(("index.json".to_owned(), top.into_bytes()));
    blobs.push((
        "oci-layout".to_owned(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    ));
    blobs
}

pub(super) fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    files
        .iter()
        .fold(Tar::new(), |tar, (name, bytes)| tar.file(name, bytes))
        .end()
}

/// An archive from before 1.10: (id, parent, layer) each, and a name for one.
fn legacy(layers: &[(&str, &str, Vec<u8>)], tags: &str) -> Tar {
    let mut tar = Tar::new();
    for (id, parent, layer) in layers {
        let parent = if parent.is_empty() {
            String::new()
        } else {
            format!(r#","parent":"{parent}""#)
        };
        let json = format!(
            r#"{{"id":"{id}"{parent},"created":"2014-01-0{}T00:00:00Z","architecture":"amd64","os":"linux","config":{{"Cmd":["sh"]}}}}"#,
            1 + id.len() % 9
        );
        tar = tar
            .dir(&format!("{id}/"))
            .file(&format!("{id}/VERSION"), b"1.0")
            .file(&format!("{id}/json"), json.as_bytes())
            .file(&format!("{id}/layer.tar"), layer);
    }
    if tags.is_empty() {
        tar
    } else {
        tar.file("repositories", tags.as_bytes())
    }
}

#[test]
fn saved_images_come_back_the_same() {
    if !is_root() {
        return;
    }
    for driver in ["overlay", "vfs"] {
        let first = Bench::new(driver);
        let loaded = first.load(&docker_archive(&layers(), "busybox:1")).unwrap();
        assert_eq!(loaded[0].id, digest(&config_for(&layers())));
        assert_eq!(loaded[0].refs, [reference("busybox:1")]);
        assert_eq!(
            first.store.image_config_bytes(&loaded[0].id).unwrap(),
            config_for(&layers())
        );
        let archive = first.save(&loaded);
        assert!(archive == first.save(&loaded), "the same bytes every time");
        let second = Bench::new(driver);
        let again = second.load(&archive).unwrap();
        assert_eq!(again, loaded);
        assert!(second.save(&again) == archive);
        // The same archive without Docker's manifest is an OCI layout.
        let mut oci = Tar::new();
        let mut reader = tar::Archive::new(&archive[..]);
        for entry in reader.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if name != "manifest.json" && name != "repositories" && !name.ends_with('/') {
                oci = oci.file(&name, &bytes);
            }
        }
        let third = Bench::new(driver);
        assert_eq!(third.load(&oci.end()).unwrap(), loaded);
    }
}

#[test]
fn the_saved_archive_is_as_mobys() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("overlay");
    let layers = layers();
    let mut loaded = bench.load(&docker_archive(&layers, "busybox:1")).unwrap();
    loaded[0].refs.push(reference("example.org/a/b:c"));
    let archive = bench.save(&loaded);
    let mut files = std::collections::BTreeMap::new();
    let mut order = Vec::new();
    for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        order.push(name.clone());
        files.insert(name, bytes);
    }
    let mut sorted = order.clone();
    sorted.sort();
    assert_eq!(order, sorted);
    let json = |name: &str| serde_json::from_slice::<serde_json::Value>(&files[name]).unwrap();
    let id = digest(&config_for(&layers));
    let manifest = json("manifest.json");
    assert_eq!(manifest[0]["Config"], format!("blobs/sha256/{}", id.hex()));
    assert_eq!(
        manifest[0]["RepoTags"],
        serde_json::json!(["busybox:1", "example.org/a/b:c"])
    );
    for (at, layer) in layers.iter().enumerate() {
        let path = format!("blobs/sha256/{}", digest(layer).hex());
        assert_eq!(manifest[0]["Layers"][at], path.as_str());
        assert!(files[&path] == *layer);
        let source = &manifest[0]["LayerSources"][digest(layer).to_string()];
        assert_eq!(
            source["mediaType"],
            "application/vnd.oci.image.layer.v1.tar"
        );
        assert_eq!(source["size"], layer.len());
    }
    let index = json("index.json");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    let annotations = &index["manifests"][0]["annotations"];
    assert_eq!(
        annotations["io.containerd.image.name"],
        "docker.io/library/busybox:1"
    );
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "1");
    assert_eq!(index["manifests"][0]["platform"]["architecture"], "amd64");
    let top = digest(&layers[2]).hex();
    assert_eq!(
        json("repositories"),
        serde_json::json!({"busybox": {"1": top}, "example.org/a/b": {"c": top}})
    );
    assert_eq!(
        json("oci-layout"),
        serde_json::json!({"imageLayoutVersion": "1.0.0"})
    );
}

#[test]
fn every_compression_of_whole_and_layers() {
    if !is_root() {
        return;
    }
    let xz = |bytes: &[u8]| {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let bz = |bytes: &[u8]| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zst = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let packs: [(&str, Pack<'_>); 5] = [
        ("none", &|bytes| bytes.to_vec()),
        ("gzip", &gzip),
        ("bzip2", &bz),
        ("xz", &xz),
        ("zstd", &zst),
    ];
    let id = digest(&config_for(&layers()));
    for (name, pack) in packs {
        let bench = Bench::new("overlay");
        let name_it = r#""io.containerd.image.name":"docker.io/library/x:y""#;
        let loaded = bench
            .load(&pack(&tar_of(&oci(&layers(), pack, name_it))))
            .unwrap();
        assert_eq!(
            (loaded[0].id, &loaded[0].refs[..]),
            (id, &[reference("x:y")][..]),
            "{name}"
        );
        let bench = Bench::new("overlay");
        let loaded = bench
            .load(&pack(&docker_archive(&layers(), "x:y")))
            .unwrap();
        assert_eq!(loaded[0].id, id, "{name}");
    }
}

#[test]
fn layers_stored_once_and_linked() {
    if !is_root() {
        return;
    }
    // As Docker 1.10 to 24 wrote layers that occur twice: the second as a link to the first.
    let layers = vec![
        Tar::new().file("a", b"1").end(),
        Tar::new().file("a", b"1").end(),
    ];
    let config = config_for(&layers);
    let manifest =
        br#"[{"Config":"c.json","RepoTags":null,"Layers":["one/layer.tar","two/layer.tar"]}]"#;
    let tar = Tar::new()
        .symlink("two/layer.tar", "../one/layer.tar")
        .file("manifest.json", manifest)
        .file("c.json", &config)
        .file("one/layer.tar", &layers[0])
        .end();
    let bench = Bench::new("overlay");
    let loaded = bench.load(&tar).unwrap();
    assert_eq!(loaded[0].id, digest(&config));
    assert!(loaded[0].refs.is_empty());
    assert_eq!(bench.store.layer_sizes(&loaded[0].id).unwrap(), [1, 1]);
    assert_eq!(bench.store.image_size(&loaded[0].id).unwrap(), 2);
}

#[test]
fn archives_from_before_1_10() {
    if !is_root() {
        return;
    }
    let layers = layers();
    let bench = Bench::new("overlay");
    let tags = r#"{"old/image":{"latest":"ccc"},"base":{"1":"a"}}"#;
    let chain = [
        ("a", "", layers[0].clone()),
        ("bb", "a", gzip(&layers[1])),
        ("ccc", "bb", layers[2].clone()),
    ];
    let loaded = bench.load(&legacy(&chain, tags).end()).unwrap();
    assert_eq!(loaded.len(), 2);
    let top = loaded
        .iter()
        .find(|image| image.refs == [reference("old/image:latest")])
        .unwrap();
    let config = bench.store.image_config(&top.id).unwrap();
    assert_eq!(
        config.diff_ids,
        layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>()
    );
    assert_eq!(config.history.len(), 3);
    assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    // Without names, what nothing is built on is meant; and the ids do not depend on names.
    let nameless = Bench::new("overlay")
        .load(&legacy(&chain, "").end())
        .unwrap();
    assert_eq!(
        nameless,
        [LoadedImage {
            id: top.id,
            refs: vec![]
        }]
    );
    // A saved one goes on as an image of today.
    let again = Bench::new("overlay").load(&bench.save(&loaded)).unwrap();
    assert_eq!(again.len(), 2);
    let refuse = |tar: Tar, part: &str| {
        let bench = Bench::new("overlay");
        let error = bench.load(&tar.end()).unwrap_err();
        assert!(
            error.to_string().contains(part),
            "{error} does not say {part}"
        );
        assert_eq!(
            error.kind(),
            if part.contains("version") {
                ErrorKind::Unsupported
            } else {
                ErrorKind::Invalid
            }
        );
        bench.assert_empty(part);
    };
    let empty = Tar::new().end();
    refuse(
        legacy(&[("a", "a", empty.clone())], r#"{"x":{"y":"a"}}"#),
        "its own ancestor",
    );
    refuse(
        legacy(
            &[("a", "bb", empty.clone()), ("bb", "a", empty.clone())],
            "",
        ),
        "round in a circle",
    );
    refuse(
        legacy(&[("a", "bb", empty.clone())], ""),
        "not in the archive",
    );
    refuse(
        legacy(&[("a", "", empty.clone())], r#"{"x":{"y":"../../etc"}}"#),
        "not in the archive",
    );
    refuse(
        legacy(&[("a", "", empty.clone())], "").file("a/VERSION", b"2.0"),
        "version",
    );
    let chain: Vec<(String, String)> = (0..200)
        .map(|at| {
            (
                format!("l{at}"),
                if at == 0 {
                    String::new()
                } else {
                    format!("l{}", at - 1)
                },
            )
        })
        .collect();
    let long: Vec<(&str, &str, Vec<u8>)> = chain
        .iter()
        .map(|(id, parent)| (&**id, &**parent, empty.clone()))
        .collect();
    assert_eq!(
        Bench::new("overlay")
            .load(&legacy(&long, "").end())
            .unwrap_err()
            .kind(),
        ErrorKind::Unsupported
    );
}

#[test]
fn one_archive_with_several_images_is_loaded_whole_or_not() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("overlay");
    let one = vec![layers()[0].clone()];
    let two = vec![layers()[0].clone(), layers()[1].clone()];
    let archive = |second_layer: &[u8]| {
        Tar::new()
            .file("a", &config_for(&one))
            .file("b", &config_for(&two))
            .file("0", &one[0])
            .file("1", second_layer)
            .file(
                "manifest.json",
                br#"[{"Config":"a","RepoTags":["a:1","a:2"],"Layers":["0"]},{"Config":"b","RepoTags":["b:1"],"Layers":["0","1"]},{"Config":"a","RepoTags":["c:1"],"Layers":["0"]}]"#,
            )
            .end()
    };
    assert!(bench.load(&archive(&gzip(&one[0]))).is_err());
    bench.assert_empty("the second image is wrong");
    let loaded = bench.load(&archive(&two[1])).unwrap();
    assert_eq!(loaded.len(), 2);
    assert_eq!(loaded[0].refs, ["a:1", "a:2", "c:1"].map(reference));
    assert_eq!(
        bench.entries("layers").len(),
        2,
        "the common layer is there once"
    );
    let both = bench.save(&loaded);
    assert_eq!(Bench::new("overlay").load(&both).unwrap().len(), 2);
}

#[test]
fn root_file_systems_are_imported() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("overlay");
    let layer = layers()[0].clone();
    let config = crate::ImportConfig {
        config: berth_model::image::config::ImageConfig {
            architecture: "amd64".to_owned(),
            os: "linux".to_owned(),
            comment: "imported".to_owned(),
            ..Default::default()
        },
    };
    let id = bench.store.import(&mut &layer[..], config.clone()).unwrap();
    assert_eq!(
        bench.store.image_config(&id).unwrap().diff_ids,
        [digest(&layer)]
    );
    assert_eq!(bench.store.image_config(&id).unwrap().comment, "imported");
    let packed = zstd::encode_all(&layer[..], 1).unwrap();
    assert_eq!(bench.store.import(&mut &packed[..], config).unwrap(), id);
    let bench = bench.reopened();
    assert_eq!(bench.store.images(), [id]);
}

#[test]
fn progress_is_told() {
    if !is_root() {
        return;
    }
    let bench = Bench::new("overlay");
    let layer = Tar::new().file("big", &vec![7; 3 << 20]).end();
    let archive = docker_archive(std::slice::from_ref(&layer), "x:y");
    let mut steps = Vec::new();
    bench
        .store
        .load(&mut &archive[..], &mut |step| steps.push(step))
        .unwrap();
    assert!(
        steps
            .iter()
            .any(|step| matches!(step, Progress::Reading { bytes } if *bytes > 1 << 20))
    );
    let total = layer.len() as u64;
    assert!(
        steps.contains(&Progress::Layer {
            diff_id: digest(&layer),
            current: total,
            total
        }),
        "{steps:?}"
    );
    steps.clear();
    bench
        .store
        .load(&mut &archive[..], &mut |step| steps.push(step))
        .unwrap();
    assert!(steps.contains(&Progress::Exists {
        diff_id: digest(&layer)
    }));
    assert_eq!(
        Progress::Exists {
            diff_id: digest(&layer)
        }
        .to_string(),
        format!("{}: Already exists", digest(&layer).short())
    );
}
