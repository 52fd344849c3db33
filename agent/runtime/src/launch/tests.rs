use std::fs;

use super::*;
use crate::plan::Process as PlanProcess;

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(test);
}

fn plan_and_fds() -> (Plan, StartFds) {
    let mut fds = StartFds::new();
    for role in [
        FdRole::Root,
        FdRole::PayloadCgroup,
        FdRole::ExitRecord,
        FdRole::Listener,
    ] {
        fds.add(role, fs::File::open("/dev/null").expect("null").into());
    }
    let process = PlanProcess {
        argv: vec!["x".to_owned()],
        ..PlanProcess::default()
    };
    (
        Plan {
            fds: fds.roles(),
            process,
            ..Plan::default()
        },
        fds,
    )
}

#[test]
fn programs_that_others_can_change_are_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("monitor");
    let reason = |path: &Path| match Launcher::new(path) {
        Err(LaunchError::Program { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    reason(&path);
    fs::copy("/bin/true", &path).expect("copied");
    for (mode, word) in [(0o775, "write"), (0o757, "write"), (0o644, "executable")] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
        assert!(reason(&path).contains(word), "{mode:o}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
    Launcher::new(&path).expect("fine");
    assert!(reason(dir.path()).contains("regular"));
}

#[test]
fn a_monitor_that_dies_is_reported_and_reaped() {
    run(async {
        let launcher = Launcher::new(Path::new("/bin/false")).expect("copied");
        let pending = launcher.spawn().expect("spawned");
        let pid = pending.pid();
        let (plan, fds) = plan_and_fds();
        let error = pending.start(&plan, fds).await.expect_err("died");
        assert!(
            matches!(&error, LaunchError::Died(words) if words == "it said nothing"),
            "{error}"
        );
        assert!(berth_sys::pidfd::open(pid).is_err(), "it is reaped");
    });
}

#[test]
fn its_last_words_are_the_error() {
    run(async {
        // `dd` reports on its standard error when its input has ended, which is the control socket.
        let launcher = Launcher::new(Path::new("/bin/dd")).expect("copied");
        let Pending { link, process } = launcher.spawn().expect("spawned");
        drop(link);
        let words = process.autopsy().await;
        assert!(words.contains("records in"), "{words}");
    });
}

#[test]
fn an_abandoned_monitor_is_killed() {
    run(async {
        let launcher = Launcher::new(Path::new("/bin/cat")).expect("copied");
        let pending = launcher.spawn().expect("spawned");
        let pidfd = pending.pidfd().expect("pidfd");
        let (plan, fds) = plan_and_fds();
        // It never answers; the caller gives up.
        let start = pending.start(&plan, fds);
        assert!(timeout(Duration::from_millis(50), start).await.is_err());
        let gone = berth_sys::poll::wait_readable(&pidfd, Some(Duration::from_secs(10)));
        assert!(gone.expect("polled"), "it has ended");
    });
}

#[test]
fn plan_and_descriptors_must_agree() {
    run(async {
        let launcher = Launcher::new(Path::new("/bin/cat")).expect("copied");
        let (mut plan, fds) = plan_and_fds();
        plan.fds.reverse();
        let error = launcher
            .spawn()
            .expect("spawned")
            .start(&plan, fds)
            .await
            .expect_err("is refused");
        assert!(matches!(error, LaunchError::Plan(_)));
    });
}

#[test]
fn many_descriptors_travel_in_several_frames() {
    let (mut plan, mut fds) = plan_and_fds();
    for index in 0..300 {
        fds.add(
            FdRole::Bind(index),
            fs::File::open("/dev/null").expect("null").into(),
        );
    }
    plan.fds = fds.roles();
    let frames = frames(&plan, fds).expect("fits");
    let counts: Vec<_> = frames.iter().map(|(_, fds)| fds.len()).collect();
    assert_eq!(counts, [200, 104]);
    assert_eq!(frames[0].0, Request::Descriptors);
    assert!(matches!(frames[1].0, Request::Start(_)));
}
