//! `mcp-gangway completions SHELL`: prints a script that has the shell ask this program for completions.
//!
//! The scripts know no options. At each request they call `mcp-gangway complete =CURRENT BEFORE...`, with the word at the
//! cursor and the words before it. It prints one completion per line: the word, a tab, its description. If it prints
//! nothing, the shell completes file names. So a script fits every version of the program. The equals sign is there
//! because old versions of PowerShell drop empty arguments.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use crate::{Failure, args::Args, bundle};

const BASH: &str = r#"_mcp_gangway() {
    local IFS=$'\n'
    COMPREPLY=($("${1/#\~/$HOME}" complete "=$2" "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]%%$'\t'*}")
}
complete -o default -F _mcp_gangway mcp-gangway
"#;

/// The file that zsh loads by itself is `_mcp-gangway`, so the function has that name.
const ZSH: &str = r#"#compdef mcp-gangway
_mcp-gangway() {
    local -a lines
    lines=("${(@f)$(${~words[1]} complete "=${(Q)words[CURRENT]}" "${(@Q)words[2,CURRENT-1]}" 2>/dev/null)}")
    if [[ -z $lines[1] ]]; then
        _files
        return
    fi
    lines=("${(@)lines//:/\\:}")
    lines=("${(@)lines/$'\t'/:}")
    _describe mcp-gangway lines
}
if [[ ${funcstack[1]-} == _mcp-gangway ]]; then
    _mcp-gangway "$@"
else
    compdef _mcp-gangway mcp-gangway
fi
"#;

const FISH: &str = r#"function __mcp_gangway
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l lines ($before[1] complete "=$current" $before[2..-1] 2>/dev/null)
    if set -q lines[1]
        printf '%s\n' $lines
    else
        __fish_complete_path "$current"
    end
end
complete -c mcp-gangway -f -a '(__mcp_gangway)'
"#;

const POWERSHELL: &str = r#"Register-ArgumentCompleter -Native -CommandName 'mcp-gangway', 'mcp-gangway.exe' -ScriptBlock {
    param($current, $line, $cursor)
    $before = @($line.CommandElements | Where-Object { $_.Extent.EndOffset -lt $cursor } |
        Select-Object -Skip 1 | ForEach-Object { $_.Extent.Text })
    & $line.GetCommandName() complete "=$current" @before 2>$null | ForEach-Object {
        $word, $description = $_ -split "`t", 2
        [System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $description)
    }
}
"#;

const ELVISH: &str = r#"use str
set edit:completion:arg-completer[mcp-gangway] = {|command @words|
    var lines = [(try { (external $command) complete '='$words[-1] (all $words[..-1]) 2>/dev/null | from-lines } catch error { nop })]
    if (eq $lines []) {
        edit:complete-filename $command $@words
    }
    for line $lines {
        var word description = (str:split "\t" $line)
        edit:complex-candidate $word &display=$word' ('$description')'
    }
}
"#;

/// The shells and their scripts.
const SHELLS: [(&str, &str); 5] =
    [("bash", BASH), ("zsh", ZSH), ("fish", FISH), ("powershell", POWERSHELL), ("elvish", ELVISH)];

const SUBCOMMANDS: &[(&str, &str)] = &[
    #[cfg(feature = "oauth")]
    ("login", "sign in ahead of time"),
    #[cfg(feature = "oauth")]
    ("logout", "sign out"),
    #[cfg(feature = "oauth")]
    ("status", "show the sign-in"),
    ("doctor", "find out why a server does not work"),
    ("bundle", "write an extension for Claude Desktop"),
    ("completions", "print completions for a shell"),
    ("man", "print the manual page"),
];

/// The values of options that take one of a few words.
const VALUES: &[(&str, &[&str])] = &[
    ("transport", &["auto", "http", "sse", "sse-first"]),
    ("era", &["auto", "modern", "legacy"]),
    ("log-level", &["off", "error", "warn", "info", "debug", "trace"]),
    ("log-format", &["text", "json"]),
];

/// Prints the script for the shell that is the only argument.
///
/// # Errors
/// It is no shell, or stdout cannot be written to.
pub(crate) fn run(args: &[OsString]) -> Result<(), Failure> {
    let shell = match args {
        [shell] => shell.to_str(),
        _ => None,
    };
    match SHELLS.iter().find(|(name, _)| Some(*name) == shell) {
        Some((_, script)) => crate::print(script),
        None => Err(Failure::usage(
            "completions: name one shell: bash, zsh, fish, powershell or elvish, as in 'mcp-gangway completions bash'"
                .to_owned(),
        )),
    }
}

