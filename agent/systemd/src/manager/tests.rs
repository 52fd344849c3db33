//! Against a manager of our own at the other end of a socket pair; the real one is the lab's.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;

use zbus::object_server::SignalEmitter;
use zbus::{Guid, interface};

use super::*;
use crate::scope::ScopeStarted;

/// What the next calls get to hear.
#[derive(Debug, Clone, Default)]
struct Script {
    /// Errors for `StartTransientUnit`, first call first; then success.
    start_errors: Vec<(&'static str, &'static str)>,
    /// The job's result.
    result: &'static str,
    /// Properties that are refused as unknown.
    unknown: Vec<&'static str>,
    /// Send the job's end before the reply to the call.
    early: bool,
    /// Ends of other jobs before ours.
    noise: u32,
}

#[derive(Debug, Default)]
struct Seen {
    starts: Vec<BTreeMap<String, String>>,
    resets: u32,
    changes: Vec<BTreeMap<String, String>>,
}

struct FakeManager {
    script: Mutex<Script>,
    seen: Arc<Mutex<Seen>>,
}

/// An error by any name.
#[derive(Debug)]
struct NamedError(&'static str, String);

impl zbus::DBusError for NamedError {
    fn create_reply(&self, call: &zbus::message::Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.0).build(&self.1)
    }
    fn name(&self) -> zbus::names::ErrorName<'_> {
        zbus::names::ErrorName::from_static_str_unchecked(self.0)
    }
    fn description(&self) -> Option<&str> {
        Some(&self.1)
    }
}

