//! Removal. The row goes first, durably; then the directories move into the trash. A crash between leaves
//! directories without a row, which the next start sweeps away: never a row without its container.

use std::sync::Arc;

use super::Handle;
use crate::Engine;
use crate::error::{Error, Result, Subject};
use crate::failpoint;
use crate::types::{Change, RemoveOptions, Status};

impl Engine {
    pub async fn container_remove(&self, reference: &str, options: RemoveOptions) -> Result<()> {
        let _busy = self.busy();
        if options.link {
            return Err(
                Error::unsupported("removing a link (link=1) is not supported yet")
                    .about(Subject::Container),
            );
        }
        let handle = self.inner.containers.find(reference)?;
        if handle.status().is_live() {
            if !options.force {
                let state = if handle.status() == Status::Paused {
                    "paused"
                } else {
                    "running"
                };
                let what = if state == "paused" {
                    "unpause and then stop"
                } else {
                    "stop"
                };
                return Err(Error::conflict(format!(
                    "cannot remove container \"/{}\": container is {state}: {what} the container before removing or force remove",
                    handle.name()
                ))
                .about(Subject::Container));
            }
            self.kill_and_wait(&handle).await?;
        }
        let _life = handle.life.lock().await;
        if handle.watched.borrow().removed {
            // One removal answers for it. A container that removes itself at its end was ended by this one.
            return match options.force && handle.record().body.spec.host.auto_remove {
                true => Ok(()),
                false => Err(Error::not_found(format!("No such container: {reference}"))
                    .about(Subject::Container)),
            };
        }
        if handle.status().is_live() {
            return Err(
                Error::conflict(format!("container {} was started meanwhile", handle.id))
                    .about(Subject::Container),
            );
        }
        self.remove_stopped(&handle).await
    }

    /// The caller holds the container's life, and it does not run.
    pub(crate) async fn remove_stopped(&self, handle: &Arc<Handle>) -> Result<()> {
        let old = std::mem::replace(&mut handle.record().stored.state.status, Status::Removing);
        failpoint::hit("remove.begun");
        if let Err(error) = self.inner.db.container_delete(handle.id.clone()).await {
            handle.record().stored.state.status = old;
            return Err(error);
        }
        failpoint::hit("remove.deleted");
        let inner = self.inner.clone();
        let id = handle.id.clone();
        let swept =
            crate::blocking::run("the removal failed", move || inner.discard_files(&id)).await?;
        if let Err(error) = swept {
            // The row is gone, so the start-up sweep finishes what could not be moved now.
            tracing::warn!(
                container_id = handle.id,
                error = &error as &dyn std::error::Error,
                "files of a removed container stay behind, ignoring"
            );
        }
        failpoint::hit("remove.trashed");
        self.inner.containers.remove(handle);
        handle.attachments.drop_all();
        self.inner.container_event(handle, "destroy", []);
        self.inner.changed(Change::Removed {
            id: handle.id.clone(),
        });
        handle.watched.send_modify(|watched| watched.removed = true);
        Ok(())
    }
}
