//! Stop, kill, restart. The stopping itself is the monitor's work, so that it goes on when the agent
//! dies in the middle; here it is asked for, and its end awaited.

use std::sync::Arc;
use std::time::Duration;

use berth_model::signal;
use berth_runtime::link::LinkError;
use berth_runtime::protocol::StopBy;

use super::settings::{grace_ms, stop_signal};
use super::start::link_error;
use super::wait::Waiter;
use super::{Handle, Live};
use crate::Engine;
use crate::error::{Error, Kind, Result, Subject};
use crate::failpoint;
use crate::types::{Status, StopOptions, WaitCondition};

/// What the kernel may take to end a killed process before we say that it does not end.
const KILL_DEADLINE: Duration = Duration::from_secs(30);

impl Engine {
    pub async fn container_stop(&self, reference: &str, options: StopOptions) -> Result<()> {
        let _busy = self.busy();
        let handle = self.inner.containers.find(reference)?;
        if !handle.status().is_live() {
            return Err(
                Error::not_modified(format!("container {} is already stopped", handle.id))
                    .about(Subject::Container),
            );
        }
        self.stop(&handle, &options).await?;
        self.inner.container_event(&handle, "stop", []);
        Ok(())
    }

    pub async fn container_restart(&self, reference: &str, options: StopOptions) -> Result<()> {
        let _busy = self.busy();
        let handle = self.inner.containers.find(reference)?;
        if handle.status().is_live() {
            // A restart is no end: `--rm` does not apply to it.
            handle
                .restarting
                .store(true, std::sync::atomic::Ordering::SeqCst);
            let stopped = self.stop(&handle, &options).await;
            handle
                .restarting
                .store(false, std::sync::atomic::Ordering::SeqCst);
            stopped?;
        }
        match self.container_start(&handle.id, None).await {
            // Somebody else started it meanwhile: it runs anew all the same.
            Ok(()) => {}
            Err(error) if error.kind() == Kind::NotModified => {}
            Err(error) => return Err(error),
        }
        self.inner.container_event(&handle, "restart", []);
        Ok(())
    }

    /// `signal`: name, `SIG` name or number; None = KILL.
    pub async fn container_kill(&self, reference: &str, signal_name: Option<&str>) -> Result<()> {
        let _busy = self.busy();
        let number = match signal_name
            .map(str::trim)
            .filter(|s| !s.is_empty() && *s != "0")
        {
            None => signal::parse("KILL").unwrap_or(9),
            Some(name) => signal::parse(name).map_err(|_| {
                Error::invalid(format!("Invalid signal: {name}")).about(Subject::Container)
            })?,
        };
        let handle = self.inner.containers.find(reference)?;
        let live = handle.live_or_conflict()?;
        if number == 9 {
            return self.kill_and_wait(&handle).await;
        }
        let stopping = number == stop_signal(&handle.record().body.config);
        live.link
            .signal(number, stopping.then_some(StopBy::User))
            .await
            .map_err(link_error)?;
        self.inner
            .container_event(&handle, "kill", [("signal", number.to_string())]);
        // Frozen processes take signals only when they are thawed: Docker wakes them for their stop signal.
        if stopping && handle.status() == Status::Paused {
            self.container_unpause(&handle.id).await?;
        }
        Ok(())
    }

    /// The stop signal, the grace, the kill; returns when the exit is recorded.
    async fn stop(&self, handle: &Arc<Handle>, options: &StopOptions) -> Result<()> {
        let live = handle.live_or_conflict()?;
        let (number, grace) = {
            let record = handle.record();
            let number = match options.signal.as_deref().filter(|s| !s.is_empty()) {
                Some(name) => signal::parse(name)
                    .map_err(|_| Error::invalid(format!("Invalid signal: {name}")))?,
                None => stop_signal(&record.body.config),
            };
            (number, grace_ms(options.timeout, &record.body.spec))
        };
        // Registered before the signal goes out; whether it still runs now or not, the condition tells.
        let ended = Waiter::register(handle.clone(), WaitCondition::NotRunning);
        self.ask_to_stop(handle, &live, number, grace).await?;
        self.inner
            .container_event(handle, "kill", [("signal", number.to_string())]);
        failpoint::hit("stop.asked");
        if handle.status() == Status::Paused
            && let Err(error) = self.freeze(handle, false).await
            && handle.status().is_live()
        {
            return Err(error);
        }
        let deadline =
            (grace >= 0).then(|| Duration::from_millis(grace.unsigned_abs()) + KILL_DEADLINE);
        self.until_ended(handle, ended, deadline).await?;
        failpoint::hit("stop.exited");
        Ok(())
    }

    /// SIGKILL to everything in the container; returns when the exit is recorded.
    pub(crate) async fn kill_and_wait(&self, handle: &Arc<Handle>) -> Result<()> {
        let Some(live) = handle.live() else {
            return Ok(());
        };
        let ended = Waiter::register(handle.clone(), WaitCondition::NotRunning);
        self.ask_to_stop(handle, &live, 9, 0).await?;
        self.inner
            .container_event(handle, "kill", [("signal", "9".to_owned())]);
        // The kernel ends frozen processes without a thaw.
        self.until_ended(handle, ended, Some(KILL_DEADLINE)).await
    }

    async fn ask_to_stop(
        &self,
        handle: &Handle,
        live: &Live,
        number: i32,
        grace: i64,
    ) -> Result<()> {
        match live.link.stop(number, grace, StopBy::User).await {
            Ok(()) => Ok(()),
            // It ended by itself, or the monitor was killed: the exit is on its way either way.
            Err(LinkError::Closed | LinkError::Connect { .. }) => {
                tracing::debug!(
                    container_id = handle.id,
                    "the monitor was gone before the stop"
                );
                Ok(())
            }
            Err(error) => Err(link_error(error)),
        }
    }

    async fn until_ended(
        &self,
        handle: &Handle,
        ended: Waiter,
        deadline: Option<Duration>,
    ) -> Result<()> {
        let Some(deadline) = deadline else {
            return ended.finish().await.map(|_| ());
        };
        match tokio::time::timeout(deadline, ended.finish()).await {
            Ok(result) => result.map(|_| ()),
            Err(_) => Err(Error::internal(format!(
                "container {} is still running after SIGKILL; its processes may be stuck in the kernel",
                handle.id
            ))
            .about(Subject::Container)),
        }
    }
}
