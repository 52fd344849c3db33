//! Reading a request's JSON as Go's decoder does (keys in any case, `null` for nothing, a string
//! where a list of words is meant) without losing what is not read: a reader takes the keys that it
//! knows, and what is left and says something is reported by name, so that it can be refused.

use std::collections::BTreeMap;

use berth_engine::{Error, Result};
use serde_json::{Map, Value};

use crate::version::ApiVersion;

/// A JSON object being read.
#[derive(Debug)]
pub(crate) struct Fields {
    /// Where the object is, for messages: empty or ending in a dot.
    path: String,
    map: Map<String, Value>,
}

/// Reads a request's body as one JSON object. Text after it is an error from 1.24 on and was always
/// ignored before.
pub(crate) fn body(bytes: &[u8], version: ApiVersion) -> Result<Fields> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(e)) => return Err(Error::invalid(format!("invalid JSON: {e}"))),
        None => {
            return Err(Error::invalid(
                "invalid JSON: got EOF while reading request body",
            ));
        }
    };
    if version.at_least(24)
        && !bytes[values.byte_offset()..]
            .iter()
            .all(u8::is_ascii_whitespace)
    {
        return Err(Error::invalid("unexpected content after JSON"));
    }
    Fields::new("", value)
}

impl Fields {
    fn new(path: &str, value: Value) -> Result<Self> {
        let path = if path.is_empty() {
            String::new()
        } else {
            format!("{path}.")
        };
        match value {
            Value::Object(map) => Ok(Self { path, map }),
            _ => Err(wrong(path.trim_end_matches('.'), "an object")),
        }
    }

    /// An object that was taken apart by hand.
    pub(crate) fn at(path: &str, map: Map<String, Value>) -> Self {
        Self {
            path: format!("{path}."),
            map,
        }
    }

    fn name(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// Whether nothing is left that says anything.
    pub(crate) fn is_silent(&self) -> bool {
        self.map.values().all(is_silent)
    }

    /// The key's value in its exact or any other case; `null` is nothing.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        let exact = self.map.shift_remove(key);
        let exact = exact.or_else(|| {
            let other = self
                .map
                .keys()
                .find(|k| k.eq_ignore_ascii_case(key))?
                .clone();
            self.map.shift_remove(&other)
        });
        exact.filter(|v| !v.is_null())
    }

    /// Sets a key unless it already says something.
    pub(crate) fn put_if_silent(&mut self, key: &str, value: Value) {
        let there = self
            .map
            .keys()
            .find(|k| k.eq_ignore_ascii_case(key))
            .cloned();
        let slot = self
            .map
            .entry(there.unwrap_or_else(|| key.to_owned()))
            .or_insert(Value::Null);
        if is_silent(slot) {
            *slot = value;
        }
    }

    pub(crate) fn text(&mut self, key: &str) -> Result<String> {
        match self.take(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(wrong(&self.name(key), "a string")),
        }
    }

    /// A string; empty is nothing.
    pub(crate) fn word(&mut self, key: &str) -> Result<Option<String>> {
        Ok(Some(self.text(key)?).filter(|t| !t.is_empty()))
    }

    pub(crate) fn flag(&mut self, key: &str) -> Result<bool> {
        Ok(self.opt_flag(key)?.unwrap_or_default())
    }

