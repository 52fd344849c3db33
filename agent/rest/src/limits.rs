//! Every bound of this face, with its reason. Limits of single fields live with the fields (`berth-api`).

use std::time::Duration;

/// A JSON body: far above any real request, far below what would hurt the agent.
pub(crate) const JSON_BODY: usize = 4 << 20;
/// All header lines of a request together.
pub(crate) const HEADER_BYTES: usize = 64 << 10;
/// Header lines of a request.
pub(crate) const HEADER_COUNT: usize = 256;
/// Path and query of a request. hyper's own bound (64 KiB) is above it, so the answer is ours.
pub(crate) const TARGET_BYTES: usize = 16 << 10;
/// What hyper buffers for one connection in each direction.
pub(crate) const CONNECTION_BUFFER: usize = 128 << 10;
/// Open connections; more wait in the kernel's queue.
pub(crate) const CONNECTIONS: usize = 4096;
/// A request's header has to arrive within this time; it also ends connections kept alive for nothing.
pub(crate) const HEADER_TIMEOUT: Duration = seconds(30);
/// During a drain, a connection that has not said anything yet has this long to begin.
pub(crate) const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// A body may pause this long between two pieces.
pub(crate) const BODY_STALL: Duration = seconds(120);
/// A request that is refused without being read has this long to finish its body; then it is answered
/// and its connection closes.
pub(crate) const REFUSED_BODY: Duration = Duration::from_secs(1);
/// Archives that move at the same time, each of which holds a blocking thread while its client is slow.
pub(crate) const BLOCKING_STREAMS: usize = 16;
/// Pieces of an archive that wait between a blocking thread and the connection.
pub(crate) const STREAM_PIECES: usize = 4;
/// The size in which a blocking writer hands pieces on.
pub(crate) const STREAM_PIECE: usize = 64 << 10;
/// Bytes that a relayed attachment holds in each direction.
pub(crate) const RELAY_BUFFER: usize = 64 << 10;
/// A client that was promised a raw stream has to take the answer's head within this time.
pub(crate) const HIJACK_HEAD: Duration = Duration::from_secs(10);
/// After `accept` failed for want of descriptors or memory: how long to wait for a connection to close
/// before trying again. The client stays queued meanwhile.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// User-given text quoted in an error.
pub(crate) const QUOTED: usize = 64;

/// What clients get; tests do not wait that long for a client that does nothing.
const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(if cfg!(test) { 3 } else { seconds })
}
