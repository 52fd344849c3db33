//! Taking images away: a name, or the image with all its names, and never one that somebody uses.

use berth_model::digest::Digest;
use berth_model::reference::Reference;

use super::inspect::image_conflict;
use super::load::storage_error;
use crate::Engine;
use crate::error::Result;
use crate::types::ImageDeleted;

impl Engine {
    /// Docker's rules: a name is untagged; the last name, or an id, takes the image along unless a
    /// container uses it. `force` untags all and drops names that a stopped container uses.
    pub async fn image_remove(
        &self,
        name: &str,
        force: bool,
        _noprune: bool,
    ) -> Result<Vec<ImageDeleted>> {
        let _busy = self.busy();
        let _change = self.inner.images.change.lock().await;
        let resolved = self.inner.images.resolve(name)?;
        let references = self.inner.images.lock().references(&resolved.id);
        let short = resolved.id.short();
        let running = self.user_of(&resolved.id, true);
        let stopped = self.user_of(&resolved.id, false);
        match resolved.reference {
            Some(reference) if references.len() > 1 => {
                // Other names stay, and with them the image.
                self.untag(&resolved.id, std::slice::from_ref(&reference), None)
                    .await
            }
            Some(reference) => {
                if let Some(user) = running.as_ref().or(stopped.as_ref())
                    && !force
                {
                    return Err(image_conflict(format!(
                        "conflict: unable to remove repository reference \"{name}\" (must force) - \
                         container {} is using its referenced image {short}",
                        &user[..12]
                    )));
                }
                if running.is_some() || stopped.is_some() {
                    // Forced: the name goes, the image stays for its container.
                    return self.untag(&resolved.id, &[reference], None).await;
                }
                self.untag(&resolved.id, &[reference], Some(&resolved.id))
                    .await
            }
            None => {
                let mut repositories: Vec<String> =
                    references.iter().map(Reference::name).collect();
                repositories.dedup();
                if repositories.len() > 1 && !force {
                    return Err(image_conflict(format!(
                        "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
                    )));
                }
                if let Some(user) = running {
                    return Err(image_conflict(format!(
                        "conflict: unable to delete {short} (cannot be forced) - image is being used by running container {}",
                        &user[..12]
                    )));
                }
                if let Some(user) = stopped {
                    if !force {
                        return Err(image_conflict(format!(
                            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container {}",
                            &user[..12]
                        )));
                    }
                    return self.untag(&resolved.id, &references, None).await;
                }
                self.untag(&resolved.id, &references, Some(&resolved.id))
                    .await
            }
        }
    }

    /// Takes `references` away and deletes `image` when given. The caller holds the change lock.
    pub(crate) async fn untag(
        &self,
        id: &Digest,
        references: &[Reference],
        image: Option<&Digest>,
    ) -> Result<Vec<ImageDeleted>> {
        let names: Vec<String> = references.iter().map(Reference::canonical).collect();
        self.inner
            .db
            .image_delete(names.clone(), image.map(Digest::to_string))
            .await?;
        {
            let mut index = self.inner.images.lock();
            for name in &names {
                index.tags.remove(name);
            }
            if let Some(id) = image {
                index.images.remove(id);
            }
        }
        let mut done = Vec::new();
        for reference in references {
            let name = reference.familiar();
            self.inner
                .event("image", "untag", &id.to_string(), [("name", name.clone())]);
            done.push(ImageDeleted::Untagged(name));
        }
        if let Some(id) = image {
            let store = self.inner.store.clone();
            let gone = *id;
            crate::blocking::run("the removal failed", move || store.remove_image(&gone))
                .await?
                .map_err(storage_error)?;
            self.inner.event(
                "image",
                "delete",
                &id.to_string(),
                [("name", id.to_string())],
            );
            done.push(ImageDeleted::Deleted(id.to_string()));
        }
        Ok(done)
    }

    /// A container that uses the image and runs (or does not).
    pub(crate) fn user_of(&self, id: &Digest, running: bool) -> Option<String> {
        self.inner
            .containers
            .all()
            .into_iter()
            .find(|handle| {
                let record = handle.record();
                record.body.image == *id && record.status().is_live() == running
            })
            .map(|handle| handle.id.clone())
    }
}
