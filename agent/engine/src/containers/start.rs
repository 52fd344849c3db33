//! Start. Three things are made at once: the scope (with the monitor's pid), the root file system, and
//! the network. When all are there, the plan and the descriptors go to the monitor; the container's first
//! process sets itself up and waits; the run is recorded; and only then the program begins. Whatever
//! fails is undone, and its sentence is the request's error.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use berth_model::time::Timestamp;
use berth_network::Endpoint;
use berth_runtime::cgroup as runtime_cgroup;
use berth_runtime::devices::{self, HostDevice};
use berth_runtime::launch::{LaunchError, StartFds};
use berth_runtime::link::{Link, LinkError, Watching};
use berth_runtime::plan::{FdRole, Seccomp};
use berth_runtime::planner;
use berth_runtime::protocol::Stage;
use berth_runtime::spec::RunSpec;
use berth_runtime::{caps, cgroupfs, seccomp, user};
use berth_storage::MountOptions;
use berth_sys::cgroup::Cgroup;
use berth_sys::devfilter;
use berth_sys::ns::{self, NsKind};
use berth_systemd::scope;

use super::hostside;
use super::runspec::{network_owner, run_spec, spec_error};
use super::settings::{NetworkMode, network_mode};
use super::{Handle, Live};
use crate::Engine;
use crate::blocking;
use crate::db::Durability;
use crate::error::{Error, Kind, Result, Subject};
use crate::failpoint;
use crate::images::load::storage_error;
use crate::record::Body;
use crate::types::{Change, Status};

/// What the blocking half of a start makes.
struct Files {
    root: OwnedFd,
    ids: user::Ids,
    seccomp: Option<Seccomp>,
    devices: Vec<HostDevice>,
    fds: Vec<(FdRole, OwnedFd)>,
}

