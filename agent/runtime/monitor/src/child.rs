//! The container's first process before it is the container's: it builds the tree around itself,
//! waits for the word, and becomes the program.
//!
//! It runs the monitor's own code in the container's namespaces, non-dumpable, and holds only the
//! descriptors of its plan. Whatever fails is reported and ends it; it never goes on with less than
//! the plan says.

use std::os::fd::{AsFd, OwnedFd};

use berth_runtime::plan::{FdRole, Ns, Plan, Step};
use berth_runtime::protocol::{Reply, Stage};
use berth_sys::mount::{self, MountAttr};
use berth_sys::ns::{Namespaces, NsKind};
use berth_sys::path::{self, OFlags};
use berth_sys::proc::ProcHandle;
use berth_sys::{cred, ns, tty};
use rustix::fs::Mode;

use crate::fail::{At, Outcome, fail};
use crate::start::{ChildContext, ChildPipes};
use crate::tree::Tree;
use crate::{exec, mask, sync};

/// SIGKILL.
const KILL: i32 = 9;

/// The exit status of a child that has reported why it ends.
const FAILED: i32 = 125;

/// The streams that the program will have.
#[derive(Debug)]
pub(crate) struct Stdio {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// All three are the container's terminal.
    pub(crate) terminal: bool,
}

/// Everything from the clone to the exec. Does not come back.
#[allow(
    clippy::exit,
    reason = "the child of a clone must not return into the parent's code"
)]
pub(crate) fn run(context: ChildContext) -> ! {
    let ChildContext {
        plan,
        fds,
        sync,
        pipes,
    } = context;
    let result = set_up(&plan, fds, &sync, pipes).map(|ready| {
        let go = sync::wait_for_go(&sync);
        (ready, go)
    });
    let mut sync = Some(sync);
    let result = match result {
        Ok((ready, true)) => exec::run(plan.process, &mut sync, ready),
        // The monitor has gone or has given up: there is nobody to report to.
        Ok((_, false)) => std::process::exit(FAILED),
        Err(failed) => Err(failed),
    };
    if let (Err(failed), Some(sync)) = (result, &sync) {
        // If nobody hears it, the closed socket says enough.
        let _ = sync::tell(sync, &Reply::StartFailed(failed), &[]);
    }
    std::process::exit(FAILED);
}

/// What the second half needs of the first.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) root: OwnedFd,
    pub(crate) stdio: Stdio,
}

fn set_up(
    plan: &Plan,
    mut fds: berth_runtime::plan::FdTable<OwnedFd>,
    sync: &OwnedFd,
    pipes: Option<ChildPipes>,
) -> Outcome<Ready> {
    // If the monitor has ended before this call, its end of the socket is closed and `wait_for_go`
    // says so.
    cred::pdeathsig(Some(KILL)).at(Stage::Namespaces, || "setting the death signal".into())?;
    // Modes in the plan are exact.
    rustix::process::umask(Mode::empty());
    enter_namespaces(plan, &mut fds)?;
    mount::make_private_recursive().at(Stage::Root, || "making the mounts private".into())?;

    let root = fds
        .take(FdRole::Root)
        .ok_or_else(|| fail(Stage::Root, "the plan has no root"))?;
    let old = path::open_root("/").at(Stage::Root, || "opening the old root".into())?;
    mount::attach(root.as_fd(), old.as_fd()).at(Stage::Root, || "attaching the root".into())?;
    drop(old);

    let mut tree = Tree::new(root, fds);
    for step in &plan.tree {
        match step {
            Step::Mount(mount) => tree.mount(mount)?,
            Step::Node(node) => tree.node(node)?,
            Step::Symlink { path, target } => tree.symlink(path, target)?,
            Step::Console => tree.console(plan.stdio.terminal.unwrap_or_default())?,
            Step::MakeDir { path, mode } => tree.make_dir(path, *mode)?,
        }
    }
    let (root, terminal) = tree.finish();
    let stdio = match (pipes, &terminal) {
        (Some(pipes), _) => pipe_stdio(&root, pipes)?,
        (None, Some(terminal)) => terminal_stdio(&terminal.slave)?,
        (None, None) => return Err(fail(Stage::Terminal, "the plan has no terminal")),
    };

    mount::pivot_root_into(root.as_fd()).at(Stage::Pivot, || "switching to the new root".into())?;
    write_sysctls(plan)?;
    set_names(plan)?;
    mask::read_only(&root, &plan.readonly_paths)?;
    mask::masked(&root, &plan.masked_paths)?;
    if plan.root_readonly {
        mount::set_attr(&root, false, MountAttr::RDONLY, MountAttr::NONE, None)
            .at(Stage::Mask, || "making the root read-only".into())?;
    }

    let master: Vec<_> = terminal
        .iter()
        .map(|terminal| terminal.master.as_fd())
        .collect();
    sync::tell(sync, &Reply::Ready { pid: 0 }, &master)
        .at(Stage::Aborted, || "reporting to the monitor".into())?;
    Ok(Ready { root, stdio })
}

