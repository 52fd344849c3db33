//! What the child and the monitor say to each other between clone and exec.
//!
//! The child answers with the protocol's own replies (`Ready` with the terminal's master, `Started`
//! when it is about to execute the program, `StartFailed`); the monitor says one byte, `GO`. The
//! child's socket is close-on-exec, so its end after `Started` is the exec itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_runtime::protocol::{FrameReader, MAX_LATER_PAYLOAD, Reply, encode_reply};

const GO: u8 = b'G';

/// The child's side: tells the monitor something.
pub(crate) fn tell(sync: impl AsFd, reply: &Reply, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = encode_reply(reply, 0, fds.len()).map_err(io::Error::other)?;
    let mut sent = berth_sys::fd::send_with_fds(&sync, &bytes, fds)?;
    while sent < bytes.len() {
        sent += berth_sys::fd::send_with_fds(&sync, &bytes[sent..], &[])?;
    }
    Ok(())
}

/// The child's side: waits for the monitor's word; false when the monitor has gone.
pub(crate) fn wait_for_go(sync: impl AsFd) -> bool {
    let mut byte = [0];
    let result = rustix::io::retry_on_intr(|| rustix::io::read(&sync, &mut byte));
    matches!(result, Ok(1)) && byte[0] == GO
}

/// The monitor's side: lets the child go on.
pub(crate) fn go(sync: impl AsFd) -> io::Result<()> {
    berth_sys::fd::send_with_fds(sync, &[GO], &[]).map(drop)
}

/// The monitor's side: what the child has said, and whether it has closed.
#[derive(Debug)]
pub(crate) struct Ear {
    reader: FrameReader<OwnedFd>,
}

impl Ear {
    pub(crate) fn new() -> Ear {
        Ear {
            reader: FrameReader::new(MAX_LATER_PAYLOAD),
        }
    }

    /// Appends what has arrived at the (non-blocking) socket; true at its end.
    pub(crate) fn listen(
        &mut self,
        sync: impl AsFd,
        said: &mut Vec<(Reply, Vec<OwnedFd>)>,
    ) -> io::Result<bool> {
        let mut buffer = [0; 2048];
        loop {
            let (count, fds) = match berth_sys::fd::recv_with_fds(&sync, &mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // The child was killed with our byte unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(true),
                other => other?,
            };
            if count == 0 {
                return Ok(true);
            }
            self.reader
                .push(&buffer[..count], fds)
                .map_err(io::Error::other)?;
            while let Some(frame) = self.reader.next_reply().map_err(io::Error::other)? {
                said.push((frame.message, frame.fds));
            }
        }
    }
}
