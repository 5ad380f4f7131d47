//! The bridge inside another program, which has settings of its own in the place of a command line and an environment.
//!
//! A program makes a [`Config`] with [`config`], fills it in with the values that it has, and calls [`run`]. What the command
//! does beside that is here: headers that are read anew, how a user is asked to sign in, the log.
//! Rule: no option and no variable is looked up. A mistake is said under the name that the program has for the setting.

use std::path::PathBuf;

use mcp_gangway_core::{Config, Error, TransportMode, stdio::Stdout};
use tokio::io::AsyncRead;

pub use crate::given::{LARGEST_LIMIT, MOST_CONCURRENT, MOST_SECONDS, SMALLEST_LIMIT};
pub use crate::headers::HeaderSettings;
use crate::{
    Failure,
    files::Time,
    given::Environment,
    headers::Headers,
    logging::{self, LogSettings},
    settings::{self, Settings},
};

/// Where the log goes, how much of it, and in which form.
#[derive(Debug)]
pub struct Log(LogSettings);

impl Log {
    /// Names of levels are those of the command, and `critical` and `warning`; `None` is the command's default. Without a file the
    /// log goes to stderr. In `json` each line is an object.
    ///
    /// # Errors
    /// There is no level of that name.
    pub fn new(level: Option<&str>, file: Option<PathBuf>, json: bool) -> Result<Self, Error> {
        const LEVELS: [&str; 8] = ["off", "critical", "error", "warning", "warn", "info", "debug", "trace"];
        let level = level.unwrap_or("warn");
        if !LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known)) {
            return Err(Error::config(format!("{level:?} is none of off, error, warn, info, debug and trace")));
        }
        Ok(Self(LogSettings { level: logging::level(level), json, file }))
    }
}

/// The defaults for a server, whose address is completed where it is that of a ContextForge server.
///
/// # Errors
/// A text that is no absolute `http` or `https` URL.
pub fn config(url: &str, transport: TransportMode) -> Result<Config, Error> {
    let completed = settings::endpoint(url, transport);
    let mut config = Config::new(completed.as_deref().unwrap_or(url))?;
    config.transport = transport;
    Ok(config)
}

/// Sets the headers in `config`, whose URL is set. `${NAME}` in the file comes from `environment`.
///
/// # Errors
/// Whatever cannot be used as it was given, under the name of its field.
pub fn set_headers(config: &mut Config, given: HeaderSettings, environment: Environment) -> Result<(), Error> {
    let headers = Headers::of_program(given, environment)?;
    let (blank, mut warnings) = (config.clone(), Vec::new());
    headers.set_all(config, None, &mut warnings, Time::First)?;
    config.header_source = headers.into_source(blank, &warnings);
    Ok(())
}

/// How the command signs in at this server: with the user, who is told on stderr where, in a browser that is opened if `opens`; what is
/// kept goes to the user's keychain and folder, for which the variables of `environment` count.
#[cfg(feature = "oauth")]
pub fn sign_in(config: &Config, opens: bool, environment: &Environment) -> mcp_gangway_core::auth::OAuth {
    crate::sign_in::of_user(config.url.to_string(), opens, environment)
}

#[cfg(feature = "oauth")]
pub use crate::sign_in::{
    checked_callback_host, checked_callback_path, checked_issuer, checked_metadata_url, checked_parameter,
    checked_resource,
};

/// Runs the bridge between any two byte streams, until `input` ends or `stop` resolves. Call it inside a tokio runtime; signals are
/// the program's own business.
///
/// # Errors
/// What would end the command with another status than 0.
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
    // Not in the macro, which looks at nothing when the log is silent.
    let end = outcome?;
    tracing::info!("ended: {end:?}");
    Ok(())
}
