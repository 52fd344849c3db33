//! `GET /images/{name}/json`: one image. Until 1.11 the object had the keys of the stored form.

use berth_engine::ImageDetail;
use serde_json::{Map, Value, json};

use crate::container::image_config_view;
use crate::shape::{Span, image_id, keep, object, omit_empty};
use crate::version::ApiVersion;

const SPANS: &[Span] = &[
    ("RepoTags", 21, 0),
    ("RepoDigests", 21, 0),
    ("Container", 0, 45),
    ("ContainerConfig", 0, 45),
    ("Variant", 25, 0),
    ("OsVersion", 25, 0),
    ("VirtualSize", 15, 44),
    ("GraphDriver", 21, 0),
    ("RootFS", 23, 0),
    ("Metadata", 32, 0),
];

/// The whole answer.
pub fn body(image: &ImageDetail, version: ApiVersion) -> Value {
    let (summary, config) = (&image.summary, &image.config);
    let mut map = object(json!({
        "Id": image_id(&summary.id, version),
        "RepoTags": summary.tags,
        "RepoDigests": summary.digests,
        "Parent": "",
        "Comment": config.comment,
        "Created": summary.created,
        "Container": config.container,
        "ContainerConfig": image_config_view(&Default::default(), version),
        "DockerVersion": config.docker_version,
        "Author": config.author,
        "Config": image_config_view(&config.config, version),
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "OsVersion": config.os_version,
        "Size": summary.size,
        "VirtualSize": summary.size,
        "GraphDriver": {
            "Data": if image.driver_data.is_empty() { Value::Null } else { json!(image.driver_data) },
            "Name": image.driver,
        },
        "RootFS": { "Type": "layers", "Layers": config.diff_ids },
        "Metadata": { "LastTagTime": image.last_tagged },
    }));
    omit_empty(&mut map, &["Variant", "OsVersion"]);
    if version.at_least(12) {
        keep(&mut map, SPANS, version);
        return Value::Object(map);
    }
    Value::Object(stored_form(map))
}

/// The keys of the record on disk and in old archives; empty ones are left out.
fn stored_form(mut map: Map<String, Value>) -> Map<String, Value> {
    const KEYS: &[(&str, &str)] = &[
        ("Id", "id"),
        ("Parent", "parent"),
        ("Comment", "comment"),
        ("Created", "created"),
        ("Container", "container"),
        ("ContainerConfig", "container_config"),
        ("DockerVersion", "docker_version"),
        ("Author", "author"),
        ("Config", "config"),
        ("Architecture", "architecture"),
        ("Os", "os"),
        ("Size", "Size"),
    ];
    let mut stored: Map<String, Value> = KEYS
        .iter()
        .filter_map(|(old, new)| Some(((*new).to_owned(), map.shift_remove(*old)?)))
        .collect();
    omit_empty(
        &mut stored,
        &[
            "parent",
            "comment",
            "container",
            "docker_version",
            "author",
            "architecture",
            "os",
        ],
    );
    stored
}
