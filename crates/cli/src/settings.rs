//! Interprets the command line together with the environment and the named files. The rest of the program never sees
//! a raw option.
//!
//! Rule: an error message never shows a value that may be a secret (URL, header, authorization, proxy).

use std::path::PathBuf;

use mcp_gangway_core::{
    ClientEra, ClientIdentity, Config, Error, Proxy, ProxyUrl, ToolFilter, TransportMode, http::HttpVersion,
};
use tracing::level_filters::LevelFilter;
use url::{Host, Url};

use crate::{
    address::{self, AddressSource},
    args::Args,
    files,
    given::{
        Environment, Given, count, is_set, nonzero_duration, option_or, path_or, size, state_folder, text_variable,
        time,
    },
    headers::{Headers, unquoted},
    hints,
    logging::{self, LogSettings},
};

const NO_URL: &str =
    "the server's URL is missing; run it like 'mcp-gangway https://example.com/mcp' or set MCP_SERVER_URL";

/// The settings of the command.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) log: LogSettings,
    /// Settings that work, but probably not as the user expects.
    pub(crate) warnings: Vec<String>,
    /// Interpretations that the user may want to know of.
    pub(crate) notes: Vec<String>,
}

impl Settings {
    /// Interprets `typed` with the help of the environment. `notes` are earlier notes.
    ///
    /// # Errors
    /// A value cannot be used.
    pub(crate) fn new(mut typed: Args, mut notes: Vec<String>, env: &Environment) -> Result<Self, Error> {
        let mut warnings = Vec::new();

        let unix_socket = path_or(typed.unix_socket.take(), "--unix-socket", env, "MCP_UNIX_SOCKET");
        let source = AddressSource::new(typed.url_file.take(), typed.url_command.take(), env)?;
        let given = server_url(&mut typed, unix_socket.is_some(), env)?;
        if source.is_some() && unix_socket.is_some() {
            return Err(Error::config(
                "a Unix socket and a source of the URL exclude each other; let it give unix:/PATH",
            ));
        }
        let transport = match option_or(typed.transport.take(), "--transport", env, "MCP_TRANSPORT")? {
            Some(name) => transport(&name)?,
            None => TransportMode::default(),
        };
        let given = match (given, &source) {
            (Some(given), _) => given,
            (None, Some(_)) => Given::new("URL", address::NOWHERE.to_owned()),
            (None, None) => return Err(Error::config(NO_URL)),
        };
        let (given, url_source) = match source {
            Some(source) => source.into_parts(given, transport)?,
            None => (given, None),
        };
        let completed = endpoint(&given.text, transport);
        let mut config =
            Config::new(completed.as_ref().unwrap_or(&given.text)).map_err(|error| given.mistake(error))?;
        config.url_source = url_source;
        config.transport = transport;
        config.hint_words = hints::words;
        if let Some((from, path)) = unix_socket {
            if config.unix_socket.is_some() {
                return Err(Error::config(format!("{from}: the URL names a socket as well; give only one of the two")));
            }
            config.unix_socket = Some(path);
        }
        if cfg!(not(unix)) && config.unix_socket.is_some() {
            return Err(Error::config(
                "Unix sockets are not supported on this system; give the server's http or https URL",
            ));
        }
        if let Some(given) = option_or(typed.era.take(), "--era", env, "MCP_ERA")? {
            config.client_era = client_era(&given)?;
        }
        config.merge_pages = typed.merge_pages || is_set(env, "MCP_MERGE_PAGES")?;
        config.escape_separators = typed.escape_separators || is_set(env, "MCP_ESCAPE_SEPARATORS")?;
        config.tools = ToolFilter::new(
            &patterns(&typed.allow_tool, "--allow-tool", env, "MCP_ALLOW_TOOLS")?,
            &patterns(&typed.deny_tool, "--deny-tool", env, "MCP_DENY_TOOLS")?,
        );
        if completed.is_some() {
            notes.push(format!("a ContextForge server: requests go to {}", config.url));
        }
        if let Some(kind) = text_variable(env, "FORGE_CONTENT_TYPE")?
            && !kind.text.trim().eq_ignore_ascii_case("application/json")
        {
            warnings.push("FORGE_CONTENT_TYPE is ignored: MCP asks for application/json".to_owned());
        }

        let headers = Headers::new(&mut typed, env)?;
        let blank = config.clone();
        headers.set_all(&mut config, None, &mut warnings, files::Time::First)?;
        config.header_source = headers.into_source(blank, &warnings);

        set_times(&mut typed, &mut config, env)?;
        if let Some(given) = option_or(typed.concurrency, "--concurrency", env, "CONCURRENCY")? {
            config.limits.concurrency = count(&given)?;
        }
        if let Some(given) = option_or(typed.max_message_size, "--max-message-size", env, "MCP_MAX_MESSAGE_SIZE")? {
            config.limits.incoming = size(&given)?;
        }
        if let Some(given) = option_or(typed.max_request_size, "--max-request-size", env, "MCP_MAX_REQUEST_SIZE")? {
            config.limits.outgoing = size(&given)?;
        }
        if let Some((from, path)) = path_or(typed.ca_cert, "--ca-cert", env, "TLS_CERT") {
            config.tls.ca_certificates.push(files::read_pem(from, &path)?);
        }
        config.tls.client = client_identity(typed.client_cert, typed.client_key, env)?;
        config.tls.insecure = typed.insecure || is_set(env, "INSECURE")?;
        if let Some(text) = typed.proxy {
            config.proxy = proxy(&Given::new("--proxy", text), env)?;
        }

        if typed.http2 || is_set(env, "HTTP2")? {
            config.http_version = HttpVersion::Http2;
        }
        if let Some(given) = option_or(typed.pool_size, "--pool-size", env, "HTTP_POOL_SIZE")? {
            config.idle_connections = if given.text.trim() == "0" { 0 } else { count(&given)? };
        }
        if let Some(given) = option_or(typed.pool_idle, "--pool-idle", env, "HTTP_POOL_IDLE_TIMEOUT")? {
            config.idle_for = time(&given)?;
        }

        let folder = path_or(typed.state_folder, "--state-folder", env, "MCP_STATE_FOLDER").map(|(_, path)| path);
        let folder = folder.or_else(|| state_folder(env));
        let keeps = !(typed.no_cache || is_set(env, "MCP_NO_CACHE")?);
        config.state_folder = folder.clone().filter(|_| keeps);

        warnings.extend(remarks(&config));
        let log = log_settings(typed.log_level, typed.log_file, typed.log_format, env)?;
        #[cfg(feature = "oauth")]
        {
            config.oauth = crate::sign_in::settings(typed.sign_in, config.url.to_string(), folder, env)?;
        }
        Ok(Self { config, log, warnings, notes })
    }

