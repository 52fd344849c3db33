//! One question: may this peer do this? Any error, any silence and any missing piece means no.
//!
//! Root is not asked about: what it may do is the kernel's business. Nothing is remembered
//! between questions, because the answer may depend on the object and on the moment.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use zbus::message::Header;
use zbus::{Connection, fdo};
use zbus_polkit::policykit1::{AuthorityProxy, CheckAuthorizationFlags, Subject as PolkitSubject};

use crate::bus;
use crate::error::{Error, Result};

/// An answer without a person takes milliseconds. polkitd that hangs must not hold a caller.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A person types a password; polkit's own agents give up after a while too.
const INTERACTIVE_LIMIT: Duration = Duration::from_secs(120);

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The sender of a bus message, by its unique name: the bus itself vouches for it.
    BusName(String),
    /// The peer of a socket. All three come from the kernel (SO_PEERCRED, then the start time);
    /// polkit believes the uid, so it must never come from a request.
    Process {
        pid: u32,
        /// Clock ticks since boot, from `/proc/PID/stat`; it tells a reused pid apart.
        start_time: u64,
        uid: u32,
    },
}

impl Subject {
    /// The peer of a connected socket, from its credentials. The start time is read here, after
    /// the kernel gave the pid; a peer that is gone is an error.
    pub fn from_peer(pid: u32, uid: u32) -> Result<Subject> {
        let start_time = berth_sys::proc::start_time(pid).map_err(|source| Error::Local {
            what: format!("cannot tell which process {pid} is"),
            source,
        })?;
        Ok(Subject::Process {
            pid,
            start_time,
            uid,
        })
    }

    /// The sender of a message; `None` for a message without a sender, which no bus delivers.
    pub fn from_header(header: &Header<'_>) -> Option<Subject> {
        header
            .sender()
            .map(|name| Subject::BusName(name.to_string()))
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    /// Allowed after authentication, which the caller did not permit us to ask for.
    Challenge,
    /// A sentence for the caller: who or what said no.
    Denied(String),
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        *self == Decision::Allowed
    }
}

/// The way to polkit.
#[derive(Debug)]
pub struct Authority {
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The connection of the bus face.
    Given(Connection),
    /// Opened at the first question: a host whose only caller is root never needs it.
    Own(Mutex<Option<Connection>>),
}

impl Authority {
    /// Asks through a connection of its own to the system bus.
    pub fn system() -> Authority {
        Authority {
            source: Source::Own(Mutex::new(None)),
        }
    }

    /// Asks through this connection.
    pub fn on(connection: Connection) -> Authority {
        Authority {
            source: Source::Given(connection),
        }
    }

    /// Whether `subject` may do `action`. `details` are for the administrator's rules and for the
    /// dialog; `interactive` says that the caller is willing to wait for a person.
    pub async fn check(
        &self,
        subject: &Subject,
        action: &str,
        details: &[(&str, &str)],
        interactive: bool,
    ) -> Decision {
        if matches!(subject, Subject::Process { uid: 0, .. }) {
            return Decision::Allowed;
        }
        let connection = match self.connection().await {
            Ok(connection) => connection,
            Err(error) => return denied_by("the system bus cannot be reached", &error),
        };
        if let Subject::BusName(name) = subject {
            match within(ANSWER_LIMIT, uid_of(&connection, name)).await {
                Ok(0) => return Decision::Allowed,
                Ok(_) => {}
                Err(error) => return denied_by("the caller cannot be identified", &error),
            }
        }
        let limit = if interactive {
            INTERACTIVE_LIMIT
        } else {
            ANSWER_LIMIT
        };
        ask(&connection, subject, action, details, interactive, limit).await
    }

    async fn connection(&self) -> zbus::Result<Connection> {
        let slot = match &self.source {
            Source::Given(connection) => return Ok(connection.clone()),
            Source::Own(slot) => slot,
        };
        let mut slot = slot.lock().await;
        if let Some(connection) = &*slot
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        let connection = within(ANSWER_LIMIT, bus::system_bus()).await?;
        Ok(slot.insert(connection).clone())
    }
}

