use berth_engine::State;

use super::*;
use crate::samples;

#[test]
fn listings_of_every_age() {
    let containers = [samples::container(), samples::bare_container()];
    for minor in [51, 22, 18, 12, 4] {
        let shown = body(&containers, samples::now(), ApiVersion::new(1, minor));
        insta::assert_snapshot!(
            format!("list_1_{minor}"),
            serde_json::to_string_pretty(&shown).unwrap()
        );
    }
}

#[test]
fn bollard_decodes_it() {
    let mut sized = samples::container();
    (sized.size_rw, sized.size_root_fs) = (Some(5), Some(10));
    let shown = body(
        &[sized, samples::bare_container()],
        samples::now(),
        ApiVersion::MAX,
    );
    let decoded: Vec<bollard_stubs::models::ContainerSummary> =
        serde_json::from_value(shown).unwrap();
    assert_eq!(decoded[0].size_rw, Some(5));
    assert_eq!(decoded[0].names.as_deref(), Some(&["/web".to_owned()][..]));
    assert_eq!(
        decoded[0].ports.as_ref().unwrap()[1].public_port,
        Some(8080)
    );
}

#[test]
fn bollard_decodes_every_version_since_1_24() {
    for minor in 24..=51 {
        let shown = body(
            &[samples::container(), samples::bare_container()],
            samples::now(),
            ApiVersion::new(1, minor),
        );
        serde_json::from_value::<Vec<bollard_stubs::models::ContainerSummary>>(shown)
            .unwrap_or_else(|e| panic!("1.{minor}: {e}"));
    }
}

#[test]
fn states_in_words() {
    let secs = |n: i64| Timestamp::from_secs(1_000_000 + n);
    let text = |status, started, finished, code, minor| {
        let state = State {
            status,
            started_at: started,
            finished_at: finished,
            exit_code: code,
            ..State::default()
        };
        let container = Container {
            state,
            ..samples::container()
        };
        status_text(&container, secs(180), ApiVersion::new(1, minor))
    };
    let never = Timestamp::ZERO;
    assert_eq!(
        text(Status::Running, secs(175), never, 0, 51),
        "Up 5 seconds"
    );
    assert_eq!(
        text(Status::Running, secs(200), never, 0, 51),
        "Up Less than a second"
    );
    assert_eq!(
        text(Status::Paused, secs(60), never, 0, 51),
        "Up 2 minutes (Paused)"
    );
    assert_eq!(
        text(Status::Exited, secs(0), secs(0), 137, 51),
        "Exited (137) 3 minutes ago"
    );
    assert_eq!(
        text(Status::Restarting, secs(0), secs(179), 1, 51),
        "Restarting (1) 1 second ago"
    );
    assert_eq!(text(Status::Created, never, never, 0, 51), "Created");
    assert_eq!(text(Status::Created, never, never, 0, 12), "");
    assert_eq!(
        text(Status::Removing, secs(0), secs(1), 0, 51),
        "Removal In Progress"
    );
    assert_eq!(text(Status::Dead, secs(0), secs(1), 0, 51), "Dead");
    // A start that failed leaves a code but no start.
    assert_eq!(text(Status::Exited, never, never, 127, 51), "Created");
}

#[test]
fn commands() {
    let argv = ["sh", "-c", "a b"].map(str::to_owned);
    assert_eq!(command(&argv, ApiVersion::MAX), "sh -c 'a b'");
    assert_eq!(command(&argv, ApiVersion::new(1, 12)), "\"sh -c 'a b'\"");
    assert_eq!(command(&[], ApiVersion::MAX), "");
}
