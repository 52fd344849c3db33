//! Work that takes its time: the caller gets the path of a job at once, and `JobRemoved` when it is
//! over. With `wait` among the options the answer itself comes at the end.
//!
//! The work goes on when the caller leaves, as it does under systemd.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, OwnedObjectPath, Variant, interface};

use crate::authorize::Call;
use crate::error::{BusError, Result, Verb};
use crate::manager::ManagerObject;
use crate::shared::{Shared, count};
use crate::view::micros;
use crate::{ROOT, paths};
use berth_model::time::Timestamp;

/// Jobs at a time. A caller waits for its own, so many are a mistake or an attack.
const MAX_JOBS: usize = 1024;

/// How a job ended; `None` while it runs.
type End = Option<Result<()>>;

/// The jobs that run.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    last: AtomicU32,
    running: Mutex<BTreeMap<u32, Arc<Job>>>,
}

/// One piece of work.
#[derive(Debug)]
pub(crate) struct Job {
    id: u32,
    verb: Verb,
    subject: OwnedObjectPath,
    started_at: u64,
    end: watch::Sender<End>,
}

impl Job {
    fn path(&self) -> OwnedObjectPath {
        paths::job(self.id)
    }

    fn state(&self) -> &'static str {
        match &*self.end.borrow() {
            None => "running",
            Some(Ok(())) => "done",
            Some(Err(_)) => "failed",
        }
    }

    fn properties(&self) -> Vec<(&'static str, Variant<'static>)> {
        vec![
            ("Id", Variant::U32(self.id)),
            ("Type", Variant::from(self.verb.as_str())),
            ("Subject", Variant::from(self.subject.clone().into_inner())),
            ("State", Variant::from(self.state())),
            ("StartedAt", Variant::U64(self.started_at)),
            ("Cancelable", Variant::Bool(false)),
        ]
    }

    /// Resolves when the work is over.
    async fn ended(&self) -> Result<()> {
        let mut end = self.end.subscribe();
        let end = end.wait_for(Option::is_some).await;
        match end.as_deref() {
            Ok(Some(result)) => result.clone(),
            _ => Err(BusError::failed("the job is lost")),
        }
    }
}

impl Jobs {
    pub(crate) fn count(&self) -> u32 {
        count(self.running().len())
    }

    pub(crate) fn get(&self, id: u32) -> Option<OwnedObjectPath> {
        self.running().get(&id).map(|job| job.path())
    }

    /// The properties of every job, for the object manager.
    pub(crate) fn properties(&self) -> Vec<(u32, Vec<(&'static str, Variant<'static>)>)> {
        self.all()
            .into_iter()
            .map(|job| (job.id, job.properties()))
            .collect()
    }

    fn all(&self) -> Vec<Arc<Job>> {
        self.running().values().cloned().collect()
    }

