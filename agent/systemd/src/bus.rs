//! Connections to the manager: the system bus, or the manager's private socket when there is no
//! bus. Opening, noticing the end, telling errors apart; no method of the manager is known here.

use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use zbus::names::{BusName, InterfaceName, UniqueName};
use zbus::{Connection, MatchRule, Message, MessageStream, fdo, message};

use crate::error::{Error, Result};

/// The manager's well-known name, object and interface.
pub(crate) const SYSTEMD: &str = "org.freedesktop.systemd1";
pub(crate) const SYSTEMD_PATH: &str = "/org/freedesktop/systemd1";
pub(crate) const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// The socket on which PID 1 serves root directly, with or without a bus.
const PRIVATE_SOCKET: &str = "/run/systemd/private";

/// Setting a connection up takes about a millisecond; a bus that needs longer is not well.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A method of the manager may have to wait for a daemon-reload; sd-bus waits as long.
const CALL_LIMIT: Duration = Duration::from_secs(25);

/// Job results in flight. Far more than the starts that run at once.
const JOB_QUEUE: usize = 1024;

/// `JobRemoved` as it came.
#[derive(Debug, Clone)]
pub(crate) struct JobRemoved {
    /// Who sent it, on a bus.
    pub sender: Option<UniqueName<'static>>,
    pub job: String,
    pub result: String,
}

/// An open connection to the manager.
#[derive(Debug)]
pub(crate) struct Link {
    pub conn: Connection,
    jobs: broadcast::Sender<JobRemoved>,
    /// False on the private socket, where the only peer is PID 1.
    pub on_bus: bool,
    reader: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        // The reader holds the connection; without this it would stay open.
        self.reader.abort();
    }
}

impl Link {
    /// Opens the system bus, or failing that the private socket.
    pub(crate) async fn open() -> Result<Link> {
        let bus = match within(CONNECT_LIMIT, Self::open_bus()).await {
            Ok(link) => return Ok(link),
            Err(error) => error,
        };
        match within(CONNECT_LIMIT, Self::open_private()).await {
            Ok(link) => {
                tracing::info!(error = %bus, "no system bus, using the manager's private socket");
                Ok(link)
            }
            Err(private) => Err(Error::Unreachable {
                bus: bus.to_string(),
                private: private.to_string(),
            }),
        }
    }

    async fn open_bus() -> zbus::Result<Link> {
        let conn = system_bus().await?;
        Self::on(conn, true).await
    }

    async fn open_private() -> zbus::Result<Link> {
        let stream = UnixStream::connect(PRIVATE_SOCKET)?;
        stream.set_nonblocking(true)?;
        let conn = zbus::connection::Builder::unix_stream(stream)
            .p2p()
            .method_timeout(CALL_LIMIT)
            .build()
            .await?;
        Self::on(conn, false).await
    }

    /// Starts listening for the ends of jobs: one narrow rule, and no `Subscribe`. With a
    /// subscription every client would be sent every unit's signals.
    pub(crate) async fn on(conn: Connection, on_bus: bool) -> zbus::Result<Link> {
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .sender(SYSTEMD)
            .interface(MANAGER)
            .member("JobRemoved")
            .build()?;
        let queue = NonZeroUsize::new(JOB_QUEUE);
        let mut stream = MessageStream::for_match_rule(rule, &conn, queue).await?;
        let (jobs, _) = broadcast::channel(JOB_QUEUE);
        let sender = jobs.clone();
        let reader = tokio::spawn(async move {
            while let Some(Ok(signal)) = stream.next().await {
                if let Some(removed) = job_removed(&signal) {
                    // No receiver: nobody waits for a job of ours.
                    let _ = sender.send(removed);
                }
            }
        });
        Ok(Link {
            conn,
            jobs,
            on_bus,
            reader,
        })
    }

    /// The ends of jobs from now on: subscribe first, then make the job.
    pub(crate) fn jobs(&self) -> broadcast::Receiver<JobRemoved> {
        self.jobs.subscribe()
    }

    /// Calls a method of the manager.
    pub(crate) async fn call<B>(&self, method: &'static str, body: &B) -> zbus::Result<Message>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        self.conn
            .call_method(Some(SYSTEMD), SYSTEMD_PATH, Some(MANAGER), method, body)
            .await
    }

