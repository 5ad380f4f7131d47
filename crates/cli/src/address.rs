//! Finds the address of a server that writes down where it listens, in a file or by a command.
//!
//! The text is a URL, or only a port, which replaces the port of the URL that was given (`http://127.0.0.1/mcp` by
//! default).
//!
//! Rules: a file or command that has no address yet is no mistake, because the server may start later. An error does not
//! show the text.

use std::{path::PathBuf, sync::Arc};

use mcp_gangway_core::{Config, Error, TransportMode, UrlSource};
use tokio::task::spawn_blocking;
use url::Url;

use crate::{
    command::UserCommand,
    files::{self, Time},
    given::{Environment, Given, option_or, path_or},
    settings::endpoint,
};

/// The URL whose port is replaced if no URL was given.
pub(crate) const NOWHERE: &str = "http://127.0.0.1/mcp";

/// The file or command that has the address.
pub(crate) enum AddressSource {
    File(&'static str, PathBuf),
    Command(UserCommand, String),
}

impl AddressSource {
    /// Takes the option or variable that names a source.
    ///
    /// # Errors
    /// Both are given, or the command cannot be parsed.
    pub(crate) fn new(
        file: Option<PathBuf>,
        command: Option<String>,
        env: &Environment,
    ) -> Result<Option<Self>, Error> {
        let is_typed = file.is_some() || command.is_some();
        let (file, command) = if is_typed {
            (file.map(|path| ("--url-file", path)), command.map(|text| Given::new("--url-command", text)))
        } else {
            (path_or(None, "", env, "MCP_URL_FILE"), option_or(None, "", env, "MCP_URL_COMMAND")?)
        };
        match (file, command) {
            (Some(_), Some(_)) => {
                Err(Error::config("--url-file: there is --url-command as well; give only one of the two"))
            }
            (Some((from, path)), None) => Ok(Some(Self::File(from, path))),
            (None, Some(given)) => Ok(Some(Self::Command(UserCommand::new(&given.from, &given.text)?, given.text))),
            (None, None) => Ok(None),
        }
    }

    /// Returns the address to begin with, and the source of later ones. `base` is the URL whose port a port replaces.
    ///
    /// # Errors
    /// A file has a text that is no address.
    pub(crate) fn into_parts(self, base: Given, transport: TransportMode) -> Result<(Given, Option<UrlSource>), Error> {
        let url = base.text.clone();
        let (first, name) = match &self {
            Self::File(from, path) => {
                let text = files::read_text(from, path, Time::First).ok().filter(|text| !text.trim().is_empty());
                let first = text.map(|text| address(from, &text, &url, transport)).transpose()?;
                (first.map(|text| Given::new(*from, text)), format!("file {}", path.display()))
            }
            Self::Command(_, line) => (None, format!("command {line}")),
        };
        let before_first = first.is_none();
        let source = Arc::new(self);
        let load = move || -> mcp_gangway_core::LoadedUrl {
            let (source, url) = (Arc::clone(&source), url.clone());
            Box::pin(async move { source.load(&url, transport).await })
        };
        Ok((first.unwrap_or(base), Some(UrlSource::new(name, load, before_first))))
    }

    async fn load(&self, base: &str, transport: TransportMode) -> Result<String, Error> {
        let (from, text) = match self {
            Self::Command(command, _) => (command.from(), command.run().await?),
            Self::File(from, path) => {
                let (from, path) = (*from, path.clone());
                let read = spawn_blocking(move || files::read_text(from, &path, Time::Again)).await;
                (from, read.unwrap_or_else(|_| Err(Error::config("reading the address failed")))?)
            }
        };
        address(from, &text, base, transport)
    }
}

/// Returns the URL that a text means.
fn address(from: &str, text: &str, base: &str, transport: TransportMode) -> Result<String, Error> {
    let mistake = |what: &str| Error::config(format!("{from}: {what}"));
    let text = text.trim();
    let url = match text.parse::<u16>() {
        Ok(0) => return Err(mistake("the port is 0")),
        Ok(port) => {
            let mut url = Url::parse(base.trim()).map_err(|_| mistake("the URL has no place for the port"))?;
            url.set_port(Some(port)).map_err(|()| mistake("the URL has no place for the port"))?;
            url.to_string()
        }
        Err(_) => text.to_owned(),
    };
    let url = endpoint(&url, transport).unwrap_or(url);
    // The error would show the text, which may hold a secret.
    Config::new(&url).map_err(|_| mistake("the text is neither a URL, like http://127.0.0.1:8080/mcp, nor a port"))?;
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_or_the_port_of_one() {
        for (text, base, expected) in [
            (" http://h:1/x\r\n", NOWHERE, Some("http://h:1/x")),
            ("8080\n", NOWHERE, Some("http://127.0.0.1:8080/mcp")),
            ("8080", "https://localhost:1/a?b", Some("https://localhost:8080/a?b")),
            ("unix:/run/a.sock", NOWHERE, Some("unix:/run/a.sock")),
            ("0", NOWHERE, None),
            ("65536", NOWHERE, None),
            ("", NOWHERE, None),
            ("hunter2", NOWHERE, None),
            ("ftp://hunter2", NOWHERE, None),
            ("80", "unix:/run/a.sock", None),
        ] {
            let url = address("--url-file", text, base, TransportMode::Auto);
            assert_eq!(url.as_deref().ok(), expected, "{text}");
            assert!(!url.is_err_and(|error| error.to_string().contains("hunter2")), "{text}");
        }
    }
}
