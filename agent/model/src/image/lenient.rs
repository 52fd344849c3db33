//! Reading JSON as Go's decoder does where image formats need it: keys in any case, `null` for
//! nothing, a string where a list is meant. Nothing here fails: what has the wrong type is absent.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The value under `key`, spelled exactly or, failing that, in another case; `null` is absent.
pub(super) fn get<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key)
        .or_else(|| {
            map.iter()
                .find(|(k, _)| k.eq_ignore_ascii_case(key))
                .map(|(_, v)| v)
        })
        .filter(|v| !v.is_null())
}

pub(super) fn text(map: &Map<String, Value>, key: &str) -> String {
    get(map, key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

pub(super) fn flag(map: &Map<String, Value>, key: &str) -> bool {
    get(map, key).and_then(Value::as_bool).unwrap_or_default()
}

pub(super) fn number(map: &Map<String, Value>, key: &str) -> Option<i64> {
    get(map, key).and_then(Value::as_i64)
}

pub(super) fn object<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
    get(map, key).and_then(Value::as_object)
}

/// A list of strings; a lone string is a list of one.
pub(super) fn strings(map: &Map<String, Value>, key: &str) -> Option<Vec<String>> {
    match get(map, key)? {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(list) => Some(
            list.iter()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect(),
        ),
        _ => None,
    }
}

/// The keys of a set, which Go writes as `{"key":{}}`; a list is taken too. Sorted.
pub(super) fn set(map: &Map<String, Value>, key: &str) -> Vec<String> {
    let mut keys: Vec<String> = match get(map, key) {
        Some(Value::Object(keys)) => keys.keys().cloned().collect(),
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    };
    keys.sort_unstable();
    keys
}

/// Labels: values that are no strings are dropped.
pub(super) fn pairs(map: &Map<String, Value>, key: &str) -> BTreeMap<String, String> {
    object(map, key)
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect()
}
