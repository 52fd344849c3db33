//! From spec to plan: every decision about a start, made once, without touching anything. The same
//! spec, facts and inputs give the same plan.

use std::collections::BTreeSet;

use crate::devices::HostDevice;
use crate::hostfacts::HostFacts;
use crate::plan::{FdRole, Log, Plan, Process, Seccomp, Stdio, Step, StopRule};
use crate::security::SecurityOpts;
use crate::spec::{IpcMode, LogSpec, NetMode, PidMode, RunSpec, SpecError, UtsMode};
use crate::user::Ids;
use crate::{caps, devices, limits, mounts};

/// Docker's search path.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The kernel must not choose the monitor when memory is short, unless everything else is gone.
const MONITOR_OOM_SCORE_ADJ: i32 = -999;

/// What the engine found out for this start.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// From [`crate::user::resolve`] on the mounted root.
    pub ids: Ids,
    /// From `seccomp::for_container`.
    pub seccomp: Option<Seccomp>,
    /// From [`crate::devices::from_host`].
    pub devices: Vec<HostDevice>,
    /// The descriptors that come with the start, in the order in which they are sent.
    pub roles: Vec<FdRole>,
}

/// Makes the plan of a start.
pub fn plan(spec: &RunSpec, facts: &HostFacts, inputs: &Inputs) -> Result<Plan, SpecError> {
    let security = SecurityOpts::parse(&spec.security_opt)?;
    let roles: BTreeSet<FdRole> = inputs.roles.iter().copied().collect();
    check_roles(spec, &roles)?;
    let bounding = caps::bounding(spec, facts)?.set;
    let tree = mounts::tree(spec, &security, &roles)?;
    let (readonly_paths, masked_paths) = mounts::protected_paths(spec, &security, facts);
    let cwd = if spec.cwd.is_empty() {
        "/".to_owned()
    } else {
        mounts::clean(&spec.cwd)
    };

    let mut steps = tree.before_nodes;
    if tree.own_dev {
        steps.extend(devices::steps(&inputs.devices));
    }
    steps.extend(tree.after_nodes);
    if spec.tty {
        steps.push(Step::Console);
    }
    if cwd != "/" {
        steps.push(Step::MakeDir {
            path: cwd.clone(),
            mode: 0o755,
        });
    }

    let host_uts = spec.namespaces.uts == UtsMode::Host;
    let named = |name: &str| {
        if host_uts {
            String::new()
        } else {
            name.to_owned()
        }
    };
    let plan = Plan {
        id: spec.id.clone(),
        title: "berth-monitor".to_owned(),
        fds: inputs.roles.clone(),
        namespaces: spec.namespaces.to_plan(),
        hostname: named(&spec.hostname),
        domainname: named(&spec.domainname),
        tree: steps,
        sysctls: limits::sysctls(&spec.sysctls, &spec.namespaces)?,
        readonly_paths,
        masked_paths,
        root_readonly: spec.rootfs_readonly,
        process: Process {
            argv: spec.argv.clone(),
            env: environment(spec, &inputs.ids),
            cwd,
            uid: inputs.ids.uid,
            gid: inputs.ids.gid,
            groups: inputs.ids.groups.clone(),
            umask: 0o022,
            caps: caps::sets(bounding, inputs.ids.uid),
            no_new_privs: security.no_new_privs,
            seccomp: inputs.seccomp.clone(),
            rlimits: limits::rlimits(&spec.ulimits, facts)?,
            oom_score_adj: oom_score_adj(spec)?,
            keyring: spec.id.clone(),
            // The reaper is of use only where the program would be PID 1.
            reaper: spec.init && spec.namespaces.pid == PidMode::Private,
        },
        stdio: Stdio {
            stdin: spec.open_stdin,
            stdin_once: spec.open_stdin && spec.stdin_once,
            terminal: spec.tty.then(|| spec.console_size.unwrap_or((0, 0))),
        },
        log: log(&spec.log),
        stop: stop_rule(spec),
        monitor_oom_score_adj: MONITOR_OOM_SCORE_ADJ,
    };
    plan.check()
        .map_err(|error| SpecError::invalid(format!("the start cannot be planned: {error}")))?;
    Ok(plan)
}

/// Says which descriptor is missing; the plan's own check only says that one is.
fn check_roles(spec: &RunSpec, roles: &BTreeSet<FdRole>) -> Result<(), SpecError> {
    let ns = &spec.namespaces;
    let mut needed = vec![
        FdRole::Root,
        FdRole::PayloadCgroup,
        FdRole::ExitRecord,
        FdRole::Listener,
    ];
    if ns.net == NetMode::Joined {
        needed.push(FdRole::NetNs);
    }
    if matches!(ns.pid, PidMode::Container(_)) {
        needed.push(FdRole::PidNs);
    }
    if matches!(ns.ipc, IpcMode::Container(_)) {
        needed.push(FdRole::IpcNs);
    }
    match spec.log {
        LogSpec::None => {}
        LogSpec::JsonFile { .. } => needed.extend([FdRole::Log, FdRole::LogDir]),
        LogSpec::Journal { .. } => needed.push(FdRole::Journal),
    }
    match needed.into_iter().find(|role| !roles.contains(role)) {
        None => Ok(()),
        Some(role) => Err(SpecError::invalid(format!(
            "the start has no descriptor for {role:?}"
        ))),
    }
}

/// Docker's variables, then the container's own over them; HOME from passwd where it is not set.
fn environment(spec: &RunSpec, ids: &Ids) -> Vec<String> {
    let mut env = vec![PATH.to_owned()];
    if !spec.hostname.is_empty() {
        env.push(format!("HOSTNAME={}", spec.hostname));
    }
    if spec.tty {
        env.push("TERM=xterm".to_owned());
    }
    let key = |entry: &str| entry.split_once('=').map(|(key, _)| key.to_owned());
    for entry in &spec.env {
        let Some(name) = key(entry) else { continue };
        match env
            .iter_mut()
            .find(|known| key(known).as_deref() == Some(&name))
        {
            Some(known) => entry.clone_into(known),
            None => env.push(entry.clone()),
        }
    }
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", ids.home));
    }
    env
}

pub(crate) fn oom_score_adj(spec: &RunSpec) -> Result<i32, SpecError> {
    i32::try_from(spec.oom_score_adj)
        .ok()
        .filter(|value| (-1000..=1000).contains(value))
        .ok_or_else(|| {
            SpecError::invalid(format!(
                "invalid value {}, range for oom score adj is [-1000, 1000]",
                spec.oom_score_adj
            ))
        })
}

fn log(spec: &LogSpec) -> Log {
    match spec {
        LogSpec::None => Log::None,
        LogSpec::JsonFile {
            file,
            max_size,
            max_files,
            attrs,
        } => Log::JsonFile {
            name: file.clone(),
            max_size: *max_size,
            max_files: (*max_files).max(1),
            attrs: attrs.clone(),
        },
        LogSpec::Journal { fields } => Log::Journal {
            fields: fields.clone(),
        },
    }
}

/// The rule for stops that say nothing else; seconds that no clock can count mean "never kill".
pub fn stop_rule(spec: &RunSpec) -> StopRule {
    let default = StopRule::default();
    StopRule {
        signal: if spec.stop_signal == 0 {
            default.signal
        } else {
            spec.stop_signal
        },
        timeout_ms: match spec.stop_timeout {
            None => default.timeout_ms,
            Some(seconds) if seconds < 0 => -1,
            Some(seconds) => seconds.checked_mul(1000).unwrap_or(-1),
        },
    }
}

#[cfg(test)]
mod tests;
