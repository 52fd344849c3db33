//! All containers, in memory: lists are answered from here. Each has a handle that carries its record,
//! what is live of it, and the channel that its waiters watch.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use berth_runtime::link::Link;

use crate::error::{Error, Result, Subject};
use crate::record::Record;
use crate::types::Status;

pub(crate) mod attach;
pub(crate) mod configure;
pub(crate) mod create;
pub(crate) mod exit;
pub(crate) mod hostside;
pub(crate) mod list;
pub(crate) mod manage;
pub(crate) mod remove;
pub(crate) mod runspec;
pub(crate) mod settings;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod wait;

/// One container.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) id: String,
    /// Held by whoever changes the container's life: start, exit, pause, remove. Never while waiting for an exit.
    pub(crate) life: tokio::sync::Mutex<()>,
    record: Mutex<Record>,
    live: Mutex<Option<Live>>,
    /// What waiters look at.
    pub(crate) watched: watch::Sender<Watched>,
    pub(crate) attachments: attach::Pending,
    /// The present stop is half of a restart.
    pub(crate) restarting: std::sync::atomic::AtomicBool,
}

/// The live parts of a running container; gone with the agent, found again by restore.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) link: Arc<Link>,
    /// The last reference to the root mount syncs a whole file system: it is dropped after the exit is reported.
    pub(crate) root: Option<Arc<OwnedFd>>,
    /// The payload cgroup's directory.
    pub(crate) payload: Arc<berth_sys::cgroup::Cgroup>,
}

/// The part of the state that waiters compare.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Watched {
    pub(crate) live: bool,
    /// Exits so far, this agent's life long.
    pub(crate) exits: u64,
    pub(crate) exit_code: i64,
    pub(crate) removed: bool,
}

impl Handle {
    pub(crate) fn new(record: Record) -> Arc<Self> {
        let watched = Watched {
            live: record.status().is_live(),
            exit_code: record.stored.state.exit_code,
            ..Watched::default()
        };
        Arc::new(Self {
            id: record.id.clone(),
            life: tokio::sync::Mutex::new(()),
            record: Mutex::new(record),
            live: Mutex::new(None),
            watched: watch::Sender::new(watched),
            attachments: attach::Pending::default(),
            restarting: std::sync::atomic::AtomicBool::new(false),
        })
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        self.record
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn status(&self) -> Status {
        self.record().status()
    }

    /// The state as the kernel shows it: `systemctl freeze` and `thaw` of the scope pause and unpause
    /// behind our back, and are not announced.
    pub(crate) fn observed(&self) -> Status {
        let recorded = self.status();
        if !recorded.is_live() {
            return recorded;
        }
        match self.live().map(|live| live.payload.events()) {
            Some(Ok(events)) if events.frozen => Status::Paused,
            Some(Ok(_)) => Status::Running,
            Some(Err(_)) | None => recorded,
        }
    }

    pub(crate) fn name(&self) -> String {
        self.record().name.clone()
    }

    pub(crate) fn live(&self) -> Option<Live> {
        self.live
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    pub(crate) fn set_live(&self, live: Option<Live>) -> Option<Live> {
        std::mem::replace(
            &mut *self
                .live
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
            live,
        )
    }

    /// The live parts, or the conflict that Docker answers for an operation on a container that does not run.
    pub(crate) fn live_or_conflict(&self) -> Result<Live> {
        self.live()
            .filter(|_| self.status().is_live())
            .ok_or_else(|| {
                Error::conflict(format!("container {} is not running", self.id))
                    .about(Subject::Container)
            })
    }
}

/// The index of all containers.
#[derive(Debug, Default)]
pub(crate) struct Containers {
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Handle>>,
    /// Name to id; a name is here from the moment that it is reserved.
    names: HashMap<String, String>,
}

/// A name that is taken while its container is being made; given back unless kept.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    containers: &'a Containers,
    name: String,
    kept: bool,
}

impl Reservation<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.containers.lock().names.remove(&self.name);
        }
    }
}

impl Containers {
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes `name` for the container `id`.
    pub(crate) fn reserve(&self, name: &str, id: &str) -> Result<Reservation<'_>> {
        let mut index = self.lock();
        if let Some(holder) = index.names.get(name) {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
                 You have to remove (or rename) that container to be able to reuse that name."
            ))
            .about(Subject::Container));
        }
        index.names.insert(name.to_owned(), id.to_owned());
        Ok(Reservation {
            containers: self,
            name: name.to_owned(),
            kept: false,
        })
    }

    /// Whether no container's id begins with `short`.
    pub(crate) fn is_short_free(&self, short: &str) -> bool {
        self.lock()
            .by_id
            .range(short.to_owned()..)
            .next()
            .is_none_or(|(id, _)| !id.starts_with(short))
    }

    pub(crate) fn insert(&self, handle: Arc<Handle>) {
        let mut index = self.lock();
        index.names.insert(handle.name(), handle.id.clone());
        index.by_id.insert(handle.id.clone(), handle);
    }

    pub(crate) fn remove(&self, handle: &Handle) {
        let mut index = self.lock();
        index.by_id.remove(&handle.id);
        let name = handle.name();
        if index.names.get(&name).is_some_and(|id| *id == handle.id) {
            index.names.remove(&name);
        }
    }

    /// Gives a name back after a rename.
    pub(crate) fn release_name(&self, name: &str, id: &str) {
        let mut index = self.lock();
        if index.names.get(name).is_some_and(|holder| holder == id) {
            index.names.remove(name);
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Handle>> {
        self.lock().by_id.values().cloned().collect()
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Handle>> {
        self.lock().by_id.get(id).cloned()
    }

    /// Full id, name with or without the leading slash, or unique prefix of an id, in Docker's order.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Handle>> {
        let index = self.lock();
        let missing = || {
            Error::not_found(format!("No such container: {reference}")).about(Subject::Container)
        };
        if reference.is_empty() {
            return Err(Error::invalid("a container name or id is needed"));
        }
        if let Some(handle) = index.by_id.get(reference) {
            return Ok(handle.clone());
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(handle) = index.names.get(name).and_then(|id| index.by_id.get(id)) {
            return Ok(handle.clone());
        }
        if !reference.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let prefix = reference.to_ascii_lowercase();
        let mut found = index
            .by_id
            .range(prefix.clone()..)
            .take_while(|(id, _)| id.starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some((_, handle)), None) => Ok(handle.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "Multiple IDs found with provided prefix: {reference}"
            ))
            .about(Subject::Container)),
            (None, _) => Err(missing()),
        }
    }
}
