//! Errors of this face, and the one table from the engine's kinds to HTTP status codes.

use hyper::StatusCode;
use hyper::header::{HeaderValue, RETRY_AFTER};

use berth_engine::Kind;

use crate::body::Body;
use crate::limits;
use crate::reply::{JSON, response};

/// An answer that says no: a status and one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
    pub(crate) fn page_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "page not found")
    }
    /// `what` is a whole sentence without its end.
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, what)
    }
    pub(crate) fn panicked() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal error: the request's handler failed; see the agent's log",
        )
    }

    /// The response: JSON, or nothing where the status forbids a body.
    pub(crate) fn into_response(self) -> hyper::Response<Body> {
        if self.status == StatusCode::NOT_MODIFIED {
            let mut response = hyper::Response::new(Body::default());
            *response.status_mut() = self.status;
            return response;
        }
        let mut text = serde_json::json!({ "message": self.message }).to_string();
        text.push('\n');
        let mut response = response(self.status, JSON, Body::full(text));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<berth_engine::Error> for Error {
    fn from(error: berth_engine::Error) -> Self {
        Self::new(status_of(error.kind()), error.full_message())
    }
}

/// The HTTP status of a kind of error.
fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Foreign text for a message: control characters escaped, cut to a length that fits a line.
pub(crate) fn quoted(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(limits::QUOTED)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(limits::QUOTED).is_some() {
        out.push('…');
    }
    out
}
