//! `mcp-gangway bundle`: writes a bundle for Claude Desktop and other hosts of MCP bundles, which connects them to one
//! server, or to the server that the user names.
//!
//! The format is that of `@anthropic-ai/mcpb`: a zip archive with `manifest.json`. The host starts the command of its
//! operating system and replaces `${__dirname}` and `${user_config.NAME}` in it.
//!
//! Rules: no secret is written into a bundle; what the user fills in reaches the program as environment variables, never
//! as arguments; equal inputs give equal bytes.

mod programs;
mod zip;

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{
    Arg, ArgAction, ArgMatches, Command, CommandFactory as _, FromArgMatches as _, Parser as _, parser::ValueSource,
};
use mcp_gangway_core::{Config, Error};
use serde_json::{Map, Value, json};
use url::Url;

use self::{
    programs::{Programs, System},
    zip::Entry,
};
use crate::{
    Failure,
    args::{self, Args, BundleArgs},
    files::{self, Time},
    given::{Environment, Given},
    logging,
    settings::Settings,
};

/// The bridge's options that a bundle can fix. The others are secrets or belong to one machine.
const FIXABLE: &[&str] = &[
    "transport",
    "era",
    "allow_tool",
    "deny_tool",
    "concurrency",
    "max_message_size",
    "max_request_size",
    "timeout",
    "max_time",
    "connect_timeout",
    "attach_wait",
    "hold",
    "heartbeat",
    "keep_alive",
    "drain_timeout",
    "http2",
    "pool_size",
    "pool_idle",
    "log_level",
    "no_oauth",
    "no_browser",
    "device",
    "client_id",
    "issuer",
    "client_metadata_url",
    "scope",
    "resource",
    "authorize_param",
    "callback_port",
    "callback_host",
    "callback_path",
    "login_wait",
    "no_keychain",
    "no_cache",
    "escape_separators",
    "merge_pages",
];
/// Headers that are always secret.
const SECRET_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];
const HELP: &str = "mcp-gangway bundle --help";

/// Returns the command line of `mcp-gangway bundle`.
pub(crate) fn command() -> Command {
    BundleArgs::command().args(fixable(&Args::command()))
}

/// Writes the bundle that `args`, without the program and the subcommand, describe.
///
/// # Errors
/// An argument cannot be used, or a file cannot be read or written.
pub(crate) fn run(args: &[OsString]) -> Result<(), Failure> {
    let args = [OsString::from("mcp-gangway bundle")].iter().chain(args).cloned().collect::<Vec<_>>();
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(page) if !page.use_stderr() => return crate::print(&page.render().to_string()),
        Err(error) => return Err(Failure::usage(refused(&error))),
    };
    let typed = BundleArgs::from_arg_matches(&matches).map_err(|error| Failure::usage(refused(&error)))?;
    let fixed = fixed_words(&matches);
    let bundle = Bundle::new(typed, fixed)?;
    let size = bundle.write()?;
    for line in bundle.summary(size) {
        logging::say(&line);
    }
    Ok(())
}

fn fixable(bridge: &Command) -> Vec<Arg> {
    bridge.get_arguments().filter(|arg| FIXABLE.contains(&arg.get_id().as_str())).cloned().collect()
}

/// Returns the bridge's options that were typed, one word each.
fn fixed_words(matches: &ArgMatches) -> Vec<String> {
    let mut words = Vec::new();
    for arg in fixable(&Args::command()) {
        let (id, Some(option)) = (arg.get_id().as_str(), arg.get_long()) else { continue };
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            words.push(format!("--{option}"));
        } else {
            let values = matches.get_many::<String>(id).into_iter().flatten();
            words.extend(values.map(|value| format!("--{option}={value}")));
        }
    }
    words
}

/// Describes an error of clap. An option of the bridge gets the reason why a bundle cannot have it.
fn refused(error: &clap::Error) -> String {
    let bridge = Args::command();
    let option = args::culprit(error).trim_start_matches("--");
    match option {
        "auth" | "auth-command" | "header-file" => format!(
            "--{option}: everyone who has the bundle could read this; ask the user with --ask-token or --ask-header \
             NAME, or turn sign-in off with --no-oauth (see {HELP})"
        ),
        _ if bridge.get_arguments().any(|arg| arg.get_long() == Some(option)) && !is_own(option) => {
            format!("--{option} belongs to one machine, so a bundle cannot fix it; leave it out (see {HELP})")
        }
        _ => args::explain(error, HELP),
    }
}

fn is_own(option: &str) -> bool {
    command().get_arguments().any(|arg| arg.get_long() == Some(option))
}

/// What the user of the bundle is asked for.
struct Question {
    /// Its name in `user_config`.
    key: String,
    /// The variable that the answer goes to, and the text around it.
    variable: &'static str,
    before: String,
    title: String,
    description: String,
    is_required: bool,
    is_secret: bool,
    is_file: bool,
}

impl Question {
    fn new(key: &str, variable: &'static str, title: &str, description: &str) -> Self {
        Self {
            key: key.to_owned(),
            variable,
            before: String::new(),
            title: title.to_owned(),
            description: description.to_owned(),
            is_required: true,
            is_secret: false,
            is_file: false,
        }
    }

