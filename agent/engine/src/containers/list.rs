//! Looking at containers: list with filters, inspect, prune's candidates. Lists come from memory.

use berth_model::filters::Filters;
use berth_model::time::Timestamp;
use berth_systemd::scope;

use super::Handle;
use crate::Engine;
use crate::error::{Error, Result, Subject};
use crate::images::load::storage_error;
use crate::record::Record;
use crate::types::{Container, ListOptions, PruneReport, RemoveOptions, Status};

impl Engine {
    /// Newest first.
    pub async fn container_list(&self, options: &ListOptions) -> Result<Vec<Container>> {
        let filters = &options.filters;
        filters
            .validate(crate::filters::CONTAINERS)
            .map_err(|e| Error::invalid(e.to_string()))?;
        let anchor = |name: Option<&str>| -> Result<Option<Timestamp>> {
            name.map(|name| Ok(self.inner.containers.find(name)?.record().created))
                .transpose()
        };
        let before = anchor(
            options
                .before
                .as_deref()
                .or_else(|| filters.get("before").next()),
        )?;
        let since = anchor(
            options
                .since
                .as_deref()
                .or_else(|| filters.get("since").next()),
        )?;
        let limited = options.limit.filter(|&limit| limit > 0);
        // Docker: a limit, an anchor, or a filter on the state shows stopped containers too.
        let all = options.all
            || limited.is_some()
            || options.since.is_some()
            || options.before.is_some()
            || filters.contains("status")
            || filters.contains("exited");
        let query = Query::parse(self, filters)?;
        let mut handles: Vec<_> = self
            .inner
            .containers
            .all()
            .into_iter()
            .filter(|handle| {
                let status = handle.observed();
                let record = handle.record();
                (all || status.is_live() || status == Status::Restarting)
                    && before.is_none_or(|t| record.created < t)
                    && since.is_none_or(|t| record.created > t)
                    && query.admits(&record, status)
            })
            .collect();
        handles.sort_by_cached_key(|handle| std::cmp::Reverse(handle.record().created));
        handles.truncate(limited.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        }));
        let mut list: Vec<Container> = handles.iter().map(|handle| self.view(handle)).collect();
        if options.size {
            for container in &mut list {
                self.add_sizes(container).await?;
            }
        }
        Ok(list)
    }

    pub async fn container_inspect(&self, reference: &str, size: bool) -> Result<Container> {
        let handle = self.inner.containers.find(reference)?;
        let mut container = self.view(&handle);
        self.mirror_limits(&mut container).await;
        if size {
            self.add_sizes(&mut container).await?;
        }
        Ok(container)
    }

    /// Full id, name (with or without leading slash) or unique id prefix, to the full id.
    pub fn container_resolve(&self, reference: &str) -> Result<String> {
        Ok(self.inner.containers.find(reference)?.id.clone())
    }

    /// Removes what is stopped.
    pub async fn container_prune(&self, filters: &Filters) -> Result<PruneReport> {
        let _busy = self.busy();
        filters
            .validate(crate::filters::CONTAINERS_PRUNED)
            .map_err(|e| Error::invalid(e.to_string()))?;
        let until = match filters.get("until").next() {
            Some(text) => Some(
                berth_model::time::parse_since(text, Timestamp::now())
                    .map_err(|e| Error::invalid(e.0))?,
            ),
            None => None,
        };
        let mut report = PruneReport::default();
        for handle in self.inner.containers.all() {
            let wanted = {
                let record = handle.record();
                let labels = &record.body.config.labels;
                matches!(
                    record.status(),
                    Status::Created | Status::Exited | Status::Dead
                ) && !record.stored.starting
                    && until.is_none_or(|until| record.created <= until)
                    && filters.pairs("label", labels)
                    && !(filters.contains("label!") && filters.pairs("label!", labels))
            };
            if !wanted {
                continue;
            }
            let size = self.snapshot_size(&handle.id).await.unwrap_or(0);
            match self
                .container_remove(&handle.id, RemoveOptions::default())
                .await
            {
                Ok(()) => {
                    report.deleted.push(handle.id.clone());
                    report.reclaimed += size;
                }
                // Started or removed meanwhile: not ours to prune.
                Err(error) => tracing::debug!(id = handle.id, %error, "a container was not pruned"),
            }
        }
        self.inner.event(
            "container",
            "prune",
            "",
            [("reclaimed", report.reclaimed.to_string())],
        );
        Ok(report)
    }

    /// A consistent copy of one container.
    pub(crate) fn view(&self, handle: &Handle) -> Container {
        let status = handle.observed();
        let record = handle.record().clone();
        let Record {
            id,
            name,
            created,
            body,
            mut stored,
        } = record;
        stored.state.status = status;
        let files = self.inner.paths.run_container(&id);
        let text = |file: &str| files.join(file).to_string_lossy().into_owned();
        let log_path = match body.spec.host.log.driver.as_str() {
            "" | "json-file" => self.inner.paths.log(&id).to_string_lossy().into_owned(),
            _ => String::new(),
        };
        Container {
            image_ref: self
                .inner
                .images
                .display_name(&body.image, &body.spec.image),
            image: body.image,
            spec: body.spec.clone(),
            config: body.config.clone(),
            mounts: body.mounts.clone(),
            state: stored.state,
            endpoint: stored.endpoint,
            restart_count: stored.restart_count,
            driver: self.inner.store.driver_name(),
            log_path,
            hosts_path: text("hosts"),
            hostname_path: text("hostname"),
            resolv_conf_path: text("resolv.conf"),
            unit: if self.inner.manager.is_some() {
                scope::unit_name(&id)
            } else {
                String::new()
            },
            control_group: stored.control_group,
            size_rw: None,
            size_root_fs: None,
            id,
            name,
            created,
        }
    }

    async fn add_sizes(&self, container: &mut Container) -> Result<()> {
        let rw = self.snapshot_size(&container.id).await?;
        let store = self.inner.store.clone();
        let image = container.image;
        let base = crate::blocking::run("the size could not be read", move || {
            store.image_size(&image)
        })
        .await?
        .unwrap_or(0);
        container.size_rw = Some(rw);
        container.size_root_fs = Some(base + rw);
        Ok(())
    }

    async fn snapshot_size(&self, id: &str) -> Result<u64> {
        let store = self.inner.store.clone();
        let id = id.to_owned();
        crate::blocking::run("the size could not be read", move || {
            store.snapshot_size(&id)
        })
        .await?
        .map_err(storage_error)
    }
}

