//! Converts the attributes of `BridgeSettings` into the core's settings, one by one.
//!
//! Rule: an error names the attribute. A value of the wrong type is a `TypeError`, any other unusable value a
//! `ValueError`.

use std::{env, path::PathBuf, sync::Arc, time::Duration};

use mcp_gangway::{
    Environment,
    embedded::{self, HeaderSettings, Log, MAX_CONCURRENT, MAX_LIMIT, MAX_SECONDS, MIN_LIMIT},
};
use mcp_gangway_core::{
    ClientEra, ClientIdentity, Config, Proxy, ProxyUrl, ToolFilter, TransportMode,
    auth::{Credential, Grant, OAuth, Secret},
    http::{HttpClient, HttpSettings, HttpVersion},
};
use pyo3::{
    exceptions::{PyOverflowError, PyTypeError, PyValueError},
    prelude::*,
};

use crate::hints;

/// Certificates: whether any server certificate is accepted, extra PEM certificates to trust, and the client's
/// certificate and key.
pub(crate) type Certificates = (bool, Vec<Vec<u8>>, Option<(Vec<u8>, Vec<u8>)>);

/// Reads the settings, and the files that they name.
///
/// # Errors
/// A value cannot be used.
pub(crate) fn read(settings: &Bound<'_, PyAny>, certificates: Certificates) -> PyResult<(Config, Log)> {
    let settings = Attributes { of: settings, before: "" };
    let environment: Environment = Arc::new(|name| env::var_os(name));
    let url: String = settings.get("url")?;
    let mut config = embedded::config(&url, transport(&settings)?).map_err(|error| settings.mistake("url", error))?;

    let (is_any_trusted, authorities, identity) = certificates;
    config.tls.insecure = is_any_trusted;
    config.tls.ca_certificates = authorities;
    config.hint_words = hints::words;
    config.tls.client = identity.map(|(certificates, key)| ClientIdentity::new(certificates, key));
    check_certificates(&settings, &config)?;
    if let Some(text) = settings.get::<Option<String>>("proxy")? {
        let url = ProxyUrl::parse(&text).map_err(|error| settings.mistake("proxy", error))?;
        let except = env::var("NO_PROXY").or_else(|_| env::var("no_proxy")).ok();
        config.proxy = Proxy::Url { url, except };
    }
    if let Some(path) = settings.get::<Option<PathBuf>>("unix_socket")? {
        if config.unix_socket.is_some() {
            return Err(settings.mistake("unix_socket", "the URL names a socket as well; give only one of the two"));
        }
        config.unix_socket = Some(path);
    }
    if cfg!(not(unix)) && config.unix_socket.is_some() {
        return Err(settings.mistake("unix_socket", "Unix sockets are not supported on this system"));
    }
    config.client_era = match &*settings.get::<String>("era")? {
        "auto" => ClientEra::Auto,
        "legacy" => ClientEra::Legacy,
        "modern" => ClientEra::Modern,
        other => return Err(settings.mistake("era", format!("{other:?} is none of auto, legacy and modern"))),
    };
    config.tools =
        ToolFilter::new(&settings.get::<Vec<String>>("allow_tools")?, &settings.get::<Vec<String>>("deny_tools")?);
    if settings.get("http2")? {
        config.http_version = HttpVersion::Http2;
    }

    settings.time("timeout", true, &mut config.timeouts.idle)?;
    settings.time("connect_timeout", true, &mut config.timeouts.connect)?;
    settings.time("drain_timeout", false, &mut config.timeouts.drain)?;
    settings.time("pool_idle", false, &mut config.idle_for)?;
    let mut total = Duration::MAX;
    settings.time("max_time", true, &mut total)?;
    config.timeouts.total = Some(total).filter(|total| *total != Duration::MAX);
    settings.number("concurrency", 1, MAX_CONCURRENT as u64, |count| {
        config.limits.concurrency = usize::try_from(count).unwrap_or(MAX_CONCURRENT);
    })?;
    settings.number("pool_size", 0, MAX_CONCURRENT as u64, |count| {
        config.idle_connections = usize::try_from(count).unwrap_or(usize::MAX);
    })?;
    settings.number("max_message_size", MIN_LIMIT, MAX_LIMIT, |size| config.limits.incoming = size)?;
    settings.number("max_request_size", MIN_LIMIT, MAX_LIMIT, |size| config.limits.outgoing = size)?;

    let headers = HeaderSettings {
        file: settings.get("header_file")?,
        headers: settings.pairs("headers")?,
        auth: settings.get("auth")?,
        command: settings.get("auth_command")?,
    };
    embedded::set_headers(&mut config, headers, Arc::clone(&environment))
        .map_err(|error| PyValueError::new_err(error.worded(hints::words)))?;
    config.oauth = match settings.get::<Option<Bound<'_, PyAny>>>("sign_in")? {
        Some(sign_in) => Some(read_sign_in(&Attributes { of: &sign_in, before: "sign_in." }, &config, &environment)?),
        None => None,
    };
    let level: Option<String> = settings.get("log_level")?;
    let is_json = match &*settings.get::<String>("log_format")? {
        "text" => false,
        "json" => true,
        other => return Err(settings.mistake("log_format", format!("{other:?} is neither text nor json"))),
    };
    let log = Log::new(level.as_deref(), settings.get("log_file")?, is_json);
    Ok((config, log.map_err(|error| settings.mistake("log_level", error))?))
}

