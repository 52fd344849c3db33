//! Images: which there are and what they are called. The bytes are storage's; here are the records that
//! say which of them should exist, and the names that lead to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use berth_model::digest::Digest;
use berth_model::reference::Reference;
use berth_model::time::Timestamp;

use crate::db::Database;
use crate::error::{Error, Result, Subject};

pub(crate) mod inspect;
pub(crate) mod load;
pub(crate) mod prune;
pub(crate) mod remove;

/// The index of all images, in memory.
#[derive(Debug, Default)]
pub(crate) struct Images {
    index: Mutex<ImageIndex>,
    /// Held by whoever changes what exists: removal and what would add a use do not pass each other.
    pub(crate) change: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct ImageIndex {
    /// Id to when it came.
    pub(crate) images: BTreeMap<Digest, Timestamp>,
    /// Canonical reference to image and time of tagging.
    pub(crate) tags: BTreeMap<String, (Digest, Timestamp)>,
}

impl ImageIndex {
    /// The references of an image, sorted.
    pub(crate) fn references(&self, id: &Digest) -> Vec<Reference> {
        self.tags
            .iter()
            .filter(|(_, (image, _))| image == id)
            .filter_map(|(reference, _)| Reference::parse(reference).ok())
            .collect()
    }

    pub(crate) fn last_tagged(&self, id: &Digest) -> Timestamp {
        self.tags
            .values()
            .filter(|(image, _)| image == id)
            .map(|(_, at)| *at)
            .max()
            .unwrap_or(Timestamp::ZERO)
    }
}

/// What a name turned out to mean.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) id: Digest,
    /// The tag by which it was found; None when it was found by id.
    pub(crate) reference: Option<Reference>,
}

impl Images {
    pub(crate) async fn open(db: &Database) -> Result<Self> {
        let (images, tags) = db.images().await?;
        let mut index = ImageIndex::default();
        for (id, added) in images {
            match Digest::parse(&id) {
                Ok(id) => {
                    index.images.insert(id, Timestamp::from_nanos(added));
                }
                Err(error) => {
                    tracing::error!(id, %error, "an image's record is damaged and was left out")
                }
            }
        }
        for (reference, image, tagged) in tags {
            if let Ok(id) = Digest::parse(&image)
                && index.images.contains_key(&id)
            {
                index
                    .tags
                    .insert(reference, (id, Timestamp::from_nanos(tagged)));
            }
        }
        Ok(Self {
            index: Mutex::new(index),
            change: tokio::sync::Mutex::new(()),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ImageIndex> {
        self.index
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().images.len()
    }

    pub(crate) fn ids(&self) -> BTreeSet<Digest> {
        self.lock().images.keys().cloned().collect()
    }

    /// By `sha256:` id, by reference (tag defaults to latest), or by unique prefix of an id.
    pub(crate) fn resolve(&self, name: &str) -> Result<Resolved> {
        let index = self.lock();
        let missing = || {
            Error::not_found(format!("No such image: {}", missing_name(name))).about(Subject::Image)
        };
        if name.is_empty() {
            return Err(Error::invalid("an image name or id is needed").about(Subject::Image));
        }
        if let Ok(id) = Digest::parse(name) {
            return match index.images.contains_key(&id) {
                true => Ok(Resolved {
                    id,
                    reference: None,
                }),
                false => Err(missing()),
            };
        }
        if let Ok(reference) = Reference::parse(name) {
            let reference = reference.with_default_tag();
            if let Some((id, _)) = index.tags.get(&reference.canonical()) {
                return Ok(Resolved {
                    id: *id,
                    reference: Some(reference),
                });
            }
            // `name@sha256:…` where the digest is the image's id.
            if let Some(id) = reference.digest()
                && index.images.contains_key(id)
            {
                return Ok(Resolved {
                    id: *id,
                    reference: None,
                });
            }
        }
        let prefix = name
            .strip_prefix(berth_model::digest::PREFIX)
            .unwrap_or(name)
            .to_ascii_lowercase();
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Err(missing());
        }
        let mut found = index
            .images
            .keys()
            .filter(|id| id.hex().starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(Resolved {
                id: *id,
                reference: None,
            }),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "the image id prefix {name} is ambiguous"
            ))
            .about(Subject::Image)),
            (None, _) => Err(missing()),
        }
    }

    /// What a container's image is called now: the wanted name while it still leads there, else the id.
    pub(crate) fn display_name(&self, id: &Digest, wanted: &str) -> String {
        match self.resolve(wanted) {
            Ok(resolved) if resolved.id == *id => wanted.to_owned(),
            _ => id.to_string(),
        }
    }
}

/// The name as Docker repeats it in `No such image`: with its tag.
fn missing_name(name: &str) -> String {
    match Reference::parse(name) {
        Ok(reference) if Digest::parse(name).is_err() => reference.with_default_tag().familiar(),
        _ => name.to_owned(),
    }
}
