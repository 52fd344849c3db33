//! Images as archives: save streams out, load and import stream in and tell their progress. The work
//! runs on blocking threads behind bounded queues (`stream.rs`).

use std::io;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use hyper::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use berth_api::image::{self, CreateImage};
use berth_api::progress;
use berth_engine::{Error as EngineError, Input, ProgressFn};

use crate::call::{Call, Failure, Outcome};
use crate::error::Error;
use crate::reply::{JSON, Reply};
use crate::stream::pieces;

const TAR: &str = "application/x-tar";
/// Lines of progress that wait for the client. A line too many is dropped: the next one says more.
const PROGRESS_LINES: usize = 64;

pub(crate) async fn save(call: Call) -> Outcome {
    let names = vec![call.name.clone()];
    save_names(call, names).await
}

pub(crate) async fn save_many(call: Call) -> Outcome {
    let names = image::save_names(&call.query);
    save_names(call, names).await
}

async fn save_names(call: Call, names: Vec<String>) -> Outcome {
    // Every name is checked before the answer begins.
    let plan = call.engine.image_save(&names).await?;
    let slot = call.archive_slot().await?;
    let busy = call.engine.busy();
    let (mut writer, pieces) = pieces();
    tokio::task::spawn_blocking(move || {
        let _held = (slot, busy);
        let outcome = plan.write_to(&mut writer);
        // A client that leaves is its own affair.
        if let Err(error) = &outcome
            && !writer.is_abandoned()
        {
            tracing::warn!(error = error.full_message(), "saving images ended early");
        }
        writer.finish(outcome.map_err(|error| error.full_message()));
    });
    Ok(Reply::stream(TAR, pieces))
}

/// What a load or an import says while it runs.
enum Said {
    Line(Vec<u8>),
    Done(Result<Vec<Vec<u8>>, EngineError>),
}

pub(crate) async fn load(mut call: Call) -> Outcome {
    let version = call.version;
    let speaks = progress::load_has_output(version);
    let quiet = !speaks || call.query.flag("quiet");
    let (input, slot) = input(&mut call).await?;
    let (sender, said) = mpsc::channel(PROGRESS_LINES);
    let progress = progress_into(&sender, quiet, progress::status);
    let (engine, busy) = (call.engine.clone(), call.engine.busy());
    tokio::spawn(async move {
        let _held = (slot, busy);
        let loaded = engine.image_load(input, progress).await;
        let _ = sender
            .send(Said::Done(loaded.map(|images| progress::loaded(&images))))
            .await;
    });
    if speaks {
        return told(said).await;
    }
    match last(said).await? {
        Ok(_) => Ok(Reply::status(StatusCode::OK)),
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn create(mut call: Call) -> Outcome {
    let (source, options) = match image::create_query(&call.query)? {
        CreateImage::Import { source, options } => (source, options),
        CreateImage::Pull { .. } => {
            return Err(Error::unsupported(
                "pulling images is not supported by this version of berth: use docker load or docker import",
            )
            .into());
        }
    };
    if source != "-" {
        return Err(Error::unsupported(
            "importing from a URL is not supported by this version of berth: send the archive with the request",
        )
        .into());
    }
    let version = call.version;
    let (input, slot) = input(&mut call).await?;
    let (sender, said) = mpsc::channel(PROGRESS_LINES);
    let (engine, busy) = (call.engine.clone(), call.engine.busy());
    tokio::spawn(async move {
        let _held = (slot, busy);
        let imported = engine.image_import(input, options).await;
        let _ = sender
            .send(Said::Done(
                imported.map(|id| vec![progress::imported(&id, version)]),
            ))
            .await;
    });
    told(said).await
}

/// The request's body as the engine reads it, and the slot for the thread that does.
async fn input(call: &mut Call) -> Result<(Input, OwnedSemaphorePermit), Failure> {
    let slot = call.archive_slot().await?;
    let reader = call
        .body_reader()
        .ok_or_else(|| Error::bad_request("the request has no body"))?;
    Ok((Box::new(reader), slot))
}

fn progress_into(
    sender: &mpsc::Sender<Said>,
    quiet: bool,
    shape: fn(&str) -> Vec<u8>,
) -> ProgressFn {
    let sender = sender.clone();
    Box::new(move |line| {
        if !quiet {
            let _ = sender.try_send(Said::Line(shape(&line)));
        }
    })
}

/// A failure before anything was said is an ordinary error; after that it is the stream's last line.
async fn told(mut said: mpsc::Receiver<Said>) -> Outcome {
    let first = match said.recv().await {
        None => return Err(vanished().into()),
        Some(Said::Done(Err(error))) => return Err(error.into()),
        Some(first) => first,
    };
    let rest = stream::unfold(
        said,
        |mut said| async move { Some((said.recv().await?, said)) },
    );
    let lines = stream::once(std::future::ready(first))
        .chain(rest)
        .flat_map(|said| {
            let lines = match said {
                Said::Line(line) => vec![line],
                Said::Done(Ok(lines)) => lines,
                Said::Done(Err(error)) => vec![progress::error(&error)],
            };
            stream::iter(
                lines
                    .into_iter()
                    .map(|line| io::Result::Ok(Bytes::from(line))),
            )
        });
    Ok(Reply::stream(JSON, lines.boxed()))
}

/// The outcome alone, for versions that say nothing in between.
async fn last(
    mut said: mpsc::Receiver<Said>,
) -> Result<Result<Vec<Vec<u8>>, EngineError>, Failure> {
    loop {
        match said.recv().await {
            Some(Said::Line(_)) => {}
            Some(Said::Done(outcome)) => return Ok(outcome),
            None => return Err(vanished().into()),
        }
    }
}

/// The task behind the stream ended without a word: it panicked.
fn vanished() -> Error {
    Error::panicked()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(outcome: Outcome) -> String {
        let Ok(Reply::Response(response)) = outcome else {
            panic!("no response: {outcome:?}")
        };
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("body")
            .to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn a_failure_is_an_error_until_something_was_said() {
        let (sender, said) = mpsc::channel(4);
        sender
            .send(Said::Done(Err(EngineError::invalid("not an archive"))))
            .await
            .unwrap_or_default();
        drop(sender);
        assert!(matches!(told(said).await, Err(Failure::Engine(_))));

        let (sender, said) = mpsc::channel(4);
        for message in [
            Said::Line(b"one\n".to_vec()),
            Said::Done(Err(EngineError::invalid("cut short"))),
        ] {
            sender.send(message).await.unwrap_or_default();
        }
        drop(sender);
        let text = text(told(said).await).await;
        assert!(
            text.starts_with("one\n") && text.contains("cut short"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn the_last_lines_follow_the_progress() {
        let (sender, said) = mpsc::channel(4);
        for message in [
            Said::Line(b"one\n".to_vec()),
            Said::Done(Ok(vec![b"two\n".to_vec(), b"three\n".to_vec()])),
        ] {
            sender.send(message).await.unwrap_or_default();
        }
        drop(sender);
        assert_eq!(text(told(said).await).await, "one\ntwo\nthree\n");
    }

    #[tokio::test]
    async fn a_task_that_died_is_an_error() {
        let (sender, said) = mpsc::channel(4);
        drop(sender);
        assert!(matches!(told(said).await, Err(Failure::Face(_))));
    }
}