fn transport(settings: &Attributes<'_, '_>) -> PyResult<TransportMode> {
    match &*settings.get::<String>("transport")? {
        "auto" => Ok(TransportMode::Auto),
        "http" => Ok(TransportMode::Http),
        "sse" => Ok(TransportMode::Sse),
        "sse-first" => Ok(TransportMode::SseFirst),
        other => Err(settings.mistake("transport", format!("{other:?} is none of auto, http, sse and sse-first"))),
    }
}

/// Checks each certificate setting on its own. Certificates are parsed when a client is created, so each one gets its
/// own client, to tell which setting is wrong.
fn check_certificates(settings: &Attributes<'_, '_>, config: &Config) -> PyResult<()> {
    let check = |name: &str, client: Option<&ClientIdentity>, authorities: &[Vec<u8>]| {
        let mut http = HttpSettings::default();
        http.tls.client = client.cloned();
        http.tls.ca_certificates = authorities.to_vec();
        http.proxy = Proxy::None;
        let made = HttpClient::<http_body_util::Full<bytes::Bytes>>::new(http);
        made.map(drop).map_err(|error| settings.mistake(name, error.worded(hints::words)))
    };
    if !config.tls.ca_certificates.is_empty() {
        check("verify", None, &config.tls.ca_certificates)?;
    }
    if config.tls.client.is_some() {
        check("cert", config.tls.client.as_ref(), &[])?;
    }
    Ok(())
}

fn read_sign_in(settings: &Attributes<'_, '_>, config: &Config, environment: &Environment) -> PyResult<OAuth> {
    let mut oauth = embedded::sign_in(config, settings.get("open_browser")?, environment);
    oauth.grant = match &*settings.get::<String>("grant")? {
        "browser" => Grant::Browser,
        "device" => Grant::Device,
        "client_credentials" => Grant::ClientCredentials,
        other => {
            let what = format!("{other:?} is none of browser, device and client_credentials");
            return Err(settings.mistake("grant", what));
        }
    };
    oauth.client_id = settings.get("client_id")?;
    let (secret, key): (Option<String>, Option<String>) =
        (settings.get("client_secret")?, settings.get("client_private_key")?);
    oauth.credential = match (secret, key) {
        (Some(_), Some(_)) => {
            return Err(
                settings.mistake("client_private_key", "there is client_secret as well; give only one of the two")
            );
        }
        (Some(secret), None) => Some(Credential::Secret(Secret::new(secret))),
        (None, Some(_)) if oauth.grant != Grant::ClientCredentials => {
            return Err(settings.mistake("client_private_key", "a key is only for the grant client_credentials"));
        }
        (None, Some(key)) => Some(Credential::Key(Secret::new(key))),
        (None, None) if oauth.grant == Grant::ClientCredentials => {
            return Err(settings.mistake("grant", "client_credentials needs client_secret or client_private_key"));
        }
        (None, None) => None,
    };
    if oauth.credential.is_some() && oauth.client_id.is_none() {
        return Err(settings.mistake("client_id", "there are client credentials, but no client_id"));
    }
    if let Some(issuer) = settings.get::<Option<String>>("issuer")? {
        let checked = embedded::checked_issuer(&issuer).map_err(|what| settings.mistake("issuer", what))?;
        oauth.issuer = Some(checked);
    }
    if let Some(url) = settings.get::<Option<String>>("client_metadata_url")? {
        let checked =
            embedded::checked_metadata_url(&url).map_err(|what| settings.mistake("client_metadata_url", what))?;
        oauth.client_metadata_url = Some(checked);
    }
    if let Some(resource) = settings.get::<Option<String>>("resource")? {
        oauth.resource = embedded::checked_resource(&resource).map_err(|what| settings.mistake("resource", what))?;
    }
    oauth.scopes = settings.get("scopes")?;
    oauth.parameters = settings.pairs("parameters")?;
    for (name, _) in &oauth.parameters {
        embedded::checked_parameter(name).map_err(|what| settings.mistake("parameters", what))?;
    }
    settings.number("callback_port", 1, u64::from(u16::MAX), |port| oauth.callback_port = u16::try_from(port).ok())?;
    if let Some(host) = settings.get::<Option<String>>("callback_host")? {
        let checked = embedded::checked_callback_host(&host).map_err(|what| settings.mistake("callback_host", what))?;
        oauth.callback_host = Some(checked);
    }
    if let Some(path) = settings.get::<Option<String>>("callback_path")? {
        let checked = embedded::checked_callback_path(&path).map_err(|what| settings.mistake("callback_path", what))?;
        oauth.callback_path = Some(checked);
    }
    settings.time("login_wait", true, &mut oauth.login_wait)?;
    if !settings.get::<bool>("keychain")? {
        oauth.keychain = None;
    }
    if let Some(folder) = settings.get::<Option<PathBuf>>("state_folder")? {
        oauth.folder = Some(folder);
    }
    Ok(oauth)
}

