//! The rules of the house that no compiler holds: who may use whom, where unsafe code and other programs may be
//! named, which licences and duplicate versions there are, how long a file gets. CI has no rules but these tests.

#![allow(clippy::disallowed_methods, reason = "asks cargo and systemd-analyze")]
#![allow(
    clippy::unwrap_used,
    reason = "a broken premise of a test is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may use whom. What is not listed may not be used; siblings never are. ARCHITECTURE.md says why.
const LAYERS: &[(&str, &[&str])] = &[
    ("berth-model", &[]),
    ("berth-sys", &[]),
    ("berth-runtime", &["berth-model", "berth-sys"]),
    (
        "berth-monitor",
        &["berth-model", "berth-sys", "berth-runtime"],
    ),
    ("berth-systemd", &["berth-sys"]),
    ("berth-storage", &["berth-model", "berth-sys"]),
    ("berth-network", &["berth-model", "berth-sys"]),
    (
        "berth-engine",
        &[
            "berth-model",
            "berth-sys",
            "berth-runtime",
            "berth-systemd",
            "berth-storage",
            "berth-network",
        ],
    ),
    ("berth-api", &["berth-engine", "berth-model"]),
    // A face passes descriptors (a hijacked client's socket) and asks who the peer is: both are `sys` words.
    (
        "berth-rest",
        &[
            "berth-api",
            "berth-engine",
            "berth-model",
            "berth-systemd",
            "berth-sys",
        ],
    ),
    (
        "berth-dbus",
        &[
            "berth-api",
            "berth-engine",
            "berth-model",
            "berth-systemd",
            "berth-sys",
        ],
    ),
    (
        "berthd",
        &[
            "berth-rest",
            "berth-dbus",
            "berth-engine",
            "berth-systemd",
            "berth-sys",
        ],
    ),
    ("berth-tests", &["berth-sys", "berth-model"]),
    ("xtask", &[]),
];

/// Licences that may be linked into what is shipped.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unlicense",
    "Unicode-3.0",
    "bzip2-1.0.6",
    "CC0-1.0",
    "BSL-1.0",
    "MIT-0",
];

/// Crates that are in the build in more than one version, and through whom. A new one fails the test.
const DUPLICATES: &[(&str, &str)] = &[
    ("bitflags", "1: nix 0.25 of cgroups-rs"),
    ("block-buffer", "0.10: sha2 0.10"),
    ("cpufeatures", "0.2: sha2 0.10"),
    ("crypto-common", "0.1: sha2 0.10"),
    ("digest", "0.10: sha2 0.10"),
    ("nix", "0.25: cgroups-rs; 0.29: libsystemd; 0.31: ours"),
    ("sha2", "0.10: libsystemd; 0.11: ours"),
    (
        "syn",
        "2: macros of rusqlite, zbus and others that have not moved; 3: serde, thiserror",
    ),
    ("thiserror", "1: cgroups-rs; 2: ours"),
    ("thiserror-impl", "with thiserror 1"),
];

/// Hosts that packages come from. The names are in two pieces so that this file is no hit.
const REGISTRY_HOSTS: &[(&str, &str)] = &[
    ("crates", ".io"),
    ("deb.debian", ".org"),
    ("security.debian", ".org"),
    ("snapshot.debian", ".org"),
    ("pypi", ".org"),
    ("pythonhosted", ".org"),
    ("npmjs", ".org"),
    ("registry-1.docker", ".io"),
];

/// A file is about one thing; past this many lines it is not.
const LONGEST_FILE: usize = 1_000;

