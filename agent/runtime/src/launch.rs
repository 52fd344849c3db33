//! Starting a monitor and leading it through the start conversation (see [`crate::protocol`]). The
//! program runs from a sealed copy in memory, so no container can overwrite what the next one
//! runs. Whatever goes wrong before `Started`, the monitor is killed and reaped and nothing of it remains;
//! the payload cgroup, which the engine made, is the engine's to empty.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_sys::spawn::SpawnedChild;
use thiserror::Error;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::link::{Link, LinkError, Replies, short_path};
use crate::plan::{FdRole, MAX_FDS, Plan};
use crate::protocol::{MAX_FRAME_FDS, Reply, Request, StartFailed};

/// How long each half of a start may take: the mounts, and the lookup of the program on a slow disk.
pub const START: Duration = Duration::from_secs(60);

/// Largest monitor that is copied into memory.
const MAX_PROGRAM: u64 = 64 << 20;

/// What is kept of a monitor's last words, in bytes.
const LAST_WORDS: usize = 4096;

const SIGKILL: i32 = 9;

/// How long the last words of a monitor that has ended are waited for.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(1);

/// Why a container did not start.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// The installed program cannot be used.
    #[error("the monitor program {path} cannot be used: {reason}")]
    Program { path: PathBuf, reason: String },
    #[error("cannot start the monitor: {0}")]
    Spawn(#[source] io::Error),
    /// A step of the start failed; see its stage.
    #[error("{}", .0.message)]
    Start(StartFailed),
    /// The monitor ended without saying why in the protocol; these are its last words.
    #[error("the monitor ended during the start: {0}")]
    Died(String),
    #[error("the start does not come to an end ({0})")]
    Timeout(&'static str),
    #[error("the start failed: {0}")]
    Link(#[from] LinkError),
    /// Descriptors and plan do not fit together.
    #[error("the start cannot be sent: {0}")]
    Plan(String),
}

/// The descriptors of a start with what they are for.
#[derive(Debug, Default)]
pub struct StartFds(Vec<(FdRole, OwnedFd)>);

impl StartFds {
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a descriptor; a second one for the same role replaces the first.
    pub fn add(&mut self, role: FdRole, fd: OwnedFd) -> &mut Self {
        match self.0.iter_mut().find(|(known, _)| *known == role) {
            Some(entry) => entry.1 = fd,
            None => self.0.push((role, fd)),
        }
        self
    }
    /// The roles in the order in which they are sent: what [`crate::planner::Inputs`] wants.
    pub fn roles(&self) -> Vec<FdRole> {
        self.0.iter().map(|(role, _)| *role).collect()
    }
    fn into_fds(self) -> Vec<OwnedFd> {
        self.0.into_iter().map(|(_, fd)| fd).collect()
    }
}

/// Makes the listening socket of a container's monitor: mode 0600, in the place of whatever was there.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let short = short_path(path)?;
    let listener = UnixListener::bind(short.path())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener.into())
}

/// Starts monitors from one sealed copy of the installed program.
#[derive(Debug)]
pub struct Launcher {
    program: OwnedFd,
}

impl Launcher {
    /// Copies the installed program, which must be a regular file of root's or our own that nobody
    /// else can write.
    pub fn new(path: &Path) -> Result<Self, LaunchError> {
        let wrong = |reason: String| LaunchError::Program {
            path: path.to_owned(),
            reason,
        };
        let failed = |error: io::Error| wrong(error.to_string());
        let mut file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            return Err(wrong("it is no regular file".to_owned()));
        }
        // What /proc/self belongs to is our own uid, without another crate.
        let own = std::fs::metadata("/proc/self").map_err(failed)?.uid();
        if meta.uid() != 0 && meta.uid() != own {
            return Err(wrong(format!("it belongs to uid {}", meta.uid())));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(wrong(format!(
                "others can write it (mode {:o})",
                meta.mode() & 0o7777
            )));
        }
        if meta.mode() & 0o111 == 0 {
            return Err(wrong("it is not executable".to_owned()));
        }
        if meta.len() > MAX_PROGRAM {
            return Err(wrong("it is too large".to_owned()));
        }
        let program = berth_sys::fd::sealed_memfd("berth-monitor", &mut file).map_err(failed)?;
        Ok(Self { program })
    }

    /// Starts a monitor that waits for its plan. Takes a fraction of a millisecond; must be called
    /// within a tokio runtime.
    pub fn spawn(&self) -> Result<Pending, LaunchError> {
        let (ours, theirs) = StdStream::pair().map_err(LaunchError::Spawn)?;
        let (errors, stderr) = berth_sys::fd::pipe().map_err(LaunchError::Spawn)?;
        let child = berth_sys::spawn::spawn_sealed(
            self.program.as_fd(),
            &["berth-monitor"],
            theirs.into(),
            Some(stderr),
        )
        .map_err(LaunchError::Spawn)?;
        let words = LastWords::default();
        // From here on the guard ends the child on every way out.
        let mut process = Process {
            pid: child.pid,
            child: Some(child),
            init: None,
            words: words.clone(),
            listener: None,
        };
        let errors = pipe::Receiver::from_owned_fd(errors).map_err(LaunchError::Spawn)?;
        process.listener = Some(tokio::spawn(listen_to(errors, process.pid, words)));
        let link = Link::new(ours).map_err(LaunchError::Spawn)?;
        Ok(Pending { link, process })
    }
}

