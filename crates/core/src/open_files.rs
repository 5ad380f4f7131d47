//! How many files and connections this process may have open at once.

use std::io;

/// What a bridge needs at most: its connections, and a file for each large message on its way.
#[cfg(unix)]
const ENOUGH: u64 = 4096;

/// Lets the process have as many files and connections open as a bridge may need, if the system lets it raise that limit by
/// itself. macOS gives 256 to begin with.
pub fn raise_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let wanted = ENOUGH.min(maximum.unwrap_or(ENOUGH));
        if current.is_some_and(|current| current < wanted) {
            // Without that it goes on as it is, and says so when it matters.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
        }
    }
}

/// Whether this error says that the process, or the system, has as many open as it may.
pub(crate) fn are_used_up(error: &io::Error) -> bool {
    #[cfg(unix)]
    let codes = [rustix::io::Errno::MFILE.raw_os_error(), rustix::io::Errno::NFILE.raw_os_error()];
    // WSAEMFILE, and ERROR_TOO_MANY_OPEN_FILES.
    #[cfg(windows)]
    let codes = [10024, 4];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
