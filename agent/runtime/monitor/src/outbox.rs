//! Bytes that wait for a descriptor to take them.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::net::SendFlags;

/// A queue of bytes for one socket or non-blocking descriptor. It has no bound of its own: whoever fills it
/// looks at [`Outbox::len`] first.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn clear(&mut self) {
        *self = Outbox::default();
    }

    /// Writes what the descriptor takes now. An error means that it will never take more.
    pub(crate) fn flush(&mut self, fd: BorrowedFd<'_>, socket: bool) -> io::Result<()> {
        while !self.is_empty() {
            match write_some(fd, &self.bytes[self.start..], socket)? {
                0 => {
                    // Keeps the memory at what is queued, not at what has passed through.
                    self.bytes.drain(..self.start);
                    self.start = 0;
                    return Ok(());
                }
                count => self.start += count,
            }
        }
        self.clear();
        Ok(())
    }
}

/// Never blocks, whatever the mode of the socket, which others may share: an agent that replays a
/// log writes to it blocking. Never raises SIGPIPE.
pub(crate) const SOCKET_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// One write to a socket or to another non-blocking descriptor; 0 = it takes nothing now.
pub(crate) fn write_some(fd: BorrowedFd<'_>, bytes: &[u8], socket: bool) -> io::Result<usize> {
    loop {
        let result = if socket {
            rustix::net::send(fd, bytes, SOCKET_FLAGS)
        } else {
            rustix::io::write(fd, bytes)
        };
        match result {
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::AGAIN) => return Ok(0),
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn bytes_leave_in_order_as_they_fit() {
        let (read, write) = berth_sys::fd::pipe().unwrap();
        berth_sys::fd::set_nonblocking(&write, true).unwrap();
        let mut outbox = Outbox::default();
        let sent: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        outbox.push(&sent[..1000]);
        outbox.push(&sent[1000..]);
        let mut got = Vec::new();
        let mut buffer = vec![0; 50_000];
        while got.len() < sent.len() {
            outbox.flush(write.as_fd(), false).unwrap();
            let count = rustix::io::read(&read, &mut buffer).unwrap();
            got.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(got, sent);
        assert!(outbox.is_empty());
        drop(read);
        outbox.push(b"x");
        assert!(outbox.flush(write.as_fd(), false).is_err());
    }
}
