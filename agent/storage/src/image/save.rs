//! `save`: images as moby 25 and later write them. One archive is an OCI layout (`oci-layout`,
//! `index.json`, `blobs/sha256/…`) and Docker's (`manifest.json`, `repositories`) at once, layers plain.
//!
//! The same images give the same bytes. Every layer is written again from its recipe and compared
//! with its digest while it is written, so a damaged layer ends the archive with an error instead of
//! going out under a name that it no longer has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use berth_model::digest::Digest;
use berth_model::image::manifest::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, ArchiveEntry, ArchiveManifest, Descriptor, Index,
    MEDIA_OCI_CONFIG, MEDIA_OCI_INDEX, MEDIA_OCI_LAYER, MEDIA_OCI_MANIFEST, Manifest,
    OCI_LAYOUT_VERSION, OciLayout, Platform, Repositories,
};
use berth_model::reference::Reference;
use serde::Serialize;

use super::load::distinct;
use crate::archive::rebuild::{Parts, rebuild};
use crate::archive::write::TarWriter;
use crate::error::{Context, Error, Result};
use crate::layers::{ASIDE, FS, RECIPE};
use crate::root::open_dir;
use crate::state::{Image, Layer, Pins};
use crate::store::{Inner, Store};

/// What to save: an image, and the names to save it under (none: by its id alone).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveImage {
    pub id: Digest,
    /// Tagged references; others are left out, for an archive has no place for them.
    pub refs: Vec<Reference>,
}

/// A blob of the archive.
enum Blob {
    Bytes(Vec<u8>),
    /// The layer with this chain id.
    Layer(Digest, Arc<Layer>),
}

/// Everything of the archive but the layers' bytes.
struct Documents {
    blobs: BTreeMap<Digest, Blob>,
    index: Index,
    manifest: ArchiveManifest,
    repositories: Repositories,
}

impl Store {
    /// Writes the archive of these images. Whether they exist is checked before the first byte.
    pub fn save(&self, images: &[SaveImage], out: &mut dyn Write) -> Result<()> {
        let inner = &*self.inner;
        let mut pins = Pins::new(inner);
        let documents = documents(inner, images, &mut pins)?;
        let mut tar = TarWriter::new(out);
        tar.dir("blobs/")?;
        tar.dir("blobs/sha256/")?;
        for (digest, blob) in &documents.blobs {
            let name = format!("blobs/sha256/{}", digest.hex());
            match blob {
                Blob::Bytes(bytes) => tar.file(&name, bytes)?,
                Blob::Layer(chain, layer) => {
                    tar.streamed(&name, layer.record.archive_size, |out| {
                        write_layer(inner, chain, layer, out)
                    })?;
                }
            }
        }
        tar.file("index.json", &json(&documents.index)?)?;
        tar.file("manifest.json", &json(&documents.manifest)?)?;
        tar.file(
            "oci-layout",
            &json(&OciLayout {
                image_layout_version: OCI_LAYOUT_VERSION.to_owned(),
            })?,
        )?;
        if !documents.repositories.is_empty() {
            tar.file("repositories", &json(&documents.repositories)?)?;
        }
        tar.finish()
    }
}

fn documents(store: &Inner, images: &[SaveImage], pins: &mut Pins<'_>) -> Result<Documents> {
    let mut documents = Documents {
        blobs: BTreeMap::new(),
        index: Index {
            schema_version: 2,
            media_type: MEDIA_OCI_INDEX.to_owned(),
            ..Index::default()
        },
        manifest: Vec::new(),
        repositories: Repositories::new(),
    };
    let wanted = merged(images);
    let mut layers = HashMap::new();
    {
        // Pinned while it is known that they are here, so that no removal cuts the archive short.
        let mut state = store.state();
        let found: Vec<Arc<Image>> = wanted
            .iter()
            .map(|(id, _)| state.images.get(id).cloned().ok_or(Error::NoImage(*id)))
            .collect::<Result<_>>()?;
        for chain in distinct(found.iter().map(Arc::as_ref)) {
            let layer = state.layer(&chain).ok_or_else(|| missing(&chain))?;
            pins.pin(&mut state, &chain);
            layers.insert(chain, layer);
        }
    }
    for (id, refs) in wanted {
        documents.add(store, &id, &refs, &layers)?;
    }
    Ok(documents)
}

