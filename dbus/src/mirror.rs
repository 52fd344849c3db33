//! Keeps the objects on the bus as the engine has the containers: exports, updates, removes, and
//! tells about it. A client that reads a property after a signal finds what the signal said.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use zbus::names::InterfaceName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Variant, fdo};

use crate::container::ContainerObject;
use crate::manager::ManagerObject;
use crate::shared::{Shared, Slot};
use crate::view::{View, clamped, micros};
use crate::{ROOT, paths};
use berth_engine::{Change, Kind, ListOptions};

type Properties = Vec<(&'static str, Variant<'static>)>;

const CONTAINER: &str = "org.berth.Agent1.Container";
const MANAGER: &str = "org.berth.Agent1.Manager";

/// Brings every object in line with the engine: at a new connection, and when changes came faster
/// than they could be told.
pub(crate) async fn reload(
    shared: &Arc<Shared>,
    connection: &Connection,
) -> berth_engine::Result<()> {
    let everything = ListOptions {
        all: true,
        ..ListOptions::default()
    };
    let containers = shared.engine.container_list(&everything).await?;
    let mut gone: BTreeSet<String> = shared
        .slots()
        .iter()
        .map(|slot| slot.view().id.clone())
        .collect();
    for container in containers {
        gone.remove(&container.id);
        let changed = put(shared, connection, View::of(&container)).await;
        tell_properties(connection, &container.id, changed).await;
    }
    for id in gone {
        drop_one(shared, connection, &id).await;
    }
    Ok(())
}

/// Carries out what the engine reported, in its order.
pub(crate) async fn apply(shared: &Arc<Shared>, connection: &Connection, changes: &[Change]) {
    let counts = shared.counts();
    let mut changed: HashMap<String, Properties> = HashMap::new();
    for change in changes {
        let (Change::Created { id }
        | Change::Removed { id }
        | Change::State { id, .. }
        | Change::Exited { id, .. }
        | Change::Properties { id }) = change;
        if !changed.contains_key(id) {
            let properties = refresh(shared, connection, id).await;
            changed.insert(id.clone(), properties);
        }
        tell(shared, connection, change).await;
    }
    for (id, properties) in changed {
        tell_properties(connection, &id, properties).await;
    }
    if shared.counts() != counts {
        tell_counts(shared, connection).await;
    }
}

/// Reads one container anew, and gives the properties that differ. One that the engine no longer
/// has loses its object.
async fn refresh(shared: &Arc<Shared>, connection: &Connection, id: &str) -> Properties {
    match shared.engine.container_inspect(id, false).await {
        Ok(container) => put(shared, connection, View::of(&container)).await,
        Err(error) if error.kind() == Kind::NotFound => {
            drop_one(shared, connection, id).await;
            Vec::new()
        }
        Err(error) => {
            tracing::warn!(container = id, %error, "the bus cannot show a container's state, ignoring");
            Vec::new()
        }
    }
}

/// Exports a container, or updates the object that it has.
async fn put(shared: &Arc<Shared>, connection: &Connection, view: View) -> Properties {
    let _one_at_a_time = shared.exporting.lock().await;
    let id = view.id.clone();
    if let Some(slot) = shared.slot(&id) {
        let before = slot.replace(view);
        return slot.view().changes_since(&before);
    }
    let slot = Arc::new(Slot::new(view));
    shared.insert_slot(id.clone(), Arc::clone(&slot));
    let path = paths::container(&id);
    let object = ContainerObject::new(Arc::downgrade(shared), id.clone(), slot);
    let exported = connection.object_server().at(path.clone(), object).await;
    let told = match emitter(connection, ROOT) {
        Ok(emitter) => ManagerObject::container_new(&emitter, &id, path).await,
        Err(error) => Err(error),
    };
    log_failed(&id, exported.map(|_| ()).and(told));
    Vec::new()
}

async fn drop_one(shared: &Arc<Shared>, connection: &Connection, id: &str) {
    let _one_at_a_time = shared.exporting.lock().await;
    if shared.remove_slot(id).is_none() {
        return;
    }
    let path = paths::container(id);
    let server = connection.object_server();
    let removed = server.remove::<ContainerObject, _>(path.clone()).await;
    let told = match emitter(connection, ROOT) {
        Ok(emitter) => ManagerObject::container_removed(&emitter, id, path).await,
        Err(error) => Err(error),
    };
    log_failed(id, removed.map(|_| ()).and(told));
}

/// The signals of a container's own.
async fn tell(shared: &Shared, connection: &Connection, change: &Change) {
    let (id, told) = match change {
        Change::State {
            id,
            old,
            new,
            reason,
        } => {
            let told = match emitter(connection, &paths::container(id)) {
                Ok(emitter) => {
                    let (old, new) = (old.as_str(), new.as_str());
                    ContainerObject::moved(&emitter, old, new, reason).await
                }
                Err(error) => Err(error),
            };
            (id, told)
        }
        Change::Exited {
            id,
            exit_code,
            oom_killed,
            finished_at,
        } => {
            // What the properties say, unless it has been started again since.
            let known = shared.slot(id).map_or("", |slot| slot.view().exit_reason);
            let reason = match (oom_killed, known) {
                (true, _) => "oom",
                (false, "") => "exited",
                (false, known) => known,
            };
            let told = match emitter(connection, &paths::container(id)) {
                Ok(emitter) => {
                    let (code, at) = (clamped(*exit_code), micros(*finished_at));
                    ContainerObject::exited(&emitter, code, reason, at).await
                }
                Err(error) => Err(error),
            };
            (id, told)
        }
        _ => return,
    };
    log_failed(id, told);
}

async fn tell_properties(connection: &Connection, id: &str, properties: Properties) {
    if properties.is_empty() {
        return;
    }
    let path = paths::container(id);
    log_failed(
        id,
        properties_changed(connection, &path, CONTAINER, properties).await,
    );
}

async fn tell_counts(shared: &Shared, connection: &Connection) {
    let (all, running) = shared.counts();
    let properties = vec![
        ("NContainers", Variant::U32(all)),
        ("NRunning", Variant::U32(running)),
    ];
    log_failed(
        "",
        properties_changed(connection, ROOT, MANAGER, properties).await,
    );
}

async fn properties_changed(
    connection: &Connection,
    path: &str,
    interface: &'static str,
    properties: Properties,
) -> zbus::Result<()> {
    let emitter = emitter(connection, path)?;
    let interface = InterfaceName::from_static_str(interface)?;
    let properties = properties.into_iter().collect();
    fdo::Properties::properties_changed(&emitter, interface, properties, Cow::Borrowed(&[])).await
}

fn emitter<'p>(connection: &Connection, path: &'p str) -> zbus::Result<SignalEmitter<'p>> {
    SignalEmitter::new(connection, path)
}

/// A signal that cannot be sent means that the connection ends; the next one starts from a reload.
fn log_failed(container: &str, result: zbus::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(container, %error, "the bus was not told of a change, ignoring");
    }
}
