//! `load`: from an archive's stream to images.
//!
//! Order of things: the whole archive is spooled, the plan made and checked, missing layers are
//! unpacked and compared with their digests in a directory of this operation, everything is made
//! durable, and only then names appear: layers first, configurations last. Until the last step a
//! kill, an error or a power cut leaves nothing that is named; and an archive is loaded whole or not
//! at all.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::sync::Arc;

use berth_model::digest::Digest;
use berth_model::reference::Reference;

use super::plan::{PlannedImage, plan};
use super::spool::Spool;
use crate::archive::compress::{Compression, decoder};
use crate::error::{Error, Result};
use crate::layers::{Source, Staging, chain_id, chain_ids};
use crate::root::open_dir;
use crate::state::{Image, Pins};
use crate::store::{Inner, Store};

/// Progress is told each time this much more has passed.
const STEP: u64 = 1024 * 1024;

/// An image that an archive brought, new or known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// Digest of its configuration.
    pub id: Digest,
    /// The names that the archive has for it, all tagged.
    pub refs: Vec<Reference>,
}

/// How far a load or an import is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Plain bytes of the archive taken in so far.
    Reading { bytes: u64 },
    /// A layer is being unpacked: bytes of it so far and in all, as they stand in the archive.
    Layer {
        diff_id: Digest,
        current: u64,
        total: u64,
    },
    /// A layer is here already.
    Exists { diff_id: Digest },
    /// Everything is unpacked; making it durable.
    Storing,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Progress::Reading { bytes } => write!(f, "Reading archive: {bytes} bytes"),
            Progress::Layer {
                diff_id,
                current,
                total,
            } => {
                write!(f, "{}: Loading layer {current}/{total}", diff_id.short())
            }
            Progress::Exists { diff_id } => write!(f, "{}: Already exists", diff_id.short()),
            Progress::Storing => f.write_str("Storing"),
        }
    }
}

impl Store {
    /// Loads the images of an archive: `docker save`'s old and new layouts and OCI layouts, the whole
    /// and each layer compressed or not. All of its images are there afterwards, or none is new.
    pub fn load(
        &self,
        input: &mut dyn Read,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<LoadedImage>> {
        let inner = &*self.inner;
        let mut staging = Staging::new(inner)?;
        let mut told = 0;
        let spool = Spool::fill(input, open_dir(staging.dir())?, &mut |bytes| {
            if bytes - told >= STEP {
                told = bytes;
                progress(Progress::Reading { bytes });
            }
        })?;
        let images = plan(&spool)?;
        for image in &images {
            unpack(&mut staging, &spool, image, progress)?;
        }
        progress(Progress::Storing);
        let pins = staging.commit()?;
        let mut loaded: Vec<LoadedImage> = Vec::new();
        let mut new = NewImages {
            store: inner,
            ids: Vec::new(),
        };
        for image in images {
            new.commit(&image)?;
            // An image may be in the archive twice, under different names.
            match loaded.iter_mut().find(|known| known.id == image.id) {
                Some(known) => known.refs.extend(image.refs),
                None => loaded.push(LoadedImage {
                    id: image.id,
                    refs: image.refs,
                }),
            }
        }
        new.ids.clear();
        drop(pins);
        Ok(loaded)
    }
}

fn unpack(
    staging: &mut Staging<'_>,
    spool: &Spool,
    image: &PlannedImage,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let mut parent: Option<Digest> = None;
    for (diff_id, blob) in image.config.diff_ids.iter().zip(&image.layers) {
        let what = format!("layer {diff_id}");
        let chain = chain_id(parent.as_ref(), diff_id);
        let (stream, done) = spool.stream(blob);
        let (compression, mut plain) =
            decoder(Box::new(stream)).map_err(|source| Error::Input {
                what: what.clone(),
                source,
            })?;
        // A plain layer was hashed while it was taken in.
        let hashed = (compression == Compression::None).then_some(blob.digest);
        if let Some(found) = hashed.filter(|found| found != diff_id) {
            return Err(Error::Mismatch {
                what,
                expected: *diff_id,
                found,
            });
        }
        if staging.has(&chain) {
            progress(Progress::Exists { diff_id: *diff_id });
        } else {
            let source = Source {
                input: &mut *plain,
                diff_id: Some(*diff_id),
                hashed,
                what,
            };
            let mut told = 0;
            let mut tell = |_| {
                let current = done.get();
                if current - told >= STEP || current == blob.size {
                    told = current;
                    progress(Progress::Layer {
                        diff_id: *diff_id,
                        current,
                        total: blob.size,
                    });
                }
            };
            staging.add(parent.as_ref(), source, &mut tell)?;
        }
        parent = Some(chain);
    }
    Ok(())
}

/// Images of an operation that is not over: dropped with ids in it, they go again.
#[derive(Debug)]
pub(crate) struct NewImages<'s> {
    pub(crate) store: &'s Inner,
    pub(crate) ids: Vec<Digest>,
}

impl NewImages<'_> {
    /// Makes an image of a configuration whose layers are all here and pinned.
    fn commit(&mut self, image: &PlannedImage) -> Result<()> {
        let what = format!("configuration {}", image.id);
        let mut state = self.store.state();
        if !state.images.contains_key(&image.id) {
            self.store
                .configs
                .put(&what, &image.bytes, &image.id, &self.store.root.ingest)?;
            let chains = chain_ids(&image.config.diff_ids);
            state.add_image(
                image.id,
                Image {
                    config: Arc::new(image.config.clone()),
                    chains,
                },
            );
            self.ids.push(image.id);
        }
        // Its record may not be written yet.
        state.fresh.insert(image.id);
        Ok(())
    }
}

impl Drop for NewImages<'_> {
    fn drop(&mut self) {
        for id in &self.ids {
            let mut state = self.store.state();
            if let Err(error) = self.store.remove_image(&mut state, id) {
                tracing::warn!(%error, image = %id, "leaving an image of a failed load for the next sweep");
            }
        }
    }
}

/// Makes one image whose layers are all here.
pub(crate) fn commit_one(store: &Inner, image: &PlannedImage, pins: Pins<'_>) -> Result<()> {
    let mut new = NewImages {
        store,
        ids: Vec::new(),
    };
    new.commit(image)?;
    new.ids.clear();
    drop(pins);
    Ok(())
}

/// The distinct layers of several images, lowest first within each: what `save` writes.
pub(crate) fn distinct<'a>(images: impl Iterator<Item = &'a Image>) -> Vec<Digest> {
    let mut seen = HashSet::new();
    images
        .flat_map(|image| image.chains.iter().copied())
        .filter(|chain| seen.insert(*chain))
        .collect()
}
