//! Accepts the command lines of other bridges, so that a configuration for one of them starts this one. Each of their
//! options is translated, is left out with a note, or is refused with an alternative.
//!
//! Rule: an option with the same meaning has the same effect; an option without a meaning here is noted once at
//! `info`; an option is never ignored if that would make the bridge do something else than the user wants.

use std::{cell::LazyCell, ffi::OsString, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{ArgAction, CommandFactory as _};
use serde_json::Value;

use crate::{
    args::Args,
    files::{self, Time},
};

/// A command line translated to our own options.
#[derive(Debug, Default)]
pub(crate) struct Translated {
    pub(crate) args: Vec<OsString>,
    /// Environment variables that some of the options stand for.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// The options that were left out, and why.
    pub(crate) notes: Vec<String>,
    user: Option<String>,
    password: Option<String>,
}

/// The meaning of another bridge's option.
enum Meaning {
    /// Our option of this name, with the same value.
    Same(&'static str),
    /// Our arguments, instead of the option and its values.
    Words(&'static [&'static str]),
    /// No meaning, for this reason.
    Nothing(&'static str),
    /// Unsupported. The text names the alternative.
    Refused(&'static str),
    Sse,
    BearerToken,
    LogLevel,
    Output,
    /// A name and a value, as two arguments.
    Header,
    ClientInfo,
    ClientMetadata,
    /// An idle timeout in seconds; 0 means no limit.
    Silence,
    /// An idle timeout in milliseconds.
    SilenceInMilliseconds,
    /// fastmcp-remote's modes, in addition to our own values.
    Authorization,
    /// A flag whether to check certificates, or a file with certificates.
    Verification,
    /// Together with `Password`, gives Basic credentials.
    User,
    Password,
    Secret,
}

/// Options of mcp-remote, fastmcp-remote, supergateway, mcp-proxy and Tidewave's proxy, each with its number of
/// values.
const OPTIONS: &[(&str, usize, Meaning)] = &[
    ("--allow-http", 0, Meaning::Nothing("http is allowed anyway")),
    ("--debug", 0, Meaning::Words(&["--log-level", "debug"])),
    ("--silent", 0, Meaning::Words(&["--log-level", "off"])),
    ("--enable-proxy", 0, Meaning::Nothing("the system's proxies are used anyway")),
    ("--auth-timeout", 1, Meaning::Same("--login-wait")),
    ("--host", 1, Meaning::Same("--callback-host")),
    ("--static-oauth-client-info", 1, Meaning::ClientInfo),
    ("--static-oauth-client-metadata", 1, Meaning::ClientMetadata),
    ("--auth-success-url", 1, Meaning::Nothing("the browser always shows the bridge's own page")),
    ("--body-timeout", 1, Meaning::Silence),
    ("--headers-timeout", 1, Meaning::Nothing("--timeout limits how long the server may be silent")),
    ("--device-code", 0, Meaning::Same("--device")),
    ("--disable-resource-parameter", 0, Meaning::Words(&["--resource", "none"])),
    (
        "--disable-cookies",
        0,
        Meaning::Refused("cookies are always sent back, because load balancers need them; leave it out"),
    ),
    ("--ipv4", 0, Meaning::Nothing("IPv4 and IPv6 addresses are both tried")),
    ("--keep-alive", 0, Meaning::Nothing("a lost session is set up again automatically")),
    ("--ping-interval", 1, Meaning::Nothing("a lost session is set up again automatically")),
    ("--protocol", 1, Meaning::Nothing("the bridge detects the server's protocol")),
    ("--token-endpoint", 1, Meaning::Refused("it comes from the authorization server's metadata; leave it out")),
    ("--use-id-token", 0, Meaning::Refused("only access tokens are sent; --auth-command can print another")),
    ("--auth", 1, Meaning::Authorization),
    ("--verify", 1, Meaning::Verification),
    ("--streamableHttp", 1, Meaning::Same("--url")),
    ("--sse", 1, Meaning::Sse),
    ("--oauth2Bearer", 1, Meaning::BearerToken),
    ("--logLevel", 1, Meaning::LogLevel),
    ("--outputTransport", 1, Meaning::Output),
    ("--protocolVersion", 1, Meaning::Nothing("the client chooses the version")),
    ("--stdio", 1, Meaning::Refused("mcp-gangway starts no local servers; let the client do that")),
    ("-H", 2, Meaning::Header),
    ("--headers", 2, Meaning::Header),
    ("--no-verify-ssl", 0, Meaning::Words(&["--insecure"])),
    ("--client-secret", 1, Meaning::Secret),
    ("--token-url", 1, Meaning::Refused("it comes from the authorization server's metadata; leave it out")),
    ("--username", 1, Meaning::User),
    ("--password", 1, Meaning::Password),
    ("--digest", 0, Meaning::Refused("Digest is not supported; use --auth or --auth-command")),
    ("--named-server", 2, Meaning::Refused("mcp-gangway starts no local servers; let the client do that")),
    ("--max-disconnected-time", 1, Meaning::Nothing("use --timeout and --max-time, which limit each request")),
    ("--receive-timeout", 1, Meaning::SilenceInMilliseconds),
    ("--override-protocol-version", 1, Meaning::Nothing("the client chooses the version")),
];

/// Translates other bridges' options to ours. `args` starts with the program's name.
///
/// # Errors
/// An option is unsupported. The text is one line that names the alternative.
pub(crate) fn translated(args: Vec<OsString>) -> Result<Translated, String> {
    // Which of our options have values matters only if there may be a second positional argument, mcp-remote's port.
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
            // Other programs write `-H 'Name: value'`.
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
                // mcp-remote's second positional argument.
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
            // No limit: use a timeout that is never reached.
            Meaning::Silence => self.extend(&["--timeout", if value == "0" { "1000000000" } else { value }]),
            Meaning::SilenceInMilliseconds => {
                let seconds = value.parse::<f64>().map(|milliseconds| milliseconds / 1000.0);
                let seconds = seconds.map_err(|_| format!("{name}: this is not a number of milliseconds"))?;
                self.extend(&["--timeout", &seconds.to_string()]);
            }
            Meaning::Authorization => match value {
                "oauth" => {
                    self.notes.push(format!("{name} oauth is ignored: sign-in happens if the server asks for it"));
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
            Meaning::Nothing(why) => self.notes.push(format!("{name} is ignored: {why}")),
            Meaning::Refused(instead) => return Err(format!("{name} is not supported: {instead}")),
            Meaning::Sse => self.extend(&["--url", value, "--transport", "sse-first"]),
            Meaning::BearerToken => self.extend(&["--auth", &format!("Bearer {value}")]),
            Meaning::LogLevel => self.extend(&["--log-level", if value == "none" { "off" } else { value }]),
            Meaning::Output if value == "stdio" => {}
            Meaning::Output => return Err(format!("{name} is not supported: clients connect over stdio")),
            Meaning::Header => match values {
                [name, value] => self.extend(&["--header", &format!("{name}: {value}")]),
                _ => self.extend(&["--header", value]),
            },
            Meaning::ClientInfo => {
                let info = json(name, value)?;
                let id = text(&info, "client_id").ok_or_else(|| format!("{name}: there is no client_id in it"))?;
                // mcp-remote's callback URL, which is the registered one.
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
                self.notes.push(format!("{name}: only the scope is used, the rest is ignored"));
            }
        }
        Ok(())
    }

    fn take_secret(&mut self, name: &str, secret: &str) {
        self.variables.push(("MCP_CLIENT_SECRET", secret.to_owned()));
        self.notes.push(format!("{name}: other users of this machine may see the secret; use MCP_CLIENT_SECRET"));
    }

    /// Adds the options that depend on several others.
    fn complete(&mut self) {
        let (user, password) = (self.user.take(), self.password.take());
        if user.is_some() || password.is_some() {
            let pair = format!("{}:{}", user.unwrap_or_default(), password.unwrap_or_default());
            self.extend(&["--auth", &format!("Basic {}", STANDARD.encode(pair))]);
        }
    }
}

/// Parses JSON from the command line, or with `@` from a file.
fn json(name: &str, value: &str) -> Result<Value, String> {
    let text = match value.strip_prefix('@') {
        Some(path) => files::read_text(name, Path::new(path), Time::First).map_err(|error| error.to_string())?,
        None => value.to_owned(),
    };
    serde_json::from_str(&text).map_err(|_| format!("{name}: it is not JSON; write it like '{{\"client_id\":\"…\"}}'"))
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
    fn options_of_other_bridges_are_translated() {
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
    fn ignored_peer_options_are_noted_and_unsupported_ones_are_refused() {
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
    fn client_secrets_in_peer_options_become_environment_variables() {
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
