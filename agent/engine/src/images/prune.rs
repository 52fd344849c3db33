//! Prune: images that nobody names and nobody uses, and with `dangling=false` also named ones.

use berth_model::filters::Filters;
use berth_model::time::Timestamp;

use super::load::storage_error;
use crate::Engine;
use crate::error::{Error, Result};
use crate::types::PruneReport;

impl Engine {
    pub async fn image_prune(&self, filters: &Filters) -> Result<PruneReport> {
        let _busy = self.busy();
        let invalid = |e: &dyn std::fmt::Display| Error::invalid(e.to_string());
        filters
            .validate(crate::filters::IMAGES_PRUNED)
            .map_err(|e| invalid(&e))?;
        let dangling_only = filters.flag("dangling", true).map_err(|e| invalid(&e))?;
        let until = match filters.get("until").next() {
            Some(text) => Some(
                berth_model::time::parse_since(text, Timestamp::now())
                    .map_err(|e| Error::invalid(e.0))?,
            ),
            None => None,
        };
        let _change = self.inner.images.change.lock().await;
        let mut report = PruneReport::default();
        for id in self.inner.images.ids() {
            let references = self.inner.images.lock().references(&id);
            if dangling_only && !references.is_empty()
                || self.user_of(&id, true).is_some()
                || self.user_of(&id, false).is_some()
            {
                continue;
            }
            let config = self.inner.store.image_config(&id).map_err(storage_error)?;
            if until.is_some_and(|until| config.created.unwrap_or(Timestamp::ZERO) > until)
                || !filters.pairs("label", &config.config.labels)
                || filters.contains("label!") && filters.pairs("label!", &config.config.labels)
            {
                continue;
            }
            let size = self.inner.store.image_size(&id).map_err(storage_error)?;
            report
                .images
                .extend(self.untag(&id, &references, Some(&id)).await?);
            report.reclaimed += size;
        }
        self.inner.event(
            "image",
            "prune",
            "",
            [("reclaimed", report.reclaimed.to_string())],
        );
        Ok(report)
    }
}
