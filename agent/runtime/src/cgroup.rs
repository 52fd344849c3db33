//! Where a container's processes lie: in a scope that the service manager made, two groups below it,
//! one for the monitor and one for the payload, and nothing in the scope itself. The scope's own
//! attributes are the manager's; what is below is ours.

use std::io;
use std::path::{Path, PathBuf};

use berth_sys::cgroup::Cgroup;

/// Where the hierarchy must be mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// The group of the container's own processes, below its scope or its directory.
pub const PAYLOAD: &str = "payload";

/// The group of the monitor below a scope.
const MONITOR: &str = "monitor";

/// The directory of a group that is named from the hierarchy's root, as `/proc/PID/cgroup` names it.
pub fn directory(group: &str) -> PathBuf {
    Path::new(ROOT).join(group.trim_start_matches('/'))
}

/// Makes both groups below a scope, moves the monitor out of the scope itself, and hands the scope's
/// controllers on. To be called only when the manager's job is done: before that it may put the
/// monitor back. Gives the payload's group.
pub fn prepare_scope(group: &str, monitor: u32) -> io::Result<Cgroup> {
    let scope = Cgroup::open(directory(group))?;
    let payload = scope.create_child(PAYLOAD)?;
    // A group hands controllers on only while no process is in itself.
    scope.create_child(MONITOR)?.add_pid(monitor)?;
    hand_on(&scope)?;
    Ok(payload)
}

/// Hands all of a group's controllers on to the groups below it. One that does not want to (cpu, while
/// real-time processes are about) must not take the others along: limits are the outer group's, and
/// hold without.
pub(crate) fn hand_on(group: &Cgroup) -> io::Result<()> {
    let controllers = group.controllers()?;
    let names: Vec<&str> = controllers.iter().map(String::as_str).collect();
    if group.enable_controllers(&names).is_ok() {
        return Ok(());
    }
    for name in names {
        if let Err(error) = group.enable_controllers(&[name]) {
            tracing::warn!(controller = name, %error, "a cgroup controller cannot be handed on");
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
