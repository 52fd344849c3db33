//! The `filters` parameter: key → set of values. Two spellings are in use and both must be read:
//! `{"label":{"a=b":true}}` (newer) and `{"label":["a=b"]}` (older).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a listing is narrowed to: within a key any value may match, all keys must.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Filters(pub BTreeMap<String, BTreeSet<String>>);

/// Why filters are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("invalid filters: {0}")]
    Syntax(String),
    #[error("invalid filter '{0}'")]
    Key(String),
    #[error("invalid filter '{key}=[{values}]'")]
    Value { key: String, values: String },
}

impl Filters {
    /// Parses the parameter's text; nothing and `null` are no filters.
    pub fn parse(json: &str) -> Result<Self, FilterError> {
        if json.trim().is_empty() {
            return Ok(Self::default());
        }
        let value: Value =
            serde_json::from_str(json).map_err(|e| FilterError::Syntax(e.to_string()))?;
        let Value::Object(map) = value else {
            return if value.is_null() {
                Ok(Self::default())
            } else {
                Err(FilterError::Syntax("not a JSON object".to_owned()))
            };
        };
        map.into_iter()
            .map(|(key, value)| Ok((key.clone(), values(&key, value)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The newer spelling, as clients send it.
    pub fn to_json(&self) -> String {
        let map: serde_json::Map<String, Value> = self
            .0
            .iter()
            .map(|(key, values)| {
                let set = values
                    .iter()
                    .map(|v| (v.clone(), Value::Bool(true)))
                    .collect();
                (key.clone(), Value::Object(set))
            })
            .collect();
        Value::Object(map).to_string()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one value.
    pub fn add(&mut self, key: &str, value: &str) {
        self.0
            .entry(key.to_owned())
            .or_default()
            .insert(value.to_owned());
    }

    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The values of a key; none if the key is missing.
    pub fn get(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Refuses keys that the operation does not know.
    pub fn validate(&self, known: &[&str]) -> Result<(), FilterError> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(FilterError::Key(key.clone())),
            None => Ok(()),
        }
    }

    /// Whether `value` equals one of the key's values; true without the key.
    pub fn exact(&self, key: &str, value: &str) -> bool {
        match self.0.get(key) {
            Some(values) if !values.is_empty() => values.contains(value),
            _ => true,
        }
    }

    /// Whether `value` begins with one of the key's values; true without the key.
    pub fn prefix(&self, key: &str, value: &str) -> bool {
        match self.0.get(key) {
            Some(values) if !values.is_empty() => {
                values.iter().any(|v| value.starts_with(v.as_str()))
            }
            _ => true,
        }
    }

    /// Whether the map has **all** of the key's pairs: `name` (any value) or `name=value`. True
    /// without the key. Labels are filtered so.
    pub fn pairs(&self, key: &str, map: &BTreeMap<String, String>) -> bool {
        self.get(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => map.get(name).is_some_and(|have| have == value),
            None => map.contains_key(wanted),
        })
    }

    /// A yes-or-no filter: `true`/`1` or `false`/`0`; `default` without the key.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, FilterError> {
        let Some(values) = self.0.get(key).filter(|v| !v.is_empty()) else {
            return Ok(default);
        };
        let yes = values.contains("true") || values.contains("1");
        let no = values.contains("false") || values.contains("0");
        if yes == no {
            return Err(FilterError::Value {
                key: key.to_owned(),
                values: values.iter().cloned().collect::<Vec<_>>().join(" "),
            });
        }
        Ok(yes)
    }
}

fn values(key: &str, value: Value) -> Result<BTreeSet<String>, FilterError> {
    match value {
        Value::Object(map) => Ok(map.into_iter().map(|(value, _)| value).collect()),
        Value::Array(list) => list
            .into_iter()
            .map(|v| match v {
                Value::String(text) => Ok(text),
                // Some clients put numbers and booleans into the older form.
                Value::Bool(b) => Ok(b.to_string()),
                Value::Number(n) => Ok(n.to_string()),
                _ => Err(FilterError::Syntax(format!(
                    "the values of {key:?} must be strings"
                ))),
            })
            .collect(),
        Value::Null => Ok(BTreeSet::new()),
        _ => Err(FilterError::Syntax(format!(
            "{key:?} must be an object or a list"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_spellings_mean_the_same() {
        let newer =
            Filters::parse(r#"{"label":{"a":true,"b=c":true},"status":{"exited":false}}"#).unwrap();
        let older = Filters::parse(r#"{"label":["a","b=c"],"status":["exited"]}"#).unwrap();
        assert_eq!(newer, older);
        assert_eq!(newer.get("label").collect::<Vec<_>>(), ["a", "b=c"]);
        assert_eq!(Filters::parse(""), Ok(Filters::default()));
        assert_eq!(Filters::parse("null"), Ok(Filters::default()));
        for text in ["[]", "{", "\"x\"", r#"{"a":1}"#, r#"{"a":[{}]}"#] {
            assert!(Filters::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn keys_are_checked() {
        let filters = Filters::parse(r#"{"nope":["x"]}"#).unwrap();
        assert_eq!(
            filters.validate(&["label"]).unwrap_err().to_string(),
            "invalid filter 'nope'"
        );
        assert!(filters.validate(&["label", "nope"]).is_ok());
    }

    #[test]
    fn matching() {
        let filters = Filters::parse(
            r#"{"label":["a","b=c"],"id":["ab","cd"],"dangling":["true"],"odd":["x"]}"#,
        )
        .unwrap();
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect()
        };
        assert!(filters.pairs("label", &labels(&[("a", "1"), ("b", "c"), ("d", "")])));
        assert!(!filters.pairs("label", &labels(&[("a", "1"), ("b", "x")])));
        assert!(!filters.pairs("label", &labels(&[("b", "c")])));
        assert!(filters.pairs("missing", &labels(&[])));
        assert!(
            filters.prefix("id", "abcdef")
                && !filters.prefix("id", "bc")
                && filters.prefix("missing", "x")
        );
        assert!(filters.exact("id", "ab") && !filters.exact("id", "abc"));
        assert_eq!(filters.flag("dangling", false), Ok(true));
        assert_eq!(filters.flag("missing", true), Ok(true));
        assert_eq!(
            filters.flag("odd", true).unwrap_err().to_string(),
            "invalid filter 'odd=[x]'"
        );
    }

    proptest! {
        #[test]
        fn json_round_trips(map in proptest::collection::btree_map("[a-z]{1,6}", proptest::collection::btree_set("\\PC{0,8}", 0..4), 0..4)) {
            let filters = Filters(map);
            prop_assert_eq!(Filters::parse(&filters.to_json()).unwrap(), filters);
        }
    }
}
