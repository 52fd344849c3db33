//! Whether anybody needs the agent: requests, open streams and running work each hold a guard, and
//! the daemon leaves after a quiet time without any.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Counts the guards; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    count: Arc<watch::Sender<Count>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    busy: usize,
    /// Grows with every guard taken: work that came and went during the quiet time restarts it.
    taken: u64,
}

/// Keeps the agent from leaving while it lives.
#[derive(Debug)]
pub struct Busy {
    count: Arc<watch::Sender<Count>>,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            count: Arc::new(watch::Sender::new(Count::default())),
        }
    }
}

impl Activity {
    pub(crate) fn busy(&self) -> Busy {
        self.count.send_modify(|count| {
            count.busy += 1;
            count.taken += 1;
        });
        Busy {
            count: self.count.clone(),
        }
    }

    /// Resolves when somebody comes after this call.
    pub(crate) async fn disturbed(&self) {
        let mut count = self.count.subscribe();
        let seen = count.borrow_and_update().taken;
        // The sender lives in self: the channel cannot close here.
        let _ = count.wait_for(|c| c.taken != seen).await;
    }

    /// Resolves when nothing has been busy for `quiet`.
    pub(crate) async fn idle_for(&self, quiet: Duration) {
        let mut count = self.count.subscribe();
        loop {
            // The sender lives in self: the channel cannot close here.
            let Ok(seen) = count.wait_for(|c| c.busy == 0).await.map(|c| c.taken) else {
                return;
            };
            let disturbed = count.wait_for(|c| c.taken != seen);
            if tokio::time::timeout(quiet, disturbed).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.count.send_modify(|count| count.busy -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_guard_holds_the_agent_and_its_end_releases_it() {
        let activity = Activity::default();
        let guard = activity.busy();
        let quiet = Duration::from_millis(20);
        assert!(
            tokio::time::timeout(Duration::from_millis(60), activity.idle_for(quiet))
                .await
                .is_err()
        );
        drop(guard);
        tokio::time::timeout(Duration::from_secs(5), activity.idle_for(quiet))
            .await
            .expect("idle after the guard");
    }

    #[tokio::test]
    async fn work_that_comes_and_goes_restarts_the_quiet_time() {
        let activity = Activity::default();
        let idle = activity.idle_for(Duration::from_millis(200));
        tokio::pin!(idle);
        for _ in 0..4 {
            assert!(
                tokio::time::timeout(Duration::from_millis(80), &mut idle)
                    .await
                    .is_err()
            );
            drop(activity.busy());
        }
    }
}
