//! The handlers: each reads its parameters through `berth-api`, calls the engine once, and gives the
//! result its JSON through `berth-api` again. No rule of the engine's lives here.

pub(crate) mod archives;
pub(crate) mod attach;
pub(crate) mod containers;
pub(crate) mod images;
pub(crate) mod logs;
pub(crate) mod system;

use hyper::StatusCode;
use serde_json::Value;

use crate::call::Outcome;
use crate::reply::Reply;

/// A JSON answer.
fn json(status: StatusCode, body: &Value) -> Outcome {
    Ok(Reply::json(status, body.to_string().into_bytes()))
}
