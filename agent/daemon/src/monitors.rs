//! The socket where monitors report that their container ended: `<id>\n`, from root, once per
//! connection. systemd listens on it too, so a report starts an agent that is not running.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use berth_engine::Engine;

/// An id and its newline.
const REPORT: usize = 65;
/// A monitor writes right after connecting.
const DEADLINE: Duration = Duration::from_secs(5);

/// After `accept` failed for want of descriptors: how long to wait for a report to be done.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes reports and passes them to the engine.
#[derive(Debug)]
pub(crate) struct Reports {
    listener: UnixListener,
    /// The same socket, to ask the kernel itself what is queued.
    queue: StdUnixListener,
    engine: Engine,
    open: JoinSet<()>,
}

impl Reports {
    pub(crate) fn new(socket: OwnedFd, engine: Engine) -> io::Result<Self> {
        let queue = StdUnixListener::from(socket);
        queue.set_nonblocking(true)?;
        let listener = UnixListener::from_std(queue.try_clone()?)?;
        Ok(Self {
            listener,
            queue,
            engine,
            open: JoinSet::new(),
        })
    }

    /// Serves for ever. May be dropped at any await and called again.
    pub(crate) async fn serve(&mut self) {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.take(stream),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a monitor's report");
                        let _ = tokio::time::timeout(PAUSE, self.one_done()).await;
                    }
                },
                Some(_) = self.open.join_next() => {}
            }
        }
    }

    /// A report that is done gives its descriptor back.
    async fn one_done(&mut self) {
        if self.open.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Takes what is queued, without waiting for more, and finishes it.
    pub(crate) async fn drain(&mut self) {
        loop {
            match self.queue.accept() {
                Ok((stream, _)) => {
                    if let Ok(stream) = stream
                        .set_nonblocking(true)
                        .and_then(|()| UnixStream::from_std(stream))
                    {
                        self.take(stream);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        while self.open.join_next().await.is_some() {}
    }

    fn take(&mut self, stream: UnixStream) {
        let (engine, busy) = (self.engine.clone(), self.engine.busy());
        self.open.spawn(async move {
            let _busy = busy;
            match read(stream).await {
                Ok(id) => engine.container_exited(&id).await,
                Err(error) => tracing::warn!(%error, "a monitor's report was not understood"),
            }
        });
    }
}

/// Reads one report.
async fn read(stream: UnixStream) -> io::Result<String> {
    let cred = stream.peer_cred()?;
    // Monitors are root; a container with the run directory bound into it may not be.
    if cred.uid() != 0 && cred.uid() != UnixStream::pair()?.0.peer_cred()?.uid() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("the reporter has uid {}", cred.uid()),
        ));
    }
    let mut text = String::new();
    let mut limited = stream.take(REPORT as u64 + 1);
    tokio::time::timeout(DEADLINE, limited.read_to_string(&mut text))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let wrong = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "not a container's id and a newline",
        )
    };
    let id = text.strip_suffix('\n').ok_or_else(wrong)?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if id.len() + 1 == REPORT && id.bytes().all(hex) {
        Ok(id.to_owned())
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn report(text: &[u8]) -> io::Result<String> {
        let (mut monitor, ours) = UnixStream::pair()?;
        monitor.write_all(text).await?;
        drop(monitor);
        read(ours).await
    }

    #[tokio::test]
    async fn reports_are_ids_and_nothing_else() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(
            report(format!("{id}\n").as_bytes()).await.ok(),
            Some(id.clone())
        );
        for bad in [
            String::new(),
            "\n".to_owned(),
            id.clone(),
            format!("{id}0\n"),
            format!("{id}\nmore"),
            id.to_uppercase() + "\n",
        ] {
            report(bad.as_bytes()).await.expect_err(&bad);
        }
        report(&[0xff; 65]).await.expect_err("no text");
    }
}
