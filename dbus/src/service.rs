//! The life of the connection: connect, export, take the name, follow the engine; and again when
//! the bus was restarted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use zbus::fdo::{RequestNameFlags, RequestNameReply};
use zbus::{Address, Connection, connection};

use crate::manager::ManagerObject;
use crate::objects::Objects;
use crate::shared::{Barrier, Link, Shared, Stage};
use crate::transport::{self, Gate, Stream};
use crate::{BUS_NAME, ROOT, job, mirror};
use berth_engine::Change;

/// First and longest pause between attempts. The first attempt after a loss is made at once: the
/// bus's socket starts the bus again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Connecting and exporting takes milliseconds; a bus that does not answer is tried anew.
const SETUP_LIMIT: Duration = Duration::from_secs(30);

/// A call of ours to the bus or to polkit. Longer than the bus's own limit for starting a service.
const CALL_LIMIT: Duration = Duration::from_secs(130);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot connect to the bus")]
    Socket(#[source] std::io::Error),
    #[error("the bus refused the connection or the name")]
    Bus(#[from] zbus::Error),
    #[error("the containers cannot be listed")]
    Engine(#[from] berth_engine::Error),
    #[error("the bus did not answer in time")]
    Timeout,
}

/// Serves until the stage is `Closed`, or until the connection is lost after the name was released.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut pause = PAUSE.0;
    let mut stage = shared.stage();
    while *stage.borrow() == Stage::Serving {
        let attempt = tokio::time::timeout(SETUP_LIMIT, set_up(&shared)).await;
        match attempt.unwrap_or(Err(Error::Timeout)) {
            Ok((connection, changes)) => {
                pause = PAUSE.0;
                shared.set_link(Link::Up);
                tracing::info!(name = BUS_NAME, "on the bus");
                serve(&shared, &connection, changes).await;
                tear_down(&shared, Some(connection)).await;
            }
            Err(error) => {
                tracing::info!(
                    error = &error as &dyn std::error::Error,
                    "not on the bus, trying again later"
                );
                tear_down(&shared, shared.connection()).await;
                tokio::select! {
                    () = pause_after(&shared, &error, pause) => {}
                    _ = stage.wait_for(|stage| *stage != Stage::Serving) => {}
                }
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
    shared.set_link(Link::Down);
}

/// Where there is no bus, waits for one; else for a while.
async fn pause_after(shared: &Shared, error: &Error, pause: Duration) {
    if let Error::Socket(error) = error
        && error.kind() == std::io::ErrorKind::NotFound
        && let Ok(address) = address(shared)
        && transport::appears(&address).await.is_ok()
    {
        return;
    }
    tokio::time::sleep(pause).await;
}

fn address(shared: &Shared) -> zbus::Result<Address> {
    match &shared.options.address {
        Some(address) => address.parse(),
        None => Address::system(),
    }
}

/// A connection with everything on it and the name taken, and the engine's changes since then.
async fn set_up(shared: &Arc<Shared>) -> Result<(Connection, Receiver<Change>), Error> {
    let address = address(shared)?;
    let socket = transport::connect(&address).await.map_err(Error::Socket)?;
    let gate = Gate::default();
    let stream = Stream::new(socket, shared.calls.clone(), gate.clone());
    let manager = ManagerObject::new(Arc::downgrade(shared), shared.options.version.clone());
    // With an object from the start, the dispatcher runs before the first message is read.
    let connection = connection::Builder::socket(stream)
        .method_timeout(CALL_LIMIT)
        .serve_at(ROOT, manager)
        .build()
        .await?;
    shared.set_connection(Some(connection.clone()));
    // Before the list is read, so that no change falls between the two.
    let changes = shared.engine.changes();
    mirror::reload(shared, &connection).await?;
    job::export_all(shared, &connection).await;
    let objects = Objects::new(Arc::downgrade(shared));
    connection.object_server().at(ROOT, objects).await?;
    gate.open();
    let taken = connection
        .request_name_with_flags(BUS_NAME, RequestNameFlags::empty())
        .await?;
    if taken != RequestNameReply::PrimaryOwner && taken != RequestNameReply::AlreadyOwner {
        tracing::warn!(
            name = BUS_NAME,
            "the name belongs to another program, waiting for it"
        );
    }
    Ok((connection, changes))
}

/// Follows the engine until the connection or the service ends.
async fn serve(shared: &Arc<Shared>, connection: &Connection, mut changes: Receiver<Change>) {
    let mut stage = shared.stage();
    let (barriers, mut waiting) = mpsc::unbounded_channel::<Barrier>();
    shared.set_barriers(Some(barriers));
    loop {
        let mut barrier = None;
        let first = tokio::select! {
            change = changes.recv() => match change {
                Ok(change) => Some(change),
                Err(RecvError::Lagged(_)) => None,
                // The engine is gone; so is everything there was to tell.
                Err(RecvError::Closed) => return,
            },
            asked = waiting.recv() => {
                barrier = asked;
                match changes.try_recv() {
                    Ok(change) => Some(change),
                    Err(TryRecvError::Lagged(_)) => None,
                    // Everything has been told already; dropping the barrier says so.
                    Err(TryRecvError::Empty | TryRecvError::Closed) => continue,
                }
            }
            () = connection.closed() => {
                tracing::warn!("the bus closed the connection");
                return;
            }
            _ = stage.wait_for(|stage| *stage == Stage::Closed) => return,
        };
        match first.and_then(|first| batch(first, &mut changes)) {
            Some(batch) => mirror::apply(shared, connection, &batch).await,
            None => {
                if let Err(error) = mirror::reload(shared, connection).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the objects on the bus may be out of date"
                    );
                }
            }
        }
        drop(barrier);
    }
}

/// What has been reported by now; `None` when some of it was lost.
fn batch(first: Change, changes: &mut Receiver<Change>) -> Option<Vec<Change>> {
    let mut batch = vec![first];
    loop {
        match changes.try_recv() {
            Ok(change) => batch.push(change),
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            Err(TryRecvError::Lagged(_)) => return None,
        }
    }
    Some(batch)
}

/// Lets go of everything that belongs to a connection.
async fn tear_down(shared: &Shared, connection: Option<Connection>) {
    shared.set_link(Link::Down);
    shared.set_connection(None);
    shared.set_barriers(None);
    shared.subscribers.clear();
    if let Some(connection) = connection
        && let Err(error) = connection.close().await
    {
        tracing::debug!(%error, "the bus connection was not closed in order, ignoring");
    }
    shared.clear_slots();
    shared.calls.forget_all();
}
