//! Rows of images and of the tags that point to them.

use rusqlite::params;

use super::{Database, Durability};
use crate::error::Result;

/// An image's row: id and when it came, in nanoseconds since the epoch.
pub(crate) type ImageRow = (String, i64);
/// A tag's row: canonical reference, image id, when it was set.
pub(crate) type TagRow = (String, String, i64);

impl Database {
    pub(crate) async fn images(&self) -> Result<(Vec<ImageRow>, Vec<TagRow>)> {
        self.read(|connection| {
            let images = connection
                .prepare("SELECT id, added FROM images")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            let tags = connection
                .prepare("SELECT reference, image, tagged FROM tags")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<Result<_, _>>()?;
            Ok((images, tags))
        })
        .await
    }

    /// Records an image and points `references` at it, in one step.
    pub(crate) async fn image_put(
        &self,
        id: String,
        references: Vec<String>,
        now: i64,
    ) -> Result<()> {
        self.write(Durability::Synced, move |t| {
            t.execute("INSERT INTO images(id, added) VALUES(?1, ?2) ON CONFLICT(id) DO NOTHING", params![id, now])?;
            for reference in references {
                t.execute(
                    "INSERT INTO tags(reference, image, tagged) VALUES(?1, ?2, ?3)
                     ON CONFLICT(reference) DO UPDATE SET image = excluded.image, tagged = excluded.tagged",
                    params![reference, id, now],
                )?;
            }
            Ok(())
        })
        .await
    }

    /// Takes tags away and, when `image` is named, the image with them.
    pub(crate) async fn image_delete(
        &self,
        references: Vec<String>,
        image: Option<String>,
    ) -> Result<()> {
        self.write(Durability::Synced, move |t| {
            for reference in references {
                t.execute("DELETE FROM tags WHERE reference = ?1", params![reference])?;
            }
            if let Some(id) = image {
                t.execute("DELETE FROM images WHERE id = ?1", params![id])?;
            }
            Ok(())
        })
        .await
    }
}
