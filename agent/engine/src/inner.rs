//! What the engine holds together, and the small things that several operations share.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};

use tokio::sync::broadcast;

use berth_model::time::Timestamp;
use berth_network::Network;
use berth_runtime::hostfacts::HostFacts;
use berth_runtime::launch::Launcher;
use berth_storage::Store;
use berth_systemd::manager::Manager;

use crate::activity::Activity;
use crate::containers::{Containers, Handle};
use crate::db::Database;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::images::Images;
use crate::images::load::storage_error;
use crate::paths::{self, Paths};
use crate::types::{Change, Event};
use crate::{CgroupDriver, Config};

/// Changes that a mirror may fall behind before it has to read everything anew.
const CHANGE_QUEUE: usize = 1024;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) paths: Paths,
    pub(crate) db: Database,
    pub(crate) store: Store,
    pub(crate) network: Network,
    /// None = the cgroup file system driver.
    pub(crate) manager: Option<Manager>,
    /// The init system's name and version; empty without systemd.
    pub(crate) init: String,
    pub(crate) launcher: Launcher,
    /// What monitors enter before they clone: nothing of the host is in it.
    pub(crate) empty_mount_ns: OwnedFd,
    pub(crate) facts: HostFacts,
    pub(crate) boot: String,
    pub(crate) containers: Containers,
    pub(crate) images: Images,
    pub(crate) events: Events,
    pub(crate) changes: broadcast::Sender<Change>,
    pub(crate) activity: Activity,
    /// Descriptors whose last close is slow.
    closer: mpsc::Sender<Arc<OwnedFd>>,
    /// Records that could not be read, for `info`.
    pub(crate) damaged: std::sync::Mutex<Vec<String>>,
}

impl Inner {
    pub(crate) async fn open(config: Config) -> Result<Self> {
        let manager = service_manager(config.cgroup_driver).await?;
        let init = match &manager {
            Some(manager) => manager
                .version()
                .await
                .map_or_else(|_| "systemd".to_owned(), |v| format!("systemd {v}")),
            None => String::new(),
        };
        let opening = config.clone();
        let (paths, db, store, launcher, facts, events, boot, empty_mount_ns) =
            crate::blocking::run("opening the engine failed", move || {
                let paths = Paths::open(&opening.data_root, &opening.run_root)?;
                let db = Database::open(&paths.database())?;
                let store = Store::open(paths.data(), opening.storage_driver.as_deref())
                    .map_err(storage_error)?;
                let launcher = Launcher::new(&opening.monitor).map_err(|e| {
                    Error::unavailable("the container monitor cannot be used").with_source(e)
                })?;
                let facts = HostFacts::read().map_err(|e| {
                    Error::unavailable("this host cannot run containers").with_source(e)
                })?;
                let events = Events::open(&paths.events())?;
                let boot = berth_sys::proc::boot_id().map_err(|e| {
                    Error::unavailable("the kernel does not tell its boot id").with_source(e)
                })?;
                let empty_mount_ns = berth_sys::ns::empty_mount_ns().map_err(|e| {
                    Error::unavailable("cannot make a mount namespace").with_source(e)
                })?;
                Ok::<_, Error>((
                    paths,
                    db,
                    store,
                    launcher,
                    facts,
                    events,
                    boot,
                    empty_mount_ns,
                ))
            })
            .await??;
        if !facts.cgroup_v2 {
            return Err(Error::unavailable(format!(
                "this host has the {} cgroup hierarchy; containers need cgroup v2 alone at /sys/fs/cgroup: boot with \
                 systemd.unified_cgroup_hierarchy=1 (and without cgroup v1 controllers)",
                facts.cgroup_mode
            )));
        }
        let images = Images::open(&db).await?;
        let (changes, _) = broadcast::channel(CHANGE_QUEUE);
        Ok(Self {
            network: Network::new(config.bridge),
            paths,
            db,
            store,
            manager,
            init,
            launcher,
            empty_mount_ns,
            facts,
            boot,
            containers: Containers::default(),
            images,
            events,
            changes,
            activity: Activity::default(),
            closer: start_closer()?,
            damaged: std::sync::Mutex::default(),
        })
    }

