//! Opens a URL in the user's browser.
//!
//! Rules: no shell sees the URL, which a server had its part in; only http and https; the browser gets nothing of this
//! process's stdin and stdout, which belong to JSON-RPC.

use std::{env, io, process::Stdio};

use tokio::process::Command;
use url::Url;

/// Asks the system to show the URL. Nobody waits for the browser.
///
/// # Errors
/// There is no browser to be had, or it cannot be started.
pub(crate) fn open(url: &str) -> io::Result<()> {
    let parsed = Url::parse(url).map_err(io::Error::other)?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no web address"));
    }
    let mut command = opener()?;
    command.arg(parsed.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // The runtime sees to the child's end.
    command.spawn().map(drop)
}

#[cfg(target_os = "macos")]
fn opener() -> io::Result<Command> {
    Ok(Command::new("/usr/bin/open"))
}

#[cfg(windows)]
fn opener() -> io::Result<Command> {
    let mut command = Command::new("rundll32.exe");
    command.arg("url.dll,FileProtocolHandler");
    Ok(command)
}

#[cfg(not(any(target_os = "macos", windows)))]
fn opener() -> io::Result<Command> {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    // Without a display, xdg-open would look for a browser that runs in a terminal, which is not there either.
    if ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"].into_iter().any(is_set) {
        Ok(Command::new("xdg-open"))
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "there is no display"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_web_addresses_are_opened() {
        for url in ["file:///etc/passwd", "javascript:alert(1)", "-x", "ssh://host/", ""] {
            assert!(open(url).is_err(), "{url}");
        }
    }
}
