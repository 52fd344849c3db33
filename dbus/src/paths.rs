//! Object paths. They carry ids, never names: an id needs no escaping and never changes.

use zbus::{ObjectPath, OwnedObjectPath};

use crate::ROOT;

/// A container's object, from its 64-digit id.
pub(crate) fn container(id: &str) -> OwnedObjectPath {
    checked(format!("{ROOT}/container/{id}"))
}

pub(crate) fn job(id: u32) -> OwnedObjectPath {
    checked(format!("{ROOT}/job/{id}"))
}

/// The id in a container's path.
pub(crate) fn container_id<'a>(path: &'a ObjectPath<'_>) -> Option<&'a str> {
    path.as_str()
        .strip_prefix(ROOT)?
        .strip_prefix("/container/")
        .filter(|id| !id.contains('/'))
}

/// No object of the agent's, for signals about other kinds of things.
pub(crate) fn none() -> OwnedObjectPath {
    checked("/".to_owned())
}

/// Ids come from the engine and are hex digits; should one ever not be, its object is `/` rather
/// than a panic.
fn checked(path: String) -> OwnedObjectPath {
    OwnedObjectPath::try_from(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_back() {
        let id = "0123456789abcdef".repeat(4);
        let path = container(&id);
        assert_eq!(path.as_str(), format!("/org/berth/Agent1/container/{id}"));
        assert_eq!(container_id(&path), Some(id.as_str()));
        assert_eq!(container_id(&job(7)), None);
        assert_eq!(container_id(&none()), None);
        assert_eq!(container("a b"), none());
    }
}
