//! The JSON messages of long operations (load, import, later pull and build): objects one after the
//! other, each with its line end. Readers must decode them incrementally; the line end is for people.

use berth_engine::{Error, Loaded};
use serde_json::{Map, Value, json};

use crate::version::ApiVersion;

/// A piece of text for the user.
pub fn stream(text: &str) -> Vec<u8> {
    message(json!({ "stream": text }))
}

/// What is happening.
pub fn status(text: &str) -> Vec<u8> {
    message(json!({ "status": text }))
}

/// What is happening to one part, and how far it is; a `total` of 0 is unknown.
pub fn progress(id: &str, text: &str, current: u64, total: u64) -> Vec<u8> {
    let mut detail = Map::new();
    for (key, value) in [("current", current), ("total", total)] {
        if value > 0 {
            detail.insert(key.into(), json!(value));
        }
    }
    message(json!({ "status": text, "progressDetail": detail, "id": id }))
}

/// A failure after the answer began, when the HTTP status is already sent.
pub fn error(error: &Error) -> Vec<u8> {
    let text = error.full_message();
    message(json!({ "errorDetail": { "message": text }, "error": text }))
}

/// What a load brought, one message for each reference, or for the id of an image without any.
pub fn loaded(images: &[Loaded]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for image in images {
        if image.refs.is_empty() {
            out.push(stream(&format!("Loaded image ID: {}\n", image.id)));
        }
        for name in &image.refs {
            out.push(stream(&format!("Loaded image: {name}\n")));
        }
    }
    out
}

/// The last message of an import: the image's id. Version 1.0 got it as text.
pub fn imported(id: &str, version: ApiVersion) -> Vec<u8> {
    let id = if version.at_least(22) {
        id
    } else {
        id.strip_prefix("sha256:").unwrap_or(id)
    };
    if version.at_least(1) {
        status(id)
    } else {
        format!("{id}\n").into_bytes()
    }
}

/// Whether a load answers with messages; before 1.23 the body stayed empty.
pub fn load_has_output(version: ApiVersion) -> bool {
    version.at_least(23)
}

fn message(value: Value) -> Vec<u8> {
    let mut out = value.to_string().into_bytes();
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn messages() {
        assert_eq!(text(status("Pulling")), "{\"status\":\"Pulling\"}\r\n");
        assert_eq!(
            text(progress("abc", "Loading layer", 5, 0)),
            "{\"status\":\"Loading layer\",\"progressDetail\":{\"current\":5},\"id\":\"abc\"}\r\n"
        );
        assert_eq!(
            text(error(&Error::internal("no space"))),
            "{\"errorDetail\":{\"message\":\"no space\"},\"error\":\"no space\"}\r\n"
        );
    }

    #[test]
    fn loads_name_what_they_brought() {
        let id = berth_model::digest::Digest::of(b"x");
        let images = [
            Loaded {
                id,
                refs: vec!["busybox:latest".into(), "busybox:1".into()],
            },
            Loaded { id, refs: vec![] },
        ];
        let lines: Vec<String> = loaded(&images).into_iter().map(text).collect();
        assert_eq!(
            lines[0],
            "{\"stream\":\"Loaded image: busybox:latest\\n\"}\r\n"
        );
        assert_eq!(lines.len(), 3);
        assert!(lines[2].contains(&format!("Loaded image ID: {id}")));
    }

    #[test]
    fn imports_end_with_the_id() {
        assert_eq!(
            text(imported("sha256:ab", ApiVersion::MAX)),
            "{\"status\":\"sha256:ab\"}\r\n"
        );
        assert_eq!(
            text(imported("sha256:ab", ApiVersion::new(1, 12))),
            "{\"status\":\"ab\"}\r\n"
        );
        assert_eq!(text(imported("sha256:ab", ApiVersion::MIN)), "ab\n");
    }
}
