//! Waiting for a container: registered before the caller is answered, so that no exit is missed.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Handle, Watched};
use crate::Engine;
use crate::error::{Error, Result, Subject};
use crate::types::{WaitCondition, WaitResult};

/// A registered wait.
#[derive(Debug)]
pub struct Waiter {
    handle: Arc<Handle>,
    watched: watch::Receiver<Watched>,
    condition: WaitCondition,
    /// As it was at registration.
    seen: Watched,
}

impl Waiter {
    pub(crate) fn register(handle: Arc<Handle>, condition: WaitCondition) -> Self {
        let watched = handle.watched.subscribe();
        let seen = watched.borrow().clone();
        Self {
            handle,
            watched,
            condition,
            seen,
        }
    }

    /// Resolves when the condition holds.
    pub async fn finish(mut self) -> Result<WaitResult> {
        let (condition, seen) = (self.condition, &self.seen);
        let now = self
            .watched
            .wait_for(|now| {
                now.removed
                    || match condition {
                        WaitCondition::NotRunning => !now.live,
                        WaitCondition::NextExit => now.exits > seen.exits,
                        WaitCondition::Removed => false,
                    }
            })
            .await
            .map_err(|_| Error::internal("the container's watch ended"))?
            .clone();
        if now.removed && condition == WaitCondition::NextExit && now.exits == seen.exits {
            return Err(Error::not_found(format!(
                "container {} was removed before it ran",
                self.handle.id
            ))
            .about(Subject::Container));
        }
        Ok(WaitResult {
            exit_code: now.exit_code,
            error: None,
        })
    }
}

impl Engine {
    /// Registers at once: an exit that follows this call's return is not missed.
    pub async fn container_wait(
        &self,
        reference: &str,
        condition: WaitCondition,
    ) -> Result<Waiter> {
        Ok(Waiter::register(
            self.inner.containers.find(reference)?,
            condition,
        ))
    }
}
