//! From a request to its handler and back: the checks that come first, the wait for an engine that is
//! still opening, the route, the handler's life, and the shape of what it answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, StatusCode};
use tokio::sync::{Semaphore, watch};
use tracing::Instrument;

use berth_api::error::Operation;
use berth_api::query::Query;
use berth_api::version::ApiVersion;
use berth_engine::{Busy, Engine};

use crate::access;
use crate::body::Body;
use crate::call::{Call, Failure, Outcome};
use crate::connection::Inbound;
use crate::error::{Error, quoted};
use crate::intake;
use crate::limits;
use crate::reply::{Hijack, Reply, response};
use crate::router::{Lifetime, Router, decode, split_version};
use crate::routes::{self, Handler, Route, Serve};
use crate::server::{App, Panics};

/// What stands behind the face now.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Not known yet: requests wait.
    Opening,
    Ready(Engine),
    /// Every request is answered with 503 and this reason.
    Unavailable(String),
}

/// Who answers, for headers and `/version`.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) version: String,
    pub(crate) commit: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Identity {
    pub(crate) fn new(version: &str, commit: &str) -> Self {
        let headers = header_pairs(berth_api::system::common_headers(version));
        Self {
            version: version.to_owned(),
            commit: commit.to_owned(),
            headers,
        }
    }
}

/// Headers from their text; what is no header is left out.
pub(crate) fn header_pairs(pairs: Vec<(&'static str, String)>) -> Vec<(HeaderName, HeaderValue)> {
    let pair = |(name, value): (&'static str, String)| {
        Some((
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::try_from(value).ok()?,
        ))
    };
    pairs.into_iter().filter_map(pair).collect()
}

/// The API in front of an engine.
pub(crate) struct Api {
    context: Arc<Context>,
}

struct Context {
    backend: watch::Receiver<Backend>,
    routes: Router<Route>,
    identity: Arc<Identity>,
    streams: Arc<Semaphore>,
    /// Requests whose work is carried through even when their client leaves.
    working: watch::Sender<usize>,
    panics: Panics,
}

/// Counted in `working` while it lives.
struct Working(Arc<Context>);

impl Working {
    fn new(context: &Arc<Context>) -> Self {
        context.working.send_modify(|count| *count += 1);
        Self(context.clone())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.send_modify(|count| *count -= 1);
    }
}

impl Api {
    pub(crate) fn new(
        identity: Identity,
        backend: watch::Receiver<Backend>,
        panics: Panics,
    ) -> Self {
        let context = Context {
            backend,
            routes: routes::table(),
            identity: Arc::new(identity),
            streams: Arc::new(Semaphore::new(limits::BLOCKING_STREAMS)),
            working: watch::Sender::new(0),
            panics,
        };
        Self {
            context: Arc::new(context),
        }
    }

    /// The number of requests at work that have an effect.
    pub(crate) fn working(&self) -> watch::Receiver<usize> {
        self.context.working.subscribe()
    }
}

impl App for Api {
    fn call(&self, inbound: Inbound) -> BoxFuture<'static, Result<Reply, Error>> {
        let context = self.context.clone();
        async move { serve(context, inbound).await }.boxed()
    }

    fn decorate(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.context.identity.headers {
            if !headers.contains_key(name) {
                headers.insert(name.clone(), value.clone());
            }
        }
    }
}

async fn serve(context: Arc<Context>, inbound: Inbound) -> Result<Reply, Error> {
    let Inbound { head, body, link } = inbound;
    access::check(&head, &link.peer)?;
    if head.method == Method::OPTIONS {
        return Ok(Reply::status(StatusCode::OK));
    }
    let engine = match engine(&context.backend).await {
        Ok(engine) => engine,
        Err(error) => {
            intake::discard(body).await;
            return Err(error);
        }
    };
    let busy = engine.busy();

    let path = head.uri.path().to_owned();
    let Found {
        version,
        name,
        handler,
        lifetime,
        operation,
    } = match route(&context.routes, &head.method, &path) {
        Ok(found) => found,
        Err((failure, version)) => {
            intake::discard(body).await;
            return Ok(refuse(failure, Operation::Other, version));
        }
    };
    let query = Query::parse(head.uri.query());
    let span = tracing::info_span!("request", method = %head.method, path, peer = %link.peer);
    let streams = context.streams.clone();
    let call = Call::new(
        engine.clone(),
        version,
        name,
        query,
        head,
        body,
        context.identity.clone(),
        streams,
    );

    let work = handler(call).instrument(span);
    let outcome = match lifetime {
        Lifetime::Client => work.await,
        Lifetime::Finish => carry_through(&context, &engine, work).await,
    };
    let reply = outcome.unwrap_or_else(|failure| refuse(failure, operation, version));
    Ok(hold(reply, busy))
}

