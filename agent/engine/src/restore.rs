//! Bringing records and reality together when the agent comes back: after an idle exit, an upgrade, a
//! crash in the middle of anything, or a boot. What runs is adopted; what ended is buried with its exit
//! status; what was half made is undone; what nobody knows is swept away.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_model::time::Timestamp;
use berth_runtime::link::Link;
use berth_runtime::protocol::Phase;
use berth_systemd::scope;

use crate::Engine;
use crate::containers::{Handle, Live};
use crate::db::Durability;
use crate::error::{Error, Result};
use crate::images::load::storage_error;
use crate::paths;
use crate::record::Record;
use crate::types::Status;

/// What Docker records for a container whose end nobody saw.
const UNKNOWN_EXIT: i64 = 255;

impl Engine {
    pub(crate) async fn restore(&self) -> Result<()> {
        let _busy = self.busy();
        self.load_records().await?;
        let handles = self.inner.containers.all();
        // Before the runs are settled: what has ended meanwhile must have an address to give back.
        self.restore_addresses().await;
        let mut adopting = Vec::new();
        for handle in &handles {
            let (live, starting, boot) = {
                let record = handle.record();
                (
                    record.status().is_live(),
                    record.stored.starting,
                    record.stored.boot.clone(),
                )
            };
            if !live && !starting {
                continue;
            }
            let (engine, handle) = (self.clone(), handle.clone());
            adopting.push(tokio::spawn(async move {
                let result = if boot == engine.inner.boot {
                    engine.settle(&handle, starting && !live).await
                } else {
                    engine.forget_run(&handle).await
                };
                if let Err(error) = result {
                    tracing::error!(
                        container_id = handle.id,
                        error = &error as &dyn std::error::Error,
                        "a container could not be brought back"
                    );
                }
            }));
        }
        for task in adopting {
            task.await
                .map_err(|e| Error::internal("restoring a container failed").with_source(e))?;
        }
        self.clean_network().await;
        self.sweep().await?;
        // Namespaces for the next starts are made while nobody waits.
        self.inner.network.warm();
        Ok(())
    }

    async fn load_records(&self) -> Result<()> {
        for row in self.inner.db.containers().await? {
            match Record::from_row(&row) {
                Ok(record) => self.inner.containers.insert(Handle::new(record)),
                Err(error) => {
                    // Its name and directories stay taken: nothing of it is lost while somebody looks at it.
                    let text = format!(
                        "container {} ({}) is left out: {}",
                        row.id,
                        row.name,
                        error.full_message()
                    );
                    tracing::error!(container_id = row.id, "{text}");
                    self.inner
                        .damaged
                        .lock()
                        .unwrap_or_else(|poisoned| poisoned.into_inner())
                        .push(text);
                }
            }
        }
        Ok(())
    }

    /// A container of this boot: adopt it, bury it, or undo its start.
    async fn settle(&self, handle: &Arc<Handle>, half_started: bool) -> Result<()> {
        if half_started {
            return self.undo_half_start(handle).await;
        }
        let socket = self
            .inner
            .paths
            .run_container(&handle.id)
            .join("monitor.sock");
        match Link::connect(&socket, &handle.id).await {
            Ok((link, _peer)) => match link.state().await {
                Ok(state) if matches!(state.phase, Phase::Running | Phase::Stopping) => {
                    self.adopt(handle, Arc::new(link)).await
                }
                Ok(state) if state.phase == Phase::Exited => {
                    self.finish_exit(handle, state.exit).await;
                    Ok(())
                }
                // The agent died between recording the run and letting it go: it never ran.
                Ok(_) | Err(_) => {
                    drop(link);
                    let record = self.read_exit_record(handle).await;
                    self.finish_exit(handle, record).await;
                    Ok(())
                }
            },
            Err(_) => {
                let record = self.read_exit_record(handle).await;
                self.finish_exit(handle, record).await;
                Ok(())
            }
        }
    }

