//! Archives with a `manifest.json`, as `docker save` has written them since 1.10.

use berth_model::image::manifest::ArchiveManifest;

use super::plan::{PlannedImage, check_name, reference};
use super::spool::{Blob, Spool};
use crate::error::{Error, Result};
use crate::limits::{IMAGES_MAX, LAYERS_MAX};

pub(crate) fn plan(spool: &Spool, manifest: &Blob) -> Result<Vec<PlannedImage>> {
    let bytes = spool.document(manifest, "manifest.json")?;
    let entries: ArchiveManifest = serde_json::from_slice(&bytes)
        .map_err(|error| Error::archive("manifest.json", error.to_string()))?;
    if entries.len() > IMAGES_MAX {
        return Err(Error::archive(
            "manifest.json",
            format!("it has more than {IMAGES_MAX} images"),
        ));
    }
    entries
        .into_iter()
        .map(|entry| {
            let config = spool.get(&entry.config)?;
            check_name(&entry.config, &config)?;
            if entry.layers.len() > LAYERS_MAX {
                return Err(Error::unsupported(
                    "manifest.json",
                    format!("an image with more than {LAYERS_MAX} layers"),
                ));
            }
            let layers = entry
                .layers
                .iter()
                .map(|name| {
                    let blob = spool.get(name)?;
                    check_name(name, &blob)?;
                    Ok(blob)
                })
                .collect::<Result<_>>()?;
            let refs = entry
                .repo_tags
                .iter()
                .map(|tag| reference(tag))
                .collect::<Result<_>>()?;
            PlannedImage::new(
                config.digest,
                spool.document(&config, &entry.config)?,
                layers,
                refs,
            )
        })
        .collect()
}
