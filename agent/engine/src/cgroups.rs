//! Where a container's cgroup lies, with either driver: in its scope, or below `/sys/fs/cgroup/berth`.

use std::collections::BTreeSet;
use std::path::Path;

use berth_runtime::cgroup as runtime_cgroup;
use berth_sys::cgroup::Cgroup;
use berth_systemd::scope::{self, ScopeSettings};

use crate::Engine;
use crate::containers::Handle;
use crate::error::{Error, Result};
use crate::inner::Inner;

/// The data root of an installed agent. Only that one may take scopes and cgroups that nobody knows for
/// its own: another agent with other roots may run beside it.
const INSTALLED_DATA_ROOT: &str = "/var/lib/berth";

/// Microseconds; the kernel's and Docker's own.
const DEFAULT_PERIOD: u64 = 100_000;

impl Inner {
    /// The payload cgroup of a running container; `group` as recorded at its start.
    pub(crate) fn open_payload(&self, id: &str, group: &str) -> Result<Cgroup> {
        let path = runtime_cgroup::directory(group).join(runtime_cgroup::PAYLOAD);
        Cgroup::open(&path).map_err(|e| {
            Error::internal(format!(
                "the cgroup {} of container {id} cannot be opened",
                path.display()
            ))
            .with_source(e)
        })
    }

    /// What a scope is to be.
    pub(crate) fn scope_settings(&self, handle: &Handle) -> Result<ScopeSettings> {
        let record = handle.record();
        let spec = &record.body.spec;
        let mut limits = self.limits(&spec.host.resources)?;
        // systemd would put its own default on a scope; a container has no limit unless one was asked for.
        limits.tasks_max.get_or_insert(u64::MAX);
        Ok(ScopeSettings {
            description: scope::description(&record.name, &spec.image),
            timeout_stop_usec: scope::stop_limit(
                spec.stop_timeout
                    .unwrap_or(crate::containers::settings::DEFAULT_STOP_TIMEOUT),
            ),
            limits,
            ..ScopeSettings::default()
        })
    }

    /// The same limits in the words of the cgroup file system.
    pub(crate) fn cgroupfs_limits(
        &self,
        handle: &Handle,
    ) -> Result<berth_runtime::cgroupfs::Limits> {
        let resources = handle.record().body.spec.host.resources.clone();
        let limits = self.limits(&resources)?;
        let bytes = |value: Option<u64>| value.map(|v| i64::try_from(v).unwrap_or(-1));
        let period = limits.cpu_period_usec.unwrap_or(DEFAULT_PERIOD);
        Ok(berth_runtime::cgroupfs::Limits {
            memory_max: bytes(limits.memory_max),
            memory_low: bytes(limits.memory_low),
            memory_swap_max: bytes(limits.memory_swap_max),
            cpu_weight: limits.cpu_weight,
            cpu_quota: limits
                .cpu_quota_per_sec_usec
                .map(|quota| i64::try_from(quota.saturating_mul(period) / 1_000_000).unwrap_or(-1)),
            cpu_period: limits.cpu_quota_per_sec_usec.map(|_| period),
            pids_max: bytes(limits.tasks_max),
            cpuset_cpus: resources.cpuset_cpus,
            cpuset_mems: resources.cpuset_mems,
        })
    }

    /// Ends the scope of a start that failed, with whatever may still be in it.
    pub(crate) async fn end_scope(&self, id: &str) {
        let Some(manager) = &self.manager else {
            self.remove_cgroup(id).await;
            return;
        };
        let unit = scope::unit_name(id);
        match manager.stop_unit(&unit).await {
            Ok(()) | Err(berth_systemd::error::Error::NoSuchUnit { .. }) => {}
            Err(error) => {
                tracing::warn!(
                    unit,
                    error = &error as &dyn std::error::Error,
                    "a scope could not be stopped, ignoring"
                );
            }
        }
    }

