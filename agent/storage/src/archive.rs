//! Tar archives from outside: reading them within bounds, unpacking a layer so that nothing can
//! leave its directory, and giving back byte for byte what was unpacked.
//!
//! Members are read by a reader of our own (over the `tar` crate's header layout), because that
//! crate's iterator reads extended headers of any size into memory, splits their records at
//! newlines that binary attributes contain, and does not know the sparse formats of pax.

pub(crate) mod compress;
pub(crate) mod confine;
pub(crate) mod lower;
pub(crate) mod names;
pub(crate) mod pax;
pub(crate) mod pump;
pub(crate) mod reader;
pub(crate) mod rebuild;
pub(crate) mod recipe;
pub(crate) mod sparse;
pub(crate) mod times;
pub(crate) mod unpack;
pub(crate) mod whiteout;
pub(crate) mod write;