    pub(crate) fn opt_flag(&mut self, key: &str) -> Result<Option<bool>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(wrong(&self.name(key), "true or false")),
        }
    }

    pub(crate) fn int(&mut self, key: &str) -> Result<i64> {
        Ok(self.opt_int(key)?.unwrap_or_default())
    }

    pub(crate) fn opt_int(&mut self, key: &str) -> Result<Option<i64>> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => value
                .as_i64()
                .map(Some)
                .ok_or_else(|| wrong(&self.name(key), "a whole number")),
        }
    }

    /// A whole number that fits `T`.
    pub(crate) fn small<T: TryFrom<i64>>(&mut self, key: &str) -> Result<Option<T>> {
        self.opt_int(key)?
            .map(|n| {
                T::try_from(n).map_err(|_| {
                    Error::invalid(format!("invalid value for {}: {n}", self.name(key)))
                })
            })
            .transpose()
    }

    /// A list of strings; nothing is an empty one.
    pub(crate) fn list(&mut self, key: &str) -> Result<Vec<String>> {
        Ok(self.opt_list(key)?.unwrap_or_default())
    }

    pub(crate) fn opt_list(&mut self, key: &str) -> Result<Option<Vec<String>>> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => strings(value)
                .map(Some)
                .ok_or_else(|| wrong(&self.name(key), "a list of strings")),
        }
    }

    /// A command: a list of words, or one string which is its only word.
    pub(crate) fn words(&mut self, key: &str) -> Result<Option<Vec<String>>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(one)) => Ok(Some(vec![one])),
            Some(value) => strings(value)
                .map(Some)
                .ok_or_else(|| wrong(&self.name(key), "a string or a list of strings")),
        }
    }

    /// An object whose values are strings.
    pub(crate) fn pairs(&mut self, key: &str) -> Result<BTreeMap<String, String>> {
        let fail = wrong(&self.name(key), "an object of strings");
        match self.take(key) {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(map)) => {
                let mut pairs = BTreeMap::new();
                for (name, value) in map {
                    match value {
                        Value::String(text) => pairs.insert(name, text),
                        // Go leaves a null string empty.
                        Value::Null => pairs.insert(name, String::new()),
                        _ => return Err(fail),
                    };
                }
                Ok(pairs)
            }
            Some(_) => Err(fail),
        }
    }

    /// The keys of an object used as a set (`{"80/tcp":{}}`).
    pub(crate) fn set(&mut self, key: &str) -> Result<Vec<String>> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => Ok(map.into_iter().map(|(name, _)| name).collect()),
            Some(_) => Err(wrong(&self.name(key), "an object")),
        }
    }

    /// An inner object.
    pub(crate) fn object(&mut self, key: &str) -> Result<Option<Fields>> {
        let path = self.name(key);
        self.take(key)
            .map(|value| Self::new(&path, value))
            .transpose()
    }

    /// A list of objects; `null` entries are left out.
    pub(crate) fn objects(&mut self, key: &str) -> Result<Vec<Fields>> {
        let path = self.name(key);
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list
                .into_iter()
                .enumerate()
                .filter(|(_, value)| !value.is_null())
                .map(|(at, value)| Self::new(&format!("{path}[{at}]"), value))
                .collect(),
            Some(_) => Err(wrong(&path, "a list of objects")),
        }
    }

    /// The members of an object whose values are objects, by name; `null` values are empty objects.
    pub(crate) fn members(&mut self, key: &str) -> Result<Vec<(String, Fields)>> {
        let path = self.name(key);
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => map
                .into_iter()
                .map(|(name, value)| {
                    let value = if value.is_null() {
                        Value::Object(Map::new())
                    } else {
                        value
                    };
                    let fields = Self::new(&format!("{path}.{name}"), value)?;
                    Ok((name, fields))
                })
                .collect(),
            Some(_) => Err(wrong(&path, "an object")),
        }
    }

    /// Drops keys that have no meaning here whatever they say.
    pub(crate) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.take(key);
        }
    }

    /// Ends the reading: the names of the keys that were not taken and say something.
    pub(crate) fn rest(self, unsupported: &mut Vec<String>) {
        for (key, value) in &self.map {
            if !is_silent(value) {
                unsupported.push(self.name(key));
            }
        }
    }
}

/// Whether a value asks for nothing: null, false, 0, empty, or made of only such.
fn is_silent(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.iter().all(is_silent),
        Value::Object(map) => map.values().all(is_silent),
    }
}

fn strings(value: Value) -> Option<Vec<String>> {
    let Value::Array(list) = value else {
        return None;
    };
    list.into_iter()
        .map(|v| match v {
            Value::String(text) => Some(text),
            Value::Null => Some(String::new()),
            _ => None,
        })
        .collect()
}

fn wrong(name: &str, kind: &str) -> Error {
    if name.is_empty() {
        return Error::invalid(format!("invalid JSON: the body must be {kind}"));
    }
    Error::invalid(format!("invalid JSON: {name} must be {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Fields {
        body(text.as_bytes(), ApiVersion::MAX).unwrap()
    }

    #[test]
    fn keys_match_in_any_case_and_null_is_nothing() {
        let mut fields = read(r#"{"image":"x","Cmd":"one","ENV":null,"Tty":true,"memory":5}"#);
        assert_eq!(fields.text("Image").unwrap(), "x");
        assert_eq!(fields.words("Cmd").unwrap(), Some(vec!["one".to_owned()]));
        assert_eq!(fields.opt_list("Env").unwrap(), None);
        assert!(fields.flag("Tty").unwrap());
        assert_eq!(fields.int("Memory").unwrap(), 5);
        assert!(fields.is_silent());
    }

    #[test]
    fn what_is_left_is_named_if_it_says_something() {
        let mut fields =
            read(r#"{"A":0,"B":{"x":[null,""]},"C":{"y":1},"D":"z","E":{"F":true,"G":2}}"#);
        let mut unsupported = Vec::new();
        let mut inner = fields.object("E").unwrap().unwrap();
        assert!(inner.flag("F").unwrap());
        inner.rest(&mut unsupported);
        fields.rest(&mut unsupported);
        assert_eq!(unsupported, ["E.G", "C", "D"]);
    }

    #[test]
    fn wrong_types_are_named() {
        let message = |f: &mut dyn FnMut(&mut Fields) -> Result<()>| {
            f(&mut read(r#"{"A":{"B":"x"},"N":1.5}"#))
                .unwrap_err()
                .full_message()
        };
        assert_eq!(
            message(&mut |f| f.text("A").map(drop)),
            "invalid JSON: A must be a string"
        );
        assert_eq!(
            message(&mut |f| f.object("A")?.unwrap().int("B").map(drop)),
            "invalid JSON: A.B must be a whole number"
        );
        assert_eq!(
            message(&mut |f| f.int("N").map(drop)),
            "invalid JSON: N must be a whole number"
        );
    }

    #[test]
    fn bodies() {
        let old = ApiVersion::new(1, 12);
        assert!(body(b"{} trailing", old).is_ok());
        assert!(body(b"{} trailing", ApiVersion::MAX).is_err());
        assert!(body(b"{}\n", ApiVersion::MAX).is_ok());
        for bad in [&b""[..], b"{", b"[]", b"null", b"1"] {
            assert!(body(bad, old).is_err(), "{bad:?}");
        }
    }
}
