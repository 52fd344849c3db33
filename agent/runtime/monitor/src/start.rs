//! From a plan to the container's first process: the monitor's own half.
//!
//! Everything that can fail without a child is done before the clone. What the child does is in
//! `child`.

use std::os::fd::{AsFd, OwnedFd};

use berth_runtime::plan::{FdRole, FdTable, Log, Ns, Plan};
use berth_runtime::protocol::Stage;
use berth_sys::clone::{ForkResult, clone_into};
use berth_sys::ns::{Namespaces, NsKind};
use berth_sys::proc::ProcHandle;
use berth_sys::{cred, fd, ns};

use crate::fail::{At, Outcome, fail};
use crate::jsonlog::{JsonLog, Rotation};

/// The child's ends of its streams; none where the terminal takes their place.
#[derive(Debug)]
pub(crate) struct ChildPipes {
    /// `None` = the null device.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// The monitor's ends.
#[derive(Debug)]
pub(crate) struct ParentPipes {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// All that the child has of the monitor.
#[derive(Debug)]
pub(crate) struct ChildContext {
    pub(crate) plan: Plan,
    pub(crate) fds: FdTable<OwnedFd>,
    /// To and from the monitor until exec.
    pub(crate) sync: OwnedFd,
    pub(crate) pipes: Option<ChildPipes>,
}

/// What the monitor keeps of a start.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) sync: OwnedFd,
    pub(crate) pipes: Option<ParentPipes>,
    pub(crate) plan: Plan,
    pub(crate) fds: FdTable<OwnedFd>,
    pub(crate) log: Option<JsonLog>,
}

/// Which side came back.
#[derive(Debug)]
pub(crate) enum Side {
    Parent(Box<Launched>),
    Child(Box<ChildContext>),
}

/// Carries out step 1 of the plan.
pub(crate) fn launch(plan: Plan, mut fds: FdTable<OwnedFd>) -> Outcome<Side> {
    // Taken before the monitor leaves the host's mount namespace.
    let proc = ProcHandle::open().at(Stage::Namespaces, || "opening procfs".into())?;
    let own = proc.write_self("oom_score_adj", &plan.monitor_oom_score_adj.to_string());
    if let Err(error) = own
        && error.kind() != std::io::ErrorKind::PermissionDenied
    {
        return Err(error).at(Stage::Limits, || {
            "setting the monitor's oom_score_adj".into()
        });
    }
    if !plan.title.is_empty() {
        cred::set_name(&plan.title).at(Stage::Namespaces, || "naming the monitor".into())?;
    }
    let log = open_log(&plan, &mut fds)?;
    if let Some(empty) = fds.take(FdRole::MountNs) {
        ns::setns(&empty, NsKind::Mnt).at(Stage::Namespaces, || {
            "entering the empty mount namespace".into()
        })?;
    }
    if let Some(joined) = fds.take(FdRole::PidNs) {
        ns::setns(&joined, NsKind::Pid)
            .at(Stage::Namespaces, || "joining the pid namespace".into())?;
    }
    let (parent_pipes, child_pipes) = match plan.stdio.terminal {
        Some(_) => (None, None),
        None => {
            let (parent, child) = pipes(plan.stdio.stdin)
                .at(Stage::Stdio, || "making the standard streams".into())?;
            (Some(parent), Some(child))
        }
    };
    let (sync, child_sync) =
        fd::socketpair_stream().at(Stage::Clone, || "making the start's socket pair".into())?;
    let cgroup = fds
        .get(FdRole::PayloadCgroup)
        .ok_or_else(|| fail(Stage::Protocol, "the plan names no cgroup"))?;
    let side = clone_into(new_namespaces(&plan), Some(cgroup.as_fd())).at(Stage::Clone, || {
        "cloning the container's first process".into()
    })?;
    match side {
        ForkResult::Child => Ok(Side::Child(Box::new(ChildContext {
            plan,
            fds,
            sync: child_sync,
            pipes: child_pipes,
        }))),
        ForkResult::Parent { pid, pidfd } => {
            drop((child_sync, child_pipes));
            let value = plan.process.oom_score_adj.to_string();
            if let Err(error) = proc.write(&format!("{pid}/oom_score_adj"), &value) {
                // Nothing has been reported yet: the child goes before anybody knew of it.
                let _ = berth_sys::pidfd::send_signal(&pidfd, 9);
                let _ = berth_sys::pidfd::wait(&pidfd);
                return Err(error).at(Stage::Limits, || format!("setting oom_score_adj {value}"));
            }
            Ok(Side::Parent(Box::new(Launched {
                pid,
                pidfd,
                sync,
                pipes: parent_pipes,
                plan,
                fds,
                log,
            })))
        }
    }
}

/// The namespaces that clone makes. The cgroup namespace is not among them: its root would be the
/// monitor's cgroup; the child unshares it when it is in its own.
fn new_namespaces(plan: &Plan) -> Namespaces {
    let ns = &plan.namespaces;
    let kinds = [
        (ns.net, Namespaces::NET),
        (ns.pid, Namespaces::PID),
        (ns.ipc, Namespaces::IPC),
        (ns.uts, Namespaces::UTS),
    ];
    kinds
        .iter()
        .filter(|(kind, _)| *kind == Ns::New)
        .fold(Namespaces::MNT, |set, (_, kind)| set | *kind)
}

fn pipes(stdin: bool) -> std::io::Result<(ParentPipes, ChildPipes)> {
    let (child_in, parent_in) = if stdin {
        let (read, write) = fd::pipe()?;
        (Some(read), Some(write))
    } else {
        (None, None)
    };
    let (parent_out, child_out) = fd::pipe()?;
    let (parent_err, child_err) = fd::pipe()?;
    Ok((
        ParentPipes {
            stdin: parent_in,
            stdout: parent_out,
            stderr: parent_err,
        },
        ChildPipes {
            stdin: child_in,
            stdout: child_out,
            stderr: child_err,
        },
    ))
}

fn open_log(plan: &Plan, fds: &mut FdTable<OwnedFd>) -> Outcome<Option<JsonLog>> {
    match &plan.log {
        Log::None => Ok(None),
        Log::JsonFile {
            name,
            max_size,
            max_files,
            attrs,
        } => {
            let (Some(file), Some(dir)) = (fds.take(FdRole::Log), fds.take(FdRole::LogDir)) else {
                return Err(fail(Stage::Log, "the log has no file"));
            };
            let rotation = Rotation {
                dir,
                name: name.clone(),
                max_size: *max_size,
                max_files: *max_files,
            };
            JsonLog::new(file, rotation, attrs)
                .map(Some)
                .at(Stage::Log, || "opening the log".into())
        }
        Log::Journal { .. } => Err(fail(
            Stage::Log,
            "the journal is not supported as a log by this monitor yet",
        )),
    }
}
