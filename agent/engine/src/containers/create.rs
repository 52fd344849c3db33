//! Create: everything is checked, the writable layer is made, and one durable row says that the
//! container exists. A crash before the row leaves directories that the next start sweeps away.

use std::io;
use std::sync::Arc;

use berth_model::time::Timestamp;
use berth_model::{ids, names};

use super::manage::checked_name;
use super::{Handle, settings};
use crate::Engine;
use crate::error::{Error, Result, Subject};
use crate::failpoint;
use crate::images::load::storage_error;
use crate::record::{Body, Record, Stored};
use crate::types::{Change, ContainerSpec, Created};

/// Names drawn before we give up: with digits appended from the second on, more means that something is broken.
const NAME_ATTEMPTS: u32 = 64;

impl Engine {
    pub async fn container_create(
        &self,
        name: Option<&str>,
        mut spec: ContainerSpec,
    ) -> Result<Created> {
        let _busy = self.busy();
        let name = match name.filter(|n| !n.is_empty()) {
            Some(name) => Some(checked_name(name)?.to_owned()),
            None => None,
        };
        // The image may not go between being found and being used.
        let _image = self.inner.images.change.lock().await;
        let image = self.inner.images.resolve(&spec.image)?.id;
        let store = self.inner.store.clone();
        let found = image;
        let config = crate::blocking::run("reading the image failed", move || {
            store.image_config(&found)
        })
        .await?
        .map_err(storage_error)?;
        let id = self.draw_id()?;
        settings::refuse_unsupported(&spec, &config.config)?;
        let effective = settings::merge(&spec, &config.config, &id)?;
        self.fix_network_owner(&mut spec)?;
        let body = Body {
            image,
            mounts: settings::mount_points(&spec),
            config: effective,
            spec,
        };
        let mut warnings = self.check_request(&id, &body)?;
        warnings.extend(self.inner.limit_warnings(&body.spec.host.resources)?);
        let reservation = match &name {
            Some(name) => self.inner.containers.reserve(name, &id)?,
            None => self.draw_name(&id)?,
        };
        failpoint::hit("create.reserved");
        let record = Record {
            id: id.clone(),
            name: reservation.name().to_owned(),
            created: Timestamp::now(),
            body: Arc::new(body),
            stored: Stored::default(),
        };
        let made = self.make_layer(&id, &image).await;
        failpoint::hit("create.snapshot");
        let recorded = match (made, record.to_row()) {
            (Ok(()), Ok(row)) => self.inner.db.container_insert(row).await,
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        if let Err(error) = recorded {
            let inner = self.inner.clone();
            // What the sweep at the next start would do, now.
            if let Ok(Err(left)) =
                tokio::task::spawn_blocking(move || inner.discard_files(&id)).await
            {
                tracing::warn!(
                    error = &left as &dyn std::error::Error,
                    "files of an unfinished create stay behind, ignoring"
                );
            }
            return Err(error);
        }
        failpoint::hit("create.recorded");
        let handle = Handle::new(record);
        self.inner.containers.insert(handle.clone());
        reservation.keep();
        self.inner.container_event(&handle, "create", []);
        self.inner.changed(Change::Created { id: id.clone() });
        Ok(Created { id, warnings })
    }

    async fn make_layer(&self, id: &str, image: &berth_model::digest::Digest) -> Result<()> {
        let inner = self.inner.clone();
        let (id, image) = (id.to_owned(), *image);
        crate::blocking::run("the create failed", move || {
            inner
                .store
                .snapshot_create(&id, Some(&image))
                .map_err(storage_error)?;
            let directory = inner.paths.container(&id);
            make_private_dir(&directory).map_err(|e| {
                Error::internal(format!("cannot make the directory {}", directory.display()))
                    .with_source(e)
            })
        })
        .await?
    }

    fn draw_id(&self) -> Result<String> {
        loop {
            let mut bytes = [0; 32];
            random(&mut bytes)?;
            // The scope is named by the short form, so that must be free as well.
            if let Some(id) = ids::from_random(bytes)
                && self.inner.containers.is_short_free(&id[..12])
            {
                return Ok(id);
            }
        }
    }

    fn draw_name(&self, id: &str) -> Result<super::Reservation<'_>> {
        for attempt in 0..NAME_ATTEMPTS {
            let mut bytes = [0; 8];
            random(&mut bytes)?;
            let name = names::generate(u64::from_le_bytes(bytes), attempt);
            if let Ok(reservation) = self.inner.containers.reserve(&name, id) {
                return Ok(reservation);
            }
        }
        Err(Error::internal("no free container name was found").about(Subject::Container))
    }
}

pub(crate) fn make_private_dir(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

fn random(bytes: &mut [u8]) -> Result<()> {
    berth_sys::random::fill(bytes)
        .map_err(|e| Error::internal("the kernel gives no random bytes").with_source(e))
}
