//! OCI layouts without a `manifest.json`: `index.json` leads to manifests, maybe over indexes.

use std::collections::HashSet;

use berth_model::digest::Digest;
use berth_model::image::manifest::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, Document, Index, MEDIA_DOCKER_LIST,
    MEDIA_DOCKER_MANIFEST, MEDIA_OCI_INDEX, MEDIA_OCI_MANIFEST, Manifest, OciLayout, Platform,
};
use berth_model::reference::Reference;

use super::plan::PlannedImage;
use super::spool::{Blob, Spool};
use crate::error::{Error, Result, shown};
use crate::limits::{HOPS_MAX, IMAGES_MAX};

/// Marks manifests that describe another one (provenance, signatures) instead of an image.
const ATTESTS: &str = "vnd.docker.reference.type";

pub(crate) fn plan(spool: &Spool, index: &Blob) -> Result<Vec<PlannedImage>> {
    check_layout(spool)?;
    let bytes = spool.document(index, "index.json")?;
    let Document::Index(index) = document(&bytes, "index.json", "")? else {
        return Err(Error::archive(
            "index.json",
            "it is a manifest, not an index",
        ));
    };
    if index.manifests.len() > IMAGES_MAX {
        return Err(Error::archive(
            "index.json",
            format!("it has more than {IMAGES_MAX} entries"),
        ));
    }
    let mut images: Vec<PlannedImage> = Vec::new();
    for entry in index.manifests.iter().filter(|entry| is_image(entry)) {
        let mut seen = HashSet::new();
        let manifest = resolve(spool, entry, &mut seen)?;
        let mut image = planned(spool, &manifest)?;
        image.refs = refs(entry)?;
        // One image under several names is several entries.
        match images.iter_mut().find(|known| known.id == image.id) {
            Some(known) => known.refs.append(&mut image.refs),
            None => images.push(image),
        }
    }
    if images.is_empty() {
        return Err(Error::archive("index.json", "it names no image"));
    }
    Ok(images)
}

fn check_layout(spool: &Spool) -> Result<()> {
    let Some(blob) = spool.find("oci-layout")? else {
        return Err(Error::archive(
            "image archive",
            "it has an index.json but no oci-layout",
        ));
    };
    let layout: OciLayout = serde_json::from_slice(&spool.document(&blob, "oci-layout")?)
        .map_err(|error| Error::archive("oci-layout", error.to_string()))?;
    if layout.image_layout_version.starts_with("1.") {
        Ok(())
    } else {
        let version = shown(layout.image_layout_version.as_bytes());
        Err(Error::unsupported(
            "oci-layout",
            format!("version {version}, 1.x is known"),
        ))
    }
}

fn is_image(entry: &Descriptor) -> bool {
    !entry.annotations.contains_key(ATTESTS)
        && entry
            .platform
            .as_ref()
            .is_none_or(|platform| platform.os != "unknown" || platform.architecture != "unknown")
}

/// The manifest that a descriptor leads to; of an index, the one for this machine.
fn resolve(spool: &Spool, descriptor: &Descriptor, seen: &mut HashSet<Digest>) -> Result<Manifest> {
    let what = format!("manifest {}", descriptor.digest);
    if !seen.insert(descriptor.digest) || seen.len() > HOPS_MAX {
        return Err(Error::archive(
            what,
            "indexes go round in a circle, or too deep",
        ));
    }
    let blob = blob(spool, descriptor, &what)?;
    let bytes = spool.document(&blob, &what)?;
    match document(&bytes, &what, &descriptor.media_type)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(index) => resolve(spool, choose(&index, &what)?, seen),
    }
}

