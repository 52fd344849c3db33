//! Images on their way in and out: load, import, save, tag.

use std::io::{Read, Write};

use berth_model::digest::Digest;
use berth_model::reference::Reference;
use berth_model::time::Timestamp;
use berth_storage::{SaveImage, Store};

use crate::Engine;
use crate::error::{Error, Kind, Result, Subject};
use crate::failpoint;
use crate::types::{ImportOptions, Loaded};

/// Bytes that arrive while an operation runs on a blocking thread.
pub type Input = Box<dyn Read + Send>;
/// Lines of progress for whoever watches.
pub type ProgressFn = Box<dyn FnMut(String) + Send>;

/// A checked `save`: writing can begin.
#[derive(Debug)]
pub struct SavePlan {
    store: Store,
    images: Vec<SaveImage>,
    _busy: crate::activity::Busy,
}

impl SavePlan {
    /// Writes the archive. Blocking; run it on a blocking thread.
    pub fn write_to(self, out: &mut dyn Write) -> Result<()> {
        self.store.save(&self.images, out).map_err(storage_error)
    }
}

impl Engine {
    /// Takes every image out of an archive; each is recorded whole or not at all.
    pub async fn image_load(
        &self,
        mut input: Input,
        mut progress: ProgressFn,
    ) -> Result<Vec<Loaded>> {
        let _busy = self.busy();
        let store = self.inner.store.clone();
        let images = crate::blocking::run("the load failed", move || {
            store.load(&mut *input, &mut |step| progress(step.to_string()))
        })
        .await?
        .map_err(storage_error)?;
        failpoint::hit("load.stored");
        let mut loaded = Vec::new();
        for image in images {
            let refs: Vec<String> = image
                .refs
                .iter()
                .map(|r| r.clone().with_default_tag().familiar())
                .collect();
            self.record_image(&image.id, image.refs.clone(), "load")
                .await?;
            loaded.push(Loaded { id: image.id, refs });
        }
        failpoint::hit("load.recorded");
        Ok(loaded)
    }

    /// Makes a one-layer image of a root file system.
    pub async fn image_import(&self, mut input: Input, options: ImportOptions) -> Result<String> {
        let _busy = self.busy();
        let reference = match options.repository.as_deref().filter(|r| !r.is_empty()) {
            Some(repository) => Some(reference_of(repository, options.tag.as_deref())?),
            None => None,
        };
        let config = crate::changes::import_config(&options)?;
        let store = self.inner.store.clone();
        let id = crate::blocking::run("the import failed", move || {
            store.import(&mut *input, config)
        })
        .await?
        .map_err(storage_error)?;
        self.record_image(&id, reference.into_iter().collect(), "import")
            .await?;
        Ok(id.to_string())
    }

    /// Checks that every name exists; the plan then streams.
    pub async fn image_save(&self, names: &[String]) -> Result<SavePlan> {
        if names.is_empty() {
            return Err(Error::invalid("no image was named").about(Subject::Image));
        }
        let mut images: Vec<SaveImage> = Vec::new();
        for name in names {
            let resolved = self.inner.images.resolve(name)?;
            let mut refs: Vec<Reference> = resolved.reference.iter().cloned().collect();
            // A bare repository name means all of its tags, as it did from the start.
            if let Ok(reference) = Reference::parse(name)
                && reference.tag().is_none()
                && reference.digest().is_none()
                && resolved.reference.is_some()
            {
                refs = self
                    .inner
                    .images
                    .lock()
                    .references(&resolved.id)
                    .into_iter()
                    .filter(|r| r.name() == reference.name())
                    .collect();
            }
            match images.iter_mut().find(|image| image.id == resolved.id) {
                Some(image) => image.refs.extend(refs),
                None => images.push(SaveImage {
                    id: resolved.id,
                    refs,
                }),
            }
        }
        for image in &images {
            self.inner.event(
                "image",
                "save",
                &image.id.to_string(),
                [("name", image.id.to_string())],
            );
        }
        Ok(SavePlan {
            store: self.inner.store.clone(),
            images,
            _busy: self.busy(),
        })
    }

    /// Points a name at an image; a name that pointed elsewhere moves.
    pub async fn image_tag(&self, name: &str, repository: &str, tag: Option<&str>) -> Result<()> {
        let _change = self.inner.images.change.lock().await;
        let id = self.inner.images.resolve(name)?.id;
        let reference = reference_of(repository, tag)?;
        self.tag(&id, vec![reference.clone()]).await?;
        self.inner.event(
            "image",
            "tag",
            &id.to_string(),
            [("name", reference.familiar())],
        );
        Ok(())
    }

    async fn record_image(
        &self,
        id: &Digest,
        references: Vec<Reference>,
        action: &str,
    ) -> Result<()> {
        let _change = self.inner.images.change.lock().await;
        self.tag(id, references.clone()).await?;
        self.inner
            .event("image", action, &id.to_string(), [("name", id.to_string())]);
        for reference in references {
            let name = reference.with_default_tag().familiar();
            self.inner
                .event("image", "tag", &id.to_string(), [("name", name)]);
        }
        Ok(())
    }

    /// Records the image and its names: first in the database, then for readers.
    async fn tag(&self, id: &Digest, references: Vec<Reference>) -> Result<()> {
        let now = Timestamp::now();
        let names: Vec<String> = references
            .into_iter()
            .map(|r| r.with_default_tag().canonical())
            .collect();
        self.inner
            .db
            .image_put(id.to_string(), names.clone(), now.nanos())
            .await?;
        let mut index = self.inner.images.lock();
        index.images.entry(*id).or_insert(now);
        for name in names {
            index.tags.insert(name, (*id, now));
        }
        Ok(())
    }
}

fn reference_of(repository: &str, tag: Option<&str>) -> Result<Reference> {
    let bad = |e: berth_model::reference::ReferenceError| {
        Error::invalid(format!("invalid reference format: {e}")).about(Subject::Image)
    };
    let reference = Reference::parse(repository).map_err(bad)?;
    if reference.digest().is_some() {
        return Err(
            Error::invalid("refusing to create a tag with a digest reference")
                .about(Subject::Image),
        );
    }
    match tag.filter(|t| !t.is_empty()) {
        Some(tag) => reference.with_tag(tag).map_err(bad),
        None => Ok(reference.with_default_tag()),
    }
}

/// What a failure of storage means to the caller.
pub(crate) fn storage_error(error: berth_storage::Error) -> Error {
    let kind = match error.kind() {
        berth_storage::ErrorKind::NotFound => Kind::NotFound,
        berth_storage::ErrorKind::Invalid => Kind::Invalid,
        berth_storage::ErrorKind::Conflict => Kind::Conflict,
        berth_storage::ErrorKind::Unsupported => Kind::Unsupported,
        berth_storage::ErrorKind::NoSpace => Kind::Unavailable,
        berth_storage::ErrorKind::Internal => Kind::Internal,
    };
    Error::new(kind, error.to_string())
        .about(Subject::Image)
        .with_source(error)
}
