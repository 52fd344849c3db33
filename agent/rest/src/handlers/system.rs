//! `/_ping`, `/version`, `/info`, `/events`.

use bytes::Bytes;
use futures_util::StreamExt;
use hyper::StatusCode;

use berth_api::{event, system};
use berth_model::time::Timestamp;

use super::json;
use crate::call::{Call, Outcome};
use crate::reply::{JSON, Reply};
use crate::service::header_pairs;

pub(crate) async fn ping(_: Call) -> Outcome {
    let Reply::Response(mut response) =
        Reply::bytes(StatusCode::OK, "text/plain; charset=utf-8", "OK")
    else {
        return Ok(Reply::status(StatusCode::OK));
    };
    response
        .headers_mut()
        .extend(header_pairs(system::ping_headers()));
    Ok(Reply::Response(response))
}

pub(crate) async fn version(call: Call) -> Outcome {
    let info = call.engine.info().await?;
    json(
        StatusCode::OK,
        &system::version(
            &info,
            &call.identity.version,
            &call.identity.commit,
            call.version,
        ),
    )
}

pub(crate) async fn info(call: Call) -> Outcome {
    let info = call.engine.info().await?;
    json(
        StatusCode::OK,
        &system::info(&info, &call.identity.version, call.version),
    )
}

pub(crate) async fn events(call: Call) -> Outcome {
    let options = event::query(&call.query, Timestamp::now())?;
    let version = call.version;
    let events = call.engine.events(options).await?;
    let lines = events.filter_map(move |event| std::future::ready(event::line(&event, version)));
    Ok(Reply::stream(
        JSON,
        lines.map(|line| Ok(Bytes::from(line))).boxed(),
    ))
}
