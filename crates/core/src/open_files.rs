//! The limit on open files and connections of this process.

use std::io;

/// The most that a bridge needs: its connections, and a file for each large message in transit.
#[cfg(unix)]
const WANTED_OPEN_FILES: u64 = 4096;

/// Raises the limit on open files and connections to what a bridge may need, as far as the system allows. macOS starts
/// with 256.
pub fn raise_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let wanted = WANTED_OPEN_FILES.min(maximum.unwrap_or(WANTED_OPEN_FILES));
        if current.is_some_and(|current| current < wanted) {
            // If this fails, the bridge keeps the old limit, and reports an error when it reaches it.
            let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
        }
    }
}

/// True if this error says that the process or the system has reached its limit.
pub(crate) fn are_used_up(error: &io::Error) -> bool {
    #[cfg(unix)]
    let codes = [rustix::io::Errno::MFILE.raw_os_error(), rustix::io::Errno::NFILE.raw_os_error()];
    // WSAEMFILE, and ERROR_TOO_MANY_OPEN_FILES.
    #[cfg(windows)]
    let codes = [10024, 4];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
