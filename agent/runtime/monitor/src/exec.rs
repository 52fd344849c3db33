//! The last steps before the program: limits, identity, filter, exec.
//!
//! The order is the security specification's (A.1, A.2): descriptors are marked before the working
//! directory is entered, the bounding set shrinks before the ids change, the filter comes before the
//! privileges go when it needs them and last of all when it does not. After that nothing privileged
//! happens.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use berth_runtime::plan::{Capabilities, Process};
use berth_runtime::protocol::{Reply, Stage, StartFailed, exec_error};
use berth_sys::cred::{self, CapSet, Caps};
use berth_sys::exec::{CStringArray, execve, find_program};
use berth_sys::path::{self, OFlags};
use berth_sys::{fd, rlimit, seccomp, signal};
use rustix::fs::Mode;

use crate::child::{Ready, own_stdio, take_terminal};
use crate::fail::{At, Outcome, error_text, fail};
use crate::{init, sync};

/// Becomes the program of the plan; comes back only with the reason why not.
pub(crate) fn run(
    process: Process,
    sync: &mut Option<OwnedFd>,
    ready: Ready,
) -> Outcome<Infallible> {
    let Ready { root, stdio } = ready;
    // The start is committed: from here on the container lives without its monitor.
    cred::pdeathsig(None).at(Stage::Namespaces, || "clearing the death signal".into())?;
    rustix::process::setsid().at(Stage::Terminal, || "making the session".into())?;
    take_terminal(&stdio)?;
    for limit in &process.rlimits {
        rlimit::set(limit.resource, limit.soft, limit.hard).at(Stage::Limits, || {
            format!("setting resource limit {}", limit.resource)
        })?;
    }
    if !process.keyring.is_empty() {
        join_keyring(&process.keyring)?;
    }
    own_stdio(&stdio, process.uid)?;
    fd::install_stdio(&stdio.stdin, &stdio.stdout, &stdio.stderr)
        .at(Stage::Stdio, || "installing the standard streams".into())?;
    let terminal = stdio.terminal;
    drop(stdio);
    fd::close_range_cloexec(3).at(Stage::Stdio, || "marking the descriptors".into())?;
    enter_directory(&root, &process.cwd)?;
    drop(root);
    rustix::process::umask(Mode::from_raw_mode(process.umask & 0o777));

    if process.reaper {
        init::split(sync, &process, terminal)?;
    }
    let program = confine(&process, true)?;
    let Program { path, argv, envp } =
        program.ok_or_else(|| fail(Stage::Exec, "there is no program"))?;
    let sync = sync
        .as_ref()
        .ok_or_else(|| fail(Stage::Aborted, "the monitor is out of reach"))?;
    sync::tell(
        sync,
        &Reply::Started {
            pid: 0,
            started_at: 0,
        },
        &[],
    )
    .at(Stage::Aborted, || "reporting to the monitor".into())?;
    signal::unblock_all().at(Stage::Exec, || "unblocking the signals".into())?;
    let error = match execve(&path, &argv, &envp) {
        Err(error) => error,
        Ok(never) => match never {},
    };
    Err(StartFailed {
        stage: Stage::Exec,
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("exec {}: {}", path.to_string_lossy(), error_text(&error)),
    })
}

/// The program, ready to be executed.
#[derive(Debug)]
pub(crate) struct Program {
    path: std::ffi::CString,
    argv: CStringArray,
    envp: CStringArray,
}