const JOB: &str = "/org/freedesktop/systemd1/job/7";

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeManager {
    async fn start_transient_unit(
        &self,
        name: String,
        mode: String,
        properties: Vec<(String, OwnedVariant)>,
        auxiliary: Vec<(String, Vec<(String, OwnedVariant)>)>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, NamedError> {
        assert_eq!((name.as_str(), mode.as_str()), (UNIT, "fail"));
        assert!(auxiliary.is_empty());
        let script = self.script.lock().unwrap().clone();
        for (property, _) in &properties {
            if script.unknown.contains(&property.as_str()) {
                return Err(NamedError(
                    "org.freedesktop.DBus.Error.PropertyReadOnly",
                    format!("Cannot set property {property}, or unknown property."),
                ));
            }
        }
        self.seen.lock().unwrap().starts.push(readable(&properties));
        if let Some((error, text)) = script.start_errors.first() {
            self.script.lock().unwrap().start_errors.remove(0);
            return Err(NamedError(error, (*text).to_owned()));
        }
        for other in 0..script.noise {
            removed(
                &emitter,
                &format!("/org/freedesktop/systemd1/job/{}", 1000 + other),
                "done",
            )
            .await;
        }
        if script.early {
            removed(&emitter, JOB, script.result).await;
        } else {
            let emitter = emitter.into_owned();
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                removed(&emitter, JOB, script.result).await;
            });
        }
        Ok(JOB.try_into().unwrap())
    }

    fn reset_failed_unit(&self, _name: String) {
        self.seen.lock().unwrap().resets += 1;
    }

    fn set_unit_properties(
        &self,
        name: String,
        runtime: bool,
        properties: Vec<(String, OwnedVariant)>,
    ) -> Result<(), NamedError> {
        assert!(runtime);
        if name != UNIT {
            return Err(NamedError(
                "org.freedesktop.systemd1.NoSuchUnit",
                format!("Unit {name} not loaded."),
            ));
        }
        for (property, _) in &properties {
            if self
                .script
                .lock()
                .unwrap()
                .unknown
                .contains(&property.as_str())
            {
                return Err(NamedError(
                    "org.freedesktop.DBus.Error.PropertyReadOnly",
                    format!("Cannot set property {property}, or unknown property."),
                ));
            }
        }
        self.seen
            .lock()
            .unwrap()
            .changes
            .push(readable(&properties));
        Ok(())
    }

    async fn stop_unit(
        &self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<OwnedObjectPath, NamedError> {
        if name != UNIT {
            return Err(NamedError(
                "org.freedesktop.systemd1.NoSuchUnit",
                format!("Unit {name} not loaded."),
            ));
        }
        removed(&emitter, JOB, "done").await;
        Ok(JOB.try_into().unwrap())
    }

    fn list_units_by_patterns(&self, states: Vec<String>, patterns: Vec<String>) -> Vec<UnitRow> {
        assert!(states.is_empty());
        assert_eq!(patterns, ["berth-*.scope"]);
        vec![
            row("berth-0123456789ab.scope", "active"),
            row("berth-0123456789ac.scope", "failed"),
        ]
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: zbus::ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

fn row(name: &str, active: &str) -> UnitRow {
    let path = || OwnedObjectPath::try_from("/a").unwrap();
    let text = |text: &str| text.to_owned();
    (
        text(name),
        text(""),
        text("loaded"),
        text(active),
        text("running"),
        text(""),
        path(),
        0,
        text(""),
        path(),
    )
}

async fn removed(emitter: &SignalEmitter<'_>, job: &str, result: &str) {
    let job = zbus::ObjectPath::try_from(job).unwrap();
    FakeManager::job_removed(emitter, 7, job, UNIT, result)
        .await
        .unwrap();
}

fn readable(properties: &[(String, OwnedVariant)]) -> BTreeMap<String, String> {
    properties
        .iter()
        .map(|(name, value)| (name.clone(), value.to_string()))
        .collect()
}

const UNIT: &str = "berth-0123456789ab.scope";

fn in_scope(_pid: u32) -> Result<String> {
    Ok(format!("/berth.slice/{UNIT}"))
}

fn elsewhere(_pid: u32) -> Result<String> {
    Ok("/system.slice/ssh.service".to_owned())
}

fn nowhere(_pid: u32) -> Result<String> {
    Ok(String::new())
}

struct Bench {
    manager: Manager,
    seen: Arc<Mutex<Seen>>,
    _server: zbus::Connection,
}

async fn bench(script: Script, locate: Locate) -> Bench {
    let (ours, theirs) = UnixStream::pair().unwrap();
    for stream in [&ours, &theirs] {
        stream.set_nonblocking(true).unwrap();
    }
    let seen = Arc::new(Mutex::new(Seen::default()));
    let fake = FakeManager {
        script: Mutex::new(script),
        seen: Arc::clone(&seen),
    };
    let server = zbus::connection::Builder::unix_stream(theirs)
        .server(Guid::generate())
        .p2p()
        .serve_at(bus::SYSTEMD_PATH, fake)
        .build();
    let client = zbus::connection::Builder::unix_stream(ours).p2p().build();
    let (server, client) = tokio::try_join!(server, client).unwrap();
    let link = Link::on(client, false).await.unwrap();
    Bench {
        manager: Manager::new(Some(link), locate),
        seen,
        _server: server,
    }
}

fn ok() -> Script {
    Script {
        result: "done",
        ..Script::default()
    }
}

async fn start(bench: &Bench) -> Result<ScopeStarted> {
    let settings = ScopeSettings {
        description: "Container x (y)".to_owned(),
        limits: Limits {
            memory_max: Some(1 << 20),
            ..Limits::default()
        },
        ..ScopeSettings::default()
    };
    bench.manager.start_scope(UNIT, 42, &settings).await
}

#[tokio::test]
async fn a_scope_is_started_and_checked() {
    for (early, noise) in [(false, 0), (true, 0), (true, 200)] {
        let bench = bench(
            Script {
                early,
                noise,
                ..ok()
            },
            in_scope,
        )
        .await;
        let started = start(&bench).await.unwrap();
        assert_eq!(started.control_group, format!("/berth.slice/{UNIT}"));
        assert!(started.discarded.is_empty());
        let seen = bench.seen.lock().unwrap();
        assert_eq!(seen.starts.len(), 1);
        assert_eq!(seen.starts[0]["PIDs"], "[uint32 42]");
        assert_eq!(seen.starts[0]["KillSignal"], "23");
        assert_eq!(seen.starts[0]["MemoryMax"], "uint64 1048576");
    }
}

#[tokio::test]
async fn a_leftover_unit_is_reset_then_waited_for() {
    let exists = ("org.freedesktop.systemd1.UnitExists", "exists");
    let mut script = ok();
    script.start_errors = vec![exists];
    let bench1 = bench(script.clone(), in_scope).await;
    start(&bench1).await.unwrap();
    assert_eq!(bench1.seen.lock().unwrap().resets, 1);

    script.start_errors = vec![exists, exists];
    let bench2 = bench(script.clone(), in_scope).await;
    start(&bench2).await.unwrap();
    assert_eq!(bench2.seen.lock().unwrap().resets, 1);

    script.start_errors = vec![exists, exists, exists];
    let bench2 = bench(script, in_scope).await;
    let error = start(&bench2).await.unwrap_err();
    assert!(matches!(error, Error::UnitExists { .. }), "{error}");
    assert_eq!(bench2.seen.lock().unwrap().resets, 1);
}

#[tokio::test]
async fn unknown_properties_are_learnt_and_told() {
    let script = Script {
        unknown: vec!["OOMPolicy", "MemoryMax"],
        ..ok()
    };
    let bench = bench(script, in_scope).await;
    let started = start(&bench).await.unwrap();
    assert_eq!(started.discarded, ["OOMPolicy", "MemoryMax"]);
    // The second start knows already: one call, and the limit is told as missing again.
    let started = start(&bench).await.unwrap();
    assert_eq!(started.discarded, ["OOMPolicy", "MemoryMax"]);
    assert_eq!(bench.seen.lock().unwrap().starts.len(), 2);
}

#[tokio::test]
async fn a_required_property_is_not_given_up() {
    let script = Script {
        unknown: vec!["KillSignal"],
        ..ok()
    };
    let bench = bench(script, in_scope).await;
    let error = start(&bench).await.unwrap_err();
    assert!(
        matches!(&error, Error::MissingProperty { property, .. } if property == "KillSignal"),
        "{error}"
    );
}

#[tokio::test]
async fn errors_have_their_own_words() {
    let mut script = ok();
    script.start_errors = vec![("org.freedesktop.DBus.Error.UnixProcessIdUnknown", "no")];
    let error = start(&bench(script.clone(), in_scope).await)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::ProcessGone { pid: 42, .. }),
        "{error}"
    );

    script.start_errors = vec![("org.freedesktop.DBus.Error.InvalidArgs", "bad")];
    let error = start(&bench(script, in_scope).await).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(!error.is_unavailable());

    let failed = Script {
        result: "failed",
        ..ok()
    };
    let error = start(&bench(failed, in_scope).await).await.unwrap_err();
    assert!(
        matches!(&error, Error::JobFailed { result, .. } if result == "failed"),
        "{error}"
    );

    let error = start(&bench(ok(), elsewhere).await).await.unwrap_err();
    assert!(matches!(&error, Error::ScopeMismatch { .. }), "{error}");
    let error = start(&bench(ok(), nowhere).await).await.unwrap_err();
    assert!(matches!(&error, Error::ProcessGone { .. }), "{error}");
}

