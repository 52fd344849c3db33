//! The one database: the truth about what should exist. One thread owns the connection; everybody
//! else sends it closures. A durable call returns only after the commit would survive a power cut
//! (`synchronous=FULL`); the others survive the death of the agent, which is all that the state of
//! running things needs, since nothing that runs outlives the power.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use crate::error::{Error, Kind, Result};

mod containers;
mod images;

pub(crate) use containers::ContainerRow;

/// Layout of the tables. A database with a newer number is refused: it was written by a newer agent.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE containers (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    body    TEXT NOT NULL,
    state   TEXT NOT NULL
) STRICT;
CREATE TABLE images (
    id     TEXT PRIMARY KEY,
    added  INTEGER NOT NULL
) STRICT;
CREATE TABLE tags (
    reference TEXT PRIMARY KEY,
    image     TEXT NOT NULL REFERENCES images(id),
    tagged    INTEGER NOT NULL
) STRICT;
CREATE INDEX tags_by_image ON tags(image);
";

/// Whether an answer promises that the change outlives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Synced before the call returns.
    Synced,
    /// In the write-ahead log: survives us, not the power.
    Process,
}

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// Handle to the database thread; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    jobs: mpsc::Sender<Job>,
}

struct Worker {
    connection: Connection,
    synced: Option<bool>,
}

impl Worker {
    fn durability(&mut self, durability: Durability) -> rusqlite::Result<()> {
        let synced = durability == Durability::Synced;
        if self.synced != Some(synced) {
            self.connection.pragma_update(
                None,
                "synchronous",
                if synced { "FULL" } else { "NORMAL" },
            )?;
            self.synced = Some(synced);
        }
        Ok(())
    }
}

impl Database {
    /// Opens or makes the database at `path`. Blocking.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let connection = open_connection(path)?;
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("database".into())
            .spawn(move || {
                let mut worker = Worker {
                    connection,
                    synced: None,
                };
                while let Ok(job) = queue.recv() {
                    job(&mut worker);
                }
            })
            .map_err(|e| Error::internal("cannot start the database thread").with_source(e))?;
        Ok(Self { jobs })
    }

    /// Runs `work` in one transaction on the database thread.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.submit(move |worker| {
            worker.durability(durability)?;
            let transaction = worker
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
        .await
    }

    /// Runs a read.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.submit(move |worker| work(&worker.connection)).await
    }

    /// Moves the log into the database file and makes both durable: before an idle exit or shutdown.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        self.submit(|worker| {
            worker.durability(Durability::Synced)?;
            worker
                .connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })
        .await
    }

    async fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Worker) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, result) = oneshot::channel();
        let gone = || Error::new(Kind::Unavailable, "the database thread has ended");
        self.jobs
            .send(Box::new(move |worker| {
                // The caller may have given up; the change stands all the same.
                let _ = answer.send(work(worker));
            }))
            .map_err(|_| gone())?;
        result.await.map_err(|_| gone())?.map_err(database_error)
    }
}

/// Says what a failing database means to the caller; a full disk is named as such.
fn database_error(error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(
            rusqlite::ErrorCode::DiskFull
            | rusqlite::ErrorCode::ReadOnly
            | rusqlite::ErrorCode::CannotOpen,
        ) => Kind::Unavailable,
        _ => Kind::Internal,
    };
    Error::new(kind, "the database refused the change").with_source(error)
}

fn open_connection(path: &Path) -> Result<Connection> {
    let fail = |what: &str, e: rusqlite::Error| {
        Error::unavailable(format!("cannot {what} the database {}", path.display())).with_source(e)
    };
    let mut connection = Connection::open(path).map_err(|e| fail("open", e))?;
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA foreign_keys=ON; PRAGMA cache_size=-1024; PRAGMA mmap_size=0;",
        )
        .map_err(|e| fail("read", e))?;
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|e| fail("read", e))?;
    match version {
        SCHEMA_VERSION => {}
        0 => {
            let transaction = connection.transaction().map_err(|e| fail("set up", e))?;
            transaction
                .execute_batch(SCHEMA)
                .map_err(|e| fail("set up", e))?;
            transaction
                .pragma_update(None, "user_version", SCHEMA_VERSION)
                .map_err(|e| fail("set up", e))?;
            transaction.commit().map_err(|e| fail("set up", e))?;
        }
        other => {
            return Err(Error::unavailable(format!(
                "the database {} has layout {other}; this agent knows layouts up to {SCHEMA_VERSION}: start the newer berthd that wrote it",
                path.display()
            )));
        }
    }
    let damage: Option<String> = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .optional()
        .map_err(|e| fail("check", e))?;
    match damage.as_deref() {
        None | Some("ok") => Ok(connection),
        Some(text) => Err(Error::unavailable(format!(
            "the database {} is damaged: {text}",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("runtime")
    }

    #[test]
    fn a_newer_layout_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("db.sqlite");
        drop(Database::open(&path).expect("first open"));
        let raw = Connection::open(&path).expect("raw");
        raw.pragma_update(None, "user_version", SCHEMA_VERSION + 1)
            .expect("bump");
        drop(raw);
        let error = Database::open(&path).expect_err("newer layout");
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(
            error.full_message().contains("newer berthd"),
            "{}",
            error.full_message()
        );
    }

    #[test]
    fn a_failed_transaction_changes_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let db = Database::open(&dir.path().join("db.sqlite")).expect("open");
        runtime().block_on(async {
            let result: Result<()> = db
                .write(Durability::Synced, |t| {
                    t.execute("INSERT INTO images(id, added) VALUES('a', 1)", [])?;
                    t.execute(
                        "INSERT INTO tags(reference, image, tagged) VALUES('r', 'missing', 1)",
                        [],
                    )?;
                    Ok(())
                })
                .await;
            assert!(result.is_err());
            let count: i64 = db
                .read(|c| c.query_row("SELECT count(*) FROM images", [], |r| r.get(0)))
                .await
                .expect("count");
            assert_eq!(count, 0);
        });
    }
}