async fn ask(
    connection: &Connection,
    subject: &Subject,
    action: &str,
    details: &[(&str, &str)],
    interactive: bool,
    limit: Duration,
) -> Decision {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let asked = match polkit_subject(subject) {
        Ok(asked) => asked,
        Err(reason) => return Decision::Denied(reason),
    };
    let proxy = AuthorityProxy::builder(connection)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await;
    let proxy: AuthorityProxy<'static> = match proxy {
        Ok(proxy) => proxy,
        Err(error) => return denied_by("polkit cannot be reached", &error),
    };
    let flags = if interactive {
        CheckAuthorizationFlags::ALLOW_USER_INTERACTION
    } else {
        CheckAuthorizationFlags::empty()
    };
    let ticket = format!("berth-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let details: HashMap<&str, &str> = details.iter().copied().collect();
    let question = proxy.check_authorization(&asked, action, &details, flags, &ticket);
    match tokio::time::timeout(limit, question).await {
        Ok(Ok(answer)) if answer.is_authorized => Decision::Allowed,
        Ok(Ok(answer)) if answer.is_challenge && !interactive => Decision::Challenge,
        Ok(Ok(_)) => Decision::Denied(format!("polkit does not authorize {action}")),
        Ok(Err(error)) => unanswered(action, &error),
        Err(_) => {
            // The dialog must not outlive the question. Nobody waits for the cancellation: whether
            // it arrives changes nothing about the answer.
            tokio::spawn(async move {
                let cancel = proxy.cancel_check_authorization(&ticket);
                let _ = tokio::time::timeout(ANSWER_LIMIT, cancel).await;
            });
            Decision::Denied(format!("polkit did not answer within {limit:?}"))
        }
    }
}

fn polkit_subject(subject: &Subject) -> std::result::Result<PolkitSubject, String> {
    let made = match subject {
        Subject::BusName(name) => {
            // The binding makes this kind of subject from a header only, so it gets one.
            let header = zbus::names::UniqueName::try_from(name.as_str()).and_then(|sender| {
                zbus::Message::method_call("/", "Check")
                    .sender(sender)
                    .build(&())
            });
            match header {
                Ok(message) => PolkitSubject::new_for_message_header(&message.header()),
                Err(error) => return Err(format!("the caller's bus name is not one: {error}")),
            }
        }
        Subject::Process {
            pid,
            start_time,
            uid,
        } => PolkitSubject::new_for_pid(*pid, Some(*start_time), Some(*uid)),
    };
    made.map_err(|error| format!("the caller cannot be named to polkit: {error}"))
}

/// The real uid of a connection, as the bus knows it from the kernel.
async fn uid_of(connection: &Connection, name: &str) -> zbus::Result<u32> {
    let reply = bus::driver(connection, "GetConnectionUnixUser", &name).await?;
    reply.body().deserialize::<u32>()
}

/// Why polkit gave no answer, in words that tell the administrator what to do.
fn unanswered(action: &str, error: &zbus::Error) -> Decision {
    let name = bus::name_and_text(error).map(|(name, _)| name);
    match name.as_deref() {
        Some(
            "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.systemd1.UnitMasked",
        ) => Decision::Denied("polkit is not there, so only root may do this".to_owned()),
        Some("org.freedesktop.PolicyKit1.Error.Failed") => denied_by(
            &format!("polkit cannot decide about {action} (is its policy file installed?)"),
            error,
        ),
        _ => denied_by("polkit gave no answer", error),
    }
}

fn denied_by(what: &str, error: &dyn fmt::Display) -> Decision {
    Decision::Denied(format!("{what}: {error}"))
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = zbus::Result<T>>,
) -> zbus::Result<T> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(fdo::Error::TimedOut("no answer in time".to_owned()).into()))
}

#[cfg(test)]
mod tests;
