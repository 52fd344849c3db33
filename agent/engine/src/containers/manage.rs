//! Small changes to a container's life: pause, rename, resize, top.

use std::sync::Arc;
use std::time::Duration;

use berth_model::names;

use super::Handle;
use crate::Engine;
use crate::db::Durability;
use crate::error::{Error, Result, Subject};
use crate::types::{Change, Status, TopResult};

/// `ps` on the host reads every process; more than this means that the host is in trouble.
const PS_DEADLINE: Duration = Duration::from_secs(10);

/// The freezer waits for every process to reach the border of the kernel; one stuck in a disk does not.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);

impl Engine {
    pub async fn container_pause(&self, reference: &str) -> Result<()> {
        let _busy = self.busy();
        let handle = self.inner.containers.find(reference)?;
        let _life = handle.life.lock().await;
        match handle.observed() {
            Status::Running => {}
            Status::Paused => {
                return Err(conflict(format!(
                    "container {} is already paused",
                    handle.id
                )));
            }
            _ => return Err(conflict(format!("container {} is not running", handle.id))),
        }
        self.freeze(&handle, true).await?;
        self.set_status(&handle, Status::Paused, "paused").await?;
        self.inner.container_event(&handle, "pause", []);
        Ok(())
    }

    pub async fn container_unpause(&self, reference: &str) -> Result<()> {
        let _busy = self.busy();
        let handle = self.inner.containers.find(reference)?;
        let _life = handle.life.lock().await;
        if handle.observed() != Status::Paused {
            return Err(conflict(format!("container {} is not paused", handle.id)));
        }
        self.freeze(&handle, false).await?;
        if handle.observed() == Status::Paused {
            return Err(conflict(format!(
                "container {} is frozen from outside: thaw its unit with `systemctl thaw {}`",
                handle.id,
                berth_systemd::scope::unit_name(&handle.id)
            )));
        }
        self.set_status(&handle, Status::Running, "unpaused")
            .await?;
        self.inner.container_event(&handle, "unpause", []);
        Ok(())
    }

    /// Only the payload is frozen: the monitor goes on serving.
    pub(crate) async fn freeze(&self, handle: &Handle, frozen: bool) -> Result<()> {
        let payload = handle.live_or_conflict()?.payload;
        let fail = |what: &str| Error::internal(format!("cannot {what} container {}", handle.id));
        let what = if frozen { "freeze" } else { "thaw" };
        let done = tokio::task::spawn_blocking(move || {
            match payload.freeze(frozen) {
                // Its group is gone: what was to be thawed has ended.
                Err(error) if !frozen && is_gone(&error) => return Ok(true),
                other => other?,
            }
            // A thaw under a frozen scope has no effect that could be waited for.
            if frozen {
                payload.wait_frozen(true, FREEZE_DEADLINE)
            } else {
                Ok(true)
            }
        })
        .await
        .map_err(|e| fail(what).with_source(e))?
        .map_err(|e| fail(what).with_source(e))?;
        if done {
            Ok(())
        } else {
            Err(fail("freeze in time"))
        }
    }

    async fn set_status(&self, handle: &Arc<Handle>, status: Status, reason: &str) -> Result<()> {
        let (old, encoded) = {
            let mut record = handle.record();
            let old = std::mem::replace(&mut record.stored.state.status, status);
            (old, record.encode_state()?)
        };
        self.inner
            .db
            .container_state(Durability::Process, handle.id.clone(), encoded)
            .await?;
        self.inner.changed(Change::State {
            id: handle.id.clone(),
            old,
            new: status,
            reason: reason.to_owned(),
        });
        Ok(())
    }

