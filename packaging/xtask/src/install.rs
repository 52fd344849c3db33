//! Installs what was built below a directory, at the places that Debian's policy and systemd's file hierarchy
//! name. Packages, `make install` and the lab all go through here, so that what is tested is what is shipped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::build;

/// Where to, and what to build.
#[derive(Debug)]
pub(crate) struct Options {
    /// The directory that stands for the root of the installed system.
    pub(crate) destdir: PathBuf,
    /// An absolute path inside of it.
    pub(crate) prefix: PathBuf,
    /// Cargo profile of the agent; the monitor is always built with its own.
    pub(crate) profile: String,
    /// Cargo features of the agent.
    pub(crate) features: String,
}

/// Files that are copied as they are (but for the prefix): from, to, mode.
#[derive(Debug, PartialEq, Eq)]
struct File {
    from: PathBuf,
    /// Relative to the prefix.
    to: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if !options.prefix.is_absolute() {
        bail!("the prefix {} is not absolute", options.prefix.display());
    }
    let monitor = build::monitor("monitor")?;
    let agent = build::agent(&options.profile, &options.features)?;
    let base = options
        .destdir
        .join(options.prefix.strip_prefix("/").unwrap_or(&options.prefix));
    put_program(&agent, &base.join("bin/berthd"))?;
    put_program(&monitor, &base.join("libexec/berth/berth-monitor"))?;
    let root = build::root();
    for file in data_files(&root)? {
        put_text(&file, &base, &options.prefix)?;
    }
    Ok(())
}

/// Everything that is not a program, from the folders that hold such files.
fn data_files(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for folder in [
        "units",
        "units/sysusers.d",
        "units/tmpfiles.d",
        "units/preset",
        "dbus",
        "dbus/interfaces",
    ] {
        for entry in sorted(&root.join(folder))? {
            if let Some(to) = place(folder, &entry) {
                files.push(File { from: entry, to });
            }
        }
    }
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"] {
        files.push(File {
            from: root.join(name),
            to: Path::new("share/doc/berth").join(name),
        });
    }
    for entry in sorted(&root.join("docs"))? {
        if let Some(name) = entry.file_name() {
            let to = Path::new("share/doc/berth").join(name);
            files.push(File { from: entry, to });
        }
    }
    Ok(files)
}

/// Where a file of `folder` belongs, relative to the prefix; None for what is not installed.
fn place(folder: &str, file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?;
    let extension = file.extension()?.to_str()?;
    let directory = match (folder, extension) {
        ("units", "service" | "socket" | "slice" | "target") => "lib/systemd/system",
        ("units", "preset") | ("units/preset", "preset") => "lib/systemd/system-preset",
        ("units/sysusers.d", "conf") => "lib/sysusers.d",
        ("units/tmpfiles.d", "conf") => "lib/tmpfiles.d",
        ("dbus", "conf") => "share/dbus-1/system.d",
        ("dbus", "service") => "share/dbus-1/system-services",
        ("dbus", "policy") => "share/polkit-1/actions",
        ("dbus", "rules") => "share/polkit-1/rules.d",
        ("dbus/interfaces", "xml") => "share/dbus-1/interfaces",
        _ => return None,
    };
    Some(Path::new(directory).join(name))
}

/// The plain files of a directory in order of name; none when there is no such directory.
fn sorted(directory: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(Vec::new());
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", directory.display()))?;
        if entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn put_program(from: &Path, to: &Path) -> Result<()> {
    make_parent(to)?;
    // A program that runs cannot be written over, but its name can be given to another file.
    let fresh = to.with_extension("new");
    fs::copy(from, &fresh)
        .with_context(|| format!("cannot copy {} to {}", from.display(), fresh.display()))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    fs::rename(&fresh, to).with_context(|| format!("cannot install {}", to.display()))
}

fn put_text(file: &File, base: &Path, prefix: &Path) -> Result<()> {
    let text = fs::read_to_string(&file.from)
        .with_context(|| format!("cannot read {}", file.from.display()))?;
    let to = base.join(&file.to);
    make_parent(&to)?;
    fs::write(&to, with_prefix(&text, prefix))
        .with_context(|| format!("cannot write {}", to.display()))?;
    fs::set_permissions(&to, fs::Permissions::from_mode(0o644))?;
    Ok(())
}

/// Units and activation files are written for /usr; elsewhere they must name the programs where they are.
fn with_prefix(text: &str, prefix: &Path) -> String {
    let prefix = prefix.display();
    text.replace("/usr/bin/berthd", &format!("{prefix}/bin/berthd"))
        .replace("/usr/libexec/berth/", &format!("{prefix}/libexec/berth/"))
}

fn make_parent(path: &Path) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_bus_files_go_where_the_manager_looks() {
        let place =
            |folder, file| place(folder, Path::new(file)).map(|to| to.display().to_string());
        assert_eq!(
            place("units", "berthd.service").as_deref(),
            Some("lib/systemd/system/berthd.service")
        );
        assert_eq!(
            place("dbus", "org.berth.Agent1.conf").as_deref(),
            Some("share/dbus-1/system.d/org.berth.Agent1.conf")
        );
        assert_eq!(
            place("units/sysusers.d", "berth.conf").as_deref(),
            Some("lib/sysusers.d/berth.conf")
        );
        assert_eq!(place("dbus", "Cargo.toml"), None);
    }

    #[test]
    fn another_prefix_reaches_the_units() {
        let unit = "ExecStart=/usr/bin/berthd --monitor /usr/libexec/berth/berth-monitor\n";
        assert_eq!(
            with_prefix(unit, Path::new("/opt/b")),
            "ExecStart=/opt/b/bin/berthd --monitor /opt/b/libexec/berth/berth-monitor\n"
        );
        assert_eq!(with_prefix(unit, Path::new("/usr")), unit);
    }

    #[test]
    fn a_data_file_keeps_its_text_and_gets_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("x.socket");
        fs::write(&from, "[Socket]\n").unwrap();
        let file = File {
            from,
            to: "lib/x.socket".into(),
        };
        put_text(&file, &dir.path().join("usr"), Path::new("/usr")).unwrap();
        let to = dir.path().join("usr/lib/x.socket");
        assert_eq!(fs::read_to_string(&to).unwrap(), "[Socket]\n");
        assert_eq!(
            fs::metadata(&to).unwrap().permissions().mode() & 0o777,
            0o644
        );
    }
}
