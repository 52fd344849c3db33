//! Docker's JSON to and from the engine's words, for every API version from 1.0 to 1.51. What a
//! version shows, hides or calls differently is decided here and nowhere else; both faces use it.
//! Pure: no request is read and no answer sent here.
//!
//! The models of the `bollard-stubs` crate were tried for this and are used as the tests' oracle
//! only (every answer must decode as them): they describe one version; they cannot tell `null` from
//! absent, which clients of different ages need told apart; their enumerations refuse an unknown
//! word before Docker's own error text could be given; and they drop unknown keys, so that a request
//! for something that is not supported would be served without it.

pub mod container;
pub mod detach_keys;
pub mod error;
pub mod event;
pub mod image;
pub mod progress;
pub mod query;
pub mod system;
pub mod version;

mod fields;
mod shape;

pub use query::Query;
pub use version::ApiVersion;

#[cfg(test)]
mod samples;