/// The parsed filters.
struct Query<'a> {
    filters: &'a Filters,
    ancestors: Option<Vec<berth_model::digest::Digest>>,
    exited: Vec<i64>,
    statuses: Vec<&'a str>,
}

impl<'a> Query<'a> {
    fn parse(engine: &Engine, filters: &'a Filters) -> Result<Self> {
        let mut exited = Vec::new();
        for code in filters.get("exited") {
            exited.push(
                code.parse()
                    .map_err(|_| Error::invalid(format!("invalid filter 'exited={code}'")))?,
            );
        }
        let statuses: Vec<&str> = filters.get("status").collect();
        const KNOWN: [&str; 7] = [
            "created",
            "running",
            "paused",
            "restarting",
            "removing",
            "exited",
            "dead",
        ];
        if let Some(wrong) = statuses.iter().find(|status| !KNOWN.contains(status)) {
            return Err(Error::invalid(format!("invalid filter 'status={wrong}'")));
        }
        let ancestors = filters.contains("ancestor").then(|| {
            filters
                .get("ancestor")
                .filter_map(|name| Some(engine.inner.images.resolve(name).ok()?.id))
                .collect()
        });
        if filters.contains("is-task")
            && filters
                .flag("is-task", false)
                .map_err(|e| Error::invalid(e.to_string()))?
        {
            return Err(
                Error::invalid("is-task: this agent has no swarm").about(Subject::Container)
            );
        }
        Ok(Self {
            filters,
            ancestors,
            exited,
            statuses,
        })
    }

    fn admits(&self, record: &Record, status: Status) -> bool {
        let filters = self.filters;
        let any = |key: &str, test: &dyn Fn(&str) -> bool| {
            !filters.contains(key) || filters.get(key).any(test)
        };
        let state = &record.stored.state;
        let body = &record.body;
        let network = match body.spec.host.network_mode.as_str() {
            "" | "default" => "bridge",
            other => other,
        };
        any("id", &|id| record.id.starts_with(id))
            && any("name", &|name| name_matches(&record.name, name))
            && filters.pairs("label", &body.config.labels)
            && (self.statuses.is_empty() || self.statuses.contains(&status.as_str()))
            && (self.exited.is_empty()
                || status == Status::Exited && self.exited.contains(&state.exit_code))
            && self.ancestors.as_ref().is_none_or(|ids| ids.contains(&body.image))
            && any("network", &|name| network == name)
            && any("volume", &|path| body.mounts.iter().any(|m| m.destination == path || m.source == path))
            && any("expose", &|port| body.config.exposed_ports.iter().any(|p| p == port || p.split('/').next() == Some(port)))
            // Nothing is published and nothing is health-checked yet.
            && any("publish", &|_| false)
            && any("health", &|health| health == "none")
            && any("isolation", &|isolation| isolation == "default")
    }
}

/// Docker matches a regular expression anywhere in `/name`; the forms that people type are a part of the
/// name, and anchors. Other characters stand for themselves.
fn name_matches(name: &str, pattern: &str) -> bool {
    let (from_start, pattern) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (to_end, pattern) = match pattern.strip_suffix('$') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    match (from_start, to_end) {
        (true, true) => name == pattern,
        (true, false) => name.starts_with(pattern),
        (false, true) => name.ends_with(pattern),
        (false, false) => name.contains(pattern),
    }
}

#[cfg(test)]
mod tests {
    use super::name_matches;

    #[test]
    fn names_match_as_people_type_them() {
        assert!(name_matches("web-1", "web"));
        assert!(name_matches("web-1", "^/web-1$"));
        assert!(!name_matches("web-10", "^web-1$"));
        assert!(name_matches("my-web", "web$"));
    }
}
