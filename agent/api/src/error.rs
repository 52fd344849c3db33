//! Errors as HTTP answers: the status of each kind, and how old versions were told.

use berth_engine::{Error, Kind};
use serde_json::json;

use crate::version::ApiVersion;

/// What was asked for, where the status of an error depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Operation {
    Start,
    Stop,
    Restart,
    Kill,
    Remove,
    #[default]
    Other,
}

/// An answer that tells an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply {
    pub status: u16,
    /// None: the answer has no body.
    pub content_type: Option<&'static str>,
    pub body: Vec<u8>,
}

/// The status of a kind, version differences aside.
pub fn status(kind: Kind) -> u16 {
    match kind {
        Kind::NotFound => 404,
        Kind::Conflict => 409,
        Kind::Invalid => 400,
        Kind::NotModified => 304,
        Kind::Denied => 403,
        Kind::Unsupported => 501,
        Kind::Unavailable => 503,
        Kind::Internal => 500,
    }
}

/// The answer for an operation that failed, or did nothing.
///
/// Before 1.13 starting what runs and stopping what does not answered 204 like a success; killing
/// what does not run did so until 1.19. Removing what runs was a 406 before 1.13. Where 1.12 answered
/// 500 for a wrong request or an unknown container, the newer status is used: no client depends on
/// being told less.
pub fn reply(operation: Operation, error: &Error, version: ApiVersion) -> ErrorReply {
    let empty = |status| ErrorReply {
        status,
        content_type: None,
        body: Vec::new(),
    };
    let status = match (operation, error.kind()) {
        (Operation::Start | Operation::Stop | Operation::Restart, Kind::NotModified)
            if !version.at_least(13) =>
        {
            return empty(204);
        }
        (Operation::Kill, Kind::Conflict | Kind::NotModified) if !version.at_least(20) => {
            return empty(204);
        }
        (_, Kind::NotModified) => return empty(304),
        (Operation::Remove, Kind::Conflict) if !version.at_least(13) => 406,
        (_, kind) => status(kind),
    };
    let (content_type, body) = body(&error.full_message(), version);
    ErrorReply {
        status,
        content_type: Some(content_type),
        body,
    }
}

/// An error's body: JSON since 1.24, a line of text before.
pub fn body(message: &str, version: ApiVersion) -> (&'static str, Vec<u8>) {
    if version.at_least(24) {
        let mut body = json!({ "message": message }).to_string();
        body.push('\n');
        ("application/json", body.into_bytes())
    } else {
        (
            "text/plain; charset=utf-8",
            format!("{message}\n").into_bytes(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_12: ApiVersion = ApiVersion::new(1, 12);

    #[test]
    fn kinds_have_their_status() {
        let error = Error::not_found("No such container: x");
        let new = reply(Operation::Other, &error, ApiVersion::MAX);
        assert_eq!(new.status, 404);
        assert_eq!(new.content_type, Some("application/json"));
        assert_eq!(new.body, b"{\"message\":\"No such container: x\"}\n");
        let old = reply(Operation::Other, &error, ApiVersion::new(1, 23));
        assert_eq!(old.content_type, Some("text/plain; charset=utf-8"));
        assert_eq!(old.body, b"No such container: x\n");
    }

    #[test]
    fn doing_nothing_was_a_success_once() {
        let error = Error::not_modified("container x is already running");
        for operation in [Operation::Start, Operation::Stop] {
            assert_eq!(reply(operation, &error, V1_12).status, 204);
            let new = reply(operation, &error, ApiVersion::new(1, 13));
            assert_eq!(
                (new.status, new.body.len(), new.content_type),
                (304, 0, None)
            );
        }
    }

    #[test]
    fn conflicts_of_old() {
        let error = Error::conflict("container x is running");
        let status = |operation, minor| reply(operation, &error, ApiVersion::new(1, minor)).status;
        assert_eq!(status(Operation::Kill, 19), 204);
        assert_eq!(status(Operation::Kill, 20), 409);
        assert_eq!(status(Operation::Remove, 12), 406);
        assert_eq!(status(Operation::Remove, 13), 409);
        assert_eq!(status(Operation::Other, 12), 409);
    }
}
