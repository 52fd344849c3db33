//! `import`: the archive of a root file system becomes an image of one layer.

use std::io::Read;

use berth_model::digest::Digest;
use berth_model::image::config::ImageConfig;

use super::load::commit_one;
use super::plan::PlannedImage;
use crate::archive::compress::decoder;
use crate::error::{Error, Result};
use crate::layers::{Source, Staging};
use crate::store::Store;

/// What an imported image says about itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportConfig {
    /// Everything but the layer, whose digest is put in: what containers start with, platform, time,
    /// comment, history.
    pub config: ImageConfig,
}

impl Store {
    /// Makes an image from the archive of a root file system, compressed or not; gives its id.
    pub fn import(&self, layer: &mut dyn Read, config: ImportConfig) -> Result<Digest> {
        let what = "the archive to import".to_owned();
        let inner = &*self.inner;
        let mut staging = Staging::new(inner)?;
        let (_, mut plain) = decoder(Box::new(layer)).map_err(|source| Error::Input {
            what: what.clone(),
            source,
        })?;
        let source = Source {
            input: &mut *plain,
            diff_id: None,
            hashed: None,
            what,
        };
        // The lowest layer's chain id is its digest.
        let diff_id = staging.add(None, source, &mut |_| {})?;
        let config = ImageConfig {
            diff_ids: vec![diff_id],
            ..config.config
        };
        let bytes = config.to_json();
        let id = Digest::of(&bytes);
        let image = PlannedImage {
            id,
            bytes,
            config,
            layers: Vec::new(),
            refs: Vec::new(),
        };
        let pins = staging.commit()?;
        commit_one(inner, &image, pins)?;
        Ok(id)
    }
}
