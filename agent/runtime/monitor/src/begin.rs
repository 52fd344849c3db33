//! The start as the event loop sees it: from the plan's arrival to the moment in which the program
//! runs, or to the report why it does not. A start that fails leaves no process behind.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_runtime::plan::{FdRole, FdTable, Plan};
use berth_runtime::protocol::{Phase, Reply, Stage, StartFailed};
use berth_sys::cgroup::Cgroup;
use berth_sys::poll::Interest;
use berth_sys::{fd, pidfd};

use crate::fail::{At, fail};
use crate::jsonlog::JsonLog;
use crate::parent::{DEATH_LIMIT, End, Monitor, SIGKILL, now};
use crate::pump::{Pump, Streams};
use crate::start::{Launched, Side, launch};
use crate::sync::{self, Ear};
use crate::watch::{Token, Watched};

/// A start that is not over.
#[derive(Debug)]
pub(crate) struct Starting {
    /// Where `Start` came from, and its tag.
    conn: u32,
    tag: u32,
    sync: Watched,
    ear: Ear,
    /// The child is about to execute the program.
    committed: bool,
    /// What is needed once the child is ready.
    streams: Option<Streams>,
    log: Option<JsonLog>,
    stdin: bool,
    terminal: bool,
}

impl Monitor {
    pub(crate) fn start(&mut self, serial: u32, tag: u32, plan: Plan, fds: Vec<OwnedFd>) {
        self.phase = Phase::Starting;
        self.id.clone_from(&plan.id);
        self.stop_rule = plan.stop;
        self.stdin_once = plan.stdio.stdin_once;
        let result = FdTable::new(&plan.fds, fds)
            .map_err(|error| fail(Stage::Protocol, error.to_string()))
            .and_then(|fds| launch(plan, fds));
        let result = match result {
            Ok(Side::Child(context)) => {
                self.end = Some(End::Child(context));
                return;
            }
            Ok(Side::Parent(launched)) => self.launched(serial, tag, *launched),
            Err(failed) => Err(failed),
        };
        if let Err(failed) = result {
            self.reply_start(serial, tag, failed);
        }
    }

    fn launched(&mut self, serial: u32, tag: u32, launched: Launched) -> Result<(), StartFailed> {
        let Launched {
            pid,
            pidfd,
            sync,
            pipes,
            plan,
            mut fds,
            log,
        } = launched;
        self.record.pid = pid;
        self.root = fds.take(FdRole::Root);
        self.exit_file = fds.take(FdRole::ExitRecord);
        self.run_root = fds.take(FdRole::RunRoot);
        let what = || "watching the container's first process".to_owned();
        let mut init = Watched::new(pidfd, Token::Init);
        let watched = init
            .want(&self.epoll, Some(Interest::READ))
            .at(Stage::Clone, what);
        // From here on a failure finds the child and ends it.
        self.init = Some(init);
        watched?;
        if let Some(cgroup) = fds.take(FdRole::PayloadCgroup) {
            let cgroup = Cgroup::from_fd(cgroup).at(Stage::Clone, what)?;
            self.payload = Some(cgroup);
        }
        if let Some(listener) = fds.take(FdRole::Listener) {
            fd::set_nonblocking(&listener, true).at(Stage::Protocol, what)?;
            let mut listener = Watched::new(listener, Token::Listener);
            listener
                .want(&self.epoll, Some(Interest::READ))
                .at(Stage::Protocol, what)?;
            self.listener = Some(listener);
        }
        fd::set_nonblocking(&sync, true).at(Stage::Clone, what)?;
        let mut sync = Watched::new(sync, Token::Sync);
        sync.want(&self.epoll, Some(Interest::READ))
            .at(Stage::Clone, what)?;
        self.starting = Some(Starting {
            conn: serial,
            tag,
            sync,
            ear: Ear::new(),
            committed: false,
            streams: pipes.map(|pipes| Streams::Pipes {
                stdin: pipes.stdin,
                stdout: pipes.stdout,
                stderr: pipes.stderr,
            }),
            log,
            stdin: plan.stdio.stdin,
            terminal: plan.stdio.terminal.is_some(),
        });
        Ok(())
    }

    pub(crate) fn child_said(&mut self) {
        let Some(starting) = &mut self.starting else {
            return;
        };
        let mut said = Vec::new();
        let closed = match starting.ear.listen(&starting.sync, &mut said) {
            Ok(closed) => closed,
            Err(error) => {
                let text = format!("hearing the container's first process: {error}");
                return self.start_failed(fail(Stage::Aborted, text));
            }
        };
        for (reply, fds) in said {
            match reply {
                Reply::Ready { .. } => self.child_ready(fds),
                Reply::Started { .. } => {
                    if let Some(starting) = &mut self.starting {
                        starting.committed = true;
                    }
                }
                Reply::StartFailed(failed) => return self.start_failed(failed),
                _ => {}
            }
        }
        if closed {
            match &self.starting {
                Some(starting) if starting.committed => self.started(),
                Some(_) => self.died_early(),
                None => {}
            }
        }
    }

