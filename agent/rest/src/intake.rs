//! Request bodies that are read whole before anything is done, or taken although nothing will be done:
//! bounded in size and in time.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};

use crate::error::{Error, Result};
use crate::limits;

/// Reads all of `body`, or refuses it: more than `limit` bytes are 413, a stall is 408, and a body that
/// ends before its announced length is 400.
pub(crate) async fn read_whole(mut body: Incoming, limit: usize) -> Result<Bytes> {
    let too_large = || {
        Error::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request's body is larger than {limit} bytes"),
        )
    };
    // A known length is refused before the client has sent it.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut all = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout(limits::BODY_STALL, body.frame()).await {
            Ok(Some(frame)) => frame
                .map_err(|_| Error::bad_request("the request's body is incomplete or malformed"))?,
            Ok(None) => return Ok(all.freeze()),
            Err(_) => {
                return Err(Error::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "the request's body stalled",
                ));
            }
        };
        // Trailers say nothing that any handler reads.
        if let Ok(data) = frame.into_data() {
            if all.len() + data.len() > limit {
                return Err(too_large());
            }
            all.extend_from_slice(&data);
        }
    }
}

/// Takes what a client is still sending with a request that is refused. Answered at once, the connection
/// would close under its hands, and it would report a broken pipe instead of the refusal.
pub(crate) async fn discard(mut body: Incoming) {
    // As much as any request that could have been served; what is announced as more is not waited for.
    let mut left = limits::JSON_BODY;
    if body.size_hint().lower() > left as u64 {
        return;
    }
    let taken = async {
        while let Some(Ok(frame)) = body.frame().await {
            let size = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(size) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // A client that waits for the answer before it goes on gets it.
    let _ = tokio::time::timeout(limits::REFUSED_BODY, taken).await;
}
