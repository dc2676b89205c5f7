//! Panics: each is a defect. Told in the log where it happens, counted, and no more: who waits for the thread or the
//! task deals with it.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// From here on panics are counted, and told as events of the log.
pub(super) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
            let why = info.payload_as_str().unwrap_or_default();
            tracing::error!(place, thread, "a defect: please report it with this line: {why}");
        }));
    });
}

/// Panics since the start of this process.
#[must_use]
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}