    /// Takes over a running container: nothing about it changes.
    async fn adopt(&self, handle: &Arc<Handle>, link: Arc<Link>) -> Result<()> {
        let group = handle.record().stored.control_group.clone();
        let payload = self.inner.open_payload(&handle.id, &group)?;
        let frozen = payload
            .events()
            .map_err(|e| {
                Error::internal(format!("cannot read the state of container {}", handle.id))
                    .with_source(e)
            })?
            .frozen;
        {
            // An administrator may have thawed or frozen it meanwhile: the kernel tells.
            let mut record = handle.record();
            record.stored.state.status = if frozen {
                Status::Paused
            } else {
                Status::Running
            };
        }
        let live = Live {
            link: link.clone(),
            root: None,
            payload: Arc::new(payload),
        };
        handle.set_live(Some(live));
        match link.begin_watch().await {
            Ok(watching) => self.watch_exit(handle, link, watching),
            Err(error) => {
                tracing::warn!(
                    container_id = handle.id,
                    error = &error as &dyn std::error::Error,
                    "the monitor went away"
                );
                let record = self.read_exit_record(handle).await;
                self.finish_exit(handle, record).await;
            }
        }
        Ok(())
    }

    /// The agent died inside a start: the monitor noticed and ended; what it could not undo is undone here.
    async fn undo_half_start(&self, handle: &Arc<Handle>) -> Result<()> {
        let _life = handle.life.lock().await;
        self.inner.end_scope(&handle.id).await;
        let (encoded, endpoint) = {
            let mut record = handle.record();
            record.stored.starting = false;
            record.stored.control_group.clear();
            "the agent ended while it started the container"
                .clone_into(&mut record.stored.state.error);
            let endpoint = record.stored.endpoint.take();
            (record.encode_state()?, endpoint)
        };
        if let Some(endpoint) = &endpoint {
            self.inner.release(&handle.id, endpoint).await;
        }
        self.put_to_rest(handle, encoded).await
    }

    /// Records the end of a run that left nothing alive, and removes its files; its container too, when it
    /// should remove itself. The caller holds the container's life.
    async fn put_to_rest(&self, handle: &Arc<Handle>, state: String) -> Result<()> {
        self.inner
            .db
            .container_state(Durability::Process, handle.id.clone(), state)
            .await?;
        self.clean_run_files(handle, None).await;
        if handle.record().body.spec.host.auto_remove {
            self.remove_stopped(handle).await?;
        }
        Ok(())
    }

    /// A run of another boot: all that was live of it went with that boot.
    async fn forget_run(&self, handle: &Arc<Handle>) -> Result<()> {
        let _life = handle.life.lock().await;
        let encoded = {
            let mut record = handle.record();
            let was_live = record.status().is_live();
            let stored = &mut record.stored;
            if was_live {
                stored.state.status = Status::Exited;
                stored.state.exit_code = UNKNOWN_EXIT;
                stored.state.finished_at = Timestamp::now();
                "the host went down while the container ran".clone_into(&mut stored.state.error);
            }
            stored.state.pid = 0;
            stored.starting = false;
            stored.endpoint = None;
            stored.control_group.clear();
            record.encode_state()?
        };
        handle.watched.send_modify(|watched| {
            watched.live = false;
            watched.exit_code = UNKNOWN_EXIT;
        });
        self.put_to_rest(handle, encoded).await
    }

