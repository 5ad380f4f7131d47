//! Sign-in for the command line: its options, where tokens are stored, prompts to the user, and the commands `login`,
//! `logout` and `status`.
//!
//! Rules: secrets come only from the environment; the URL to sign in at is always written to stderr, at any log level
//! and whether or not a browser opens.

use std::{
    ffi::OsString,
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use mcp_gangway_core::{
    Config, Error, ServerUrl,
    auth::{self, Credential, Grant, Kept, Keychain, OAuth, Prompt, Resource, Revocation, Secret},
    text,
};
use url::Url;

use crate::{
    args::SignInArgs,
    browser,
    given::{Environment, Given, is_set, nonzero_duration, option_or, state_folder, text_variable, variable},
    hints, logging,
};

/// Parameters of an authorization request that the user cannot set.
const RESERVED_PARAMETERS: [&str; 8] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "redirect_uri",
    "resource",
    "response_type",
    "scope",
    "state",
];

/// Returns the settings for sign-in, or None if it is turned off. `server` is shown to the user. `folder`
/// is the state folder.
///
/// # Errors
/// A value cannot be used.
pub(crate) fn settings(
    typed: SignInArgs,
    server: String,
    folder: Option<PathBuf>,
    env: &Environment,
) -> Result<Option<OAuth>, Error> {
    if typed.no_oauth || is_set(env, "MCP_NO_OAUTH")? {
        return Ok(None);
    }
    let opens = !(typed.no_browser || is_set(env, "MCP_NO_BROWSER")?);
    let mut oauth = of_user(server, opens, env);
    let is_device = typed.device || is_set(env, "MCP_DEVICE_LOGIN")?;
    let is_own_user = typed.client_credentials || is_set(env, "MCP_CLIENT_CREDENTIALS")?;
    oauth.grant = match (is_device, is_own_user) {
        (true, true) => return Err(Error::config("--device and --client-credentials exclude each other")),
        (true, false) => Grant::Device,
        (false, true) => Grant::ClientCredentials,
        (false, false) => Grant::Browser,
    };
    oauth.client_id = option_or(typed.client_id, "--client-id", env, "MCP_CLIENT_ID")?.map(|given| given.text);
    oauth.credential = credential(env)?;
    if oauth.credential.is_some() && oauth.client_id.is_none() {
        return Err(Error::config("there are client credentials, but no --client-id"));
    }
    if oauth.grant == Grant::ClientCredentials && oauth.credential.is_none() {
        return Err(Error::config(
            "--client-credentials: set MCP_CLIENT_SECRET or MCP_CLIENT_PRIVATE_KEY, and --client-id",
        ));
    }
    if oauth.grant != Grant::ClientCredentials && matches!(oauth.credential, Some(Credential::Key(_))) {
        return Err(Error::config("MCP_CLIENT_PRIVATE_KEY: a key is only for --client-credentials"));
    }
    if let Some(given) = option_or(typed.issuer, "--issuer", env, "MCP_ISSUER")? {
        oauth.issuer = Some(checked_issuer(&given.text).map_err(|what| given.mistake(what))?);
    }
    let document = option_or(typed.client_metadata_url, "--client-metadata-url", env, "MCP_CLIENT_METADATA_URL")?;
    let checked = |given: Given| checked_metadata_url(&given.text).map_err(|what| given.mistake(what));
    oauth.client_metadata_url = document.map(checked).transpose()?;
    let scopes = option_or(typed.scope, "--scope", env, "MCP_SCOPE")?.map(|given| given.text).unwrap_or_default();
    oauth.scopes = scopes.split_whitespace().map(str::to_owned).collect();
    oauth.resource = match option_or(typed.resource, "--resource", env, "MCP_RESOURCE")? {
        None => Resource::Found,
        Some(given) => checked_resource(&given.text).map_err(|what| given.mistake(what))?,
    };
    oauth.parameters = typed.authorize_param.into_iter().map(parameter).collect::<Result<_, _>>()?;
    if let Some(given) = option_or(typed.callback_port, "--callback-port", env, "MCP_CALLBACK_PORT")? {
        let port = given.text.trim().parse().ok().filter(|port| *port != 0);
        oauth.callback_port = Some(port.ok_or_else(|| given.mistake("this is not a port from 1 to 65535"))?);
    }
    if let Some(given) = option_or(typed.callback_host, "--callback-host", env, "MCP_CALLBACK_HOST")? {
        oauth.callback_host = Some(checked_callback_host(&given.text).map_err(|what| given.mistake(what))?);
    }
    if let Some(given) = option_or(typed.callback_path, "--callback-path", env, "MCP_CALLBACK_PATH")? {
        oauth.callback_path = Some(checked_callback_path(&given.text).map_err(|what| given.mistake(what))?);
    }
    if let Some(given) = option_or(typed.login_wait, "--login-wait", env, "MCP_LOGIN_WAIT")? {
        oauth.login_wait = nonzero_duration(&given)?;
    }
    if typed.no_keychain || is_set(env, "MCP_NO_KEYCHAIN")? {
        oauth.keychain = None;
    }
    oauth.folder = folder;
    Ok(Some(oauth))
}

