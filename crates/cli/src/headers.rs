//! Reads the user's headers from files, variables, options and a command: at the start, and again when the server
//! refuses them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use mcp_gangway_core::{Config, Error, HeaderSource};
use tokio::task::spawn_blocking;

use crate::{
    args::Args,
    command::UserCommand,
    files::{self, Time},
    given::{Environment, Given, text_variable, variable},
};

/// Sources of an embedding program's headers. A later field overrides an earlier one.
#[derive(Default)]
pub struct HeaderSettings {
    /// `header_file`: a file like that of `--header-file`. It is read again when the server refuses its headers.
    pub file: Option<PathBuf>,
    /// `headers`: names and values, sent unchanged.
    pub headers: Vec<(String, String)>,
    /// `auth`: the value of the `Authorization` header.
    pub auth: Option<String>,
    /// `auth_command`: a command like that of `--auth-command`. It prints the value of the `Authorization` header.
    pub command: Option<String>,
}

/// Sources of the user's headers.
pub(crate) struct Headers {
    env: Environment,
    auth: Option<String>,
    typed: Vec<String>,
    file: Option<PathBuf>,
    /// The content of a file that can be read only once, such as a pipe.
    once: OnceLock<String>,
    command: Option<UserCommand>,
    /// True if the command was typed; its value then overrides all others.
    is_command_typed: bool,
    /// An embedding program's headers, sent unchanged. If set, header variables are ignored.
    of_program: Option<Vec<(String, String)>>,
}

impl Headers {
    /// Takes the header options from the command line.
    ///
    /// # Errors
    /// The command cannot be parsed, or `--auth` is given as well.
    pub(crate) fn new(typed: &mut Args, env: &Environment) -> Result<Self, Error> {
        let auth = typed.auth.take();
        let is_command_typed = typed.auth_command.is_some();
        let command = match (typed.auth_command.take(), &auth) {
            (Some(_), Some(_)) => {
                return Err(Error::config("--auth-command: there is --auth as well; give only one of the two"));
            }
            (Some(text), None) => Some(UserCommand::new("--auth-command", &text)?),
            // What was typed wins.
            (None, Some(_)) => None,
            (None, None) => text_variable(env, "MCP_AUTH_COMMAND")?
                .map(|given| UserCommand::new(&given.from, &given.text))
                .transpose()?,
        };
        let (header, file) = (std::mem::take(&mut typed.header), typed.header_file.take());
        let (env, once) = (Arc::clone(env), OnceLock::new());
        Ok(Self { env, auth, typed: header, file, once, command, is_command_typed, of_program: None })
    }

