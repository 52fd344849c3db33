//! The bridge network: attaching containers to it and releasing them.
//!
//! The interface is asynchronous, the work is not: each call is one piece of blocking work on
//! tokio's blocking threads, which runs to its end whether or not the caller still waits. What
//! nobody takes delivery of is undone.
//!
//! Locks: `host` (all netlink of the host's namespace, one at a time as the kernel does it anyway)
//! before `pool`; neither is held across an await.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::config::BridgeConfig;
use crate::endpoint::{Endpoint, Mac};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::ipam::Pool;
use crate::netns::Netns;
use crate::switches::Switches;
use crate::warm::{self, Warm};

/// The network handle: cheap to clone. Making it does nothing to the host.
#[derive(Debug, Clone)]
pub struct Network(Arc<Inner>);

/// What a container gets.
#[derive(Debug)]
pub struct Sandbox {
    /// The container's network namespace, its loopback up. The veth pair lives as long as this
    /// descriptor or a process in the namespace.
    pub netns: OwnedFd,
    pub endpoint: Endpoint,
}

#[derive(Debug)]
struct Inner {
    config: BridgeConfig,
    pool: Mutex<Pool>,
    /// Opened on first use, in the network namespace of whoever that is.
    host: Mutex<Option<Host>>,
    switches: OnceLock<Arc<Switches>>,
    warm: Arc<Warm>,
}

impl Network {
    /// A network that nothing exists of yet in the kernel. The configuration is checked on first
    /// use, so that an agent whose bridge cannot work still serves everything else.
    pub fn new(config: BridgeConfig) -> Network {
        Network::with_ready(config, warm::READY)
    }

    /// The same with another number of namespaces kept ready (0 = none).
    pub fn with_ready(config: BridgeConfig, ready: usize) -> Network {
        let pool = Mutex::new(Pool::new(&config));
        Network(Arc::new(Inner {
            config,
            pool,
            host: Mutex::new(None),
            switches: OnceLock::new(),
            warm: Warm::new(ready),
        }))
    }

    /// The network's configuration.
    pub fn config(&self) -> &BridgeConfig {
        &self.0.config
    }

    /// Starts making namespaces ahead, in the background; the bridge is not touched. Starts do so
    /// by themselves when they end: this is for an agent that has just come up and is idle.
    pub fn warm(&self) {
        self.0.warm.fill();
    }

    /// Lets go of the namespaces made ahead and makes no more. Attached containers stay.
    pub fn shutdown(&self) {
        self.0.warm.close();
    }

    /// Takes over the endpoints of containers that are alive, from the engine's records at start,
    /// and puts right what of the bridge, its ports and the rules is not as it should be. With no
    /// endpoint nothing is made.
    ///
    /// Returns the records that cannot be true any more (another subnet is configured, an address
    /// is named twice), with the reason; those containers hold no address.
    ///
    /// # Errors
    /// As [`Network::attach`]; the endpoints are taken over all the same.
    pub async fn restore(
        &self,
        endpoints: impl IntoIterator<Item = (String, Endpoint)>,
    ) -> Result<Vec<(String, Error)>> {
        let mut refused = Vec::new();
        let mut any = false;
        {
            let mut pool = self.0.pool();
            for (id, endpoint) in endpoints {
                match pool.restore(&id, &endpoint.interface, endpoint.ip) {
                    Ok(()) => any = true,
                    Err(error) => refused.push((id, error)),
                }
            }
        }
        if any {
            self.verify().await?;
        }
        Ok(refused)
    }

    /// Looks whether the bridge, its ports and the rules are as they should be, and makes them so:
    /// after a start, or when told that another program has reloaded the host's firewall.
    ///
    /// # Errors
    /// As [`Network::attach`].
    pub async fn verify(&self) -> Result<()> {
        self.run(|inner| inner.with_host(|host| host.repair(&inner.pool)).map(drop))
            .await
    }

    /// Gives container `id` a namespace on the bridge: an address (`requested`, or the next free),
    /// the bridge and the rules if they are not there yet, the veth pair, address and route inside.
    /// Without `mac` the hardware address is derived from the address, as Docker does.
    ///
    /// On failure, or if the caller goes away, nothing is left.
    ///
    /// # Errors
    /// [`Error::AlreadyAttached`], [`Error::AddressInUse`], [`Error::AddressUnusable`],
    /// [`Error::AddressesExhausted`], [`Error::MacUnusable`], [`Error::BridgeFull`] about the
    /// request; [`Error::Config`], [`Error::ForeignInterface`], [`Error::Overlap`],
    /// [`Error::BridgeInUse`], [`Error::NftMissing`], [`Error::NftRefused`] about the host; the
    /// rest are faults.
    pub async fn attach(
        &self,
        id: &str,
        mac: Option<Mac>,
        requested: Option<Ipv4Addr>,
    ) -> Result<Sandbox> {
        let id = id.to_owned();
        let attachment = self
            .run(move |inner| {
                let starting = inner.warm.starting();
                let result = inner.attach(&id, mac, requested);
                drop(starting);
                result
            })
            .await?;
        attachment.deliver()
    }

