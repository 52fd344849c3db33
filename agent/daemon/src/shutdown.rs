//! A serving agent's life and its ends: idle exit, which loses no request; SIGTERM, which finishes what
//! has an effect; SIGHUP, which reads the configuration again; and the watchdog, which hears from this
//! loop alone, so that silence means that the loop is stuck.

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use berth_engine::Engine;
use berth_rest::Face;
use berth_systemd::notify;

use crate::config::Flags;
use crate::logging;
use crate::startup::{Next, Running, Signals};
use crate::tell;

/// An idle agent has nothing open: what came in the last moment is answered well within this, unless it
/// is a stream without an end.
const DRAIN: Duration = Duration::from_secs(2);
/// How long SIGTERM lets requests with an effect finish. Stops and starts go on in their monitors.
const FINISH: Duration = Duration::from_secs(10);
/// After that, how long connections may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(200);
/// While a leaving agent is held up, how often it asks for time, and for how much.
const HELD_EVERY: Duration = Duration::from_secs(5);
const HELD_BY: Duration = Duration::from_secs(30);

/// Serves until there is a reason to end.
pub(crate) async fn live(
    mut running: Running,
    flags: &Flags,
    signals: &mut Signals,
    log: &logging::Control,
) -> ExitCode {
    let mut watchdog = watchdog();
    // Set once the service manager was told that we leave and somebody came in that moment.
    let mut held = None;
    'serving: loop {
        let (engine, limit) = (running.engine.clone(), running.idle);
        let mut idle = pin!(async {
            match limit {
                Some(limit) => engine.idle_for(limit).await,
                None => std::future::pending().await,
            }
        });
        loop {
            tokio::select! {
                () = running.reports.serve() => {}
                () = &mut idle => break,
                next = signals.next() => match next {
                    Next::End => {
                        end(running).await;
                        return ExitCode::SUCCESS;
                    }
                    Next::Reload => reload(flags, log, &running.engine).await,
                },
                () = tick(&mut watchdog) => tell::watchdog().await,
                () = tick(&mut held) => tell::extend(HELD_BY).await,
            }
        }
        tracing::debug!("idle, leaving");
        if leave(&mut running).await {
            break 'serving;
        }
        tracing::info!("a long request came while leaving; serving on");
        held = Some(interval(HELD_EVERY));
    }
    close(&running).await;
    ExitCode::SUCCESS
}

/// The last words of an agent whose faces are silent.
async fn close(running: &Running) {
    let panics = running.face.panics();
    if panics > 0 {
        tracing::error!(panics, "handlers panicked in this agent's life");
    }
    running.engine.close().await;
}

/// Leaves without losing a request. The order is what makes it so: first the manager must not think
/// that the coming exit is a failure nor route work here, then the bus must send calls to the next
/// instance, and only then is what was already here answered. What comes later stays in the kernel's
/// queues and starts the next agent.
///
/// False when a request came in the meantime that does not end; the agent then serves on.
async fn leave(running: &mut Running) -> bool {
    tell::stopping().await;
    running.bus.leave().await;
    let drained = async {
        running.face.drain().await;
        running.reports.drain().await;
        running.bus.drain(DRAIN).await;
        // What those requests began and nobody waits for.
        running.engine.idle_for(Duration::ZERO).await;
    };
    if tokio::time::timeout(DRAIN, drained).await.is_ok() {
        return true;
    }
    running.face.resume();
    running.bus.rejoin().await;
    false
}

/// SIGTERM: no new requests; those with an effect finish, streams are cut.
async fn end(mut running: Running) {
    tracing::info!("asked to end");
    tell::stopping().await;
    running.bus.leave().await;
    let finish = async {
        // Connections that wait in the queues are answered, too, so they get a moment to come in.
        if tokio::time::timeout(GOODBYE, running.face.drain())
            .await
            .is_err()
        {
            running.face.at_rest().await;
        }
        running.reports.drain().await;
        running.bus.drain(FINISH).await;
    };
    if tokio::time::timeout(FINISH, finish).await.is_err() {
        tracing::warn!("requests are cut short: they did not finish in time");
    }
    running.face.end(GOODBYE).await;
    close(&running).await;
}

/// SIGHUP. What can change in a running agent changes; the rest is for the next start.
async fn reload(flags: &Flags, log: &logging::Control, engine: &Engine) {
    tell::reloading().await;
    // Also how another program that rewrote the host's firewall lets us put our rules back.
    engine.reload().await;
    let status = match flags.load() {
        Ok(settings) => {
            log.set(settings.log_level);
            tracing::info!(
                "configuration read again: the log level holds now, the rest from the next start on"
            );
            "serving requests".to_owned()
        }
        Err(error) => {
            tracing::error!(%error, "the configuration is refused; the old one holds");
            format!("serving requests; new configuration refused: {error}")
        }
    };
    tell::ready(status).await;
}

/// An agent that answers everything with the reason waits here for an administrator.
pub(crate) async fn wait_broken(signals: &mut Signals, face: &Face) -> Next {
    let mut watchdog = watchdog();
    loop {
        tokio::select! {
            next = signals.next() => {
                match next {
                    Next::End => {
                        tell::stopping().await;
                        face.end(GOODBYE).await;
                    }
                    Next::Reload => tell::reloading().await,
                }
                return next;
            }
            () = tick(&mut watchdog) => tell::watchdog().await,
        }
    }
}

/// Ticks twice within the manager's limit, when there is one.
fn watchdog() -> Option<Interval> {
    notify::watchdog_interval().map(|limit| interval(limit / 2))
}

fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
