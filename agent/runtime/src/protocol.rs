//! The conversation between agent and monitor: framed, versioned messages over a unix stream, with
//! descriptors as SCM_RIGHTS. Encoding and decoding are pure; reading and writing the socket is the
//! caller's ([`crate::link`] in the agent, the monitor's own loop on the other side).
//!
//! # Frame
//!
//! ```text
//! u32 length of the payload | u8 version | u8 descriptors | u16 kind | u32 tag | payload
//! ```
//!
//! All numbers are little-endian. The descriptors of a frame are sent with its first byte. A reply
//! carries the tag of the request it answers; requests of one connection may be answered in any order.
//!
//! # Start (on the control socket, the monitor's fd 0)
//!
//! ```text
//! agent                                   monitor
//!   Descriptors* (only if more than MAX_FRAME_FDS)
//!   Start{plan} + descriptors  ─────────▶  checks, clones init, init sets up and stops before exec
//!                              ◀─────────  Ready{pid} + pidfd of init     | StartFailed, monitor exits
//!   (Attach … any number)      ─────────▶
//!   Go                         ─────────▶  init execs
//!                              ◀─────────  Started{pid, started_at}       | StartFailed, monitor exits
//! ```
//!
//! Between Start and Go the end of the control socket, or `Abort`, kills init; the monitor exits and
//! leaves nothing. After `Started` the control socket is an ordinary connection: it may stay or go.
//! `Ready`, `Started` and `StartFailed` carry the tag of `Start`; `Go` is answered by them alone.
//!
//! # Later (connections to the container's `monitor.sock`)
//!
//! `Hello` first, then any request. Only root may connect; the monitor checks the peer.

use crate::exit::ExitRecord;
use crate::plan::{self, Plan};
use crate::wire::{Blob, wire_enum, wire_struct};

mod codec;
mod frame;

pub use frame::{Frame, FrameReader, encode_reply, encode_request};

/// The version that this side speaks.
pub const PROTOCOL_VERSION: u8 = 1;

/// The oldest version that this side still understands.
pub const OLDEST_VERSION: u8 = 1;

/// Bytes of a frame before its payload.
pub const HEADER_LEN: usize = 12;

/// Longest payload: a plan is by far the largest thing sent.
pub const MAX_PAYLOAD: usize = plan::MAX_PLAN + 64;

/// Longest payload on a connection that carries no plan. Input that a client typed before it was
/// attached ([`Attach::initial`]) is the largest thing there.
pub const MAX_LATER_PAYLOAD: usize = 128 * 1024;

/// Most descriptors in one frame; the kernel takes 253 per message.
pub const MAX_FRAME_FDS: usize = 200;

/// Why a start ended. Names the step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The request could not be understood.
    Protocol,
    /// Clone or its cgroup.
    Clone,
    Namespaces,
    Root,
    Mount,
    Device,
    Terminal,
    Pivot,
    Sysctl,
    Hostname,
    Mask,
    Stdio,
    Log,
    Limits,
    Keyring,
    WorkingDirectory,
    User,
    Capabilities,
    Seccomp,
    /// Looking the program up, and execve itself.
    Exec,
    /// Init ended, or the agent gave up, before the program ran.
    Aborted,
}
wire_enum!(Stage as u16 {
    Protocol = 1, Clone = 2, Namespaces = 3, Root = 4, Mount = 5, Device = 6, Terminal = 7, Pivot = 8, Sysctl = 9,
    Hostname = 10, Mask = 11, Stdio = 12, Log = 13, Limits = 14, Keyring = 15, WorkingDirectory = 16, User = 17,
    Capabilities = 18, Seccomp = 19, Exec = 20, Aborted = 21,
});

/// On whose behalf something is stopped; decides the flags of the exit record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopBy {
    /// A client of the agent: no restart policy applies.
    User,
    /// The service manager stops the unit.
    Unit,
    /// The agent itself (restart, shutdown of the agent's host).
    Agent,
}
wire_enum!(StopBy as u8 { User = 1, Unit = 2, Agent = 3 });

impl StopBy {
    /// The flag of the exit record that goes with it.
    pub fn exit_flag(self) -> u32 {
        match self {
            Self::User => ExitRecord::FLAG_STOPPED_BY_USER,
            Self::Unit => ExitRecord::FLAG_STOPPED_BY_UNIT,
            Self::Agent => ExitRecord::FLAG_STOPPED_BY_AGENT,
        }
    }
}

/// Who speaks, and which versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    pub newest: u8,
    pub oldest: u8,
}
wire_struct!(Hello { newest, oldest });

impl Hello {
    /// This side's greeting.
    pub const OURS: Self = Self {
        newest: PROTOCOL_VERSION,
        oldest: OLDEST_VERSION,
    };

    /// The newest version that both sides speak.
    pub fn common(self, other: Self) -> Option<u8> {
        let version = self.newest.min(other.newest);
        (version >= self.oldest && version >= other.oldest).then_some(version)
    }
}

/// Connects one client to the container's streams. Comes with one descriptor: the client's socket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attach {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Output is written as Docker's frames (8-byte header); otherwise raw, as a terminal's.
    pub framed: bool,
    /// Typed in this order they end the attachment, not the container; empty = none. Only looked
    /// for where there is a terminal.
    pub detach_keys: Blob,
    /// Input that the client sent before its connection was handed over, at most 64 KiB.
    pub initial: Blob,
    /// Register, but write nothing to the client before `Proceed`: the agent replays the log first.
    pub hold: bool,
}
wire_struct!(Attach {
    stdin,
    stdout,
    stderr,
    framed,
    detach_keys,
    initial,
    hold
});