    /// Logs the warnings and notes on the settings.
    pub(crate) fn log_remarks(&self) {
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        for note in &self.notes {
            tracing::info!("{note}");
        }
        let Config { url, transport, timeouts, limits, proxy, .. } = &self.config;
        let headers: Vec<_> = self.config.headers().keys().collect();
        tracing::debug!(%url, ?transport, ?timeouts, ?limits, ?proxy, ?headers, "settings");
    }
}

fn set_times(typed: &mut Args, config: &mut Config, env: &Environment) -> Result<(), Error> {
    let timeouts = &mut config.timeouts;
    if let Some(given) = option_or(typed.timeout.take(), "--timeout", env, "MCP_TOOL_CALL_TIMEOUT")? {
        timeouts.idle = nonzero_duration(&given)?;
    }
    if let Some(text) = typed.max_time.take() {
        timeouts.total = Some(nonzero_duration(&Given::new("--max-time", text))?);
    }
    if let Some(text) = typed.connect_timeout.take() {
        timeouts.connect = nonzero_duration(&Given::new("--connect-timeout", text))?;
    }
    if let Some(given) = option_or(typed.attach_wait.take(), "--attach-wait", env, "MCP_ATTACH_WAIT")? {
        timeouts.attach = Some(time(&given)?).filter(|wait| !wait.is_zero());
    }
    if let Some(given) = option_or(typed.hold.take(), "--hold", env, "MCP_HOLD")? {
        timeouts.hold = time(&given)?;
    }
    if let Some(given) = option_or(typed.heartbeat.take(), "--heartbeat", env, "MCP_HEARTBEAT")? {
        timeouts.heartbeat = Some(time(&given)?).filter(|every| !every.is_zero());
    }
    if let Some(given) = option_or(typed.keep_alive.take(), "--keep-alive", env, "MCP_KEEP_ALIVE")? {
        timeouts.keep_alive = Some(time(&given)?).filter(|every| !every.is_zero());
    }
    if let Some(text) = typed.drain_timeout.take() {
        timeouts.drain = time(&Given::new("--drain-timeout", text))?;
    }
    Ok(())
}

fn proxy(given: &Given, env: &Environment) -> Result<Proxy, Error> {
    let url = ProxyUrl::parse(&given.text).map_err(|error| given.mistake(error))?;
    let except = match text_variable(env, "NO_PROXY")? {
        Some(hosts) => Some(hosts),
        None => text_variable(env, "no_proxy")?,
    };
    Ok(Proxy::Url { url, except: except.map(|hosts| hosts.text) })
}

fn client_identity(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    env: &Environment,
) -> Result<Option<ClientIdentity>, Error> {
    let certificate = path_or(certificate, "--client-cert", env, "TLS_CLIENT_CERT");
    let key = path_or(key, "--client-key", env, "TLS_CLIENT_KEY");
    let read = |(from, path): (&str, PathBuf)| files::read_pem(from, &path);
    match (certificate, key) {
        (Some(certificate), None) => {
            let both = read(certificate)?;
            Ok(Some(ClientIdentity::new(both.clone(), both)))
        }
        (Some(certificate), Some(key)) => Ok(Some(ClientIdentity::new(read(certificate)?, read(key)?))),
        (None, Some((from, _))) => {
            Err(Error::config(format!("{from}: the certificate of this key is missing; give it with --client-cert")))
        }
        (None, None) => Ok(None),
    }
}

/// Accepts other bridges' names in addition to our own.
fn transport(given: &Given) -> Result<TransportMode, Error> {
    match given.text.trim() {
        "auto" | "http-first" => Ok(TransportMode::Auto),
        "http" | "http-only" | "streamablehttp" | "streamable-http" | "streamableHttp" => Ok(TransportMode::Http),
        "sse" | "sse-only" => Ok(TransportMode::Sse),
        "sse-first" => Ok(TransportMode::SseFirst),
        other => Err(given.mistake(format!("{other:?} is none of auto, http, sse and sse-first"))),
    }
}

