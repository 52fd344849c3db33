//! `org.berth.Agent1.Manager`: finding and making containers, and what concerns all of them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, ObjectPath, OwnedObjectPath, interface};

use crate::authorize::{Action, Call};
use crate::error::{BusError, Result, Verb};
use crate::options::{Dictionary, Options};
use crate::paths;
use crate::shared::{Shared, Slot};
use crate::view::View;
use berth_api::ApiVersion;
use berth_systemd::polkit::Decision;

/// What this version of the interface serves, for clients that look before they call.
const FEATURES: [&str; 3] = ["containers", "jobs", "events"];

/// Object, id, name, state, creation time (µs), image.
type Row = (OwnedObjectPath, String, String, String, u64, String);

/// The object at the root. It holds the service weakly: the service holds the connection, and the
/// connection its objects.
pub(crate) struct ManagerObject {
    shared: Weak<Shared>,
    version: String,
}

impl ManagerObject {
    pub(crate) fn new(shared: Weak<Shared>, version: String) -> ManagerObject {
        ManagerObject { shared, version }
    }

    fn shared(&self) -> Result<Arc<Shared>> {
        self.shared.upgrade().ok_or_else(BusError::leaving)
    }

    /// The container that fits, with a second look when what has just happened is told.
    async fn search(&self, fits: impl Fn(&View) -> bool) -> Result<Option<OwnedObjectPath>> {
        let shared = self.shared()?;
        if let Some(found) = find(&shared, &fits) {
            return Ok(Some(found));
        }
        shared.told().await;
        Ok(find(&shared, &fits))
    }

    fn slot_at(&self, path: &ObjectPath<'_>) -> Option<Arc<Slot>> {
        self.shared.upgrade()?.slot(paths::container_id(path)?)
    }
}

#[interface(name = "org.berth.Agent1.Manager", introspection_docs = false)]
impl ManagerObject {
    /// By name, id, or the beginning of an id that only one has.
    #[zbus(out_args("container"))]
    async fn get_container(&self, name_or_id: &str) -> Result<OwnedObjectPath> {
        let shared = self.shared()?;
        let id = shared.engine.container_resolve(name_or_id);
        let id = id.map_err(|error| BusError::from_engine(&error, Verb::Look))?;
        if shared.slot(&id).is_none() {
            // Made a moment ago: its object is there before its path is told.
            shared.told().await;
        }
        Ok(paths::container(&id))
    }

    #[zbus(out_args("container"))]
    async fn get_container_by_unit(&self, unit: &str) -> Result<OwnedObjectPath> {
        let found = self.search(|view| !unit.is_empty() && view.unit == unit);
        let found = found.await?;
        found.ok_or_else(|| BusError::no_such_container(format!("unit {unit}")))
    }

    /// The container that a process of the host belongs to.
    #[zbus(name = "GetContainerByPID", out_args("container"))]
    async fn get_container_by_pid(&self, pid: u32) -> Result<OwnedObjectPath> {
        let none = || BusError::no_such_container(format!("process {pid}"));
        let group = berth_sys::proc::cgroup_of(pid).map_err(|_| none())?;
        let found = self.search(|view| contains(&view.control_group, &group));
        found.await?.ok_or_else(none)
    }

    /// Filter: `all` b (true), `state` as, `name` as (any of them).
    #[zbus(out_args("containers"))]
    fn list_containers(&self, filter: Dictionary) -> Result<Vec<Row>> {
        let mut filter = Options::new(filter);
        let all = filter.flag_or("all", true)?;
        let states = filter.texts("state")?;
        let names = filter.texts("name")?;
        filter.finish()?;
        let matches = |wanted: &Option<Vec<String>>, value: &str| match wanted {
            Some(wanted) => wanted.iter().any(|one| one == value),
            None => true,
        };
        let rows = self.shared()?.slots().into_iter().map(|slot| slot.view());
        Ok(rows
            .filter(|view| all || view.is_running())
            .filter(|view| matches(&states, view.state.as_str()) && matches(&names, &view.name))
            .map(|view| row(&view))
            .collect())
    }

