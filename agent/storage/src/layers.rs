//! Layers: what is recorded of each, and how new ones come to be.
//!
//! A layer is `layers/<chain id>/` with
//! - `layer.json`, the record below, written before the directory gets its name;
//! - `fs/`, the unpacked files in the driver's form;
//! - `recipe`, from which the layer's archive can be written again (see [`crate::archive::recipe`]);
//! - `aside/`, contents that the recipe needs and the files do not show; mostly empty.
//!
//! The chain id (as OCI defines it) covers the layer and all below, because what unpacking does
//! depends on what is below. New layers are *staged*: made whole in the ingest directory, all of one
//! operation synced at once, and only then renamed. A crash or an error leaves nothing that has a name.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use berth_model::digest::Digest;
use berth_sys::{at, atomic};
use serde::{Deserialize, Serialize};

use crate::archive::lower::{self, Lower};
use crate::archive::pump::pump;
use crate::archive::recipe::{Displaced, RecipeWriter};
use crate::archive::unpack::{self, Job};
use crate::archive::whiteout::Marks;
use crate::error::{Context, Error, Result};
use crate::limits::{LAYERS_MAX, SPACE_SHARE};
use crate::root::{make_dir, open_dir};
use crate::state::{Layer, Pins};
use crate::store::Inner;

/// Format of `layer.json`.
const VERSION: u32 = 1;
const RECORD: &str = "layer.json";
pub(crate) const FS: &str = "fs";
pub(crate) const RECIPE: &str = "recipe";
pub(crate) const ASIDE: &str = "aside";

/// `layer.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    version: u32,
    /// Digest of the layer's plain archive.
    pub(crate) diff_id: Digest,
    /// Chain id of the layer below.
    pub(crate) parent: Option<Digest>,
    /// Bytes of the plain archive.
    pub(crate) archive_size: u64,
    /// Bytes of the regular files.
    pub(crate) size: u64,
    /// Nothing of the layers below shows.
    #[serde(default)]
    pub(crate) opaque: bool,
    #[serde(default)]
    pub(crate) displaced: Vec<Displaced>,
}

impl LayerRecord {
    /// Reads the record of the layer directory `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(RECORD);
        let bytes = std::fs::read(&path).doing(|| format!("read {}", path.display()))?;
        let record: LayerRecord = serde_json::from_slice(&bytes)
            .map_err(|error| Error::damaged(path.display().to_string(), error.to_string()))?;
        if record.version != VERSION {
            let why = format!(
                "its version is {}, this agent knows {VERSION}",
                record.version
            );
            return Err(Error::damaged(path.display().to_string(), why));
        }
        Ok(record)
    }

    fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(RECORD);
        let bytes = serde_json::to_vec(self).map_err(|error| Error::Io {
            what: format!("encode {}", path.display()),
            source: error.into(),
        })?;
        // Made durable together with the layer's files.
        std::fs::write(&path, bytes).doing(|| format!("write {}", path.display()))
    }
}

/// The chain id of a layer upon the chain `parent`.
pub(crate) fn chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    match parent {
        None => *diff_id,
        Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
    }
}

/// The chain ids of an image's layers, lowest first.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chains.push(chain_id(chains.last(), diff_id));
    }
    chains
}

/// Where a layer's bytes come from.
pub(crate) struct Source<'a> {
    /// The plain archive.
    pub(crate) input: &'a mut dyn Read,
    /// What the archive's digest must be; `None` for a layer of our own making.
    pub(crate) diff_id: Option<Digest>,
    /// The archive's digest, when it was hashed on its way here.
    pub(crate) hashed: Option<Digest>,
    /// Names the layer in errors.
    pub(crate) what: String,
}

/// Layers in the making.
#[derive(Debug)]
pub(crate) struct Staging<'s> {
    store: &'s Inner,
    dir: PathBuf,
    /// In the order in which they were made: parents before children.
    staged: Vec<(Digest, PathBuf)>,
    records: HashMap<Digest, LayerRecord>,
    /// Keeps the layers that this operation counts on, staged or found.
    pins: Pins<'s>,
}

impl<'s> Staging<'s> {
    pub(crate) fn new(store: &'s Inner) -> Result<Self> {
        Ok(Staging {
            store,
            dir: store.root.new_ingest()?,
            staged: Vec::new(),
            records: HashMap::new(),
            pins: Pins::new(store),
        })
    }

    /// The private directory of this operation.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the layer is here already, finished or staged; if so, it will stay.
    pub(crate) fn has(&mut self, chain: &Digest) -> bool {
        self.records.contains_key(chain) || self.pins.pin_existing(chain)
    }

