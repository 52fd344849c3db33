//! Those who want the events. Each is sent them alone, because attributes may be secret, and each
//! keeps the agent from leaving: a subscription would be lost with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use tokio::task::AbortHandle;
use zbus::names::BusName;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, MatchRule, MessageStream, message};

use crate::authorize::Call;
use crate::error::{BusError, Result, Verb};
use crate::manager::ManagerObject;
use crate::shared::Shared;
use crate::view::micros;
use crate::{ROOT, paths};
use berth_engine::{Event, EventOptions};

/// Each costs an event stream.
const MAX_SUBSCRIBERS: usize = 64;

const DRIVER: &str = "org.freedesktop.DBus";

/// The tasks that send events, by the unique name of their receiver.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(Mutex<BTreeMap<String, AbortHandle>>);

impl Subscribers {
    /// Events flow from the return of this call on. Subscribing twice is as good as once.
    pub(crate) async fn add(&self, shared: &Arc<Shared>, call: &Call) -> Result<()> {
        let failed = |error: &berth_engine::Error| BusError::from_engine(error, Verb::Subscribe);
        let events = shared.engine.events(EventOptions::default()).await;
        let events = events.map_err(|error| failed(&error))?;
        let mut tasks = self.tasks();
        tasks.retain(|_, task| !task.is_finished());
        if tasks.contains_key(&call.sender) {
            return Ok(());
        }
        if tasks.len() >= MAX_SUBSCRIBERS {
            return Err(BusError::limit_reached("too many subscribers"));
        }
        let busy = shared.engine.busy();
        let (connection, receiver) = (call.connection.clone(), call.sender.clone());
        let task = tokio::spawn(async move {
            let sending = events.for_each(|event| send(&connection, &receiver, event));
            tokio::select! {
                () = sending => {}
                () = until_gone(&connection, &receiver) => {}
                () = connection.closed() => {}
            }
            drop(busy);
        });
        tasks.insert(call.sender.clone(), task.abort_handle());
        Ok(())
    }

    pub(crate) fn remove(&self, sender: &str) {
        if let Some(task) = self.tasks().remove(sender) {
            task.abort();
        }
    }

    /// Ends them all; their names mean nothing on another connection.
    pub(crate) fn clear(&self) {
        for task in std::mem::take(&mut *self.tasks()).into_values() {
            task.abort();
        }
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, AbortHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(connection: &Connection, receiver: &str, event: Event) {
    let object = match event.kind.as_str() {
        "container" => paths::container(&event.actor),
        _ => paths::none(),
    };
    let attributes: HashMap<String, String> = event.attributes.into_iter().collect();
    let told = async {
        let emitter = SignalEmitter::new(connection, ROOT)?;
        let emitter = emitter.set_destination(BusName::try_from(receiver.to_owned())?);
        let time = micros(event.time);
        let (kind, action) = (event.kind.as_str(), event.action.as_str());
        ManagerObject::event(&emitter, time, kind, action, object, attributes).await
    };
    if let Err(error) = told.await {
        tracing::debug!(receiver, %error, "an event was not sent, ignoring");
    }
}

/// Resolves when `name` has left the bus, or when that can no longer be learnt.
pub(crate) async fn until_gone(connection: &Connection, name: &str) {
    let gone = async {
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .sender(DRIVER)
            .interface(DRIVER)
            .member("NameOwnerChanged")
            .arg(0, name)
            .build()?;
        // Listen first, look second: a name that goes between the two is not missed. The name is a
        // unique one, so any change of its owner is its end.
        let mut changes = MessageStream::for_match_rule(rule, connection, None).await?;
        if is_there(connection, name).await? {
            changes.next().await;
        }
        zbus::Result::Ok(())
    };
    if let Err(error) = gone.await {
        tracing::debug!(name, %error, "cannot watch a caller, ignoring");
        connection.closed().await;
    }
}

async fn is_there(connection: &Connection, name: &str) -> zbus::Result<bool> {
    let reply = connection
        .call_method(
            Some(DRIVER),
            "/org/freedesktop/DBus",
            Some(DRIVER),
            "NameHasOwner",
            &name,
        )
        .await?;
    reply.body().deserialize::<bool>()
}
