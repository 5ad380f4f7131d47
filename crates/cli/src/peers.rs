//! The command lines of other bridges, so that a configuration which was made for one of them starts this one: each of their
//! options becomes ours, is left out with a note, or is refused with what to use.
//!
//! Rule: what means the same here does the same, what means nothing here is said once at `info`, and nothing is ignored that
//! would make the bridge do something else than the user wants.

use std::{cell::LazyCell, ffi::OsString, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{ArgAction, CommandFactory as _};
use serde_json::Value;

use crate::{
    args::Args,
    files::{self, Time},
};

/// A command line in our own options.
#[derive(Debug, Default)]
pub(crate) struct Translated {
    pub(crate) args: Vec<OsString>,
    /// Variables that some of the options stand for.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// What was left out, and why.
    pub(crate) notes: Vec<String>,
    user: Option<String>,
    password: Option<String>,
}

/// What an option of a peer's means here.
enum Meaning {
    /// This option of ours, with its value.
    Same(&'static str),
    /// These words of ours, in the place of its values.
    Words(&'static [&'static str]),
    /// Nothing, for this reason.
    Nothing(&'static str),
    /// It cannot be done; this is what to use.
    Refused(&'static str),
    Sse,
    BearerToken,
    LogLevel,
    Output,
    /// A name and a value that follow each other.
    Header,
    ClientInfo,
    ClientMetadata,
    /// A silence in seconds, 0 for any.
    Silence,
    /// The same in milliseconds.
    SilenceInMilliseconds,
    /// fastmcp-remote's modes beside our own values.
    Authorization,
    /// Whether to check certificates, or a file of them.
    Verification,
    /// One of two that make Basic credentials together.
    User,
    Password,
    Secret,
}

/// Options of mcp-remote, fastmcp-remote, supergateway, mcp-proxy and Tidewave's proxy, with the number of their values.
const OPTIONS: &[(&str, usize, Meaning)] = &[
    ("--allow-http", 0, Meaning::Nothing("http is allowed anyway")),
    ("--debug", 0, Meaning::Words(&["--log-level", "debug"])),
    ("--silent", 0, Meaning::Words(&["--log-level", "off"])),
    ("--enable-proxy", 0, Meaning::Nothing("the system's proxies are used anyway")),
    ("--auth-timeout", 1, Meaning::Same("--login-wait")),
    ("--host", 1, Meaning::Same("--callback-host")),
    ("--static-oauth-client-info", 1, Meaning::ClientInfo),
    ("--static-oauth-client-metadata", 1, Meaning::ClientMetadata),
    ("--auth-success-url", 1, Meaning::Nothing("the browser shows the bridge's own page")),
    ("--body-timeout", 1, Meaning::Silence),
    ("--headers-timeout", 1, Meaning::Nothing("--timeout limits any silence")),
    ("--device-code", 0, Meaning::Same("--device")),
    ("--disable-resource-parameter", 0, Meaning::Words(&["--resource", "none"])),
    (
        "--disable-cookies",
        0,
        Meaning::Refused("the server's cookies go back to it, as load balancers want; leave it out"),
    ),
    ("--ipv4", 0, Meaning::Nothing("addresses of both kinds are tried, the next one while the first is silent")),
    ("--keep-alive", 0, Meaning::Nothing("a session that the server has forgotten is set up again unasked")),
    ("--ping-interval", 1, Meaning::Nothing("a session that the server has forgotten is set up again unasked")),
    ("--protocol", 1, Meaning::Nothing("the bridge finds out which protocol the server speaks")),
    ("--token-endpoint", 1, Meaning::Refused("the authorization server's metadata says it; leave it out")),
    ("--use-id-token", 0, Meaning::Refused("only access tokens are sent; --auth-command can print another")),
    ("--auth", 1, Meaning::Authorization),
    ("--verify", 1, Meaning::Verification),
    ("--streamableHttp", 1, Meaning::Same("--url")),
    ("--sse", 1, Meaning::Sse),
    ("--oauth2Bearer", 1, Meaning::BearerToken),
    ("--logLevel", 1, Meaning::LogLevel),
    ("--outputTransport", 1, Meaning::Output),
    ("--protocolVersion", 1, Meaning::Nothing("the client says which version it speaks")),
    ("--stdio", 1, Meaning::Refused("it starts no local server; have the client do that")),
    ("-H", 2, Meaning::Header),
    ("--headers", 2, Meaning::Header),
    ("--no-verify-ssl", 0, Meaning::Words(&["--insecure"])),
    ("--client-secret", 1, Meaning::Secret),
    ("--token-url", 1, Meaning::Refused("the authorization server's metadata says it; leave it out")),
    ("--username", 1, Meaning::User),
    ("--password", 1, Meaning::Password),
    ("--digest", 0, Meaning::Refused("Digest is not known; use --auth or --auth-command")),
    ("--named-server", 2, Meaning::Refused("it starts no local server; have the client do that")),
    ("--max-disconnected-time", 1, Meaning::Nothing("each request says how long it waits: --timeout, --max-time")),
    ("--receive-timeout", 1, Meaning::SilenceInMilliseconds),
    ("--override-protocol-version", 1, Meaning::Nothing("the client says which version it speaks")),
];

/// Puts our options in the place of the peers'. `args` begin with the program's name.
///
/// # Errors
/// What cannot be done, in one line that says what to use.
pub(crate) fn translated(args: Vec<OsString>) -> Result<Translated, String> {
    // Only a second word, which is mcp-remote's port, makes it necessary to know which options of ours have values.
    let may_have_port = args.iter().skip(1).any(|arg| arg.to_str().is_some_and(is_port));
    let mut args = args.into_iter();
    let mut translated = Translated { args: args.next().into_iter().collect(), ..Translated::default() };
    let command = LazyCell::new(Args::command);
    let takes_value = |option: &str| {
        let name = option.trim_start_matches('-');
        let own = command.get_arguments().find(|arg| {
            arg.get_long_and_visible_aliases().is_some_and(|names| names.contains(&name))
                || arg.get_all_aliases().is_some_and(|names| names.contains(&name))
        });
        own.is_some_and(|arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append))
    };
    let mut positions = 0;
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str() else {
            translated.args.push(arg);
            continue;
        };
        let (option, inline) = match text.split_once('=') {
            Some((option, value)) if text.starts_with('-') => (option, Some(value.to_owned())),
            _ => (text, None),
        };
        if let Some((name, count, meaning)) = OPTIONS.iter().find(|(name, ..)| *name == option) {
            let mut values: Vec<String> = inline.into_iter().collect();
            // `-H 'Name: value'`, as other programs write it.
            let is_enough = |values: &[String]| {
                values.len() >= *count
                    || matches!(meaning, Meaning::Header) && values.first().is_some_and(|value| value.contains(':'))
            };
            while !is_enough(&values) {
                let value = args.next().and_then(|value| value.into_string().ok());
                values.push(value.ok_or_else(|| format!("{name} needs a value (see mcp-gangway --help)"))?);
            }
            translated.put(name, meaning, &values)?;
            continue;
        }
        if !option.starts_with('-') {
            positions += 1;
            if positions == 2 && is_port(text) && cfg!(feature = "oauth") {
                // mcp-remote's second word.
                translated.extend(&["--callback-port", text]);
                continue;
            }
        }
        let has_value = may_have_port && inline.is_none() && option.starts_with("--") && takes_value(option);
        translated.args.push(arg);
        if has_value {
            translated.args.extend(args.next());
        }
    }
    translated.complete();
    Ok(translated)
}

impl Translated {
    fn extend(&mut self, words: &[&str]) {
        self.args.extend(words.iter().map(OsString::from));
    }

    fn put(&mut self, name: &str, meaning: &Meaning, values: &[String]) -> Result<(), String> {
        let value = values.first().map_or("", String::as_str);
        match meaning {
            Meaning::Same(option) if values.is_empty() => self.extend(&[option]),
            Meaning::Same(option) => self.extend(&[option, value]),
            // Any silence is so long that nobody waits for its end.
            Meaning::Silence => self.extend(&["--timeout", if value == "0" { "1000000000" } else { value }]),
            Meaning::SilenceInMilliseconds => {
                let seconds = value.parse::<f64>().map(|milliseconds| milliseconds / 1000.0);
                let seconds = seconds.map_err(|_| format!("{name}: this is no number of milliseconds"))?;
                self.extend(&["--timeout", &seconds.to_string()]);
            }
            Meaning::Authorization => match value {
                "oauth" => {
                    self.notes.push(format!("{name} oauth means nothing here: it is so where the server asks for it"));
                }
                "none" => self.extend(&["--no-oauth"]),
                value => self.extend(&["--auth", value]),
            },
            Meaning::Verification => match value.trim().to_ascii_lowercase().as_str() {
                "false" | "0" | "no" | "off" => self.extend(&["--insecure"]),
                "true" | "1" | "yes" | "on" => {}
                _ => self.extend(&["--ca-cert", value]),
            },
            Meaning::User => self.user = Some(value.to_owned()),
            Meaning::Password => self.password = Some(value.to_owned()),
            Meaning::Secret => {
                self.extend(&["--client-credentials"]);
                self.take_secret(name, value);
            }
            Meaning::Words(words) => self.extend(words),
            Meaning::Nothing(why) => self.notes.push(format!("{name} means nothing here: {why}")),
            Meaning::Refused(instead) => return Err(format!("{name} cannot be done: {instead}")),
            Meaning::Sse => self.extend(&["--url", value, "--transport", "sse-first"]),
            Meaning::BearerToken => self.extend(&["--auth", &format!("Bearer {value}")]),
            Meaning::LogLevel => self.extend(&["--log-level", if value == "none" { "off" } else { value }]),
            Meaning::Output if value == "stdio" => {}
            Meaning::Output => return Err(format!("{name} cannot be done: mcp-gangway speaks stdio to its client")),
            Meaning::Header => match values {
                [name, value] => self.extend(&["--header", &format!("{name}: {value}")]),
                _ => self.extend(&["--header", value]),
            },
            Meaning::ClientInfo => {
                let info = json(name, value)?;
                let id = text(&info, "client_id").ok_or_else(|| format!("{name}: there is no client_id in it"))?;
                // Where mcp-remote has the browser come back to, which is what was registered.
                self.extend(&["--client-id", id, "--callback-path", "/oauth/callback"]);
                if !self.args.iter().any(|arg| arg == "--callback-host") {
                    self.extend(&["--callback-host", "localhost"]);
                }
                if let Some(secret) = text(&info, "client_secret") {
                    self.take_secret(name, secret);
                }
            }
            Meaning::ClientMetadata => {
                let metadata = json(name, value)?;
                if let Some(scope) = text(&metadata, "scope") {
                    self.extend(&["--scope", scope]);
                }
                self.notes.push(format!("{name}: of this only the scope means something here"));
            }
        }
        Ok(())
    }

    fn take_secret(&mut self, name: &str, secret: &str) {
        self.variables.push(("MCP_CLIENT_SECRET", secret.to_owned()));
        self.notes.push(format!("{name}: others on this machine may see the secret; use MCP_CLIENT_SECRET"));
    }

    /// What takes more than one option to say.
    fn complete(&mut self) {
        let (user, password) = (self.user.take(), self.password.take());
        if user.is_some() || password.is_some() {
            let pair = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
            self.extend(&["--auth", &format!("Basic {}", STANDARD.encode(pair))]);
        }
    }
}

/// JSON from the command line, or with `@` from a file.
fn json(name: &str, value: &str) -> Result<Value, String> {
    let text = match value.strip_prefix('@') {
        Some(path) => files::read_text(name, Path::new(path), Time::First).map_err(|error| error.to_string())?,
        None => value.to_owned(),
    };
    serde_json::from_str(&text).map_err(|_| format!("{name}: this is no JSON; write it like '{{\"client_id\":\"…\"}}'"))
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

fn text<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Result<Translated, String> {
        translated([&["mcp-gangway"], args].concat().iter().map(OsString::from).collect())
    }

    #[test]
    fn the_peers_words_become_ours() {
        for (theirs, ours) in [
            (
                &["https://a/mcp", "3334", "--allow-http", "--debug"][..],
                &["https://a/mcp", "--callback-port", "3334", "--log-level", "debug"][..],
            ),
            (
                &["https://a/mcp", "--header", "A: ${B}", "--transport", "http-first", "--host", "::1"],
                &["https://a/mcp", "--header", "A: ${B}", "--transport", "http-first", "--callback-host", "::1"],
            ),
            (
                &["https://a/mcp", "--auth-timeout", "60", "--resource", "https://a/"],
                &["https://a/mcp", "--login-wait", "60", "--resource", "https://a/"],
            ),
            (
                &["--streamableHttp", "https://a/mcp", "--logLevel=none"],
                &["--url", "https://a/mcp", "--log-level", "off"],
            ),
            (
                &["--sse", "https://a/sse", "--oauth2Bearer", "t", "--outputTransport", "stdio"],
                &["--url", "https://a/sse", "--transport", "sse-first", "--auth", "Bearer t"],
            ),
            (
                &["-H", "Authorization", "Bearer t", "https://a/mcp"],
                &["--header", "Authorization: Bearer t", "https://a/mcp"],
            ),
            (&["-H", "A: b", "https://a/mcp"], &["--header", "A: b", "https://a/mcp"]),
            (
                &["--headers", "A", "b", "--no-verify-ssl", "https://a/mcp"],
                &["--header", "A: b", "--insecure", "https://a/mcp"],
            ),
            (
                &["https://a/mcp", "--ignore-tool", "delete_*", "--device-code", "--disable-resource-parameter"],
                &["https://a/mcp", "--ignore-tool", "delete_*", "--device", "--resource", "none"],
            ),
            (
                &["https://a/mcp", "--auth", "none", "--verify", "False", "--body-timeout", "0", "--protocol", "auto"],
                &["https://a/mcp", "--no-oauth", "--insecure", "--timeout", "1000000000"],
            ),
            (
                &["https://a/mcp", "--auth", "oauth", "--verify=/ca.pem", "--receive-timeout", "2500", "--debug"],
                &["https://a/mcp", "--ca-cert", "/ca.pem", "--timeout", "2.5", "--log-level", "debug"],
            ),
            (
                &["--password", "p:w", "--username", "u", "https://a/mcp", "--max-disconnected-time", "5"],
                &["https://a/mcp", "--auth", "Basic dTpwOnc="],
            ),
            (&["https://a/mcp", "--auth", "Bearer t"], &["https://a/mcp", "--auth", "Bearer t"]),
            (&["--timeout", "60", "https://a/mcp"], &["--timeout", "60", "https://a/mcp"]),
            (
                &["--static-oauth-client-metadata", r#"{"scope":"a b"}"#, "https://a/mcp"],
                &["--scope", "a b", "https://a/mcp"],
            ),
        ] {
            let translated = of(theirs).unwrap();
            assert_eq!(translated.args[1..], ours.iter().map(OsString::from).collect::<Vec<_>>(), "{theirs:?}");
        }
    }

    #[test]
    fn what_is_left_out_is_told_and_what_cannot_be_is_refused() {
        assert!(of(&["https://a/mcp", "--enable-proxy"]).unwrap().notes[0].contains("--enable-proxy"));
        assert!(of(&["https://a/mcp", "--use-id-token"]).unwrap_err().contains("--auth-command"));
        assert!(of(&["https://a/mcp", "--receive-timeout", "soon"]).unwrap_err().contains("milliseconds"));
        assert!(of(&["--stdio", "npx x"]).unwrap_err().contains("--stdio"));
        assert!(of(&["--outputTransport", "sse"]).unwrap_err().contains("stdio"));
        assert!(of(&["-H", "A"]).unwrap_err().contains("needs a value"));
        assert!(of(&["--static-oauth-client-info", "{}"]).unwrap_err().contains("client_id"));
        assert!(of(&["--static-oauth-client-info", "hunter2"]).is_err_and(|error| !error.contains("hunter2")));
    }

    #[test]
    fn a_secret_becomes_a_variable() {
        let translated =
            of(&["https://a/mcp", "--static-oauth-client-info", r#"{"client_id":"c","client_secret":"s"}"#]);
        let translated = translated.unwrap();
        let expected = ["--client-id", "c", "--callback-path", "/oauth/callback", "--callback-host", "localhost"];
        assert_eq!(translated.args[2..], expected.map(OsString::from));
        assert_eq!(translated.variables, [("MCP_CLIENT_SECRET", "s".to_owned())]);
        let translated = of(&["https://a/mcp", "--client-id", "c", "--client-secret", "s"]).unwrap();
        assert_eq!(translated.args[2..], ["--client-id", "c", "--client-credentials"].map(OsString::from));
        assert_eq!(translated.variables, [("MCP_CLIENT_SECRET", "s".to_owned())]);
    }
}
