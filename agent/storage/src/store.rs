//! The store itself: opening it, and what images and layers it holds.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use berth_model::digest::Digest;
use berth_model::image::config::ImageConfig;

use crate::archive::confine::Confinement;
use crate::content::Content;
use crate::driver::{self, Driver, Stack};
use crate::error::{Error, Result};
use crate::init_layer;
use crate::layers::{FS, LayerRecord, chain_ids};
use crate::root::Root;
use crate::snapshots;
use crate::state::{Image, Layer, State};
use crate::trash::Trash;

/// The bytes at rest of one data root: images, their layers, and containers' writable layers.
///
/// Cheap to clone. All calls block; none holds a lock while it copies or unpacks.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("root", &self.inner.root.path())
            .field("driver", &self.inner.driver.name())
            .finish()
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: Root,
    pub(crate) driver: Box<dyn Driver>,
    pub(crate) trash: Trash,
    /// Configurations of images, which are the images' identities.
    pub(crate) configs: Content,
    pub(crate) init: PathBuf,
    state: Mutex<State>,
    confinement: OnceLock<Confinement>,
}

/// What a sweep removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    pub images: Vec<Digest>,
    pub layers: usize,
    /// Bytes of files that went.
    pub bytes: u64,
}

impl Store {
    /// Opens the store below the data root `root`, making what is missing, and clears what an earlier
    /// agent left unfinished.
    ///
    /// `driver`: `overlay` (also for `None`) or `vfs`. There is no silent change from one to the
    /// other: where overlay cannot work this is an error that says so.
    pub fn open(root: &Path, driver: Option<&str>) -> Result<Store> {
        let root = Root::open(root)?;
        let trash = Trash::open(&root.trash)?;
        for left in read_names(&root.ingest)? {
            trash.take(&root.ingest.join(left))?;
        }
        let driver = driver::open(driver, &root, &trash)?;
        check_driver(&root, driver.name())?;
        let configs = Content::open(&root.content, "config")?;
        let init = init_layer::ensure(&root)?;
        let mut state = State::default();
        read_layers(&root, &mut state)?;
        read_images(&configs, &mut state)?;
        snapshots::read_all(&root, &mut state)?;
        let inner = Inner {
            root,
            driver,
            trash,
            configs,
            init,
            state: Mutex::new(state),
            confinement: OnceLock::new(),
        };
        Ok(Store {
            inner: Arc::new(inner),
        })
    }

    /// The driver's name.
    pub fn driver_name(&self) -> &'static str {
        self.inner.driver.name()
    }

    /// What `info` shows of the driver.
    pub fn driver_status(&self) -> Vec<(String, String)> {
        self.inner.driver.status()
    }

    /// The view of an image's configuration.
    pub fn image_config(&self, id: &Digest) -> Result<Arc<ImageConfig>> {
        Ok(self.inner.image(id)?.config.clone())
    }

    /// An image's configuration, byte for byte.
    pub fn image_config_bytes(&self, id: &Digest) -> Result<Vec<u8>> {
        self.inner.image(id)?;
        self.inner.configs.get(id)
    }

    /// Whether the image is here with all its layers.
    pub fn image_exists(&self, id: &Digest) -> bool {
        self.inner.state().images.contains_key(id)
    }

    /// All images, by id.
    pub fn images(&self) -> Vec<Digest> {
        self.inner.state().images.keys().copied().collect()
    }

    /// Bytes of the files of all layers of an image, shared or not.
    pub fn image_size(&self, id: &Digest) -> Result<u64> {
        Ok(self.layer_sizes(id)?.iter().sum())
    }

    /// Bytes of the files of each layer, lowest first.
    pub fn layer_sizes(&self, id: &Digest) -> Result<Vec<u64>> {
        let state = self.inner.state();
        let image = state.images.get(id).ok_or(Error::NoImage(*id))?;
        Ok(image
            .chains
            .iter()
            .map(|chain| state.layer(chain).map_or(0, |layer| layer.record.size))
            .collect())
    }

    /// Removes an image, and the layers that no other image, no snapshot and no operation under way
    /// needs. Gives the bytes that this frees. Whether containers forbid it is the caller's question.
    pub fn remove_image(&self, id: &Digest) -> Result<u64> {
        let mut state = self.inner.state();
        if !state.images.contains_key(id) {
            return Err(Error::NoImage(*id));
        }
        self.inner
            .remove_image(&mut state, id)
            .map(|(_, bytes)| bytes)
    }

    /// The sweep at start: removes the images that are not in `keep`, and layers that nothing needs.
    /// Images that came in since this store was opened are spared, and so is what running operations
    /// count on.
    pub fn collect(&self, keep: &BTreeSet<Digest>) -> Result<Collected> {
        let mut collected = Collected::default();
        let mut state = self.inner.state();
        let stale: Vec<Digest> = state
            .images
            .keys()
            .filter(|id| !keep.contains(id) && !state.fresh.contains(id))
            .copied()
            .collect();
        for id in stale {
            let (layers, bytes) = self.inner.remove_image(&mut state, &id)?;
            collected.images.push(id);
            collected.layers += layers;
            collected.bytes += bytes;
        }
        let unused = state.unused();
        let (layers, bytes) = self.inner.discard_layers(&mut state, &unused)?;
        collected.layers += layers;
        collected.bytes += bytes;
        for name in read_names(&self.inner.root.layers)? {
            let unknown = Digest::from_hex(&name)
                .map_or(!init_layer::is_init(Path::new(&name)), |chain| {
                    state.layer(&chain).is_none()
                });
            if unknown {
                tracing::warn!(layer = %name, "removing a layer that cannot be read");
                self.inner
                    .driver
                    .discard(&self.inner.root.layers.join(&name), &self.inner.trash)?;
                collected.layers += 1;
            }
        }
        Ok(collected)
    }

    /// Waits until what was removed so far has left the disk. For orderly ends and for tests.
    pub fn settle(&self) {
        self.inner.trash.wait();
    }
}

