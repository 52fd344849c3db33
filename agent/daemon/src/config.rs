//! What the agent is told: flags over drop-ins over `berthd.toml` over defaults, all merged into one
//! table and checked once. Keys and flags have the same names; an unknown one is an error.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};

use berth_engine::{BridgeConfig, CgroupDriver};

/// Read when it exists; `--config` names another, which must.
const CONFIG_FILE: &str = "/etc/berth/berthd.toml";
/// The listener without `-H` and without socket activation.
const DEFAULT_HOST: &str = "unix:///run/berth/berth.sock";
/// How long an activated agent stays without work.
const IDLE_EXIT: Duration = Duration::from_secs(30);

pub(crate) const USAGE: &str = "\
Usage: berthd [OPTIONS]

The berth host agent. It takes its sockets from systemd, or listens where -H says.

Options:
  -H, --host ADDRESS       listen on unix:///PATH, tcp://IP:PORT, or fd:// for the
                           sockets that systemd passed; may be repeated
                           [default: the passed sockets, else unix:///run/berth/berth.sock]
      --insecure-tcp       allow tcp:// without TLS, on loopback addresses only:
                           every local user then controls the host
      --data-root DIR      images, containers, the database [default: /var/lib/berth]
      --run-root DIR       sockets and run-time state [default: /run/berth]
      --config FILE        read this file [default: /etc/berth/berthd.toml];
                           FILE.d/*.toml are read after it
      --log-level LEVEL    error, warn, info, debug or trace [default: info]
      --idle-exit SECONDS  leave after so long without work, although containers run;
                           0 = never [default: 30 when socket-activated, else 0]
      --cgroup-driver NAME auto, systemd or cgroupfs [default: auto]
      --storage-driver NAME
                           overlay or vfs [default: overlay]
      --monitor FILE       the berth-monitor program
                           [default: /usr/libexec/berth/berth-monitor]
      --bridge NAME        the default bridge's interface [default: berth0]
      --bridge-subnet NET  its addresses, as 172.29.0.0/16
      --bridge-gateway IP  its own address [default: the subnet's first]
      --bridge-mtu BYTES   its packet size [default: the uplink's]
  -h, --help               print this
  -V, --version            print the version
";

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Version,
    Run(Flags),
}

/// The command line's part of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    config: Option<PathBuf>,
    table: Table,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Unix(PathBuf),
    Tcp(SocketAddr),
    /// The sockets that the service manager passed.
    Passed,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Passed => f.write_str("fd://"),
        }
    }
}

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Settings {
    hosts: Vec<String>,
    insecure_tcp: bool,
    pub(crate) data_root: PathBuf,
    pub(crate) run_root: PathBuf,
    pub(crate) log_level: LogLevel,
    /// Seconds; 0 = never.
    idle_exit: Option<f64>,
    cgroup_driver: Cgroups,
    storage_driver: Option<String>,
    monitor: PathBuf,
    bridge: BridgeConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cgroups {
    #[default]
    Auto,
    Systemd,
    Cgroupfs,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            insecure_tcp: false,
            data_root: PathBuf::from("/var/lib/berth"),
            run_root: PathBuf::from("/run/berth"),
            log_level: LogLevel::default(),
            idle_exit: None,
            cgroup_driver: Cgroups::default(),
            storage_driver: None,
            monitor: PathBuf::from("/usr/libexec/berth/berth-monitor"),
            bridge: BridgeConfig::default(),
        }
    }
}

/// Why the configuration is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{0}")]
    Usage(#[from] lexopt::Error),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {}", path.display(), source.to_string().trim_end())]
    Syntax {
        path: PathBuf,
        source: toml::de::Error,
    },
    #[error("invalid configuration: {}", .0.message())]
    Value(toml::de::Error),
    #[error("invalid configuration: {0}")]
    Wrong(String),
}

type Result<T, E = ConfigError> = std::result::Result<T, E>;

impl Command {
    /// Reads the command line (without the program's name).
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self> {
        use lexopt::Arg::{Long, Short};
        use lexopt::ValueExt as _;

        let mut parser = lexopt::Parser::from_args(args);
        let mut flags = Flags::default();
        let mut hosts = Vec::new();
        while let Some(arg) = parser.next()? {
            match arg {
                Short('h') | Long("help") => return Ok(Self::Help),
                Short('V') | Long("version") => return Ok(Self::Version),
                Short('H') | Long("host") => hosts.push(Value::String(parser.value()?.string()?)),
                Long("insecure-tcp") => flags.set("insecure-tcp", true),
                Long("config") => flags.config = Some(parser.value()?.into()),
                Long("idle-exit") => flags.set("idle-exit", parser.value()?.parse::<f64>()?),
                Long("bridge") => flags.set_bridge("name", parser.value()?.string()?),
                Long("bridge-subnet") => flags.set_bridge("subnet", parser.value()?.string()?),
                Long("bridge-gateway") => flags.set_bridge("gateway", parser.value()?.string()?),
                Long("bridge-mtu") => {
                    flags.set_bridge("mtu", i64::from(parser.value()?.parse::<u32>()?))
                }
                Long(
                    name @ ("data-root" | "run-root" | "log-level" | "cgroup-driver"
                    | "storage-driver" | "monitor"),
                ) => {
                    let name = name.to_owned();
                    flags.set(&name, parser.value()?.string()?);
                }
                _ => return Err(arg.unexpected().into()),
            }
        }
        if !hosts.is_empty() {
            flags.set("hosts", hosts);
        }
        Ok(Self::Run(flags))
    }
}

impl Flags {
    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.table.insert(key.to_owned(), value.into());
    }

    fn set_bridge(&mut self, key: &str, value: impl Into<Value>) {
        let bridge = self
            .table
            .entry("bridge")
            .or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(bridge) = bridge {
            bridge.insert(key.to_owned(), value.into());
        }
    }

    /// Reads the files and puts the flags over them.
    pub(crate) fn load(&self) -> Result<Settings> {
        let path = self.config.as_deref().unwrap_or(Path::new(CONFIG_FILE));
        let mut all = match read(path) {
            Err(ConfigError::Read { source, .. })
                if self.config.is_none() && source.kind() == io::ErrorKind::NotFound =>
            {
                Table::new()
            }
            other => other?,
        };
        for path in drop_ins(path)? {
            merge(&mut all, read(&path)?);
        }
        merge(&mut all, self.table.clone());
        let settings: Settings = Value::Table(all).try_into().map_err(ConfigError::Value)?;
        settings.check()?;
        Ok(settings)
    }
}

/// One file, checked by itself so that an error names it and the line.
fn read(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let syntax = |source| ConfigError::Syntax {
        path: path.to_owned(),
        source,
    };
    toml::from_str::<Settings>(&text).map_err(syntax)?;
    toml::from_str(&text).map_err(syntax)
}

/// `berthd.toml.d/*.toml` in the order of their names.
fn drop_ins(path: &Path) -> Result<Vec<PathBuf>> {
    let mut dir = path.as_os_str().to_owned();
    dir.push(".d");
    let dir = PathBuf::from(dir);
    let unreadable = |source| ConfigError::Read {
        path: dir.clone(),
        source,
    };
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Later values win; tables are merged key by key.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

impl Settings {
    /// What types cannot say.
    fn check(&self) -> Result<()> {
        let wrong = |message: String| Err(ConfigError::Wrong(message));
        for (name, path) in [
            ("data-root", &self.data_root),
            ("run-root", &self.run_root),
            ("monitor", &self.monitor),
        ] {
            if !path.is_absolute() {
                return wrong(format!(
                    "{name} must be an absolute path, not {}",
                    path.display()
                ));
            }
        }
        if let Some(seconds) = self.idle_exit
            && Duration::try_from_secs_f64(seconds).is_err()
        {
            return wrong(format!(
                "idle-exit must be a number of seconds, not {seconds}"
            ));
        }
        self.bridge
            .check()
            .map_err(|error| ConfigError::Wrong(error.to_string()))?;
        self.hosts().map(|_| ())
    }

    /// Where to listen, besides the sockets that were passed. Empty = nothing was said.
    pub(crate) fn hosts(&self) -> Result<Vec<Host>> {
        self.hosts
            .iter()
            .map(|text| parse_host(text, self.insecure_tcp))
            .collect()
    }

    /// [`Self::hosts`], or the default listener where nothing was said and nothing passed.
    pub(crate) fn hosts_or_default(&self, passed: bool) -> Result<Vec<Host>> {
        let hosts = self.hosts()?;
        if hosts.is_empty() && !passed {
            Ok(vec![parse_host(DEFAULT_HOST, false)?])
        } else {
            Ok(hosts)
        }
    }

    /// How long to stay without work; `None` = for ever.
    pub(crate) fn idle_exit(&self, activated: bool) -> Option<Duration> {
        match self.idle_exit {
            None => activated.then_some(IDLE_EXIT),
            Some(seconds) => Duration::try_from_secs_f64(seconds)
                .ok()
                .filter(|limit| !limit.is_zero()),
        }
    }

    /// The engine's part.
    pub(crate) fn engine(&self) -> berth_engine::Config {
        berth_engine::Config {
            data_root: self.data_root.clone(),
            run_root: self.run_root.clone(),
            storage_driver: self.storage_driver.clone(),
            cgroup_driver: match self.cgroup_driver {
                Cgroups::Auto => CgroupDriver::Auto,
                Cgroups::Systemd => CgroupDriver::Systemd,
                Cgroups::Cgroupfs => CgroupDriver::Cgroupfs,
            },
            monitor: self.monitor.clone(),
            bridge: self.bridge.clone(),
            version: crate::VERSION.to_owned(),
        }
    }
}

/// One `-H` value.
fn parse_host(text: &str, insecure_tcp: bool) -> Result<Host> {
    let wrong = |why: &str| Err(ConfigError::Wrong(format!("host {text:?} {why}")));
    if let Some(path) = text.strip_prefix("unix://") {
        // No abstract sockets: a container with the host's network could reach them.
        let plain = path.starts_with('/') && !path.contains('\0') && !path.ends_with('/');
        return if plain {
            Ok(Host::Unix(path.into()))
        } else {
            wrong("must name an absolute path")
        };
    }
    if let Some(rest) = text.strip_prefix("fd://") {
        return if matches!(rest, "" | "*") {
            Ok(Host::Passed)
        } else {
            wrong("must be fd:// alone: sockets go by name")
        };
    }
    if let Some(address) = text.strip_prefix("tcp://") {
        let address = match address.strip_prefix("localhost:").map(str::parse) {
            Some(Ok(port)) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
            _ => address.parse::<SocketAddr>(),
        };
        return match address {
            Err(_) => wrong("must be tcp://ADDRESS:PORT"),
            Ok(address) if !address.ip().is_loopback() => {
                wrong("is not a loopback address, and TLS is not supported yet")
            }
            Ok(_) if !insecure_tcp => wrong("is not protected: it needs --insecure-tcp"),
            Ok(address) => Ok(Host::Tcp(address)),
        };
    }
    wrong("must begin with unix://, fd:// or tcp://")
}

#[cfg(test)]
mod tests;
