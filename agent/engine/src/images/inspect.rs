//! Looking at images: list, inspect, history.

use std::collections::BTreeMap;

use berth_model::digest::Digest;
use berth_model::filters::Filters;
use berth_model::reference::Reference;
use berth_model::time::Timestamp;

use super::load::storage_error;
use crate::Engine;
use crate::error::{Error, Result, Subject};
use crate::types::{ImageDetail, ImageHistory, ImageListOptions, ImageSummary};

impl Engine {
    /// All images, newest first.
    pub async fn image_list(&self, options: &ImageListOptions) -> Result<Vec<ImageSummary>> {
        let filters = &options.filters;
        filters
            .validate(crate::filters::IMAGES)
            .map_err(|e| Error::invalid(e.to_string()))?;
        let engine = self.clone();
        let index = self.inner.images.lock().clone();
        let all = crate::blocking::run("the listing failed", move || {
            index
                .images
                .keys()
                .map(|id| engine.summary(id, &index.references(id)))
                .collect::<Result<Vec<_>>>()
        })
        .await??;
        let mut users: BTreeMap<Digest, i64> = BTreeMap::new();
        for handle in self.inner.containers.all() {
            *users.entry(handle.record().body.image).or_default() += 1;
        }
        let anchors = Anchors::resolve(self, filters, &all)?;
        let mut kept = Vec::new();
        for mut image in all {
            image.containers = users.get(&image.id).copied().unwrap_or(0);
            if anchors.admits(&image) && wanted(filters, &image)? {
                kept.push(image);
            }
        }
        kept.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(kept)
    }

    pub async fn image_inspect(&self, name: &str) -> Result<ImageDetail> {
        let id = self.inner.images.resolve(name)?.id;
        let (references, last_tagged) = {
            let index = self.inner.images.lock();
            (index.references(&id), index.last_tagged(&id))
        };
        let engine = self.clone();
        crate::blocking::run("the inspection failed", move || {
            Ok(ImageDetail {
                summary: engine.summary(&id, &references)?,
                config: engine
                    .inner
                    .store
                    .image_config(&id)
                    .map_err(storage_error)?,
                last_tagged,
                driver: engine.inner.store.driver_name(),
                driver_data: BTreeMap::new(),
            })
        })
        .await?
    }

    /// The steps that made an image, newest first.
    pub async fn image_history(&self, name: &str) -> Result<Vec<ImageHistory>> {
        let detail = self.image_inspect(name).await?;
        let sizes = self
            .inner
            .store
            .layer_sizes(&detail.summary.id)
            .map_err(storage_error)?;
        let mut sizes = sizes.into_iter();
        let mut steps: Vec<ImageHistory> = detail
            .config
            .history
            .iter()
            .map(|step| ImageHistory {
                id: "<missing>".to_owned(),
                created: step.created.unwrap_or(Timestamp::ZERO),
                created_by: step.created_by.clone(),
                tags: Vec::new(),
                size: if step.empty_layer {
                    0
                } else {
                    sizes.next().unwrap_or(0)
                },
                comment: step.comment.clone(),
            })
            .collect();
        // Images without a history, or with a shorter one than they have layers, still show every layer.
        steps.extend(sizes.map(|size| ImageHistory {
            id: "<missing>".to_owned(),
            created: Timestamp::ZERO,
            created_by: String::new(),
            tags: Vec::new(),
            size,
            comment: String::new(),
        }));
        steps.reverse();
        if let Some(newest) = steps.first_mut() {
            newest.id = detail.summary.id.to_string();
            newest.tags = detail.summary.tags.clone();
        }
        Ok(steps)
    }

    /// Blocking: reads the image's configuration.
    fn summary(&self, id: &Digest, references: &[Reference]) -> Result<ImageSummary> {
        let store = &self.inner.store;
        let config = store.image_config(id).map_err(storage_error)?;
        Ok(ImageSummary {
            id: *id,
            created: config.created.unwrap_or(Timestamp::ZERO),
            tags: references
                .iter()
                .filter(|r| r.digest().is_none())
                .map(Reference::familiar)
                .collect(),
            digests: references
                .iter()
                .filter(|r| r.digest().is_some())
                .map(Reference::familiar)
                .collect(),
            size: store.image_size(id).map_err(storage_error)?,
            labels: config.config.labels.clone(),
            containers: -1,
        })
    }
}

/// `before` and `since` name images whose creation times bound the list.
struct Anchors {
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Anchors {
    fn resolve(engine: &Engine, filters: &Filters, all: &[ImageSummary]) -> Result<Self> {
        let created = |key: &str| -> Result<Option<Timestamp>> {
            let Some(name) = filters.get(key).next() else {
                return Ok(None);
            };
            let id = engine.inner.images.resolve(name)?.id;
            Ok(all
                .iter()
                .find(|image| image.id == id)
                .map(|image| image.created))
        };
        let until = match filters.get("until").next() {
            Some(text) => Some(
                berth_model::time::parse_since(text, Timestamp::now()).map_err(|e| {
                    Error::invalid(format!("invalid filter 'until={text}': {}", e.0))
                })?,
            ),
            None => None,
        };
        Ok(Self {
            before: created("before")?,
            since: created("since")?,
            until,
        })
    }

    fn admits(&self, image: &ImageSummary) -> bool {
        self.before.is_none_or(|t| image.created < t)
            && self.since.is_none_or(|t| image.created > t)
            && self.until.is_none_or(|t| image.created <= t)
    }
}

fn wanted(filters: &Filters, image: &ImageSummary) -> Result<bool> {
    if filters.contains("dangling") {
        let dangling = filters
            .flag("dangling", false)
            .map_err(|e| Error::invalid(e.to_string()))?;
        if dangling != (image.tags.is_empty() && image.digests.is_empty()) {
            return Ok(false);
        }
    }
    if !filters.pairs("label", &image.labels) {
        return Ok(false);
    }
    if filters.contains("reference") {
        let mut any = false;
        for pattern in filters.get("reference") {
            any |= image
                .tags
                .iter()
                .chain(&image.digests)
                .any(|tag| reference_matches(pattern, tag));
        }
        return Ok(any);
    }
    Ok(true)
}

/// Docker's `reference=` filter: a shell pattern over `repository[:tag]`, where `*` stops at a slash.
fn reference_matches(pattern: &str, tag: &str) -> bool {
    let repository = tag
        .rsplit_once(':')
        .map_or(tag, |(repository, _)| repository);
    glob(pattern.as_bytes(), tag.as_bytes()) || glob(pattern.as_bytes(), repository.as_bytes())
}

/// Go's `path.Match` without character classes: `*` and `?` do not cross a slash.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, text)
                || text
                    .split_first()
                    .is_some_and(|(&c, tail)| c != b'/' && glob(pattern, tail))
        }
        (Some((b'?', rest)), Some((&c, tail))) => c != b'/' && glob(rest, tail),
        (Some((&p, rest)), Some((&c, tail))) => p == c && glob(rest, tail),
        _ => false,
    }
}

pub(crate) fn image_conflict(message: String) -> Error {
    Error::conflict(message).about(Subject::Image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_patterns_stop_at_slashes() {
        assert!(reference_matches("busybox", "busybox:latest"));
        assert!(reference_matches("busy*:lat*", "busybox:latest"));
        assert!(reference_matches("*/app", "team/app:1"));
        assert!(!reference_matches("*", "team/app:1"));
        assert!(!reference_matches("busy", "busybox:latest"));
    }
}
