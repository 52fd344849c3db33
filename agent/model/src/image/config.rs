//! The image configuration: what the image says about itself and about the containers made from it.
//! This is a view: the bytes stay as they came, because the image's identity is their digest, and a
//! view that is written back would lose what it does not know. Only images that we author ourselves
//! are written, by [`ImageConfig::to_json`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::lenient::{self, flag, number, object, set, strings, text};
use crate::digest::{Digest, DigestError};
use crate::time::Timestamp;

/// Largest configuration that is read. Real ones have a few KiB.
pub const CONFIG_MAX: usize = 8 * 1024 * 1024;

/// The view of one image configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageConfig {
    pub created: Option<Timestamp>,
    pub author: String,
    /// Go's word, e.g. `amd64`.
    pub architecture: String,
    pub variant: String,
    pub os: String,
    pub os_version: String,
    pub os_features: Vec<String>,
    /// Set by old builders and by commit.
    pub comment: String,
    pub docker_version: String,
    pub container: String,
    /// `null` in the image = the default.
    pub config: ContainerDefaults,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Oldest first.
    pub history: Vec<HistoryEntry>,
}

/// What containers of the image start with unless they are told otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerDefaults {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: Vec<String>,
    pub cmd: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub image: String,
    /// Absolute paths.
    pub volumes: Vec<String>,
    pub working_dir: String,
    pub labels: BTreeMap<String, String>,
    /// `port/proto`
    pub exposed_ports: Vec<String>,
    pub stop_signal: Option<String>,
    pub healthcheck: Option<Healthcheck>,
    pub on_build: Vec<String>,
    pub shell: Option<Vec<String>>,
    /// The command was written in Windows' one-string form.
    pub args_escaped: bool,
}

/// How to find out whether a container works. Times in nanoseconds; 0 = default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healthcheck {
    pub test: Vec<String>,
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    pub retries: i64,
}

/// One step of the image's making.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistoryEntry {
    pub created: Option<Timestamp>,
    pub created_by: String,
    pub author: String,
    pub comment: String,
    /// The step made no layer.
    pub empty_layer: bool,
}

/// Why bytes are no image configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("image configuration is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("image configuration is no JSON object")]
    NotAnObject,
    #[error("image configuration has {0} bytes, more than {CONFIG_MAX}")]
    TooLarge(usize),
    #[error("image configuration names a layer by a bad digest: {0}")]
    Layer(#[from] DigestError),
    #[error("image configuration has rootfs type {0:?}, only \"layers\" is known")]
    RootfsType(String),
    #[error("image configuration has no rootfs.diff_ids")]
    NoRootfs,
}

