//! `org.berth.Agent1.Container`: one object per container. Its properties are what everyone may see
//! ([`View`](crate::view::View)); what may be secret is told by `Describe`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, interface};

use crate::authorize::Call;
use crate::error::{BusError, Result, Verb};
use crate::options::{Dictionary, Options};
use crate::shared::{Shared, Slot};
use crate::subscribers::until_gone;
use crate::view::clamped;
use crate::{job, paths};
use berth_api::ApiVersion;
use berth_engine::{RemoveOptions, StopOptions, WaitCondition};

/// The object of one container.
pub(crate) struct ContainerObject {
    shared: Weak<Shared>,
    id: String,
    slot: Arc<Slot>,
}

impl ContainerObject {
    pub(crate) fn new(shared: Weak<Shared>, id: String, slot: Arc<Slot>) -> ContainerObject {
        ContainerObject { shared, id, slot }
    }

    /// The service and the call, once the call is known to be allowed.
    async fn allowed(
        &self,
        verb: Verb,
        connection: &Connection,
        header: &Header<'_>,
    ) -> Result<(Arc<Shared>, Call)> {
        let shared = self.shared.upgrade().ok_or_else(BusError::leaving)?;
        let call = Call::new(connection, header, &shared.calls)?;
        call.may(verb, &self.slot.view()).await?;
        Ok((shared, call))
    }

    fn path(&self) -> OwnedObjectPath {
        paths::container(&self.id)
    }
}