    pub async fn container_rename(&self, reference: &str, name: &str) -> Result<()> {
        let _busy = self.busy();
        let handle = self.inner.containers.find(reference)?;
        let name = checked_name(name)?;
        let _life = handle.life.lock().await;
        let old = handle.name();
        if old == name {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            )
            .about(Subject::Container));
        }
        let reservation = self.inner.containers.reserve(name, &handle.id)?;
        self.inner
            .db
            .container_rename(handle.id.clone(), name.to_owned())
            .await?;
        handle.record().name = name.to_owned();
        reservation.keep();
        self.inner.containers.release_name(&old, &handle.id);
        self.inner
            .container_event(&handle, "rename", [("oldName", format!("/{old}"))]);
        self.inner.changed(Change::Properties {
            id: handle.id.clone(),
        });
        if handle.status().is_live() {
            self.refresh_description(&handle).await;
        }
        Ok(())
    }

    /// The terminal's size in characters.
    pub async fn container_resize(&self, reference: &str, height: u16, width: u16) -> Result<()> {
        let _busy = self.busy();
        let handle = self.inner.containers.find(reference)?;
        let live = handle.live_or_conflict()?;
        live.link
            .resize(height, width)
            .await
            .map_err(super::start::link_error)?;
        self.inner.container_event(
            &handle,
            "resize",
            [("height", height.to_string()), ("width", width.to_string())],
        );
        Ok(())
    }

    /// The host's `ps`, cut to the container's processes: pids are the host's, as Docker's.
    pub async fn container_top(&self, reference: &str, ps_args: Option<&str>) -> Result<TopResult> {
        let _busy = self.busy();
        let handle = self.inner.containers.find(reference)?;
        let payload = handle.live_or_conflict()?.payload;
        if handle.status() == Status::Restarting {
            return Err(conflict(format!("container {} is restarting", handle.id)));
        }
        let arguments: Vec<String> = ps_args
            .filter(|text| !text.trim().is_empty())
            .unwrap_or("-ef")
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        crate::blocking::run("top failed", move || {
            let pids = payload.procs().map_err(|e| {
                Error::internal("cannot list the container's processes").with_source(e)
            })?;
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = berth_sys::spawn::run_tool("ps", &arguments, b"", PS_DEADLINE)
                .map_err(|e| Error::unavailable("cannot run ps on the host").with_source(e))?;
            if !output.status.success() {
                return Err(Error::invalid(format!(
                    "error running ps: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                )));
            }
            parse_ps(&String::from_utf8_lossy(&output.stdout), &pids)
        })
        .await?
    }
}

/// Whether a cgroup's file could not be written because the group has been removed.
fn is_gone(error: &std::io::Error) -> bool {
    const ENODEV: i32 = 19;
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(ENODEV)
}

/// A name that a container may have, without the leading slash that clients may send.
pub(crate) fn checked_name(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    if bare.is_empty() {
        return Err(
            Error::invalid("Neither old nor new names may be empty").about(Subject::Container)
        );
    }
    if !names::is_valid(bare) {
        return Err(Error::invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        ))
        .about(Subject::Container));
    }
    Ok(bare)
}

/// Keeps the rows whose PID is the container's; each row has as many cells as there are titles.
fn parse_ps(text: &str, pids: &[u32]) -> Result<TopResult> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let Some(column) = titles.iter().position(|title| title == "PID") else {
        return Err(Error::invalid("Couldn't find PID field in ps output"));
    };
    let mut processes = Vec::new();
    for line in lines {
        let mut cells: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let Some(pid) = cells.get(column).and_then(|cell| cell.parse::<u32>().ok()) else {
            continue;
        };
        if !pids.contains(&pid) {
            continue;
        }
        if cells.len() > titles.len() {
            let rest = cells.split_off(titles.len() - 1).join(" ");
            cells.push(rest);
        }
        processes.push(cells);
    }
    Ok(TopResult { titles, processes })
}

fn conflict(message: String) -> Error {
    Error::conflict(message).about(Subject::Container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ps_rows_are_cut_to_the_containers_and_the_command_stays_whole() {
        let text = "UID PID CMD\nroot 7 sleep 100 x\nroot 8 other\n";
        let top = parse_ps(text, &[7]).expect("parsed");
        assert_eq!(top.processes, [["root", "7", "sleep 100 x"]]);
        assert!(parse_ps("UID CMD\n", &[]).is_err());
    }
}
