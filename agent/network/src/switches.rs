//! The kernel switches under `net` that a bridge network needs, and no others.
//!
//! They are written through a procfs of our own, so it does not matter what is mounted on /proc.
//! Which network namespace is meant is decided by the namespace of the calling thread.

use std::io;
use std::path::PathBuf;

use berth_sys::path::OFlags;
use berth_sys::proc::ProcHandle;

use crate::error::{Error, Result};

const FORWARDING: &str = "sys/net/ipv4/ip_forward";

/// A procfs with its `sys` tree.
#[derive(Debug)]
pub(crate) struct Switches {
    proc: ProcHandle,
    /// False on a kernel without IPv6: there is nothing to switch off then.
    ipv6: bool,
}

impl Switches {
    pub(crate) fn open() -> Result<Switches> {
        let failed = |source| Error::Switch {
            path: PathBuf::from("/proc/sys/net"),
            source,
        };
        let proc = ProcHandle::private(false)
            .or_else(|_| berth_sys::path::open_root("/proc").and_then(ProcHandle::verified))
            .map_err(failed)?;
        let ipv6 = match proc.open_file("sys/net/ipv6/conf", OFlags::PATH) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed(error)),
        };
        Ok(Switches { proc, ipv6 })
    }

    /// Whether the host forwards IPv4 packets.
    pub(crate) fn forwarding(&self) -> Result<bool> {
        match self.proc.read(FORWARDING) {
            Ok(value) => Ok(value.trim() != "0"),
            Err(source) => Err(failed(FORWARDING, source)),
        }
    }

    /// Makes the host forward IPv4 packets. It stays so: others may have come to rely on it.
    pub(crate) fn enable_forwarding(&self) -> Result<()> {
        self.write(FORWARDING, "1")
    }

    /// Takes IPv6 from an interface of a network that has none: no address by itself, and no
    /// router advertisement heard (CVE-2020-13401, CVE-2024-32473). With `default` for every
    /// interface that the namespace gets from now on.
    pub(crate) fn disable_ipv6(&self, interface: &str) -> Result<()> {
        if !self.ipv6 {
            return Ok(());
        }
        self.write(&format!("sys/net/ipv6/conf/{interface}/accept_ra"), "0")?;
        self.write(&format!("sys/net/ipv6/conf/{interface}/disable_ipv6"), "1")
    }

    fn write(&self, path: &str, value: &str) -> Result<()> {
        self.proc
            .write(path, value)
            .map_err(|source| failed(path, source))
    }
}

fn failed(path: &str, source: io::Error) -> Error {
    Error::Switch {
        path: PathBuf::from("/proc").join(path),
        source,
    }
}
