//! What can go wrong at rest: every variant names its object and says what a caller can act on.

use std::io;

use berth_model::digest::Digest;

/// The store's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The image or snapshot named does not exist.
    NotFound,
    /// The input is wrong and will be wrong again.
    Invalid,
    /// Something else stands in the way: the name is taken, the store is in use.
    Conflict,
    /// Right in itself, but not served.
    Unsupported,
    /// The disk is full, or would be.
    NoSpace,
    /// A fault of ours or of the machine.
    Internal,
}

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("image {0} does not exist")]
    NoImage(Digest),
    #[error("snapshot {0} does not exist")]
    NoSnapshot(String),
    #[error("snapshot {0} exists already")]
    SnapshotExists(String),
    #[error("snapshot {0} is being made")]
    SnapshotBusy(String),
    #[error(
        "{0:?} is no snapshot name: letters, digits, '_', '.' and '-', beginning with a letter or digit"
    )]
    SnapshotName(String),
    #[error("another agent uses the data root {0}")]
    InUse(String),
    /// The archive, or something in it, is not as it must be.
    #[error("{what}: {why}")]
    Archive { what: String, why: String },
    /// Bytes are not those that their name promised.
    #[error("{what} has digest {found}, expected {expected}")]
    Mismatch {
        what: String,
        expected: Digest,
        found: Digest,
    },
    #[error("{what}: {why}")]
    Unsupported { what: String, why: String },
    #[error("{what}: no space left on device (needs {needs}, has {has})")]
    NoSpace { what: String, needs: u64, has: u64 },
    /// The reader that the caller handed in failed: the client went away, mostly.
    #[error("cannot read {what}")]
    Input {
        what: String,
        #[source]
        source: io::Error,
    },
    /// The writer that the caller handed in failed.
    #[error("cannot write the archive")]
    Output(#[source] io::Error),
    #[error(
        "snapshot {0} was mounted without writeback when the host went down: its contents may be damaged"
    )]
    Volatile(String),
    #[error("{what} is damaged: {why}")]
    Damaged { what: String, why: String },
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NoImage(_) | Error::NoSnapshot(_) => ErrorKind::NotFound,
            Error::SnapshotExists(_) | Error::SnapshotBusy(_) | Error::InUse(_) => {
                ErrorKind::Conflict
            }
            Error::SnapshotName(_)
            | Error::Archive { .. }
            | Error::Mismatch { .. }
            | Error::Input { .. } => ErrorKind::Invalid,
            Error::Unsupported { .. } => ErrorKind::Unsupported,
            Error::NoSpace { .. } => ErrorKind::NoSpace,
            Error::Io { source, .. } if is_full(source) => ErrorKind::NoSpace,
            Error::Output(_) | Error::Volatile(_) | Error::Damaged { .. } | Error::Io { .. } => {
                ErrorKind::Internal
            }
        }
    }

    pub(crate) fn archive(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Archive {
            what: what.into(),
            why: why.into(),
        }
    }

    pub(crate) fn unsupported(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Unsupported {
            what: what.into(),
            why: why.into(),
        }
    }

    pub(crate) fn damaged(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Damaged {
            what: what.into(),
            why: why.into(),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Turns an I/O error into ours, with what was being done (`read layer …`, `make directory …`).
pub(crate) trait Context<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            what: what(),
            source,
        })
    }
}

/// A name from outside as a message may show it: one line, escaped, cut.
pub(crate) fn shown(name: &[u8]) -> String {
    let mut text: String = String::from_utf8_lossy(name)
        .chars()
        .flat_map(char::escape_debug)
        .collect();
    if text.len() > 100 {
        let cut = (0..=100)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}
