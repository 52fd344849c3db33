//! `GET /events`: what is asked and how an event is written.

use berth_engine::{Error, Event, EventOptions, Result};
use berth_model::time::{Timestamp, parse_since};
use serde_json::{Value, json};

use crate::container::query::check;
use crate::query::Query;
use crate::shape::object;
use crate::version::ApiVersion;

/// Reads the parameters. Times are seconds since the epoch, dates, or durations before `now`.
pub fn query(query: &Query, now: Timestamp) -> Result<EventOptions> {
    let filters = query.filters()?;
    check(&filters, berth_engine::filters::EVENTS)?;
    let time = |name: &str| match query.text(name) {
        "" | "0" => Ok(None),
        text => parse_since(text, now).map(Some).map_err(|_| {
            Error::invalid(format!("invalid value for {name:?}: {text:?} is no time"))
        }),
    };
    let (since, until) = (time("since")?, time("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        return Err(Error::invalid(format!(
            "`since` time ({since}) cannot be after `until` time ({until})"
        )));
    }
    Ok(EventOptions {
        since,
        until,
        filters,
    })
}

/// An event's object; None where this version knows no such events (before 1.22 only those of
/// containers and images).
pub fn body(event: &Event, version: ApiVersion) -> Option<Value> {
    let legacy = matches!(event.kind.as_str(), "container" | "image");
    if !version.at_least(22) && !legacy {
        return None;
    }
    let mut map = serde_json::Map::new();
    if legacy {
        map.insert("status".into(), json!(event.action));
        let id = if version.at_least(22) {
            event.actor.as_str()
        } else {
            event.actor.strip_prefix("sha256:").unwrap_or(&event.actor)
        };
        map.insert("id".into(), json!(id));
        if let Some(image) = event
            .attributes
            .get("image")
            .filter(|_| event.kind == "container")
        {
            map.insert("from".into(), json!(image));
        }
    }
    if version.at_least(22) {
        map.append(&mut object(json!({
            "Type": event.kind,
            "Action": event.action,
            "Actor": { "ID": event.actor, "Attributes": event.attributes },
            "scope": "local",
        })));
    }
    map.insert("time".into(), json!(event.time.secs()));
    if version.at_least(21) {
        map.insert("timeNano".into(), json!(event.time.nanos()));
    }
    Some(Value::Object(map))
}

/// An event as the stream carries it, with its line end.
pub fn line(event: &Event, version: ApiVersion) -> Option<Vec<u8>> {
    let mut out = body(event, version)?.to_string().into_bytes();
    out.push(b'\n');
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn events_of_every_age() {
        let event = samples::event();
        let all: Vec<Value> = [51, 22, 21, 12]
            .map(|minor| body(&event, ApiVersion::new(1, minor)).unwrap())
            .to_vec();
        insta::assert_snapshot!(serde_json::to_string_pretty(&all).unwrap());
        let decoded: bollard_stubs::models::EventMessage =
            serde_json::from_value(all[0].clone()).unwrap();
        assert_eq!(decoded.actor.unwrap().id.unwrap(), event.actor);
    }

    #[test]
    fn other_kinds_are_news_since_1_22() {
        let event = Event {
            kind: "network".into(),
            ..samples::event()
        };
        assert_eq!(body(&event, ApiVersion::new(1, 21)), None);
        let shown = body(&event, ApiVersion::MAX).unwrap();
        assert!(shown.get("status").is_none() && shown["Type"] == "network");
        assert!(line(&event, ApiVersion::MAX).unwrap().ends_with(b"}\n"));
    }

    #[test]
    fn parameters() {
        let now = Timestamp::from_secs(1000);
        let ask = |text: &str| query(&Query::parse(Some(text)), now);
        assert_eq!(ask("since=0").unwrap().since, None);
        assert_eq!(
            ask("since=10&until=20.5").unwrap().until,
            Some(Timestamp::from_nanos(20_500_000_000))
        );
        assert_eq!(
            ask("since=10s").unwrap().since,
            Some(Timestamp::from_secs(990))
        );
        assert!(
            ask("since=20&until=10")
                .unwrap_err()
                .full_message()
                .contains("cannot be after")
        );
        assert!(ask("since=never").is_err());
        assert!(ask("filters=%7B%22nope%22%3A%5B%22x%22%5D%7D").is_err());
        assert!(ask("filters=%7B%22type%22%3A%7B%22container%22%3Atrue%7D%7D").is_ok());
    }
}
