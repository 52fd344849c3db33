//! What happened: a bounded history that outlives the agent (it leaves when idle; the history lies in
//! the run directory, so it ends with the boot, like what it tells of) and a live stream for any number
//! of listeners. A listener that does not keep up loses events, never the engine's time.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::broadcast;

use berth_model::filters::Filters;
use berth_model::time::Timestamp;

use crate::error::{Error, Result};
use crate::types::{Event, EventOptions};

/// Events kept for replay. Docker keeps 256; a host agent that comes and goes needs more.
const HISTORY: usize = 4096;
/// Events a slow listener may fall behind before it loses some.
const LISTENER_QUEUE: usize = 1024;

/// The history and its listeners.
#[derive(Debug)]
pub(crate) struct Events {
    history: Mutex<History>,
    live: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug)]
struct History {
    path: PathBuf,
    file: File,
    /// Lines in the file: when twice the history, it is written anew.
    lines: usize,
    kept: VecDeque<Arc<Event>>,
}

impl Events {
    /// Reads what earlier agents of this boot left at `path`. Blocking.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fail = |e| {
            Error::unavailable(format!("cannot open the event log {}", path.display()))
                .with_source(e)
        };
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(fail)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(fail)?;
        if text.last().is_some_and(|&last| last != b'\n') {
            // A killed agent left a torn line; what follows must not be glued to it.
            file.write_all(b"\n").map_err(fail)?;
        }
        let mut kept = VecDeque::new();
        let mut lines = 0;
        for line in text.split(|&byte| byte == b'\n') {
            lines += 1;
            if let Ok(event) = serde_json::from_slice::<Event>(line) {
                kept.push_back(Arc::new(event));
                if kept.len() > HISTORY {
                    kept.pop_front();
                }
            }
        }
        let (live, _) = broadcast::channel(LISTENER_QUEUE);
        Ok(Self {
            history: Mutex::new(History {
                path: path.to_owned(),
                file,
                lines,
                kept,
            }),
            live,
        })
    }

    /// Records an event and tells the listeners.
    pub(crate) fn publish(&self, event: Event) {
        let event = Arc::new(event);
        {
            let mut history = self.lock();
            if let Err(error) = history.append(&event) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot record an event, ignoring"
                );
            }
            history.kept.push_back(event.clone());
            if history.kept.len() > HISTORY {
                history.kept.pop_front();
            }
            // Sent under the lock, so that a listener's replay and its live events never overlap.
            let _ = self.live.send(event);
        }
    }

    pub(crate) fn listeners(&self) -> usize {
        self.live.receiver_count()
    }

    /// Replay from `since`, then live until `until`.
    pub(crate) fn stream(
        &self,
        options: EventOptions,
        now: Timestamp,
    ) -> BoxStream<'static, Event> {
        let EventOptions {
            since,
            until,
            filters,
        } = options;
        let (replay, receiver) = {
            let history = self.lock();
            let replay: Vec<Arc<Event>> = match since {
                Some(since) => history
                    .kept
                    .iter()
                    .filter(|e| e.time >= since && until.is_none_or(|until| e.time <= until))
                    .cloned()
                    .collect(),
                // Without `since` but with an end in the past there is nothing to replay and nothing to wait for.
                None => Vec::new(),
            };
            (replay, self.live.subscribe())
        };
        let filters = Arc::new(filters);
        let wanted = filters.clone();
        let replayed = stream::iter(replay).filter_map(move |event| {
            let keep = matches(&event, &wanted).then(|| (*event).clone());
            async move { keep }
        });
        let rest = until.map(|until| until.nanos().saturating_sub(now.nanos()));
        let deadline = rest.map(|nanos| {
            let wait = std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
            tokio::time::Instant::now() + wait
        });
        let live = stream::unfold(receiver, move |mut receiver| {
            let filters = filters.clone();
            async move {
                loop {
                    let next = match deadline {
                        Some(deadline) => tokio::time::timeout_at(deadline, receiver.recv())
                            .await
                            .ok()?,
                        None => receiver.recv().await,
                    };
                    match next {
                        Ok(event) if matches(&event, &filters) => {
                            return Some(((*event).clone(), receiver));
                        }
                        Ok(_) => {}
                        Err(broadcast::error::RecvError::Lagged(lost)) => {
                            tracing::warn!(lost, "an event listener does not keep up");
                        }
                        Err(broadcast::error::RecvError::Closed) => return None,
                    }
                }
            }
        });
        replayed.chain(live).boxed()
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl History {
    fn append(&mut self, event: &Event) -> std::io::Result<()> {
        if self.lines >= 2 * HISTORY {
            self.rewrite()?;
        }
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.lines += 1;
        // One write per line: a reader after a crash sees whole lines but for the last.
        self.file.write_all(&line)
    }

    fn rewrite(&mut self) -> std::io::Result<()> {
        let mut text = Vec::new();
        for event in &self.kept {
            serde_json::to_writer(&mut text, &**event)?;
            text.push(b'\n');
        }
        let temporary = self.path.with_extension("new");
        std::fs::write(&temporary, &text)?;
        std::fs::rename(&temporary, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.lines = self.kept.len();
        Ok(())
    }
}

/// Docker's event filters: within a key any value, between keys all.
fn matches(event: &Event, filters: &Filters) -> bool {
    let about = |kind: &str, value: &str| {
        event.kind == kind
            && (event.actor == value
                || event.actor.starts_with(value) && value.len() >= 12
                || event
                    .attributes
                    .get("name")
                    .is_some_and(|n| n == value.trim_start_matches('/')))
    };
    let any = |key: &str, value: &str| match key {
        "event" => event.action == value || event.action.split(':').next() == Some(value),
        "type" => event.kind == value,
        "container" => about("container", value),
        "image" => {
            about("image", value)
                || event.attributes.get("image").is_some_and(|image| {
                    image == value
                        || image
                            .rsplit_once(':')
                            .is_some_and(|(repository, _)| repository == value)
                })
        }
        "volume" => about("volume", value),
        "network" => about("network", value),
        "scope" => value == "local",
        "label" => match value.split_once('=') {
            Some((key, want)) => event.attributes.get(key).is_some_and(|v| v == want),
            None => event.attributes.contains_key(value),
        },
        // The faces refuse unknown keys; one that slips through matches nothing.
        _ => false,
    };
    filters.0.iter().all(|(key, values)| match key.as_str() {
        // Labels narrow: all must be there. Of every other key one value is enough.
        "label" => values.iter().all(|value| any(key, value)),
        _ => values.iter().any(|value| any(key, value)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time: i64, action: &str) -> Event {
        Event {
            time: Timestamp::from_nanos(time),
            kind: "container".into(),
            action: action.into(),
            actor: "a".repeat(64),
            attributes: [("name".to_owned(), "web".to_owned())].into(),
        }
    }

    #[tokio::test]
    async fn history_outlives_the_agent_and_a_torn_line_is_skipped() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("events");
        let events = Events::open(&path).expect("open");
        events.publish(event(1, "create"));
        events.publish(event(2, "start"));
        drop(events);
        OpenOptions::new()
            .append(true)
            .open(&path)
            .expect("open")
            .write_all(b"{\"time\":3,\"ki")
            .expect("tear");
        let events = Events::open(&path).expect("again");
        let options = EventOptions {
            since: Some(Timestamp::from_nanos(2)),
            until: Some(Timestamp::from_nanos(10)),
            filters: Filters::default(),
        };
        let seen: Vec<_> = events
            .stream(options, Timestamp::from_nanos(20))
            .collect()
            .await;
        assert_eq!(
            seen.iter().map(|e| e.action.as_str()).collect::<Vec<_>>(),
            ["start"]
        );
    }

    #[tokio::test]
    async fn live_events_follow_the_replay_without_gap() {
        let dir = tempfile::tempdir().expect("tempdir");
        let events = Events::open(&dir.path().join("events")).expect("open");
        events.publish(event(5, "create"));
        let options = EventOptions {
            since: Some(Timestamp::from_nanos(1)),
            ..EventOptions::default()
        };
        let stream = events.stream(options, Timestamp::from_nanos(6));
        events.publish(event(7, "start"));
        let seen: Vec<_> = stream.take(2).map(|e| e.action).collect().await;
        assert_eq!(seen, ["create", "start"]);
    }
}
