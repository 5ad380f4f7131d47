//! Runs one input of a target on a small stack, with limits on memory and processor time.
//!
//! The checks decide if the output is correct. The limits are the same for all checks, so they are here: a bounded
//! stack, bounded memory, and time that is linear in the input.

use std::{
    env,
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{LazyLock, Mutex, PoisonError},
    thread,
    time::Duration,
};

use peak_alloc::PeakAlloc;
use rustix::time::{ClockId, clock_gettime};

/// The stack size. A runtime thread has eight times as much, and Python's main thread 32 times. But a debug build of a
/// dependency uses more than a release build.
const STACK: usize = 256 << 10;
/// The most memory in addition to what was held before. An input expands to 1 MiB at most, and there are a few copies.
const MEMORY: usize = 64 << 20;
/// The most processor time, which does not count other processes. One MiB takes a twentieth of it if the work is
/// linear, and about ten times as much as this if each of a thousand levels reads the rest again.
const TIME: Duration = Duration::from_secs(2);

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The file that keeps the input while it runs: a stack overflow ends the process without a report.
static KEPT: LazyLock<Option<Mutex<File>>> =
    LazyLock::new(|| Some(Mutex::new(File::create(env::var_os("FUZZ_KEEP")?).expect("a file for the input"))));

/// Runs a check on an input.
///
/// # Panics
/// The check fails, or exceeds a limit.
pub fn run(check: fn(&[u8]), input: &[u8]) {
    if let Some(kept) = &*KEPT {
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.set_len(input.len() as u64).and_then(|()| kept.write_all_at(input, 0)).expect("the input is kept");
    }
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let time = thread::scope(|scope| {
        let timed = || {
            check(input);
            clock_gettime(ClockId::ThreadCPUTime)
        };
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, timed);
        thread.expect("a thread").join().expect("a panic ends the process")
    });
    let held = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(held <= MEMORY, "the check held {} MiB", held >> 20);
    let time = Duration::try_from(time).unwrap_or_default();
    assert!(time <= TIME, "the check took {time:?} of processor time");
}