/// Where a request goes.
struct Found {
    version: ApiVersion,
    name: String,
    handler: Handler,
    lifetime: Lifetime,
    operation: Operation,
}

/// Finds the handler for a path, or the refusal and the version to word it in.
fn route(
    routes: &Router<Route>,
    method: &Method,
    path: &str,
) -> Result<Found, (Failure, ApiVersion)> {
    let (version, path) = split_version(path);
    let version = ApiVersion::from_path(version)
        .map_err(|error| (Failure::Engine(error), ApiVersion::MAX))?;
    let refused = |error: Error| (Failure::Face(error), version);

    let found = routes
        .find(method, path)
        .filter(|(route, _)| version >= route.since);
    let (route, name) = found.ok_or_else(|| refused(Error::page_not_found()))?;
    match route.serve {
        Serve::Handler {
            handler,
            lifetime,
            operation,
        } => {
            let invalid = || refused(Error::bad_request(format!("invalid path {}", quoted(path))));
            let name = decode(name).ok_or_else(invalid)?;
            Ok(Found {
                version,
                name,
                handler,
                lifetime,
                operation,
            })
        }
        Serve::NotYet(what) => Err(refused(Error::unsupported(format!(
            "{what} not supported by this version of berth"
        )))),
        Serve::Gone(message) => Err(refused(Error::new(StatusCode::NOT_FOUND, message))),
    }
}

/// The engine, once it is known whether there is one.
async fn engine(backend: &watch::Receiver<Backend>) -> Result<Engine, Error> {
    let mut backend = backend.clone();
    let known = backend
        .wait_for(|backend| !matches!(backend, Backend::Opening))
        .await;
    match known.as_deref() {
        Ok(Backend::Ready(engine)) => Ok(engine.clone()),
        Ok(Backend::Unavailable(reason)) => {
            Err(Error::new(StatusCode::SERVICE_UNAVAILABLE, reason.clone()))
        }
        Ok(Backend::Opening) | Err(_) => Err(Error::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the agent is shutting down",
        )),
    }
}

/// Runs `work` to its end although its client may leave.
async fn carry_through(
    context: &Arc<Context>,
    engine: &Engine,
    work: impl Future<Output = Outcome> + Send + 'static,
) -> Outcome {
    let (working, busy, panics) = (Working::new(context), engine.busy(), context.panics.clone());
    let task = tokio::spawn(async move {
        let _held = (working, busy);
        let outcome = AssertUnwindSafe(work).catch_unwind().await;
        // Counted here: the client, and with it whoever awaits this, may be gone.
        outcome.unwrap_or_else(|_| {
            panics.count();
            Err(Error::panicked().into())
        })
    });
    // The task catches its panics and nobody aborts it; only the runtime's own end can.
    task.await.unwrap_or_else(|_| Err(Error::panicked().into()))
}

/// The answer for a failure, in the words of the client's version.
fn refuse(failure: Failure, operation: Operation, version: ApiVersion) -> Reply {
    let (status, content_type, body) = match failure {
        Failure::Engine(error) => {
            let reply = berth_api::error::reply(operation, &error, version);
            let status =
                StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, reply.content_type, reply.body)
        }
        Failure::Face(error) => {
            let (content_type, body) = berth_api::error::body(&error.message, version);
            (error.status, Some(content_type), body)
        }
    };
    if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
        let message = String::from_utf8_lossy(&body);
        tracing::warn!(
            status = status.as_u16(),
            message = message.trim_end(),
            "request failed"
        );
    }
    let mut response = match content_type {
        Some(content_type) => response(status, content_type, Body::full(body)),
        None => {
            let mut response = hyper::Response::new(Body::full(body));
            *response.status_mut() = status;
            response
        }
    };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Reply::Response(response)
}

/// The agent is busy until the answer is out, or the connection handed over.
fn hold(reply: Reply, busy: Busy) -> Reply {
    match reply {
        Reply::Response(mut response) => {
            response.body_mut().hold(busy);
            Reply::Response(response)
        }
        Reply::Hijack(Hijack { head, take }) => Reply::Hijack(Hijack {
            head,
            take: Box::new(move |fd, initial| {
                async move {
                    let _busy = busy;
                    take(fd, initial).await;
                }
                .boxed()
            }),
        }),
    }
}

#[cfg(test)]
mod tests;
