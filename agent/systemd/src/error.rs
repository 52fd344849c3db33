//! What can go wrong between the agent and the service manager.

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the service manager's side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither the system bus nor the manager's private socket answers.
    #[error("cannot reach the service manager (bus: {bus}; private socket: {private})")]
    Unreachable { bus: String, private: String },
    /// The system bus cannot be reached.
    #[error("cannot reach the system bus")]
    Bus(#[source] zbus::Error),
    /// The manager answered a call with an error that this crate has no better word for.
    #[error("the service manager refused {call} for {unit}")]
    Refused {
        call: &'static str,
        unit: String,
        #[source]
        source: zbus::Error,
    },
    /// A reply that does not have the documented form.
    #[error("the service manager's answer to {call} cannot be read")]
    Malformed {
        call: &'static str,
        #[source]
        source: zbus::Error,
    },
    /// The job ended, but not with `done`.
    #[error("starting {unit} failed: the job's result is {result}")]
    JobFailed { unit: String, result: String },
    /// The manager did not finish within the limit.
    #[error("{unit} was not started within {seconds} seconds")]
    Timeout { unit: String, seconds: u64 },
    /// A unit of that name is there and will not go away.
    #[error("unit {unit} exists already")]
    UnitExists { unit: String },
    /// There is no such unit.
    #[error("no such unit: {unit}")]
    NoSuchUnit { unit: String },
    /// The process that was to be the unit's first had ended.
    #[error("process {pid} ended before it could join {unit}")]
    ProcessGone { unit: String, pid: u32 },
    /// The job is done, but the process is somewhere else: limits would bind someone else.
    #[error("process {pid} is in control group {seen}, not in {unit}")]
    ScopeMismatch {
        unit: String,
        pid: u32,
        seen: String,
    },
    /// This systemd does not know a property that a scope of ours cannot do without.
    #[error("this systemd does not know the unit property {property}, which {unit} needs")]
    MissingProperty { unit: String, property: String },
    /// A name that no unit can have.
    #[error("invalid unit name {0:?}")]
    InvalidUnitName(String),
    /// Something of the process's own (procfs, environment, a descriptor).
    #[error("{what}")]
    Local {
        what: String,
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whether trying later may help: the manager or the bus is away, nothing is wrong with the
    /// request.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Bus(_) | Error::Timeout { .. } => true,
            Error::Refused { source, .. } => crate::bus::is_away(source),
            _ => false,
        }
    }
}
