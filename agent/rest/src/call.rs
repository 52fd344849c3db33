//! One routed request, as handlers see it, and how a handler fails.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::Version;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, UPGRADE};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use berth_api::query::Query;
use berth_api::version::ApiVersion;
use berth_engine::Engine;

use crate::error::{Error, quoted};
use crate::intake::read_whole;
use crate::limits;
use crate::reply::Reply;
use crate::service::Identity;
use crate::stream::BodyReader;

/// What a handler gives back.
pub(crate) type Outcome = Result<Reply, Failure>;

/// Why a handler could not do it: the engine's reason, or this face's.
#[derive(Debug)]
pub(crate) enum Failure {
    Engine(berth_engine::Error),
    Face(Error),
}

impl From<berth_engine::Error> for Failure {
    fn from(error: berth_engine::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Face(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Face(Error::new(
            hyper::StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        ))
    }
}

/// A request that has found its handler.
pub(crate) struct Call {
    pub(crate) engine: Engine,
    pub(crate) version: ApiVersion,
    /// The path's variable, decoded; empty where the path has none.
    pub(crate) name: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) identity: Arc<Identity>,
    /// The body is taken once.
    body: Option<Incoming>,
    http: Version,
    streams: Arc<Semaphore>,
}

impl Call {
    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of one request, put together in one place"
    )]
    pub(crate) fn new(
        engine: Engine,
        version: ApiVersion,
        name: String,
        query: Query,
        head: hyper::http::request::Parts,
        body: Incoming,
        identity: Arc<Identity>,
        streams: Arc<Semaphore>,
    ) -> Self {
        Self {
            engine,
            version,
            name,
            query,
            headers: head.headers,
            identity,
            body: Some(body),
            http: head.version,
            streams,
        }
    }

    /// The content type as sent, when it is text.
    pub(crate) fn content_type(&self) -> Option<&str> {
        self.headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
    }

    /// Whether the client offers to leave HTTP for a plain stream.
    pub(crate) fn wants_upgrade(&self) -> bool {
        let offers = |value: &hyper::header::HeaderValue| {
            value.to_str().is_ok_and(|list| {
                list.split(',')
                    .any(|name| name.trim().eq_ignore_ascii_case("tcp"))
            })
        };
        self.http == Version::HTTP_11 && self.headers.get_all(UPGRADE).iter().any(offers)
    }

    /// Whether there is, or may come, a body.
    pub(crate) fn has_body(&self) -> bool {
        self.body.as_ref().is_some_and(|body| !body.is_end_stream())
    }

    /// The whole body, whatever its type.
    pub(crate) async fn whole_body(&mut self) -> Result<Bytes, Error> {
        match self.body.take() {
            Some(body) => read_whole(body, limits::JSON_BODY).await,
            None => Ok(Bytes::new()),
        }
    }

    /// The whole body, which has to say that it is JSON: a form that a web page sends does not.
    pub(crate) async fn json_body(&mut self) -> Result<Bytes, Error> {
        let body = self.whole_body().await?;
        let kind = self.content_type().unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !body.is_empty() && !essence.eq_ignore_ascii_case(crate::reply::JSON) {
            let message = format!(
                "unsupported Content-Type header ({}): must be 'application/json'",
                quoted(kind)
            );
            return Err(Error::bad_request(message));
        }
        Ok(body)
    }

    /// The body as a blocking reader.
    pub(crate) fn body_reader(&mut self) -> Option<BodyReader> {
        self.body.take().map(BodyReader::start)
    }

    /// The body piece by piece.
    pub(crate) fn body_pieces(&mut self) -> Option<http_body_util::BodyDataStream<Incoming>> {
        self.body.take().map(BodyExt::into_data_stream)
    }

    /// Waits for one of the threads that archives may occupy.
    pub(crate) async fn archive_slot(&self) -> Result<OwnedSemaphorePermit, Error> {
        let unavailable = |_| {
            Error::new(
                hyper::StatusCode::SERVICE_UNAVAILABLE,
                "the agent is shutting down",
            )
        };
        self.streams
            .clone()
            .acquire_owned()
            .await
            .map_err(unavailable)
    }
}
