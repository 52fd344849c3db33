//! The host's settings given later than at create: clients of API 1.23 and older send them with the start.

use std::sync::Arc;

use super::settings;
use crate::Engine;
use crate::error::{Error, Result, Subject};
use crate::images::load::storage_error;
use crate::record::Body;
use crate::types::{ContainerSpec, HostSpec, Resources};

impl Engine {
    /// Replaces the host's settings of a container that does not run, under the rules of create.
    /// `volumes` are mount points that ask for anonymous volumes, `unsupported` names fields that the
    /// engine does not model.
    pub async fn container_set_host(
        &self,
        reference: &str,
        host: HostSpec,
        volumes: Vec<String>,
        unsupported: Vec<String>,
    ) -> Result<()> {
        let _busy = self.busy();
        let handle = self.inner.containers.find(reference)?;
        let _life = handle.life.lock().await;
        if handle.status().is_live() {
            // The start that follows will say that it runs already.
            return Ok(());
        }
        let old = handle.record().body.clone();
        let mut spec = ContainerSpec {
            host,
            ..old.spec.clone()
        };
        // Until API 1.17 limits came with create alone; a start that names none keeps them.
        if spec.host.resources == Resources::default() {
            spec.host.resources = old.spec.host.resources.clone();
        }
        spec.volumes.extend(volumes);
        spec.unsupported.extend(unsupported);
        let store = self.inner.store.clone();
        let image = old.image;
        let config = crate::blocking::run("reading the image failed", move || {
            store.image_config(&image)
        })
        .await?
        .map_err(storage_error)?;
        settings::refuse_unsupported(&spec, &config.config)?;
        self.fix_network_owner(&mut spec)?;
        let body = Body {
            mounts: settings::mount_points(&spec),
            spec,
            ..(*old).clone()
        };
        self.check_request(&handle.id, &body)?;
        self.inner.limit_warnings(&body.spec.host.resources)?;
        let encoded = body.encode()?;
        self.inner
            .db
            .container_body(handle.id.clone(), encoded)
            .await?;
        handle.record().body = Arc::new(body);
        Ok(())
    }

    /// Another container's network is kept by that container's id: it may be renamed.
    pub(crate) fn fix_network_owner(&self, spec: &mut ContainerSpec) -> Result<()> {
        if let settings::NetworkMode::Container(reference) = settings::network_mode(spec)? {
            if !spec.hostname.is_empty() {
                return Err(
                    Error::invalid("conflicting options: hostname and the network mode")
                        .about(Subject::Container),
                );
            }
            let other = self.inner.containers.find(&reference)?;
            if settings::network_mode(&other.record().body.spec)? == settings::NetworkMode::Host {
                return Err(Error::invalid(
                    "cannot join the network of a container that has the host's network",
                )
                .about(Subject::Container));
            }
            spec.host.network_mode = format!("container:{}", other.id);
        }
        Ok(())
    }
}
