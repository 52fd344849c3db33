//! Frames: a header in front of each message, and putting them together again from a stream.

use std::collections::VecDeque;

use super::codec::Message;
use super::{
    HEADER_LEN, MAX_FRAME_FDS, MAX_PAYLOAD, OLDEST_VERSION, PROTOCOL_VERSION, Reply, Request,
};
use crate::plan;
use crate::wire::{Reader, Wire, WireError};

fn encode<M: Message>(message: &M, tag: u32, fds: usize) -> Result<Vec<u8>, WireError> {
    if fds > MAX_FRAME_FDS {
        return Err(WireError::TooLong);
    }
    let mut out = vec![0; HEADER_LEN];
    message.put_payload(&mut out);
    let length = out.len() - HEADER_LEN;
    if length > MAX_PAYLOAD {
        return Err(WireError::TooLong);
    }
    let mut header = Vec::with_capacity(HEADER_LEN);
    u32::try_from(length)
        .map_err(|_| WireError::TooLong)?
        .put(&mut header);
    PROTOCOL_VERSION.put(&mut header);
    u8::try_from(fds)
        .map_err(|_| WireError::TooLong)?
        .put(&mut header);
    message.kind().put(&mut header);
    tag.put(&mut header);
    out[..HEADER_LEN].copy_from_slice(&header);
    Ok(out)
}

/// A request as one frame that goes with `fds` descriptors.
pub fn encode_request(request: &Request, tag: u32, fds: usize) -> Result<Vec<u8>, WireError> {
    encode(request, tag, fds)
}

/// A reply as one frame that goes with `fds` descriptors.
pub fn encode_reply(reply: &Reply, tag: u32, fds: usize) -> Result<Vec<u8>, WireError> {
    encode(reply, tag, fds)
}

/// A received message with its tag and its descriptors.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<M, F> {
    pub tag: u32,
    pub message: M,
    pub fds: Vec<F>,
}

/// Puts frames together from what a stream socket delivers. `F` is the descriptor type, so that
/// tests need none. After an error the connection is of no more use.
#[derive(Debug)]
pub struct FrameReader<F> {
    bytes: Vec<u8>,
    fds: VecDeque<F>,
    limit: usize,
}

impl<F> FrameReader<F> {
    /// A reader that accepts payloads up to `limit` bytes ([`MAX_PAYLOAD`], [`super::MAX_LATER_PAYLOAD`]).
    pub fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            fds: VecDeque::new(),
            limit: limit.min(MAX_PAYLOAD),
        }
    }

    /// Takes what one receive call returned. Refuses when descriptors pile up without a frame.
    pub fn push(
        &mut self,
        bytes: &[u8],
        fds: impl IntoIterator<Item = F>,
    ) -> Result<(), WireError> {
        self.bytes.extend_from_slice(bytes);
        self.fds.extend(fds);
        if self.fds.len() > plan::MAX_FDS {
            Err(WireError::TooLong)
        } else {
            Ok(())
        }
    }

    /// Whether nothing is half received.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next whole request.
    pub fn next_request(&mut self) -> Result<Option<Frame<Request, F>>, WireError> {
        self.next_message()
    }

    /// The next whole reply.
    pub fn next_reply(&mut self) -> Result<Option<Frame<Reply, F>>, WireError> {
        self.next_message()
    }

    fn next_message<M: Message>(&mut self) -> Result<Option<Frame<M, F>>, WireError> {
        let Some(header) = self.bytes.get(..HEADER_LEN) else {
            return Ok(None);
        };
        let mut header = Reader::new(header);
        let length = usize::try_from(u32::get(&mut header)?).map_err(|_| WireError::TooLong)?;
        let version = u8::get(&mut header)?;
        let fd_count = usize::from(u8::get(&mut header)?);
        let kind = u16::get(&mut header)?;
        let tag = u32::get(&mut header)?;
        if !(OLDEST_VERSION..=PROTOCOL_VERSION).contains(&version) {
            return Err(WireError::Version {
                found: version.into(),
                ours: PROTOCOL_VERSION.into(),
            });
        }
        if length > self.limit || fd_count > MAX_FRAME_FDS {
            return Err(WireError::TooLong);
        }
        let end = HEADER_LEN + length;
        let Some(payload) = self.bytes.get(HEADER_LEN..end) else {
            return Ok(None);
        };
        if self.fds.len() < fd_count {
            // They travel with the first byte: a whole frame without them never gets them.
            return Err(WireError::Inconsistent("descriptors are missing"));
        }
        let mut input = Reader::new(payload);
        let message = M::get_payload(kind, &mut input)?;
        input.finish()?;
        self.bytes.drain(..end);
        let fds = self.fds.drain(..fd_count).collect();
        Ok(Some(Frame { tag, message, fds }))
    }
}
