//! The short form of a mount: `source:target[:options]`, in both directions.

use berth_engine::{Bind, Error, Result};

/// What a short form asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Short {
    Bind(Bind),
    /// An anonymous volume at this target.
    Volume(String),
}

/// Parses a short form with Docker's rules and texts. What the source is (a path or a volume's name)
/// is for the engine to tell.
pub(super) fn parse(text: &str) -> Result<Short> {
    let invalid = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [target] => ("", target, ""),
        [target, mode] if mode_ok(mode) && target.starts_with('/') && !mode.starts_with('/') => {
            ("", target, mode)
        }
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(invalid()),
    };
    if parts[0].is_empty() || target.is_empty() {
        return Err(invalid());
    }
    if !mode.is_empty() && !mode_ok(mode) {
        return Err(Error::invalid(format!("invalid mode: {mode}")));
    }
    if !target.starts_with('/') {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{text}': invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    let target = clean(target);
    if target == "/" {
        return Err(Error::invalid(format!(
            "invalid volume specification: '{text}': invalid specification: destination can't be '/'"
        )));
    }
    if source.is_empty() {
        return Ok(Short::Volume(target));
    }
    let words = || mode.split(',');
    Ok(Short::Bind(Bind {
        source: if source.starts_with('/') {
            clean(source)
        } else {
            source.to_owned()
        },
        target,
        read_only: words().any(|w| w == "ro"),
        propagation: words()
            .find(|w| PROPAGATIONS.contains(w))
            .unwrap_or_default()
            .to_owned(),
        mode: mode.to_owned(),
    }))
}

/// The short form again.
pub(super) fn format(bind: &Bind) -> String {
    let mut text = format!("{}:{}", bind.source, bind.target);
    if !bind.mode.is_empty() {
        text.push(':');
        text.push_str(&bind.mode);
    }
    text
}

const PROPAGATIONS: &[&str] = &[
    "private", "rprivate", "slave", "rslave", "shared", "rshared",
];

/// At most one word of each group.
const MODE_GROUPS: &[&[&str]] = &[
    &["rw", "ro"],
    &["z", "Z"],
    PROPAGATIONS,
    &["nocopy"],
    &["consistent", "cached", "delegated"],
];

fn mode_ok(mode: &str) -> bool {
    let mut used = [false; MODE_GROUPS.len()];
    !mode.is_empty()
        && mode.split(',').all(|word| {
            let Some(group) = MODE_GROUPS.iter().position(|group| group.contains(&word)) else {
                return false;
            };
            !std::mem::replace(&mut used[group], true)
        })
}

/// A path as Go's `path.Clean` leaves an absolute one: no empty parts, no `.`, and `..` resolved by
/// text. Whoever uses the path still resolves it below a root by descriptor.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms() {
        let bind = |text: &str| match parse(text).unwrap() {
            Short::Bind(bind) => bind,
            Short::Volume(target) => panic!("{target} is no bind"),
        };
        let plain = bind("/a:/b");
        assert_eq!(
            (
                plain.source.as_str(),
                plain.target.as_str(),
                plain.read_only
            ),
            ("/a", "/b", false)
        );
        assert!(bind("/a:/b:ro").read_only);
        let full = bind("/a//x/../y:/b/:ro,z,rslave");
        assert_eq!((full.source.as_str(), full.target.as_str()), ("/a/y", "/b"));
        assert_eq!(
            (full.propagation.as_str(), full.mode.as_str()),
            ("rslave", "ro,z,rslave")
        );
        assert_eq!(bind("name:/b:nocopy").source, "name");
        assert_eq!(format(&bind("/a:/b:ro")), "/a:/b:ro");
        assert_eq!(parse("/data").unwrap(), Short::Volume("/data".to_owned()));
        assert_eq!(
            parse("/data:ro").unwrap(),
            Short::Volume("/data".to_owned())
        );
    }

    #[test]
    fn refusals() {
        let message = |text| parse(text).unwrap_err().full_message();
        assert_eq!(message(""), "invalid volume specification: ''");
        assert_eq!(
            message("/a:/b:ro:x"),
            "invalid volume specification: '/a:/b:ro:x'"
        );
        assert_eq!(message(":/b"), "invalid volume specification: ':/b'");
        assert_eq!(message("/a:"), "invalid volume specification: '/a:'");
        assert_eq!(message("/a:/b:rw,ro"), "invalid mode: rw,ro");
        assert_eq!(message("/a:/b:nonsense"), "invalid mode: nonsense");
        assert!(message("/a:b").ends_with("invalid mount path: 'b' mount path must be absolute"));
        assert!(message("/a:/x/..").ends_with("destination can't be '/'"));
    }
}
