//! The bytes of each message: a number for its kind, and its fields.

use super::{Reply, Request};
use crate::plan;
use crate::wire::{Reader, Wire, WireError};

/// Numbers of the kinds, requests below 100, replies from 100. Never reuse one.
mod kind {
    pub(super) const HELLO: u16 = 1;
    pub(super) const DESCRIPTORS: u16 = 2;
    pub(super) const START: u16 = 3;
    pub(super) const GO: u16 = 4;
    pub(super) const ABORT: u16 = 5;
    pub(super) const ATTACH: u16 = 6;
    pub(super) const PROCEED: u16 = 7;
    pub(super) const RESIZE: u16 = 8;
    pub(super) const SIGNAL: u16 = 9;
    pub(super) const STOP: u16 = 10;
    pub(super) const SET_STOP: u16 = 11;
    pub(super) const STATE: u16 = 12;
    pub(super) const WATCH: u16 = 13;
    pub(super) const EXEC: u16 = 14;
    pub(super) const RELEASE: u16 = 15;

    pub(super) const R_HELLO: u16 = 101;
    pub(super) const R_READY: u16 = 102;
    pub(super) const R_STARTED: u16 = 103;
    pub(super) const R_START_FAILED: u16 = 104;
    pub(super) const R_DONE: u16 = 105;
    pub(super) const R_FAILED: u16 = 106;
    pub(super) const R_ATTACHED: u16 = 107;
    pub(super) const R_ATTACH_ENDED: u16 = 108;
    pub(super) const R_STATE: u16 = 109;
    pub(super) const R_EXITED: u16 = 110;
}

/// Something with a kind number and a payload.
pub(super) trait Message: Sized {
    fn kind(&self) -> u16;
    fn put_payload(&self, out: &mut Vec<u8>);
    fn get_payload(kind: u16, input: &mut Reader<'_>) -> Result<Self, WireError>;
}

impl Message for Request {
    fn kind(&self) -> u16 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Descriptors => kind::DESCRIPTORS,
            Self::Start(_) => kind::START,
            Self::Go => kind::GO,
            Self::Abort => kind::ABORT,
            Self::Attach(_) => kind::ATTACH,
            Self::Proceed { .. } => kind::PROCEED,
            Self::Resize { .. } => kind::RESIZE,
            Self::Signal { .. } => kind::SIGNAL,
            Self::Stop { .. } => kind::STOP,
            Self::SetStop { .. } => kind::SET_STOP,
            Self::State => kind::STATE,
            Self::Watch => kind::WATCH,
            Self::Exec(_) => kind::EXEC,
            Self::Release(_) => kind::RELEASE,
        }
    }
    fn put_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => hello.put(out),
            Self::Start(plan) => out.extend_from_slice(&plan::encode(plan)),
            Self::Descriptors | Self::Go | Self::Abort | Self::State | Self::Watch => {}
            Self::Attach(attach) => attach.put(out),
            Self::Proceed { session } => session.put(out),
            Self::Resize { rows, columns } => {
                rows.put(out);
                columns.put(out);
            }
            Self::Signal { signal, by } => {
                signal.put(out);
                by.put(out);
            }
            Self::Stop {
                signal,
                timeout_ms,
                by,
            } => {
                signal.put(out);
                timeout_ms.put(out);
                by.put(out);
            }
            Self::SetStop { signal, timeout_ms } => {
                signal.put(out);
                timeout_ms.put(out);
            }
            Self::Exec(blob) | Self::Release(blob) => blob.put(out),
        }
    }
    fn get_payload(kind: u16, input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match kind {
            kind::HELLO => Self::Hello(Wire::get(input)?),
            kind::DESCRIPTORS => Self::Descriptors,
            kind::START => {
                let rest = input.rest();
                Self::Start(Box::new(plan::decode(rest)?))
            }
            kind::GO => Self::Go,
            kind::ABORT => Self::Abort,
            kind::ATTACH => Self::Attach(Wire::get(input)?),
            kind::PROCEED => Self::Proceed {
                session: Wire::get(input)?,
            },
            kind::RESIZE => Self::Resize {
                rows: Wire::get(input)?,
                columns: Wire::get(input)?,
            },
            kind::SIGNAL => Self::Signal {
                signal: Wire::get(input)?,
                by: Wire::get(input)?,
            },
            kind::STOP => Self::Stop {
                signal: Wire::get(input)?,
                timeout_ms: Wire::get(input)?,
                by: Wire::get(input)?,
            },
            kind::SET_STOP => Self::SetStop {
                signal: Wire::get(input)?,
                timeout_ms: Wire::get(input)?,
            },
            kind::STATE => Self::State,
            kind::WATCH => Self::Watch,
            kind::EXEC => Self::Exec(Wire::get(input)?),
            kind::RELEASE => Self::Release(Wire::get(input)?),
            value => {
                return Err(WireError::Unknown {
                    what: "request",
                    value: value.into(),
                });
            }
        })
    }
}