/// The attributes of a settings object.
struct Attributes<'a, 'py> {
    of: &'a Bound<'py, PyAny>,
    /// The prefix of their names in error messages.
    before: &'static str,
}

impl<'py> Attributes<'_, 'py> {
    fn get<T>(&self, name: &str) -> PyResult<T>
    where
        T: FromPyObjectOwned<'py>,
    {
        let missing = |_| PyTypeError::new_err(format!("{}{name}: the attribute is missing", self.before));
        let value = self.of.getattr(name).map_err(missing)?;
        value.extract::<T>().map_err(|error| {
            let error = error.into();
            let text = format!("{}{name}: {}", self.before, error.value(value.py()));
            if error.is_instance_of::<PyOverflowError>(value.py()) {
                PyValueError::new_err(text)
            } else {
                PyTypeError::new_err(text)
            }
        })
    }

    /// Returns the names and values of a mapping.
    fn pairs(&self, name: &str) -> PyResult<Vec<(String, String)>> {
        let items = self
            .of
            .getattr(name)?
            .call_method0("items")
            .and_then(|items| items.try_iter()?.collect::<PyResult<Vec<_>>>());
        let pairs = items.and_then(|items| items.iter().map(PyAnyMethods::extract).collect());
        pairs.map_err(|error: PyErr| {
            PyTypeError::new_err(format!("{}{name}: {}", self.before, error.value(self.of.py())))
        })
    }

    /// Sets a time in seconds, unless the attribute is None.
    fn time(&self, name: &str, is_some: bool, time: &mut Duration) -> PyResult<()> {
        let Some(seconds) = self.get::<Option<f64>>(name)? else { return Ok(()) };
        if !(0.0..=MAX_SECONDS).contains(&seconds) {
            return Err(self.mistake(name, format!("{seconds} is not a number of seconds, like 2.5")));
        }
        if is_some && seconds == 0.0 {
            return Err(self.mistake(name, "the time must be longer than 0 seconds"));
        }
        *time = Duration::from_secs_f64(seconds);
        Ok(())
    }

    /// Passes a whole number to `set`, unless the attribute is None.
    fn number(&self, name: &str, least: u64, most: u64, set: impl FnOnce(u64)) -> PyResult<()> {
        let Some(number) = self.get::<Option<i128>>(name)? else { return Ok(()) };
        let within = u64::try_from(number).ok().filter(|number| (least..=most).contains(number));
        let what = || self.mistake(name, format!("{number} is not a whole number from {least} to {most}"));
        set(within.ok_or_else(what)?);
        Ok(())
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers pass temporary errors and texts")]
    fn mistake(&self, name: &str, what: impl ToString) -> PyErr {
        PyValueError::new_err(format!("{}{name}: {}", self.before, what.to_string()))
    }
}
