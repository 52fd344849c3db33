//! Error names on the bus, in one table. A client acts on the name; the text is one line for people.

use zbus::names::ErrorName;
use zbus::{DBusError, Message, message};

use berth_engine::{Error, Kind, Subject};

/// What a caller is doing: the same kind of error has another name for another verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Look,
    Inspect,
    Subscribe,
    Wait,
    Create,
    Start,
    Stop,
    Restart,
    Kill,
    Pause,
    Unpause,
    Rename,
    Remove,
}

impl Verb {
    pub(crate) const ALL: [Verb; 13] = [
        Verb::Look,
        Verb::Inspect,
        Verb::Subscribe,
        Verb::Wait,
        Verb::Create,
        Verb::Start,
        Verb::Stop,
        Verb::Restart,
        Verb::Kill,
        Verb::Pause,
        Verb::Unpause,
        Verb::Rename,
        Verb::Remove,
    ];

    /// The word in polkit details, in a job's `Type` and in `CanDo`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verb::Look => "look",
            Verb::Inspect => "inspect",
            Verb::Subscribe => "subscribe",
            Verb::Wait => "wait",
            Verb::Create => "create",
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Restart => "restart",
            Verb::Kill => "kill",
            Verb::Pause => "pause",
            Verb::Unpause => "unpause",
            Verb::Rename => "rename",
            Verb::Remove => "remove",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.as_str() == word)
    }
}

/// An error as it goes to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BusError {
    name: &'static str,
    message: String,
}

pub(crate) type Result<T, E = BusError> = std::result::Result<T, E>;

macro_rules! ours {
    ($name:literal) => {
        concat!("org.berth.Agent1.Error.", $name)
    };
}

macro_rules! standard {
    ($name:literal) => {
        concat!("org.freedesktop.DBus.Error.", $name)
    };
}

/// The table.
fn name_of(kind: Kind, subject: Subject, verb: Verb) -> &'static str {
    match (kind, subject, verb) {
        (Kind::NotFound, Subject::Container, _) => ours!("NoSuchContainer"),
        (Kind::NotFound, Subject::Image, _) => ours!("NoSuchImage"),
        (Kind::NotFound, Subject::Network, _) => ours!("NoSuchNetwork"),
        (Kind::NotFound, Subject::Volume, _) => ours!("NoSuchVolume"),
        (Kind::NotFound, Subject::Exec, _) => ours!("NoSuchExec"),
        (Kind::NotFound, Subject::Job, _) => ours!("NoSuchJob"),
        (Kind::NotFound, Subject::None, _) => ours!("NotFound"),
        (Kind::Conflict, Subject::Image, _) => ours!("ImageInUse"),
        (Kind::Conflict, Subject::Network, _) => ours!("NetworkInUse"),
        (Kind::Conflict, Subject::Volume, _) => ours!("VolumeInUse"),
        (Kind::Conflict, _, Verb::Create | Verb::Rename) => ours!("NameInUse"),
        (Kind::Conflict, _, Verb::Remove) => ours!("ContainerRunning"),
        (Kind::Conflict, _, Verb::Kill | Verb::Pause | Verb::Stop | Verb::Restart) => {
            ours!("NotRunning")
        }
        (Kind::Conflict, _, _) => ours!("Conflict"),
        (Kind::NotModified, _, Verb::Start) => ours!("ContainerRunning"),
        (Kind::NotModified, _, Verb::Stop) => ours!("NotRunning"),
        (Kind::NotModified, _, _) => ours!("NotModified"),
        (Kind::Invalid, Subject::Image, _) => ours!("InvalidReference"),
        (Kind::Invalid, _, Verb::Create) => ours!("InvalidSpec"),
        (Kind::Invalid, _, _) => standard!("InvalidArgs"),
        (Kind::Denied, _, _) => standard!("AccessDenied"),
        (Kind::Unsupported, _, _) => standard!("NotSupported"),
        (Kind::Unavailable, _, _) => ours!("Unavailable"),
        (Kind::Internal, _, _) => standard!("Failed"),
    }
}

impl BusError {
    /// What the engine said, under the name that fits what the caller was doing.
    pub(crate) fn from_engine(error: &Error, verb: Verb) -> BusError {
        BusError {
            name: name_of(error.kind(), error.subject(), verb),
            message: one_line(&error.full_message()),
        }
    }

    pub(crate) fn no_such_container(what: impl std::fmt::Display) -> BusError {
        BusError::new(
            ours!("NoSuchContainer"),
            format!("no such container: {what}"),
        )
    }

    pub(crate) fn no_such_job(id: u32) -> BusError {
        BusError::new(ours!("NoSuchJob"), format!("no such job: {id}"))
    }