impl Message for Reply {
    fn kind(&self) -> u16 {
        match self {
            Self::Hello { .. } => kind::R_HELLO,
            Self::Ready { .. } => kind::R_READY,
            Self::Started { .. } => kind::R_STARTED,
            Self::StartFailed(_) => kind::R_START_FAILED,
            Self::Done => kind::R_DONE,
            Self::Failed { .. } => kind::R_FAILED,
            Self::Attached { .. } => kind::R_ATTACHED,
            Self::AttachEnded { .. } => kind::R_ATTACH_ENDED,
            Self::State(_) => kind::R_STATE,
            Self::Exited(_) => kind::R_EXITED,
        }
    }
    fn put_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello {
                hello,
                id,
                monitor_pid,
                phase,
            } => {
                hello.put(out);
                id.put(out);
                monitor_pid.put(out);
                phase.put(out);
            }
            Self::Ready { pid } => pid.put(out),
            Self::Started { pid, started_at } => {
                pid.put(out);
                started_at.put(out);
            }
            Self::StartFailed(failed) => failed.put(out),
            Self::Done => {}
            Self::Failed { errno, message } => {
                errno.put(out);
                message.put(out);
            }
            Self::Attached {
                session,
                log_position,
            } => {
                session.put(out);
                log_position.put(out);
            }
            Self::AttachEnded { session, end } => {
                session.put(out);
                end.put(out);
            }
            Self::State(state) => state.put(out),
            Self::Exited(record) => record.put(out),
        }
    }
    fn get_payload(kind: u16, input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match kind {
            kind::R_HELLO => Self::Hello {
                hello: Wire::get(input)?,
                id: Wire::get(input)?,
                monitor_pid: Wire::get(input)?,
                phase: Wire::get(input)?,
            },
            kind::R_READY => Self::Ready {
                pid: Wire::get(input)?,
            },
            kind::R_STARTED => Self::Started {
                pid: Wire::get(input)?,
                started_at: Wire::get(input)?,
            },
            kind::R_START_FAILED => Self::StartFailed(Wire::get(input)?),
            kind::R_DONE => Self::Done,
            kind::R_FAILED => Self::Failed {
                errno: Wire::get(input)?,
                message: Wire::get(input)?,
            },
            kind::R_ATTACHED => Self::Attached {
                session: Wire::get(input)?,
                log_position: Wire::get(input)?,
            },
            kind::R_ATTACH_ENDED => Self::AttachEnded {
                session: Wire::get(input)?,
                end: Wire::get(input)?,
            },
            kind::R_STATE => Self::State(Wire::get(input)?),
            kind::R_EXITED => Self::Exited(Wire::get(input)?),
            value => {
                return Err(WireError::Unknown {
                    what: "reply",
                    value: value.into(),
                });
            }
        })
    }
}
