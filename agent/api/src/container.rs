//! Containers: what clients ask of them and how they are shown.

pub mod create;
pub mod inspect;
pub mod list;
pub mod logs;
pub mod query;
pub mod start;

mod binds;
mod config_view;
mod host;
mod host_view;
mod mounts;
mod network_view;

pub(crate) use config_view::image_view as image_config_view;

use berth_engine::{PruneReport, TopResult, WaitResult};
use serde_json::{Value, json};

use crate::shape::{nil_list, object};
use crate::version::ApiVersion;

/// The answer to `wait`. The error is told from 1.30 on.
pub fn wait_body(result: &WaitResult, version: ApiVersion) -> Value {
    let mut body = object(json!({ "StatusCode": result.exit_code }));
    if let Some(message) = result.error.as_ref().filter(|_| version.at_least(30)) {
        body.insert("Error".into(), json!({ "Message": message }));
    }
    Value::Object(body)
}

/// The answer to `top`.
pub fn top_body(result: &TopResult) -> Value {
    json!({ "Titles": result.titles, "Processes": result.processes })
}

/// The answer to `prune`.
pub fn prune_body(report: &PruneReport) -> Value {
    json!({ "ContainersDeleted": nil_list(&report.deleted), "SpaceReclaimed": report.reclaimed })
}

#[cfg(test)]
mod tests {
    use bollard_stubs::models;

    use super::*;

    #[test]
    fn small_answers_decode() {
        let wait = WaitResult {
            exit_code: 3,
            error: Some("e".into()),
        };
        assert_eq!(
            wait_body(&wait, ApiVersion::MAX),
            json!({"StatusCode": 3, "Error": {"Message": "e"}})
        );
        assert_eq!(
            wait_body(&wait, ApiVersion::new(1, 29)),
            json!({"StatusCode": 3})
        );
        let plain = WaitResult {
            exit_code: -1,
            error: None,
        };
        serde_json::from_value::<models::ContainerWaitResponse>(wait_body(&plain, ApiVersion::MAX))
            .unwrap();
        let top = TopResult {
            titles: vec!["PID".into()],
            processes: vec![vec!["1".into()]],
        };
        serde_json::from_value::<models::ContainerTopResponse>(top_body(&top)).unwrap();
        let report = PruneReport {
            deleted: vec!["a".into()],
            reclaimed: 5,
            ..PruneReport::default()
        };
        serde_json::from_value::<models::ContainerPruneResponse>(prune_body(&report)).unwrap();
        assert_eq!(
            prune_body(&PruneReport::default())["ContainersDeleted"],
            Value::Null
        );
    }
}
