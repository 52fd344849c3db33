//! What one caller can make the store spend. Each bound is here, once, with its reason; what goes
//! over it is an error that names the bound, never a silent cut.

/// Largest JSON document (manifest, index, configuration) that is read into memory.
pub const DOCUMENT_MAX: u64 = 4 * 1024 * 1024;
/// Largest extended header (pax record block, GNU long name) of one archive member.
pub const PAX_MAX: u64 = 1024 * 1024;
/// Longest name or link target of an archive member: what one openat2(2) takes.
pub const NAME_MAX: usize = 4096;
/// Longest single component of a name, as file systems have it.
pub const COMPONENT_MAX: usize = 255;
/// Deepest name of an archive member.
pub const DEPTH_MAX: usize = 1024;
/// Members of one layer.
pub const LAYER_ENTRIES_MAX: u64 = 5_000_000;
/// Members of an image archive itself: a few per layer and image.
pub const ARCHIVE_ENTRIES_MAX: usize = 100_000;
/// Data segments of one sparse file.
pub const SPARSE_SEGMENTS_MAX: usize = 100_000;
/// Largest window that a decoder may ask for: zstd's by its logarithm, xz's by its memory.
pub const WINDOW_LOG_MAX: u32 = 27;
/// The dictionary of [`WINDOW_LOG_MAX`] and what xz needs beside it.
pub const XZ_MEMORY_MAX: u64 = (128 + 8) * 1024 * 1024;
/// Layers of one image: what overlay mounts are tested with, and what Docker allows.
pub const LAYERS_MAX: usize = 127;
/// Images in one archive.
pub const IMAGES_MAX: usize = 1024;
/// Hops from link to link inside an archive, and from index to index.
pub const HOPS_MAX: usize = 32;
/// Attributes of one member that are kept.
pub const XATTRS_MAX: usize = 64;
/// Largest value of one attribute (the kernel's own limit).
pub const XATTR_VALUE_MAX: usize = 64 * 1024;
/// An unpacked layer may take this part of what the file system has free.
pub const SPACE_SHARE: u64 = 2;
