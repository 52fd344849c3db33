//! Runs cargo for the two programs, which are built differently: the agent as usual, the monitor static.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::elf;

/// Static and not position-independent: the smallest program that std and glibc can give, in file and in memory.
const MONITOR_RUSTFLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// Builds berth-monitor with `profile` and returns its path. Fails when what came out is not static.
pub(crate) fn monitor(profile: &str) -> Result<PathBuf> {
    let target = host_target()?;
    // An explicit target keeps the flags away from build scripts and procedural macros, which must be dynamic,
    // and the artefacts away from those of the ordinary build.
    cargo(
        &[
            "build",
            "--package",
            "berth-monitor",
            "--profile",
            profile,
            "--target",
            &target,
        ],
        &[("RUSTFLAGS", MONITOR_RUSTFLAGS)],
    )?;
    let program = target_dir()
        .join(&target)
        .join(profile_dir(profile))
        .join("berth-monitor");
    elf::check_static(&program)?;
    Ok(program)
}

/// Builds berthd with `profile` and `features` (comma-separated, may be empty) and returns its path.
pub(crate) fn agent(profile: &str, features: &str) -> Result<PathBuf> {
    let mut args = vec!["build", "--package", "berthd", "--profile", profile];
    if !features.is_empty() {
        args.extend(["--features", features]);
    }
    cargo(&args, &[])?;
    Ok(target_dir().join(profile_dir(profile)).join("berthd"))
}

/// The workspace's root, found from this package's own place in it.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

fn cargo(args: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(args)
        .envs(environment.iter().copied())
        .current_dir(root())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    Ok(())
}

fn host_target() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .arg("-vV")
        .output()
        .context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Cargo names the directory of the `dev` profile differently from the profile.
fn profile_dir(profile: &str) -> &str {
    match profile {
        "dev" | "test" => "debug",
        "bench" => "release",
        other => other,
    }
}
