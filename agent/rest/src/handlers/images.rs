//! Images but for their archives.

use hyper::StatusCode;

use berth_api::image;

use super::json;
use crate::call::{Call, Outcome};
use crate::reply::Reply;

pub(crate) async fn list(call: Call) -> Outcome {
    let options = image::list_query(&call.query, call.version)?;
    let images = call.engine.image_list(&options).await?;
    json(StatusCode::OK, &image::list(&images, call.version))
}

pub(crate) async fn inspect(call: Call) -> Outcome {
    let detail = call.engine.image_inspect(&call.name).await?;
    json(StatusCode::OK, &image::inspect(&detail, call.version))
}

pub(crate) async fn history(call: Call) -> Outcome {
    let history = call.engine.image_history(&call.name).await?;
    json(StatusCode::OK, &image::history(&history, call.version))
}

pub(crate) async fn tag(call: Call) -> Outcome {
    let (repository, tag) = image::tag_query(&call.query)?;
    call.engine
        .image_tag(&call.name, &repository, tag.as_deref())
        .await?;
    Ok(Reply::status(StatusCode::CREATED))
}

pub(crate) async fn remove(call: Call) -> Outcome {
    let (force, noprune) = (call.query.flag("force"), call.query.flag("noprune"));
    let deleted = call.engine.image_remove(&call.name, force, noprune).await?;
    json(StatusCode::OK, &image::deleted(&deleted))
}

pub(crate) async fn prune(call: Call) -> Outcome {
    let filters = image::prune_query(&call.query)?;
    let report = call.engine.image_prune(&filters).await?;
    json(StatusCode::OK, &image::prune_body(&report))
}
