//! The end of a container: the monitor's record becomes the state, what was lent is taken back, waiters
//! and listeners are told. It does not matter who brings the news: the watch, the monitor's knock on our
//! socket, or the search at start.

use std::sync::Arc;

use berth_model::time::Timestamp;
use berth_runtime::exit::ExitRecord;

use super::Handle;
use crate::Engine;
use crate::error::Result;
use crate::failpoint;
use crate::types::{Change, Status};

/// Why no record tells how a container ended.
const LOST: &str = "the container's monitor was killed; its exit status is unknown";

impl Engine {
    /// A monitor told `monitor.sock` that its container ended.
    pub async fn container_exited(&self, id: &str) {
        let _busy = self.busy();
        let Some(handle) = self.inner.containers.get(id) else {
            tracing::warn!(
                container_id = id,
                "a monitor reports the end of an unknown container"
            );
            return;
        };
        let record = self.read_exit_record(&handle).await;
        self.finish_exit(&handle, record).await;
    }

    /// The record in the run directory, if the monitor wrote one.
    pub(crate) async fn read_exit_record(&self, handle: &Handle) -> Option<ExitRecord> {
        let path = self.inner.paths.run_container(&handle.id).join("exit");
        let read = tokio::task::spawn_blocking(move || {
            use std::os::fd::AsFd;
            let file = std::fs::File::open(&path)?;
            ExitRecord::read_from(file.as_fd())
        })
        .await;
        match read {
            Ok(Ok(record)) => record,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => None,
            Ok(Err(error)) => {
                tracing::error!(container_id = handle.id, %error, "the exit record cannot be read");
                None
            }
            Err(error) => {
                tracing::error!(container_id = handle.id, %error, "reading the exit record failed");
                None
            }
        }
    }

    /// Stops watching the monitors without losing an end: a monitor writes its record before it tells, and
    /// tells our socket when nobody watches. So after the connection is closed an end is either in the
    /// record, which is read here, or will be told to the next agent.
    pub(crate) async fn unwatch(&self) {
        for handle in self.inner.containers.all() {
            let Some(live) = handle.set_live(None) else {
                continue;
            };
            live.link.close();
            if let Some(record) = self.read_exit_record(&handle).await {
                self.finish_exit(&handle, Some(record)).await;
            }
        }
    }

    /// Records the end. Twice is once: the second finds the container not running.
    pub(crate) async fn finish_exit(&self, handle: &Arc<Handle>, record: Option<ExitRecord>) {
        let _life = handle.life.lock().await;
        if !handle.status().is_live() {
            return;
        }
        failpoint::hit("exit.record");
        if let Err(error) = self.bury(handle, record).await {
            tracing::error!(
                container_id = handle.id,
                error = &error as &dyn std::error::Error,
                "the end of a container could not be recorded"
            );
        }
        let auto_remove = handle.record().body.spec.host.auto_remove
            && !handle.restarting.load(std::sync::atomic::Ordering::SeqCst);
        if auto_remove && let Err(error) = self.remove_stopped(handle).await {
            tracing::error!(
                container_id = handle.id,
                error = &error as &dyn std::error::Error,
                "a container that should remove itself could not be removed"
            );
        }
    }

    /// The caller holds the container's life.
    async fn bury(&self, handle: &Arc<Handle>, exit: Option<ExitRecord>) -> Result<()> {
        let now = Timestamp::now();
        let (old, state, encoded, endpoint, durability) = {
            let mut record = handle.record();
            let stored = &mut record.stored;
            let old = stored.state.status;
            stored.state.status = Status::Exited;
            stored.state.pid = 0;
            match &exit {
                Some(exit) => {
                    stored.state.exit_code = exit.exit_code().into();
                    stored.state.oom_killed = exit.has(ExitRecord::FLAG_OOM_KILLED);
                    stored.state.finished_at = Timestamp::from_nanos(exit.finished_at);
                    stored.state.stopped_by_user = exit.has(ExitRecord::FLAG_STOPPED_BY_USER)
                        || exit.has(ExitRecord::FLAG_STOPPED_BY_UNIT);
                    stored.state.error.clear();
                }
                None => {
                    // Killed together with its monitor (systemctl kill -s KILL): what the kernel did to it.
                    stored.state.exit_code = 137;
                    stored.state.finished_at = now;
                    LOST.clone_into(&mut stored.state.error);
                }
            }
            stored.control_group.clear();
            stored.starting = false;
            let endpoint = stored.endpoint.take();
            let durability = record.durability();
            (
                old,
                record.stored.state.clone(),
                record.encode_state()?,
                endpoint,
                durability,
            )
        };
        if exit.is_none() {
            // Nobody stands over what may be left of it.
            if let Some(live) = handle.live() {
                let payload = live.payload.clone();
                let _ = tokio::task::spawn_blocking(move || payload.kill()).await;
            }
        }
        self.inner
            .db
            .container_state(durability, handle.id.clone(), encoded)
            .await?;
        failpoint::hit("exit.recorded");
        if let Some(endpoint) = &endpoint {
            self.inner.release(&handle.id, endpoint).await;
        }
        let live = handle.set_live(None);
        self.clean_run_files(handle, live).await;
        failpoint::hit("exit.cleaned");
        if state.oom_killed {
            self.inner.container_event(handle, "oom", []);
        }
        let lasted = state.finished_at.since(state.started_at) / 1_000_000_000;
        self.inner.container_event(
            handle,
            "die",
            [
                ("exitCode", state.exit_code.to_string()),
                ("execDuration", lasted.max(0).to_string()),
            ],
        );
        self.inner.changed(Change::State {
            id: handle.id.clone(),
            old,
            new: Status::Exited,
            reason: if state.stopped_by_user {
                "stopped".into()
            } else {
                "exited".into()
            },
        });
        self.inner.changed(Change::Exited {
            id: handle.id.clone(),
            exit_code: state.exit_code,
            oom_killed: state.oom_killed,
            finished_at: state.finished_at,
        });
        handle.watched.send_modify(|watched| {
            watched.live = false;
            watched.exits += 1;
            watched.exit_code = state.exit_code;
        });
        Ok(())
    }

    /// Takes the run directory away and lets go of the root mount: in the background, because its last
    /// reference writes back the whole upper file system.
    pub(crate) async fn clean_run_files(&self, handle: &Handle, live: Option<super::Live>) {
        let inner = self.inner.clone();
        let id = handle.id.clone();
        if let Some(live) = live {
            live.link.close();
            self.inner.let_go(live.root);
        }
        self.inner.remove_cgroup(&id).await;
        let removed = tokio::task::spawn_blocking(move || inner.remove_run_files(&id)).await;
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(container_id = handle.id, %error, "the run directory could not be removed, ignoring");
            }
            Err(error) => tracing::error!(container_id = handle.id, %error, "cleaning up failed"),
        }
    }
}
