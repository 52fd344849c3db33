//! `/containers/{name}/attach`. The client's own socket goes to the container's monitor, which speaks
//! Docker's stream on it, so the agent is out of the way and may even leave. Where there is no such
//! socket to give (the request has a body, or the version knows no frames) this module relays.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use berth_api::container::{logs as shape, query};
use berth_engine::Attachment;
use berth_model::mux;

use crate::call::{Call, Outcome};
use crate::limits;
use crate::reply::{Hijack, Reply};
use crate::stream::from_channel;

pub(crate) async fn attach(mut call: Call) -> Outcome {
    let options = query::attach(&call.query, call.version)?;
    // Registered now: the client may start the container as soon as it has the head.
    let attachment = call.engine.container_attach(&call.name, options).await?;
    let upgrade = call.wants_upgrade() && !call.has_body();
    // Only clients that ask for an upgrade are told that the stream has frames.
    let content_type = shape::content_type(attachment.tty() || !upgrade, call.version);
    let plain = !attachment.tty() && !shape::framed(call.version);

    if call.has_body() {
        let (ours, theirs) = pair()?;
        let input = call.body_pieces();
        let (sender, receiver) = mpsc::channel(limits::STREAM_PIECES);
        connect(attachment, theirs, Vec::new());
        tokio::spawn(relay_bodies(input, ours, sender, plain));
        return Ok(Reply::stream(content_type, from_channel(receiver)));
    }
    let head = match upgrade {
        true => format!(
            "HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        ),
        // Clients from before upgrades read what follows the head as the stream itself.
        false => format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n"),
    };
    let take = move |client: OwnedFd, initial: Vec<u8>| async move {
        if !plain {
            return hand_over(attachment, client, initial).await;
        }
        match pair().and_then(|(ours, theirs)| Ok((adopt(client)?, ours, theirs))) {
            Ok((client, ours, theirs)) => {
                connect(attachment, theirs, initial);
                relay_sockets(client, ours).await;
            }
            Err(error) => tracing::warn!(%error, "an attached client cannot be relayed"),
        }
    };
    Ok(Reply::Hijack(Hijack {
        head: head.into(),
        take: Box::new(move |fd, initial| take(fd, initial).boxed()),
    }))
}

/// Gives the engine its socket. It may wait there for the container's start.
async fn hand_over(attachment: Attachment, stream: OwnedFd, initial: Vec<u8>) {
    if let Err(error) = attachment.connect(stream, initial).await {
        tracing::warn!(
            error = error.full_message(),
            "an attached client was not connected"
        );
    }
}

fn connect(attachment: Attachment, stream: OwnedFd, initial: Vec<u8>) {
    tokio::spawn(hand_over(attachment, stream, initial));
}

/// Our end in the reactor, and the end that the monitor gets.
fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

/// A client's socket back into the reactor. Reading and writing do not depend on the family, so one
/// type serves both.
fn adopt(client: OwnedFd) -> io::Result<UnixStream> {
    let client = std::os::unix::net::UnixStream::from(client);
    client.set_nonblocking(true)?;
    UnixStream::from_std(client)
}

/// Strips frames, for versions that do not know them.
#[derive(Debug, Default)]
struct Output {
    decoder: Option<mux::Decoder>,
}

impl Output {
    fn new(plain: bool) -> Self {
        Self {
            decoder: plain.then(mux::Decoder::default),
        }
    }

    fn pass(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(bytes.to_vec());
        };
        decoder.push(bytes);
        let mut out = Vec::new();
        while let Some((_, payload)) = decoder.next_frame().map_err(io::Error::other)? {
            out.extend_from_slice(&payload);
        }
        Ok(out)
    }
}