/// What an agent (or a newer agent) asks of a monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// First on every later connection; answered by `Reply::Hello`.
    Hello(Hello),
    /// Carries descriptors that the following `Start` needs beyond those of its own frame; not answered.
    Descriptors,
    /// Boxed because it is far larger than everything else.
    Start(Box<Plan>),
    /// Let init execute the program.
    Go,
    /// Give the start up; answered by `StartFailed` at stage `Aborted`. After `Started` an error.
    Abort,
    /// Answered by `Attached`, and by `AttachEnded` when it is over.
    Attach(Attach),
    /// Begin to write to a held client; answered by `Done`.
    Proceed {
        session: u32,
    },
    /// New size of the terminal; answered by `Done`, or `Failed` without a terminal.
    Resize {
        rows: u16,
        columns: u16,
    },
    /// A signal to the container's first process; `by` marks the exit as asked for.
    Signal {
        signal: i32,
        by: Option<StopBy>,
    },
    /// The signal, and after the time (negative = never) the kill of the payload cgroup. Answered by
    /// `Done` when it has begun; `Exited` tells watchers the end. A second one only shortens the time.
    Stop {
        signal: i32,
        timeout_ms: i64,
        by: StopBy,
    },
    /// New rule for the service manager's stop.
    SetStop {
        signal: i32,
        timeout_ms: i64,
    },
    State,
    /// Answered by `Exited`, at once when it has ended already. A connection that watches counts as
    /// an agent that listens: the monitor need not wake another.
    Watch,
    /// Reserved: run another process in the container.
    Exec(Blob),
    /// Reserved: hand the pipe ends and the log back.
    Release(Blob),
}

/// A start that failed, in words for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailed {
    pub stage: Stage,
    /// 0 = no system call failed.
    pub errno: i32,
    /// A whole sentence, with the errno's text where there is one.
    pub message: String,
}
wire_struct!(StartFailed {
    stage,
    errno,
    message
});

/// Where a monitor is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waits for `Start`.
    Idle,
    /// Init is being set up.
    Starting,
    /// Init waits for `Go`.
    Ready,
    Running,
    /// A stop is under way.
    Stopping,
    Exited,
}
wire_enum!(Phase as u8 { Idle = 0, Starting = 1, Ready = 2, Running = 3, Stopping = 4, Exited = 5 });

/// What `State` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorState {
    pub phase: Phase,
    /// Host pid of init; 0 = none (yet).
    pub pid: u32,
    /// Nanoseconds since the epoch; 0 = not started.
    pub started_at: i64,
    pub stop_signal: i32,
    pub stop_timeout_ms: i64,
    /// Clients attached now.
    pub sessions: u32,
    pub terminal: bool,
    pub exit: Option<ExitRecord>,
}
wire_struct!(MonitorState {
    phase,
    pid,
    started_at,
    stop_signal,
    stop_timeout_ms,
    sessions,
    terminal,
    exit
});

/// Why an attachment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttachEnd {
    /// The container's streams are closed and everything was written.
    Eof,
    /// The detach keys were typed.
    Detached,
    /// The client went away.
    ClientGone,
}
wire_enum!(AttachEnd as u8 { Eof = 0, Detached = 1, ClientGone = 2 });

/// What a monitor answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Hello {
        hello: Hello,
        id: String,
        monitor_pid: u32,
        phase: Phase,
    },
    /// Init is set up. Comes with one descriptor: its pidfd.
    Ready {
        pid: u32,
    },
    /// The program runs.
    Started {
        pid: u32,
        started_at: i64,
    },
    StartFailed(StartFailed),
    Done,
    Failed {
        errno: i32,
        message: String,
    },
    /// `log_position`: bytes in the current log file when the client was registered; what comes
    /// after is written to it.
    Attached {
        session: u32,
        log_position: u64,
    },
    AttachEnded {
        session: u32,
        end: AttachEnd,
    },
    State(MonitorState),
    Exited(ExitRecord),
}

/// Docker's sentence for a program that cannot be executed, and the exit code that goes with it.
/// `program` is as asked for; `searched` = it has no slash and PATH was searched.
pub fn exec_error(program: &str, searched: bool, errno: i32) -> String {
    const ENOENT: i32 = 2;
    const ENOEXEC: i32 = 8;
    const EACCES: i32 = 13;
    const EISDIR: i32 = 21;
    match errno {
        ENOENT if searched => format!("exec: \"{program}\": executable file not found in $PATH"),
        ENOENT => format!("exec: \"{program}\": stat {program}: no such file or directory"),
        ENOEXEC => format!("exec {program}: exec format error"),
        EISDIR => format!("exec: \"{program}\": is a directory"),
        EACCES => format!("exec: \"{program}\": permission denied"),
        other => {
            let text = std::io::Error::from_raw_os_error(other)
                .to_string()
                .to_lowercase();
            let text = text.split(" (os error").next().unwrap_or_default();
            format!("exec: \"{program}\": {text}")
        }
    }
}

/// Docker's exit code of a start that failed: 127 = no such program, 126 = not executable, 128 = anything else.
pub fn start_exit_code(failed: &StartFailed) -> i32 {
    match (failed.stage, failed.errno) {
        (Stage::Exec, 2) => 127,
        (Stage::Exec, _) => 126,
        _ => 128,
    }
}

#[cfg(test)]
mod tests;
