//! Fitting an answer to a version: the full object is made once, and a table says since and until
//! which minor version each key is shown.

use serde_json::{Map, Value, json};

use crate::version::ApiVersion;

/// A key, the first minor version that shows it, and the first that does not any more (0 = none).
pub(crate) type Span = (&'static str, u32, u32);

/// Takes out the keys that this version does not show. Keys that no span names are always shown.
pub(crate) fn keep(map: &mut Map<String, Value>, spans: &[Span], version: ApiVersion) {
    for (key, since, until) in spans {
        if !version.at_least(*since) || *until > 0 && version.at_least(*until) {
            map.shift_remove(*key);
        }
    }
}

/// Takes out keys whose value is empty, as Go's `omitempty` does: null, false, 0, `""`, `[]`, `{}`.
pub(crate) fn omit_empty(map: &mut Map<String, Value>, keys: &[&str]) {
    for key in keys {
        let empty = match map.get(*key) {
            Some(Value::Null) => true,
            Some(Value::Bool(flag)) => !flag,
            Some(Value::Number(n)) => n.as_f64() == Some(0.0),
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(inner)) => inner.is_empty(),
            None => false,
        };
        if empty {
            map.shift_remove(*key);
        }
    }
}

/// The map of a `json!({…})` literal.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Go's nil slice: `null` when empty.
pub(crate) fn nil_list(list: &[String]) -> Value {
    if list.is_empty() {
        Value::Null
    } else {
        json!(list)
    }
}

/// A set as Go writes it: `{"key":{}}`.
pub(crate) fn set(keys: &[String]) -> Value {
    Value::Object(keys.iter().map(|k| (k.clone(), json!({}))).collect())
}

/// A set that is `null` when empty.
pub(crate) fn nil_set(keys: &[String]) -> Value {
    if keys.is_empty() {
        Value::Null
    } else {
        set(keys)
    }
}

/// An image id as this version shows it: bare hex before 1.22, when ids had no algorithm.
pub(crate) fn image_id(digest: &berth_model::digest::Digest, version: ApiVersion) -> String {
    if version.at_least(22) {
        digest.to_string()
    } else {
        digest.hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_half_open() {
        let spans = [("a", 5, 0), ("b", 0, 10), ("c", 5, 10)];
        let shown = |minor| {
            let mut map = object(json!({"a": 1, "b": 1, "c": 1, "d": 1}));
            keep(&mut map, &spans, ApiVersion::new(1, minor));
            map.keys().cloned().collect::<String>()
        };
        assert_eq!(shown(4), "bd");
        assert_eq!(shown(5), "abcd");
        assert_eq!(shown(10), "ad");
    }

    #[test]
    fn empty_values_go() {
        let mut map = object(
            json!({"a": null, "b": "", "c": 0, "d": false, "e": {}, "f": [], "g": 1, "h": ""}),
        );
        omit_empty(&mut map, &["a", "b", "c", "d", "e", "f", "g", "missing"]);
        assert_eq!(map.keys().cloned().collect::<String>(), "gh");
    }
}
