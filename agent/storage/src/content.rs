//! Blobs under their digests: verified while they are written, immutable afterwards, and named by
//! nothing but a rename of what is already durable.
//!
//! The files are `content/<kind>/<hex>`. Today the store keeps the configurations of images here,
//! byte for byte as they came, because an image's identity is their digest. Layers are kept unpacked
//! (see [`crate::archive::recipe`]).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use berth_model::digest::Digest;
use berth_sys::{at, atomic};
use sha2::Digest as _;

use crate::error::{Context, Error, Result};
use crate::limits::DOCUMENT_MAX;
use crate::root::{make_dir, open_dir};

/// One kind of blobs.
#[derive(Debug)]
pub(crate) struct Content {
    dir: PathBuf,
}

impl Content {
    pub(crate) fn open(content: &Path, kind: &str) -> Result<Self> {
        let dir = content.join(kind);
        make_dir(&dir, 0o700)?;
        Ok(Content { dir })
    }

    /// Where the blob is, or would be.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    pub(crate) fn exists(&self, digest: &Digest) -> bool {
        std::fs::symlink_metadata(self.path(digest)).is_ok()
    }

    /// Stores bytes that must have this digest, durably, before it returns. Storing what is there
    /// already does nothing.
    pub(crate) fn put(
        &self,
        what: &str,
        bytes: &[u8],
        expected: &Digest,
        ingest: &Path,
    ) -> Result<()> {
        if self.exists(expected) {
            return Ok(());
        }
        let mut blob = Ingest::new(ingest)?;
        blob.write(bytes)?;
        blob.commit(self, what, Some(expected)).map(drop)
    }

    /// The bytes of a blob, verified again: what was damaged at rest must not become an image.
    pub(crate) fn get(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let doing = || format!("read {}", path.display());
        let mut bytes = Vec::new();
        let got = File::open(&path)
            .and_then(|file| file.take(DOCUMENT_MAX + 1).read_to_end(&mut bytes))
            .doing(doing)?;
        if got as u64 > DOCUMENT_MAX {
            return Err(Error::damaged(
                path.display().to_string(),
                "it is too large",
            ));
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::damaged(
                path.display().to_string(),
                format!("its digest is {found}"),
            ));
        }
        Ok(bytes)
    }

    /// The digests of all blobs; files with other names are not ours to judge.
    pub(crate) fn list(&self) -> Result<Vec<Digest>> {
        let doing = || format!("list {}", self.dir.display());
        let names = at::names(open_dir(&self.dir)?).doing(doing)?;
        Ok(names
            .iter()
            .filter_map(|name| Digest::from_hex(std::str::from_utf8(name).ok()?).ok())
            .collect())
    }

    /// Removes a blob durably; `false` when it was not there.
    pub(crate) fn remove(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(digest);
        match std::fs::remove_file(&path) {
            Ok(()) => {
                atomic::fsync_dir(&self.dir).doing(|| format!("sync {}", self.dir.display()))?;
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::Io {
                what: format!("remove {}", path.display()),
                source,
            }),
        }
    }
}

/// A blob that is being written. Dropped, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Ingest {
    file: File,
    path: PathBuf,
    hasher: sha2::Sha256,
    committed: bool,
}

impl Ingest {
    /// Begins a blob in the (private) directory `dir`.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let mut random = [0; 8];
        berth_sys::random::fill(&mut random).doing(|| "draw a name".to_owned())?;
        let name = format!("blob-{}", hex::encode(random));
        let path = dir.join(&name);
        let file = at::create_at(open_dir(dir)?, &name, 0o600)
            .doing(|| format!("make {}", path.display()))?;
        Ok(Ingest {
            file: File::from(file),
            path,
            hasher: sha2::Sha256::new(),
            committed: false,
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.file
            .write_all(bytes)
            .doing(|| format!("write {}", self.path.display()))
    }

    /// Compares the digest, makes the blob durable and gives it its name.
    pub(crate) fn commit(
        mut self,
        to: &Content,
        what: &str,
        expected: Option<&Digest>,
    ) -> Result<Digest> {
        let hasher = std::mem::replace(&mut self.hasher, sha2::Sha256::new());
        let found = Digest::from_bytes(hasher.finalize().into());
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(Error::Mismatch {
                what: what.to_owned(),
                expected: *expected,
                found,
            });
        }
        let path = to.path(&found);
        let doing = || format!("store {}", path.display());
        atomic::fsync(self.file.as_fd()).doing(doing)?;
        std::fs::rename(&self.path, &path).doing(doing)?;
        self.committed = true;
        atomic::fsync_dir(&to.dir).doing(doing)?;
        Ok(found)
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.committed {
            // What cannot be removed now goes with the whole directory at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_it_says_gets_a_name() {
        let root = tempfile::tempdir().unwrap();
        let content = Content::open(root.path(), "config").unwrap();
        let good = Digest::of(b"good");
        let error = content
            .put("config", b"bad", &good, root.path())
            .unwrap_err();
        assert!(
            matches!(error, Error::Mismatch { expected, found, .. } if expected == good && found == Digest::of(b"bad"))
        );
        assert!(content.list().unwrap().is_empty());
        // Nothing but the kind's own directory is left.
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
        content.put("config", b"good", &good, root.path()).unwrap();
        content.put("config", b"good", &good, root.path()).unwrap();
        assert_eq!(content.get(&good).unwrap(), b"good");
        assert_eq!(content.list().unwrap(), [good]);
        assert!(content.remove(&good).unwrap());
        assert!(!content.remove(&good).unwrap());
    }

    #[test]
    fn damage_at_rest_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let content = Content::open(root.path(), "config").unwrap();
        let digest = Digest::of(b"good");
        content
            .put("config", b"good", &digest, root.path())
            .unwrap();
        std::fs::write(content.path(&digest), b"gooD").unwrap();
        assert!(matches!(content.get(&digest), Err(Error::Damaged { .. })));
        drop(Ingest::new(root.path()).unwrap());
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }
}
