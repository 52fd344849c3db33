//! The parameters of container operations.

use berth_engine::{
    AttachOptions, Error, ListOptions, LogOptions, RemoveOptions, Result, StopOptions,
    WaitCondition,
};
use berth_model::filters::Filters;
use berth_model::time::Timestamp;

use crate::detach_keys;
use crate::query::Query;
use crate::version::ApiVersion;

/// Values of the `status` filter.
const STATUSES: &[&str] = &[
    "created",
    "running",
    "paused",
    "restarting",
    "removing",
    "exited",
    "dead",
];
const HEALTHS: &[&str] = &["none", "starting", "healthy", "unhealthy"];

/// What `logs` was asked for.
#[derive(Debug, Clone, Default)]
pub struct LogsRequest {
    pub options: LogOptions,
    pub timestamps: bool,
    pub details: bool,
}

/// `GET /containers/json`
pub fn list(query: &Query) -> Result<ListOptions> {
    let filters = query.filters()?;
    check(&filters, berth_engine::filters::CONTAINERS)?;
    one_of(&filters, "status", STATUSES)?;
    one_of(&filters, "health", HEALTHS)?;
    if let Some(value) = filters.get("exited").find(|v| v.parse::<i64>().is_err()) {
        return Err(Error::invalid(format!(
            "invalid filter 'exited={value}': must be a number"
        )));
    }
    filters
        .flag("is-task", false)
        .map_err(|e| Error::invalid(e.to_string()))?;
    Ok(ListOptions {
        all: query.flag("all"),
        limit: query
            .int("limit")?
            .and_then(|n| u64::try_from(n).ok())
            .filter(|n| *n > 0),
        size: query.flag("size"),
        filters,
        since: query.word("since").map(str::to_owned),
        before: query.word("before").map(str::to_owned),
    })
}

/// `DELETE /containers/{id}`
pub fn remove(query: &Query) -> RemoveOptions {
    RemoveOptions {
        force: query.flag("force"),
        volumes: query.flag("v"),
        link: query.flag("link"),
    }
}

/// `POST /containers/{id}/stop` and `/restart`. Without `t` the container's own timeout holds, in
/// all versions: Docker 1.0 then gave no grace at all, which no client wants.
pub fn stop(query: &Query, version: ApiVersion) -> Result<StopOptions> {
    Ok(StopOptions {
        signal: query
            .word("signal")
            .filter(|_| version.at_least(42))
            .map(str::to_owned),
        timeout: query.int("t")?,
    })
}

/// `POST /containers/{id}/kill`: the signal; 0 has always meant the default.
pub fn kill(query: &Query) -> Option<String> {
    query
        .word("signal")
        .filter(|s| *s != "0")
        .map(str::to_owned)
}

/// `POST /containers/{id}/wait`
pub fn wait(query: &Query, version: ApiVersion) -> Result<WaitCondition> {
    if !version.at_least(30) {
        return Ok(WaitCondition::NotRunning);
    }
    match query.text("condition") {
        "" | "not-running" => Ok(WaitCondition::NotRunning),
        "next-exit" => Ok(WaitCondition::NextExit),
        "removed" => Ok(WaitCondition::Removed),
        other => Err(Error::invalid(format!("invalid condition: {other:?}"))),
    }
}

/// `POST /containers/{id}/resize`: height and width.
pub fn resize(query: &Query) -> Result<(u16, u16)> {
    let size = |name: &str| {
        let text = query.text(name);
        text.parse()
            .map_err(|_| Error::invalid(format!("invalid resize value for {name:?}: {text:?}")))
    };
    Ok((size("h")?, size("w")?))
}

/// `POST /containers/{id}/rename`: the new name without its leading slash.
pub fn rename(query: &Query) -> Result<String> {
    let name = query.text("name");
    let name = name.strip_prefix('/').unwrap_or(name);
    if name.is_empty() {
        return Err(Error::invalid("Neither old nor new names may be empty"));
    }
    Ok(name.to_owned())
}

/// `GET /containers/{id}/top`: arguments for `ps`.
pub fn top(query: &Query) -> Option<String> {
    query.word("ps_args").map(str::to_owned)
}

/// `POST /containers/{id}/attach`
pub fn attach(query: &Query, version: ApiVersion) -> Result<AttachOptions> {
    let detach_keys = keys(query)?.filter(|_| version.at_least(22));
    Ok(AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        detach_keys,
    })
}

/// `GET /containers/{id}/attach/ws`. Until 1.41 all streams were attached whatever was asked.
pub fn attach_ws(query: &Query, version: ApiVersion) -> Result<AttachOptions> {
    let mut options = attach(query, version)?;
    if !version.at_least(42) {
        (options.stdin, options.stdout, options.stderr) = (true, true, true);
    }
    Ok(options)
}

/// `POST /containers/{id}/start`: the detach keys that will hold.
pub fn start_detach_keys(query: &Query) -> Result<Option<Vec<u8>>> {
    keys(query)
}

/// `GET /containers/{id}/logs`. What a version did not know it ignores.
pub fn logs(query: &Query, version: ApiVersion) -> Result<LogsRequest> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Error::invalid(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    // Before 1.13 there was no `tail`; anything that is no number means all.
    let tail = query
        .text("tail")
        .parse()
        .ok()
        .filter(|_| version.at_least(13));
    let time = |name: &str, since: u32| match query.text(name) {
        "" | "0" => Ok(None),
        _ if !version.at_least(since) => Ok(None),
        text => Timestamp::parse_unix(text).map(Some).map_err(|_| {
            Error::invalid(format!(
                "invalid value for {name:?}: {text:?} is no unix time"
            ))
        }),
    };
    Ok(LogsRequest {
        options: LogOptions {
            stdout,
            stderr,
            follow: query.flag("follow"),
            tail,
            since: time("since", 19)?,
            until: time("until", 35)?,
        },
        timestamps: query.flag("timestamps"),
        details: query.flag("details") && version.at_least(23),
    })
}

