//! The documents that lead from a name to an image: OCI manifests and indexes (Docker's schema 2
//! has the same fields), the `manifest.json` and `repositories` of `docker save`, and the
//! per-layer records of archives older than that. Parsed leniently; whoever reads them verifies
//! every digest and size against the bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

pub const MEDIA_OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const MEDIA_OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MEDIA_OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const MEDIA_OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const MEDIA_OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const MEDIA_OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const MEDIA_DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const MEDIA_DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const MEDIA_DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const MEDIA_DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Annotation of an index entry: the full name, as containerd writes it.
pub const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";
/// Annotation of an index entry: the tag, or in some writers the full name.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Version that an OCI layout's `oci-layout` file names.
pub const OCI_LAYOUT_VERSION: &str = "1.0.0";

/// A pointer to content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest of an index is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// One image: its configuration and its layers, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// Several images, or the entry point of an OCI layout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// The `oci-layout` file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciLayout {
    pub image_layout_version: String,
}

/// What a document is, by what it holds: media types are missing or wrong too often to rely on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// Why bytes are neither manifest nor index.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("manifest is no JSON of the expected form: {0}")]
    Json(#[from] serde_json::Error),
    #[error("manifest has schema version {0}, only 2 is supported")]
    SchemaVersion(u64),
    #[error("manifest has both layers and manifests")]
    Ambiguous,
}

impl Document {
    /// Reads a manifest or an index. A document that could be taken for both is refused, because two
    /// readers would run different images from it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            #[serde(default)]
            schema_version: u64,
            config: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let probe: Probe = serde_json::from_slice(bytes)?;
        if probe.schema_version != 2 {
            return Err(ManifestError::SchemaVersion(probe.schema_version));
        }
        match (
            probe.config.is_some() || probe.layers.is_some(),
            probe.manifests.is_some(),
        ) {
            (true, true) => Err(ManifestError::Ambiguous),
            (false, true) => Ok(Self::Index(serde_json::from_slice(bytes)?)),
            _ => Ok(Self::Manifest(serde_json::from_slice(bytes)?)),
        }
    }
}

/// One entry of the `manifest.json` that `docker save` writes. Paths are those of the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ArchiveEntry {
    pub config: String,
    /// Familiar names; `null` for an image saved by id.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub repo_tags: Vec<String>,
    /// Lowest first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// Diff id → descriptor; moby 25 and later write it.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub layer_sources: BTreeMap<String, Descriptor>,
}

/// The whole `manifest.json`.
pub type ArchiveManifest = Vec<ArchiveEntry>;

/// The `repositories` file: repository → tag → id of the topmost layer.
pub type Repositories = BTreeMap<String, BTreeMap<String, String>>;

/// What is needed of an old archive's `<id>/json` to follow the chain; the rest is read by
/// [`super::config::ImageConfig::parse_legacy`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LegacyLayer {
    pub id: String,
    /// Empty for the lowest.
    pub parent: String,
}

impl LegacyLayer {
    /// Reads the record in either spelling (`id` or `Id`).
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        let map: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes)?;
        Ok(Self {
            id: super::lenient::text(&map, "id"),
            parent: super::lenient::text(&map, "parent"),
        })
    }
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn documents_are_told_apart_by_content() {
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{D}","size":3}},"layers":[{{"digest":"{D}","size":0}}]}}"#
        );
        assert!(
            matches!(Document::parse(manifest.as_bytes()), Ok(Document::Manifest(m)) if m.layers.len() == 1)
        );
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{MEDIA_OCI_MANIFEST}","digest":"{D}","size":3,
                "platform":{{"architecture":"arm","os":"linux","variant":"v7"}},"annotations":{{"{ANNOTATION_REF_NAME}":"latest"}}}}]}}"#
        );
        let Ok(Document::Index(index)) = Document::parse(index.as_bytes()) else {
            panic!("no index")
        };
        assert_eq!(index.manifests[0].platform.as_ref().unwrap().variant, "v7");
        assert_eq!(
            index.manifests[0].annotations[ANNOTATION_REF_NAME],
            "latest"
        );
    }

    #[test]
    fn what_could_be_both_is_refused() {
        let both = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{D}"}},"layers":[],"manifests":[]}}"#
        );
        assert!(matches!(
            Document::parse(both.as_bytes()),
            Err(ManifestError::Ambiguous)
        ));
        assert!(matches!(
            Document::parse(br#"{"schemaVersion":1}"#),
            Err(ManifestError::SchemaVersion(1))
        ));
        assert!(Document::parse(br#"{"schemaVersion":2}"#).is_err());
        assert!(Document::parse(b"[]").is_err());
        let escaping = r#"{"schemaVersion":2,"config":{"digest":"sha256:../../etc/passwd","size":1},"layers":[]}"#;
        assert!(Document::parse(escaping.as_bytes()).is_err());
    }

    #[test]
    fn archives_old_and_new() {
        let text = r#"[{"Config":"blobs/sha256/aa","RepoTags":null,"Layers":["a/layer.tar"]}]"#;
        let list: ArchiveManifest = serde_json::from_str(text).unwrap();
        assert_eq!(list[0].repo_tags, Vec::<String>::new());
        assert_eq!(list[0].layers, ["a/layer.tar"]);
        let repositories: Repositories =
            serde_json::from_str(r#"{"busybox":{"latest":"abc"}}"#).unwrap();
        assert_eq!(repositories["busybox"]["latest"], "abc");
        let camel = LegacyLayer::parse(br#"{"Id":"b","Parent":"a"}"#).unwrap();
        assert_eq!(
            camel,
            LegacyLayer::parse(br#"{"id":"b","parent":"a","x":1}"#).unwrap()
        );
    }
}