    pub(crate) fn unsupported_option(text: String) -> BusError {
        BusError::new(ours!("UnsupportedOption"), text)
    }

    pub(crate) fn limit_reached(text: impl Into<String>) -> BusError {
        BusError::new(ours!("LimitReached"), text)
    }

    pub(crate) fn leaving() -> BusError {
        BusError::new(ours!("Draining"), "the agent is leaving, call again")
    }

    pub(crate) fn canceled() -> BusError {
        BusError::new(ours!("Canceled"), "the caller has left the bus")
    }

    pub(crate) fn invalid(text: impl Into<String>) -> BusError {
        BusError::new(standard!("InvalidArgs"), text)
    }

    pub(crate) fn not_supported(text: impl Into<String>) -> BusError {
        BusError::new(standard!("NotSupported"), text)
    }

    pub(crate) fn denied(text: impl Into<String>) -> BusError {
        BusError::new(standard!("AccessDenied"), text)
    }

    pub(crate) fn needs_interaction() -> BusError {
        BusError::new(
            standard!("InteractiveAuthorizationRequired"),
            "interactive authentication required",
        )
    }

    pub(crate) fn failed(text: impl Into<String>) -> BusError {
        BusError::new(standard!("Failed"), text)
    }

    fn new(name: &'static str, message: impl Into<String>) -> BusError {
        BusError {
            name,
            message: one_line(&message.into()),
        }
    }

    /// `NAME: text`, for the signal that ends a job.
    pub(crate) fn in_one(&self) -> String {
        format!("{}: {}", self.name, self.message)
    }
}

impl DBusError for BusError {
    fn create_reply(&self, call: &message::Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name).build(&self.message)
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_static_str_unchecked(self.name)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.message)
    }
}

/// Errors of the bus itself while a method works on it.
impl From<zbus::Error> for BusError {
    fn from(error: zbus::Error) -> Self {
        BusError::failed(error.to_string())
    }
}

fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 8] = [
        Kind::NotFound,
        Kind::Conflict,
        Kind::Invalid,
        Kind::NotModified,
        Kind::Denied,
        Kind::Unsupported,
        Kind::Unavailable,
        Kind::Internal,
    ];

    const SUBJECTS: [Subject; 7] = [
        Subject::None,
        Subject::Container,
        Subject::Image,
        Subject::Network,
        Subject::Volume,
        Subject::Exec,
        Subject::Job,
    ];

    #[test]
    fn every_error_has_a_valid_name() {
        for kind in KINDS {
            for subject in SUBJECTS {
                for verb in Verb::ALL {
                    let name = name_of(kind, subject, verb);
                    ErrorName::try_from(name).unwrap();
                }
            }
        }
    }

    #[test]
    fn the_names_clients_act_on() {
        for (kind, subject, verb, want) in [
            (
                Kind::NotFound,
                Subject::Container,
                Verb::Start,
                ours!("NoSuchContainer"),
            ),
            (
                Kind::NotFound,
                Subject::Image,
                Verb::Create,
                ours!("NoSuchImage"),
            ),
            (
                Kind::Conflict,
                Subject::Container,
                Verb::Create,
                ours!("NameInUse"),
            ),
            (
                Kind::Conflict,
                Subject::Container,
                Verb::Remove,
                ours!("ContainerRunning"),
            ),
            (
                Kind::Conflict,
                Subject::Container,
                Verb::Kill,
                ours!("NotRunning"),
            ),
            (
                Kind::NotModified,
                Subject::Container,
                Verb::Start,
                ours!("ContainerRunning"),
            ),
            (
                Kind::NotModified,
                Subject::Container,
                Verb::Stop,
                ours!("NotRunning"),
            ),
            (
                Kind::Invalid,
                Subject::None,
                Verb::Create,
                ours!("InvalidSpec"),
            ),
            (
                Kind::Unsupported,
                Subject::None,
                Verb::Create,
                standard!("NotSupported"),
            ),
            (
                Kind::Denied,
                Subject::None,
                Verb::Kill,
                standard!("AccessDenied"),
            ),
        ] {
            assert_eq!(name_of(kind, subject, verb), want);
        }
    }

    #[test]
    fn texts_stay_on_one_line() {
        let error = Error::internal("a\nb").with_source(std::io::Error::other("c\0d"));
        let error = BusError::from_engine(&error, Verb::Look);
        assert_eq!(
            error.in_one(),
            "org.freedesktop.DBus.Error.Failed: a b: c d"
        );
    }

    #[test]
    fn verbs_are_read_back() {
        for verb in Verb::ALL {
            assert_eq!(Verb::parse(verb.as_str()), Some(verb));
        }
        assert_eq!(Verb::parse("exec"), None);
    }
}