impl Engine {
    /// `detach_keys` belong to attachments; a start has no stream of its own.
    pub async fn container_start(
        &self,
        reference: &str,
        _detach_keys: Option<Vec<u8>>,
    ) -> Result<()> {
        let _busy = self.busy();
        let handle = self.inner.containers.find(reference)?;
        let _life = handle.life.lock().await;
        let conflict = |message: String| Err(Error::conflict(message).about(Subject::Container));
        match handle.status() {
            Status::Running => {
                return Err(Error::not_modified(format!(
                    "container {} is already started",
                    handle.id
                ))
                .about(Subject::Container));
            }
            Status::Paused => {
                return conflict(format!(
                    "cannot start a paused container, try unpause instead: {}",
                    handle.id
                ));
            }
            Status::Removing | Status::Dead => {
                return conflict(format!(
                    "container {} is marked for removal and cannot be started",
                    handle.id
                ));
            }
            Status::Created | Status::Exited | Status::Restarting => {}
        }
        if handle.watched.borrow().removed {
            return Err(Error::not_found(format!("No such container: {reference}"))
                .about(Subject::Container));
        }
        match self.bring_up(&handle).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.undo_start(&handle, error).await),
        }
    }

    async fn bring_up(&self, handle: &Arc<Handle>) -> Result<()> {
        let inner = &self.inner;
        let old = handle.status();
        let body = handle.record().body.clone();
        let mut spec = run_spec(&handle.id, &handle.name(), &body)?;
        if let NetworkMode::Container(owner) = network_mode(&body.spec)? {
            // Who shares a network shares its name and its name files.
            self.inner
                .containers
                .find(&owner)?
                .record()
                .body
                .config
                .hostname
                .clone_into(&mut spec.hostname);
        }
        let spec = Arc::new(spec);
        // The monitor comes to life while the intent is recorded: until it has a plan it is nothing but a
        // process at the end of our socket, and ends with it.
        let monitor = inner.launcher.spawn().map_err(launch_error)?;
        failpoint::hit("start.monitor");
        self.record_intent(handle).await?;
        failpoint::hit("start.recorded");

        // Together, on this task: each mostly waits for somebody else.
        let (cgroup, network, files) = tokio::join!(
            self.make_cgroup(handle, monitor.pid()),
            self.join_network(handle, &body),
            self.make_files(handle, &spec, &body),
        );
        let (payload, group) = cgroup?;
        failpoint::hit("start.scope");
        let (netns, endpoint) = network?;
        failpoint::hit("start.network");
        let mut files = files?;
        failpoint::hit("start.root");

        let names = {
            let (inner, spec, body, id) =
                (inner.clone(), spec.clone(), body.clone(), handle.id.clone());
            let endpoint = endpoint.clone();
            blocking::run("a part of the start failed", move || {
                hostside::name_files(&inner, &id, &spec, &body, endpoint.as_ref())
            })
            .await??
        };
        // Kept until the exit is reported: the last reference to an overlay writes back a file system.
        let held = berth_sys::fd::dup(&files.root)
            .map_err(|e| Error::internal("cannot keep the root mount").with_source(e))?;
        let payload_directory = berth_sys::fd::dup(payload.as_fd())
            .map_err(|e| Error::internal("cannot hand the cgroup over").with_source(e))?;
        let mut fds = StartFds::new();
        fds.add(FdRole::Root, files.root);
        fds.add(FdRole::PayloadCgroup, payload_directory);
        if let Some(netns) = netns {
            fds.add(FdRole::NetNs, netns);
        }
        let empty = berth_sys::fd::dup(&inner.empty_mount_ns).map_err(|e| {
            Error::internal("cannot hand the empty mount namespace over").with_source(e)
        })?;
        fds.add(FdRole::MountNs, empty);
        for (role, fd) in files.fds.drain(..).chain(names) {
            fds.add(role, fd);
        }
        // The fence stands before anything is in the cgroup.
        let rules = devices::rules(&spec, &files.devices).map_err(spec_error)?;
        devfilter::attach(payload.as_fd(), &devices::filter::program(&rules)).map_err(|e| {
            Error::internal("cannot put up the container's device fence").with_source(e)
        })?;
        let inputs = planner::Inputs {
            ids: files.ids,
            seccomp: files.seccomp,
            devices: files.devices,
            roles: fds.roles(),
        };
        let plan = planner::plan(&spec, &inner.facts, &inputs).map_err(spec_error)?;
        failpoint::hit("start.cgroup");

        let ready = monitor.start(&plan, fds).await.map_err(launch_error)?;
        failpoint::hit("start.ready");
        self.hand_over_pending(handle, ready.link()).await;
        let pid = ready.pid;
        self.record_running(handle, pid, &group).await?;
        failpoint::hit("start.running");
        // Watched before it begins: a program that ends at once finds somebody listening. Its end is taken
        // up after this start, whose hand is on the container's life.
        let link = Arc::new(ready.link().clone());
        let watching = link.begin_watch().await.map_err(link_error)?;
        handle.set_live(Some(Live {
            link: link.clone(),
            root: Some(Arc::new(held)),
            payload: Arc::new(payload),
        }));
        self.watch_exit(handle, link, watching);
        ready.go().await.map_err(launch_error)?;
        failpoint::hit("start.go");
        self.announce_start(handle, old);
        Ok(())
    }

    /// Intent first: a crash from here on finds a record that says what may be lying about.
    async fn record_intent(&self, handle: &Handle) -> Result<()> {
        let encoded = {
            let mut record = handle.record();
            let stored = &mut record.stored;
            stored.starting = true;
            stored.boot.clone_from(&self.inner.boot);
            stored.state.error.clear();
            stored.state.oom_killed = false;
            stored.state.stopped_by_user = false;
            record.encode_state()?
        };
        self.inner
            .db
            .container_state(Durability::Process, handle.id.clone(), encoded)
            .await
    }

    /// The scope (or the plain cgroup) with the monitor in it, and the payload's cgroup below.
    async fn make_cgroup(&self, handle: &Handle, monitor: u32) -> Result<(Cgroup, String)> {
        let inner = &self.inner;
        let id = handle.id.clone();
        match &inner.manager {
            Some(manager) => {
                let unit = scope::unit_name(&id);
                let started = manager
                    .start_scope(&unit, monitor, &inner.scope_settings(handle)?)
                    .await
                    .map_err(|e| manager_error(&unit, e))?;
                for property in &started.discarded {
                    tracing::warn!(
                        unit,
                        property,
                        "this systemd does not know the property; the limit does not hold"
                    );
                }
                let group = started.control_group.clone();
                let payload = blocking::run("a part of the start failed", move || {
                    runtime_cgroup::prepare_scope(&group, monitor)
                })
                .await?
                .map_err(|e| {
                    Error::internal(format!("cannot prepare the cgroup of {unit}")).with_source(e)
                })?;
                Ok((payload, started.control_group))
            }
            None => {
                let limits = inner.cgroupfs_limits(handle)?;
                blocking::run("a part of the start failed", move || {
                    cgroupfs::create(&id, &limits).map(|payload| (payload, cgroupfs::group(&id)))
                })
                .await?
                .map_err(|e| Error::internal("cannot make the container's cgroup").with_source(e))
            }
        }
    }

    /// The network namespace to join; a bridge's endpoint is recorded as soon as it exists.
    async fn join_network(
        &self,
        handle: &Handle,
        body: &Body,
    ) -> Result<(Option<OwnedFd>, Option<Endpoint>)> {
        let network = &self.inner.network;
        match network_mode(&body.spec)? {
            NetworkMode::Host => Ok((None, None)),
            NetworkMode::None => Ok((Some(network.isolated().await.map_err(network_error)?), None)),
            NetworkMode::Container(owner) => {
                let pid = network_owner(self, &owner)?;
                let netns = ns::open_ns(pid, NsKind::Net).map_err(|e| {
                    Error::conflict(format!("cannot join the network of container {owner}"))
                        .with_source(e)
                })?;
                Ok((Some(netns), None))
            }
            NetworkMode::Bridge => {
                let mac = match body.spec.mac_address.as_deref().filter(|m| !m.is_empty()) {
                    Some(text) => Some(text.parse::<berth_network::Mac>().map_err(network_error)?),
                    None => None,
                };
                let sandbox = network
                    .attach(&handle.id, mac, None)
                    .await
                    .map_err(network_error)?;
                handle.record().stored.endpoint = Some(sandbox.endpoint.clone());
                Ok((Some(sandbox.netns), Some(sandbox.endpoint)))
            }
        }
    }

    /// The root mount, who the program runs as, its system call filter, and the host's files.
    async fn make_files(
        &self,
        handle: &Handle,
        spec: &Arc<RunSpec>,
        body: &Arc<Body>,
    ) -> Result<Files> {
        let (inner, spec, body, id) = (
            self.inner.clone(),
            spec.clone(),
            body.clone(),
            handle.id.clone(),
        );
        // What is thrown away at the end need not be written back: only where nobody asks for it later.
        let volatile = body.spec.host.auto_remove;
        blocking::run("a part of the start failed", move || {
            let mut fds = hostside::run_directory(&inner, &id, &spec)?;
            let root = inner
                .store
                .snapshot_mount(&id, &MountOptions { volatile })
                .map_err(|e| storage_error(e).about(Subject::Container))?;
            let ids = user::resolve(root.as_fd(), &spec.user, &spec.group_add).map_err(|e| {
                Error::invalid(format!("unable to find user {}", spec.user))
                    .about(Subject::Container)
                    .with_source(e)
            })?;
            let bounding = caps::bounding(&spec, &inner.facts).map_err(spec_error)?.set;
            let seccomp = seccomp::for_container(&spec, &inner.facts, bounding)
                .map_err(|e| Error::invalid("the seccomp profile cannot be used").with_source(e))?;
            let devices = devices::from_host(&spec).map_err(spec_error)?;
            fds.extend(hostside::bind_sources(&spec, &body)?);
            Ok(Files {
                root,
                ids,
                seccomp,
                devices,
                fds,
            })
        })
        .await?
    }

    /// The program may begin only after this stands.
    async fn record_running(&self, handle: &Handle, pid: u32, group: &str) -> Result<()> {
        let (encoded, durability) = {
            let mut record = handle.record();
            let durability = record.durability();
            let stored = &mut record.stored;
            stored.starting = false;
            stored.state.status = Status::Running;
            stored.state.pid = pid;
            stored.state.exit_code = 0;
            stored.state.started_at = Timestamp::now();
            group.clone_into(&mut stored.control_group);
            (record.encode_state()?, durability)
        };
        self.inner
            .db
            .container_state(durability, handle.id.clone(), encoded)
            .await
    }

    fn announce_start(&self, handle: &Arc<Handle>, old: Status) {
        handle.watched.send_modify(|watched| watched.live = true);
        self.inner.container_event(handle, "start", []);
        self.inner.changed(Change::State {
            id: handle.id.clone(),
            old,
            new: Status::Running,
            reason: "started".into(),
        });
    }

    /// Waits for the end on the monitor's connection; when that breaks without news, the monitor is gone.
    pub(crate) fn watch_exit(&self, handle: &Arc<Handle>, link: Arc<Link>, watching: Watching) {
        let (engine, handle) = (self.clone(), handle.clone());
        tokio::spawn(async move {
            let record = match watching.exited().await {
                Ok(record) => Some(record),
                // We closed it: the agent leaves, or the exit was handled.
                Err(_)
                    if !handle
                        .live()
                        .is_some_and(|live| Arc::ptr_eq(&live.link, &link)) =>
                {
                    return;
                }
                Err(error) => {
                    tracing::warn!(
                        container_id = handle.id,
                        error = &error as &dyn std::error::Error,
                        "the monitor is gone"
                    );
                    engine.read_exit_record(&handle).await
                }
            };
            let _busy = engine.busy();
            engine.finish_exit(&handle, record).await;
        });
    }

    /// Takes everything back and records why; gives the error that the caller answers.
    async fn undo_start(&self, handle: &Arc<Handle>, error: Error) -> Error {
        let inner = &self.inner;
        // Dropping the monitor's connection has ended it; its scope and cgroup go with its processes.
        inner.end_scope(&handle.id).await;
        let code = start_exit_code(&error);
        let (encoded, endpoint, auto_remove) = {
            let mut record = handle.record();
            let stored = &mut record.stored;
            stored.starting = false;
            if stored.state.status.is_live() {
                stored.state.status = Status::Created;
            }
            stored.state.pid = 0;
            stored.state.exit_code = code;
            stored.state.error = error.full_message();
            stored.control_group.clear();
            let endpoint = stored.endpoint.take();
            (
                record.encode_state(),
                endpoint,
                record.body.spec.host.auto_remove,
            )
        };
        if let Some(endpoint) = &endpoint {
            inner.release(&handle.id, endpoint).await;
        }
        self.clean_run_files(handle, handle.live()).await;
        handle.set_live(None);
        let recorded = match encoded {
            Ok(encoded) => {
                inner
                    .db
                    .container_state(Durability::Process, handle.id.clone(), encoded)
                    .await
            }
            Err(error) => Err(error),
        };
        if let Err(left) = recorded {
            tracing::error!(
                container_id = handle.id,
                error = &left as &dyn std::error::Error,
                "a failed start could not be recorded"
            );
        }
        handle.attachments.drop_all();
        // Nothing ran, so nothing ended: whoever waits for the next exit waits on, as with Docker.
        handle.watched.send_modify(|watched| {
            watched.live = false;
            watched.exit_code = code;
        });
        if auto_remove && let Err(left) = self.remove_stopped(handle).await {
            tracing::error!(
                container_id = handle.id,
                error = &left as &dyn std::error::Error,
                "a container that should remove itself could not be removed"
            );
        }
        error
    }
}

