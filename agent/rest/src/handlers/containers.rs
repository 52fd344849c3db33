//! Containers but for their streams: create, list, inspect and the verbs.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hyper::StatusCode;

use berth_api::container::{
    self, create as creation, inspect as inspection, list as listing, query, start as starting,
};
use berth_engine::WaitResult;
use berth_model::time::Timestamp;

use super::json;
use crate::call::{Call, Outcome};
use crate::reply::{JSON, Reply};

/// From this version on, the head of a `wait` comes at once and the body when the wait is over.
const WAIT_HEAD_FIRST: u32 = 30;

pub(crate) async fn list(call: Call) -> Outcome {
    let options = query::list(&call.query)?;
    let containers = call.engine.container_list(&options).await?;
    json(
        StatusCode::OK,
        &listing::body(&containers, Timestamp::now(), call.version),
    )
}

pub(crate) async fn create(mut call: Call) -> Outcome {
    let body = call.json_body().await?;
    let request = creation::parse(
        call.query.get("name"),
        call.query.get("platform"),
        &body,
        call.version,
    )?;
    let created = call
        .engine
        .container_create(request.name.as_deref(), request.spec)
        .await?;
    json(
        StatusCode::CREATED,
        &creation::created(&created, call.version),
    )
}

pub(crate) async fn inspect(call: Call) -> Outcome {
    let container = call
        .engine
        .container_inspect(&call.name, call.query.flag("size"))
        .await?;
    json(StatusCode::OK, &inspection::body(&container, call.version))
}

pub(crate) async fn top(call: Call) -> Outcome {
    let arguments = query::top(&call.query);
    let processes = call
        .engine
        .container_top(&call.name, arguments.as_deref())
        .await?;
    json(StatusCode::OK, &container::top_body(&processes))
}

pub(crate) async fn start(mut call: Call) -> Outcome {
    let body = call.whole_body().await?;
    let settings = starting::body(call.content_type(), &body, call.version)?;
    if let Some(settings) = settings {
        call.engine
            .container_set_host(
                &call.name,
                settings.host,
                settings.volumes,
                settings.unsupported,
            )
            .await?;
    }
    let keys = query::start_detach_keys(&call.query)?;
    call.engine.container_start(&call.name, keys).await?;
    Ok(Reply::no_content())
}

pub(crate) async fn stop(call: Call) -> Outcome {
    let options = query::stop(&call.query, call.version)?;
    call.engine.container_stop(&call.name, options).await?;
    Ok(Reply::no_content())
}

pub(crate) async fn restart(call: Call) -> Outcome {
    let options = query::stop(&call.query, call.version)?;
    call.engine.container_restart(&call.name, options).await?;
    Ok(Reply::no_content())
}

pub(crate) async fn kill(call: Call) -> Outcome {
    let signal = query::kill(&call.query);
    call.engine
        .container_kill(&call.name, signal.as_deref())
        .await?;
    Ok(Reply::no_content())
}

pub(crate) async fn pause(call: Call) -> Outcome {
    call.engine.container_pause(&call.name).await?;
    Ok(Reply::no_content())
}

pub(crate) async fn unpause(call: Call) -> Outcome {
    call.engine.container_unpause(&call.name).await?;
    Ok(Reply::no_content())
}

pub(crate) async fn rename(call: Call) -> Outcome {
    let name = query::rename(&call.query)?;
    call.engine.container_rename(&call.name, &name).await?;
    Ok(Reply::no_content())
}

pub(crate) async fn resize(call: Call) -> Outcome {
    let (height, width) = query::resize(&call.query)?;
    call.engine
        .container_resize(&call.name, height, width)
        .await?;
    Ok(Reply::status(StatusCode::OK))
}

pub(crate) async fn remove(call: Call) -> Outcome {
    call.engine
        .container_remove(&call.name, query::remove(&call.query))
        .await?;
    Ok(Reply::no_content())
}

pub(crate) async fn prune(call: Call) -> Outcome {
    let filters = query::prune(&call.query)?;
    let report = call.engine.container_prune(&filters).await?;
    json(StatusCode::OK, &container::prune_body(&report))
}

/// The wait is registered before the head goes out: a client that has the head may start the
/// container and misses nothing.
pub(crate) async fn wait(call: Call) -> Outcome {
    let condition = query::wait(&call.query, call.version)?;
    let version = call.version;
    let waiter = call.engine.container_wait(&call.name, condition).await?;
    if !version.at_least(WAIT_HEAD_FIRST) {
        let result = waiter.finish().await?;
        return json(StatusCode::OK, &container::wait_body(&result, version));
    }
    let line = async move {
        // The status is out already: what fails now is said in the body.
        let result = waiter.finish().await.unwrap_or_else(|error| WaitResult {
            exit_code: -1,
            error: Some(error.full_message()),
        });
        let mut line = container::wait_body(&result, version).to_string();
        line.push('\n');
        Ok(Bytes::from(line))
    };
    Ok(Reply::stream(JSON, stream::once(line).boxed()))
}