    /// Waits until the manager is on the bus again after a re-execution, for `limit` at most.
    /// Whether it came is found out by the next call; a connection that is closed is opened anew
    /// by whoever makes that call.
    pub(crate) async fn wait_for_manager(&self, limit: Duration) {
        if !self.on_bus || self.conn.is_closed() {
            return;
        }
        match tokio::time::timeout(limit, manager_appears(&self.conn)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "cannot watch for the service manager"),
            Err(_) => tracing::debug!("the service manager did not come back in time"),
        }
    }

    /// Whether `sender` is the manager. Anyone may send us a signal directly, past every rule.
    pub(crate) async fn is_manager(&self, sender: Option<&UniqueName<'static>>) -> bool {
        if !self.on_bus {
            return true;
        }
        let owner = owner_of(&self.conn, SYSTEMD).await;
        sender.is_some_and(|sender| owner.is_ok_and(|owner| owner == sender.as_str()))
    }
}

/// A new connection to the system bus.
pub(crate) async fn system_bus() -> zbus::Result<Connection> {
    zbus::connection::Builder::system()
        .method_timeout(CALL_LIMIT)
        .build()
        .await
}

/// The unique name behind a well-known one.
pub(crate) async fn owner_of(conn: &Connection, name: &str) -> zbus::Result<String> {
    let reply = driver(conn, "GetNameOwner", &name).await?;
    reply.body().deserialize::<String>()
}

/// Calls a method of the bus itself.
pub(crate) async fn driver<B>(
    conn: &Connection,
    method: &'static str,
    body: &B,
) -> zbus::Result<Message>
where
    B: serde::Serialize + zbus::DynamicType,
{
    const DRIVER: &str = "org.freedesktop.DBus";
    conn.call_method(
        Some(BusName::from_static_str(DRIVER)?),
        "/org/freedesktop/DBus",
        Some(InterfaceName::from_static_str(DRIVER)?),
        method,
        body,
    )
    .await
}

/// Waits until the manager has a name on the bus.
async fn manager_appears(conn: &Connection) -> zbus::Result<()> {
    let rule = MatchRule::builder()
        .msg_type(message::Type::Signal)
        .sender("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        .arg(0, SYSTEMD)
        .build()?;
    // Listen first, look second: an owner that comes between the two is not missed.
    let mut changes = MessageStream::for_match_rule(rule, conn, None).await?;
    while owner_of(conn, SYSTEMD).await.is_err() {
        if changes.next().await.is_none() {
            break;
        }
    }
    Ok(())
}

/// Whether an error means that the manager or the bus went away, so that nothing is known about
/// the call: it may have been carried out or not.
pub(crate) fn is_away(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::InputOutput(_) | zbus::Error::Connection(..) | zbus::Error::Handshake(_) => {
            true
        }
        zbus::Error::FDO(error) => matches!(
            **error,
            fdo::Error::NoReply(_)
                | fdo::Error::Disconnected(_)
                | fdo::Error::ServiceUnknown(_)
                | fdo::Error::NameHasNoOwner(_)
                | fdo::Error::TimedOut(_)
                | fdo::Error::Timeout(_)
                | fdo::Error::NoServer(_)
        ),
        _ => false,
    }
}

/// The error name of a reply and its text.
pub(crate) fn name_and_text(error: &zbus::Error) -> Option<(String, String)> {
    use zbus::DBusError;
    match error {
        zbus::Error::MethodError(name, text, _) => {
            Some((name.to_string(), text.clone().unwrap_or_default()))
        }
        zbus::Error::FDO(error) => Some((
            error.name().to_string(),
            error.description().unwrap_or_default().to_owned(),
        )),
        _ => None,
    }
}

fn job_removed(signal: &Message) -> Option<JobRemoved> {
    let body = signal.body();
    let (_, job, _, result) = body
        .deserialize::<(u32, zbus::ObjectPath<'_>, &str, &str)>()
        .ok()?;
    Some(JobRemoved {
        sender: signal.header().sender().map(|name| name.to_owned()),
        job: job.to_string(),
        result: result.to_owned(),
    })
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = zbus::Result<T>>,
) -> zbus::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}
