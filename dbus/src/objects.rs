//! `org.freedesktop.DBus.ObjectManager` at the root: all containers and jobs in one answer, from
//! memory. zbus has one too, which also lists the empty nodes in between and holds its lock while
//! it asks every object; it recognises this one by its name and sends the signals for it.

use std::collections::HashMap;
use std::sync::Weak;

use zbus::object_server::SignalEmitter;
use zbus::{ObjectPath, OwnedObjectPath, OwnedVariant, Variant, interface};

use crate::paths;
use crate::shared::Shared;

/// Interface → property → value.
type Interfaces = HashMap<String, HashMap<String, OwnedVariant>>;

pub(crate) struct Objects {
    shared: Weak<Shared>,
}

impl Objects {
    pub(crate) fn new(shared: Weak<Shared>) -> Objects {
        Objects { shared }
    }
}

#[interface(
    name = "org.freedesktop.DBus.ObjectManager",
    introspection_docs = false
)]
impl Objects {
    #[zbus(out_args("objects"))]
    fn get_managed_objects(&self) -> HashMap<OwnedObjectPath, Interfaces> {
        let Some(shared) = self.shared.upgrade() else {
            return HashMap::new();
        };
        let containers = shared.slots().into_iter().map(|slot| {
            let view = slot.view();
            let properties = owned(view.properties());
            let interfaces = HashMap::from([("org.berth.Agent1.Container".to_owned(), properties)]);
            (paths::container(&view.id), interfaces)
        });
        let jobs = shared
            .jobs
            .properties()
            .into_iter()
            .map(|(id, properties)| {
                let interfaces =
                    HashMap::from([("org.berth.Agent1.Job".to_owned(), owned(properties))]);
                (paths::job(id), interfaces)
            });
        containers.chain(jobs).collect()
    }

    #[zbus(signal)]
    async fn interfaces_added(
        emitter: &SignalEmitter<'_>,
        object: ObjectPath<'_>,
        interfaces: HashMap<String, HashMap<String, Variant<'_>>>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn interfaces_removed(
        emitter: &SignalEmitter<'_>,
        object: ObjectPath<'_>,
        interfaces: Vec<String>,
    ) -> zbus::Result<()>;
}

fn owned(properties: Vec<(&'static str, Variant<'static>)>) -> HashMap<String, OwnedVariant> {
    properties
        .into_iter()
        // Only a descriptor could fail to be owned, and no property is one.
        .filter_map(|(name, value)| Some((name.to_owned(), OwnedVariant::try_from(value).ok()?)))
        .collect()
}
