//! Dockerfile instructions that `import` (and later `commit`) apply to a new image's configuration.

use berth_model::image::config::{ContainerDefaults, HistoryEntry, ImageConfig};
use berth_model::time::Timestamp;
use berth_storage::ImportConfig;

use crate::error::{Error, Result};
use crate::types::ImportOptions;

/// The configuration of an imported root file system; storage adds the layer's digest.
pub(crate) fn import_config(options: &ImportOptions) -> Result<ImportConfig> {
    let mut defaults = ContainerDefaults::default();
    for change in &options.changes {
        apply(&mut defaults, change)?;
    }
    let (os, architecture) = platform(options.platform.as_deref())?;
    let now = Timestamp::now();
    let comment = match options.message.as_str() {
        "" => "Imported from -".to_owned(),
        message => message.to_owned(),
    };
    let config = ImageConfig {
        created: Some(now),
        architecture,
        os,
        comment: comment.clone(),
        config: defaults,
        history: vec![HistoryEntry {
            created: Some(now),
            comment,
            ..HistoryEntry::default()
        }],
        ..ImageConfig::default()
    };
    Ok(ImportConfig { config })
}

/// Go's names of what this machine is.
pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

fn platform(text: Option<&str>) -> Result<(String, String)> {
    let Some(text) = text.filter(|t| !t.is_empty()) else {
        return Ok(("linux".into(), host_architecture().into()));
    };
    let mut parts = text.split('/');
    let os = parts.next().unwrap_or_default();
    if os != "linux" {
        return Err(Error::invalid(format!(
            "operating system {os} is not supported: images here are for linux"
        )));
    }
    Ok((
        os.into(),
        parts.next().unwrap_or(host_architecture()).into(),
    ))
}

fn apply(config: &mut ContainerDefaults, change: &str) -> Result<()> {
    let (word, rest) = change
        .trim()
        .split_once(char::is_whitespace)
        .unwrap_or((change.trim(), ""));
    let rest = rest.trim();
    let bad = |what: &str| Error::invalid(format!("invalid change {change:?}: {what}"));
    if rest.is_empty() {
        return Err(bad("it has no value"));
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => config.working_dir = rest.to_owned(),
        "STOPSIGNAL" => {
            berth_model::signal::parse(rest).map_err(|e| bad(&e.to_string()))?;
            config.stop_signal = Some(rest.to_owned());
        }
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let port = if port.contains('/') {
                    port.to_owned()
                } else {
                    format!("{port}/tcp")
                };
                config.exposed_ports.push(port);
            }
        }
        "VOLUME" => config
            .volumes
            .extend(match serde_json::from_str::<Vec<String>>(rest) {
                Ok(list) => list,
                Err(_) => rest.split_whitespace().map(str::to_owned).collect(),
            }),
        "ENV" => {
            for (key, value) in pairs(rest).ok_or_else(|| bad("write KEY=value"))? {
                let prefix = format!("{key}=");
                config.env.retain(|entry| !entry.starts_with(&prefix));
                config.env.push(format!("{prefix}{value}"));
            }
        }
        "LABEL" => config
            .labels
            .extend(pairs(rest).ok_or_else(|| bad("write key=value"))?),
        other => {
            return Err(Error::invalid(format!(
                "{other} is not a valid change command"
            )));
        }
    }
    Ok(())
}

/// The JSON form, or a line for the shell.
fn command(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| vec!["/bin/sh".into(), "-c".into(), text.into()])
}

/// `a=b c="d e"`, or the old `key rest of the line`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    if !text.split_whitespace().next()?.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) if quote != Some('\'') => word.extend(chars.next()),
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, None) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (c, _) => word.push(c),
        }
    }
    if quote.is_some() {
        return None;
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
        .into_iter()
        .map(|w| w.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_configuration() {
        let mut config = ContainerDefaults::default();
        for change in [
            "CMD [\"sh\", \"-c\", \"a\"]",
            "ENV A=1 B=\"x y\"",
            "ENV A=2",
            "EXPOSE 80 53/udp",
            "LABEL k=v",
            "ENTRYPOINT run me",
        ] {
            apply(&mut config, change).expect(change);
        }
        assert_eq!(
            config.cmd.as_deref(),
            Some(&["sh".to_owned(), "-c".into(), "a".into()][..])
        );
        assert_eq!(config.env, ["B=x y", "A=2"]);
        assert_eq!(config.exposed_ports, ["80/tcp", "53/udp"]);
        assert_eq!(config.entrypoint.map(|e| e.len()), Some(3));
        for wrong in ["RUN x", "ENV", "ENV a", "STOPSIGNAL nonsense"] {
            assert!(
                apply(&mut ContainerDefaults::default(), wrong).is_err(),
                "{wrong}"
            );
        }
    }
}
