//! The keys that each listing, prune and event stream may be filtered by. Faces and engine read them here;
//! some name kinds of objects that do not exist yet and match nothing.

/// Containers listed.
pub const CONTAINERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
/// Containers pruned.
pub const CONTAINERS_PRUNED: &[&str] = &["label", "label!", "until"];
/// Images listed.
pub const IMAGES: &[&str] = &["before", "dangling", "label", "reference", "since", "until"];
/// Images pruned.
pub const IMAGES_PRUNED: &[&str] = &["dangling", "label", "label!", "until"];
/// Events.
pub const EVENTS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];