    fn add(&self, verb: Verb, subject: OwnedObjectPath) -> Result<Arc<Job>> {
        let mut running = self.running();
        if running.len() >= MAX_JOBS {
            return Err(BusError::limit_reached("too many jobs are running"));
        }
        let mut id = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        while id == 0 || running.contains_key(&id) {
            id = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        }
        let job = Arc::new(Job {
            id,
            verb,
            subject,
            started_at: micros(Timestamp::now()),
            end: watch::Sender::new(None),
        });
        running.insert(id, Arc::clone(&job));
        Ok(job)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Arc<Job>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `work` as a job on `subject` and gives its path: at once, or with `wait` when it is done.
pub(crate) async fn run<F>(
    shared: &Arc<Shared>,
    call: &Call,
    verb: Verb,
    subject: OwnedObjectPath,
    wait: bool,
    work: F,
) -> Result<OwnedObjectPath>
where
    F: Future<Output = berth_engine::Result<()>> + Send + 'static,
{
    let job = shared.jobs.add(verb, subject)?;
    export(&call.connection, &job).await;
    announce(&call.connection, &job).await;
    let key = call.key.clone();
    let busy = shared.engine.busy();
    let owner = Arc::clone(shared);
    let running = Arc::clone(&job);
    tokio::spawn(async move {
        // A task of its own: should the work panic, the job still ends.
        let result = match tokio::spawn(work).await {
            Ok(result) => result.map_err(|error| BusError::from_engine(&error, verb)),
            Err(error) => Err(BusError::failed(format!(
                "the operation broke off: {error}"
            ))),
        };
        owner.told().await;
        running.end.send_replace(Some(result.clone()));
        if !wait {
            // The caller learns the job's path first, then its end.
            owner.calls.answered(&key).await;
        }
        owner.jobs.running().remove(&running.id);
        if let Some(connection) = owner.connection() {
            retire(&connection, &running, &result).await;
        }
        drop(busy);
    });
    if wait {
        job.ended().await?;
    }
    Ok(job.path())
}

/// Puts the jobs that run onto a new connection.
pub(crate) async fn export_all(shared: &Shared, connection: &Connection) {
    for job in shared.jobs.all() {
        export(connection, &job).await;
    }
}

async fn export(connection: &Connection, job: &Arc<Job>) {
    let object = JobObject(Arc::clone(job));
    if let Err(error) = connection.object_server().at(job.path(), object).await {
        tracing::debug!(job = job.id, %error, "a job has no object on the bus, ignoring");
    }
}

async fn announce(connection: &Connection, job: &Job) {
    let told = match SignalEmitter::new(connection, ROOT) {
        Ok(emitter) => {
            ManagerObject::job_new(&emitter, job.id, job.path(), job.subject.clone()).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = told {
        tracing::debug!(job = job.id, %error, "a job was not announced, ignoring");
    }
}

async fn retire(connection: &Connection, job: &Job, result: &Result<()>) {
    let (word, text) = match result {
        Ok(()) => ("done", String::new()),
        Err(error) => ("failed", error.in_one()),
    };
    let told = match SignalEmitter::new(connection, ROOT) {
        Ok(emitter) => {
            let (path, subject) = (job.path(), job.subject.clone());
            ManagerObject::job_removed(&emitter, job.id, path, subject, word, &text).await
        }
        Err(error) => Err(error),
    };
    let gone = connection
        .object_server()
        .remove::<JobObject, _>(job.path())
        .await;
    for error in [told.err(), gone.err()].into_iter().flatten() {
        tracing::debug!(job = job.id, %error, "the end of a job was not told, ignoring");
    }
}

/// `org.berth.Agent1.Job`.
pub(crate) struct JobObject(Arc<Job>);

#[interface(name = "org.berth.Agent1.Job", introspection_docs = false)]
impl JobObject {
    /// Waits for the end, at most so long (2^64−1 = for ever): `done`, `failed` or `running`.
    #[zbus(out_args("state"))]
    async fn wait(&self, timeout_usec: u64) -> String {
        let limit = Duration::from_micros(timeout_usec);
        match tokio::time::timeout(limit, self.0.ended()).await {
            Ok(Ok(())) => "done",
            Ok(Err(_)) => "failed",
            Err(_) => "running",
        }
        .to_owned()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> u32 {
        self.0.id
    }

    #[zbus(property(emits_changed_signal = "const"), name = "Type")]
    fn kind(&self) -> &str {
        self.0.verb.as_str()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn subject(&self) -> OwnedObjectPath {
        self.0.subject.clone()
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn state(&self) -> &str {
        self.0.state()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn started_at(&self) -> u64 {
        self.0.started_at
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn cancelable(&self) -> bool {
        false
    }
}

#[cfg(test)]
impl JobObject {
    pub(crate) fn sample() -> JobObject {
        let jobs = Jobs::default();
        JobObject(jobs.add(Verb::Start, paths::none()).unwrap())
    }

    pub(crate) fn properties(&self) -> Vec<(&'static str, Variant<'static>)> {
        self.0.properties()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_zero_and_never_taken_twice() {
        let jobs = Jobs::default();
        jobs.last.store(u32::MAX - 1, Ordering::Relaxed);
        let ids: Vec<u32> = (0..3)
            .map(|_| jobs.add(Verb::Start, paths::none()).unwrap().id)
            .collect();
        assert_eq!(ids, [u32::MAX, 1, 2]);
        jobs.last.store(0, Ordering::Relaxed);
        assert_eq!(jobs.add(Verb::Stop, paths::none()).unwrap().id, 3);
    }

    #[test]
    fn there_is_a_bound() {
        let jobs = Jobs::default();
        for _ in 0..MAX_JOBS {
            jobs.add(Verb::Start, paths::none()).unwrap();
        }
        assert!(jobs.add(Verb::Start, paths::none()).is_err());
    }

    #[tokio::test]
    async fn an_end_is_seen_before_and_after() {
        let jobs = Jobs::default();
        let job = jobs.add(Verb::Start, paths::none()).unwrap();
        let waiting = tokio::spawn({
            let job = Arc::clone(&job);
            async move { job.ended().await }
        });
        job.end.send_replace(Some(Ok(())));
        waiting.await.unwrap().unwrap();
        job.ended().await.unwrap();
    }
}