/// Prints the completions of a command line, as the scripts ask for them.
///
/// # Errors
/// Stdout cannot be written to.
pub(crate) fn complete(args: &[OsString]) -> Result<(), Failure> {
    let mut words = args.iter().map(|word| word.to_string_lossy());
    let current = words.next().unwrap_or_default();
    let before: Vec<_> = words.collect();
    let before: Vec<_> = before.iter().map(AsRef::as_ref).collect();
    crate::print(&candidates(current.strip_prefix('=').unwrap_or(&current), &before))
}

/// Returns the completions of `current`, which follows the words `before`.
fn candidates(current: &str, before: &[&str]) -> String {
    let command = match before.first() {
        Some(&"man") => return String::new(),
        Some(&"completions") => {
            let names = SHELLS.map(|(name, _)| (name.to_owned(), "shell".to_owned()));
            return lines(names.into_iter().filter(|_| before.len() == 1), current);
        }
        Some(&"bundle") => bundle::command(),
        _ => Args::command(),
    };
    // Bash splits --option=value into three words.
    let (option, prefix, current) = match (before, current.split_once('=')) {
        (_, Some((option, _))) if option.starts_with("--") => (Some(option), format!("{option}="), current),
        ([.., option], Some(("", _))) => (Some(*option), String::new(), ""),
        ([.., option, "="] | [.., option], _) => (Some(*option), String::new(), current),
        ([], _) => (None, String::new(), current),
    };
    if let Some(name) = option.and_then(|option| option_with_value(&command, option)) {
        let values = VALUES.iter().find(|(option, _)| *option == name).map_or(&[][..], |(_, values)| values);
        return lines(values.iter().map(|value| (format!("{prefix}{value}"), format!("value of --{name}"))), current);
    }
    let subcommands = SUBCOMMANDS.iter().map(|(name, what)| ((*name).to_owned(), (*what).to_owned()));
    let subcommands = subcommands.filter(|_| before.is_empty() && !current.starts_with('-'));
    let options = command.get_arguments().filter_map(|arg| Some((format!("--{}", arg.get_long()?), description(arg))));
    let help = [("--help".to_owned(), "Print help".to_owned())];
    let options = options.chain(help).filter(|_| !before.is_empty() || current.starts_with('-'));
    lines(subcommands.chain(options), current)
}

/// Returns the name of the option if the next word is its value.
fn option_with_value<'a>(command: &Command, option: &'a str) -> Option<&'a str> {
    let name = option.strip_prefix("--")?;
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(name))?;
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    (takes_value && !arg.is_require_equals_set()).then_some(name)
}

/// The first part of the option's help.
fn description(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let end = [" [", "; "].iter().filter_map(|end| help.find(end)).min().unwrap_or(help.len());
    help.get(..end).unwrap_or_default().to_owned()
}

fn lines(candidates: impl IntoIterator<Item = (String, String)>, current: &str) -> String {
    let fitting = candidates.into_iter().filter(|(word, _)| word.starts_with(current));
    fitting.flat_map(|(word, what)| [word, "\t".to_owned(), what, "\n".to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the completed words of a command line whose last word is at the cursor.
    fn completed(line: &[&str]) -> Vec<String> {
        let (current, before) = line.split_last().unwrap();
        let lines = candidates(current, before);
        assert!(lines.lines().all(|line| line.split('\t').count() == 2 && !line.ends_with('\t')), "{lines}");
        lines.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn completions_follow_the_words_before_the_cursor() {
        for (line, expected) in [
            (&["bu"][..], &["bundle"][..]),
            (&["--transp"], &["--transport"]),
            (&["--transport", "s"], &["sse", "sse-first"]),
            (&["--transport=s"], &["--transport=sse", "--transport=sse-first"]),
            // As bash splits it.
            (&["--transport", "="], &["auto", "http", "sse", "sse-first"]),
            (&["--transport", "=", "h"], &["http"]),
            (&["https://a/mcp", "--log-f"], &["--log-file", "--log-format"]),
            (&["bundle", "--ask"], &["--ask-token", "--ask-header"]),
            (
                &["bundle", "--auth"],
                if cfg!(feature = "oauth") { &["--author", "--authorize-param"] } else { &["--author"] },
            ),
            (&["completions", "p"], &["powershell"]),
            // Files, or nothing.
            (&["--ca-cert", ""], &[]),
            (&["completions", "bash", ""], &[]),
            (&["man", ""], &[]),
            (&["https"], &[]),
        ] {
            assert_eq!(completed(line), expected, "{line:?}");
        }
        let first = completed(&[""]);
        assert!(first.contains(&"man".to_owned()) && !first.iter().any(|word| word.starts_with('-')), "{first:?}");
        let later = completed(&["https://a/mcp", ""]);
        assert!(later.contains(&"--help".to_owned()) && later.contains(&"--insecure".to_owned()), "{later:?}");
        assert!(completed(&["--insecure", ""]).contains(&"--url".to_owned()));
    }
}