impl Inner {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // No invariant spans a panic: every change is one insertion or removal.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn image(&self, id: &Digest) -> Result<Arc<Image>> {
        self.state()
            .images
            .get(id)
            .cloned()
            .ok_or(Error::NoImage(*id))
    }

    pub(crate) fn layer_dir(&self, chain: &Digest) -> PathBuf {
        self.root.layers.join(chain.hex())
    }

    /// Where unpacking threads go; made when first needed.
    pub(crate) fn confinement(&self) -> Result<Confinement> {
        if let Some(known) = self.confinement.get() {
            return Ok(known.clone());
        }
        let new = Confinement::new()?;
        Ok(self.confinement.get_or_init(|| new).clone())
    }

    /// The directories below a writable layer on `top`.
    pub(crate) fn stack(&self, state: &State, top: Option<&Digest>) -> Result<Stack> {
        let mut layers = Vec::new();
        let mut next = top.copied();
        while let Some(chain) = next {
            let layer = state.layer(&chain).ok_or_else(|| {
                Error::damaged(format!("layer {chain}"), "it is not in the store")
            })?;
            layers.push(self.layer_dir(&chain).join(FS));
            next = layer.record.parent.filter(|_| !layer.record.opaque);
        }
        Ok(Stack {
            layers,
            init: self.init.clone(),
        })
    }

    pub(crate) fn remove_image(&self, state: &mut State, id: &Digest) -> Result<(usize, u64)> {
        // First the identity, durably: a crash from here on leaves layers that the sweep finds.
        self.configs.remove(id)?;
        let unused = state.remove_image(id);
        self.discard_layers(state, &unused)
    }

    /// Moves layers to the trash that nobody needs; the caller says which, children first.
    pub(crate) fn discard_layers(
        &self,
        state: &mut State,
        chains: &[Digest],
    ) -> Result<(usize, u64)> {
        let (mut count, mut bytes) = (0, 0);
        for chain in chains {
            let Some(layer) = state.layer(chain) else {
                continue;
            };
            self.driver.discard(&self.layer_dir(chain), &self.trash)?;
            state.drop_layer(chain);
            count += 1;
            bytes += layer.record.size;
        }
        Ok((count, bytes))
    }
}

/// Layers are in the form of the driver that made them, so a data root keeps its driver.
fn check_driver(root: &Root, name: &str) -> Result<()> {
    let path = root.path().join("storage.driver");
    let doing = || format!("read {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(known) if known.trim() == name => Ok(()),
        Ok(known) => Err(Error::unsupported(
            format!("data root {}", root.path().display()),
            format!(
                "its layers were made by the storage driver {}, not {name}",
                known.trim()
            ),
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            berth_sys::atomic::write_atomic(&path, name.as_bytes(), 0o600, true).map_err(|source| {
                Error::Io {
                    what: format!("write {}", path.display()),
                    source,
                }
            })
        }
        Err(source) => Err(Error::Io {
            what: doing(),
            source,
        }),
    }
}

/// Names in a directory of ours, as text; others are not ours.
pub(crate) fn read_names(dir: &Path) -> Result<Vec<String>> {
    let names = berth_sys::at::names(crate::root::open_dir(dir)?).map_err(|source| Error::Io {
        what: format!("list {}", dir.display()),
        source,
    })?;
    Ok(names
        .into_iter()
        .filter_map(|name| String::from_utf8(name).ok())
        .collect())
}

fn read_layers(root: &Root, state: &mut State) -> Result<()> {
    for name in read_names(&root.layers)? {
        let Ok(chain) = Digest::from_hex(&name) else {
            continue;
        };
        match LayerRecord::read(&root.layers.join(&name)) {
            Ok(record) => state.add_layer(chain, Layer { record }),
            // One bad layer must not keep the agent from starting.
            Err(error) => {
                tracing::error!(%error, layer = %chain, "a layer cannot be read, its images are unavailable")
            }
        }
    }
    Ok(())
}

fn read_images(configs: &Content, state: &mut State) -> Result<()> {
    for id in configs.list()? {
        let config = configs.get(&id).and_then(|bytes| {
            ImageConfig::parse(&bytes)
                .map_err(|error| Error::damaged(format!("image {id}"), error.to_string()))
        });
        match config {
            Ok(config) => {
                let chains = chain_ids(&config.diff_ids);
                if let Some(missing) = chains.iter().find(|chain| state.layer(chain).is_none()) {
                    tracing::error!(image = %id, layer = %missing, "an image's layer is missing, the image is unavailable");
                    continue;
                }
                state.add_image(
                    id,
                    Image {
                        config: Arc::new(config),
                        chains,
                    },
                );
            }
            Err(error) => {
                tracing::error!(%error, image = %id, "an image cannot be read and is unavailable")
            }
        }
    }
    Ok(())
}
