//! Opens a URL in the user's browser.
//!
//! Rules: no shell sees the URL, because a server supplied part of it; only http and https; the browser does not
//! inherit this process's stdin and stdout, which carry JSON-RPC.

use std::{io, process::Stdio};

use tokio::process::Command;
use url::Url;

/// Asks the system to open the URL. Does not wait for the browser.
///
/// # Errors
/// There is no browser, or it cannot be started.
pub(crate) fn open(url: &str) -> io::Result<()> {
    let parsed = Url::parse(url).map_err(io::Error::other)?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not an http or https URL"));
    }
    let mut command = opener()?;
    command.arg(parsed.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // The runtime reaps the child.
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
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    // Without a display, xdg-open would look for a browser that runs in a terminal.
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
    async fn browser_opens_only_http_and_https_urls() {
        for url in ["file:///etc/passwd", "javascript:alert(1)", "-x", "ssh://host/", ""] {
            assert!(open(url).is_err(), "{url}");
        }
    }
}