impl ImageConfig {
    /// Reads a configuration of the present format. Lenient about everything but the layers, which
    /// decide what is run. Where layers are implied (old archives), use [`Self::parse_legacy`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let map = object_of(bytes)?;
        let mut config = Self::common(&map);
        let rootfs = object(&map, "rootfs").ok_or(ConfigError::NoRootfs)?;
        let kind = text(rootfs, "type");
        if !matches!(kind.as_str(), "" | "layers") {
            return Err(ConfigError::RootfsType(kind));
        }
        let ids = lenient::get(rootfs, "diff_ids")
            .map(|v| v.as_array().ok_or(ConfigError::NoRootfs))
            .transpose()?;
        config.diff_ids = ids
            .into_iter()
            .flatten()
            .map(|id| Digest::parse(id.as_str().unwrap_or_default()))
            .collect::<Result<_, _>>()?;
        Ok(config)
    }

    /// Reads the per-layer record of old archives (`<id>/json`), which names no layers.
    pub fn parse_legacy(bytes: &[u8]) -> Result<Self, ConfigError> {
        Ok(Self::common(&object_of(bytes)?))
    }

    fn common(map: &Map<String, Value>) -> Self {
        Self {
            created: time(map, "created"),
            author: text(map, "author"),
            architecture: text(map, "architecture"),
            variant: text(map, "variant"),
            os: text(map, "os"),
            os_version: text(map, "os.version"),
            os_features: strings(map, "os.features").unwrap_or_default(),
            comment: text(map, "comment"),
            docker_version: text(map, "docker_version"),
            container: text(map, "container"),
            config: object(map, "config")
                .map(ContainerDefaults::from_map)
                .unwrap_or_default(),
            diff_ids: Vec::new(),
            history: lenient::get(map, "history")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_object)
                .map(HistoryEntry::from_map)
                .collect(),
        }
    }

    /// A configuration of our own making in the format that Docker writes. Fields that are empty are
    /// left out; the order of keys is fixed, so the same content always has the same digest.
    pub fn to_json(&self) -> Vec<u8> {
        let mut map = Map::new();
        map.insert("architecture".into(), json!(self.architecture));
        put_text(&mut map, "author", &self.author);
        put_text(&mut map, "comment", &self.comment);
        map.insert("config".into(), Value::Object(self.config.to_map()));
        put_text(&mut map, "container", &self.container);
        map.insert("created".into(), json!(self.created.unwrap_or_default()));
        put_text(&mut map, "docker_version", &self.docker_version);
        map.insert(
            "history".into(),
            self.history.iter().map(HistoryEntry::to_value).collect(),
        );
        map.insert("os".into(), json!(self.os));
        put_text(&mut map, "os.version", &self.os_version);
        if !self.os_features.is_empty() {
            map.insert("os.features".into(), json!(self.os_features));
        }
        map.insert(
            "rootfs".into(),
            json!({"type": "layers", "diff_ids": self.diff_ids}),
        );
        put_text(&mut map, "variant", &self.variant);
        Value::Object(map).to_string().into_bytes()
    }
}

impl ContainerDefaults {
    /// The `config` object of an image, or a container configuration in the same words.
    pub fn from_map(map: &Map<String, Value>) -> Self {
        Self {
            hostname: text(map, "Hostname"),
            domainname: text(map, "Domainname"),
            user: text(map, "User"),
            attach_stdin: flag(map, "AttachStdin"),
            attach_stdout: flag(map, "AttachStdout"),
            attach_stderr: flag(map, "AttachStderr"),
            tty: flag(map, "Tty"),
            open_stdin: flag(map, "OpenStdin"),
            stdin_once: flag(map, "StdinOnce"),
            env: strings(map, "Env").unwrap_or_default(),
            cmd: strings(map, "Cmd"),
            entrypoint: strings(map, "Entrypoint"),
            image: text(map, "Image"),
            volumes: set(map, "Volumes"),
            working_dir: text(map, "WorkingDir"),
            labels: lenient::pairs(map, "Labels"),
            exposed_ports: set(map, "ExposedPorts"),
            stop_signal: Some(text(map, "StopSignal")).filter(|s| !s.is_empty()),
            healthcheck: object(map, "Healthcheck").map(Healthcheck::from_map),
            on_build: strings(map, "OnBuild").unwrap_or_default(),
            shell: strings(map, "Shell"),
            args_escaped: flag(map, "ArgsEscaped"),
        }
    }

    /// The same words again; empty fields are left out.
    pub fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        put_text(&mut map, "Hostname", &self.hostname);
        put_text(&mut map, "Domainname", &self.domainname);
        put_text(&mut map, "User", &self.user);
        for (key, value) in [
            ("AttachStdin", self.attach_stdin),
            ("AttachStdout", self.attach_stdout),
            ("AttachStderr", self.attach_stderr),
            ("Tty", self.tty),
            ("OpenStdin", self.open_stdin),
            ("StdinOnce", self.stdin_once),
            ("ArgsEscaped", self.args_escaped),
        ] {
            if value {
                map.insert(key.into(), Value::Bool(true));
            }
        }
        put_list(&mut map, "Env", &self.env);
        if let Some(cmd) = &self.cmd {
            map.insert("Cmd".into(), json!(cmd));
        }
        if let Some(entrypoint) = &self.entrypoint {
            map.insert("Entrypoint".into(), json!(entrypoint));
        }
        put_text(&mut map, "Image", &self.image);
        put_set(&mut map, "Volumes", &self.volumes);
        put_text(&mut map, "WorkingDir", &self.working_dir);
        if !self.labels.is_empty() {
            map.insert("Labels".into(), json!(self.labels));
        }
        put_set(&mut map, "ExposedPorts", &self.exposed_ports);
        put_text(
            &mut map,
            "StopSignal",
            self.stop_signal.as_deref().unwrap_or_default(),
        );
        if let Some(check) = &self.healthcheck {
            map.insert("Healthcheck".into(), check.to_value());
        }
        put_list(&mut map, "OnBuild", &self.on_build);
        if let Some(shell) = &self.shell {
            map.insert("Shell".into(), json!(shell));
        }
        map
    }

    /// The program and its arguments as the image has them.
    pub fn argv(&self) -> Vec<String> {
        self.entrypoint
            .iter()
            .flatten()
            .chain(self.cmd.iter().flatten())
            .cloned()
            .collect()
    }
}