    /// With the file system driver the cgroup is ours to remove; a scope goes by itself.
    pub(crate) async fn remove_cgroup(&self, id: &str) {
        if self.manager.is_some() {
            return;
        }
        let name = id.to_owned();
        let removed =
            tokio::task::spawn_blocking(move || berth_runtime::cgroupfs::remove(&name)).await;
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(
                    container_id = id,
                    error = &error as &dyn std::error::Error,
                    "a cgroup stays behind, ignoring"
                );
            }
            Err(error) => tracing::error!(container_id = id, %error, "removing a cgroup failed"),
        }
    }

    /// Removes cgroups of the file system driver that belong to no container. Blocking.
    pub(crate) fn sweep_cgroups(&self, keep: &BTreeSet<String>) {
        if self.manager.is_some() || !self.is_installed() {
            return;
        }
        for id in berth_runtime::cgroupfs::list().unwrap_or_default() {
            if !keep.contains(&id)
                && let Err(error) = berth_runtime::cgroupfs::remove(&id)
            {
                tracing::warn!(
                    container_id = id,
                    error = &error as &dyn std::error::Error,
                    "a stale cgroup stays behind, ignoring"
                );
            }
        }
    }

    pub(crate) fn is_installed(&self) -> bool {
        self.paths.data() == Path::new(INSTALLED_DATA_ROOT)
    }
}

impl Engine {
    /// Shows the limits as the service manager has them: `systemctl set-property` changes them behind our back.
    pub(crate) async fn mirror_limits(&self, container: &mut crate::types::Container) {
        let Some(manager) = self
            .inner
            .manager
            .as_ref()
            .filter(|_| container.state.status.is_live())
        else {
            return;
        };
        let asked = self
            .inner
            .limits(&container.spec.host.resources)
            .unwrap_or_default();
        let now = match manager.limits(&container.unit).await {
            Ok(Some(now)) => now,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(unit = container.unit, %error, "limits cannot be read back");
                return;
            }
        };
        let resources = &mut container.spec.host.resources;
        let finite = |value: Option<u64>| value.filter(|&v| v != u64::MAX);
        let number = |value: Option<u64>| value.and_then(|v| i64::try_from(v).ok()).unwrap_or(0);
        // Only what differs from what was asked: conversions lose detail in both directions.
        if now.memory_max != asked.memory_max {
            resources.memory = number(now.memory_max);
        }
        if now.memory_low != asked.memory_low {
            resources.memory_reservation = number(now.memory_low);
        }
        if now.memory_swap_max != finite(asked.memory_swap_max) {
            resources.memory_swap = now.memory_swap_max.map_or(0, |swap| {
                i64::try_from(swap).map_or(-1, |swap| swap.saturating_add(resources.memory))
            });
        }
        if now.tasks_max != finite(asked.tasks_max) {
            resources.pids_limit = now
                .tasks_max
                .map(|tasks| i64::try_from(tasks).unwrap_or(-1));
        }
        if now.cpu_quota_per_sec_usec != asked.cpu_quota_per_sec_usec {
            resources.cpu_quota = 0;
            resources.cpu_period = 0;
            resources.nano_cpus = number(now.cpu_quota_per_sec_usec).saturating_mul(1000);
        }
        if now.cpu_weight != asked.cpu_weight {
            resources.cpu_shares = now
                .cpu_weight
                .map_or(0, berth_systemd::limits::shares_of_weight);
        }
    }

    /// Shows a new name in `systemctl status`.
    pub(crate) async fn refresh_description(&self, handle: &Handle) {
        let Some(manager) = &self.inner.manager else {
            return;
        };
        let (unit, description) = {
            let record = handle.record();
            (
                scope::unit_name(&record.id),
                scope::description(&record.name, &record.body.spec.image),
            )
        };
        let settings = ScopeSettings {
            description,
            ..ScopeSettings::default()
        };
        if let Err(error) = manager.set_properties(&unit, &settings).await {
            tracing::warn!(
                unit,
                error = &error as &dyn std::error::Error,
                "the scope keeps its old description, ignoring"
            );
        }
    }
}
