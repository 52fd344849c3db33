//! Where unpacking happens: a thread whose mount namespace is empty.
//!
//! Every path is resolved by descriptor beneath the layer's directory anyway; this is the second
//! wall. On such a thread `/` is an empty read-only tmpfs, so no path, whatever an archive made of
//! it, leads to a file of the host; no library, locale or name service can be loaded either.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_sys::at;
use berth_sys::ns::{self, Namespaces, NsKind};

use crate::error::{Context, Result};

/// The empty mount namespace that unpacking threads enter.
#[derive(Debug, Clone)]
pub(crate) struct Confinement(Arc<OwnedFd>);

impl Confinement {
    pub(crate) fn new() -> Result<Self> {
        let ns = ns::empty_mount_ns().doing(|| "make an empty mount namespace".to_owned())?;
        Ok(Confinement(Arc::new(ns)))
    }

    /// Takes the calling thread out of the host's file tree, for good, and clears its umask.
    pub(crate) fn enter(&self) -> Result<()> {
        let doing = || "enter the empty mount namespace".to_owned();
        // First its own root, working directory and umask; only then may it change namespace.
        ns::unshare(Namespaces::MNT).doing(doing)?;
        ns::setns(&*self.0, NsKind::Mnt).doing(doing)?;
        at::set_umask(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_host_is_in_reach() {
        if !crate::testing::is_root() {
            return;
        }
        let confinement = Confinement::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let inside = crate::testing::open(dir.path());
        let path = dir.path().join("x");
        ns::in_thread(|| {
            confinement.enter().unwrap();
            assert!(!std::fs::exists("/etc").unwrap() && !std::fs::exists(&path).unwrap());
            assert!(std::fs::write("/x", "").is_err());
            // By descriptor the layer's directory is still there.
            at::create_at(&inside, "x", 0o777).unwrap();
        })
        .unwrap();
        assert!(std::fs::exists("/etc").unwrap());
        assert_eq!(at::stat_at(&inside, "x").unwrap().mode, 0o777);
    }
}
