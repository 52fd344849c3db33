//! Why a start failed: the step, the errno and a sentence, as they travel to the agent.

use std::io;

use berth_runtime::protocol::{Stage, StartFailed};

/// Result of a step of the start.
pub(crate) type Outcome<T> = Result<T, StartFailed>;

/// Gives an I/O error its stage and its sentence.
pub(crate) trait At<T> {
    /// `what` names what was being done: "mounting tmpfs on /dev".
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| StartFailed {
            stage,
            errno: error.raw_os_error().unwrap_or(0),
            message: format!("{}: {}", what(), error_text(&error)),
        })
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, stage: Stage, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(io::Error::from).at(stage, what)
    }
}

/// A failure without a system call behind it.
pub(crate) fn fail(stage: Stage, message: impl Into<String>) -> StartFailed {
    StartFailed {
        stage,
        errno: 0,
        message: message.into(),
    }
}

/// The text of an error as Docker's messages have it: lower case, without the number.
pub(crate) fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_name_the_step() {
        let result: io::Result<()> = Err(io::Error::from_raw_os_error(1));
        let failed = result
            .at(Stage::Mount, || "mounting proc on /proc".into())
            .unwrap_err();
        assert_eq!((failed.stage, failed.errno), (Stage::Mount, 1));
        assert_eq!(
            failed.message,
            "mounting proc on /proc: operation not permitted"
        );
    }
}
