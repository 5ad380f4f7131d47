//! `mcp-gangway man`: the manual page in roff, made from the definitions of the command line.
//!
//! Rule: every character shows as it is typed, so that examples can be copied; the page has no date, so that equal
//! programs print equal pages.

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use crate::{
    args::{Args, SECTIONS, USAGE},
    bundle,
};

const FILES: &str = "
  ~/.local/state/mcp-gangway                          the state folder (Linux; or in $XDG_STATE_HOME)
  ~/Library/Application Support/mcp-gangway           the same on macOS
  %LOCALAPPDATA%\\mcp-gangway                          the same on Windows
  It has what servers said about themselves, and sign-ins if there is no keychain. --state-folder names another folder.";

/// Returns the page.
pub(crate) fn page() -> String {
    let (mut bridge, mut bundle) = (Args::command(), bundle::command());
    // Adds --help and --version.
    bridge.build();
    bundle.build();
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(".TH MCP-GANGWAY 1 \"\" \"mcp-gangway {version}\" \"User Commands\"\n.SH NAME\n");
    page += &text(&format!("mcp-gangway - {}", env!("CARGO_PKG_DESCRIPTION")));
    page += ".SH SYNOPSIS\n";
    page += &verbatim(&USAGE.replace("       ", ""));
    page += ".SH DESCRIPTION\n";
    page += &text(&bridge.get_about().map(ToString::to_string).unwrap_or_default());
    page += ".SH OPTIONS\n";
    page += &options(&bridge, &[]);
    let section = |title: &str| {
        let own = SECTIONS.split("\n\n").find_map(|section| section.strip_prefix(title)?.strip_prefix(':'));
        format!(".SH {}\n{}", escaped(&title.to_uppercase()), verbatim(own.unwrap_or_default()))
    };
    page += &section("Commands");
    page += ".SS Options of bundle\n";
    page += &text(&bundle.get_about().map(ToString::to_string).unwrap_or_default());
    page += ".PP\nMost options of the bridge can be fixed too. These are its own:\n";
    let shared: Vec<_> = bridge.get_arguments().filter_map(Arg::get_long).filter(|name| *name != "header").collect();
    page += &options(&bundle, &shared);
    page += &section("Environment");
    page += ".SH FILES\n";
    page += &verbatim(FILES);
    for title in ["Exit status", "Examples", "In an MCP client's configuration", "Other bridges"] {
        page += &section(title);
    }
    page
}

/// Returns the options, except those named, under their headings.
fn options(command: &Command, without: &[&str]) -> String {
    let mut page = String::new();
    let mut heading = None;
    for arg in command.get_arguments() {
        if arg.get_long().is_some_and(|name| without.contains(&name)) || arg.is_hide_set() {
            continue;
        }
        if arg.get_help_heading() != heading {
            heading = arg.get_help_heading();
            page += &[".SS ", &escaped(heading.unwrap_or("General")), "\n"].concat();
        }
        let value = arg.get_value_names().and_then(|names| names.first()).map(|name| escaped(name));
        let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
        let short = arg.get_short().map(|short| format!("\\fB\\-{short}\\fR, ")).unwrap_or_default();
        let name = match (arg.get_long(), value.filter(|_| takes_value)) {
            (Some(long), Some(value)) if arg.is_require_equals_set() => {
                format!("{short}\\fB\\-\\-{}\\fR[=\\fI{value}\\fR]", escaped(long))
            }
            (Some(long), Some(value)) => format!("{short}\\fB\\-\\-{}\\fR \\fI{value}\\fR", escaped(long)),
            (Some(long), None) => format!("{short}\\fB\\-\\-{}\\fR", escaped(long)),
            (None, value) => format!("\\fI{}\\fR", value.unwrap_or_default()),
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        page += &[".TP\n", &name, "\n", &text(&help)].concat();
    }
    page
}

/// Returns a paragraph, which roff fills.
fn text(paragraph: &str) -> String {
    format!("\\&{}\n", escaped(paragraph))
}

/// Returns lines that roff leaves as they are.
fn verbatim(lines: &str) -> String {
    let lines: String = lines.trim_start_matches('\n').lines().map(text).collect();
    format!(".nf\n{lines}.fi\n")
}

/// Escapes what roff would take for commands or show as another character.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out += "\\(rs",
            '-' => out += "\\-",
            '\'' => out += "\\(aq",
            '`' => out += "\\(ga",
            '^' => out += "\\(ha",
            '~' => out += "\\(ti",
            c if c.is_ascii() => out.push(c),
            c => out.extend(["\\[u", &format!("{:04X}", u32::from(c)), "]"]),
        }
    }
    out
}
