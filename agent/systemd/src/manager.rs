//! The client of the service manager: starts scopes (`start`), changes and stops units, lists ours.
//! It survives restarts of the bus and re-executions of PID 1 by itself.
//!
//! Nothing here decides what a scope looks like (`scope`) or whether a container runs: a unit that
//! is gone is an answer, not an error to hide.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use zbus::names::UniqueName;
use zbus::{Message, OwnedObjectPath, OwnedVariant, Variant};

use crate::bus::{self, JobRemoved, Link, SYSTEMD};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::scope::{self, ScopeSettings};

mod start;

/// How long the end of a stop job is waited for.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How long a manager that went away (re-execution, bus restart) is waited for.
const RETURN_LIMIT: Duration = Duration::from_secs(5);

/// First and longest pause between two attempts to connect again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Properties of one start that may turn out to be unknown; a bound against a manager that
/// refuses for ever.
const MAX_UNKNOWN: usize = 16;

const SCOPE_INTERFACE: &str = "org.freedesktop.systemd1.Scope";

/// The service manager; cheap to clone.
#[derive(Debug, Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Held while connecting, so that many starts after a bus restart make one connection.
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
    /// Properties that this systemd said it does not know. It cannot learn them while it runs,
    /// and after an upgrade the next agent finds out again.
    unknown: Mutex<BTreeSet<String>>,
    /// Where a process is; tests look elsewhere than in procfs.
    locate: Locate,
}

/// A process's cgroup; empty when the process is gone.
type Locate = fn(u32) -> Result<String>;

/// A unit as the manager sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// `active`, `activating`, `deactivating`, `failed`, `inactive`.
    pub active: String,
    /// `running`, `stop-sigterm`, …
    pub sub: String,
    /// Below the hierarchy's root; empty when the unit has none.
    pub control_group: String,
}

/// One row of `ListUnits`.
type UnitRow = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

impl Manager {
    /// Connects to the system bus, or to the manager's private socket when there is none.
    pub async fn connect() -> Result<Manager> {
        let manager = Self::new(None, start::control_group_of);
        manager.link().await?;
        Ok(manager)
    }

    fn new(link: Option<Link>, locate: Locate) -> Manager {
        Manager {
            inner: Arc::new(Inner {
                link: tokio::sync::Mutex::new(link.map(Arc::new)),
                unknown: Mutex::new(BTreeSet::new()),
                locate,
            }),
        }
    }

    /// Changes the limits and the description of a unit that runs, until it ends.
    ///
    /// Gives the properties that this systemd does not know. The stop timeout and the slice of a
    /// living unit cannot be changed.
    pub async fn set_properties(
        &self,
        unit: &str,
        settings: &ScopeSettings,
    ) -> Result<Vec<String>> {
        const CALL: &str = "SetUnitProperties";
        check_name(unit)?;
        for _ in 0..=MAX_UNKNOWN {
            let (properties, discarded) = settings.changeable(|name| self.is_unknown(name));
            if properties.is_empty() {
                return Ok(discarded);
            }
            let Err(error) = self.call_again(CALL, &(unit, true, &properties)).await else {
                return Ok(discarded);
            };
            let property = bus::name_and_text(&error)
                .filter(|(name, _)| name == "org.freedesktop.DBus.Error.PropertyReadOnly")
                .and_then(|(_, text)| refused_property(&text).map(str::to_owned));
            if !property.is_some_and(|property| self.learn(&property)) {
                return Err(no_such_unit_or(CALL, unit, error));
            }
        }
        Err(Error::MissingProperty {
            unit: unit.to_owned(),
            property: "(too many)".to_owned(),
        })
    }

