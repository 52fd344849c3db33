//! The monitor's event loop: one thread, one epoll, and the container's life from the plan to the
//! exit record.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use berth_runtime::exit::ExitRecord;
use berth_runtime::plan::StopRule;
use berth_runtime::protocol::{Frame, Phase, Reply, Request, Stage};
use berth_sys::cgroup::{Cgroup, EventsFile};
use berth_sys::poll::{Epoll, Interest, Ready, Timer};
use berth_sys::signal::Signals;
use berth_sys::{fd, pidfd};

use crate::begin::Starting;
use crate::conn::{Conn, MAX_CONNS};
use crate::fail::fail;
use crate::pump::Pump;
use crate::start::ChildContext;
use crate::watch::{Token, Watched};
use crate::{farewell, requests};

/// How long processes that were killed with the container may take to die before the monitor goes on
/// without the rest of their output. Only one that hangs in the kernel takes longer than moments.
pub(crate) const DEATH_LIMIT: Duration = Duration::from_secs(5);

pub(crate) const SIGKILL: i32 = 9;
const SIGCHLD: i32 = 17;
const SIGURG: i32 = 23;

/// How the event loop ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The monitor's own exit status.
    Exit(u8),
    /// This is the container's first process now.
    Child(Box<ChildContext>),
}

/// A stop under way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stopping {
    /// When the payload is killed; `None` = never.
    pub(crate) deadline: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) epoll: Epoll,
    signals: Signals,
    timer: Timer,
    pub(crate) conns: Vec<Conn>,
    next_conn: u32,
    control: u32,
    pub(crate) extra_fds: Vec<OwnedFd>,
    pub(crate) listener: Option<Watched>,
    pub(crate) id: String,
    pub(crate) phase: Phase,
    pub(crate) stop_rule: StopRule,
    pub(crate) stopping: Option<Stopping>,
    pub(crate) starting: Option<Starting>,
    pub(crate) init: Option<Watched>,
    pub(crate) payload: Option<Cgroup>,
    payload_events: Option<(EventsFile, Watched)>,
    pub(crate) pump: Option<Pump>,
    pub(crate) stdin_once: bool,
    pub(crate) record: ExitRecord,
    pub(crate) exit_file: Option<OwnedFd>,
    pub(crate) run_root: Option<OwnedFd>,
    /// The last reference to an overlay syncs its whole file system; it must not go inside the exit
    /// of the container.
    pub(crate) root: Option<OwnedFd>,
    pub(crate) linger: Vec<crate::client::Client>,
    pub(crate) end: Option<End>,
}

impl Monitor {
    /// `control` is the socket that the agent started the monitor with.
    pub(crate) fn new(control: OwnedFd, boot_id: [u8; 16]) -> io::Result<Monitor> {
        let epoll = Epoll::new()?;
        let signals = Signals::new()?;
        epoll.add(&signals, Token::Signals.word(), Interest::READ)?;
        let timer = Timer::new()?;
        epoll.add(&timer, Token::StopTimer.word(), Interest::READ)?;
        let mut conn = Conn::control(0, control)?;
        conn.watch(&epoll)?;
        Ok(Monitor {
            epoll,
            signals,
            timer,
            conns: vec![conn],
            next_conn: 1,
            control: 0,
            extra_fds: Vec::new(),
            listener: None,
            id: String::new(),
            phase: Phase::Idle,
            stop_rule: StopRule::default(),
            stopping: None,
            starting: None,
            init: None,
            payload: None,
            payload_events: None,
            pump: None,
            stdin_once: false,
            record: ExitRecord {
                boot_id,
                ..ExitRecord::default()
            },
            exit_file: None,
            run_root: None,
            root: None,
            linger: Vec::new(),
            end: None,
        })
    }

    /// Runs until the container is over, or until this process is the container's.
    pub(crate) fn run(mut self) -> io::Result<End> {
        let mut events: Vec<Ready> = Vec::with_capacity(berth_sys::poll::EPOLL_BATCH);
        loop {
            events.clear();
            self.epoll.wait(None, |ready| events.push(ready))?;
            for event in events.iter().copied() {
                self.handle(event)?;
                if let Some(end) = self.end.take() {
                    return Ok(end);
                }
            }
            self.tell_ended();
        }
    }

    fn handle(&mut self, event: Ready) -> io::Result<()> {
        match Token::from_word(event.token) {
            Some(Token::Signals) => self.take_signals()?,
            Some(Token::Listener) => self.accept(),
            Some(Token::Conn(serial)) => self.conn_ready(serial, event),
            Some(Token::Sync) => self.child_said(),
            Some(Token::Init) => self.init_ended()?,
            Some(Token::StopTimer) => self.time_over()?,
            Some(Token::Payload) => self.payload_changed()?,
            Some(Token::Output(number)) => {
                if let Some(pump) = &mut self.pump {
                    pump.output_ready(&self.epoll, number);
                }
            }
            Some(Token::Input) => {
                if let Some(pump) = &mut self.pump {
                    pump.input_ready(&self.epoll, event.closed);
                }
            }
            Some(Token::Client(session)) => {
                if let Some(pump) = &mut self.pump {
                    pump.client_ready(&self.epoll, session, event.read, event.closed);
                }
            }
            None => {}
        }
        Ok(())
    }