    /// Records an event of any kind of object.
    pub(crate) fn event<const N: usize>(
        &self,
        kind: &str,
        action: &str,
        actor: &str,
        attributes: [(&str, String); N],
    ) {
        self.events.publish(Event {
            time: Timestamp::now(),
            kind: kind.to_owned(),
            action: action.to_owned(),
            actor: actor.to_owned(),
            attributes: attributes
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        });
    }

    /// Records an event of a container, with its name, image and labels.
    pub(crate) fn container_event<const N: usize>(
        &self,
        handle: &Handle,
        action: &str,
        attributes: [(&str, String); N],
    ) {
        let (name, image) = {
            let record = handle.record();
            (record.name.clone(), record.body.spec.image.clone())
        };
        // Found by the fields, and by `journalctl -u` of the scope that it is about.
        tracing::info!(
            container_id = handle.id,
            container_name = name,
            image_name = image,
            object_systemd_unit = berth_systemd::scope::unit_name(&handle.id),
            "container {name}: {action}"
        );
        let mut all: BTreeMap<String, String> = {
            let record = handle.record();
            let mut all = record.body.config.labels.clone();
            all.insert("image".into(), record.body.spec.image.clone());
            all.insert("name".into(), record.name.clone());
            all
        };
        all.extend(
            attributes
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value)),
        );
        self.events.publish(Event {
            time: Timestamp::now(),
            kind: "container".into(),
            action: action.to_owned(),
            actor: handle.id.clone(),
            attributes: all,
        });
    }

    pub(crate) fn changed(&self, change: Change) {
        // Nobody may be listening.
        let _ = self.changes.send(change);
    }

    /// Whether any container is on a bridge: without one there is nothing of ours on the host.
    pub(crate) fn has_endpoints(&self) -> bool {
        self.containers
            .all()
            .iter()
            .any(|handle| handle.record().stored.endpoint.is_some())
    }

    /// Gives an address back; what cannot be taken back now is found stale by the next agent.
    pub(crate) async fn release(&self, id: &str, endpoint: &berth_network::Endpoint) {
        if let Err(error) = self.network.release(endpoint).await {
            tracing::warn!(
                container_id = id,
                error = &error as &dyn std::error::Error,
                "a network endpoint stays behind, ignoring"
            );
        }
    }

    /// Closes a root mount on a thread of its own: the last reference writes back a file system.
    pub(crate) fn let_go(&self, root: Option<Arc<OwnedFd>>) {
        if let Some(root) = root {
            // Without the thread (it never ends) the descriptor closes here, which is slow but right.
            let _ = self.closer.send(root);
        }
    }

    /// Moves what a container keeps out of the way: its snapshot and its directory. Blocking.
    pub(crate) fn discard_files(&self, id: &str) -> Result<()> {
        self.store.snapshot_remove(id).map_err(storage_error)?;
        let fail = |e: std::io::Error| {
            Error::internal(format!("cannot discard the files of container {id}")).with_source(e)
        };
        let directory = self.paths.container(id);
        let trash = self.paths.trash().join(id);
        match std::fs::rename(&directory, &trash) {
            Ok(()) => paths::remove_tree(&trash).map_err(fail)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
        }
        self.remove_run_files(id).map_err(fail)
    }

    /// Blocking.
    pub(crate) fn remove_run_files(&self, id: &str) -> std::io::Result<()> {
        paths::remove_tree(&self.paths.run_container(id))
    }
}

async fn service_manager(driver: CgroupDriver) -> Result<Option<Manager>> {
    let wanted = match driver {
        CgroupDriver::Auto => berth_systemd::booted(),
        CgroupDriver::Systemd => true,
        CgroupDriver::Cgroupfs => false,
    };
    if !wanted {
        return Ok(None);
    }
    let manager = Manager::connect().await.map_err(|e| {
        Error::unavailable("systemd is the cgroup driver, but it cannot be reached").with_source(e)
    })?;
    Ok(Some(manager))
}

fn start_closer() -> Result<mpsc::Sender<Arc<OwnedFd>>> {
    let (sender, queue) = mpsc::channel::<Arc<OwnedFd>>();
    std::thread::Builder::new()
        .name("unmount".into())
        .spawn(move || {
            while let Ok(root) = queue.recv() {
                drop(root);
            }
        })
        .map_err(|e| Error::internal("cannot start a thread").with_source(e))?;
    Ok(sender)
}