    fn secret(self) -> Self {
        Self { is_secret: true, ..self }
    }

    fn optional(self) -> Self {
        Self { is_required: false, ..self }
    }

    fn manifest(&self) -> Value {
        let mut option = json!({
            "type": if self.is_file { "file" } else { "string" },
            "title": self.title,
            "description": self.description,
            "required": self.is_required,
            "sensitive": self.is_secret,
        });
        // Without a default, hosts leave the variable's name in place of the answer.
        if !self.is_required {
            set(&mut option, "default", "".into());
        }
        option
    }
}

fn set(object: &mut Value, name: &str, value: Value) {
    object.as_object_mut().map(|members| members.insert(name.to_owned(), value));
}

/// A bundle to write.
struct Bundle {
    manifest: Value,
    questions: Vec<String>,
    programs: Programs,
    files: Vec<Entry>,
    output: PathBuf,
}

impl Bundle {
    fn new(typed: BundleArgs, fixed: Vec<String>) -> Result<Self, Error> {
        let server = typed.server.as_deref().map(|text| checked_url(text, typed.public)).transpose()?;
        let words = checked_words(server.as_ref(), fixed, &typed)?;
        let questions = questions(server.is_none(), &typed)?;
        let programs = match &typed.binaries {
            Some(folder) => Programs::of_folder(folder)?,
            None => Programs::of_this_system()?,
        };

        let host = server.as_ref().and_then(Url::host_str).map(|host| host.trim_matches(['[', ']']).to_owned());
        let name = match typed.name {
            Some(name) => checked_name(name)?,
            None => host.as_deref().map_or_else(|| "mcp-gangway".to_owned(), name_of_host),
        };
        let described = || match &host {
            Some(host) => format!("Connects to the MCP server at {host}"),
            None => "Connects to an MCP server over HTTP".to_owned(),
        };
        let mut manifest = json!({
            "manifest_version": "0.3",
            "name": name,
            "display_name": typed.display_name.unwrap_or_else(|| name.clone()),
            "version": typed.bundle_version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            "description": typed.description.unwrap_or_else(described),
            "author": {"name": typed.author.or(host).unwrap_or_else(|| "mcp-gangway".to_owned())},
            "server": server_entry(&programs, &words, &questions),
            // The server lists them while it runs.
            "tools_generated": true,
            "prompts_generated": true,
            "compatibility": {"platforms": programs.systems().map(System::name).collect::<Vec<_>>()},
        });
        if !questions.is_empty() {
            let options = questions.iter().map(|question| (question.key.clone(), question.manifest()));
            set(&mut manifest, "user_config", options.collect::<Map<_, _>>().into());
        }

        let mut files = Vec::new();
        if let Some(path) = &typed.icon {
            let bytes = files::read("--icon", path, Time::First)?;
            if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
                return Err(Error::config(format!("--icon: {} is not a PNG file", path.display())));
            }
            set(&mut manifest, "icon", "icon.png".into());
            files.push(Entry::file("icon.png", bytes));
        }
        if let Some(path) = &typed.license {
            files.push(Entry::file("LICENSE", files::read_text("--license", path, Time::First)?.into_bytes()));
        }
        let output = typed.output.unwrap_or_else(|| PathBuf::from(format!("{name}.mcpb")));
        let questions = questions.into_iter().map(|question| question.title).collect();
        Ok(Self { manifest, questions, programs, files, output })
    }

    /// Writes the file and returns its size.
    fn write(&self) -> Result<usize, Failure> {
        let manifest = format!("{:#}\n", self.manifest).into_bytes();
        let mut entries = vec![Entry::file("manifest.json", manifest)];
        entries.extend(self.files.iter().cloned());
        entries.extend(self.programs.entries()?);
        let archive = zip::archive(&mut entries).map_err(|error| Failure::system("cannot make the bundle", &error))?;
        let cannot = |error| Failure::system(&format!("cannot write {}", self.output.display()), &error);
        fs::write(&self.output, &archive).map_err(cannot)?;
        Ok(archive.len())
    }

    /// Says what was written and what to do with it.
    fn summary(&self, size: usize) -> [String; 2] {
        let size = size.div_ceil(100_000);
        let path = Path::new(&self.output).display();
        let mut next =
            "open it with Claude Desktop (Settings > Extensions > Advanced settings > Install Extension), or \
                        hand it to your users"
                .to_owned();
        if !self.questions.is_empty() {
            let _ = write!(next, "; Claude Desktop then asks for: {}", self.questions.join(", "));
        }
        [format!("wrote {path}, {}.{} MB, for {}", size / 10, size % 10, self.programs), next]
    }
}

