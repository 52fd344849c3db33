//! What an image is made of: its configuration and the manifests that lead to it. Bytes that came
//! from outside are kept as they came; these are views of them, never the source for writing them anew.

pub mod config;
mod lenient;
pub mod manifest;
