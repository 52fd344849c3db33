//! The host's side of a start: files that the container sees under /etc, the sources of its binds, its
//! log, its exit record, and the socket that its monitor will listen on. All become descriptors here, so
//! that no path is resolved twice and none inside the container.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use berth_network::{Endpoint, hostfiles};
use berth_runtime::plan::FdRole;
use berth_runtime::spec::{IpcMode, LogSpec, MountKind, RunSpec};
use berth_sys::{mount, path};

use super::runspec::{is_recursive, makes_source};
use super::settings::{NetworkMode, network_mode};
use crate::error::{Error, Result, Subject};
use crate::inner::Inner;
use crate::record::Body;

/// Makes the run directory and opens everything in it that does not depend on the network. Blocking.
pub(crate) fn run_directory(
    inner: &Inner,
    id: &str,
    spec: &RunSpec,
) -> Result<Vec<(FdRole, OwnedFd)>> {
    let directory = inner.paths.run_container(id);
    let fail = |what: &str| {
        let text = format!("cannot make {what} of container {id}");
        move |e: io::Error| Error::internal(text).with_source(e)
    };
    crate::paths::remove_tree(&directory).map_err(fail("the run directory"))?;
    DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .map_err(fail("the run directory"))?;
    let exit = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(directory.join("exit"))
        .map_err(fail("the exit record"))?;
    let listener = berth_runtime::launch::listen(&directory.join("monitor.sock"))
        .map_err(fail("the monitor's socket"))?;
    let run_root = path::open_root(inner.paths.run()).map_err(fail("the way to the run root"))?;
    let mut fds = vec![
        (FdRole::ExitRecord, OwnedFd::from(exit)),
        (FdRole::Listener, listener),
        (FdRole::RunRoot, run_root),
    ];
    if let LogSpec::JsonFile { .. } = spec.log {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(inner.paths.log(id))
            .map_err(fail("the log"))?;
        let log_directory =
            File::open(inner.paths.container(id)).map_err(fail("the log's directory"))?;
        fds.push((FdRole::Log, log.into()));
        fds.push((FdRole::LogDir, log_directory.into()));
    }
    Ok(fds)
}

/// The sources of the binds, each a detached copy of a host mount. Blocking; runs in the host's namespace.
pub(crate) fn bind_sources(spec: &RunSpec, body: &Body) -> Result<Vec<(FdRole, OwnedFd)>> {
    let mut fds = Vec::new();
    for (index, bind) in spec.mounts.iter().enumerate() {
        if bind.kind != MountKind::Bind {
            continue;
        }
        let position = u16::try_from(index)
            .map_err(|_| Error::invalid("too many mounts").about(Subject::Container))?;
        let source = Path::new(&bind.source);
        let opened = path::open_host(source, rustix_path());
        let opened = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound && makes_source(body, index) => {
                // Docker's `-v` makes the missing directory; its `--mount` does not.
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(source)
                    .and_then(|()| path::open_host(source, rustix_path()))
            }
            other => other,
        };
        let opened = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                bind.source
            ))
            .about(Subject::Container),
            _ => Error::invalid(format!("cannot open the bind source {}", bind.source))
                .with_source(error),
        })?;
        let tree = mount::clone_tree(opened.as_fd(), is_recursive(body, index))
            .map_err(|e| Error::internal(format!("cannot bind {}", bind.source)).with_source(e))?;
        fds.push((FdRole::Bind(position), tree));
    }
    if spec.namespaces.ipc == IpcMode::Host {
        // Shared memory by name is part of what the host's IPC means.
        let shm = path::open_host("/dev/shm", path::OFlags::PATH)
            .and_then(|shm| mount::clone_tree(shm.as_fd(), false))
            .map_err(|e| Error::internal("cannot share the host's /dev/shm").with_source(e))?;
        fds.push((FdRole::Shm, shm));
    }
    Ok(fds)
}

fn rustix_path() -> berth_sys::path::OFlags {
    berth_sys::path::OFlags::PATH
}

/// hosts, hostname and resolv.conf, written for this run and handed over as mounts of single files. Blocking.
pub(crate) fn name_files(
    inner: &Inner,
    id: &str,
    spec: &RunSpec,
    body: &Body,
    endpoint: Option<&Endpoint>,
) -> Result<Vec<(FdRole, OwnedFd)>> {
    let directory = inner.paths.run_container(id);
    let host = &body.spec.host;
    let fail = |e: io::Error| {
        Error::internal(format!("cannot write the name files of container {id}")).with_source(e)
    };
    // A container in another's network shares its name files, as it shares its address.
    if let NetworkMode::Container(owner) = network_mode(&body.spec)? {
        let owners = inner.paths.run_container(&owner);
        return [
            ("hosts", FdRole::Hosts),
            ("hostname", FdRole::Hostname),
            ("resolv.conf", FdRole::ResolvConf),
        ]
        .into_iter()
        .map(|(name, role)| Ok((role, file_mount(&owners.join(name)).map_err(fail)?)))
        .collect();
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let wrong = |e: berth_network::Error| Error::invalid(e.to_string()).about(Subject::Container);
    let of_host = network_mode(&body.spec)? == NetworkMode::Host;
    let extra = host
        .extra_hosts
        .iter()
        .map(|text| hostfiles::ExtraHost::parse(text))
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong)?;
    let hosts = if of_host {
        hostfiles::hosts_of_host(&read("/etc/hosts"), &extra, None)
    } else {
        let names = hostfiles::Names {
            hostname: &spec.hostname,
            domainname: &spec.domainname,
        };
        hostfiles::hosts(
            endpoint.map(|e| e.ip),
            names,
            &extra,
            endpoint.map(|e| e.gateway),
        )
    }
    .map_err(wrong)?;
    let overrides = hostfiles::Overrides {
        servers: &host.dns,
        search: &host.dns_search,
        options: &host.dns_options,
    };
    let resolv = if of_host
        && host.dns.is_empty()
        && host.dns_search.is_empty()
        && host.dns_options.is_empty()
    {
        read("/etc/resolv.conf")
    } else {
        let upstream = std::fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
        let made =
            hostfiles::resolv_conf(&read("/etc/resolv.conf"), upstream.as_deref(), overrides)
                .map_err(wrong)?;
        if let Some(notice) = made.notice {
            tracing::warn!(container_id = id, "{notice}");
        }
        made.text
    };
    let mut fds = Vec::new();
    for (name, role, text) in [
        ("hosts", FdRole::Hosts, hosts),
        (
            "hostname",
            FdRole::Hostname,
            hostfiles::hostname(&spec.hostname),
        ),
        ("resolv.conf", FdRole::ResolvConf, resolv),
    ] {
        let path = directory.join(name);
        // In the run directory, which is memory: no sync.
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&path)
            .map_err(fail)?;
        io::Write::write_all(&mut file, text.as_bytes()).map_err(fail)?;
        fds.push((role, file_mount(&path).map_err(fail)?));
    }
    Ok(fds)
}

/// A detached mount of one file.
fn file_mount(file: &Path) -> io::Result<OwnedFd> {
    let opened = path::open_host(file, rustix_path())?;
    mount::clone_tree(opened.as_fd(), false)
}
