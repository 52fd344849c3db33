//! One connection from its acceptance to its end: hyper reads requests from it one after the other,
//! and around hyper this module sees that a client that vanished ends the work behind it, that a drain
//! loses no request, and that a hijacked connection is handed over with nothing missing or said twice.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Instant;

use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;

use crate::body::Body;
use crate::error::Error;
use crate::limits;
use crate::reply::{Hijack, Reply};
use crate::server::{Phase, Shared};
use crate::socket::{Flushed, Peer, Probe, Socket, Stream};

/// A request as it came, and the connection it came on.
pub(crate) struct Inbound {
    pub(crate) head: hyper::http::request::Parts,
    pub(crate) body: Incoming,
    pub(crate) link: Arc<Link>,
}

/// What requests know of their connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: Peer,
    /// Requests whose answer is not fully written.
    open: AtomicUsize,
    /// Whether there was a request yet.
    used: AtomicBool,
    hijack: Mutex<Option<Hijack>>,
    flushed: Flushed,
}

impl Link {
    fn new(peer: Peer) -> Self {
        Self {
            peer,
            open: AtomicUsize::new(0),
            used: AtomicBool::new(false),
            hijack: Mutex::new(None),
            flushed: Flushed::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    fn is_fresh(&self) -> bool {
        !self.used.load(Ordering::Acquire)
    }

    /// Leaves the connection to whoever drives it.
    fn hijack(&self, hijack: Hijack) {
        *self.hijack.lock().unwrap_or_else(PoisonError::into_inner) = Some(hijack);
    }

    /// The hijack asked for, once everything written before it has left.
    fn take_hijack(&self) -> Option<Hijack> {
        if !self.flushed.get() {
            return None;
        }
        self.hijack
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Counts a request until its answer's body is dropped.
struct OpenRequest(Arc<Link>);

impl OpenRequest {
    fn new(link: &Arc<Link>) -> Self {
        link.open.fetch_add(1, Ordering::AcqRel);
        link.used.store(true, Ordering::Release);
        Self(link.clone())
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What ended hyper's turn.
enum Turn {
    Ended(hyper::Result<()>),
    Hijacked(Hijack),
    Vanished,
    Phase(Phase),
    /// A connection that never said anything had its time to.
    NothingCame,
}

fn builder(half_close: bool) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // A unix client may shut its write side and wait; that it is gone shows as a hang-up. On TCP
        // both look the same, so there the end of what it sends is the end of the client.
        .half_close(half_close)
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIMEOUT)
        .max_headers(limits::HEADER_COUNT)
        .max_header_size(limits::HEADER_BYTES)
        .max_buf_size(limits::CONNECTION_BUFFER)
        // Old clients compare names with their case.
        .title_case_headers(true);
    builder
}

/// Serves one connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, socket: Socket) {
    let probe = match socket.probe() {
        Ok(probe) => probe,
        Err(error) => {
            tracing::warn!(%error, "a connection cannot be watched and is closed");
            return;
        }
    };
    let link = Arc::new(Link::new(socket.peer()));
    let half_close = socket.is_unix();
    let io = TokioIo::new(Stream::new(socket, link.flushed.clone()));
    let service = {
        let (shared, link) = (shared.clone(), link.clone());
        hyper::service::service_fn(move |request| answer(shared.clone(), link.clone(), request))
    };
    let mut connection = builder(half_close).serve_connection(io, service);
    let mut phase = shared.phase();
    let mut seen = Phase::Serving;
    let mut patience = None;

    loop {
        let driven = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(result) => Poll::Ready(Turn::Ended(result)),
            Poll::Pending => match link.take_hijack() {
                Some(hijack) => Poll::Ready(Turn::Hijacked(hijack)),
                None => Poll::Pending,
            },
        });
        // In this order: what the client sent before it left is still read.
        let turn = tokio::select! {
            biased;
            turn = driven => turn,
            () = probe.hung_up() => Turn::Vanished,
            now = crate::server::other_phase(&mut phase, seen) => Turn::Phase(now),
            () = until(patience) => Turn::NothingCame,
        };
        match turn {
            Turn::Ended(Ok(())) | Turn::Vanished | Turn::Phase(Phase::Ending) => return,
            Turn::Ended(Err(error)) => {
                tracing::debug!(%error, peer = ?link.peer, "connection ended");
                let parts = connection.into_parts();
                excuse(&error, &parts.read_buf, parts.io.into_inner()).await;
                return;
            }
            Turn::Hijacked(hijack) => {
                let parts = connection.into_parts();
                drop(probe);
                hand_over(hijack, parts.io.into_inner(), parts.read_buf.to_vec()).await;
                return;
            }
            Turn::Phase(now) => {
                seen = now;
                patience = None;
                if now == Phase::Draining {
                    if link.is_fresh() {
                        patience = Some(Instant::now() + limits::FIRST_REQUEST);
                    } else {
                        refuse(&link, &probe, || {
                            Pin::new(&mut connection).graceful_shutdown()
                        });
                    }
                }
            }
            Turn::NothingCame => {
                patience = None;
                // One that did say something ends after its answer, which tells the client so.
                if link.is_fresh() {
                    refuse(&link, &probe, || {
                        Pin::new(&mut connection).graceful_shutdown()
                    });
                }
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Lets the connection end after what the client has sent already. Clients know what it means when a
/// connection that served them before takes no more: nothing was read, so it can be sent again
/// elsewhere. On one that served nothing yet they would take it for a failure.
fn refuse(link: &Link, probe: &Probe, close_after_answer: impl FnOnce()) {
    if link.is_idle() && probe.refuse_more() {
        // hyper now reads what is queued, answers it, and then finds the end.
        return;
    }
    close_after_answer();
}

/// The two cases in which hyper closes without a word.
async fn excuse(error: &hyper::Error, unread: &[u8], mut stream: Stream) {
    let text: &[u8] = if error.is_timeout() && !unread.is_empty() {
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    } else if error.is_parse() && unread.starts_with(b"PRI * HTTP/2.0\r\n") {
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    } else {
        return;
    };
    let _ = tokio::time::timeout(limits::HIJACK_HEAD, stream.write_all(text)).await;
}

async fn hand_over(hijack: Hijack, mut stream: Stream, initial: Vec<u8>) {
    match tokio::time::timeout(limits::HIJACK_HEAD, stream.write_all(&hijack.head)).await {
        Ok(Ok(())) => {}
        // The client left; what waits behind the hijack ends when it is dropped.
        Ok(Err(_)) | Err(_) => return,
    }
    match stream.into_fd() {
        Ok(fd) => (hijack.take)(fd, initial).await,
        Err(error) => tracing::warn!(%error, "a hijacked connection cannot leave the reactor"),
    }
}

/// Answers one request; a panic in its handler becomes an answer, too.
async fn answer(
    shared: Arc<Shared>,
    link: Arc<Link>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let open = OpenRequest::new(&link);
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let (method, path) = (head.method.clone(), head.uri.path().to_owned());

    let inbound = Inbound {
        head,
        body,
        link: link.clone(),
    };
    let outcome = AssertUnwindSafe(async { shared.app.call(inbound).await })
        .catch_unwind()
        .await;
    let outcome = outcome.unwrap_or_else(|_| {
        shared.count_panic(&method, &path);
        Err(Error::panicked())
    });
    let mut response = match outcome {
        Ok(Reply::Response(response)) => response,
        Ok(Reply::Hijack(hijack)) => {
            tracing::debug!(%method, path, peer = ?link.peer, "hijacked");
            link.hijack(hijack);
            // The driver of the connection takes it away from hyper, and this future with it.
            return std::future::pending().await;
        }
        Err(error) => {
            if error.status.is_server_error() && error.status != StatusCode::NOT_IMPLEMENTED {
                tracing::warn!(%method, path, status = error.status.as_u16(), error.message, "request failed");
            }
            error.into_response()
        }
    };
    shared.app.decorate(response.headers_mut());
    if shared.is_draining() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.body_mut().hold(open);
    tracing::debug!(
        %method,
        path,
        status = response.status().as_u16(),
        micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        peer = ?link.peer,
        "answered"
    );
    Ok(response)
}