    /// Stops a unit and waits for the job, at most 30 seconds. A unit that is not there is
    /// stopped already.
    ///
    /// On a scope with living processes this is a request to its monitor: see `scope`.
    pub async fn stop_unit(&self, unit: &str) -> Result<()> {
        const CALL: &str = "StopUnit";
        check_name(unit)?;
        let link = self.link().await?;
        let mut jobs = link.jobs();
        let reply = match link.call(CALL, &(unit, "replace")).await {
            Ok(reply) => reply,
            Err(error) => {
                return match no_such_unit_or(CALL, unit, error) {
                    Error::NoSuchUnit { .. } => Ok(()),
                    other => Err(other),
                };
            }
        };
        let job = job_path(CALL, &reply)?;
        let manager = reply.header().sender().map(|name| name.to_owned());
        let end = job_end(&link, &mut jobs, &job, manager);
        match tokio::time::timeout(STOP_LIMIT, end).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Timeout {
                unit: unit.to_owned(),
                seconds: STOP_LIMIT.as_secs(),
            }),
        }
    }

    /// Forgets a unit's failure; a unit that is not there has none.
    pub async fn reset_failed(&self, unit: &str) -> Result<()> {
        const CALL: &str = "ResetFailedUnit";
        check_name(unit)?;
        match self.call_again(CALL, &unit).await {
            Ok(_) => Ok(()),
            Err(error) => match no_such_unit_or(CALL, unit, error) {
                Error::NoSuchUnit { .. } => Ok(()),
                other => Err(other),
            },
        }
    }

    /// The scopes of ours that the manager has, in no order.
    pub async fn scopes(&self) -> Result<Vec<String>> {
        const CALL: &str = "ListUnitsByPatterns";
        let pattern = format!("{}*{}", scope::PREFIX, scope::SUFFIX);
        let states: &[&str] = &[];
        let reply = self
            .call_again(CALL, &(states, &[pattern.as_str()][..]))
            .await
            .map_err(|error| refused(CALL, &pattern, error))?;
        let rows = read::<Vec<UnitRow>>(CALL, &reply)?;
        Ok(rows
            .into_iter()
            .filter(|row| !matches!(row.3.as_str(), "inactive" | "failed"))
            .map(|row| row.0)
            .collect())
    }

    /// A unit's state; `None` when the manager does not have it.
    pub async fn unit_state(&self, unit: &str) -> Result<Option<UnitState>> {
        const CALL: &str = "ListUnitsByNames";
        check_name(unit)?;
        let reply = self
            .call_again(CALL, &&[unit][..])
            .await
            .map_err(|error| refused(CALL, unit, error))?;
        let Some(row) = read::<Vec<UnitRow>>(CALL, &reply)?.into_iter().next() else {
            return Ok(None);
        };
        // The call loads the unit, so one that does not exist comes back as "not-found".
        if row.2 == "not-found" || (row.3 == "inactive" && unit.ends_with(scope::SUFFIX)) {
            return Ok(None);
        }
        let control_group = match self.scope_properties(unit, &row.6).await? {
            Some(properties) => text(&properties, "ControlGroup"),
            None => String::new(),
        };
        Ok(Some(UnitState {
            active: row.3,
            sub: row.4,
            control_group,
        }))
    }

    /// The limits that a scope has now, an administrator's `set-property` included; `None` when
    /// there is no such scope.
    pub async fn limits(&self, unit: &str) -> Result<Option<Limits>> {
        const CALL: &str = "GetUnit";
        check_name(unit)?;
        let reply = match self.call_again(CALL, &unit).await {
            Ok(reply) => reply,
            Err(error) => {
                return match no_such_unit_or(CALL, unit, error) {
                    Error::NoSuchUnit { .. } => Ok(None),
                    other => Err(other),
                };
            }
        };
        let path = read::<OwnedObjectPath>(CALL, &reply)?;
        let properties = self.scope_properties(unit, &path).await?;
        Ok(properties.as_ref().map(Limits::from_properties))
    }

    /// The version that systemd tells of itself (`252.39-1~deb12u1`).
    pub async fn version(&self) -> Result<String> {
        const CALL: &str = "Get";
        let link = self.link().await?;
        let reply = properties(&link, bus::SYSTEMD_PATH, CALL, &(bus::MANAGER, "Version"))
            .await
            .map_err(|error| refused(CALL, "Version", error))?;
        let value = read::<OwnedVariant>(CALL, &reply)?;
        Ok(String::try_from(value).unwrap_or_default())
    }

    async fn scope_properties(
        &self,
        unit: &str,
        path: &OwnedObjectPath,
    ) -> Result<Option<HashMap<String, OwnedVariant>>> {
        const CALL: &str = "GetAll";
        let link = self.link().await?;
        match properties(&link, path.as_str(), CALL, &SCOPE_INTERFACE).await {
            Ok(reply) => Ok(Some(read(CALL, &reply)?)),
            Err(error) => match no_such_unit_or(CALL, unit, error) {
                Error::NoSuchUnit { .. } => Ok(None),
                other => Err(other),
            },
        }
    }

    /// A call that may safely be made twice: once more if the manager went away meanwhile.
    async fn call_again<B>(&self, method: &'static str, body: &B) -> zbus::Result<Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let link = self.link().await.map_err(as_zbus)?;
        match link.call(method, body).await {
            Err(error) if bus::is_away(&error) => {
                link.wait_for_manager(RETURN_LIMIT).await;
                let link = self.link().await.map_err(as_zbus)?;
                link.call(method, body).await
            }
            other => other,
        }
    }

    /// The open connection, or a new one. The first connection is tried once; one that was lost
    /// is tried again for a while, because the bus is probably being restarted.
    async fn link(&self) -> Result<Arc<Link>> {
        let mut slot = self.inner.link.lock().await;
        let was_open = match &*slot {
            Some(link) if !link.conn.is_closed() => return Ok(Arc::clone(link)),
            other => other.is_some(),
        };
        let deadline = tokio::time::Instant::now() + RETURN_LIMIT;
        let mut pause = BACKOFF.0;
        loop {
            match Link::open().await {
                Ok(link) => return Ok(Arc::clone(slot.insert(Arc::new(link)))),
                Err(error) if !was_open || tokio::time::Instant::now() + pause > deadline => {
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    fn is_unknown(&self, property: &str) -> bool {
        let unknown = self.inner.unknown.lock();
        unknown
            .unwrap_or_else(PoisonError::into_inner)
            .contains(property)
    }

    /// Remembers an unknown property; false when it was known to be unknown, and so cannot have
    /// been what was refused now.
    fn learn(&self, property: &str) -> bool {
        let unknown = self.inner.unknown.lock();
        let new = unknown
            .unwrap_or_else(PoisonError::into_inner)
            .insert(property.to_owned());
        if new {
            tracing::warn!(
                property,
                "this systemd does not know a unit property, going on without"
            );
        }
        new
    }
}

/// Waits for a job's end; `None` when it cannot be learnt any more.
async fn job_end(
    link: &Link,
    jobs: &mut broadcast::Receiver<JobRemoved>,
    job: &str,
    manager: Option<UniqueName<'static>>,
) -> Option<String> {
    loop {
        let removed = tokio::select! {
            removed = jobs.recv() => removed.ok()?,
            () = link.conn.closed() => return None,
        };
        // After a re-execution the same manager signs with another name.
        if removed.job == job
            && (removed.sender == manager || link.is_manager(removed.sender.as_ref()).await)
        {
            return Some(removed.result);
        }
    }
}

/// The property in `Cannot set property X, or unknown property.`
fn refused_property(text: &str) -> Option<&str> {
    let rest = text.split_once("property ")?.1;
    let end = rest
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

async fn properties<B>(
    link: &Link,
    path: &str,
    method: &'static str,
    body: &B,
) -> zbus::Result<Message>
where
    B: serde::Serialize + zbus::DynamicType,
{
    const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
    link.conn
        .call_method(Some(SYSTEMD), path, Some(PROPERTIES), method, body)
        .await
}

fn job_path(call: &'static str, reply: &Message) -> Result<String> {
    read::<OwnedObjectPath>(call, reply).map(|path| path.to_string())
}

fn read<T>(call: &'static str, reply: &Message) -> Result<T>
where
    T: for<'de> serde::Deserialize<'de> + zbus::Type,
{
    let body = reply.body();
    body.deserialize()
        .map_err(|source| Error::Malformed { call, source })
}

fn text(properties: &HashMap<String, OwnedVariant>, name: &str) -> String {
    match properties.get(name).map(|value| &**value) {
        Some(Variant::Str(text)) => text.to_string(),
        _ => String::new(),
    }
}

fn check_name(unit: &str) -> Result<()> {
    if scope::is_valid_unit_name(unit) {
        Ok(())
    } else {
        Err(Error::InvalidUnitName(unit.to_owned()))
    }
}

fn refused(call: &'static str, unit: &str, source: zbus::Error) -> Error {
    Error::Refused {
        call,
        unit: unit.to_owned(),
        source,
    }
}

fn no_such_unit_or(call: &'static str, unit: &str, error: zbus::Error) -> Error {
    match bus::name_and_text(&error) {
        Some((name, _))
            if name == "org.freedesktop.systemd1.NoSuchUnit"
                || name == "org.freedesktop.DBus.Error.UnknownObject" =>
        {
            Error::NoSuchUnit {
                unit: unit.to_owned(),
            }
        }
        _ => refused(call, unit, error),
    }
}

/// An error of `link` on its way through a function that speaks of bus errors.
fn as_zbus(error: Error) -> zbus::Error {
    std::io::Error::new(std::io::ErrorKind::NotConnected, error.to_string()).into()
}

#[cfg(test)]
mod tests;