#[tokio::test]
async fn a_call_lost_in_a_reexecution_is_made_again_once() {
    let lost = ("org.freedesktop.DBus.Error.NoReply", "gone");
    // Nothing was created: the process is not inside, so the call is repeated.
    static INSIDE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    fn later(pid: u32) -> Result<String> {
        if INSIDE.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            elsewhere(pid)
        } else {
            in_scope(pid)
        }
    }
    let mut script = ok();
    script.start_errors = vec![lost];
    let retried = bench(script.clone(), later).await;
    start(&retried).await.unwrap();
    assert_eq!(retried.seen.lock().unwrap().starts.len(), 2);

    // The unit was created after all: not repeated.
    let created = bench(script.clone(), in_scope).await;
    start(&created).await.unwrap();
    assert_eq!(created.seen.lock().unwrap().starts.len(), 1);

    script.start_errors = vec![lost, lost];
    let hopeless = bench(script, elsewhere).await;
    assert!(start(&hopeless).await.is_err());
    assert_eq!(hopeless.seen.lock().unwrap().starts.len(), 2);
}

#[tokio::test]
async fn later_changes_and_stops() {
    let bench = bench(ok(), in_scope).await;
    let settings = ScopeSettings {
        limits: Limits {
            tasks_max: Some(9),
            ..Limits::default()
        },
        ..ScopeSettings::default()
    };
    bench.manager.set_properties(UNIT, &settings).await.unwrap();
    assert_eq!(
        bench.seen.lock().unwrap().changes,
        [BTreeMap::from([(
            "TasksMax".to_owned(),
            "uint64 9".to_owned()
        )])]
    );
    let error = bench
        .manager
        .set_properties("berth-other.scope", &settings)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NoSuchUnit { .. }), "{error}");
    bench.manager.stop_unit(UNIT).await.unwrap();
    bench.manager.stop_unit("berth-other.scope").await.unwrap();
    assert_eq!(
        bench.manager.scopes().await.unwrap(),
        ["berth-0123456789ab.scope"]
    );
    assert!(matches!(
        bench.manager.stop_unit("no unit").await,
        Err(Error::InvalidUnitName(_))
    ));
}

#[test]
fn the_refused_property_is_read_from_the_text() {
    for (text, want) in [
        (
            "Cannot set property PIDFDs, or unknown property.",
            Some("PIDFDs"),
        ),
        ("Unknown property X or interface Y.", Some("X")),
        ("Cannot set property , or", None),
        ("something else", None),
    ] {
        assert_eq!(refused_property(text), want, "{text}");
    }
}