fn enter_namespaces(plan: &Plan, fds: &mut berth_runtime::plan::FdTable<OwnedFd>) -> Outcome<()> {
    let joins = [
        (FdRole::NetNs, NsKind::Net),
        (FdRole::IpcNs, NsKind::Ipc),
        (FdRole::UtsNs, NsKind::Uts),
        (FdRole::CgroupNs, NsKind::Cgroup),
    ];
    for (role, kind) in joins {
        if let Some(fd) = fds.take(role) {
            ns::setns(&fd, kind).at(Stage::Namespaces, || {
                format!("joining the {} namespace", kind.file_name())
            })?;
        }
    }
    if plan.namespaces.cgroup == Ns::New {
        ns::unshare(Namespaces::CGROUP)
            .at(Stage::Namespaces, || "making the cgroup namespace".into())?;
    }
    Ok(())
}

fn pipe_stdio(root: &OwnedFd, pipes: ChildPipes) -> Outcome<Stdio> {
    let stdin = match pipes.stdin {
        Some(stdin) => stdin,
        None => null_device(root)?,
    };
    Ok(Stdio {
        stdin,
        stdout: pipes.stdout,
        stderr: pipes.stderr,
        terminal: false,
    })
}

fn terminal_stdio(slave: &OwnedFd) -> Outcome<Stdio> {
    let copy = || berth_sys::fd::dup(slave).at(Stage::Stdio, || "copying the terminal".into());
    Ok(Stdio {
        stdin: copy()?,
        stdout: copy()?,
        stderr: copy()?,
        terminal: true,
    })
}

/// Opens the container's null device, and only that.
fn null_device(root: &OwnedFd) -> Outcome<OwnedFd> {
    let what = || "opening /dev/null for the standard input".to_owned();
    let fd = path::open_beneath(root, "dev/null", OFlags::RDWR | OFlags::NOFOLLOW, 0)
        .at(Stage::Stdio, what)?;
    match path::char_device(&fd).at(Stage::Stdio, what)? {
        Some((1, 3)) => Ok(fd),
        _ => Err(fail(Stage::Stdio, "/dev/null is not the null device")),
    }
}

fn write_sysctls(plan: &Plan) -> Outcome<()> {
    if plan.sysctls.is_empty() {
        return Ok(());
    }
    // A procfs of our own: the container's may be covered.
    let proc = ProcHandle::private(false).at(Stage::Sysctl, || "opening procfs".into())?;
    for sysctl in &plan.sysctls {
        match proc.write(&format!("sys/{}", sysctl.path), &sysctl.value) {
            Err(error) if sysctl.optional && error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.at(Stage::Sysctl, || {
                format!(
                    "setting sysctl {} to {:?}",
                    sysctl.path.replace('/', "."),
                    sysctl.value
                )
            })?,
        }
    }
    Ok(())
}

fn set_names(plan: &Plan) -> Outcome<()> {
    if !plan.hostname.is_empty() {
        ns::set_hostname(plan.hostname.as_bytes()).at(Stage::Hostname, || {
            format!("setting host name {:?}", plan.hostname)
        })?;
    }
    if !plan.domainname.is_empty() {
        ns::set_domainname(plan.domainname.as_bytes()).at(Stage::Hostname, || {
            format!("setting domain name {:?}", plan.domainname)
        })?;
    }
    Ok(())
}

/// Gives the container's user its streams, so that programs may open `/dev/stdout` again.
pub(crate) fn own_stdio(stdio: &Stdio, uid: u32) -> Outcome<()> {
    if uid == 0 {
        return Ok(());
    }
    for fd in [&stdio.stdin, &stdio.stdout, &stdio.stderr] {
        let what = || "giving the standard streams to the user".to_owned();
        let ours = path::char_device(fd).at(Stage::Stdio, what)? != Some((1, 3));
        if ours {
            rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None)
                .at(Stage::Stdio, what)?;
        }
    }
    Ok(())
}

/// Makes the terminal the session's.
pub(crate) fn take_terminal(stdio: &Stdio) -> Outcome<()> {
    if stdio.terminal {
        tty::make_controlling(&stdio.stdin).at(Stage::Terminal, || "taking the terminal".into())?;
    }
    Ok(())
}
