//! The frame of multiplexed streams (attach and logs without a terminal): eight bytes — the stream,
//! three zeros, the payload's length as a big-endian `u32` — then the payload.

/// Bytes before each payload.
pub const HEADER_LEN: usize = 8;

/// Which stream a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stream {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// An error of the service itself, after the stream began.
    SystemError = 3,
}

impl Stream {
    /// From the number on the wire.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::SystemError),
            _ => None,
        }
    }
}

/// The header for a payload of so many bytes.
pub const fn header(stream: Stream, len: u32) -> [u8; HEADER_LEN] {
    let l = len.to_be_bytes();
    [stream as u8, 0, 0, 0, l[0], l[1], l[2], l[3]]
}

/// Appends `payload` with its header; payloads beyond 4 GiB become several frames.
pub fn append(out: &mut Vec<u8>, stream: Stream, payload: &[u8]) {
    for chunk in payload.chunks(u32::MAX as usize) {
        // A chunk is never longer than u32::MAX.
        out.extend_from_slice(&header(stream, chunk.len() as u32));
        out.extend_from_slice(chunk);
    }
}

/// Reads a header: the stream and the payload's length. None if it is none, which is a protocol error.
pub const fn parse_header(bytes: [u8; HEADER_LEN]) -> Option<(Stream, u32)> {
    let [number, 0, 0, 0, a, b, c, d] = bytes else {
        return None;
    };
    match Stream::from_number(number) {
        Some(stream) => Some((stream, u32::from_be_bytes([a, b, c, d]))),
        None => None,
    }
}

/// Takes frames apart as bytes arrive in any portions.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

/// Bytes that are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized input header: {0}")]
pub struct FrameError(pub u8);

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<(Stream, Vec<u8>)>, FrameError> {
        let Some((head, _)) = self.buffer.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let (stream, len) = parse_header(*head).ok_or(FrameError(head[0]))?;
        let end = HEADER_LEN + len as usize;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let payload = self.buffer[HEADER_LEN..end].to_vec();
        self.buffer.drain(..end);
        Ok(Some((stream, payload)))
    }

    /// Whether a frame has begun and not ended.
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_header_is_the_documented_one() {
        assert_eq!(
            header(Stream::Stderr, 0x0102_0304),
            [2, 0, 0, 0, 1, 2, 3, 4]
        );
        assert_eq!(
            parse_header([1, 0, 0, 0, 0, 0, 0, 5]),
            Some((Stream::Stdout, 5))
        );
        assert_eq!(parse_header([9, 0, 0, 0, 0, 0, 0, 5]), None);
        assert_eq!(parse_header([1, 1, 0, 0, 0, 0, 0, 5]), None);
        let mut decoder = Decoder::default();
        decoder.push(b"hello wo");
        assert_eq!(decoder.next_frame(), Err(FrameError(b'h')));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(frames in proptest::collection::vec((0_u8..4, proptest::collection::vec(any::<u8>(), 0..50)), 0..8), cut in 1_usize..20) {
            let frames: Vec<_> = frames.into_iter().map(|(n, p)| (Stream::from_number(n).unwrap(), p)).collect();
            let mut wire = Vec::new();
            for (stream, payload) in &frames {
                wire.extend_from_slice(&header(*stream, payload.len() as u32));
                wire.extend_from_slice(payload);
            }
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for part in wire.chunks(cut) {
                decoder.push(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(!decoder.is_partial());
        }
    }
}
