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

/// Keeps the allocator to `count` arenas. By default each new thread gets one of its own, up to eight
/// per processor, and what is freed in one is of no use to another.
///
/// To be called before the first thread is made.
#[allow(unsafe_code)]
pub fn limit_arenas(count: i32) {
    // SAFETY: glibc's mallopt takes two numbers and its own lock.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, count);
    }
}