/// Docker's exit code of a container that could not start.
fn start_exit_code(error: &Error) -> i64 {
    let text = error.full_message();
    if text.contains("executable file not found") || text.contains("no such file or directory") {
        127
    } else if text.contains("permission denied") || text.contains("is a directory") {
        126
    } else {
        128
    }
}

/// What a failure of a start means to the caller.
fn launch_error(error: LaunchError) -> Error {
    let kind = match &error {
        // The program, its directory, or its user are not what the request says.
        LaunchError::Start(failed)
            if matches!(
                failed.stage,
                Stage::Exec | Stage::WorkingDirectory | Stage::User
            ) =>
        {
            Kind::Invalid
        }
        _ => Kind::Internal,
    };
    Error::new(kind, error.to_string())
        .about(Subject::Container)
        .with_source(error)
}

/// What a failure of asking a monitor means to the caller.
pub(crate) fn link_error(error: LinkError) -> Error {
    let kind = match &error {
        LinkError::Connect { .. } | LinkError::Closed => Kind::Conflict,
        LinkError::Refused { .. } => Kind::Conflict,
        LinkError::Timeout(_) => Kind::Unavailable,
        _ => Kind::Internal,
    };
    Error::new(kind, error.to_string())
        .about(Subject::Container)
        .with_source(error)
}

fn manager_error(unit: &str, error: berth_systemd::Error) -> Error {
    let kind = if error.is_unavailable() {
        Kind::Unavailable
    } else {
        Kind::Internal
    };
    Error::new(kind, format!("systemd did not start {unit}"))
        .about(Subject::Container)
        .with_source(error)
}

fn network_error(error: berth_network::Error) -> Error {
    let kind = match error.kind() {
        berth_network::ErrorKind::Invalid => Kind::Invalid,
        berth_network::ErrorKind::Conflict => Kind::Conflict,
        berth_network::ErrorKind::Exhausted | berth_network::ErrorKind::Unavailable => {
            Kind::Unavailable
        }
        berth_network::ErrorKind::Internal => Kind::Internal,
    };
    Error::new(kind, error.to_string())
        .about(Subject::Network)
        .with_source(error)
}