    fn child_ready(&mut self, fds: Vec<OwnedFd>) {
        let Some(starting) = &mut self.starting else {
            return;
        };
        let terminal = match (starting.terminal, fds.into_iter().next()) {
            (true, Some(master)) => Some(master),
            (true, None) => {
                return self.start_failed(fail(Stage::Terminal, "the terminal did not arrive"));
            }
            (false, _) => None,
        };
        let streams = match terminal {
            Some(master) => open_slave(master, starting.stdin),
            None => starting
                .streams
                .take()
                .ok_or_else(|| io::ErrorKind::NotFound.into()),
        };
        let log = starting.log.take();
        let (conn, tag) = (starting.conn, starting.tag);
        let pump = streams
            .and_then(|streams| Pump::new(&self.epoll, streams, self.stdin_once, log))
            .at(Stage::Stdio, || "taking the container's streams".into());
        match pump {
            Ok(pump) => self.pump = Some(pump),
            Err(failed) => return self.start_failed(failed),
        }
        self.phase = Phase::Ready;
        let reply = Reply::Ready {
            pid: self.record.pid,
        };
        let pidfd = self.init.as_ref().and_then(|init| fd::dup(init).ok());
        match pidfd {
            Some(pidfd) => drop(self.reply(conn, tag, &reply, &[pidfd.as_fd()])),
            None => self.start_failed(fail(Stage::Clone, "there is no descriptor of the process")),
        }
    }

    pub(crate) fn go(&mut self) {
        let Some(starting) = &self.starting else {
            return;
        };
        if let Err(error) = sync::go(&starting.sync) {
            let text = format!("letting the container's first process go: {error}");
            self.start_failed(fail(Stage::Aborted, text));
        }
    }

    fn started(&mut self) {
        let Some(mut starting) = self.starting.take() else {
            return;
        };
        let _ = starting.sync.want(&self.epoll, None);
        self.record.started_at = now();
        self.phase = Phase::Running;
        let reply = Reply::Started {
            pid: self.record.pid,
            started_at: self.record.started_at,
        };
        self.reply(starting.conn, starting.tag, &reply, &[]);
        for conn in &mut self.conns {
            conn.shrink();
        }
        // Nobody reads what this process might still say; its starter may have gone.
        let null = rustix::stdio::stdout();
        let _ = fd::install_stdio(null, null, null);
        // The plan's memory goes back to the kernel: this process may now sleep for years.
        berth_sys::mem::trim();
    }

    fn died_early(&mut self) {
        let how = self
            .init
            .as_ref()
            .and_then(|init| {
                // Its side of the socket is closed: it is about to end.
                let _ = berth_sys::poll::wait_readable(init, Some(DEATH_LIMIT));
                pidfd::try_wait(init).ok().flatten()
            })
            .map(|status| format!(" with status {}", berth_runtime::exit::exit_code(status)));
        self.start_failed(fail(
            Stage::Aborted,
            format!(
                "the container's first process ended during setup{}",
                how.unwrap_or_default()
            ),
        ));
    }

    /// Ends what there is of the start and then the monitor.
    pub(crate) fn start_failed(&mut self, failed: StartFailed) {
        let Some(starting) = self.starting.take() else {
            return;
        };
        self.reply_start(starting.conn, starting.tag, failed);
    }

    fn reply_start(&mut self, serial: u32, tag: u32, failed: StartFailed) {
        if let Some(init) = &self.init {
            // Already ended and reaped is as good; one that hangs in the kernel is not waited for.
            let _ = pidfd::send_signal(init, SIGKILL);
            let _ = berth_sys::poll::wait_readable(init, Some(DEATH_LIMIT));
            let _ = pidfd::try_wait(init);
        }
        if let Some(payload) = &self.payload {
            let _ = payload.kill();
        }
        // Nothing is left of it when the agent hears.
        if let Some(pump) = &mut self.pump {
            let left = pump.finish(&self.epoll);
            self.linger.extend(left);
        }
        self.tell_ended();
        self.reply(serial, tag, &Reply::StartFailed(failed), &[]);
        self.end = Some(End::Exit(1));
    }
}

/// The terminal's two ends. The slave comes from the master, so no path is involved.
fn open_slave(master: OwnedFd, stdin: bool) -> io::Result<Streams> {
    use rustix::pty::OpenptFlags;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok(Streams::Terminal {
        master,
        slave,
        stdin,
    })
}
