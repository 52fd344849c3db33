//! A few namespaces made ahead, so that a start does not wait for the making of one.
//!
//! The pool is filled when nothing is being started: under load a namespace costs the machine the
//! same whoever makes it and when, so making them beside starts would only slow those down. It
//! costs kernel memory while the agent runs (some 100 KB each), so it is small.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::netns::Netns;
use crate::switches::Switches;

/// Namespaces kept ready: enough for a burst of a few starts.
pub(crate) const READY: usize = 3;

/// The namespaces that are ready.
#[derive(Debug)]
pub(crate) struct Warm {
    size: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Netns>,
    /// Starts under way.
    starting: usize,
    filling: bool,
    closed: bool,
}

/// Says that something is being started; while one lives the pool is not filled.
#[derive(Debug)]
pub(crate) struct Starting(Arc<Warm>);

impl Warm {
    pub(crate) fn new(size: usize) -> Arc<Warm> {
        Arc::new(Warm {
            size,
            state: Mutex::default(),
        })
    }

    pub(crate) fn starting(self: &Arc<Self>) -> Starting {
        self.state().starting += 1;
        Starting(Arc::clone(self))
    }

    /// A namespace that is ready, if one is.
    pub(crate) fn take(&self) -> Option<Netns> {
        self.state().ready.pop()
    }

    /// Makes the pool hand this one out next.
    #[cfg(test)]
    pub(crate) fn put(&self, netns: Netns) {
        self.state().ready.push(netns);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.state().ready.len()
    }

    /// Fills the pool in the background, on a thread of its own, if that is wanted now. The thread
    /// ends when the pool is full, when a start begins (whose end fills again), or on an error.
    pub(crate) fn fill(self: &Arc<Self>) {
        {
            let mut state = self.state();
            if state.filling || !self.wants_more(&state) {
                return;
            }
            state.filling = true;
        }
        let warm = Arc::clone(self);
        let spawned = std::thread::Builder::new()
            .name("berth-netns".to_owned())
            .spawn(move || {
                let result = warm.fill_here();
                warm.state().filling = false;
                if let Err(error) = result {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "no network namespaces are kept ready, ignoring"
                    );
                }
            });
        if let Err(error) = spawned {
            self.state().filling = false;
            tracing::warn!(%error, "no thread to keep network namespaces ready, ignoring");
        }
    }

    /// The thread moves from one new namespace to the next.
    fn fill_here(&self) -> Result<()> {
        let switches = Switches::open()?;
        while self.wants_more(&self.state()) {
            let made = Netns::create_here(&switches)?;
            let mut state = self.state();
            if state.closed {
                break;
            }
            state.ready.push(made);
        }
        Ok(())
    }

    fn wants_more(&self, state: &State) -> bool {
        !state.closed && state.starting == 0 && state.ready.len() < self.size
    }

    /// Lets go of what is ready and makes no more.
    pub(crate) fn close(&self) {
        let ready = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.ready)
        };
        drop(ready);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let idle = {
            let mut state = self.0.state();
            state.starting -= 1;
            state.starting == 0
        };
        if idle {
            self.0.fill();
        }
    }
}
