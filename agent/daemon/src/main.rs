//! berthd, the host agent: reads its configuration, takes its sockets, opens the engine, and puts the
//! faces in front of it. No logic about containers lives here.

use std::io::Write;
use std::process::ExitCode;

mod bus;
mod config;
mod lock;
mod logging;
mod memory;
mod monitors;
mod shutdown;
mod sockets;
mod startup;
mod tell;

use config::Command;

/// The version that every face tells.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that was built, where the build says it.
const COMMIT: &str = match option_env!("BERTH_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
/// The agent waits much and computes little, and a host has better use for its cores.
const WORKERS: usize = 2;
/// Threads for blocking work; followers of logs and moving archives hold one each.
const BLOCKING_THREADS: usize = 512;

fn main() -> ExitCode {
    let flags = match Command::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => return print(config::USAGE),
        Ok(Command::Version) => {
            return print(&format!("berthd version {VERSION}, commit {COMMIT}\n"));
        }
        Ok(Command::Run(flags)) => Ok(flags),
        Err(error) => Err(error),
    };
    memory::prepare();
    // Before anything else opens descriptors.
    let passed = match sockets::take_passed() {
        Ok(passed) => passed,
        Err(error) => return fail(&error.to_string()),
    };
    let settings = flags.as_ref().ok().map(config::Flags::load);
    let level = match &settings {
        Some(Ok(settings)) => settings.log_level,
        _ => config::LogLevel::default(),
    };
    let log = logging::init(level);
    if let Err(error) = sockets::prepare_process() {
        tracing::warn!(%error, "the agent's own process could not be set up fully");
    }

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("berthd")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    let code = runtime.block_on(startup::run(flags, settings, passed, log));
    // A blocking thread may still wait for a client or a disk; nothing that counts depends on it.
    runtime.shutdown_background();
    code
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Says why on stderr, for whoever started the agent by hand.
fn fail(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "berthd: {message}");
    ExitCode::FAILURE
}
