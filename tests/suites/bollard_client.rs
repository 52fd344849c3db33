//! bollard, the Rust client: typed answers to typed requests, so a field of the wrong type fails here.

use berth_tests::lab::Lab;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, EventsOptionsBuilder,
    InspectContainerOptions, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder, TopOptionsBuilder, WaitContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use crate::support::{PATIENT, clean};

fn with_client<F: Future<Output = ()>>(test: impl FnOnce(Docker) -> F) {
    clean(|lab: &Lab| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let socket = lab.path("/run/berth/berth.sock");
            let client =
                Docker::connect_with_unix(socket.to_str().unwrap(), 60, API_DEFAULT_VERSION)
                    .unwrap();
            let client = client.negotiate_version().await.unwrap();
            test(client).await;
        });
    });
}

fn body(script: &str) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some("busybox".to_owned()),
        cmd: Some(vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()]),
        ..Default::default()
    }
}

async fn create(client: &Docker, name: &str, body: ContainerCreateBody) -> String {
    client
        .create_container(
            Some(CreateContainerOptionsBuilder::default().name(name).build()),
            body,
        )
        .await
        .unwrap()
        .id
}

#[test]
fn ping_version_info() {
    with_client(|client| async move {
        assert_eq!(client.ping().await.unwrap(), "OK");
        let version = client.version().await.unwrap();
        assert_eq!(version.os.as_deref(), Some("linux"));
        let info = client.info().await.unwrap();
        assert_eq!(
            info.cgroup_driver
                .map(|driver| driver.to_string())
                .as_deref(),
            Some("systemd")
        );
        assert!(info.containers.is_some() && info.ncpu.is_some_and(|cpus| cpus > 0));
    });
}

#[test]
fn a_whole_life() {
    with_client(|client| async move {
        let mut spec = body(PATIENT);
        spec.host_config = Some(HostConfig {
            memory: Some(64 << 20),
            ..Default::default()
        });
        let id = create(&client, "bollard", spec).await;
        client
            .start_container(&id, None::<StartContainerOptions>)
            .await
            .unwrap();
        let mut logs = client.logs(
            &id,
            Some(
                LogsOptionsBuilder::default()
                    .stdout(true)
                    .follow(true)
                    .build(),
            ),
        );
        assert_eq!(logs.next().await.unwrap().unwrap().to_string(), "ready\n");
        let container = client
            .inspect_container(&id, None::<InspectContainerOptions>)
            .await
            .unwrap();
        assert_eq!(container.state.unwrap().running, Some(true));
        assert_eq!(container.host_config.unwrap().memory, Some(64 << 20));
        let listed = client
            .list_containers(Some(
                ListContainersOptionsBuilder::default().all(true).build(),
            ))
            .await
            .unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(
            listed[0].names.as_deref(),
            Some(&["/bollard".to_owned()][..])
        );
        let top = client
            .top_processes(
                &id,
                Some(TopOptionsBuilder::default().ps_args("-ef").build()),
            )
            .await
            .unwrap();
        assert!(!top.processes.unwrap().is_empty());
        client.pause_container(&id).await.unwrap();
        client.unpause_container(&id).await.unwrap();
        let mut waiting = client.wait_container(&id, None::<WaitContainerOptions>);
        client
            .stop_container(
                &id,
                Some(StopContainerOptionsBuilder::default().t(5).build()),
            )
            .await
            .unwrap();
        // bollard makes an error of a status that is not zero.
        match waiting.next().await.unwrap() {
            Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => {
                assert_eq!(code, 7)
            }
            other => panic!("{other:?}"),
        }
        client
            .remove_container(
                &id,
                Some(RemoveContainerOptionsBuilder::default().v(true).build()),
            )
            .await
            .unwrap();
    });
}

#[test]
fn attach_carries_both_ways() {
    with_client(|client| async move {
        let mut spec = body("read line; echo got $line; echo oops >&2");
        spec.open_stdin = Some(true);
        spec.stdin_once = Some(true);
        spec.attach_stdin = Some(true);
        let id = create(&client, "attached", spec).await;
        let options = AttachContainerOptionsBuilder::default()
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .stream(true)
            .build();
        let mut attached = client.attach_container(&id, Some(options)).await.unwrap();
        client
            .start_container(&id, None::<StartContainerOptions>)
            .await
            .unwrap();
        attached.input.write_all(b"this\n").await.unwrap();
        let mut lines = Vec::new();
        while let Some(part) = attached.output.next().await {
            lines.push(format!("{:?}", part.unwrap()));
        }
        let text = lines.join(" ");
        assert!(
            text.contains("StdOut")
                && text.contains("got this")
                && text.contains("StdErr")
                && text.contains("oops"),
            "{text}"
        );
    });
}

#[test]
fn images_and_events() {
    with_client(|client| async move {
        let images = client
            .list_images(Some(ListImagesOptionsBuilder::default().all(true).build()))
            .await
            .unwrap();
        let busybox = images
            .iter()
            .find(|image| image.repo_tags.contains(&"busybox:latest".to_owned()))
            .unwrap();
        assert!(busybox.size > 0);
        let detail = client.inspect_image("busybox").await.unwrap();
        assert_eq!(detail.id.as_deref(), Some(busybox.id.as_str()));
        assert_eq!(client.image_history("busybox").await.unwrap().len(), 1);
        let id = create(&client, "seen", body("true")).await;
        let mut events = client.events(Some(EventsOptionsBuilder::default().since("1").build()));
        loop {
            let event = events.next().await.unwrap().unwrap();
            if event.actor.and_then(|actor| actor.id).as_deref() == Some(id.as_str()) {
                assert_eq!(event.action.as_deref(), Some("create"));
                break;
            }
        }
    });
}

#[test]
fn errors_have_their_status() {
    with_client(|client| async move {
        let error = client
            .inspect_container("nobody", None::<InspectContainerOptions>)
            .await
            .unwrap_err();
        match error {
            bollard::errors::Error::DockerResponseServerError {
                status_code,
                message,
            } => {
                assert_eq!(status_code, 404);
                assert!(message.contains("No such container: nobody"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    });
}
