//! The words that both sides of the API share: references, digests, image formats, sizes, times,
//! filters, names. Parsing and formatting only: nothing here touches a file, a socket or the kernel.

pub mod digest;
pub mod duration;
pub mod filters;
pub mod ids;
pub mod image;
pub mod mux;
pub mod names;
pub mod reference;
pub mod signal;
pub mod size;
pub mod time;