fn credential(env: &Environment) -> Result<Option<Credential>, Error> {
    let secret = text_variable(env, "MCP_CLIENT_SECRET")?;
    let key = text_variable(env, "MCP_CLIENT_PRIVATE_KEY")?;
    match (secret, key) {
        (Some(_), Some(_)) => Err(Error::config("MCP_CLIENT_SECRET and MCP_CLIENT_PRIVATE_KEY exclude each other")),
        (Some(given), None) => Ok(Some(Credential::Secret(Secret::new(given.text)))),
        // Files that set variables often have the key on one line.
        (None, Some(given)) => Ok(Some(Credential::Key(Secret::new(given.text.replace("\\n", "\n"))))),
        (None, None) => Ok(None),
    }
}

/// Returns the default settings for a sign-in by the user.
pub(crate) fn of_user(server: String, opens: bool, env: &Environment) -> OAuth {
    let mut oauth = OAuth::new(move |prompt| ask(prompt, &server, opens));
    oauth.keychain = Keychain::of_user(|name| variable(env, name));
    oauth.folder = state_folder(env);
    oauth
}

/// Checks the issuer URL of an authorization server. Issuers are compared byte by byte, so the text is not
/// normalized.
///
/// # Errors
/// It is not an issuer URL. The text says what is wrong.
pub fn checked_issuer(text: &str) -> Result<String, &'static str> {
    match Url::parse(text.trim()) {
        Ok(url) if matches!(url.scheme(), "https" | "http") && url.query().is_none() && url.fragment().is_none() => {
            Ok(text.trim().to_owned())
        }
        _ => Err("this is not the URL of an authorization server, like https://login.example.com"),
    }
}

/// Checks the URL of a client ID metadata document.
///
/// # Errors
/// It is not such a URL. The text says what is wrong.
pub fn checked_metadata_url(text: &str) -> Result<String, &'static str> {
    match Url::parse(text.trim()) {
        Ok(url) if url.scheme() == "https" && url.path() != "/" => Ok(text.trim().to_owned()),
        _ => Err("this is not an https URL with a path"),
    }
}

/// Checks the host of the callback URL and returns it in URL form.
///
/// # Errors
/// It may be another machine. The text says what is wrong.
pub fn checked_callback_host(text: &str) -> Result<String, &'static str> {
    let host = text.trim().trim_matches(['[', ']']).to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.is_loopback() => Ok(format!("[{address}]")),
        Ok(IpAddr::V4(address)) if address.is_loopback() => Ok(host),
        Err(_) if host == "localhost" => Ok(host),
        _ => Err("use localhost or a loopback address, like 127.0.0.1 or ::1"),
    }
}

/// Checks the path of the callback URL.
///
/// # Errors
/// It is not a path. The text says what is wrong.
pub fn checked_callback_path(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let url = Url::parse("http://localhost").ok().and_then(|base| base.join(text).ok());
    match url {
        Some(url)
            if text.starts_with('/')
                && !text.starts_with("//")
                && url.query().is_none()
                && url.fragment().is_none() =>
        {
            Ok(url.path().to_owned())
        }
        _ => Err("write a path, like /oauth/callback"),
    }
}

/// Checks the resource that a token is for; `none` omits it.
///
/// # Errors
/// It is not a resource URI. The text says what is wrong.
pub fn checked_resource(text: &str) -> Result<Resource, &'static str> {
    if text.trim() == "none" {
        return Ok(Resource::None);
    }
    match Url::parse(text.trim()) {
        Ok(url) if url.fragment().is_none() => Ok(Resource::This(text.trim().to_owned())),
        _ => Err("this is not an absolute URI without a fragment"),
    }
}