/// Of an index's images the one for this machine; the only one, if there is but one.
fn choose<'a>(index: &'a Index, what: &str) -> Result<&'a Descriptor> {
    let images: Vec<&Descriptor> = index
        .manifests
        .iter()
        .filter(|entry| is_image(entry))
        .collect();
    if let [only] = images[..] {
        return Ok(only);
    }
    let host = host_architecture();
    let fits = |entry: &&&Descriptor| {
        entry
            .platform
            .as_ref()
            .is_some_and(|platform| fits(platform, host))
    };
    let mut fitting: Vec<&&Descriptor> = images.iter().filter(fits).collect();
    // A plain entry before one for some newer variant, which this machine may not be.
    fitting.sort_by_key(|entry| {
        entry
            .platform
            .as_ref()
            .map_or(0, |platform| variant_rank(&platform.variant, host))
    });
    fitting
        .first()
        .map(|entry| **entry)
        .ok_or_else(|| Error::archive(what, format!("the index has no image for linux/{host}")))
}

fn fits(platform: &Platform, host: &str) -> bool {
    platform.os == "linux" && platform.architecture == host
}

fn variant_rank(variant: &str, host: &str) -> usize {
    match (host, variant) {
        (_, "") | ("arm64", "v8") => 0,
        ("arm", "v7") => 1,
        ("arm", "v6") => 2,
        _ => 3,
    }
}

/// Go's word for this machine, which manifests use.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn planned(spool: &Spool, manifest: &Manifest) -> Result<PlannedImage> {
    let what = format!("configuration {}", manifest.config.digest);
    let config = blob(spool, &manifest.config, &what)?;
    let layers = manifest
        .layers
        .iter()
        .map(|layer| blob(spool, layer, &format!("layer {}", layer.digest)))
        .collect::<Result<_>>()?;
    PlannedImage::new(
        config.digest,
        spool.document(&config, &what)?,
        layers,
        Vec::new(),
    )
}

/// What a descriptor points to: by digest alone, size and content compared.
fn blob(spool: &Spool, descriptor: &Descriptor, what: &str) -> Result<Blob> {
    let blob = spool.get(&format!("blobs/sha256/{}", descriptor.digest.hex()))?;
    if blob.digest != descriptor.digest {
        return Err(Error::Mismatch {
            what: what.to_owned(),
            expected: descriptor.digest,
            found: blob.digest,
        });
    }
    if blob.size != descriptor.size {
        let why = format!(
            "it has {} bytes, its descriptor says {}",
            blob.size, descriptor.size
        );
        return Err(Error::archive(what, why));
    }
    Ok(blob)
}

/// Reads a manifest or index, whose own type must be what it is and what was said of it.
fn document(bytes: &[u8], what: &str, said: &str) -> Result<Document> {
    let document =
        Document::parse(bytes).map_err(|error| Error::archive(what, error.to_string()))?;
    let (own, known) = match &document {
        Document::Manifest(manifest) => (
            &manifest.media_type,
            [MEDIA_OCI_MANIFEST, MEDIA_DOCKER_MANIFEST],
        ),
        Document::Index(index) => (&index.media_type, [MEDIA_OCI_INDEX, MEDIA_DOCKER_LIST]),
    };
    for media_type in [own.as_str(), said] {
        if !media_type.is_empty() && !known.contains(&media_type) {
            let why = format!(
                "its media type {} is not that of its contents",
                shown(media_type.as_bytes())
            );
            return Err(Error::archive(what, why));
        }
    }
    if !own.is_empty() && !said.is_empty() && own != said {
        return Err(Error::archive(
            what,
            "its media type is not that of its descriptor",
        ));
    }
    Ok(document)
}

/// The names that an entry of the index gives its image. A bare tag names nothing by itself.
fn refs(entry: &Descriptor) -> Result<Vec<Reference>> {
    if let Some(name) = entry.annotations.get(ANNOTATION_IMAGE_NAME) {
        return Ok(vec![super::plan::reference(name)?]);
    }
    match entry.annotations.get(ANNOTATION_REF_NAME) {
        Some(name) if name.contains([':', '/']) => Ok(vec![super::plan::reference(name)?]),
        _ => Ok(Vec::new()),
    }
}