    /// A namespace with nothing but its loopback, up (network mode none).
    ///
    /// # Errors
    /// [`Error::Namespace`] and the like: faults.
    pub async fn isolated(&self) -> Result<OwnedFd> {
        let netns = self
            .run(|inner| {
                let starting = inner.warm.starting();
                let result = inner.netns();
                drop(starting);
                result
            })
            .await?;
        Ok(netns.into_fd())
    }

    /// Takes the container off the network: its port is closed, its packets are not let out any
    /// more, its address is free. The veth pair itself goes with the namespace. Repeating it, also
    /// after another container has got the address, does nothing.
    ///
    /// # Errors
    /// When the rules could not be changed; the address is free all the same.
    pub async fn release(&self, endpoint: &Endpoint) -> Result<()> {
        let endpoint = endpoint.clone();
        self.run(move |inner| inner.release(&endpoint)).await
    }

    /// Deletes ports of our bridge that belong to no container in `live`, and frees the addresses
    /// of endpoints that were restored for others. Returns the names of the deleted interfaces.
    /// For the start of the agent: what is attached meanwhile is left alone.
    ///
    /// # Errors
    /// When the kernel's tables cannot be read. What cannot be deleted is logged.
    pub async fn cleanup_stale(&self, live: &BTreeSet<String>) -> Result<Vec<String>> {
        let live = live.clone();
        self.run(move |inner| inner.with_host(|host| host.cleanup(&inner.pool, &live)))
            .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Inner>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(Error::Task)?
    }
}

impl Inner {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_host<T>(&self, work: impl FnOnce(&mut Host) -> Result<T>) -> Result<T> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *host {
            Some(host) => work(host),
            None => work(host.insert(Host::open(&self.config, self.switches()?)?)),
        }
    }

    fn switches(&self) -> Result<Arc<Switches>> {
        if let Some(switches) = self.switches.get() {
            return Ok(Arc::clone(switches));
        }
        let opened = Arc::new(Switches::open()?);
        Ok(Arc::clone(self.switches.get_or_init(|| opened)))
    }

    fn netns(&self) -> Result<Netns> {
        match self.warm.take() {
            Some(netns) => Ok(netns),
            None => Netns::create(&*self.switches()?),
        }
    }

    fn attach(
        self: &Arc<Self>,
        id: &str,
        mac: Option<Mac>,
        requested: Option<Ipv4Addr>,
    ) -> Result<Attachment> {
        if let Some(mac) = mac.filter(|mac| !mac.is_usable()) {
            return Err(Error::MacUnusable {
                mac: mac.to_string(),
            });
        }
        // Before anything is taken: what is wrong with the host is then the error, not a symptom.
        let (bridge, interface) =
            self.with_host(|host| Ok((host.ensure(&self.pool)?, host.free_name()?)))?;
        let ip = self.pool().take(id, &interface, requested)?;
        let endpoint = Endpoint {
            interface,
            ip,
            prefix_len: self.config.subnet.prefix_len(),
            gateway: self.config.gateway(),
            mac: mac.unwrap_or_else(|| Mac::of(ip)),
            bridge: self.config.name.clone(),
        };
        let mut attachment = Attachment {
            inner: Arc::clone(self),
            endpoint,
            netns: None,
            delivered: false,
        };
        let endpoint = &attachment.endpoint;
        let mut netns = self.netns()?;
        self.with_host(|host| {
            host.admit(&self.pool, endpoint.ip)?;
            host.connect(bridge, &endpoint.interface, endpoint.mac, &netns)
        })?;
        netns.configure(endpoint)?;
        self.with_host(|host| host.settle(bridge, &endpoint.interface))?;
        attachment.netns = Some(netns);
        Ok(attachment)
    }

    fn release(&self, endpoint: &Endpoint) -> Result<()> {
        // The lock is held over both steps, so that nobody gets the address in between and loses
        // its element to us.
        let result = self.with_host(|host| {
            let held = self
                .pool()
                .holder(endpoint.ip)
                .is_some_and(|lease| lease.interface == endpoint.interface);
            if !held {
                return Ok(());
            }
            let result = host.dismiss(endpoint);
            self.pool().give_back(endpoint.ip, &endpoint.interface);
            result
        });
        if result.is_err() {
            // The host could not even be talked to.
            self.pool().give_back(endpoint.ip, &endpoint.interface);
        }
        result
    }
}

/// An attachment that has not been delivered: dropping it undoes it, in reverse order.
#[derive(Debug)]
struct Attachment {
    inner: Arc<Inner>,
    endpoint: Endpoint,
    netns: Option<Netns>,
    delivered: bool,
}

impl Attachment {
    fn deliver(mut self) -> Result<Sandbox> {
        let netns = self
            .netns
            .take()
            .ok_or_else(|| Error::Namespace(io::ErrorKind::NotFound.into()))?;
        let endpoint = self.endpoint.clone();
        // Delivered: the undoing must not run.
        self.delivered = true;
        Ok(Sandbox {
            netns: netns.into_fd(),
            endpoint,
        })
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if self.delivered {
            return;
        }
        // The pair goes with its namespace.
        self.netns = None;
        if let Err(error) = self.inner.release(&self.endpoint) {
            tracing::warn!(
                address = %self.endpoint.ip,
                error = &error as &dyn std::error::Error,
                "a failed attachment was not undone completely, ignoring"
            );
        }
    }
}

#[cfg(test)]
mod tests;
