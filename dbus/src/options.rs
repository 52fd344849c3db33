//! The dictionary that ends the longer methods. A key that is not known is an error: a caller that
//! asked for something must not believe that it got it.

use std::collections::HashMap;

use zbus::{OwnedVariant, Variant};

use crate::error::{BusError, Result};

/// `a{sv}` as it comes from the bus.
pub(crate) type Dictionary = HashMap<String, OwnedVariant>;

/// Options that are taken out one by one; [`Options::finish`] refuses what is left.
#[derive(Debug)]
pub(crate) struct Options(Dictionary);

impl Options {
    pub(crate) fn new(dictionary: Dictionary) -> Options {
        Options(dictionary)
    }

    /// A boolean; false when it is not there.
    pub(crate) fn flag(&mut self, key: &str) -> Result<bool> {
        self.flag_or(key, false)
    }

    pub(crate) fn flag_or(&mut self, key: &str, default: bool) -> Result<bool> {
        match self.0.remove(key).as_deref() {
            None => Ok(default),
            Some(Variant::Bool(value)) => Ok(*value),
            Some(_) => Err(wrong_type(key, "a boolean")),
        }
    }

    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>> {
        match self.0.remove(key).as_deref() {
            None => Ok(None),
            Some(Variant::Str(value)) => Ok(Some(value.to_string())),
            Some(_) => Err(wrong_type(key, "a string")),
        }
    }

    pub(crate) fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(value) => Vec::<String>::try_from(value)
                .map(Some)
                .map_err(|_| wrong_type(key, "an array of strings")),
        }
    }

    /// Refuses every key that nobody took.
    pub(crate) fn finish(self) -> Result<()> {
        let mut unknown: Vec<String> = self.0.into_keys().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        unknown.sort_unstable();
        Err(BusError::unsupported_option(format!(
            "unsupported option: {}",
            unknown.join(", ")
        )))
    }
}

fn wrong_type(key: &str, want: &str) -> BusError {
    BusError::invalid(format!("option {key} must be {want}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, Variant<'static>)]) -> Options {
        Options(
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.try_to_owned().unwrap()))
                .collect(),
        )
    }

    #[test]
    fn known_keys_are_taken() {
        let mut got = options(&[
            ("wait", Variant::Bool(true)),
            ("signal", Variant::from("TERM")),
            ("state", Variant::from(vec!["running", "paused"])),
        ]);
        assert!(got.flag("wait").unwrap());
        assert!(!got.flag("force").unwrap());
        assert_eq!(got.text("signal").unwrap().as_deref(), Some("TERM"));
        assert_eq!(got.texts("state").unwrap().unwrap(), ["running", "paused"]);
        got.finish().unwrap();
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused() {
        let got = options(&[("b", Variant::Bool(true)), ("a", Variant::Bool(true))]);
        let error = got.finish().unwrap_err();
        assert_eq!(
            error.in_one(),
            "org.berth.Agent1.Error.UnsupportedOption: unsupported option: a, b"
        );
        assert!(
            options(&[("wait", Variant::from("yes"))])
                .flag("wait")
                .is_err()
        );
        assert!(
            options(&[("state", Variant::from("x"))])
                .texts("state")
                .is_err()
        );
        assert!(
            options(&[("signal", Variant::U32(9))])
                .text("signal")
                .is_err()
        );
    }
}
