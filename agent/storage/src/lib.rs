//! Bytes at rest: images and their layers, containers' writable layers, and the archives in which
//! images travel.
//!
//! Blocking code throughout; callers give it threads. It knows nothing of containers, names of images
//! (tags are the engine's) or registries, and decides no policy: what may be removed and when is
//! asked for from above. What comes from outside is bounded ([`limits`]), verified while it is
//! written, and never resolved as a path of the host.
//!
//! - [`Store`]: opening, images, sweeping (`store.rs`), snapshots (`snapshots.rs`), load, import and
//!   save (`image/`)
//! - `archive/`: reading and unpacking tar archives, deletions, recipes from which they are rebuilt
//! - `layers.rs`, `content.rs`: what is on disk, and how it gets its name
//! - `driver/`: how layers are stacked
//! - `state.rs`: who needs which layer

mod archive;
mod content;
mod driver;
mod error;
mod image;
mod init_layer;
mod layers;
pub mod limits;
mod root;
mod snapshots;
mod state;
mod store;
mod trash;
mod tree;

pub use driver::MountOptions;
pub use error::{Error, ErrorKind, Result};
pub use image::import::ImportConfig;
pub use image::load::{LoadedImage, Progress};
pub use image::save::SaveImage;
pub use store::{Collected, Store};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