/// Returns the manifest's `server`: how the host starts the program on each operating system.
fn server_entry(programs: &Programs, words: &[String], questions: &[Question]) -> Value {
    let mut env = Map::new();
    for question in questions {
        let answer = format!("{}${{user_config.{}}}", question.before, question.key);
        let joined = match env.get(question.variable).and_then(Value::as_str) {
            Some(lines) => format!("{lines}\n{answer}"),
            None => answer,
        };
        env.insert(question.variable.to_owned(), joined.into());
    }
    let command = |system: System| format!("${{__dirname}}/{}", system.path());
    let overrides = programs.systems().map(|system| (system.name().to_owned(), json!({"command": command(system)})));
    let first = programs.first();
    json!({
        "type": "binary",
        "entry_point": first.path(),
        "mcp_config": {
            "command": command(first),
            "args": words,
            "env": env,
            "platform_overrides": overrides.collect::<Map<_, _>>(),
        },
    })
}

/// Returns the questions to the user. Without a URL the bundle serves any server.
fn questions(is_general: bool, typed: &BundleArgs) -> Result<Vec<Question>, Error> {
    const TOKEN: &str = "Sent as 'Authorization: Bearer TOKEN'";
    let mut questions = Vec::new();
    if is_general {
        let url = "Address of the MCP server, like https://example.com/mcp";
        // A URL may contain a key, but hidden text is hard to check.
        questions.push(Question::new("url", "MCP_SERVER_URL", "Server URL", url));
    }
    if is_general || typed.ask_token {
        let token = Question::new("token", "MCP_BEARER_TOKEN", "Token", TOKEN).secret();
        questions.push(if typed.ask_token {
            token
        } else {
            let text = format!("{TOKEN}; leave it empty if the server needs none or has you sign in");
            Question { description: text, ..token }.optional()
        });
    }
    if is_general && typed.ask_header.is_empty() {
        let headers = "Other headers for the server, like 'X-Api-Key: abc', one per line";
        questions.push(Question::new("headers", "MCP_HEADERS", "Headers", headers).secret().optional());
        let file = "A text file with such lines, if there are several";
        let file = Question::new("header_file", "MCP_HEADER_FILE", "File with headers", file).optional();
        questions.push(Question { is_file: true, ..file });
    }
    for name in &typed.ask_header {
        let name = name.trim();
        check_header(name, "x").map_err(|error| Given::new("--ask-header", String::new()).mistake(error))?;
        let key: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
        let text = format!("Value of the header {name}");
        let question = Question::new(&format!("header_{key}"), "MCP_HEADERS", name, &text).secret();
        questions.push(Question { before: format!("{name}: "), ..question });
    }
    Ok(questions)
}

/// Checks the server's address and that it holds no secret.
fn checked_url(text: &str, is_public: bool) -> Result<Url, Error> {
    let given = Given::new("URL", text.to_owned());
    let config = Config::new(text).map_err(|error| given.mistake(error))?;
    if config.unix_socket.is_some() {
        return Err(given.mistake("a socket belongs to one machine; give the server's http or https URL"));
    }
    let url = Url::parse(text.trim()).map_err(|error| given.mistake(error))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(given.mistake(
            "everyone who has the bundle could read the user and password in it; leave them out and ask the user with \
             --ask-header Authorization",
        ));
    }
    if url.query().is_some() && !is_public {
        return Err(given.mistake(
            "everyone who has the bundle could read the URL's query; if it is a key, leave it out and ask the user with \
             --ask-token or --ask-header NAME; if it is no secret, add --public",
        ));
    }
    Ok(url)
}

/// Returns the program's arguments. The bridge itself checks them.
fn checked_words(server: Option<&Url>, fixed: Vec<String>, typed: &BundleArgs) -> Result<Vec<String>, Error> {
    let mut words: Vec<String> = server.map(Url::to_string).into_iter().chain(fixed).collect();
    for header in &typed.header {
        let name = header.split_once(':').map_or("NAME", |(name, _)| name.trim());
        let given = Given::new("--header", String::new());
        if SECRET_HEADERS.iter().any(|secret| name.eq_ignore_ascii_case(secret)) || !typed.public {
            return Err(given.mistake(format_args!(
                "everyone who has the bundle could read the value; ask the user with --ask-header {name}{}",
                if typed.public { "" } else { "; if it is no secret, add --public" }
            )));
        }
        words.push(format!("--header={header}"));
    }
    let placeholder = server.is_none().then(|| "https://example.com/mcp".to_owned());
    let line = ["mcp-gangway".to_owned()].into_iter().chain(placeholder).chain(words.iter().cloned());
    let nothing: Environment = Arc::new(|_| None);
    let bridge = Args::try_parse_from(line).map_err(|error| Error::config(args::explain(&error, HELP)))?;
    Settings::new(bridge, Vec::new(), &nothing)?;
    Ok(words)
}

fn check_header(name: &str, value: &str) -> Result<(), Error> {
    Config::new("https://example.com/mcp")?.set_header(name, value)
}

fn checked_name(name: String) -> Result<String, Error> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain) {
        return Ok(name);
    }
    Err(Error::config(format!(
        "--name: {name:?} is not a short name; use letters, digits, hyphens, dots and underscores, and put other text \
         into --display-name"
    )))
}

fn name_of_host(host: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    host.chars().map(plain).collect::<String>().trim_matches('-').to_owned()
}