/// `POST /containers/prune`
pub fn prune(query: &Query) -> Result<Filters> {
    let filters = query.filters()?;
    check(&filters, berth_engine::filters::CONTAINERS_PRUNED)?;
    Ok(filters)
}

fn keys(query: &Query) -> Result<Option<Vec<u8>>> {
    query.word("detachKeys").map(detach_keys::parse).transpose()
}

/// Refuses filter keys that the operation does not know.
pub(crate) fn check(filters: &Filters, known: &[&str]) -> Result<()> {
    filters
        .validate(known)
        .map_err(|e| Error::invalid(e.to_string()))
}

fn one_of(filters: &Filters, key: &str, known: &[&str]) -> Result<()> {
    match filters.get(key).find(|value| !known.contains(value)) {
        Some(value) => Err(Error::invalid(format!("invalid filter '{key}={value}'"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: ApiVersion = ApiVersion::new(1, 12);

    fn q(text: &str) -> Query {
        Query::parse(Some(text))
    }

    #[test]
    fn listings() {
        let options = list(&q(
            "all=1&limit=3&size=true&filters=%7B%22status%22%3A%5B%22exited%22%5D%7D",
        ))
        .unwrap();
        assert!(options.all && options.size);
        assert_eq!(options.limit, Some(3));
        assert!(options.filters.exact("status", "exited"));
        assert_eq!(list(&q("limit=-1")).unwrap().limit, None);
        assert!(list(&q("limit=x")).is_err());
        for bad in [
            r#"{"nope":["x"]}"#,
            r#"{"status":["sleeping"]}"#,
            r#"{"exited":["x"]}"#,
            r#"{"is-task":["maybe"]}"#,
            "{",
        ] {
            assert!(list(&q(&format!("filters={bad}"))).is_err(), "{bad}");
        }
    }

    #[test]
    fn stopping_and_killing() {
        assert_eq!(stop(&q(""), OLD).unwrap().timeout, None);
        assert_eq!(stop(&q("t=0"), OLD).unwrap().timeout, Some(0));
        assert_eq!(
            stop(&q("t=-1&signal=INT"), ApiVersion::MAX)
                .unwrap()
                .signal
                .as_deref(),
            Some("INT")
        );
        assert_eq!(
            stop(&q("signal=INT"), ApiVersion::new(1, 41))
                .unwrap()
                .signal,
            None
        );
        assert!(stop(&q("t=x"), OLD).is_err());
        assert_eq!(kill(&q("signal=")), None);
        assert_eq!(kill(&q("signal=0")), None);
        assert_eq!(kill(&q("signal=HUP")).as_deref(), Some("HUP"));
    }

    #[test]
    fn waiting() {
        assert_eq!(
            wait(&q("condition=removed"), ApiVersion::MAX).unwrap(),
            WaitCondition::Removed
        );
        assert_eq!(
            wait(&q("condition=removed"), OLD).unwrap(),
            WaitCondition::NotRunning
        );
        assert_eq!(
            wait(&q("condition=x"), ApiVersion::MAX)
                .unwrap_err()
                .full_message(),
            "invalid condition: \"x\""
        );
    }

    #[test]
    fn logs_ask_for_a_stream_and_understand_times() {
        assert!(logs(&q(""), ApiVersion::MAX).is_err());
        let request = logs(
            &q("stdout=1&tail=5&since=10.5&until=20&timestamps=1&details=1"),
            ApiVersion::MAX,
        )
        .unwrap();
        assert_eq!(request.options.tail, Some(5));
        assert_eq!(
            request.options.since,
            Some(Timestamp::from_nanos(10_500_000_000))
        );
        assert!(request.timestamps && request.details);
        assert_eq!(
            logs(&q("stdout=1&tail=all"), ApiVersion::MAX)
                .unwrap()
                .options
                .tail,
            None
        );
        assert_eq!(
            logs(&q("stderr=1&tail=-1&since=0"), ApiVersion::MAX)
                .unwrap()
                .options
                .tail,
            None
        );
        let old = logs(&q("stdout=1&tail=5&since=10"), OLD).unwrap().options;
        assert_eq!((old.tail, old.since), (None, None));
        assert!(logs(&q("stdout=1&since=yesterday"), ApiVersion::MAX).is_err());
    }

    #[test]
    fn attaching() {
        let options = attach(
            &q("stream=1&stdin=1&stdout=1&detachKeys=ctrl-a"),
            ApiVersion::MAX,
        )
        .unwrap();
        assert!(options.stream && options.stdin && options.stdout && !options.stderr);
        assert_eq!(options.detach_keys, Some(vec![1]));
        assert!(attach(&q("detachKeys=nonsense"), ApiVersion::MAX).is_err());
        assert!(attach_ws(&q("stream=1"), OLD).unwrap().stderr);
        assert!(!attach_ws(&q("stream=1"), ApiVersion::MAX).unwrap().stderr);
    }

    #[test]
    fn sizes_and_names() {
        assert_eq!(resize(&q("h=24&w=80")).unwrap(), (24, 80));
        for bad in ["", "h=24", "h=-1&w=80", "h=70000&w=1"] {
            assert!(resize(&q(bad)).is_err(), "{bad}");
        }
        assert_eq!(rename(&q("name=/new")).unwrap(), "new");
        assert!(rename(&q("name=/")).is_err());
    }
}