#[interface(name = "org.berth.Agent1.Container", introspection_docs = false)]
impl ContainerObject {
    /// Options: `wait` b.
    #[zbus(out_args("job"))]
    async fn start(
        &self,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath> {
        let mut options = Options::new(options);
        let wait = options.flag("wait")?;
        options.finish()?;
        let (shared, call) = self.allowed(Verb::Start, connection, &header).await?;
        let (engine, id) = (shared.engine.clone(), self.id.clone());
        let work = async move { engine.container_start(&id, None).await };
        job::run(&shared, &call, Verb::Start, self.path(), wait, work).await
    }

    /// `timeout_usec`: from the stop signal to the kill; 0 = the container's own, 2^64−1 = for ever,
    /// rounded up to seconds. Options: `wait` b, `signal` s.
    #[zbus(out_args("job"))]
    async fn stop(
        &self,
        timeout_usec: u64,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath> {
        let (wait, stop) = stop_options(timeout_usec, options)?;
        let (shared, call) = self.allowed(Verb::Stop, connection, &header).await?;
        let (engine, id) = (shared.engine.clone(), self.id.clone());
        let work = async move { engine.container_stop(&id, stop).await };
        job::run(&shared, &call, Verb::Stop, self.path(), wait, work).await
    }

    /// As `Stop`, then as `Start`.
    #[zbus(out_args("job"))]
    async fn restart(
        &self,
        timeout_usec: u64,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath> {
        let (wait, stop) = stop_options(timeout_usec, options)?;
        let (shared, call) = self.allowed(Verb::Restart, connection, &header).await?;
        let (engine, id) = (shared.engine.clone(), self.id.clone());
        let work = async move { engine.container_restart(&id, stop).await };
        job::run(&shared, &call, Verb::Restart, self.path(), wait, work).await
    }

    /// `whom`: `leader`, the container's first process.
    async fn kill(
        &self,
        whom: &str,
        signal: i32,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<()> {
        match whom {
            "leader" => {}
            "all" | "exec" => {
                return Err(BusError::not_supported(format!(
                    "killing {whom} is not supported yet"
                )));
            }
            other => {
                return Err(BusError::invalid(format!(
                    "cannot kill {other:?}: use leader"
                )));
            }
        }
        if signal <= 0 {
            return Err(BusError::invalid(format!("invalid signal: {signal}")));
        }
        let (shared, _call) = self.allowed(Verb::Kill, connection, &header).await?;
        let signal = signal.to_string();
        let result = shared.engine.container_kill(&self.id, Some(&signal)).await;
        answer(&shared, result, Verb::Kill).await
    }

    async fn pause(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<()> {
        let (shared, _call) = self.allowed(Verb::Pause, connection, &header).await?;
        let result = shared.engine.container_pause(&self.id).await;
        answer(&shared, result, Verb::Pause).await
    }

    async fn unpause(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<()> {
        let (shared, _call) = self.allowed(Verb::Unpause, connection, &header).await?;
        let result = shared.engine.container_unpause(&self.id).await;
        answer(&shared, result, Verb::Unpause).await
    }

    async fn rename(
        &self,
        name: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<()> {
        let (shared, _call) = self.allowed(Verb::Rename, connection, &header).await?;
        let result = shared.engine.container_rename(&self.id, name).await;
        answer(&shared, result, Verb::Rename).await
    }

    /// Options: `wait` b, `force` b (also when it runs), `volumes` b (anonymous ones too).
    #[zbus(out_args("job"))]
    async fn remove(
        &self,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath> {
        let mut options = Options::new(options);
        let wait = options.flag("wait")?;
        let remove = RemoveOptions {
            force: options.flag("force")?,
            volumes: options.flag("volumes")?,
            link: false,
        };
        options.finish()?;
        let (shared, call) = self.allowed(Verb::Remove, connection, &header).await?;
        let (engine, id) = (shared.engine.clone(), self.id.clone());
        let work = async move { engine.container_remove(&id, remove).await };
        job::run(&shared, &call, Verb::Remove, self.path(), wait, work).await
    }

    /// `condition`: `not-running`, `next-exit` or `removed`. Gives the exit code and why it ended.
    #[zbus(out_args("exit_code", "reason"))]
    async fn wait(
        &self,
        condition: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(i32, String)> {
        let condition = match condition {
            "not-running" => WaitCondition::NotRunning,
            "next-exit" => WaitCondition::NextExit,
            "removed" => WaitCondition::Removed,
            other => return Err(BusError::invalid(format!("invalid condition: {other:?}"))),
        };
        let (shared, call) = self.allowed(Verb::Wait, connection, &header).await?;
        let failed = |error: &berth_engine::Error| BusError::from_engine(error, Verb::Wait);
        let waiter = shared.engine.container_wait(&self.id, condition).await;
        let waiter = waiter.map_err(|error| failed(&error))?;
        // A caller that leaves must not keep the agent, nor this wait, alive.
        let result = tokio::select! {
            result = waiter.finish() => result.map_err(|error| failed(&error))?,
            () = until_gone(&call.connection, &call.sender) => return Err(BusError::canceled()),
        };
        shared.told().await;
        let reason = match result.error {
            Some(error) => error,
            None => self.slot.view().exit_reason.to_owned(),
        };
        Ok((clamped(result.exit_code), reason))
    }

    /// Everything about the container, as Docker's inspect tells it (JSON).
    #[zbus(out_args("json"))]
    async fn describe(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String> {
        let (shared, _call) = self.allowed(Verb::Inspect, connection, &header).await?;
        let container = shared.engine.container_inspect(&self.id, false).await;
        let container = container.map_err(|error| BusError::from_engine(&error, Verb::Inspect))?;
        Ok(berth_api::container::inspect::body(&container, ApiVersion::MAX).to_string())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.id.clone()
    }

    #[zbus(property)]
    fn name(&self) -> String {
        self.slot.view().name.clone()
    }

    #[zbus(property(emits_changed_signal = "const"), name = "ImageID")]
    fn image_id(&self) -> String {
        self.slot.view().image_id.clone()
    }

    #[zbus(property)]
    fn image_ref(&self) -> String {
        self.slot.view().image_ref.clone()
    }

    #[zbus(property)]
    fn state(&self) -> String {
        self.slot.view().state.as_str().to_owned()
    }

    #[zbus(property)]
    fn exit_code(&self) -> i32 {
        self.slot.view().exit_code
    }

    #[zbus(property)]
    fn exit_reason(&self) -> String {
        self.slot.view().exit_reason.to_owned()
    }

    #[zbus(property, name = "OOMKilled")]
    fn oom_killed(&self) -> bool {
        self.slot.view().oom_killed
    }

    #[zbus(property)]
    fn restart_count(&self) -> u32 {
        self.slot.view().restart_count
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn created_at(&self) -> u64 {
        self.slot.view().created_at
    }

    #[zbus(property)]
    fn started_at(&self) -> u64 {
        self.slot.view().started_at
    }

    #[zbus(property)]
    fn finished_at(&self) -> u64 {
        self.slot.view().finished_at
    }

    #[zbus(property, name = "LeaderPID")]
    fn leader_pid(&self) -> u32 {
        self.slot.view().leader_pid
    }

    #[zbus(property)]
    fn unit(&self) -> String {
        self.slot.view().unit.clone()
    }

    #[zbus(property)]
    fn slice(&self) -> String {
        self.slot.view().slice.clone()
    }

    #[zbus(property)]
    fn control_group(&self) -> String {
        self.slot.view().control_group.clone()
    }

    #[zbus(property)]
    fn restart_policy(&self) -> (String, u32) {
        self.slot.view().restart_policy.clone()
    }

    /// Named otherwise here, because `state_changed` tells of the property `State`.
    #[zbus(signal, name = "StateChanged")]
    pub(crate) async fn moved(
        emitter: &SignalEmitter<'_>,
        old: &str,
        new: &str,
        why: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(crate) async fn exited(
        emitter: &SignalEmitter<'_>,
        exit_code: i32,
        reason: &str,
        finished_at: u64,
    ) -> zbus::Result<()>;
}

/// The answer to a verb that is done at once: given when its effects can be seen.
async fn answer(shared: &Shared, result: berth_engine::Result<()>, verb: Verb) -> Result<()> {
    shared.told().await;
    result.map_err(|error| BusError::from_engine(&error, verb))
}

/// The options that `Stop` and `Restart` share.
fn stop_options(timeout_usec: u64, options: Dictionary) -> Result<(bool, StopOptions)> {
    let mut options = Options::new(options);
    let wait = options.flag("wait")?;
    let signal = options.text("signal")?;
    options.finish()?;
    let timeout = match timeout_usec {
        0 => None,
        u64::MAX => Some(-1),
        usec => Some(seconds(Duration::from_micros(usec))),
    };
    Ok((wait, StopOptions { signal, timeout }))
}

fn seconds(time: Duration) -> i64 {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    i64::try_from(whole).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_timeouts() {
        for (usec, want) in [
            (0, None),
            (1, Some(1)),
            (1_000_000, Some(1)),
            (1_000_001, Some(2)),
            (10_000_000, Some(10)),
            (u64::MAX, Some(-1)),
        ] {
            let (wait, stop) = stop_options(usec, Dictionary::new()).unwrap();
            assert_eq!((wait, stop.timeout), (false, want), "{usec}");
        }
    }
}
