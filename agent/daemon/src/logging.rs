//! Where the agent's log goes: to the journal with its fields when stderr is the journal's, else to
//! stderr as text. The level can be changed while the agent runs.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::LogLevel;

/// Changes the level of a running log.
#[derive(Debug)]
pub(crate) struct Control(reload::Handle<Targets, Registry>);

impl Control {
    pub(crate) fn set(&self, level: LogLevel) {
        if let Err(error) = self.0.reload(filter(level)) {
            tracing::warn!(%error, "the log level could not be changed");
        }
    }
}

/// Starts the log. Called once.
pub(crate) fn init(level: LogLevel) -> Control {
    let (filter, handle) = reload::Layer::new(filter(level));
    let journal = if stderr_is_the_journal() {
        // Fields appear as CONTAINER=…, UNIT=… beside systemd's own.
        tracing_journald::layer().ok().map(|layer| {
            layer
                .with_field_prefix(None)
                .with_syslog_identifier("berthd".to_owned())
        })
    } else {
        None
    };
    let text = journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(journal)
        .with(text)
        .init();
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(panic = %panic, backtrace = %std::backtrace::Backtrace::capture(), "a thread of the agent panicked");
    }));
    Control(handle)
}

/// Our own crates at `level`, the libraries below only when something is wrong.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(LevelFilter::WARN.min(level))
        .with_target("berth", level)
}

/// JOURNAL_STREAM holds the device and inode of the stream that systemd connected (systemd.exec(5)).
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = std::io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .and_then(|file| file.metadata());
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}
