//! The one error that leaves the engine: what a caller can act on (the kind), a sentence, the cause.
//! Faces map the kind once: HTTP status in `rest`, bus error name in `dbus`.

use std::error::Error as StdError;
use std::fmt;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The object named does not exist.
    NotFound,
    /// The object's state, or another object, stands in the way.
    Conflict,
    /// The request is wrong and will be wrong again.
    Invalid,
    /// The object is already as asked.
    NotModified,
    /// The caller may not.
    Denied,
    /// Right in itself, but not served by this version of berth.
    Unsupported,
    /// Something outside (disk, manager, bus) cannot serve now.
    Unavailable,
    /// A fault of ours or of the machine.
    Internal,
}

/// What kind of object an error is about: faces with an error name per object use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Subject {
    #[default]
    None,
    Container,
    Image,
    Network,
    Volume,
    Exec,
    Job,
}

/// An error of the engine.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    subject: Subject,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` whose `message` is a sentence for the user.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            subject: Subject::None,
            message: message.into(),
            source: None,
        }
    }
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }
    pub fn not_modified(message: impl Into<String>) -> Self {
        Self::new(Kind::NotModified, message)
    }
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }
    /// The same error, about an object of this kind.
    #[must_use]
    pub fn about(mut self, subject: Subject) -> Self {
        self.subject = subject;
        self
    }
    /// The same error with its cause; the cause's text is not repeated in the message.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
    pub fn kind(&self) -> Kind {
        self.kind
    }
    pub fn subject(&self) -> Subject {
        self.subject
    }
    /// The sentence, followed by its chain of causes: what a client reads.
    pub fn full_message(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_deref().map(|s| s as &dyn StdError);
        while let Some(error) = cause {
            let part = error.to_string();
            if !part.is_empty() && !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|s| s as &(dyn StdError + 'static))
    }
}
