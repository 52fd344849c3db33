//! Answer bodies: known in full, or a stream that hyper pulls as fast as the client reads. A body keeps
//! the guards of its request: when it is dropped, sent or not, the request is over.

use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use hyper::body::{Frame, SizeHint};

/// What a handler streams. An error cuts the connection, so that the client sees the end is missing.
pub(crate) type Pieces = BoxStream<'static, io::Result<Bytes>>;

/// An answer's body.
#[derive(Default)]
pub(crate) struct Body {
    content: Content,
    guards: Vec<Box<dyn Any + Send>>,
}

#[derive(Default)]
enum Content {
    #[default]
    Empty,
    Full(Bytes),
    Stream(Pieces),
}

impl Body {
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let content = if bytes.is_empty() {
            Content::Empty
        } else {
            Content::Full(bytes)
        };
        Self {
            content,
            guards: Vec::new(),
        }
    }

    pub(crate) fn stream(pieces: Pieces) -> Self {
        Self {
            content: Content::Stream(pieces),
            guards: Vec::new(),
        }
    }

    /// Ties `guard` to the body's life.
    pub(crate) fn hold(&mut self, guard: impl Any + Send) {
        self.guards.push(Box::new(guard));
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.content {
            Content::Empty => "empty",
            Content::Full(_) => "full",
            Content::Stream(_) => "stream",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Content::Stream(pieces) => pieces
                .as_mut()
                .poll_next(cx)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}
