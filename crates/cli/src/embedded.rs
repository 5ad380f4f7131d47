//! The bridge inside another program, which has its own settings instead of a command line and an environment.
//!
//! A program creates a [`Config`] with [`config`], sets its fields, and calls [`run`]. The rest of what the command
//! does is here: headers that are read again, the prompt to sign in, the log.
//!
//! Rule: no option and no variable is looked up. An error names the setting as the program does.

use std::path::PathBuf;

use mcp_gangway_core::{Config, Error, TransportMode, stdio::Stdout};
use tokio::io::AsyncRead;

pub use crate::given::{MAX_CONCURRENT, MAX_LIMIT, MAX_SECONDS, MIN_LIMIT};
pub use crate::headers::HeaderSettings;
use crate::{
    Failure,
    files::Time,
    given::Environment,
    headers::Headers,
    logging::{self, LogSettings},
    settings::{self, Settings},
};

/// The destination, level and format of the log.
#[derive(Debug)]
pub struct Log(LogSettings);

impl Log {
    /// Level names are those of the command, plus `critical` and `warning`; `None` is the command's default. Without
    /// a file the log goes to stderr. With `json` each line is an object.
    ///
    /// # Errors
    /// The level name is unknown.
    pub fn new(level: Option<&str>, file: Option<PathBuf>, json: bool) -> Result<Self, Error> {
        const LEVELS: [&str; 8] = ["off", "critical", "error", "warning", "warn", "info", "debug", "trace"];
        let level = level.unwrap_or("warn");
        if !LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known)) {
            return Err(Error::config(format!("{level:?} is none of off, error, warn, info, debug and trace")));
        }
        Ok(Self(LogSettings { level: logging::level(level), json, file }))
    }
}

/// Returns the default settings for a server. The address of a ContextForge server is completed.
///
/// # Errors
/// The text is not an absolute `http` or `https` URL.
pub fn config(url: &str, transport: TransportMode) -> Result<Config, Error> {
    let completed = settings::endpoint(url, transport);
    let mut config = Config::new(completed.as_deref().unwrap_or(url))?;
    config.transport = transport;
    Ok(config)
}

/// Sets the headers in `config`, after its URL. `${NAME}` in the file is replaced from `environment`.
///
/// # Errors
/// A value cannot be used. The error names its field.
pub fn set_headers(config: &mut Config, given: HeaderSettings, environment: Environment) -> Result<(), Error> {
    let headers = Headers::of_program(given, environment)?;
    let (blank, mut warnings) = (config.clone(), Vec::new());
    headers.set_all(config, None, &mut warnings, Time::First)?;
    config.header_source = headers.into_source(blank, &warnings);
    Ok(())
}

/// Returns the command's sign-in for this server: the URL is written to stderr and opened in a browser if `opens`.
/// Tokens are stored in the user's keychain and folder, which the variables of `environment` can change.
#[cfg(feature = "oauth")]
pub fn sign_in(config: &Config, opens: bool, environment: &Environment) -> mcp_gangway_core::auth::OAuth {
    crate::sign_in::of_user(config.url.to_string(), opens, environment)
}

#[cfg(feature = "oauth")]
pub use crate::sign_in::{
    checked_callback_host, checked_callback_path, checked_issuer, checked_metadata_url, checked_parameter,
    checked_resource,
};

/// Runs the bridge between two byte streams until `input` ends or `stop` resolves. Call it inside a tokio runtime. It
/// handles no signals.
///
/// # Errors
/// Any failure that makes the command exit with a status other than 0.
pub async fn run(
    config: Config,
    log: Log,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl Into<Stdout>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    let settings = Settings { warnings: settings::remarks(&config), config, log: log.0, notes: Vec::new() };
    logging::start(&settings.log).map_err(|error| Error::config(format!("log_file: {error}")))?;
    settings.log_remarks();
    let outcome = mcp_gangway_core::run(settings.config, input, output, stop).await;
    logging::finish();
    // Not inside the macro, which evaluates nothing when the log is off.
    let end = outcome?;
    tracing::info!("ended: {end:?}");
    Ok(())
}
