//! `cargo xtask`: what building and installing berth needs beyond `cargo build`.
//! The Makefile calls it; it must not know anything about how berth works.

// The one rule that this crate is excused from: it runs cargo.
#![allow(
    clippy::disallowed_methods,
    reason = "a build task runs programs; the agent does not"
)]
#![allow(
    clippy::print_stdout,
    reason = "the path of what was built is this program's answer"
)]

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;

mod build;
mod elf;
mod install;

const USAGE: &str = "\
cargo xtask monitor [--profile NAME]
    builds the static berth-monitor and prints its path
cargo xtask install --destdir DIR [--prefix /usr] [--profile release|dev] [--features LIST]
    builds berth and installs it below DIR, as a package would";

fn main() -> Result<()> {
    let mut args = lexopt::Parser::from_env();
    let mut task = None;
    let mut destdir = None;
    let mut prefix = PathBuf::from("/usr");
    let mut profile = None;
    let mut features = String::new();
    while let Some(arg) = args.next()? {
        match arg {
            Value(name) if task.is_none() => task = Some(name.string()?),
            Long("destdir") => destdir = Some(PathBuf::from(args.value()?)),
            Long("prefix") => prefix = PathBuf::from(args.value()?),
            Long("profile") => profile = Some(args.value()?.string()?),
            Long("features") => features = args.value()?.string()?,
            Short('h') | Long("help") => {
                println!("{USAGE}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    match task.as_deref() {
        Some("monitor") => {
            println!(
                "{}",
                build::monitor(profile.as_deref().unwrap_or("monitor"))?.display()
            );
            Ok(())
        }
        Some("install") => install::run(&install::Options {
            destdir: destdir.context("--destdir is missing")?,
            prefix,
            profile: profile.unwrap_or_else(|| "release".to_owned()),
            features,
        }),
        _ => bail!("no such task\n{USAGE}"),
    }
}