    /// Takes the headers of an embedding program.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub(crate) fn of_program(given: HeaderSettings, env: Environment) -> Result<Self, Error> {
        let HeaderSettings { file, headers, auth, command } = given;
        if command.is_some() && auth.is_some() {
            return Err(Error::config("auth_command: there is auth as well; give only one of the two"));
        }
        Ok(Self {
            env,
            auth,
            typed: Vec::new(),
            file,
            once: OnceLock::new(),
            command: command.map(|text| UserCommand::new("auth_command", &text)).transpose()?,
            is_command_typed: true,
            of_program: Some(headers),
        })
    }

    /// Sets all headers in `config`. `authorization` is the output of the command. Variables are read first, so that
    /// typed options override them.
    ///
    /// # Errors
    /// A value cannot be used.
    pub(crate) fn set_all(
        &self,
        config: &mut Config,
        authorization: Option<&str>,
        warnings: &mut Vec<String>,
        time: Time,
    ) -> Result<(), Error> {
        let given = authorization
            .zip(self.command.as_ref())
            .map(|(value, command)| Given::new(command.from(), value.to_owned()));
        let mut collector = Collector { headers: self, config, warnings, time };
        if let Some(pairs) = &self.of_program {
            return collector.set_of_program(pairs, given.as_ref());
        }
        if self.file.is_none()
            && let Some(path) = variable(&self.env, "MCP_HEADER_FILE")
        {
            collector.set_file("MCP_HEADER_FILE", Path::new(&path))?;
        }
        if let Some(given) = text_variable(&self.env, "MCP_HEADERS")? {
            collector.set_lines(&given)?;
        }
        if self.auth.is_none() && self.command.is_none() {
            if let Some(given) = text_variable(&self.env, "MCP_AUTH")? {
                collector.set_whole_authorization(&given)?;
            } else if let Some(mut given) = text_variable(&self.env, "MCP_BEARER_TOKEN")? {
                // Many users paste the scheme too.
                let token = unquoted(&given.text);
                let has_scheme = token.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer "));
                given.text = if has_scheme { token.to_owned() } else { format!("Bearer {token}") };
                collector.set_whole_authorization(&given)?;
            }
        }
        if let Some(given) = given.as_ref().filter(|_| !self.is_command_typed) {
            collector.set_authorization(given)?;
        }
        if let Some(path) = &self.file {
            collector.set_file("--header-file", path)?;
        }
        for text in &self.typed {
            collector.set(&Given::new("--header", text.clone()))?;
        }
        if let Some(text) = &self.auth {
            collector.set_whole_authorization(&Given::new("--auth", text.clone()))?;
        }
        if let Some(given) = given.as_ref().filter(|_| self.is_command_typed) {
            collector.set_authorization(given)?;
        }
        Ok(())
    }

    /// Returns a source that reads the headers again, if they can change: there is a command, or a file that can be
    /// read twice (a pipe cannot). `blank` are the settings without headers, `known` the warnings that the user has
    /// seen.
    pub(crate) fn into_source(self, blank: Config, known: &[String]) -> Option<HeaderSource> {
        let named = || variable(&self.env, "MCP_HEADER_FILE").filter(|_| self.of_program.is_none()).map(PathBuf::from);
        let file = self.file.clone().or_else(named);
        let has_command = self.command.is_some();
        if !has_command && !file.is_some_and(|path| path.is_file()) {
            return None;
        }
        let headers = Arc::new((self, blank, known.to_vec()));
        let load = move || -> mcp_gangway_core::LoadedHeaders {
            let headers = Arc::clone(&headers);
            Box::pin(async move {
                let authorization = match &headers.0.command {
                    Some(command) => Some(command.run().await?),
                    None => None,
                };
                // Reading a file may block.
                let set = spawn_blocking(move || {
                    let (headers, blank, known) = &*headers;
                    let (mut config, mut warnings) = (blank.clone(), Vec::new());
                    headers.set_all(&mut config, authorization.as_deref(), &mut warnings, Time::Again)?;
                    for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
                        tracing::warn!("{warning}");
                    }
                    Ok(config.headers().clone())
                });
                set.await.unwrap_or_else(|_| Err(Error::config("reading the headers failed")))
            })
        };
        Some(HeaderSource::new(load, has_command))
    }
}

/// Collects headers. A later one replaces an earlier one of the same name.
struct Collector<'a> {
    headers: &'a Headers,
    config: &'a mut Config,
    warnings: &'a mut Vec<String>,
    time: Time,
}

impl Collector<'_> {
    fn set_of_program(&mut self, pairs: &[(String, String)], printed: Option<&Given>) -> Result<(), Error> {
        if let Some(path) = &self.headers.file {
            self.set_file("header_file", path)?;
        }
        for (name, value) in pairs {
            let is_authorization = name.trim().eq_ignore_ascii_case("authorization");
            let set = if is_authorization {
                self.config.set_authorization(value)
            } else {
                self.config.set_header(name, value)
            };
            set.map_err(|error| Error::config(format!("headers: {error}")))?;
        }
        if let Some(value) = &self.headers.auth {
            self.config.set_authorization(value).map_err(|error| Error::config(format!("auth: {error}")))?;
        }
        printed.map_or(Ok(()), |printed| self.set_authorization(printed))
    }

    fn set_file(&mut self, from: &str, path: &Path) -> Result<(), Error> {
        let text = match self.headers.once.get() {
            Some(text) => text.clone(),
            None => files::read_text(from, path, self.time)?,
        };
        if self.time == Time::First && !path.is_file() {
            let _ = self.headers.once.set(text.clone());
        }
        self.set_lines(&Given::new(format!("{from} {}", path.display()), text))
    }

    /// Sets one header per line. Ignores comments and blank lines.
    fn set_lines(&mut self, given: &Given) -> Result<(), Error> {
        for (index, line) in given.text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.set(&Given::new(format!("{} line {}", given.from, index + 1), line.to_owned()))?;
            }
        }
        Ok(())
    }

    fn set(&mut self, given: &Given) -> Result<(), Error> {
        let (name, value) = unquoted(&given.text)
            .split_once(':')
            .ok_or_else(|| given.mistake("there is no colon; write 'Name: Value'"))?;
        // The value of a variable is not checked.
        if !value.contains("${") {
            check_expanded(value).map_err(|what| given.mistake(what))?;
        }
        let value = expanded(value, &self.headers.env).map_err(|what| given.mistake(what))?;
        if name.trim().eq_ignore_ascii_case("authorization") {
            self.set_authorization(&Given::new(given.from.as_str(), value))
        } else {
            self.config.set_header(name, &value).map_err(|error| given.mistake(error))
        }
    }

    /// Sets an authorization that is sent unchanged.
    fn set_whole_authorization(&mut self, given: &Given) -> Result<(), Error> {
        check_expanded(unquoted(&given.text)).map_err(|what| given.mistake(what))?;
        self.set_authorization(given)
    }

    /// Sets the authorization unchanged. Warns if something seems to be missing.
    fn set_authorization(&mut self, given: &Given) -> Result<(), Error> {
        let value = unquoted(&given.text);
        if value.is_empty() {
            self.warnings.push(format!("{}: the value is empty; no Authorization header is sent", given.from));
            return Ok(());
        }
        let is_scheme = ["bearer", "basic"].iter().any(|scheme| value.eq_ignore_ascii_case(scheme));
        let is_printed = self.headers.command.as_ref().is_some_and(|command| command.from() == given.from);
        if is_printed && !is_scheme && !value.contains(' ') {
            // Most commands print a bare token.
            let value = format!("Bearer {value}");
            return self.config.set_authorization(&value).map_err(|error| given.mistake(error));
        }
        self.config.set_authorization(value).map_err(|error| given.mistake(error))?;
        if !value.contains(' ') {
            self.warnings.push(format!(
                "{}: the value has no scheme and is sent as it is; most servers expect 'Bearer TOKEN'",
                given.from
            ));
        }
        Ok(())
    }
}

