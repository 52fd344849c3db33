//! This process's own memory.

/// Gives memory that has been freed back to the kernel.
///
/// For a process that has just done its big work and will now sleep for a long time.
#[allow(unsafe_code)]
pub fn trim() {
    // SAFETY: glibc's malloc_trim takes its own locks and touches free memory only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