/// Checks that the user may set this parameter of an authorization request.
///
/// # Errors
/// The user may not. The text says what is wrong.
pub fn checked_parameter(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a parameter needs a name".to_owned());
    }
    if RESERVED_PARAMETERS.contains(&name) {
        return Err(format!("{name} is set by the sign-in itself"));
    }
    Ok(())
}

fn parameter(text: String) -> Result<(String, String), Error> {
    let given = Given::new("--authorize-param", text);
    let Some((name, value)) = given.text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err(given.mistake("write NAME=VALUE"));
    };
    checked_parameter(name).map_err(|what| given.mistake(what))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Prompts the user to sign in.
fn ask(prompt: &Prompt, server: &str, opens: bool) {
    match prompt {
        Prompt::Browser { url } => {
            logging::say(&format!("{server} asks you to sign in: {url}"));
            if opens && let Err(error) = browser::open(url) {
                tracing::debug!(%error, "no browser was opened");
            }
        }
        Prompt::Device { url, complete, code } => {
            logging::say(&format!("{server} asks you to sign in: open {url} on any device and type in {code}"));
            if let Some(complete) = complete {
                logging::say(&format!("or open {complete}"));
            }
        }
        other => logging::say(&format!("{server} asks you to sign in: {}", other.url())),
    }
}

/// The subcommands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Login,
    Logout,
    Status,
}

impl Command {
    /// Removes a subcommand from the arguments, if it directly follows the program's name.
    pub(crate) fn take(args: &mut Vec<OsString>) -> Option<Self> {
        let command = match args.get(1)?.to_str()? {
            "login" => Self::Login,
            "logout" => Self::Logout,
            "status" => Self::Status,
            _ => return None,
        };
        args.remove(1);
        Some(command)
    }

    /// Runs the subcommand and prints its outcome on stdout.
    ///
    /// # Errors
    /// It failed.
    pub(crate) async fn run(self, config: &Config) -> Result<(), Error> {
        let server = &config.url;
        let Some(account) = config.account() else {
            return match self {
                Self::Login => Err(Error::config("signing in is turned off")),
                Self::Logout | Self::Status => {
                    print(&[format!("not signed in at {server}")]);
                    Ok(())
                }
            };
        };
        let lines = match self {
            Self::Login => {
                account.login().await?;
                vec![format!("signed in at {server}")]
            }
            Self::Logout => match &*account.logout().await? {
                [] => vec![format!("not signed in at {server}")],
                all => all.iter().map(|revocation| signed_out(server, revocation)).collect(),
            },
            Self::Status => match &*account.status().await? {
                [] => vec![format!("not signed in at {server}")],
                all => all.iter().flat_map(shown).collect(),
            },
        };
        print(&lines);
        Ok(())
    }
}

fn print(lines: &[String]) {
    // The reader may have closed stdout.
    let _ = io::stdout().write_all(page(lines).as_bytes());
}

/// Joins lines and makes them safe to show. Most contain text from an authorization server.
fn page(lines: &[String]) -> String {
    lines.iter().map(|line| text::shown(line.as_str()) + "\n").collect()
}

fn signed_out(server: &ServerUrl, revocation: &Revocation) -> String {
    let rest = match revocation {
        Revocation::Done => String::new(),
        Revocation::NotOffered => "; the authorization server cannot revoke tokens".to_owned(),
        Revocation::Failed(error) => {
            let why = error.worded(hints::words);
            format!("; the tokens were deleted here, but maybe not revoked: {why}")
        }
        other => format!("; revocation: {other:?}"),
    };
    format!("signed out of {server}{rest}")
}

fn shown(status: &auth::Status) -> [String; 7] {
    let token = match (status.is_signed_in, status.expiry) {
        (false, _) => "none".to_owned(),
        (true, None) => "expiry unknown".to_owned(),
        (true, Some(expiry)) => match expiry.duration_since(SystemTime::now()) {
            Ok(left) => format!("expires in {}", rough(left)),
            Err(late) => format!("expired {} ago", rough(late.duration())),
        },
    };
    let refresh = if status.can_refresh { "yes" } else { "no" };
    let scopes = if status.scopes.is_empty() { "unknown".to_owned() } else { status.scopes.join(" ") };
    let kept = match &status.kept {
        Kept::Keychain => "the system's keychain".to_owned(),
        Kept::File(path) => path.display().to_string(),
        other => format!("{other:?}"),
    };
    [
        format!("resource: {}", status.resource),
        format!("  authorization server: {}", status.issuer),
        format!("  client: {}", status.client_id.as_deref().unwrap_or("none")),
        format!("  scopes: {scopes}"),
        format!("  token: {token}"),
        format!("  renewable: {refresh}"),
        format!("  kept in: {kept}"),
    ]
}

