//! What several suites need: a test with a clean host around it, containers made in one line, waiting for output.

use berth_tests::image::{Image, Layer, busybox_layer};
use berth_tests::lab::Lab;
use berth_tests::state::Hygiene;
use serde_json::{Value, json};

/// Runs a test on the lab, and fails it also when it leaves something behind.
#[track_caller]
pub(crate) fn clean(test: impl FnOnce(&Lab)) {
    let lab = Lab::get();
    let hygiene = Hygiene::begin(lab);
    test(lab);
    lab.remove_all();
    hygiene.end();
}

/// A script that does nothing until it is told to end, which it does at once, with code 7.
pub(crate) const PATIENT: &str = "trap 'exit 7' TERM; echo ready; sleep 1000 & wait";

/// `docker run -d` with these arguments: the container's id.
#[track_caller]
pub(crate) fn run_detached(lab: &Lab, args: &[&str]) -> String {
    let argv: Vec<&str> = ["run", "-d"].iter().chain(args).copied().collect();
    let id = lab.docker(&argv).ok();
    assert_eq!(id.len(), 64, "an id: {id}");
    id
}

/// A running container with the patient script; its id.
#[track_caller]
pub(crate) fn patient(lab: &Lab, args: &[&str]) -> String {
    let argv: Vec<&str> = args
        .iter()
        .copied()
        .chain(["busybox", "sh", "-c", PATIENT])
        .collect();
    let id = run_detached(lab, &argv);
    wait_for_line(lab, &id, "ready");
    id
}

/// The inspect document of a container.
#[track_caller]
pub(crate) fn inspect(lab: &Lab, id: &str) -> Value {
    lab.http()
        .get(&format!("/containers/{id}/json"))
        .expect(200)
        .json()
}

/// Follows a container's log until a line is `line`; fails when the log ends first.
#[track_caller]
pub(crate) fn wait_for_line(lab: &Lab, id: &str, line: &str) {
    wait_for_lines(lab, id, line, 1);
}

/// The same until the line has come so many times: each start of a container writes it again.
#[track_caller]
pub(crate) fn wait_for_lines(lab: &Lab, id: &str, line: &str, times: usize) {
    let path = format!("/containers/{id}/logs?stdout=1&stderr=1&follow=1");
    let mut log = lab
        .http()
        .open("GET", &path, &[("Connection", "close")], None)
        .unwrap();
    assert_eq!(log.head.status, 200);
    let mut seen = String::new();
    let mut count = 0;
    loop {
        let mut buffer = Vec::new();
        let read = std::io::BufRead::read_until(&mut log.stream, b'\n', &mut buffer).unwrap();
        assert!(read > 0, "the log ended without {line:?}: {seen:?}");
        let text = String::from_utf8_lossy(&buffer).into_owned();
        if text.trim_end().ends_with(line) {
            count += 1;
        }
        if count == times {
            return;
        }
        seen.push_str(&text);
    }
}

/// Waits for a container's end and returns its exit code.
#[track_caller]
pub(crate) fn wait_exit(lab: &Lab, id: &str) -> i64 {
    lab.http()
        .post(&format!("/containers/{id}/wait"))
        .expect(200)
        .json()["StatusCode"]
        .as_i64()
        .unwrap()
}

/// Creates a container over the API; the answer must be 201.
#[track_caller]
pub(crate) fn create(lab: &Lab, name: Option<&str>, body: &Value) -> String {
    let path = name.map_or("/containers/create".to_owned(), |name| {
        format!("/containers/create?name={name}")
    });
    lab.http().post_json(&path, body).expect(201).json()["Id"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The body of a create request for a shell script in the base image.
pub(crate) fn script(text: &str) -> Value {
    json!({ "Image": "busybox", "Cmd": ["sh", "-c", text] })
}

/// Creates, starts and waits; exit code and log (standard output, standard error).
#[track_caller]
pub(crate) fn run_over_api(lab: &Lab, body: &Value) -> (i64, String, String) {
    let http = lab.http();
    let id = create(lab, None, body);
    http.post(&format!("/containers/{id}/start")).expect(204);
    let code = wait_exit(lab, &id);
    let mut log = http
        .open(
            "GET",
            &format!("/containers/{id}/logs?stdout=1&stderr=1"),
            &[("Connection", "close")],
            None,
        )
        .unwrap();
    let body = if log.head.header("transfer-encoding") == Some("chunked") {
        dechunk(&log.rest())
    } else {
        log.rest()
    };
    let (out, err) = demultiplex(&body);
    http.delete(&format!("/containers/{id}?v=1")).expect(204);
    (code, out, err)
}

/// The bytes of a chunked body.
pub(crate) fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") {
        let size =
            usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap().trim(), 16).unwrap();
        let from = end + 2;
        whole.extend_from_slice(&bytes[from..from + size]);
        if size == 0 {
            break;
        }
        bytes = &bytes[from + size + 2..];
    }
    whole
}

/// Splits a multiplexed stream into standard output and standard error.
pub(crate) fn demultiplex(mut bytes: &[u8]) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while bytes.len() >= 8 {
        let length =
            usize::try_from(u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]])).unwrap();
        let payload = &bytes[8..8 + length];
        if bytes[0] == 2 {
            err.extend_from_slice(payload)
        } else {
            out.extend_from_slice(payload)
        }
        bytes = &bytes[8 + length..];
    }
    (
        String::from_utf8_lossy(&out).into_owned(),
        String::from_utf8_lossy(&err).into_owned(),
    )
}

/// Loads an image made of busybox and a layer, and returns its name.
#[track_caller]
pub(crate) fn load_with(lab: &Lab, name: &str, layer: Layer) -> String {
    let archive = Image::new(name)
        .layer(busybox_layer())
        .layer(layer)
        .docker_archive();
    lab.http()
        .post_bytes("/images/load", "application/x-tar", &archive)
        .expect(200);
    lab.http().get(&format!("/images/{name}/json")).expect(200);
    name.to_owned()
}

/// Removes an image that a test loaded.
#[track_caller]
pub(crate) fn remove_image(lab: &Lab, name: &str) {
    lab.http()
        .delete(&format!("/images/{name}?force=1"))
        .expect(200);
}