impl Healthcheck {
    /// From the `Healthcheck` object of a configuration.
    pub fn from_map(map: &Map<String, Value>) -> Self {
        Self {
            test: strings(map, "Test").unwrap_or_default(),
            interval: number(map, "Interval").unwrap_or_default(),
            timeout: number(map, "Timeout").unwrap_or_default(),
            start_period: number(map, "StartPeriod").unwrap_or_default(),
            start_interval: number(map, "StartInterval").unwrap_or_default(),
            retries: number(map, "Retries").unwrap_or_default(),
        }
    }

    /// As the `Healthcheck` object; fields at their defaults are left out.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        put_list(&mut map, "Test", &self.test);
        for (key, value) in [
            ("Interval", self.interval),
            ("Timeout", self.timeout),
            ("StartPeriod", self.start_period),
            ("StartInterval", self.start_interval),
            ("Retries", self.retries),
        ] {
            if value != 0 {
                map.insert(key.into(), json!(value));
            }
        }
        Value::Object(map)
    }
}

impl HistoryEntry {
    fn from_map(map: &Map<String, Value>) -> Self {
        Self {
            created: time(map, "created"),
            created_by: text(map, "created_by"),
            author: text(map, "author"),
            comment: text(map, "comment"),
            empty_layer: flag(map, "empty_layer"),
        }
    }

    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("created".into(), json!(self.created.unwrap_or_default()));
        put_text(&mut map, "created_by", &self.created_by);
        put_text(&mut map, "author", &self.author);
        put_text(&mut map, "comment", &self.comment);
        if self.empty_layer {
            map.insert("empty_layer".into(), Value::Bool(true));
        }
        Value::Object(map)
    }
}

fn object_of(bytes: &[u8]) -> Result<Map<String, Value>, ConfigError> {
    if bytes.len() > CONFIG_MAX {
        return Err(ConfigError::TooLarge(bytes.len()));
    }
    match serde_json::from_slice(bytes)? {
        Value::Object(map) => Ok(map),
        _ => Err(ConfigError::NotAnObject),
    }
}

/// A time that cannot be read, or is Go's zero time, is absent: an image is not refused for its date.
fn time(map: &Map<String, Value>, key: &str) -> Option<Timestamp> {
    lenient::get(map, key)?
        .as_str()?
        .parse()
        .ok()
        .filter(|t: &Timestamp| !t.is_zero())
}

fn put_text(map: &mut Map<String, Value>, key: &str, value: &str) {
    if !value.is_empty() {
        map.insert(key.into(), value.into());
    }
}

fn put_list(map: &mut Map<String, Value>, key: &str, list: &[String]) {
    if !list.is_empty() {
        map.insert(key.into(), json!(list));
    }
}

fn put_set(map: &mut Map<String, Value>, key: &str, keys: &[String]) {
    if !keys.is_empty() {
        let set: Map<String, Value> = keys.iter().map(|k| (k.clone(), json!({}))).collect();
        map.insert(key.into(), Value::Object(set));
    }
}

#[cfg(test)]
mod tests;
