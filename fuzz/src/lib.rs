//! How each target runs one input: on a small stack, and with limits on what it may hold and on what it may take.
//!
//! A check says whether what came out is right. Whether it came in a bounded stack, in bounded memory and in time that is
//! linear in the input is the same question for all of them, and stands here.

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

/// The stack. A thread of the runtime has eight times as much, and Python's main thread 32 times; but a debug build of a
/// dependency takes more than a release build.
const STACK: usize = 256 << 10;
/// The most memory beside what was held before. What an input stands for is 1 MiB at most, and is there a few times over.
const MEMORY: usize = 64 << 20;
/// The most time of a processor, which does not count what other processes take. A mebibyte takes a twentieth of it where
/// the work is linear, and where each of a thousand levels reads the rest again some ten times of it.
const TIME: Duration = Duration::from_secs(2);

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Where the input is kept while it runs, as a stack that overflows ends the process without a word.
static KEPT: LazyLock<Option<Mutex<File>>> =
    LazyLock::new(|| Some(Mutex::new(File::create(env::var_os("FUZZ_KEEP")?).expect("a file for the input"))));

/// Runs a check on an input.
///
/// # Panics
/// The check fails, or it needs too much.
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
    assert!(held <= MEMORY, "it held {} MiB", held >> 20);
    let time = Duration::try_from(time).unwrap_or_default();
    assert!(time <= TIME, "it took {time:?} of a processor");
}