    /// Tells the network which addresses the runs of this boot have.
    async fn restore_addresses(&self) {
        let mut leases = Vec::new();
        for handle in self.inner.containers.all() {
            let record = handle.record();
            if record.stored.boot == self.inner.boot
                && let Some(endpoint) = &record.stored.endpoint
            {
                leases.push((handle.id.clone(), endpoint.clone()));
            }
        }
        match self.inner.network.restore(leases).await {
            Ok(refused) => {
                for (id, error) in refused {
                    tracing::error!(
                        container_id = id,
                        error = &error as &dyn std::error::Error,
                        "a container's address cannot be its own"
                    );
                }
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the bridge network could not be restored"
                );
            }
        }
    }

    /// Removes what the network still has of containers that do not run.
    async fn clean_network(&self) {
        let containers = self.inner.containers.all();
        let live: BTreeSet<String> = containers
            .iter()
            .filter(|handle| handle.record().status().is_live())
            .map(|handle| handle.id.clone())
            .collect();
        match self.inner.network.cleanup_stale(&live).await {
            Ok(stale) if !stale.is_empty() => {
                tracing::info!(?stale, "stale network interfaces were removed")
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "stale network interfaces stay behind, ignoring"
                );
            }
        }
    }

    /// Removes what no record names: directories, run directories, scopes, cgroups, layers.
    async fn sweep(&self) -> Result<()> {
        let known: BTreeSet<String> = self
            .inner
            .containers
            .all()
            .into_iter()
            .map(|h| h.id.clone())
            .collect();
        // Damaged records keep what is theirs.
        let rows: BTreeSet<String> = self
            .inner
            .db
            .containers()
            .await?
            .into_iter()
            .map(|row| row.id)
            .collect();
        let keep: BTreeSet<String> = known.union(&rows).cloned().collect();
        self.sweep_scopes(&keep).await;
        let inner = self.inner.clone();
        let images = self.inner.images.ids();
        crate::blocking::run("the sweep failed", move || -> Result<()> {
            let strangers = |names: Vec<String>| {
                names
                    .into_iter()
                    .filter(|name| !keep.contains(name))
                    .collect::<Vec<_>>()
            };
            let list = |path: &std::path::Path| {
                paths::subdirectories(path).map_err(|e| {
                    Error::unavailable(format!("cannot read {}", path.display())).with_source(e)
                })
            };
            for id in strangers(inner.store.snapshots().map_err(storage_error)?)
                .into_iter()
                .chain(strangers(list(&inner.paths.containers())?))
                .chain(strangers(list(&inner.paths.run_containers())?))
            {
                tracing::info!(
                    container_id = id,
                    "sweeping away what an unfinished operation left"
                );
                if let Err(error) = inner.discard_files(&id) {
                    tracing::warn!(
                        container_id = id,
                        error = &error as &dyn std::error::Error,
                        "it stays behind, ignoring"
                    );
                }
            }
            paths::remove_tree(&inner.paths.trash())
                .and_then(|()| std::fs::create_dir(inner.paths.trash()))
                .map_err(|e| Error::unavailable("cannot empty the trash").with_source(e))?;
            match inner.store.collect(&images) {
                Ok(collected) => tracing::debug!(?collected, "swept the image store"),
                Err(error) => {
                    tracing::warn!(%error, "the image store could not be swept, ignoring")
                }
            }
            inner.sweep_cgroups(&keep);
            Ok(())
        })
        .await?
    }

    /// A scope of ours without a container is reported and stopped.
    async fn sweep_scopes(&self, keep: &BTreeSet<String>) {
        let Some(manager) = self
            .inner
            .manager
            .as_ref()
            .filter(|_| self.inner.is_installed())
        else {
            return;
        };
        let scopes = match manager.scopes().await {
            Ok(scopes) => scopes,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "scopes cannot be listed, ignoring"
                );
                return;
            }
        };
        let names: BTreeSet<String> = keep.iter().map(|id| scope::unit_name(id)).collect();
        for unit in scopes.into_iter().filter(|unit| !names.contains(unit)) {
            tracing::warn!(unit, "a scope belongs to no container and is stopped");
            if let Err(error) = manager.stop_unit(&unit).await {
                tracing::warn!(
                    unit,
                    error = &error as &dyn std::error::Error,
                    "it could not be stopped, ignoring"
                );
            }
        }
    }
}