/// Each image once, in the order asked for, with all its tagged names.
fn merged(images: &[SaveImage]) -> Vec<(Digest, BTreeSet<Reference>)> {
    let mut merged: Vec<(Digest, BTreeSet<Reference>)> = Vec::new();
    for image in images {
        let refs = image
            .refs
            .iter()
            .filter(|reference| reference.tag().is_some())
            .cloned();
        match merged.iter_mut().find(|(id, _)| *id == image.id) {
            Some((_, known)) => known.extend(refs),
            None => merged.push((image.id, refs.collect())),
        }
    }
    merged
}

impl Documents {
    fn add(
        &mut self,
        store: &Inner,
        id: &Digest,
        refs: &BTreeSet<Reference>,
        layers: &HashMap<Digest, Arc<Layer>>,
    ) -> Result<()> {
        let image = store.image(id)?;
        let config = store.configs.get(id)?;
        let descriptor = |media_type: &str, digest: Digest, size: u64| Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
        };
        let mut manifest = Manifest {
            schema_version: 2,
            media_type: MEDIA_OCI_MANIFEST.to_owned(),
            config: descriptor(MEDIA_OCI_CONFIG, *id, config.len() as u64),
            layers: Vec::new(),
            annotations: BTreeMap::new(),
        };
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let mut entry = ArchiveEntry {
            config: path(id),
            ..ArchiveEntry::default()
        };
        for chain in &image.chains {
            let layer = layers.get(chain).ok_or_else(|| missing(chain))?;
            let record = &layer.record;
            let source = descriptor(MEDIA_OCI_LAYER, record.diff_id, record.archive_size);
            entry.layers.push(path(&record.diff_id));
            entry
                .layer_sources
                .insert(record.diff_id.to_string(), source.clone());
            manifest.layers.push(source);
            self.blobs
                .entry(record.diff_id)
                .or_insert_with(|| Blob::Layer(*chain, Arc::clone(layer)));
        }
        let bytes = json(&manifest)?;
        let platform = Platform {
            architecture: image.config.architecture.clone(),
            os: image.config.os.clone(),
            os_version: image.config.os_version.clone(),
            variant: image.config.variant.clone(),
        };
        let untagged = Descriptor {
            platform: Some(platform),
            ..descriptor(MEDIA_OCI_MANIFEST, Digest::of(&bytes), bytes.len() as u64)
        };
        self.blobs.insert(untagged.digest, Blob::Bytes(bytes));
        self.blobs.insert(*id, Blob::Bytes(config));
        for reference in refs {
            let tag = reference.tag().unwrap_or_default().to_owned();
            let mut tagged = untagged.clone();
            tagged
                .annotations
                .insert(ANNOTATION_IMAGE_NAME.to_owned(), reference.canonical());
            tagged
                .annotations
                .insert(ANNOTATION_REF_NAME.to_owned(), tag.clone());
            self.index.manifests.push(tagged);
            entry.repo_tags.push(reference.familiar());
            let top = image
                .config
                .diff_ids
                .last()
                .map(Digest::hex)
                .unwrap_or_default();
            self.repositories
                .entry(reference.familiar_name())
                .or_default()
                .insert(tag, top);
        }
        if refs.is_empty() {
            self.index.manifests.push(untagged);
        }
        self.manifest.push(entry);
        Ok(())
    }
}

fn write_layer(store: &Inner, chain: &Digest, layer: &Layer, out: &mut dyn Write) -> Result<()> {
    let dir = store.layer_dir(chain);
    let record = &layer.record;
    let what = format!("layer {}", record.diff_id);
    let parts = Parts {
        recipe: File::open(dir.join(RECIPE)).doing(|| format!("open the recipe of {what}"))?,
        root: open_dir(&dir.join(FS))?,
        aside: open_dir(&dir.join(ASIDE))?,
        displaced: &record.displaced,
        what: what.clone(),
    };
    let (found, size) = rebuild(parts, out)?;
    if found != record.diff_id {
        return Err(Error::Mismatch {
            what,
            expected: record.diff_id,
            found,
        });
    }
    if size != record.archive_size {
        return Err(Error::damaged(
            what,
            format!("its archive has {size} bytes, not {}", record.archive_size),
        ));
    }
    Ok(())
}

fn missing(chain: &Digest) -> Error {
    Error::damaged(format!("layer {chain}"), "it is not in the store")
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Io {
        what: "encode a document".to_owned(),
        source: error.into(),
    })
}
