//! What the store holds, in memory: images, layers, snapshots, and who needs which layer.
//!
//! A layer is needed by images and snapshots that are built on it, and by *pins*: operations under
//! way that count on it. It goes when the last of them does. Everything here is rebuilt from the disk
//! at start; nothing of it is stored as such.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use berth_model::digest::Digest;
use berth_model::image::config::ImageConfig;

use crate::layers::LayerRecord;
use crate::store::Inner;

/// A finished layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) record: LayerRecord,
}

/// An image whose layers are all here.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) config: Arc<ImageConfig>,
    /// Chain ids of its layers, lowest first.
    pub(crate) chains: Vec<Digest>,
}

/// A writable layer.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// Chain id of the layer that it lies on.
    pub(crate) top: Option<Digest>,
    /// Its directory is complete.
    pub(crate) ready: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) images: BTreeMap<Digest, Arc<Image>>,
    layers: HashMap<Digest, Arc<Layer>>,
    pub(crate) snapshots: BTreeMap<String, Snapshot>,
    /// Images and snapshots that need a layer.
    uses: HashMap<Digest, usize>,
    /// Operations that need a layer.
    pins: HashMap<Digest, usize>,
    /// Images that came in since the start: their records may not be written yet, so a sweep spares
    /// them.
    pub(crate) fresh: BTreeSet<Digest>,
}

impl State {
    pub(crate) fn layer(&self, chain: &Digest) -> Option<Arc<Layer>> {
        self.layers.get(chain).cloned()
    }

    pub(crate) fn add_layer(&mut self, chain: Digest, layer: Layer) {
        self.layers.insert(chain, Arc::new(layer));
    }

    /// Chain ids from `top` down to the lowest; ends early where a layer is missing.
    pub(crate) fn chain(&self, top: Option<&Digest>) -> Vec<Digest> {
        let mut chain = Vec::new();
        let mut next = top.copied();
        while let Some(id) = next {
            let Some(layer) = self.layers.get(&id) else {
                break;
            };
            chain.push(id);
            next = layer.record.parent;
        }
        chain
    }

    pub(crate) fn add_image(&mut self, id: Digest, image: Image) {
        if self.images.contains_key(&id) {
            return;
        }
        for chain in &image.chains {
            *self.uses.entry(*chain).or_default() += 1;
        }
        self.images.insert(id, Arc::new(image));
    }

    /// Forgets an image; gives the layers that nobody needs now, children before parents.
    pub(crate) fn remove_image(&mut self, id: &Digest) -> Vec<Digest> {
        self.fresh.remove(id);
        match self.images.remove(id) {
            Some(image) => {
                let chains: Vec<Digest> = image.chains.iter().rev().copied().collect();
                self.release(&chains)
            }
            None => Vec::new(),
        }
    }

    pub(crate) fn add_snapshot(&mut self, id: String, snapshot: Snapshot) {
        for chain in self.chain(snapshot.top.as_ref()) {
            *self.uses.entry(chain).or_default() += 1;
        }
        self.snapshots.insert(id, snapshot);
    }

    /// Forgets a snapshot; gives the layers that nobody needs now.
    pub(crate) fn remove_snapshot(&mut self, id: &str) -> Vec<Digest> {
        match self.snapshots.remove(id) {
            Some(snapshot) => {
                let chains = self.chain(snapshot.top.as_ref());
                self.release(&chains)
            }
            None => Vec::new(),
        }
    }

    fn release(&mut self, chains: &[Digest]) -> Vec<Digest> {
        for chain in chains {
            decrement(&mut self.uses, chain);
        }
        chains
            .iter()
            .filter(|chain| self.is_unused(chain))
            .copied()
            .collect()
    }

    fn is_unused(&self, chain: &Digest) -> bool {
        !self.uses.contains_key(chain) && !self.pins.contains_key(chain)
    }

    /// Layers that nobody needs, children before parents.
    pub(crate) fn unused(&self) -> Vec<Digest> {
        let mut unused: Vec<(usize, Digest)> = self
            .layers
            .keys()
            .filter(|chain| self.is_unused(chain))
            .map(|chain| (self.chain(Some(chain)).len(), *chain))
            .collect();
        unused.sort_unstable_by(|a, b| b.cmp(a));
        unused.into_iter().map(|(_, chain)| chain).collect()
    }

    /// Forgets a layer that is leaving the disk.
    pub(crate) fn drop_layer(&mut self, chain: &Digest) -> Option<Arc<Layer>> {
        self.layers.remove(chain)
    }
}

fn decrement(counts: &mut HashMap<Digest, usize>, chain: &Digest) {
    if let Some(count) = counts.get_mut(chain) {
        *count -= 1;
        if *count == 0 {
            counts.remove(chain);
        }
    }
}

/// Layers that an operation counts on. Dropped, they are let go, and those that nothing else needs
/// leave the disk: so a failed load takes back what it had finished.
#[derive(Debug)]
pub(crate) struct Pins<'s> {
    store: &'s Inner,
    pinned: Vec<Digest>,
}

impl<'s> Pins<'s> {
    pub(crate) fn new(store: &'s Inner) -> Self {
        Pins {
            store,
            pinned: Vec::new(),
        }
    }

    /// Pins a layer; the caller holds the state.
    pub(crate) fn pin(&mut self, state: &mut State, chain: &Digest) {
        *state.pins.entry(*chain).or_default() += 1;
        self.pinned.push(*chain);
    }

    /// Pins a layer if it is there.
    pub(crate) fn pin_existing(&mut self, chain: &Digest) -> bool {
        let store = self.store;
        let mut state = store.state();
        let there = state.layer(chain).is_some();
        if there {
            self.pin(&mut state, chain);
        }
        there
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        if self.pinned.is_empty() {
            return;
        }
        let mut state = self.store.state();
        for chain in &self.pinned {
            decrement(&mut state.pins, chain);
        }
        // Children were pinned after their parents.
        let unused: Vec<Digest> = self
            .pinned
            .iter()
            .rev()
            .filter(|chain| state.is_unused(chain))
            .copied()
            .collect();
        if let Err(error) = self.store.discard_layers(&mut state, &unused) {
            tracing::warn!(%error, "leaving unused layers for the next sweep");
        }
    }
}