/// Formats a time in its largest unit.
fn rough(time: Duration) -> String {
    let seconds = time.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "min"),
        7200..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit}")
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, ffi::OsString, sync::Arc};

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        options: SignInArgs,
    }

    fn meaning(args: &[&str], env: &[(&str, &str)]) -> Result<Option<OAuth>, String> {
        let env: HashMap<_, _> = env.iter().map(|(name, value)| (name.to_string(), OsString::from(value))).collect();
        let env: Environment = Arc::new(move |name| env.get(name).cloned());
        let typed = Typed::try_parse_from([&["x"], args].concat()).unwrap();
        settings(typed.options, "server".into(), Some("/h".into()), &env).map_err(|error| {
            assert!(error.is_config());
            error.to_string()
        })
    }

    #[test]
    fn oauth_options_override_their_variables() {
        assert!(meaning(&["--no-oauth"], &[]).unwrap().is_none());
        assert!(meaning(&[], &[("MCP_NO_OAUTH", "1")]).unwrap().is_none());
        let env = [("MCP_CLIENT_ID", "a"), ("MCP_CLIENT_SECRET", "hunter2"), ("MCP_SCOPE", "x")];
        let args = ["--client-id", "b", "--scope", "r  w", "--resource", "none", "--callback-port", "7777"];
        let args = [&args[..], &["--login-wait", "1.5", "--authorize-param", "audience=a=b"]].concat();
        let args = [&args[..], &["--issuer", "https://login.example.com/a/"]].concat();
        let oauth = meaning(&args, &env).unwrap().unwrap();
        assert_eq!(oauth.client_id.as_deref(), Some("b"));
        assert_eq!(oauth.issuer.as_deref(), Some("https://login.example.com/a/"));
        assert_eq!((oauth.scopes.join(","), oauth.resource.clone()), ("r,w".to_owned(), Resource::None));
        assert_eq!((oauth.callback_port, oauth.login_wait), (Some(7777), Duration::from_millis(1500)));
        assert_eq!(oauth.parameters, [("audience".to_owned(), "a=b".to_owned())]);
        assert!(!format!("{oauth:?}").contains("hunter2"));
        assert_eq!(oauth.folder, Some("/h".into()));
    }

    #[test]
    fn invalid_oauth_settings_are_rejected_without_showing_secrets() {
        for (args, env, part) in [
            (&["--device", "--client-credentials"][..], &[][..], "exclude"),
            (&["--client-credentials"], &[], "MCP_CLIENT_SECRET"),
            (&[], &[("MCP_CLIENT_SECRET", "hunter2")], "--client-id"),
            (&["--client-id", "a"], &[("MCP_CLIENT_PRIVATE_KEY", "hunter2")], "only for --client-credentials"),
            (&["--issuer", "login.example.com"], &[], "--issuer: "),
            (&[], &[("MCP_ISSUER", "https://a/?b")], "MCP_ISSUER: "),
            (&["--client-metadata-url", "http://a/b"], &[], "https"),
            (&["--resource", "x"], &[], "--resource: "),
            (&["--authorize-param", "state=x"], &[], "state is set"),
            (&["--authorize-param", "x"], &[], "NAME=VALUE"),
            (&["--callback-port", "0"], &[], "--callback-port: "),
            (&["--callback-host", "example.com"], &[], "--callback-host: "),
            (&["--callback-host", "0.0.0.0"], &[], "--callback-host: "),
            (&[], &[("MCP_CALLBACK_PATH", "callback")], "MCP_CALLBACK_PATH: "),
            (&["--callback-path", "//host/x"], &[], "--callback-path: "),
            (&["--callback-path", "/x?y"], &[], "--callback-path: "),
            (&["--login-wait", "0"], &[], "--login-wait: "),
        ] {
            let line = meaning(args, env).unwrap_err();
            assert!(line.contains(part) && !line.contains("hunter2"), "{line}");
        }
    }
}
