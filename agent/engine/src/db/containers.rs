//! Rows of containers. The body (what was asked) is written once; the state (what became of it) often.

use rusqlite::params;

use super::{Database, Durability};
use crate::error::Result;

/// One row as stored: the texts are the engine's own serialisation of its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerRow {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Nanoseconds since the epoch.
    pub(crate) created: i64,
    pub(crate) body: String,
    pub(crate) state: String,
}

impl Database {
    pub(crate) async fn containers(&self) -> Result<Vec<ContainerRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT id, name, created, body, state FROM containers ORDER BY created, id",
            )?;
            let rows = statement.query_map([], |row| {
                Ok(ContainerRow {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    created: row.get(2)?,
                    body: row.get(3)?,
                    state: row.get(4)?,
                })
            })?;
            rows.collect()
        })
        .await
    }

    pub(crate) async fn container_insert(&self, row: ContainerRow) -> Result<()> {
        self.write(Durability::Synced, move |t| {
            t.prepare_cached(
                "INSERT INTO containers(id, name, created, body, state) VALUES(?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![row.id, row.name, row.created, row.body, row.state])?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn container_state(
        &self,
        durability: Durability,
        id: String,
        state: String,
    ) -> Result<()> {
        self.write(durability, move |t| {
            t.prepare_cached("UPDATE containers SET state = ?2 WHERE id = ?1")?
                .execute(params![id, state])?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn container_body(&self, id: String, body: String) -> Result<()> {
        self.write(Durability::Synced, move |t| {
            t.execute(
                "UPDATE containers SET body = ?2 WHERE id = ?1",
                params![id, body],
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn container_rename(&self, id: String, name: String) -> Result<()> {
        self.write(Durability::Synced, move |t| {
            t.execute(
                "UPDATE containers SET name = ?2 WHERE id = ?1",
                params![id, name],
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn container_delete(&self, id: String) -> Result<()> {
        self.write(Durability::Synced, move |t| {
            t.prepare_cached("DELETE FROM containers WHERE id = ?1")?
                .execute(params![id])?;
            Ok(())
        })
        .await
    }
}