    // Signals.

    fn take_signals(&mut self) -> io::Result<()> {
        while let Some(received) = self.signals.next()? {
            match received.signal {
                // Orphans of a container that has no pid namespace of its own. Its first process is
                // waited for by descriptor, so it is looked at before anything is reaped.
                SIGCHLD => self.reap_others()?,
                // The service manager stops the unit: only it may say so, and a process of the
                // container, which has other numbers here, can never be number 1.
                SIGURG if received.pid == 1 && received.uid == 0 && received.code <= 0 => {
                    let StopRule { signal, timeout_ms } = self.stop_rule;
                    let by = berth_runtime::protocol::StopBy::Unit;
                    // A container that is not running ends by itself.
                    let _ = self.stop(signal, timeout_ms, by);
                }
                // SIGTERM, SIGHUP and SIGINT reach every process of a unit when an administrator
                // kills it. The monitor stays to see what comes of the container.
                _ => {}
            }
        }
        Ok(())
    }

    fn reap_others(&mut self) -> io::Result<()> {
        if let Some(init) = &self.init
            && !pidfd::is_alive(init)?
        {
            self.init_ended()?;
        }
        if self.init.is_none() {
            return Ok(());
        }
        while let Some((pid, status)) = pidfd::reap_any()? {
            if pid == self.record.pid {
                // It ended between the look and the reaping.
                self.init_gone(status)?;
                break;
            }
        }
        Ok(())
    }

    // Connections.

    fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        while let Ok(sock) = rustix::net::accept_with(listener, flags) {
            // The socket's directory lets nobody else in; this is the second lock.
            let root = berth_sys::peer::peer_cred(&sock).is_ok_and(|peer| peer.uid == 0);
            if !root || self.conns.len() >= MAX_CONNS {
                continue;
            }
            let serial = self.next_conn;
            self.next_conn += 1;
            if let Ok(mut conn) = Conn::later(serial, sock)
                && conn.watch(&self.epoll).is_ok()
            {
                self.conns.push(conn);
            }
        }
    }

    fn conn_ready(&mut self, serial: u32, event: Ready) {
        let Some(conn) = self.conns.iter_mut().find(|conn| conn.serial == serial) else {
            return;
        };
        let mut requests = VecDeque::new();
        let mut open = true;
        if event.write {
            open &= conn.flush(&self.epoll).is_ok();
        }
        if event.read || event.closed {
            open &= conn.receive(&mut requests).unwrap_or(false);
        }
        while let Some(frame) = requests.pop_front() {
            if self.end.is_some() || !self.request(serial, frame) {
                open = false;
                break;
            }
        }
        if !open {
            self.close_conn(serial);
        }
    }

    /// False: the connection is to be closed.
    fn request(&mut self, serial: u32, frame: Frame<Request, OwnedFd>) -> bool {
        let Frame { tag, message, fds } = frame;
        match message {
            Request::Descriptors if serial == self.control && self.phase == Phase::Idle => {
                self.extra_fds.extend(fds);
                self.extra_fds.len() <= berth_runtime::plan::MAX_FDS
            }
            Request::Start(plan) => {
                if serial != self.control || self.phase != Phase::Idle {
                    let reply = failed(rustix::io::Errno::ALREADY, "this monitor has been started");
                    self.reply(serial, tag, &reply, &[]);
                    return true;
                }
                let mut all = std::mem::take(&mut self.extra_fds);
                all.extend(fds);
                self.start(serial, tag, *plan, all);
                true
            }
            Request::Go if serial == self.control && self.phase == Phase::Ready => {
                self.go();
                true
            }
            Request::Abort if serial == self.control && self.starting.is_some() => {
                self.start_failed(fail(Stage::Aborted, "the start was given up"));
                true
            }
            other => requests::serve(self, serial, tag, other, fds),
        }
    }

    pub(crate) fn reply(
        &mut self,
        serial: u32,
        tag: u32,
        reply: &Reply,
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> bool {
        let Some(conn) = self.conns.iter_mut().find(|conn| conn.serial == serial) else {
            return false;
        };
        let sent = conn.reply(&self.epoll, tag, reply, fds).is_ok();
        if !sent {
            self.close_conn(serial);
        }
        sent
    }

    fn close_conn(&mut self, serial: u32) {
        let Some(index) = self.conns.iter().position(|conn| conn.serial == serial) else {
            return;
        };
        self.conns.swap_remove(index).close(&self.epoll);
        if let Some(pump) = &mut self.pump {
            pump.conn_closed(&self.epoll, serial);
        }
        if serial == self.control {
            if self.starting.is_some() {
                // The agent has gone before the start was committed: nothing may be left of it.
                self.start_failed(fail(Stage::Aborted, "the agent has gone"));
            } else if self.phase == Phase::Idle {
                self.end = Some(End::Exit(0));
            }
        }
    }

    /// Tells those who attached clients that they have ended.
    pub(crate) fn tell_ended(&mut self) {
        let ended = self.pump.as_mut().map(Pump::take_ended).unwrap_or_default();
        for ended in ended {
            let reply = Reply::AttachEnded {
                session: ended.session,
                end: ended.end,
            };
            self.reply(ended.owner.conn, ended.owner.tag, &reply, &[]);
        }
    }

    // The end.

    fn init_ended(&mut self) -> io::Result<()> {
        let Some(init) = &self.init else {
            return Ok(());
        };
        match pidfd::try_wait(init)? {
            Some(status) => self.init_gone(status),
            None => Ok(()),
        }
    }

    fn init_gone(&mut self, status: i32) -> io::Result<()> {
        if self.starting.is_some() {
            // What it said before it died explains more than its status.
            self.child_said();
            if self.starting.is_some() {
                let code = berth_runtime::exit::exit_code(status);
                let text =
                    format!("the container's first process ended during setup with status {code}");
                self.start_failed(fail(Stage::Aborted, text));
            }
            if self.phase != Phase::Running {
                return Ok(());
            }
        }
        if let Some(mut init) = self.init.take() {
            init.want(&self.epoll, None)?;
        }
        self.record.wait_status = status;
        self.record.finished_at = now();
        self.stopping = None;
        self.phase = Phase::Exited;
        self.timer.set(Some(DEATH_LIMIT))?;
        if let Some(payload) = &self.payload {
            // With a pid namespace of its own all are dead already; otherwise they die now.
            let _ = payload.kill();
            if let Ok(mut file) = payload.events_file()
                && let Ok(events) = file.read()
                && events.populated
            {
                let mut watched = Watched::new(fd::dup(&file)?, Token::Payload);
                watched.want(&self.epoll, Some(Interest::PRIORITY))?;
                self.payload_events = Some((file, watched));
            }
        }
        self.payload_changed()
    }

    /// Takes what output there is; ends when nobody of the container is left to write more.
    fn payload_changed(&mut self) -> io::Result<()> {
        if self.phase != Phase::Exited {
            return Ok(());
        }
        let empty = match &mut self.payload_events {
            // An unreadable file is that of a removed cgroup.
            Some((file, _)) => !file.read().is_ok_and(|events| events.populated),
            None => true,
        };
        if let Some(pump) = &mut self.pump {
            pump.drain(&self.epoll, false);
        }
        if empty { self.over() } else { Ok(()) }
    }

    fn over(&mut self) -> io::Result<()> {
        farewell::say(self)?;
        // After the record and the report, whatever it takes.
        self.root = None;
        self.end = Some(End::Exit(0));
        Ok(())
    }

    fn time_over(&mut self) -> io::Result<()> {
        if !self.timer.take_expired()? {
            return Ok(());
        }
        if self.phase == Phase::Exited {
            return self.over();
        }
        if self.stopping.is_some_and(|stop| stop.deadline.is_some()) {
            self.stopping = Some(Stopping::default());
            self.kill_payload();
        }
        Ok(())
    }

    /// SIGKILL to all there is of the container.
    fn kill_payload(&mut self) {
        self.record.flags |= ExitRecord::FLAG_KILLED_AFTER_TIMEOUT;
        if let Some(payload) = &self.payload {
            let _ = payload.kill();
        }
        // A container that shares its cgroup with nobody is dead now; this is for the case that the
        // cgroup could not be written to.
        let _ = self.signal(SIGKILL);
    }

    /// A signal to the container's first process.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        match &self.init {
            Some(init) => pidfd::send_signal(init, signal),
            None => Err(io::Error::from_raw_os_error(
                rustix::io::Errno::SRCH.raw_os_error(),
            )),
        }
    }

    /// Asks the container to end, and sees to it that it does.
    pub(crate) fn stop(
        &mut self,
        signal: i32,
        timeout_ms: i64,
        by: berth_runtime::protocol::StopBy,
    ) -> io::Result<()> {
        if !matches!(self.phase, Phase::Running | Phase::Stopping) {
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::SRCH.raw_os_error(),
            ));
        }
        self.signal(signal)?;
        self.record.flags |= by.exit_flag();
        if let Some(payload) = &self.payload {
            // A frozen process takes its signal only when it runs again.
            let _ = payload.freeze(false);
        }
        let wanted = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        let wanted = wanted.and_then(|time| Instant::now().checked_add(time));
        let before = self.stopping.and_then(|stop| stop.deadline);
        // A second stop only shortens the time.
        let deadline = match (before, wanted) {
            (Some(before), Some(wanted)) => Some(before.min(wanted)),
            (before, wanted) => before.or(wanted),
        };
        self.phase = Phase::Stopping;
        self.stopping = Some(Stopping { deadline });
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        self.timer.set(left)
    }
}

pub(crate) fn failed(errno: rustix::io::Errno, message: &str) -> Reply {
    Reply::Failed {
        errno: errno.raw_os_error(),
        message: message.to_owned(),
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(now.tv_nsec)
}
