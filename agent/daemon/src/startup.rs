//! From a started process to one that serves: listeners first, so that nobody is refused while the
//! engine opens; then the roots' locks and the engine; then READY. What cannot be opened is served as
//! 503 with the reason when systemd holds the socket (a crash loop would kill it), and ends the agent
//! otherwise.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use berth_engine::Engine;
use berth_rest::{Backend, Face, Listener};

use crate::bus::Bus;
use crate::config::{ConfigError, Flags, Host, Settings};
use crate::lock::{self, RootLock};
use crate::logging;
use crate::monitors::Reports;
use crate::shutdown;
use crate::sockets::{self, Named, Passed};
use crate::{COMMIT, VERSION, tell};

/// How often a long start is explained to the service manager, and how much it asks for each time.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
const EXTEND_BY: Duration = Duration::from_secs(40);

/// The signals that the agent acts on.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next thing that is asked.
    pub(crate) async fn next(&mut self) -> Next {
        tokio::select! {
            _ = self.terminate.recv() => Next::End,
            _ = self.interrupt.recv() => Next::End,
            _ = self.hangup.recv() => Next::Reload,
        }
    }

    /// Asked to end.
    async fn end(&mut self) {
        while self.next().await == Next::Reload {}
    }
}

/// What an administrator asks of a running agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    End,
    /// Read the configuration again.
    Reload,
}

/// The listeners of our own, which stay through failed attempts to open the engine.
#[derive(Default)]
struct Own {
    hosts: Vec<Host>,
    names: Vec<Named>,
}

/// An agent that serves.
pub(crate) struct Running {
    pub(crate) engine: Engine,
    pub(crate) face: Face,
    pub(crate) reports: Reports,
    pub(crate) bus: Bus,
    pub(crate) settings: Settings,
    /// How long to stay without work.
    pub(crate) idle: Option<Duration>,
    /// Held until the end.
    _locks: [RootLock; 2],
    _own: Own,
    _monitor: Option<Named>,
}

/// Runs the agent to its end.
pub(crate) async fn run(
    flags: Result<Flags, ConfigError>,
    settings: Option<Result<Settings, ConfigError>>,
    passed: Passed,
    log: logging::Control,
) -> ExitCode {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return crate::fail(&format!("cannot listen for signals: {error}")),
    };
    let activated = passed.activated();
    let (backend, state) = watch::channel(Backend::Opening);
    let face = Face::new(VERSION, COMMIT, state);
    let Passed {
        api,
        monitor,
        trouble,
    } = passed;
    let mut own = Own::default();
    // Mistakes of the unit: they stay until it is changed and the agent is started anew.
    let mut mistake = trouble.into_iter().chain(serve_passed(&face, api)).next();

    let flags = match flags {
        Ok(flags) => flags,
        Err(error) if activated => {
            mistake.get_or_insert(error.to_string());
            Flags::default()
        }
        Err(error) => return crate::fail(&format!("{error}; see berthd --help")),
    };
    let mut settings = settings.unwrap_or_else(|| Ok(Settings::default()));
    loop {
        let attempt = async {
            if let Some(mistake) = &mistake {
                return Err(mistake.clone());
            }
            let settings = settings.map_err(|error| error.to_string())?;
            open(&face, settings, &mut own, monitor.as_ref(), activated).await
        };
        let opened = tokio::select! {
            opened = attempt => opened,
            () = signals.end() => {
                tell::stopping().await;
                return ExitCode::SUCCESS;
            }
        };
        match opened {
            Ok(running) => {
                backend.send_replace(Backend::Ready(running.engine.clone()));
                tracing::info!(version = VERSION, data_root = %running.settings.data_root.display(), "serving");
                tell::ready("serving requests".to_owned()).await;
                return shutdown::live(running, &flags, &mut signals, &log).await;
            }
            Err(reason) if activated => {
                tracing::error!(
                    reason,
                    "the agent cannot work; requests are answered with the reason"
                );
                backend.send_replace(Backend::Unavailable(reason.clone()));
                tell::ready(format!("not working: {reason}")).await;
            }
            Err(reason) => return crate::fail(&reason),
        }
        // Nothing changes by itself: an administrator mends the cause and says so.
        match shutdown::wait_broken(&mut signals, &face).await {
            Next::End => return ExitCode::SUCCESS,
            Next::Reload => {
                backend.send_replace(Backend::Opening);
                settings = flags.load();
            }
        }
    }
}

/// Starts to accept on the passed sockets. Returns why one cannot be used.
fn serve_passed(face: &Face, sockets: Vec<OwnedFd>) -> Vec<String> {
    let mut trouble = Vec::new();
    for socket in sockets {
        match Listener::from_fd(socket) {
            Ok(listener) => serve(face, listener),
            Err(error) => trouble.push(format!("a passed socket cannot be listened on: {error}")),
        }
    }
    trouble
}

fn serve(face: &Face, listener: Listener) {
    let face = face.clone();
    tokio::spawn(async move {
        if let Err(error) = face.serve(listener).await {
            tracing::error!(%error, "a listener failed");
        }
    });
}

/// Opens everything that `settings` name.
async fn open(
    face: &Face,
    settings: Settings,
    own: &mut Own,
    monitor: Option<&OwnedFd>,
    activated: bool,
) -> Result<Running, String> {
    let hosts = settings
        .hosts_or_default(activated)
        .map_err(|error| error.to_string())?;
    if hosts.contains(&Host::Passed) && !activated {
        return Err("fd:// was asked for, but systemd passed no socket named api".to_owned());
    }
    let locks = [
        lock::take(&settings.data_root, 0o710).map_err(|error| error.to_string())?,
        lock::take(&settings.run_root, 0o711).map_err(|error| error.to_string())?,
    ];
    for host in hosts {
        if host == Host::Passed || own.hosts.contains(&host) {
            continue;
        }
        let failed = |error: io::Error| format!("cannot listen on {host}: {error}");
        let (socket, name) = sockets::open(&host).map_err(failed)?;
        serve(face, Listener::from_fd(socket).map_err(failed)?);
        own.names.extend(name);
        own.hosts.push(host);
    }
    let path = settings.run_root.join("monitor.sock");
    let (monitor, monitor_name) = match monitor {
        Some(passed) => passed.try_clone().map(|socket| (socket, None)),
        None => sockets::bind_unix(&path, 0o600, None).map(|(socket, name)| (socket, Some(name))),
    }
    .map_err(|error| format!("cannot listen on {}: {error}", path.display()))?;
    let engine = patiently(Engine::open(settings.engine()))
        .await
        .map_err(|error| error.full_message())?;
    let reports = Reports::new(monitor, engine.clone())
        .map_err(|error| format!("the monitors' socket cannot be listened on: {error}"))?;
    tokio::spawn(crate::memory::give_back(engine.clone()));
    Ok(Running {
        bus: Bus::start(engine.clone()),
        idle: settings.idle_exit(activated),
        engine,
        face: face.clone(),
        reports,
        settings,
        _locks: locks,
        _own: std::mem::take(own),
        _monitor: monitor_name,
    })
}

/// Awaits `opening`, and asks the service manager for more time as long as it goes on.
async fn patiently<T>(opening: impl Future<Output = T>) -> T {
    tokio::select! {
        opened = opening => opened,
        never = explain() => match never {},
    }
}

async fn explain() -> Infallible {
    let mut ticks = tokio::time::interval(EXTEND_EVERY);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        tell::extend(EXTEND_BY).await;
        tell::status("bringing records and containers together".to_owned()).await;
    }
}
