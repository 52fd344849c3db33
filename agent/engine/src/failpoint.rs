//! Named points at which a test can kill the agent, to see what a crash there leaves behind. They exist
//! only in builds with the `failpoints` feature; `BERTH_FAILPOINT=start.monitor:2` ends the process, as
//! a kill would, the second time that it comes by.

#[cfg(feature = "failpoints")]
pub(crate) fn hit(name: &str) {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: Mutex<Option<Option<(String, u64)>>> = Mutex::new(None);
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let armed = {
        let mut armed = ARMED
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        armed
            .get_or_insert_with(|| {
                std::env::var("BERTH_FAILPOINT")
                    .ok()
                    .map(|text| parse(&text))
            })
            .clone()
    };
    if let Some((point, nth)) = armed
        && point == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == nth
    {
        tracing::error!(point = name, "failpoint reached");
        // As a crash would: no drop, no flush, no answer.
        let _ = berth_sys::signal::kill(std::process::id().cast_signed(), 9);
    }
}

#[cfg(feature = "failpoints")]
fn parse(text: &str) -> (String, u64) {
    match text.rsplit_once(':') {
        Some((name, count)) => (name.to_owned(), count.parse().unwrap_or(1)),
        None => (text.to_owned(), 1),
    }
}

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn hit(_name: &str) {}
