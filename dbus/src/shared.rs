//! What the objects on the bus have in common: the engine, what is exported, what runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot, watch};
use zbus::Connection;

use crate::Options;
use crate::calls::Calls;
use crate::job::Jobs;
use crate::subscribers::Subscribers;
use crate::view::View;
use berth_engine::Engine;

/// How far the face is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Serving,
    /// The name was given back; what has arrived is still answered.
    Released,
    Closed,
}

/// Whether there is a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// The first attempt is not over.
    Starting,
    /// The name is ours.
    Up,
    Down,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub engine: Engine,
    pub options: Options,
    pub calls: Calls,
    pub jobs: Jobs,
    pub subscribers: Subscribers,
    connection: RwLock<Option<Connection>>,
    /// The exported containers, by id.
    containers: RwLock<BTreeMap<String, Arc<Slot>>>,
    /// Taken while an object appears or goes, so that two tasks never announce it twice.
    pub exporting: tokio::sync::Mutex<()>,
    stage: watch::Sender<Stage>,
    link: watch::Sender<Link>,
    /// Requests to tell everything that happened until now; see [`Shared::told`].
    barriers: RwLock<Option<mpsc::UnboundedSender<Barrier>>>,
}

/// Answered when every change before it has been told.
pub(crate) type Barrier = oneshot::Sender<()>;

/// The newest view of one container; the object's getters read it.
#[derive(Debug)]
pub(crate) struct Slot(Mutex<Arc<View>>);

impl Slot {
    pub(crate) fn new(view: View) -> Slot {
        Slot(Mutex::new(Arc::new(view)))
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a newer view in and gives the older one out.
    pub(crate) fn replace(&self, view: View) -> Arc<View> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *slot, Arc::new(view))
    }
}

impl Shared {
    pub(crate) fn new(engine: Engine, options: Options) -> Shared {
        let guard = engine.clone();
        Shared {
            engine,
            options,
            calls: Calls::new(move || Box::new(guard.busy())),
            jobs: Jobs::default(),
            subscribers: Subscribers::default(),
            connection: RwLock::new(None),
            containers: RwLock::new(BTreeMap::new()),
            exporting: tokio::sync::Mutex::new(()),
            stage: watch::Sender::new(Stage::Serving),
            link: watch::Sender::new(Link::Starting),
            barriers: RwLock::new(None),
        }
    }

    /// Resolves when everything that the engine has reported by now is on the bus, so that a
    /// caller who reads a property after its answer finds what it did.
    pub(crate) async fn told(&self) {
        let (barrier, passed) = oneshot::channel();
        let sent = self
            .barriers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .is_some_and(|barriers| barriers.send(barrier).is_ok());
        if sent {
            // An error means that the connection ended: nobody is there to be told.
            let _ = passed.await;
        }
    }

    pub(crate) fn set_barriers(&self, barriers: Option<mpsc::UnboundedSender<Barrier>>) {
        *self
            .barriers
            .write()
            .unwrap_or_else(PoisonError::into_inner) = barriers;
    }

    pub(crate) fn connection(&self) -> Option<Connection> {
        self.connection
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_connection(&self, connection: Option<Connection>) {
        *self
            .connection
            .write()
            .unwrap_or_else(PoisonError::into_inner) = connection;
    }

    pub(crate) fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Moves towards the end; there is no way back.
    pub(crate) fn set_stage(&self, stage: Stage) {
        self.stage.send_modify(|now| {
            if *now != Stage::Closed {
                *now = stage;
            }
        });
    }

    pub(crate) fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    pub(crate) fn set_link(&self, link: Link) {
        self.link.send_replace(link);
    }

    pub(crate) fn slot(&self, id: &str) -> Option<Arc<Slot>> {
        self.read_containers().get(id).cloned()
    }

    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        self.read_containers().values().cloned().collect()
    }

    pub(crate) fn insert_slot(&self, id: String, slot: Arc<Slot>) {
        self.write_containers().insert(id, slot);
    }

    pub(crate) fn remove_slot(&self, id: &str) -> Option<Arc<Slot>> {
        self.write_containers().remove(id)
    }

    pub(crate) fn clear_slots(&self) {
        self.write_containers().clear();
    }

    /// All containers, and those that run.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let containers = self.read_containers();
        let running = containers
            .values()
            .filter(|slot| slot.view().is_running())
            .count();
        (count(containers.len()), count(running))
    }

    fn read_containers(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Slot>>> {
        self.containers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write_containers(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Arc<Slot>>> {
        self.containers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
