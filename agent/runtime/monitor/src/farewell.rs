//! The last things a monitor does: output out, record down, agent told.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use berth_runtime::exit::ExitRecord;
use berth_runtime::protocol::Reply;
use berth_sys::cgroup::Cgroup;

use crate::parent::Monitor;

/// How long a client is waited for that has not taken its last bytes although the kernel was asked
/// to take them for it.
const LINGER: Duration = Duration::from_secs(3);

/// How long the agent's socket may take to accept the news; beyond that the record speaks for itself.
const POKE_LIMIT: Duration = Duration::from_secs(5);

/// In this order: the log is complete, clients are through, the record is down, and only then
/// somebody is told.
pub(crate) fn say(monitor: &mut Monitor) -> io::Result<()> {
    if let Some(pump) = &mut monitor.pump {
        let left = pump.finish(&monitor.epoll);
        monitor.linger.extend(left);
    }
    monitor.tell_ended();
    if let Some(payload) = &monitor.payload {
        read_usage(payload, &mut monitor.record);
    }
    let record = monitor.record;
    let mut written = Ok(());
    if let Some(file) = &monitor.exit_file {
        written = record
            .write_to(file.as_fd())
            .and_then(|()| berth_sys::atomic::fsync(file));
    }
    if !tell_watchers(monitor, record)
        && let Some(run_root) = &monitor.run_root
    {
        // Nobody may be there to hear; the record is.
        let _ = poke(run_root, &monitor.id);
    }
    linger(monitor);
    written
}

fn tell_watchers(monitor: &mut Monitor, record: ExitRecord) -> bool {
    let watchers: Vec<_> = monitor
        .conns
        .iter()
        .filter_map(|conn| Some((conn.serial, conn.watching?)))
        .collect();
    let mut told = false;
    for (serial, tag) in watchers {
        told |= monitor.reply(serial, tag, &Reply::Exited(record), &[]);
    }
    told
}

/// What the payload has used. Files that a controller would provide may be missing.
fn read_usage(payload: &Cgroup, record: &mut ExitRecord) {
    if let Ok(Some(events)) = payload.memory_events() {
        record.oom_kills = events.oom_kill;
        if events.oom_kill > 0 {
            record.flags |= ExitRecord::FLAG_OOM_KILLED;
        }
    }
    if let Ok(text) = payload.read("memory.peak") {
        record.memory_peak = text.trim().parse().unwrap_or(0);
    }
    if let Ok(text) = payload.read("cpu.stat") {
        let usage = text
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "));
        record.cpu_usec = usage
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0);
    }
}

/// Writes the container's id to the agent's `monitor.sock`, which starts an agent if none runs.
fn poke(run_root: &OwnedFd, id: &str) -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
    let sock = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_timeout(&sock, sockopt::Timeout::Send, Some(POKE_LIMIT))?;
    // The run root is out of this mount namespace; its descriptor is the way there.
    let path = format!(
        "/proc/self/fd/{}/monitor.sock",
        berth_sys::fd::number(run_root)
    );
    rustix::net::connect(&sock, &SocketAddrUnix::new(path)?)?;
    berth_sys::fd::send_with_fds(&sock, format!("{id}\n").as_bytes(), &[]).map(drop)
}

fn linger(monitor: &mut Monitor) {
    let end = Instant::now() + LINGER;
    for mut client in std::mem::take(&mut monitor.linger) {
        while !client.is_flushed() {
            let left = end.saturating_duration_since(Instant::now());
            let writable = berth_sys::poll::wait_writable(&client, Some(left)).unwrap_or(false);
            if !writable || client.flush().is_err() {
                break;
            }
        }
        client.close(&monitor.epoll);
    }
}
