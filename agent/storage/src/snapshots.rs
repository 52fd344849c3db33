//! Snapshots: containers' writable layers, `snapshots/<id>/`.
//!
//! Which layer a snapshot lies on stands in its own `snapshot.json`, so that layers stay as long as
//! a container needs them whatever becomes of its image.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use berth_model::digest::Digest;
use berth_sys::{at, atomic};
use serde::{Deserialize, Serialize};

use crate::driver::{MountOptions, Stack};
use crate::error::{Context, Error, Result};
use crate::root::{Root, open_dir};
use crate::state::{Snapshot, State};
use crate::store::{Store, read_names};

const VERSION: u32 = 1;
const RECORD: &str = "snapshot.json";

/// `snapshot.json`.
#[derive(Debug, Serialize, Deserialize)]
struct SnapshotRecord {
    version: u32,
    /// For whoever reads the file; the layer is what counts.
    image: Option<Digest>,
    /// Chain id of the layer below.
    layer: Option<Digest>,
}

impl Store {
    /// Makes the writable layer of a container over an image, or over nothing. Durable when it
    /// returns; an error leaves nothing.
    pub fn snapshot_create(&self, id: &str, image: Option<&Digest>) -> Result<()> {
        check_name(id)?;
        let inner = &*self.inner;
        let (top, stack) = {
            let mut state = inner.state();
            let top = match image {
                Some(image) => state
                    .images
                    .get(image)
                    .ok_or(Error::NoImage(*image))?
                    .chains
                    .last()
                    .copied(),
                None => None,
            };
            if state.snapshots.contains_key(id) {
                return Err(Error::SnapshotExists(id.to_owned()));
            }
            let stack = inner.stack(&state, top.as_ref())?;
            state.add_snapshot(id.to_owned(), Snapshot { top, ready: false });
            (top, stack)
        };
        let made = self.make(id, image, top, &stack);
        let mut state = inner.state();
        match made {
            Ok(()) => {
                if let Some(snapshot) = state.snapshots.get_mut(id) {
                    snapshot.ready = true;
                }
                Ok(())
            }
            Err(error) => {
                let unused = state.remove_snapshot(id);
                inner.discard_layers(&mut state, &unused)?;
                Err(error)
            }
        }
    }

    fn make(
        &self,
        id: &str,
        image: Option<&Digest>,
        top: Option<Digest>,
        stack: &Stack,
    ) -> Result<()> {
        let inner = &*self.inner;
        let doing = || format!("make snapshot {id}");
        let making = inner.root.new_ingest()?;
        let result = (|| {
            inner.driver.prepare(&making, stack)?;
            let record = SnapshotRecord {
                version: VERSION,
                image: image.copied(),
                layer: top,
            };
            let bytes = serde_json::to_vec(&record)
                .map_err(std::io::Error::from)
                .doing(doing)?;
            // Nobody looks here before the rename, so the file needs no temporary name of its own.
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(making.join(RECORD))
                .and_then(|mut file| {
                    file.write_all(&bytes)?;
                    file.sync_data()
                })
                .doing(doing)?;
            let name = making.file_name().unwrap_or_default();
            let snapshots = open_dir(&inner.root.snapshots)?;
            match at::rename_new_at(open_dir(&inner.root.ingest)?, name, &snapshots, id) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::SnapshotExists(id.to_owned()));
                }
                other => other.doing(doing)?,
            }
            atomic::fsync(&snapshots).doing(doing)
        })();
        if result.is_err() {
            // Wherever it had got to.
            inner.trash.take(&making)?;
        }
        result
    }

    /// The root of a container as a detached mount, for one attachment in any mount namespace.
    pub fn snapshot_mount(&self, id: &str, options: &MountOptions) -> Result<OwnedFd> {
        let (dir, stack) = self.ready(id)?;
        self.inner.driver.mount(&dir, &stack, id, options)
    }

    /// Removes a writable layer; not being there is no error. The files go in the background, also
    /// under a mount that still exists.
    pub fn snapshot_remove(&self, id: &str) -> Result<()> {
        check_name(id)?;
        let inner = &*self.inner;
        let mut state = inner.state();
        if state
            .snapshots
            .get(id)
            .is_some_and(|snapshot| !snapshot.ready)
        {
            return Err(Error::SnapshotBusy(id.to_owned()));
        }
        inner
            .driver
            .discard(&inner.root.snapshots.join(id), &inner.trash)?;
        let unused = state.remove_snapshot(id);
        inner.discard_layers(&mut state, &unused).map(drop)
    }

    /// Bytes that a container has written beyond its image.
    pub fn snapshot_size(&self, id: &str) -> Result<u64> {
        let (dir, stack) = self.ready(id)?;
        self.inner.driver.size(&dir, &stack)
    }

    /// The ids of all snapshots.
    pub fn snapshots(&self) -> Result<Vec<String>> {
        Ok(self.inner.state().snapshots.keys().cloned().collect())
    }

    fn ready(&self, id: &str) -> Result<(std::path::PathBuf, Stack)> {
        let state = self.inner.state();
        let snapshot = state
            .snapshots
            .get(id)
            .ok_or_else(|| Error::NoSnapshot(id.to_owned()))?;
        if !snapshot.ready {
            return Err(Error::SnapshotBusy(id.to_owned()));
        }
        Ok((
            self.inner.root.snapshots.join(id),
            self.inner.stack(&state, snapshot.top.as_ref())?,
        ))
    }
}

/// Reads the records of all snapshots into the state.
pub(crate) fn read_all(root: &Root, state: &mut State) -> Result<()> {
    for id in read_names(&root.snapshots)? {
        match read(&root.snapshots.join(&id)) {
            Ok(record) => state.add_snapshot(
                id,
                Snapshot {
                    top: record.layer,
                    ready: true,
                },
            ),
            // It can still be removed by name.
            Err(error) => {
                tracing::error!(%error, snapshot = %id, "a snapshot cannot be read and is unavailable")
            }
        }
    }
    Ok(())
}

fn read(dir: &Path) -> Result<SnapshotRecord> {
    let path = dir.join(RECORD);
    let bytes = std::fs::read(&path).doing(|| format!("read {}", path.display()))?;
    let record: SnapshotRecord = serde_json::from_slice(&bytes)
        .map_err(|error| Error::damaged(path.display().to_string(), error.to_string()))?;
    if record.version != VERSION {
        return Err(Error::damaged(
            path.display().to_string(),
            format!("its version is {}", record.version),
        ));
    }
    Ok(record)
}

/// A snapshot's name becomes a directory's.
fn check_name(id: &str) -> Result<()> {
    let good = id.len() <= 128
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if good {
        Ok(())
    } else {
        Err(Error::SnapshotName(id.chars().take(64).collect()))
    }
}
