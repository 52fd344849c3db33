//! Images as they travel: archives of several kinds in, one kind out.

pub(crate) mod docker;
pub(crate) mod import;
pub(crate) mod legacy;
pub(crate) mod load;
pub(crate) mod oci;
pub(crate) mod plan;
pub(crate) mod save;
pub(crate) mod spool;
