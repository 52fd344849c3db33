//! The long form of a mount (`HostConfig.Mounts`), in both directions.

use berth_engine::{Error, Mount, Result};
use serde_json::{Map, Value, json};

use crate::fields::Fields;
use crate::shape::{object, omit_empty};
use crate::version::ApiVersion;

/// Reads one mount. Options that are not modelled are named in the mount's own list.
pub(super) fn read(mut fields: Fields, version: ApiVersion) -> Result<Mount> {
    let mut mount = Mount {
        kind: fields.text("Type")?,
        source: fields.text("Source")?,
        target: fields.text("Target")?,
        read_only: fields.flag("ReadOnly")?,
        consistency: fields.text("Consistency")?,
        ..Mount::default()
    };
    // Before 1.42 options of another kind of mount were ignored; since then they are an error.
    for (key, kind) in [
        ("BindOptions", "bind"),
        ("VolumeOptions", "volume"),
        ("TmpfsOptions", "tmpfs"),
    ] {
        let Some(options) = fields.object(key)? else {
            continue;
        };
        if mount.kind == kind || key == "BindOptions" && !version.at_least(42) {
            match key {
                "BindOptions" => bind_options(options, &mut mount, version)?,
                "TmpfsOptions" => tmpfs_options(options, &mut mount)?,
                _ => options.rest(&mut mount.unsupported),
            }
        } else if version.at_least(42) {
            return Err(Error::invalid(format!(
                "{key} must not be specified on mount type {:?}",
                mount.kind
            )));
        }
    }
    fields.rest(&mut mount.unsupported);
    Ok(mount)
}

fn bind_options(mut options: Fields, mount: &mut Mount, version: ApiVersion) -> Result<()> {
    mount.propagation = options.text("Propagation")?;
    mount.non_recursive = options.flag("NonRecursive")? && version.at_least(40);
    mount.create_mountpoint = options.flag("CreateMountpoint")? && version.at_least(42);
    mount.read_only_non_recursive = options.flag("ReadOnlyNonRecursive")?;
    mount.read_only_force_recursive = options.flag("ReadOnlyForceRecursive")?;
    if mount.read_only_force_recursive && !version.at_least(44) {
        return Err(Error::invalid(
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ));
    }
    options.rest(&mut mount.unsupported);
    Ok(())
}

fn tmpfs_options(mut options: Fields, mount: &mut Mount) -> Result<()> {
    mount.tmpfs_size = options.small("SizeBytes")?.filter(|n| *n > 0);
    mount.tmpfs_mode = options.small("Mode")?.filter(|n| *n > 0);
    options.rest(&mut mount.unsupported);
    Ok(())
}

/// The long form again.
pub(super) fn view(mount: &Mount) -> Value {
    let mut map = object(json!({
        "Type": mount.kind,
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "Consistency": mount.consistency,
    }));
    omit_empty(&mut map, &["Source", "ReadOnly", "Consistency"]);
    let mut add = |key: &str, mut options: Map<String, Value>| {
        let keys: Vec<String> = options.keys().cloned().collect();
        omit_empty(
            &mut options,
            &keys.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        if !options.is_empty() {
            map.insert(key.into(), Value::Object(options));
        }
    };
    add(
        "BindOptions",
        object(json!({
            "Propagation": mount.propagation,
            "NonRecursive": mount.non_recursive,
            "CreateMountpoint": mount.create_mountpoint,
            "ReadOnlyNonRecursive": mount.read_only_non_recursive,
            "ReadOnlyForceRecursive": mount.read_only_force_recursive,
        })),
    );
    add(
        "TmpfsOptions",
        object(json!({ "SizeBytes": mount.tmpfs_size, "Mode": mount.tmpfs_mode })),
    );
    Value::Object(map)
}