    /// Unpacks a layer upon the chain `parent` (which is here); gives its chain id.
    pub(crate) fn add(
        &mut self,
        parent: Option<&Digest>,
        source: Source<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Digest> {
        let Source {
            input,
            diff_id,
            hashed,
            what,
        } = source;
        let below = self.chain(parent)?;
        if below.len() >= LAYERS_MAX {
            return Err(Error::unsupported(
                what,
                format!("an image may have {LAYERS_MAX} layers"),
            ));
        }
        let dir = self.dir.join(format!("layer-{}", self.staged.len()));
        let fs = dir.join(FS);
        for (made, mode) in [(&dir, 0o700), (&fs, 0o755), (&dir.join(ASIDE), 0o700)] {
            make_dir(made, mode)?;
        }
        let recipe = at::create_at(open_dir(&dir)?, RECIPE, 0o600)
            .doing(|| format!("make the recipe of {what}"))?;
        let lowers = self.lowers(&below)?;
        let free = at::free_space(open_dir(&dir)?).doing(|| "ask for free space".to_owned())?;
        let job = Job {
            root: open_dir(&fs)?,
            aside: open_dir(&dir.join(ASIDE))?,
            recipe: RecipeWriter::new(File::from(recipe))
                .doing(|| format!("write the recipe of {what}"))?,
            marks: self.store.driver.marks(),
            lowers: &lowers,
            space: free / SPACE_SHARE,
            what: what.clone(),
        };
        let confinement = self.store.confinement()?;
        let (unpacked, passed) = pump(input, &what, hashed.is_none(), progress, move |pieces| {
            confinement.enter()?;
            unpack::unpack(pieces, job)
        })?;
        drop(lowers);
        let found = hashed
            .or(passed.digest)
            .ok_or_else(|| Error::damaged(&what, "it was not hashed"))?;
        if let Some(expected) = diff_id.filter(|expected| *expected != found) {
            return Err(Error::Mismatch {
                what,
                expected,
                found,
            });
        }
        let parent_fs = below.first().map(|(_, dir)| dir.join(FS));
        self.store.driver.commit_layer(&fs, parent_fs.as_deref())?;
        let record = LayerRecord {
            version: VERSION,
            diff_id: found,
            parent: parent.copied(),
            archive_size: passed.bytes,
            size: unpacked.size,
            opaque: unpacked.opaque,
            displaced: unpacked.displaced,
        };
        record.write(&dir)?;
        let chain = chain_id(parent, &found);
        self.staged.push((chain, dir));
        self.records.insert(chain, record);
        Ok(chain)
    }

    /// The layers of a chain with their directories, topmost first.
    fn chain(&self, top: Option<&Digest>) -> Result<Vec<(LayerRecord, PathBuf)>> {
        let mut chain = Vec::new();
        let mut next = top.copied();
        while let Some(id) = next {
            let (record, dir) = match self.records.get(&id) {
                Some(record) => {
                    let staged = self.staged.iter().find(|(staged, _)| *staged == id);
                    let dir = staged
                        .map(|(_, dir)| dir.clone())
                        .ok_or_else(|| missing(&id))?;
                    (record.clone(), dir)
                }
                None => {
                    let layer = self.store.state().layer(&id).ok_or_else(|| missing(&id))?;
                    (layer.record.clone(), self.store.layer_dir(&id))
                }
            };
            next = record.parent;
            chain.push((record, dir));
        }
        Ok(chain)
    }

    fn lowers(&self, chain: &[(LayerRecord, PathBuf)]) -> Result<Vec<Lower>> {
        let marks = self.store.driver.layer_marks();
        // A whole tree tells everything by itself.
        let count = if marks == Marks::None { 1 } else { chain.len() };
        chain
            .iter()
            .take(count)
            .map(|(record, dir)| {
                lower::open(dir.join(FS), marks, record.opaque)
                    .doing(|| format!("open {}", dir.display()))
            })
            .collect()
    }

    /// Makes the staged layers durable and gives them their names. Gives the pins, which keep them
    /// until something uses them.
    pub(crate) fn commit(mut self) -> Result<Pins<'s>> {
        if !self.staged.is_empty() {
            let doing = || "make layers durable".to_owned();
            // One sync of the file system instead of one of each of a hundred thousand files.
            atomic::syncfs(open_dir(&self.dir)?).doing(doing)?;
            let mut state = self.store.state();
            for (chain, dir) in &self.staged {
                if state.layer(chain).is_none() {
                    let name = self.store.layer_dir(chain);
                    // Something unreadable may be in the way; it was not counted as a layer.
                    self.store.trash.take(&name)?;
                    std::fs::rename(dir, &name).doing(doing)?;
                    let Some(record) = self.records.remove(chain) else {
                        continue;
                    };
                    state.add_layer(*chain, Layer { record });
                }
                self.pins.pin(&mut state, chain);
            }
            drop(state);
            atomic::fsync_dir(&self.store.root.layers).doing(doing)?;
        }
        Ok(std::mem::replace(&mut self.pins, Pins::new(self.store)))
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.store.trash.take(&self.dir) {
            tracing::warn!(%error, "leaving an ingest directory for the next start");
        }
    }
}

fn missing(chain: &Digest) -> Error {
    Error::damaged(format!("layer {chain}"), "it is not in the store")
}