/// Takes the container's identity and its filter. The program is looked up (if `find`) with that
/// identity, before a filter that needs no privileges is loaded.
pub(crate) fn confine(process: &Process, find: bool) -> Outcome<Option<Program>> {
    let caps = &process.caps;
    cred::drop_bounding(CapSet(caps.bounding)).at(Stage::Capabilities, || {
        "dropping the bounding capabilities".into()
    })?;
    signal::default_all().at(Stage::Exec, || "resetting the signals".into())?;
    if !process.no_new_privs {
        load_filter(process)?;
    }
    let keep = process.uid != 0 && caps.permitted != 0;
    if keep {
        cred::keepcaps(true).at(Stage::Capabilities, || "keeping capabilities".into())?;
    }
    cred::set_groups(&process.groups).at(Stage::User, || {
        format!("setting groups {:?}", process.groups)
    })?;
    cred::set_uid_gid(process.uid, process.gid).at(Stage::User, || {
        format!("becoming user {}:{}", process.uid, process.gid)
    })?;
    if keep {
        cred::keepcaps(false).at(Stage::Capabilities, || "keeping capabilities".into())?;
    }
    set_capabilities(caps)?;
    if process.no_new_privs {
        cred::no_new_privs().at(Stage::Capabilities, || "setting no_new_privs".into())?;
    }
    let program = if find { Some(look_up(process)?) } else { None };
    if process.no_new_privs {
        load_filter(process)?;
    }
    Ok(program)
}

fn set_capabilities(caps: &Capabilities) -> Outcome<()> {
    let wanted = Caps {
        effective: CapSet(caps.effective),
        permitted: CapSet(caps.permitted),
        inheritable: CapSet(caps.inheritable),
        bounding: CapSet(caps.bounding),
        ambient: CapSet(caps.ambient),
    };
    let what = || "setting the capabilities".to_owned();
    cred::set_caps(&wanted).at(Stage::Capabilities, what)?;
    let got = cred::read_caps().at(Stage::Capabilities, what)?;
    if got != wanted {
        return Err(fail(
            Stage::Capabilities,
            format!("the kernel has set other capabilities: {got:?} instead of {wanted:?}"),
        ));
    }
    Ok(())
}

fn load_filter(process: &Process) -> Outcome<()> {
    let Some(filter) = &process.seccomp else {
        return Ok(());
    };
    seccomp::load(&filter.program.0, filter.flags)
        .at(Stage::Seccomp, || "loading the seccomp filter".into())
}

fn join_keyring(name: &str) -> Outcome<()> {
    // False: a kernel without keyrings, so there is none to be kept away from.
    cred::join_session_keyring(name)
        .map(drop)
        .at(Stage::Keyring, || "joining a new session keyring".into())
}

/// Enters the working directory, which must be inside the container.
fn enter_directory(root: &OwnedFd, cwd: &str) -> Outcome<()> {
    let what = || format!("chdir to cwd ({cwd:?}) set in config.json failed");
    let stage = Stage::WorkingDirectory;
    // By descriptor and without magic links: /proc/self/fd/N would lead out.
    let dir = path::open_in_root(root, cwd, OFlags::PATH | OFlags::DIRECTORY, 0).at(stage, what)?;
    rustix::process::fchdir(dir.as_fd()).at(stage, what)?;
    let now = rustix::process::getcwd(Vec::new()).at(stage, what)?;
    if !now.to_bytes().starts_with(b"/") {
        return Err(fail(
            stage,
            format!("{}: it lies outside of the container", what()),
        ));
    }
    Ok(())
}

fn look_up(process: &Process) -> Outcome<Program> {
    let name = process.argv.first().map(String::as_str).unwrap_or_default();
    let path = process
        .env
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="));
    let found = find_program(name.as_bytes(), path.map(str::as_bytes));
    let path = found.map_err(|error| {
        let errno = error.raw_os_error().unwrap_or(0);
        let searched = !name.contains('/');
        StartFailed {
            stage: Stage::Exec,
            errno,
            message: exec_error(name, searched, errno),
        }
    })?;
    let what = || "preparing the arguments".to_owned();
    Ok(Program {
        path,
        argv: CStringArray::new(&process.argv).at(Stage::Exec, what)?,
        envp: CStringArray::new(&process.env).at(Stage::Exec, what)?,
    })
}