#[test]
fn crates_use_only_the_layers_below() {
    let metadata = metadata(&["--no-deps"]);
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        seen.insert(name.to_owned());
        let Some(allowed) = allowed.get(name) else {
            wrong.push(format!("{name} has no row in LAYERS"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            // Path dependencies are ours.
            if dependency["path"].is_string()
                && dependency["kind"] != "dev"
                && !allowed.contains(&used)
            {
                wrong.push(format!("{name} may not use {used}"));
            }
        }
    }
    wrong.extend(
        LAYERS
            .iter()
            .filter(|(name, _)| !seen.contains(*name))
            .map(|(name, _)| format!("{name} is gone: take its row out")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_monitor_links_no_async_runtime_and_no_bus() {
    let tree = Command::new(cargo())
        .args([
            "tree",
            "--offline",
            "--package",
            "berth-monitor",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let text = String::from_utf8_lossy(&tree.stdout);
    for heavy in ["tokio ", "zbus ", "libseccomp ", "tracing "] {
        assert!(
            !text.lines().any(|line| line.starts_with(heavy)),
            "berth-monitor links {heavy}:\n{text}"
        );
    }
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    let wrong = lines_with(
        |path| !path.starts_with("agent/sys"),
        |line| has_word(line, "unsafe"),
    );
    assert!(
        wrong.is_empty(),
        "unsafe outside of agent/sys:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn programs_are_run_by_sys_spawn_alone() {
    let excused = |path: &str| {
        path == "agent/sys/src/spawn.rs"
            || path.starts_with("tests/")
            || path.starts_with("packaging/xtask/")
            || path.contains("/tests/")
    };
    let wrong = lines_with(|path| !excused(path), |line| line.contains("Command::new"));
    assert!(
        wrong.is_empty(),
        "programs are run outside of sys::spawn:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_allow_says_why() {
    let wrong = lines_with(
        |_| true,
        |line| {
            (line.contains("#[allow(") || line.contains("#![allow("))
                && line.contains(")]")
                && !line.contains("reason")
                && !line.contains("unsafe_code")
        },
    );
    assert!(
        wrong.is_empty(),
        "an allow without a reason:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn nothing_unfinished_is_left() {
    let marks = [
        "todo!(",
        "unimplemented!(",
        "TODO",
        "FIXME",
        "XXX:",
        "not yet implemented",
    ];
    let wrong = lines_with(
        |path| path != "tests/tidy.rs",
        |line| marks.iter().any(|mark| line.contains(mark)),
    );
    assert!(wrong.is_empty(), "unfinished:\n{}", wrong.join("\n"));
}

#[test]
fn files_stay_about_one_thing() {
    let wrong: Vec<String> = files()
        .into_iter()
        .filter(|path| {
            matches!(
                path.extension().and_then(|it| it.to_str()),
                Some("rs" | "sh" | "py" | "c")
            )
        })
        .filter_map(|path| {
            let lines = fs::read_to_string(root().join(&path)).ok()?.lines().count();
            (lines > LONGEST_FILE).then(|| format!("{}: {lines} lines", path.display()))
        })
        .collect();
    assert!(wrong.is_empty(), "split these:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_says_what_it_is_for() {
    let wrong: Vec<String> = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs"))
        .filter(|path| {
            fs::read_to_string(root().join(path)).is_ok_and(|text| !text.starts_with("//!"))
        })
        .map(|path| path.display().to_string())
        .collect();
    assert!(
        wrong.is_empty(),
        "no module documentation at the top:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn no_package_registry_is_named() {
    let hosts: Vec<String> = REGISTRY_HOSTS
        .iter()
        .map(|(one, two)| format!("{one}{two}"))
        .collect();
    let mut wrong = Vec::new();
    for path in files() {
        // Cargo writes its lock file itself.
        if path == Path::new("Cargo.lock") {
            continue;
        }
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if hosts.iter().any(|host| line.contains(host.as_str())) {
                wrong.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "package registries are named in:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn versions_stand_in_the_workspace_alone() {
    let mut wrong = Vec::new();
    for path in files()
        .into_iter()
        .filter(|path| path.ends_with("Cargo.toml") && path != Path::new("Cargo.toml"))
    {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let mut dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                dependencies = line.contains("dependencies");
            } else if dependencies && line.contains('=') && !line.contains("workspace") {
                wrong.push(format!("{}: {line}", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "a version outside of the workspace's table:\n{}",
        wrong.join("\n")
    );
    let scripts: Vec<PathBuf> = files()
        .into_iter()
        .filter(|path| path.ends_with("build.rs") && !path.starts_with("packaging/xtask"))
        .collect();
    assert!(scripts.is_empty(), "build scripts: {scripts:?}");
}

#[test]
fn licences_are_on_the_list() {
    let metadata = metadata_of_this_platform();
    let wrong: Vec<String> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| {
            let licence = package["license"].as_str().unwrap_or("none");
            let name = package["name"].as_str().unwrap_or_default();
            (!licence_allowed(licence)).then(|| format!("{name}: {licence}"))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "licences that are not on the list:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn duplicate_versions_have_a_reason() {
    let metadata = metadata_of_this_platform();
    let used: BTreeSet<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_str().unwrap())
        .collect();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        if used.contains(package["id"].as_str().unwrap()) {
            versions
                .entry(package["name"].as_str().unwrap())
                .or_default()
                .insert(package["version"].as_str().unwrap());
        }
    }
    let duplicates: BTreeMap<&str, &BTreeSet<&str>> = versions
        .iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, versions)| (*name, versions))
        .collect();
    let listed: BTreeSet<&str> = DUPLICATES.iter().map(|(name, _)| *name).collect();
    let mut wrong: Vec<String> = duplicates
        .iter()
        .filter(|(name, _)| !listed.contains(*name))
        .map(|(name, versions)| format!("{name} {versions:?} is there more than once"))
        .collect();
    wrong.extend(
        listed
            .iter()
            .filter(|name| !duplicates.contains_key(*name))
            .map(|name| format!("{name} is there once: take it off the list")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The installed units are checked in the lab; here they are checked without root, with a program that exists.
#[test]
fn units_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for path in files().into_iter().filter(|path| path.starts_with("units")) {
        if matches!(
            path.extension().and_then(|it| it.to_str()),
            Some("service" | "socket" | "slice" | "target")
        ) {
            let text = fs::read_to_string(root().join(&path))
                .unwrap()
                .replace("/usr/bin/berthd", "/bin/true");
            let to = dir.path().join(path.file_name().unwrap());
            fs::write(&to, text).unwrap();
            units.push(to);
        }
    }
    assert!(
        units.len() >= 4,
        "berth.socket, berth-monitor.socket, berthd.service, berth.slice: {units:?}"
    );
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&units)
        .env("SYSTEMD_UNIT_PATH", format!("{}:", dir.path().display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(
        verify.status.success() && said.trim().is_empty(),
        "systemd-analyze verify says:\n{said}"
    );
}

/// SPDX: `A OR B`, `A AND B`, `(…)`, and the old `A/B`.
fn licence_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let expression = expression.trim();
    if let Some((left, right)) = split_outside(expression, " AND ") {
        return licence_allowed(left) && licence_allowed(right);
    }
    if let Some((left, right)) = split_outside(expression, " OR ") {
        return licence_allowed(left) || licence_allowed(right);
    }
    match expression
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
    {
        Some(inner) => licence_allowed(inner),
        None => LICENCES.contains(&expression),
    }
}

/// Splits at the first `separator` that is in no parentheses.
fn split_outside<'a>(text: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && text[at..].starts_with(separator) => {
                return Some((&text[..at], &text[at + separator.len()..]));
            }
            _ => {}
        }
    }
    None
}

#[test]
fn licence_expressions_are_read() {
    assert!(licence_allowed("MIT OR GPL-3.0"));
    assert!(licence_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(licence_allowed("MIT/Apache-2.0"));
    assert!(!licence_allowed("MIT AND GPL-3.0"));
    assert!(!licence_allowed("LGPL-2.1"));
}

/// Lines of Rust code (unit tests, comments and the insides of strings left out) that `bad` holds of.
fn lines_with(include: impl Fn(&str) -> bool, bad: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for path in files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|it| it == "rs"))
    {
        let name = path.display().to_string();
        if !include(&name) || path.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).unwrap();
        for (number, line) in text.lines().enumerate() {
            // A file's own tests stand at its end.
            if line == "#[cfg(test)]" {
                break;
            }
            if bad(&code_of(line)) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

/// A line without its comment and without what stands between quotes.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if quoted => drop(letters.next()),
            '"' => quoted = !quoted,
            '/' if !quoted && letters.peek() == Some(&'/') => break,
            _ if !quoted => code.push(letter),
            _ => {}
        }
    }
    code
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .any(|part| part == word)
}

/// The project's own files, relative to its root: what git tracks or would track.
fn files() -> Vec<PathBuf> {
    let list = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(list.status.success(), "git lists the project's files");
    String::from_utf8_lossy(&list.stdout)
        .lines()
        .map(PathBuf::from)
        .filter(|path| root().join(path).is_file())
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// With everything that is linked on the platform that the tests run on, and nothing of other platforms.
fn metadata_of_this_platform() -> Value {
    metadata(&[
        "--filter-platform",
        &format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
    ])
}

fn metadata(args: &[&str]) -> Value {
    let output = Command::new(cargo())
        .args(["metadata", "--format-version", "1", "--offline"])
        .args(args)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}
