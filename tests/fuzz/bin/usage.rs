#![no_main]

use peak_alloc::PeakAlloc;
use tidegate::spool::segment::RAW_LIMIT;
use tidegate_fuzz::usage::{received, run, sent};

/// What checking a file may take beside its bytes: what is in it, and its dictionaries with the room that they grow by.
const MEMORY: usize = RAW_LIMIT + (4 << 20);

/// What Rust takes; what zstd takes, libFuzzer's own limits see.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(file) = sent(bytes) {
        let before = HEAP.current_usage();
        HEAP.reset_peak_usage();
        let taken = received(&file);
        let most = HEAP.peak_usage().saturating_sub(before);
        assert!(most <= MEMORY, "{most} bytes for a file of {} (taken: {taken})", file.len());
    }
    run(bytes);
});
