//! A container as it is stored: the body, written once at create, and the state, written at each
//! change. The live parts (monitor, descriptors) are never stored: they are found again.

use serde::{Deserialize, Serialize};

use berth_model::digest::Digest;
use berth_model::time::Timestamp;
use berth_network::Endpoint;

use crate::db::{ContainerRow, Durability};
use crate::error::{Error, Result};
use crate::types::{ContainerSpec, EffectiveConfig, MountPoint, State, Status};

/// What was asked and decided at create; never changes but for the name, which has its own column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) image: Digest,
    pub(crate) spec: ContainerSpec,
    pub(crate) config: EffectiveConfig,
    pub(crate) mounts: Vec<MountPoint>,
}

impl Body {
    pub(crate) fn encode(&self) -> Result<String> {
        encode(self)
    }
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Stored {
    pub(crate) state: State,
    /// A start was begun and neither finished nor undone: restore buries what it left.
    pub(crate) starting: bool,
    /// The boot in which `state` was last live; live states of another boot are dead.
    pub(crate) boot: String,
    pub(crate) endpoint: Option<Endpoint>,
    /// Below the hierarchy's root, while it runs.
    pub(crate) control_group: String,
    pub(crate) restart_count: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: Timestamp,
    pub(crate) body: std::sync::Arc<Body>,
    pub(crate) stored: Stored,
}

impl Record {
    pub(crate) fn status(&self) -> Status {
        self.stored.state.status
    }

    /// How much its state promises: only a restart policy makes a start or an end outlive the power.
    pub(crate) fn durability(&self) -> Durability {
        if self.body.spec.host.restart.is_set() {
            Durability::Synced
        } else {
            Durability::Process
        }
    }

    pub(crate) fn to_row(&self) -> Result<ContainerRow> {
        Ok(ContainerRow {
            id: self.id.clone(),
            name: self.name.clone(),
            created: self.created.nanos(),
            body: self.body.encode()?,
            state: self.encode_state()?,
        })
    }

    pub(crate) fn encode_state(&self) -> Result<String> {
        encode(&self.stored)
    }

    pub(crate) fn from_row(row: &ContainerRow) -> Result<Self> {
        Ok(Self {
            id: row.id.clone(),
            name: row.name.clone(),
            created: Timestamp::from_nanos(row.created),
            body: std::sync::Arc::new(decode(&row.id, "body", &row.body)?),
            stored: decode(&row.id, "state", &row.state)?,
        })
    }
}

fn encode(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|e| Error::internal("cannot encode a record").with_source(e))
}

fn decode<'a, T: Deserialize<'a>>(id: &str, part: &str, text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| {
        Error::internal(format!(
            "the {part} of container {id} in the database is damaged"
        ))
        .with_source(e)
    })
}