/// Removes quotes around the whole text. A configuration that uses no shell leaves them there.
pub(crate) fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let without = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote).filter(|inside| !inside.contains(quote));
    without('"').or_else(|| without('\'')).unwrap_or(text).trim()
}

/// Checks that the value is not an unexpanded variable, alone or after a scheme.
///
/// # Errors
/// It is one. The text says what to do.
fn check_expanded(value: &str) -> Result<(), String> {
    let last = value.trim().rsplit(' ').next().unwrap_or_default();
    let inside = |start: &str, end: &str| last.strip_prefix(start)?.strip_suffix(end);
    let name = inside("${env:", "}")
        .or_else(|| inside("${", "}"))
        .or_else(|| inside("%", "%"))
        .or_else(|| inside("$env:", ""))
        .or_else(|| inside("$", ""));
    // Text in this form that is not a variable name may be a secret.
    let is_variable = |name: &&str| is_variable_name(name) && !name.contains(|c: char| c.is_ascii_lowercase());
    match name.filter(is_variable) {
        Some(name) => Err(format!(
            "{last} would be sent unexpanded: the client does not replace variables here; write --header 'Name: \
             ${{{name}}}', and set {name} where the client starts mcp-gangway"
        )),
        None => Ok(()),
    }
}

/// Replaces each `${NAME}` with its value from the environment. Values are not expanded again.
fn expanded(text: &str, env: &Environment) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after
            .split_once('}')
            .filter(|(name, _)| is_variable_name(name))
            .ok_or("'${' must begin a variable, like ${NAME}")?;
        let value = variable(env, name).ok_or_else(|| {
            format!("the variable {name} is empty or not set; set it where the client starts mcp-gangway")
        })?;
        out.push_str(before);
        out.push_str(value.to_str().ok_or_else(|| format!("the variable {name} is not UTF-8 text"))?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use clap::Parser;

    use super::*;

    /// Returns the settings of a command line in an environment.
    fn config(args: &[&str], env: &[(&str, &str)]) -> Result<Config, Error> {
        let env: HashMap<_, _> = env.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
        let mut typed = Args::try_parse_from([&["mcp-gangway", "http://localhost/mcp"], args].concat()).unwrap();
        let env: Environment = Arc::new(move |name| env.get(name).cloned());
        let headers = Headers::new(&mut typed, &env)?;
        let mut config = Config::new("http://localhost/mcp")?;
        let blank = config.clone();
        headers.set_all(&mut config, None, &mut Vec::new(), Time::First)?;
        config.header_source = headers.into_source(blank, &[]);
        Ok(config)
    }

    /// Sets the headers from the file at the start, then again after a refusal.
    fn twice(path: &str, between: impl FnOnce()) -> Result<Config, Error> {
        let mut typed = Args::try_parse_from(["mcp-gangway", "http://localhost/mcp", "--header-file", path]).unwrap();
        let headers = Headers::new(&mut typed, &(Arc::new(|_: &str| None) as Environment))?;
        let mut config = Config::new("http://localhost/mcp")?;
        headers.set_all(&mut config.clone(), None, &mut Vec::new(), Time::First)?;
        between();
        headers.set_all(&mut config, None, &mut Vec::new(), Time::Again)?;
        Ok(config)
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn header_file_that_is_a_pipe_is_read_only_once() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let path = pipe.to_str().unwrap().to_owned();
        let writer = std::thread::spawn(move || std::fs::write(&pipe, "A: b").unwrap());
        assert_eq!(twice(&path, || ()).unwrap().headers()["a"], "b");
        writer.join().unwrap();
    }

    #[test]
    fn header_file_replaced_by_a_folder_is_a_config_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "A: b").unwrap();
        let error = twice(path.to_str().unwrap(), || {
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
        });
        assert!(error.unwrap_err().is_config());
    }

    #[test]
    fn quotes_around_header_values_are_stripped() {
        for args in [
            &["--auth", "\"Bearer t\""][..],
            &["--auth", "'Bearer t'"],
            &["--header", "\"Authorization: Bearer t\""],
            &["--header", "Authorization: 'Bearer t'"],
        ] {
            assert_eq!(config(args, &[]).unwrap().headers()["authorization"], "Bearer t", "{args:?}");
        }
        assert_eq!(config(&["--header", "If-Match: \"a\""], &[]).unwrap().headers()["if-match"], "\"a\"");
        assert_eq!(config(&[], &[("MCP_AUTH", "\"Bearer t\"")]).unwrap().headers()["authorization"], "Bearer t");
    }

    #[test]
    fn bearer_token_is_sent_with_its_scheme_unless_there_is_another_authorization() {
        const NAME: &str = "MCP_BEARER_TOKEN";

        let sent = |args: &[&str], env: &[(&str, &str)]| {
            let config = config(args, env).unwrap();
            config.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned())
        };
        for (value, expected) in [
            ("t", Some("Bearer t")),
            (" 't' ", Some("Bearer t")),
            ("Bearer t", Some("Bearer t")),
            ("bearer t", Some("bearer t")),
            ("", None),
            ("${user_config.token}", None),
        ] {
            assert_eq!(sent(&[], &[(NAME, value)]).as_deref(), expected, "{value}");
        }
        assert_eq!(sent(&[], &[(NAME, "t"), ("MCP_AUTH", "Basic u")]).unwrap(), "Basic u");
        assert_eq!(sent(&["--auth", "Basic u"], &[(NAME, "t")]).unwrap(), "Basic u");
        let error = config(&[], &[(NAME, "${TOKEN}")]).unwrap_err().to_string();
        assert!(error.starts_with(NAME), "{error}");
    }

    #[test]
    fn unexpanded_variables_in_header_values_are_rejected() {
        for (option, value) in [
            ("--auth", "Bearer $TOKEN"),
            ("--auth", "Bearer ${TOKEN}"),
            ("--auth", "Bearer %TOKEN%"),
            ("--auth", "$env:TOKEN"),
            ("--header", "Authorization: Bearer $TOKEN"),
            ("--header", "X-Key: %TOKEN%"),
            ("--header", "X-Key: $TOKEN"),
        ] {
            let error = config(&[option, value], &[]).unwrap_err();
            assert!(error.is_config() && error.to_string().contains("TOKEN"), "{value}: {error}");
        }
        for value in ["X-Key: a$b", "X-Key: $5", "X-Key: 100%", "X-Key: $", "Authorization: Bearer a$TOKEN"] {
            assert!(config(&["--header", value], &[]).is_ok(), "{value}");
        }
    }

    #[test]
    fn only_header_files_and_auth_commands_become_a_header_source() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let before_first = |args: &[&str], env: &[(&str, &str)]| {
            let shown = format!("{:?}", config(args, env).unwrap().header_source);
            shown.starts_with("Some").then(|| shown.contains("before_first: true"))
        };
        assert_eq!(before_first(&["--auth", "Bearer a"], &[("MCP_HEADERS", "A: b")]), None);
        #[cfg(unix)]
        assert_eq!(before_first(&["--header-file", "/dev/null"], &[]), None);
        assert_eq!(before_first(&["--header-file", path], &[]), Some(false));
        assert_eq!(before_first(&[], &[("MCP_HEADER_FILE", path)]), Some(false));
        assert_eq!(before_first(&["--auth-command", "true"], &[]), Some(true));
        assert_eq!(before_first(&[], &[("MCP_AUTH_COMMAND", "true"), ("MCP_AUTH", "Bearer a")]), Some(true));
        assert_eq!(before_first(&["--auth", "Bearer a"], &[("MCP_AUTH_COMMAND", "true")]), None);
        let both = config(&["--auth", "Bearer hunter2", "--auth-command", "hunter2"], &[]).unwrap_err().to_string();
        assert!(both.starts_with("--auth-command: ") && !both.contains("hunter2"), "{both}");
    }
}