/// Request body → stdin, stdout and stderr → answer's body. Ends with the output, or with the client:
/// then the answer's body is dropped and its channel closes.
async fn relay_bodies(
    input: Option<http_body_util::BodyDataStream<hyper::body::Incoming>>,
    stream: UnixStream,
    sender: mpsc::Sender<io::Result<Bytes>>,
    plain: bool,
) {
    let (mut from_container, mut to_container) = stream.into_split();
    let feed = async {
        if let Some(mut input) = input {
            while let Some(Ok(piece)) = input.next().await {
                if to_container.write_all(&piece).await.is_err() {
                    break;
                }
            }
        }
        let _ = to_container.shutdown().await;
        std::future::pending::<()>().await;
    };
    let drain = async {
        let mut output = Output::new(plain);
        let mut buffer = vec![0; limits::RELAY_BUFFER];
        loop {
            let piece = match from_container.read(&mut buffer).await {
                Ok(0) => return,
                Ok(n) => output.pass(&buffer[..n]),
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if sender.send(piece.map(Bytes::from)).await.is_err() || failed {
                return;
            }
        }
    };
    tokio::select! {
        () = drain => {}
        () = feed => {}
        () = sender.closed() => {}
    }
}

/// Both ways between a client and the monitor, without frames on the client's side.
async fn relay_sockets(client: UnixStream, service: UnixStream) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_container, mut to_container) = service.into_split();
    let feed = async {
        let mut buffer = vec![0; limits::RELAY_BUFFER];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            if to_container.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
        let _ = to_container.shutdown().await;
        std::future::pending::<()>().await;
    };
    let drain = async {
        let mut output = Output::new(true);
        let mut buffer = vec![0; limits::RELAY_BUFFER];
        while let Ok(n @ 1..) = from_container.read(&mut buffer).await {
            let Ok(plain) = output.pass(&buffer[..n]) else {
                break;
            };
            if to_client.write_all(&plain).await.is_err() {
                break;
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::select! {
        () = drain => {}
        () = feed => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_relay_strips_frames_and_passes_half_closes_on() {
        let (mut client, ours) = UnixStream::pair().expect("pair");
        let (service, mut monitor) = UnixStream::pair().expect("pair");
        let relay = tokio::spawn(relay_sockets(ours, service));
        client.write_all(b"input").await.expect("write");
        client.shutdown().await.expect("shutdown");
        let mut input = Vec::new();
        monitor.read_to_end(&mut input).await.expect("read");
        assert_eq!(input, b"input");

        let mut frames = Vec::new();
        mux::append(&mut frames, mux::Stream::Stdout, b"out");
        mux::append(&mut frames, mux::Stream::Stderr, b"err");
        // In portions that cut frames anywhere.
        for portion in frames.chunks(5) {
            monitor.write_all(portion).await.expect("write");
        }
        drop(monitor);
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.expect("read");
        assert_eq!(output, b"outerr");
        relay.await.expect("relay");
    }

    #[tokio::test]
    async fn a_relayed_answer_ends_with_its_client() {
        let (service, monitor) = UnixStream::pair().expect("pair");
        let (sender, receiver) = mpsc::channel(limits::STREAM_PIECES);
        let relay = tokio::spawn(relay_bodies(None, service, sender, false));
        drop(receiver);
        tokio::time::timeout(std::time::Duration::from_secs(20), relay)
            .await
            .expect("in time")
            .expect("relay");
        drop(monitor);
    }

    #[tokio::test]
    async fn a_relayed_answer_carries_the_frames() {
        let (service, mut monitor) = UnixStream::pair().expect("pair");
        let (sender, receiver) = mpsc::channel(limits::STREAM_PIECES);
        let relay = tokio::spawn(relay_bodies(None, service, sender, false));
        let mut frames = Vec::new();
        mux::append(&mut frames, mux::Stream::Stdout, b"out");
        monitor.write_all(&frames).await.expect("write");
        drop(monitor);
        let pieces: Vec<_> = from_channel(receiver)
            .map(|piece| piece.expect("piece"))
            .collect()
            .await;
        assert_eq!(pieces.concat(), frames);
        relay.await.expect("relay");
    }
}
