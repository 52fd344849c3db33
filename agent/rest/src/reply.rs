//! What a handler answers: an ordinary response, or the connection itself.

use std::fmt;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use crate::body::{Body, Pieces};

pub(crate) const JSON: &str = "application/json";

/// A handler's answer.
#[derive(Debug)]
pub(crate) enum Reply {
    Response(Response<Body>),
    Hijack(Hijack),
}

/// The connection leaves HTTP: `head` is sent as it stands, then `take` gets the socket.
pub(crate) struct Hijack {
    pub(crate) head: Bytes,
    pub(crate) take: Take,
}

/// Receives the client's socket (blocking) and the bytes that were read from it beyond the request.
pub(crate) type Take = Box<dyn FnOnce(OwnedFd, Vec<u8>) -> BoxFuture<'static, ()> + Send>;

impl fmt::Debug for Hijack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hijack")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl Reply {
    /// An answer without a body.
    pub(crate) fn status(status: StatusCode) -> Self {
        let mut response = Response::new(Body::default());
        *response.status_mut() = status;
        Self::Response(response)
    }

    pub(crate) fn no_content() -> Self {
        Self::status(StatusCode::NO_CONTENT)
    }

    /// Bytes of one content type.
    pub(crate) fn bytes(
        status: StatusCode,
        content_type: &'static str,
        bytes: impl Into<Bytes>,
    ) -> Self {
        Self::Response(response(status, content_type, Body::full(bytes)))
    }

    /// JSON text, ended by a newline as Docker's is.
    pub(crate) fn json(status: StatusCode, mut text: Vec<u8>) -> Self {
        text.push(b'\n');
        Self::bytes(status, JSON, text)
    }

    /// A stream whose head is sent at once.
    pub(crate) fn stream(content_type: &'static str, pieces: Pieces) -> Self {
        Self::Response(response(StatusCode::OK, content_type, Body::stream(pieces)))
    }
}

pub(crate) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: Body,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