fn client_era(given: &Given) -> Result<ClientEra, Error> {
    match given.text.trim() {
        "auto" => Ok(ClientEra::Auto),
        "legacy" => Ok(ClientEra::Legacy),
        "modern" => Ok(ClientEra::Modern),
        other => Err(given.mistake(format!("{other:?} is none of auto, legacy and modern"))),
    }
}

/// Returns the name patterns that were typed, or the list in the variable.
fn patterns(typed: &[String], option: &str, env: &Environment, name: &str) -> Result<Vec<String>, Error> {
    let typed = (!typed.is_empty()).then(|| typed.join(","));
    let Some(given) = option_or(typed, option, env, name)? else { return Ok(Vec::new()) };
    let patterns: Vec<_> = given.text.split(',').map(|pattern| pattern.trim().to_owned()).collect();
    if patterns.iter().any(String::is_empty) {
        return Err(given.mistake("a pattern is empty; write one like get_*"));
    }
    Ok(patterns)
}

/// Returns the URL that the user gave, without quotes. With a Unix socket, there is a default.
fn server_url(typed: &mut Args, is_on_socket: bool, env: &Environment) -> Result<Option<Given>, Error> {
    let url = match (typed.server.take(), typed.url.take()) {
        (Some(one), Some(other)) if one.trim() != other.trim() => {
            return Err(Error::config("the URL is given twice, with different values; leave out --url or the other"));
        }
        (Some(text), _) => Some(Given::new("URL", text)),
        (None, Some(text)) => Some(Given::new("--url", text)),
        (None, None) => text_variable(env, "MCP_SERVER_URL")?.or(text_variable(env, "SSE_URL")?),
    };
    let url = url.or_else(|| is_on_socket.then(|| Given::new("URL", "http://localhost/mcp".to_owned())));
    let url = url.filter(|given| !given.text.trim().is_empty());
    Ok(url.map(|given| Given::new(given.from, unquoted(&given.text).to_owned())))
}

/// Returns warnings about valid settings, both the command's and an embedding program's.
pub(crate) fn remarks(config: &Config) -> Vec<String> {
    let mut remarks = Vec::new();
    if config.unix_socket.is_none() && is_unencrypted_remote(&config.url.to_string()) {
        remarks.push("the URL begins with http: others on the network can read the traffic; use https".to_owned());
    }
    if config.tls.insecure {
        remarks.push("the server's certificate is not checked: others can read and change the traffic".to_owned());
    }
    remarks
}

/// Returns the completed address of the server, or None if it needs no completion.
pub(crate) fn endpoint(text: &str, transport: TransportMode) -> Option<String> {
    let wants_stream = matches!(transport, TransportMode::Sse | TransportMode::SseFirst);
    if wants_stream { None } else { with_contextforge_path(text) }
}

/// Returns the MCP endpoint of a ContextForge virtual server, if the URL is that of the server (`…/servers/{UUID}`)
/// or of its old stream (`…/servers/{UUID}/sse`).
fn with_contextforge_path(text: &str) -> Option<String> {
    let mut url = Url::parse(text.trim()).ok()?;
    let mut segments: Vec<_> = url.path_segments()?.collect();
    if matches!(segments.last(), Some(&("" | "sse"))) {
        segments.pop();
    }
    let [.., "servers", id] = segments.as_slice() else { return None };
    if !is_uuid(id) {
        return None;
    }
    let path = format!("/{}/mcp", segments.join("/"));
    url.set_path(&path);
    Some(url.into())
}

/// True for 32 hexadecimal digits, without dashes or in the usual five groups.
fn is_uuid(text: &str) -> bool {
    let pieces: Vec<_> = text.split('-').map(str::len).collect();
    matches!(pieces.as_slice(), [32] | [8, 4, 4, 4, 12]) && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// True if requests leave this machine without encryption (R93).
fn is_unencrypted_remote(text: &str) -> bool {
    let Ok(url) = Url::parse(text.trim()) else { return false };
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    };
    url.scheme() == "http" && !is_loopback
}

