//! What an archive asks for, in one form whatever its layout: images, their configurations, where
//! their layers are. Making a plan reads documents and checks digests, and changes nothing.

use berth_model::digest::Digest;
use berth_model::image::config::ImageConfig;
use berth_model::reference::Reference;

use super::spool::{Blob, Spool};
use super::{docker, legacy, oci};
use crate::error::{Error, Result, shown};
use crate::limits::{IMAGES_MAX, LAYERS_MAX};

/// One image of an archive.
#[derive(Debug)]
pub(crate) struct PlannedImage {
    /// Digest of the configuration.
    pub(crate) id: Digest,
    /// The configuration, byte for byte.
    pub(crate) bytes: Vec<u8>,
    pub(crate) config: ImageConfig,
    /// One for each of the configuration's layers, lowest first.
    pub(crate) layers: Vec<Blob>,
    pub(crate) refs: Vec<Reference>,
}

/// Finds the archive's layout and what it asks for. Where it has several layouts (new archives do),
/// `manifest.json` counts, as it does for Docker.
pub(crate) fn plan(spool: &Spool) -> Result<Vec<PlannedImage>> {
    let images = if let Some(manifest) = spool.find("manifest.json")? {
        docker::plan(spool, &manifest)?
    } else if let Some(index) = spool.find("index.json")? {
        oci::plan(spool, &index)?
    } else {
        let dirs = spool.dirs_with("json");
        if dirs.is_empty() {
            let why = "it has no manifest.json, no index.json and no layers of the old layout: not an image archive";
            return Err(Error::archive("image archive", why));
        }
        legacy::plan(spool, &dirs)?
    };
    if images.len() > IMAGES_MAX {
        return Err(Error::archive(
            "image archive",
            format!("it has more than {IMAGES_MAX} images"),
        ));
    }
    Ok(images)
}

impl PlannedImage {
    /// Checks what holds for every layout.
    pub(crate) fn new(
        id: Digest,
        bytes: Vec<u8>,
        layers: Vec<Blob>,
        refs: Vec<Reference>,
    ) -> Result<Self> {
        let what = format!("image {id}");
        let config =
            ImageConfig::parse(&bytes).map_err(|error| Error::archive(&what, error.to_string()))?;
        if !matches!(config.os.as_str(), "" | "linux") {
            return Err(Error::unsupported(
                what,
                format!("it is for {}", shown(config.os.as_bytes())),
            ));
        }
        if config.diff_ids.len() != layers.len() {
            let why = format!(
                "its configuration names {} layers, the archive {}",
                config.diff_ids.len(),
                layers.len()
            );
            return Err(Error::archive(what, why));
        }
        if layers.len() > LAYERS_MAX {
            return Err(Error::unsupported(
                what,
                format!(
                    "it has {} layers, {LAYERS_MAX} can be stacked",
                    layers.len()
                ),
            ));
        }
        Ok(PlannedImage {
            id,
            bytes,
            config,
            layers,
            refs,
        })
    }
}

/// The digest that a member's own name states: `blobs/sha256/<hex>`, or `<hex>.json` as Docker named
/// configurations before.
pub(crate) fn named_digest(name: &str) -> Option<Digest> {
    let leaf = name
        .strip_prefix("blobs/sha256/")
        .or_else(|| name.strip_suffix(".json"))?;
    Digest::from_hex(leaf).ok()
}

/// Refuses a member that is not what its name states.
pub(crate) fn check_name(name: &str, blob: &Blob) -> Result<()> {
    match named_digest(name) {
        Some(expected) if expected != blob.digest => Err(Error::Mismatch {
            what: format!("\"{}\"", shown(name.as_bytes())),
            expected,
            found: blob.digest,
        }),
        _ => Ok(()),
    }
}

/// A tagged reference as an archive has it.
pub(crate) fn reference(text: &str) -> Result<Reference> {
    let fail = |why: String| {
        Error::archive(
            format!("image archive: reference \"{}\"", shown(text.as_bytes())),
            why,
        )
    };
    let reference = Reference::parse(text).map_err(|error| fail(error.to_string()))?;
    if reference.tag().is_none() {
        return Err(fail("it has no tag".to_owned()));
    }
    Ok(reference)
}
