//! The manual page and the completions, in the programs that users have for them. Those that are not installed are left
//! out, except for Bash.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::command;

/// Returns what a subcommand prints.
fn printed(args: &[&str]) -> String {
    let output = command(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Runs a program and returns its output. It must not say anything on stderr.
fn output_of(program: &str, args: &[&str]) -> String {
    let own = Path::new(env!("CARGO_BIN_EXE_mcp-gangway")).parent().unwrap();
    let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap());
    let output = Command::new(program).args(args).env("PATH", path).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A command line with the word to complete at its end, and its completions.
const LINES: &[(&[&str], &[&str])] = &[
    (&["bund"], &["bundle"]),
    (&["--transp"], &["--transport"]),
    (&["https://example.com/mcp", "--transport", ""], &["auto", "http", "sse", "sse-first"]),
    (&["bundle", "--ask"], &["--ask-token", "--ask-header"]),
    (&["completions", "e"], &["elvish"]),
];

#[test]
fn bash_completes_words_of_the_command_line() {
    let script = printed(&["completions", "bash"]);
    for (line, expected) in LINES {
        let (current, before) = line.split_last().unwrap();
        let program = format!(
            "{script}
            complete -p mcp-gangway >/dev/null
            COMP_WORDS=(mcp-gangway \"$@\"); COMP_CWORD=$#
            _mcp_gangway mcp-gangway '{current}' '{}'
            printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            before.last().unwrap_or(&"mcp-gangway"),
        );
        let args = [&["--norc", "-euc", &program, "bash"], *line].concat();
        assert_eq!(output_of("bash", &args).lines().collect::<Vec<_>>(), *expected, "{line:?}");
    }
}

/// `_describe` and `_files` need the line editor, so functions take their place.
#[test]
fn zsh_describes_words_of_the_command_line() {
    if !is_installed("zsh") {
        return;
    }
    let script = printed(&["completions", "zsh"]);
    for (line, expected) in LINES {
        let program = format!(
            "compdef() {{ [[ \"$*\" == '_mcp-gangway mcp-gangway' ]] }}
            {script}
            _describe() {{ print -rl -- \"${{(@P)2}}\" }}
            _files() {{ print files }}
            words=(mcp-gangway \"$@\") CURRENT=$(( $# + 1 ))
            _mcp-gangway"
        );
        let args = [&["-f", "-euc", &program, "zsh"], *line].concat();
        let described = output_of("zsh", &args);
        let words: Vec<_> = described.lines().map(|line| line.split_once(':').unwrap().0).collect();
        assert_eq!(words, *expected, "{line:?}");
    }
}

#[test]
fn fish_completes_words_of_the_command_line() {
    if !is_installed("fish") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("mcp-gangway.fish");
    fs::write(&script, printed(&["completions", "fish"])).unwrap();
    for (line, expected) in LINES {
        let program = format!("source {}; complete -C 'mcp-gangway {}'", script.display(), line.join(" "));
        let completed = output_of("fish", &["--no-config", "-c", &program]);
        let mut words: Vec<_> = completed.lines().map(|line| line.split_once('\t').unwrap().0).collect();
        let mut expected = expected.to_vec();
        // Fish sorts them.
        words.sort_unstable();
        expected.sort_unstable();
        assert_eq!(words, expected, "{line:?}");
    }
}

#[test]
fn completions_need_the_name_of_a_shell() {
    for args in [&["completions"][..], &["completions", "tcsh"], &["completions", "bash", "zsh"]] {
        let output = command(args).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(line.contains("bash, zsh, fish, powershell or elvish") && output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn manual_page_has_all_options_and_sections_and_groff_accepts_it() {
    let page = printed(&["man"]);
    let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
    let first = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "ENVIRONMENT", "FILES", "EXIT STATUS"];
    assert_eq!(sections[..first.len()], first);
    assert!(sections.contains(&"EXAMPLES"), "{sections:?}");
    if !is_installed("groff") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mcp-gangway.1");
    fs::write(&file, &page).unwrap();
    // A wide page, so that no option is hyphenated. -ww makes every doubt a message.
    let shown = output_of("groff", &["-ww", "-man", "-Tutf8", "-P-cbou", "-rLL=400n", file.to_str().unwrap()]);
    let help = printed(&["--help"]) + &printed(&["bundle", "--help"]);
    let options = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
    let mut count = 0;
    for option in options {
        // A value that may be left out is in brackets.
        let option = option.split('[').next().unwrap_or_default();
        let option = option.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        assert!(shown.contains(option), "{option} is not in {shown}");
        count += 1;
    }
    assert!(count > 50, "{help}");
    assert!(shown.contains("'Authorization: Bearer ${TOKEN}'"), "{shown}");
}