fn log_settings(
    level: Option<String>,
    file: Option<PathBuf>,
    format: Option<String>,
    env: &Environment,
) -> Result<LogSettings, Error> {
    let level = match option_or(level, "--log-level", env, "MCP_WRAPPER_LOG_LEVEL")? {
        Some(given) => Some(given),
        None => text_variable(env, "LOG_LEVEL")?,
    };
    let json = match format.map(|text| Given::new("--log-format", text)) {
        None => false,
        Some(given) => match given.text.as_str() {
            "text" => false,
            "json" => true,
            other => return Err(given.mistake(format!("{other:?} is neither text nor json"))),
        },
    };
    Ok(LogSettings {
        level: level.map_or(LevelFilter::WARN, |given| logging::level(&given.text)),
        json,
        file: path_or(file, "--log-file", env, "MCP_LOG_FILE").map(|(_, path)| path),
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, ffi::OsString, io::Write, sync::Arc, time::Duration};

    use clap::Parser as _;

    use mcp_gangway_core::Timeouts;

    use super::*;
    use crate::args::{HELP, explain};

    const SERVER: &str = "http://localhost/mcp";
    const ID: &str = "0b6e4a1c9f5d4c2e8a7b3d1f5e9c8a70";
    const DASHED: &str = "0b6e4a1c-9f5d-4c2e-8a7b-3d1f5e9c8a70";

    /// Returns the settings of a command line without the program's name, in an environment.
    fn settings(args: &[&str], env: &[(&str, &str)]) -> Result<Settings, Error> {
        let env: HashMap<_, _> = env.iter().map(|(name, value)| (name.to_string(), OsString::from(value))).collect();
        let typed = Args::try_parse_from([&["mcp-gangway"], args].concat()).unwrap();
        let env: Environment = Arc::new(move |name| env.get(name).cloned());
        Settings::new(typed, Vec::new(), &env)
    }

    fn mistake(args: &[&str], env: &[(&str, &str)]) -> String {
        let error = settings(args, env).unwrap_err();
        assert!(error.is_config());
        error.to_string()
    }

    fn header<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
        settings.config.headers().get(name).map(|value| value.to_str().unwrap())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn option_overrides_its_variable_and_empty_variable_is_ignored() {
        let url =
            |args: &[&str], variable| settings(args, &[("MCP_SERVER_URL", variable)]).unwrap().config.url.to_string();
        assert_eq!(url(&["http://a/"], "http://c/"), "http://a/");
        assert_eq!(url(&["--url", "http://b/"], "http://c/"), "http://b/");
        assert_eq!(url(&["http://a/", "--url", "http://a/"], ""), "http://a/");
        assert_eq!(url(&[], "http://c/"), "http://c/");
        assert!(mistake(&["http://a/", "--url", "http://b/"], &[]).contains("twice"));
        assert!(mistake(&[], &[("MCP_SERVER_URL", "")]).contains("missing"));

        let idle = |args: &[&str], variable| {
            settings(&[&[SERVER], args].concat(), &[("MCP_TOOL_CALL_TIMEOUT", variable)]).unwrap().config.timeouts.idle
        };
        assert_eq!(idle(&[], ""), Timeouts::default().idle);
        assert_eq!(idle(&[], "60"), Duration::from_mins(1));
        assert_eq!(idle(&["--timeout", "1.5"], "60"), Duration::from_millis(1500));
    }

    #[test]
    fn last_repeated_option_wins_and_header_options_accumulate() {
        let settings = settings(
            &[SERVER, "--timeout", "1", "--header", "A: 1", "--header=B:2", "--timeout", "2", "--header", "a: 3"],
            &[],
        )
        .unwrap();
        assert_eq!(settings.config.timeouts.idle, Duration::from_secs(2));
        assert_eq!((header(&settings, "a"), header(&settings, "b")), (Some("3"), Some("2")));
    }

    #[test]
    fn numbers_out_of_range_are_rejected() {
        for (option, values) in [
            ("--timeout", &["0", "-1", "inf", "NaN", "1e300", "soon", ""][..]),
            ("--max-time", &["0", "-2"]),
            ("--connect-timeout", &["0", "1e10"]),
            ("--drain-timeout", &["-0.5", "x"]),
            ("--attach-wait", &["-1", "soon"]),
            ("--hold", &["-1", "inf"]),
            ("--concurrency", &["0", "1.5", "65537", "many", ""]),
            (
                "--max-message-size",
                &["0", "64", "-1M", "1.5G", "2T", "1025G", "M", "1 0M", "99999999999999999999G", ""],
            ),
            ("--max-request-size", &["1023", "0x400", "1m1", "64", "all"]),
        ] {
            for value in values {
                let line = mistake(&[SERVER, &format!("{option}={value}")], &[]);
                assert!(line.starts_with(&format!("{option}: ")), "{line}");
            }
        }
        assert!(mistake(&[SERVER], &[("CONCURRENCY", "many")]).starts_with("CONCURRENCY: "));
        assert!(settings(&[SERVER, "--drain-timeout", "0"], &[]).unwrap().config.timeouts.drain.is_zero());
    }

    #[test]
    fn what_clients_need_is_set_by_option_or_variable() {
        let set = |args: &[&str], env: &[(&str, &str)]| {
            let config = settings(&[&[SERVER], args].concat(), env).unwrap().config;
            let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
            let times = (seconds(config.timeouts.heartbeat), seconds(config.timeouts.keep_alive));
            (times, config.merge_pages, config.escape_separators)
        };
        assert_eq!(set(&[], &[]), ((None, None), false, false));
        let args = ["--heartbeat", "--keep-alive", "30", "--merge-pages", "--escape-separators"];
        assert_eq!(set(&args, &[]), ((Some(15), Some(30)), true, true));
        assert_eq!(set(&["--heartbeat=20"], &[("MCP_HEARTBEAT", "1")]), ((Some(20), None), false, false));
        let env = [
            ("MCP_HEARTBEAT", "7"),
            ("MCP_KEEP_ALIVE", "0"),
            ("MCP_MERGE_PAGES", "1"),
            ("MCP_ESCAPE_SEPARATORS", "yes"),
        ];
        assert_eq!(set(&[], &env), ((Some(7), None), true, true));
        assert!(mistake(&[SERVER, "--heartbeat=x"], &[]).starts_with("--heartbeat: "));
    }

    #[test]
    fn waits_for_a_server_and_its_lists_are_set_by_option_or_variable() {
        let set = |args: &[&str], env: &[(&str, &str)]| {
            let config = settings(&[&[SERVER], args].concat(), env).unwrap().config;
            let folder = config.state_folder.map(|folder| folder.display().to_string());
            (config.timeouts.attach.map(|wait| wait.as_millis()), config.timeouts.hold.as_secs(), folder)
        };
        assert_eq!(set(&[], &[]), (Some(3000), 20, None));
        let env = [("MCP_ATTACH_WAIT", "1.5"), ("MCP_HOLD", "7"), ("MCP_STATE_FOLDER", "/s")];
        assert_eq!(set(&[], &env), (Some(1500), 7, Some("/s".to_owned())));
        let args = ["--attach-wait", "0", "--hold", "0", "--state-folder", "/t"];
        assert_eq!(set(&args, &env), (None, 0, Some("/t".to_owned())));
        assert_eq!(set(&["--no-cache"], &env).2, None);
        assert_eq!(set(&[], &[env[2], ("MCP_NO_CACHE", "true")]).2, None);
        #[cfg(all(unix, not(target_os = "macos")))]
        assert_eq!(set(&[], &[("HOME", "/h")]).2, Some("/h/.local/state/mcp-gangway".to_owned()));
    }

    #[test]
    fn http_version_and_pool_options_match_the_ibm_port() {
        let set = |args: &[&str], env: &[(&str, &str)]| {
            let config = settings(&[&[SERVER], args].concat(), env).unwrap().config;
            (config.http_version, config.idle_connections, config.idle_for.as_secs())
        };
        assert_eq!(set(&[], &[("HTTP2", "false")]), (HttpVersion::Auto, usize::MAX, 50));
        let args = ["--http2", "--http-pool-size", "3", "--http-pool-idle-timeout", "7"];
        let env = [("HTTP2", "true"), ("HTTP_POOL_SIZE", "0"), ("HTTP_POOL_IDLE_TIMEOUT", "9")];
        assert_eq!(set(&args, &env), (HttpVersion::Http2, 3, 7));
        assert_eq!(set(&[], &env), (HttpVersion::Http2, 0, 9));
        assert!(mistake(&[SERVER, "--http-pool-size=x"], &[]).starts_with("--pool-size: "));
        assert!(mistake(&[SERVER], &[("HTTP2", "maybe")]).starts_with("HTTP2: "));
    }

    #[test]
    fn tool_filter_patterns_are_read_from_options_and_variables() {
        let passing = |args: &[&str], env: &[(&str, &str)]| {
            let tools = settings(&[&[SERVER], args].concat(), env).unwrap().config.tools;
            ["get_a", "put_a", "delete_a"].into_iter().filter(|name| tools.allows_tool(name)).collect::<Vec<_>>()
        };
        assert_eq!(passing(&[], &[("MCP_DENY_TOOLS", "")]), ["get_a", "put_a", "delete_a"]);
        assert_eq!(passing(&["--deny-tool", "delete_*", "--ignore-tool", "put_?"], &[]), ["get_a"]);
        assert_eq!(passing(&["--allow-tool", "get_*,put_*", "--deny-tool=put_a"], &[]), ["get_a"]);
        assert_eq!(passing(&[], &[("MCP_ALLOW_TOOLS", "get_*, delete_*"), ("MCP_DENY_TOOLS", "get_a")]), ["delete_a"]);
        assert_eq!(passing(&["--allow-tool", "put_a"], &[("MCP_ALLOW_TOOLS", "get_*")]), ["put_a"]);
        for (args, env) in
            [(&["--deny-tool", ""][..], &[][..]), (&["--deny-tool", "a,,b"], &[]), (&[], &[("MCP_DENY_TOOLS", ",")])]
        {
            assert!(mistake(&[&[SERVER], args].concat(), env).contains("a pattern is empty"), "{args:?} {env:?}");
        }
    }

    #[test]
    fn client_era_is_set_by_option_or_variable() {
        let era =
            |args: &[&str], env: &[(&str, &str)]| settings(&[&[SERVER], args].concat(), env).unwrap().config.client_era;
        assert_eq!(era(&[], &[]), ClientEra::Auto);
        assert_eq!(era(&["--era", "legacy"], &[("MCP_ERA", "modern")]), ClientEra::Legacy);
        assert_eq!(era(&[], &[("MCP_ERA", "modern")]), ClientEra::Modern);
        assert!(mistake(&[SERVER, "--era", "2026"], &[]).starts_with("--era: "));
    }

    #[test]
    fn the_address_may_come_from_a_file_or_a_command() {
        let known = file("8080");
        let path = known.path().to_str().unwrap();
        let url = |args: &[&str], env: &[(&str, &str)]| {
            let config = settings(args, env).unwrap().config;
            (config.url.to_string(), config.url_source.is_some())
        };
        assert_eq!(url(&["--url-file", path], &[]), ("http://127.0.0.1:8080/mcp".into(), true));
        assert_eq!(url(&["http://h/x", "--url-file", path], &[]), ("http://h:8080/x".into(), true));
        assert_eq!(url(&[], &[("MCP_URL_FILE", path)]), ("http://127.0.0.1:8080/mcp".into(), true));
        // There is no address yet.
        assert_eq!(url(&["--url-file", "/does/not/exist"], &[]), (address::NOWHERE.into(), true));
        assert_eq!(url(&["--url-command", "port"], &[("MCP_URL_FILE", path)]), (address::NOWHERE.into(), true));
        assert_eq!(url(&["http://h/x"], &[]), ("http://h/x".into(), false));
        assert!(mistake(&["--url-file", path, "--url-command", "x"], &[]).contains("only one of the two"));
        assert!(mistake(&["--url-command", "'"], &[]).starts_with("--url-command: "));
        assert!(mistake(&["--url-file", file("hunter2").path().to_str().unwrap()], &[]).starts_with("--url-file: "));
        assert!(mistake(&["--url-file", path, "--unix-socket", "/s"], &[]).contains("exclude each other"));
    }

    #[cfg(unix)]
    #[test]
    fn unix_socket_is_set_by_url_option_or_variable() {
        let socket = |args: &[&str], env: &[(&str, &str)]| {
            let config = settings(args, env).unwrap().config;
            (config.url.to_string(), config.unix_socket.unwrap().display().to_string())
        };
        let on = |url: &str, path: &str| (url.to_owned(), path.to_owned());
        assert_eq!(socket(&["unix:/run/a.sock:/x"], &[]), on("http://localhost/x", "/run/a.sock"));
        assert_eq!(socket(&["--unix-socket", "/run/a.sock"], &[]), on("http://localhost/mcp", "/run/a.sock"));
        assert_eq!(socket(&["http://h/y", "--unix-socket=a"], &[]), on("http://h/y", "a"));
        assert_eq!(socket(&[], &[("MCP_UNIX_SOCKET", "/b")]), on("http://localhost/mcp", "/b"));
        assert!(mistake(&["unix:/a", "--unix-socket", "/b"], &[]).contains("only one of the two"));
        // Traffic that stays on this machine causes no warning.
        assert!(settings(&["http://h/y", "--unix-socket=a"], &[]).unwrap().warnings.is_empty());
    }

    #[test]
    fn sizes_are_written_as_people_write_them() {
        let limits = |args: &[&str], env: &[(&str, &str)]| {
            let limits = settings(&[&[SERVER], args].concat(), env).unwrap().config.limits;
            (limits.incoming, limits.outgoing)
        };
        let defaults = limits(&[], &[("MCP_MAX_MESSAGE_SIZE", ""), ("MCP_MAX_REQUEST_SIZE", "")]);
        assert_eq!(defaults, (4 << 30, 64 << 20));
        for (text, bytes) in [
            ("65536", 65536),
            ("1k", 1 << 10),
            ("512K", 512 << 10),
            ("64M", 64 << 20),
            ("64 MiB", 64 << 20),
            (" 3mb ", 3 << 20),
            ("2G", 2 << 30),
            ("1024g", 1 << 40),
        ] {
            assert_eq!(limits(&["--max-message-size", text], &[]), (bytes, defaults.1), "{text}");
            assert_eq!(limits(&["--max-request-size", text], &[]), (defaults.0, bytes), "{text}");
        }
        let env = [("MCP_MAX_MESSAGE_SIZE", "1M"), ("MCP_MAX_REQUEST_SIZE", "2M")];
        assert_eq!(limits(&[], &env), (1 << 20, 2 << 20));
        assert_eq!(limits(&["--max-message-size=3M"], &env), (3 << 20, 2 << 20));
        assert!(mistake(&[SERVER], &[("MCP_MAX_MESSAGE_SIZE", "big")]).starts_with("MCP_MAX_MESSAGE_SIZE: "));
    }

    #[test]
    fn header_options_override_header_variables() {
        let (typed, from_variable) =
            (file("# tokens\r\n\r\nA: file\r\nB: file\r\n"), file("\u{feff}E: file\nB: other"));
        let variables = [
            ("MCP_HEADER_FILE", from_variable.path().to_str().unwrap()),
            ("MCP_HEADERS", "A: variable\n\nC: variable\nAuthorization: Basic x"),
            ("MCP_AUTH", "Bearer variable"),
        ];
        let all = settings(&[SERVER, "--header", "A: typed"], &variables).unwrap();
        assert_eq!(
            ["a", "b", "c", "e"].map(|name| header(&all, name).unwrap()),
            ["typed", "other", "variable", "file"]
        );
        assert_eq!(header(&all, "authorization"), Some("Bearer variable"));

        let path = typed.path().to_str().unwrap();
        let all = settings(&[SERVER, "--header-file", path, "--auth", "Bearer typed"], &variables).unwrap();
        assert_eq!(["a", "b", "c"].map(|name| header(&all, name).unwrap()), ["file", "file", "variable"]);
        assert_eq!((header(&all, "e"), header(&all, "authorization")), (None, Some("Bearer typed")));
    }

    #[test]
    fn r97_environment_variables_are_expanded_in_header_values() {
        let env = [("TOKEN", "hunter2"), ("OTHER", "${TOKEN}"), ("EMPTY", "")];
        let all =
            settings(&[SERVER, "--header", "X-Key:a ${TOKEN}-${OTHER}$ ", "--header", "Y: $token"], &env).unwrap();
        assert_eq!(header(&all, "x-key"), Some("a hunter2-${TOKEN}$"));
        assert_eq!(header(&all, "y"), Some("$token"), "no shell expansion, and it may be a secret");
        for bad in
            ["X: ${MISSING}", "X: ${EMPTY}", "X: ${", "X: ${TOKEN", "X: ${A B}", "X: ${}", "X hunter2", "Host name: x"]
        {
            let line = mistake(&[SERVER, "--header", bad], &env);
            assert!(line.starts_with("--header: ") && !line.contains("hunter2"), "{line}");
        }
        let broken = file("A: 1\n\n# x\nsecret-without-colon\n");
        let line = mistake(&[SERVER, "--header-file", broken.path().to_str().unwrap()], &[]);
        assert!(line.contains(" line 4: ") && !line.contains("secret"), "{line}");
    }

    #[test]
    fn authorization_without_scheme_or_value_causes_a_warning() {
        let warnings = |args: &[&str]| settings(&[&[SERVER], args].concat(), &[]).unwrap().warnings;
        assert!(warnings(&["--auth", "Bearer hunter2"]).is_empty());
        for args in [["--auth", "hunter2"], ["--header", "authorization: hunter2"]] {
            let [hint] = warnings(&args).try_into().unwrap();
            assert!(hint.contains("Bearer TOKEN") && !hint.contains("hunter2"), "{hint}");
        }
        assert!(warnings(&["--auth", ""])[0].contains("empty"));
        assert!(mistake(&[SERVER, "--auth", "Bearer"], &[]).starts_with("--auth: "));
    }

    #[test]
    fn only_contextforge_urls_get_the_mcp_path_appended() {
        for (given, used) in [
            (format!("http://h/servers/{ID}"), format!("http://h/servers/{ID}/mcp")),
            (format!("http://h/servers/{DASHED}/"), format!("http://h/servers/{DASHED}/mcp")),
            (format!("http://h/a/servers/{ID}/sse"), format!("http://h/a/servers/{ID}/mcp")),
            (format!("http://h/servers/{ID}/sse?a=b"), format!("http://h/servers/{ID}/mcp?a=b")),
        ] {
            assert_eq!(with_contextforge_path(&given), Some(used), "{given}");
        }
        for as_given in [
            format!("http://h/servers/{ID}/mcp"),
            format!("http://h/servers/{ID}/mcp/"),
            format!("http://h/servers/{ID}/message"),
            format!("http://h/servers/{}", &ID[1..]),
            format!("http://h/servers/g{}", &ID[1..]),
            format!("http://h/servers/{}", DASHED.replacen('-', "", 1)),
            format!("http://h/tools/{ID}"),
            format!("http://servers/{ID}"),
            format!("http://h/mcp?x=/servers/{ID}"),
            "http://sse.example.com/sse".to_owned(),
        ] {
            assert_eq!(with_contextforge_path(&as_given), None, "{as_given}");
        }
    }

    #[test]
    fn r93_plain_http_url_causes_a_warning_unless_it_is_loopback() {
        for (url, expected) in [
            ("http://example.com/mcp", true),
            ("http://192.168.0.1/mcp", true),
            ("http://localhost.example.com", true),
            ("https://example.com/mcp", false),
            ("http://localhost:1/mcp", false),
            ("http://a.localhost/mcp", false),
            ("http://127.1.2.3/mcp", false),
            ("http://[::1]/mcp", false),
        ] {
            let warned = settings(&[url], &[]).unwrap().warnings.iter().any(|text| text.contains("https"));
            assert_eq!(warned, expected, "{url}");
        }
    }

    #[test]
    fn tls_and_proxy_settings_are_read_from_options_and_variables() {
        let pem = file("PEM");
        let path = pem.path().to_str().unwrap();
        for args in [["--ca-cert", path], ["--tls-cert", path]] {
            assert_eq!(settings(&[&[SERVER], &args[..]].concat(), &[]).unwrap().config.tls.ca_certificates.len(), 1);
        }
        assert_eq!(settings(&[SERVER], &[("TLS_CERT", path)]).unwrap().config.tls.ca_certificates.len(), 1);
        assert!(mistake(&[SERVER], &[("TLS_CERT", "/does/not/exist")]).starts_with("TLS_CERT: cannot read"));

        for (value, expected) in [("1", true), ("True", true), ("yes", true), ("0", false), ("no", false), ("", false)]
        {
            assert_eq!(settings(&[SERVER], &[("INSECURE", value)]).unwrap().config.tls.insecure, expected, "{value}");
        }
        assert!(mistake(&[SERVER], &[("INSECURE", "perhaps")]).starts_with("INSECURE: "));
        assert!(settings(&[SERVER, "--insecure"], &[("INSECURE", "0")]).unwrap().config.tls.insecure);

        assert!(matches!(settings(&[SERVER], &[("NO_PROXY", "a")]).unwrap().config.proxy, Proxy::System));
        let proxy = |env: &[(&str, &str)]| match settings(&[SERVER, "--proxy", "http://u:p@proxy:1"], env)
            .unwrap()
            .config
            .proxy
        {
            Proxy::Url { url, except } => (url.to_string(), except),
            other => panic!("{other:?}"),
        };
        assert_eq!(proxy(&[]), ("http://proxy:1".into(), None));
        assert_eq!(proxy(&[("NO_PROXY", "a,b"), ("no_proxy", "c")]).1.unwrap(), "a,b");
        assert_eq!(proxy(&[("no_proxy", "c")]).1.unwrap(), "c");
        assert!(!mistake(&[SERVER, "--proxy", "ftp://u:hunter2@p"], &[]).contains("hunter2"));
    }

    #[test]
    fn client_certificate_and_key_are_read_from_options_and_variables() {
        let pem = file("PEM");
        let path = pem.path().to_str().unwrap();
        let client = |args: &[&str], env: &[(&str, &str)]| {
            settings(&[&[SERVER], args].concat(), env).unwrap().config.tls.client.is_some()
        };
        assert!(!client(&[], &[("TLS_CLIENT_CERT", ""), ("TLS_CLIENT_KEY", "")]));
        assert!(client(&["--client-cert", path], &[]));
        assert!(client(&["--client-cert", path, "--client-key", path], &[]));
        assert!(client(&[], &[("TLS_CLIENT_CERT", path), ("TLS_CLIENT_KEY", path)]));
        assert!(mistake(&[SERVER, "--client-key", path], &[]).starts_with("--client-key: "));
        assert!(mistake(&[SERVER], &[("TLS_CLIENT_KEY", path)]).starts_with("TLS_CLIENT_KEY: "));
        let missing = mistake(&[SERVER, "--client-cert", path], &[("TLS_CLIENT_KEY", "/does/not/exist")]);
        assert!(missing.starts_with("TLS_CLIENT_KEY: cannot read"), "{missing}");
    }

    #[test]
    fn transport_names_of_other_bridges_are_accepted() {
        let mode =
            |args: &[&str], env: &[(&str, &str)]| settings(&[&[SERVER], args].concat(), env).unwrap().config.transport;
        assert_eq!(mode(&[], &[("MCP_TRANSPORT", "")]), TransportMode::Auto);
        for (names, expected) in [
            (["auto", "http-first"], TransportMode::Auto),
            (["http", "http-only"], TransportMode::Http),
            (["sse", "sse-only"], TransportMode::Sse),
            (["sse-first", "sse-first"], TransportMode::SseFirst),
        ] {
            for name in names {
                assert_eq!(mode(&["--transport", name], &[("MCP_TRANSPORT", "http")]), expected, "{name}");
                assert_eq!(mode(&[], &[("MCP_TRANSPORT", name)]), expected, "{name}");
            }
        }
        assert!(mistake(&[SERVER, "--transport", "stdio"], &[]).starts_with("--transport: "));
        assert!(mistake(&[SERVER], &[("MCP_TRANSPORT", "SSE?")]).starts_with("MCP_TRANSPORT: "));

        // The old stream's URL is completed only if its transport is not requested.
        let given = format!("http://localhost/servers/{ID}/sse");
        for (name, used) in [("auto", "mcp"), ("http", "mcp"), ("sse", "sse"), ("sse-first", "sse")] {
            let url = settings(&[&given, "--transport", name], &[]).unwrap().config.url.to_string();
            assert_eq!(url, format!("http://localhost/servers/{ID}/{used}"), "{name}");
        }
    }

    #[test]
    fn log_level_variables_match_upstream() {
        let level = |args: &[&str], env: &[(&str, &str)]| settings(&[&[SERVER], args].concat(), env).unwrap().log.level;
        assert_eq!(level(&[], &[]), LevelFilter::WARN);
        assert_eq!(level(&[], &[("LOG_LEVEL", "debug")]), LevelFilter::DEBUG);
        assert_eq!(level(&[], &[("LOG_LEVEL", "debug"), ("MCP_WRAPPER_LOG_LEVEL", "OFF")]), LevelFilter::OFF);
        assert_eq!(level(&[], &[("MCP_WRAPPER_LOG_LEVEL", ""), ("LOG_LEVEL", "")]), LevelFilter::WARN);
        assert_eq!(level(&["--log-level", ""], &[("LOG_LEVEL", "debug")]), LevelFilter::OFF);
        assert!(mistake(&[SERVER, "--log-format", "xml"], &[]).starts_with("--log-format: "));
    }

    #[test]
    fn option_parse_errors_are_one_line_without_values() {
        for (args, part) in [
            (&["--auth", "Bearer", "hunter2", SERVER][..], "quotes"),
            (&["--tiemout=hunter2"], "no option --tiemout "),
            (&["-x"], "no option -x "),
            (&["--auth"], "needs a value"),
            (&["--insecure=hunter2"], "--insecure takes no value"),
        ] {
            let error = Args::try_parse_from([&["mcp-gangway"], args].concat()).err().unwrap();
            let line = explain(&error, HELP);
            assert!(line.contains(part) && !line.contains("hunter2") && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn help_text_states_the_default_settings_of_the_core() {
        use clap::CommandFactory;

        let defaults = Config::new(SERVER).unwrap();
        let command = Args::command();
        for (id, value) in [
            ("concurrency", defaults.limits.concurrency.to_string()),
            ("max_message_size", format!("{}G", defaults.limits.incoming >> 30)),
            ("max_request_size", format!("{}M", defaults.limits.outgoing >> 20)),
            ("timeout", defaults.timeouts.idle.as_secs().to_string()),
            ("connect_timeout", defaults.timeouts.connect.as_secs().to_string()),
            ("attach_wait", defaults.timeouts.attach.unwrap().as_secs().to_string()),
            ("hold", defaults.timeouts.hold.as_secs().to_string()),
            ("drain_timeout", defaults.timeouts.drain.as_secs().to_string()),
        ] {
            let option = command.get_arguments().find(|option| option.get_id() == id).unwrap();
            let help = option.get_help().unwrap().to_string();
            assert!(help.contains(&format!("[default: {value}]")), "{id}: {help}");
        }
        assert!(defaults.timeouts.total.is_none());
    }
}
