//! Against an authority of our own at the other end of a socket pair.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;

use zbus::{Guid, OwnedVariant, interface};

use super::*;

struct FakeAuthority {
    answer: Answer,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Yes,
    No,
    Challenge,
    Fails,
    Silent,
}

#[interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl FakeAuthority {
    async fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action: &str,
        details: HashMap<String, String>,
        flags: u32,
        ticket: &str,
    ) -> fdo::Result<(bool, bool, HashMap<String, String>)> {
        assert_eq!(action, "org.berth.agent1.manage");
        assert_eq!(details["container"], "abc");
        assert!(!ticket.is_empty());
        match subject.0.as_str() {
            "unix-process" => {
                assert_eq!(*subject.1["pid"], zbus::Variant::U32(77));
                assert_eq!(*subject.1["start-time"], zbus::Variant::U64(5));
                // Signed, or polkit would not look at it.
                assert_eq!(*subject.1["uid"], zbus::Variant::I32(1000));
            }
            "system-bus-name" => assert_eq!(*subject.1["name"], zbus::Variant::from(":1.9")),
            other => panic!("{other}"),
        }
        match self.answer {
            Answer::Yes => Ok((true, false, HashMap::new())),
            Answer::No => Ok((false, false, HashMap::new())),
            Answer::Challenge => Ok((flags == 1, true, HashMap::new())),
            Answer::Fails => Err(fdo::Error::Failed("is not registered".to_owned())),
            Answer::Silent => std::future::pending().await,
        }
    }

    fn cancel_check_authorization(&self, _ticket: &str) {}
}

struct FakeDriver;

#[interface(name = "org.freedesktop.DBus")]
impl FakeDriver {
    fn get_connection_unix_user(&self, name: &str) -> fdo::Result<u32> {
        match name {
            ":1.1" => Ok(0),
            ":1.9" => Ok(1000),
            other => Err(fdo::Error::NameHasNoOwner(other.to_owned())),
        }
    }
}

async fn authority(answer: Option<Answer>) -> (Authority, Connection) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    for stream in [&ours, &theirs] {
        stream.set_nonblocking(true).unwrap();
    }
    let mut server = zbus::connection::Builder::unix_stream(theirs)
        .server(Guid::generate())
        .p2p()
        .serve_at("/org/freedesktop/DBus", FakeDriver);
    if let Some(answer) = answer {
        server = server.serve_at(
            "/org/freedesktop/PolicyKit1/Authority",
            FakeAuthority { answer },
        );
    }
    let client = zbus::connection::Builder::unix_stream(ours).p2p().build();
    let (server, client) = tokio::try_join!(server.build(), client).unwrap();
    (Authority::on(client), server)
}

const USER: Subject = Subject::Process {
    pid: 77,
    start_time: 5,
    uid: 1000,
};

async fn ask(answer: Option<Answer>, subject: &Subject, interactive: bool) -> Decision {
    let (authority, _server) = authority(answer).await;
    authority
        .check(
            subject,
            "org.berth.agent1.manage",
            &[("container", "abc")],
            interactive,
        )
        .await
}

#[tokio::test]
async fn answers() {
    let bus_user = Subject::BusName(":1.9".to_owned());
    for subject in [&USER, &bus_user] {
        assert_eq!(
            ask(Some(Answer::Yes), subject, false).await,
            Decision::Allowed
        );
        assert!(matches!(
            ask(Some(Answer::No), subject, true).await,
            Decision::Denied(_)
        ));
        assert_eq!(
            ask(Some(Answer::Challenge), subject, false).await,
            Decision::Challenge
        );
        assert_eq!(
            ask(Some(Answer::Challenge), subject, true).await,
            Decision::Allowed
        );
    }
}

#[tokio::test]
async fn root_is_not_asked_about() {
    let root = Subject::Process {
        pid: 1,
        start_time: 0,
        uid: 0,
    };
    assert_eq!(ask(Some(Answer::No), &root, false).await, Decision::Allowed);
    let root = Subject::BusName(":1.1".to_owned());
    assert_eq!(ask(Some(Answer::No), &root, false).await, Decision::Allowed);
}

#[tokio::test]
async fn whatever_goes_wrong_means_no() {
    for answer in [None, Some(Answer::Fails)] {
        let decision = ask(answer, &USER, false).await;
        assert!(matches!(decision, Decision::Denied(_)), "{decision:?}");
    }
    // A caller that has left the bus.
    let gone = Subject::BusName(":1.404".to_owned());
    assert!(matches!(
        ask(Some(Answer::Yes), &gone, false).await,
        Decision::Denied(_)
    ));
    let nonsense = Subject::BusName("not a name".to_owned());
    assert!(matches!(
        ask(Some(Answer::Yes), &nonsense, false).await,
        Decision::Denied(_)
    ));
}

#[tokio::test]
async fn silence_means_no() {
    let (authority, _server) = authority(Some(Answer::Silent)).await;
    let connection = authority.connection().await.unwrap();
    let details = [("container", "abc")];
    let limit = Duration::from_millis(50);
    let action = "org.berth.agent1.manage";
    let decision = super::ask(&connection, &USER, action, &details, false, limit).await;
    assert!(
        matches!(&decision, Decision::Denied(reason) if reason.contains("50ms")),
        "{decision:?}"
    );
}

#[test]
fn an_absent_polkit_is_told_apart() {
    let absent: zbus::Error = fdo::Error::ServiceUnknown("not provided".to_owned()).into();
    let Decision::Denied(reason) = unanswered("a", &absent) else {
        panic!("must be denied");
    };
    assert!(reason.contains("only root"), "{reason}");
}

#[test]
fn a_peer_is_named_by_its_start_time() {
    let me = Subject::from_peer(std::process::id(), 1000).unwrap();
    assert!(matches!(me, Subject::Process { start_time, .. } if start_time > 0));
    assert!(Subject::from_peer(u32::MAX, 0).is_err());
}