#[derive(Debug, Clone, Default)]
struct LastWords(Arc<Mutex<String>>);

/// Keeps and logs what a monitor writes to its standard error: nothing, unless it panics.
async fn listen_to(mut errors: pipe::Receiver, pid: u32, words: LastWords) {
    let mut buffer = [0; 1024];
    while let Ok(count) = errors.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&buffer[..count]);
        tracing::warn!(monitor = pid, text = text.trim_end(), "a monitor complains");
        let mut kept = words.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < LAST_WORDS {
            kept.push_str(&text);
        }
    }
}

/// A monitor that has not been let go yet: dropping it kills it, and the container's first process
/// when that is known.
#[derive(Debug)]
struct Process {
    pid: u32,
    child: Option<SpawnedChild>,
    /// Before `Ready` init dies with the monitor; from `Go` on that is no longer certain.
    init: Option<OwnedFd>,
    words: LastWords,
    listener: Option<JoinHandle<()>>,
}

impl Process {
    /// Kills and reaps, and comes back when that is done.
    async fn end(mut self) {
        if let Some(child) = self.kill() {
            let _ = tokio::task::spawn_blocking(move || reap(child)).await;
        }
    }

    /// The same for a monitor that closed its connection without an answer; its last words.
    async fn autopsy(mut self) -> String {
        if let Some(listener) = self.listener.take() {
            // It is ending by itself, and its standard error with it.
            let _ = timeout(LAST_WORDS_WAIT, listener).await;
        }
        let words = self.words.clone();
        self.end().await;
        let words = words.0.lock().unwrap_or_else(PoisonError::into_inner);
        if words.trim().is_empty() {
            "it said nothing".to_owned()
        } else {
            words.trim().to_owned()
        }
    }

    /// The container runs: from now on the monitor ends when it likes, and is only reaped then. An agent
    /// that leaves before leaves the reaping to init.
    fn release(mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        self.init = None;
        tokio::spawn(async move {
            if let Err(error) = ended(&child).await {
                tracing::warn!(monitor = child.pid, %error, "cannot wait for a monitor");
                return;
            }
            if let Err(error) = child.try_wait() {
                tracing::warn!(monitor = child.pid, %error, "cannot reap a monitor");
            }
        });
    }

    /// One half of a start, with its deadline.
    async fn within<T>(
        &self,
        what: &'static str,
        half: impl Future<Output = Result<T, LaunchError>>,
    ) -> Result<T, LaunchError> {
        timeout(START, half)
            .await
            .map_err(|_| LaunchError::Timeout(what))?
    }

    /// Ends it after an error that the monitor did not word itself, and says what it knows.
    async fn explain(self, error: LaunchError) -> LaunchError {
        if let LaunchError::Link(LinkError::Closed) = error {
            return LaunchError::Died(self.autopsy().await);
        }
        self.end().await;
        error
    }

    fn kill(&mut self) -> Option<SpawnedChild> {
        if let Some(init) = self.init.take() {
            // Gone already is as good.
            let _ = berth_sys::pidfd::send_signal(&init, SIGKILL);
        }
        let mut child = self.child.take()?;
        if let Err(error) = child.kill() {
            tracing::warn!(monitor = child.pid, %error, "cannot kill a monitor");
        }
        Some(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.kill() {
            // Reaping blocks until the kernel has taken the process apart: not on a thread of the runtime.
            std::thread::spawn(move || reap(child));
        }
    }
}

/// Resolves when the child has ended: its pidfd is readable then.
async fn ended(child: &SpawnedChild) -> io::Result<()> {
    let pidfd = child.pidfd.try_clone()?;
    #[allow(
        deprecated,
        reason = "an OwnedFd keeps its number for as long as it lives"
    )]
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    pidfd.readable().await.map(drop)
}