    /// `name`: empty = one is made up. `spec_json`: the body of Docker's `POST /containers/create`.
    #[zbus(out_args("container"))]
    async fn create_container(
        &self,
        name: &str,
        spec_json: &str,
        options: Dictionary,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath> {
        Options::new(options).finish()?;
        let shared = self.shared()?;
        let call = Call::new(connection, &header, &shared.calls)?;
        let failed = |error: &berth_engine::Error| BusError::from_engine(error, Verb::Create);
        let name = (!name.is_empty()).then_some(name);
        let request =
            berth_api::container::create::parse(name, None, spec_json.as_bytes(), ApiVersion::MAX)
                .map_err(|error| failed(&error))?;
        let name = request.name.as_deref();
        call.may_create(name.unwrap_or_default(), &request.spec)
            .await?;
        let created = shared.engine.container_create(name, request.spec).await;
        let created = created.map_err(|error| failed(&error))?;
        for warning in &created.warnings {
            tracing::info!(container = created.id, warning, "created with a warning");
        }
        // The object is there before its path is told.
        shared.told().await;
        Ok(paths::container(&created.id))
    }

    /// Sends `Event` to the caller until `Unsubscribe`, or until it leaves the bus. The agent does
    /// not leave while somebody is subscribed.
    async fn subscribe(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<()> {
        let shared = self.shared()?;
        let call = Call::new(connection, &header, &shared.calls)?;
        call.may_subscribe().await?;
        shared.subscribers.add(&shared, &call).await
    }

    fn unsubscribe(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<()> {
        let shared = self.shared()?;
        let call = Call::new(connection, &header, &shared.calls)?;
        shared.subscribers.remove(&call.sender);
        Ok(())
    }

    #[zbus(out_args("job"))]
    fn get_job(&self, id: u32) -> Result<OwnedObjectPath> {
        let job = self.shared()?.jobs.get(id);
        job.ok_or_else(|| BusError::no_such_job(id))
    }

    /// Whether the caller may do it now: `yes`, `no`, `challenge` (after authentication), or `na`
    /// (there is no such verb or object). For greying out buttons; the method itself asks again.
    #[zbus(out_args("answer"))]
    async fn can_do(
        &self,
        verb: &str,
        subject: ObjectPath<'_>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String> {
        let shared = self.shared()?;
        let call = Call::new(connection, &header, &shared.calls)?;
        let Some(verb) = Verb::parse(verb) else {
            return Ok("na".to_owned());
        };
        let slot = self.slot_at(&subject);
        let needs_container = !matches!(verb, Verb::Create | Verb::Subscribe | Verb::Look);
        if needs_container && slot.is_none() {
            return Ok("na".to_owned());
        }
        let Some(action) = Action::of(verb) else {
            return Ok("yes".to_owned());
        };
        let view = slot.map(|slot| slot.view());
        let mut details = vec![("verb", verb.as_str())];
        if let Some(view) = &view {
            details.push(("container", view.id.as_str()));
            details.push(("name", view.name.as_str()));
            details.push(("image", view.image_ref.as_str()));
            details.push(("unit", view.unit.as_str()));
        }
        let answer = match call.decision(action, &details, false).await {
            Decision::Allowed => "yes",
            Decision::Challenge => "challenge",
            Decision::Denied(_) => "no",
        };
        Ok(answer.to_owned())
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        &self.version
    }

    /// The newest version of Docker's API, which `spec_json` and `Describe` follow.
    #[zbus(property(emits_changed_signal = "const"), name = "APIVersion")]
    fn api_version(&self) -> String {
        ApiVersion::MAX.to_string()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn features(&self) -> Vec<String> {
        FEATURES.map(str::to_owned).to_vec()
    }

    #[zbus(property, name = "NContainers")]
    fn n_containers(&self) -> u32 {
        self.shared.upgrade().map_or(0, |shared| shared.counts().0)
    }

    #[zbus(property, name = "NRunning")]
    fn n_running(&self) -> u32 {
        self.shared.upgrade().map_or(0, |shared| shared.counts().1)
    }

    #[zbus(property(emits_changed_signal = "false"), name = "NJobs")]
    fn n_jobs(&self) -> u32 {
        self.shared
            .upgrade()
            .map_or(0, |shared| shared.jobs.count())
    }

    #[zbus(signal)]
    pub(crate) async fn container_new(
        emitter: &SignalEmitter<'_>,
        id: &str,
        container: OwnedObjectPath,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(crate) async fn container_removed(
        emitter: &SignalEmitter<'_>,
        id: &str,
        container: OwnedObjectPath,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    pub(crate) async fn job_new(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        subject: OwnedObjectPath,
    ) -> zbus::Result<()>;

    /// `result`: `done` or `failed`; `error`: `NAME: text` of a failure.
    #[zbus(signal)]
    pub(crate) async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        subject: OwnedObjectPath,
        result: &str,
        error: &str,
    ) -> zbus::Result<()>;

    /// What Docker's `/events` reports, to subscribers only: attributes may be secret.
    #[zbus(signal)]
    pub(crate) async fn event(
        emitter: &SignalEmitter<'_>,
        time_usec: u64,
        kind: &str,
        action: &str,
        object: OwnedObjectPath,
        attributes: HashMap<String, String>,
    ) -> zbus::Result<()>;
}

fn find(shared: &Shared, fits: impl Fn(&View) -> bool) -> Option<OwnedObjectPath> {
    let views = shared.slots().into_iter().map(|slot| slot.view());
    views
        .filter(|view| fits(view))
        .map(|view| paths::container(&view.id))
        .next()
}

fn row(view: &View) -> Row {
    (
        paths::container(&view.id),
        view.id.clone(),
        view.name.clone(),
        view.state.as_str().to_owned(),
        view.created_at,
        view.image_ref.clone(),
    )
}

/// Whether `group` is `parent` or below it.
fn contains(parent: &str, group: &str) -> bool {
    !parent.is_empty()
        && group
            .strip_prefix(parent)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::contains;

    #[test]
    fn a_group_is_inside_only_at_a_boundary() {
        let parent = "/berth.slice/berth-a.scope";
        assert!(contains(parent, parent));
        assert!(contains(parent, "/berth.slice/berth-a.scope/payload/x"));
        assert!(!contains(parent, "/berth.slice/berth-a.scopes"));
        assert!(!contains(parent, "/berth.slice"));
        assert!(!contains("", "/anything"));
    }
}
