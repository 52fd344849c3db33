//! Images: listings, inspect, history, and the parameters of image operations.

mod inspect;
mod query;

pub use inspect::body as inspect;
pub use query::{CreateImage, create_query, list_query, prune_query, save_names, tag_query};

use berth_engine::{ImageDeleted, ImageHistory, ImageSummary, PruneReport};
use serde_json::{Value, json};

use crate::shape::{Span, image_id, keep, nil_list, object};
use crate::version::ApiVersion;

const SPANS: &[Span] = &[
    // Documented for 1.25; the oldest version that current daemons speak has them too.
    ("Containers", 24, 0),
    ("Labels", 19, 0),
    ("RepoDigests", 18, 0),
    ("SharedSize", 24, 0),
    ("VirtualSize", 0, 44),
];

/// What stands for the name of an image that has none, until 1.42.
const NO_TAG: &str = "<none>:<none>";
const NO_DIGEST: &str = "<none>@<none>";

/// `GET /images/json`
pub fn list(images: &[ImageSummary], version: ApiVersion) -> Value {
    if version.at_least(7) {
        images.iter().map(|image| element(image, version)).collect()
    } else {
        images
            .iter()
            .flat_map(|image| by_tag(image, version))
            .collect()
    }
}

fn element(image: &ImageSummary, version: ApiVersion) -> Value {
    let nameless = image.tags.is_empty() && image.digests.is_empty() && !version.at_least(43);
    let mut map = object(json!({
        // Counted since 1.51 for all.
        "Containers": if version.at_least(51) { image.containers } else { -1 },
        "Created": image.created.secs(),
        "Id": image_id(&image.id, version),
        "Labels": image.labels,
        "ParentId": "",
        "RepoDigests": if nameless { json!([NO_DIGEST]) } else { json!(image.digests) },
        "RepoTags": if nameless { json!([NO_TAG]) } else { json!(image.tags) },
        "SharedSize": -1,
        "Size": image.size,
        "VirtualSize": image.size,
    }));
    keep(&mut map, SPANS, version);
    Value::Object(map)
}

/// Before 1.7: one object for each tag.
fn by_tag(image: &ImageSummary, version: ApiVersion) -> Vec<Value> {
    let none = [NO_TAG.to_owned()];
    let tags = if image.tags.is_empty() {
        &none[..]
    } else {
        &image.tags
    };
    tags.iter()
        .map(|name| {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((name, ""));
            json!({
                "Repository": repository, "Tag": tag, "Id": image_id(&image.id, version),
                "Created": image.created.secs(), "Size": image.size, "VirtualSize": image.size,
            })
        })
        .collect()
}

/// `GET /images/{name}/history`
pub fn history(entries: &[ImageHistory], version: ApiVersion) -> Value {
    entries
        .iter()
        .map(|entry| {
            let id = if version.at_least(22) {
                entry.id.as_str()
            } else {
                entry.id.strip_prefix("sha256:").unwrap_or(&entry.id)
            };
            let mut map = object(json!({
                "Comment": entry.comment,
                "Created": entry.created.secs(),
                "CreatedBy": entry.created_by,
                "Id": id,
                "Size": entry.size,
                "Tags": nil_list(&entry.tags),
            }));
            keep(&mut map, &[("Comment", 19, 0)], version);
            Value::Object(map)
        })
        .collect()
}

/// `DELETE /images/{name}`
pub fn deleted(parts: &[ImageDeleted]) -> Value {
    parts
        .iter()
        .map(|part| match part {
            ImageDeleted::Untagged(name) => json!({ "Untagged": name }),
            ImageDeleted::Deleted(id) => json!({ "Deleted": id }),
        })
        .collect()
}

/// `POST /images/prune`
pub fn prune_body(report: &PruneReport) -> Value {
    let parts = if report.images.is_empty() {
        Value::Null
    } else {
        deleted(&report.images)
    };
    json!({ "ImagesDeleted": parts, "SpaceReclaimed": report.reclaimed })
}

#[cfg(test)]
mod tests;