fn reap(mut child: SpawnedChild) {
    if let Err(error) = child.wait() {
        tracing::warn!(monitor = child.pid, %error, "cannot reap a monitor");
    }
}

/// A monitor that waits for its plan.
#[derive(Debug)]
pub struct Pending {
    link: Link,
    process: Process,
}

impl Pending {
    /// Host pid of the monitor: what the scope is made with.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// The monitor's pidfd, for a service manager that takes those.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        match &self.process.child {
            Some(child) => child.pidfd.try_clone(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Sends plan and descriptors, and waits until the container's first process is set up and
    /// stands before its program.
    pub async fn start(self, plan: &Plan, fds: StartFds) -> Result<Ready, LaunchError> {
        let Self { link, mut process } = self;
        let begun = async {
            let mut replies = link.send(frames(plan, fds)?).await?;
            let answer = replies.next().await?;
            Ok((replies, answer))
        };
        let (replies, mut answer) = match process.within("setting up", begun).await {
            Ok(answered) => answered,
            Err(error) => return Err(process.explain(error).await),
        };
        let error = match answer.message {
            Reply::Ready { pid } => match answer.fds.pop() {
                Some(pidfd) => {
                    process.init = pidfd.try_clone().ok();
                    return Ok(Ready {
                        link,
                        process,
                        replies,
                        pid,
                        pidfd,
                    });
                }
                None => LinkError::Unexpected("ready without a descriptor").into(),
            },
            Reply::StartFailed(failed) => LaunchError::Start(failed),
            _ => LinkError::Unexpected("start").into(),
        };
        process.end().await;
        Err(error)
    }
}

/// The frames of a start: as many descriptors as fit go with it, the rest before.
fn frames(plan: &Plan, fds: StartFds) -> Result<Vec<(Request, Vec<OwnedFd>)>, LaunchError> {
    if plan.fds != fds.roles() {
        return Err(LaunchError::Plan(
            "plan and descriptors do not agree".to_owned(),
        ));
    }
    plan.check()
        .map_err(|error| LaunchError::Plan(error.to_string()))?;
    let mut fds = fds.into_fds();
    if fds.len() > MAX_FDS {
        return Err(LaunchError::Plan(format!(
            "more than {MAX_FDS} descriptors"
        )));
    }
    let mut frames = Vec::new();
    while fds.len() > MAX_FRAME_FDS {
        let rest = fds.split_off(MAX_FRAME_FDS);
        frames.push((Request::Descriptors, std::mem::replace(&mut fds, rest)));
    }
    frames.push((Request::Start(Box::new(plan.clone())), fds));
    Ok(frames)
}

/// A container that is set up and has not begun: record it as running, then let it [`Ready::go`].
/// Dropping it ends it without a trace.
#[derive(Debug)]
pub struct Ready {
    link: Link,
    process: Process,
    replies: Replies,
    /// Host pid of the container's first process.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

impl Ready {
    /// The connection, for attaching clients before the program can write anything.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Host pid of the monitor.
    pub fn monitor_pid(&self) -> u32 {
        self.process.pid
    }

    /// Lets the program run; comes back when it does.
    pub async fn go(self) -> Result<Started, LaunchError> {
        let Self {
            link,
            process,
            mut replies,
            pidfd,
            ..
        } = self;
        let gone = async {
            // Answered under the tag of the start.
            let _unanswered = link.send(vec![(Request::Go, Vec::new())]).await?;
            Ok(replies.next().await?)
        };
        let answer = match process.within("executing the program", gone).await {
            Ok(answer) => answer,
            Err(error) => return Err(process.explain(error).await),
        };
        let error = match answer.message {
            Reply::Started { pid, started_at } => {
                let monitor_pid = process.pid;
                process.release();
                return Ok(Started {
                    pid,
                    pidfd,
                    started_at,
                    monitor_pid,
                    link,
                });
            }
            Reply::StartFailed(failed) => LaunchError::Start(failed),
            _ => LinkError::Unexpected("go").into(),
        };
        process.end().await;
        Err(error)
    }
}

/// A running container.
#[derive(Debug)]
pub struct Started {
    /// Host pid of the container's first process.
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    pub monitor_pid: u32,
    /// The control connection, usable like any other.
    pub link: Link,
}

#[cfg(test)]
mod tests;
