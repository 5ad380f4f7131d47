//! Runs the commands of the user that print one line: `--auth-command` the value of the Authorization header,
//! `--url-command` the address of the server.
//!
//! Rules: no shell; its output, including its stderr, never reaches the client, the log or an error; it cannot read
//! the client's input; it has 30 s.

use std::{process::Stdio, time::Duration};

use mcp_gangway_core::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, copy, sink},
    process::Command,
    time::timeout,
};

/// The time limit. The user may have to confirm on another device.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest line that is read, in bytes. Servers accept 8 to 16 KiB of headers.
const LONGEST: u64 = 64 << 10;

/// A command line, split into words.
pub(crate) struct UserCommand {
    /// The option or variable that gave it.
    from: String,
    program: String,
    arguments: Vec<String>,
}

impl UserCommand {
    /// Parses a command line.
    ///
    /// # Errors
    /// There is no command, or a quote is not closed.
    pub(crate) fn new(from: &str, text: &str) -> Result<Self, Error> {
        let mut words = words(text).map_err(|what| Error::config(format!("{from}: {what}")))?.into_iter();
        let program = words.next().ok_or_else(|| Error::config(format!("{from}: there is no command")))?;
        Ok(Self { from: from.to_owned(), program, arguments: words.collect() })
    }

    pub(crate) fn from(&self) -> &str {
        &self.from
    }

    /// Runs the command and returns the first line of its output, trimmed.
    ///
    /// # Errors
    /// It cannot be run, fails, takes too long, or prints no usable line.
    pub(crate) async fn run(&self) -> Result<String, Error> {
        let output = timeout(LIMIT, self.first_line()).await;
        output.unwrap_or_else(|_| Err(self.failure(format_args!("took longer than {} s", LIMIT.as_secs()))))
    }

    async fn first_line(&self) -> Result<String, Error> {
        let mut command = Command::new(self.executable());
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // A caller that stops waiting ends the command.
        command.kill_on_drop(true);
        #[cfg(windows)]
        command.creation_flags(/* CREATE_NO_WINDOW */ 0x0800_0000);
        let mut child = command.spawn().map_err(|error| self.failure(format_args!("cannot be started: {error}")))?;
        let stdout = child.stdout.take().ok_or_else(|| self.failure(format_args!("has no output")))?;
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        (&mut stdout)
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .await
            .map_err(|error| self.failure(format_args!("cannot be read: {error}")))?;
        // Discard the rest, so that the command does not block. A child of its own may keep the pipe open.
        let mut rest = sink();
        let rest = copy(&mut stdout, &mut rest);
        tokio::pin!(rest);
        let status = tokio::select! {
            status = child.wait() => status,
            _ = &mut rest => child.wait().await,
        };
        let status = status.map_err(|error| self.failure(format_args!("cannot be waited for: {error}")))?;
        if !status.success() {
            return Err(self.failure(format_args!("failed ({status}); run it in a terminal to see why")));
        }
        let line = String::from_utf8(line).map_err(|_| self.failure(format_args!("printed no UTF-8 text")))?;
        match line.trim() {
            "" => Err(self.failure(format_args!("printed nothing in its first line"))),
            _ if line.len() as u64 >= LONGEST => Err(self.failure(format_args!("printed a line without end"))),
            value => Ok(value.to_owned()),
        }
    }

    /// Finds the program as a shell does. By itself `Command` finds only `.exe` files, but many tools are `.cmd` files.
    #[cfg(windows)]
    fn executable(&self) -> std::path::PathBuf {
        which::which(&self.program).unwrap_or_else(|_| self.program.clone().into())
    }

    #[cfg(not(windows))]
    fn executable(&self) -> &str {
        &self.program
    }

    fn failure(&self, what: std::fmt::Arguments<'_>) -> Error {
        Error::config(format!("{}: the command {what}", self.from))
    }
}

/// Splits at white space like a shell, with quotes and backslashes, but expands nothing. On Windows a backslash is an
/// ordinary character, because paths contain it.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    const OPEN: &str = "a quote is not closed";
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(OPEN)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(OPEN)? {
                        '"' => break,
                        '\\' if !cfg!(windows) => {
                            let escaped = chars.next_if(|next| matches!(next, '"' | '\\' | '$' | '`'));
                            word.push(escaped.unwrap_or('\\'));
                        }
                        c => word.push(c),
                    }
                }
            }
            '\\' if !cfg!(windows) => {
                word.get_or_insert_default().push(chars.next().ok_or("there is nothing after the last backslash")?);
            }
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_command_is_split_into_words_with_shell_quoting() {
        for (text, expected) in [
            ("", &[][..]),
            ("  a  b\t\nc ", &["a", "b", "c"]),
            ("a 'b c' \"d e\"", &["a", "b c", "d e"]),
            ("a''b \"\" ''", &["ab", "", ""]),
            ("pre'fix 'in\"it's\"", &["prefix init's"]),
            ("'$HOME' `x` a|b;c #d", &["$HOME", "`x`", "a|b;c", "#d"]),
        ] {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
        #[cfg(not(windows))]
        for (text, expected) in
            [(r"a\ b \'c", &["a b", "'c"][..]), (r#""a\"b\n\\" '\'"#, &[r#"a"b\n\"#, r"\"]), (r#""\$x""#, &["$x"])]
        {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
        #[cfg(windows)]
        assert_eq!(words(r#""C:\Program Files\x.exe" C:\y"#).unwrap(), [r"C:\Program Files\x.exe", r"C:\y"]);
        for open in ["'", "a 'b", "a \"b", "\"'"] {
            assert!(UserCommand::new("--auth-command", open).is_err(), "{open}");
        }
        assert!(UserCommand::new("--auth-command", " ").is_err());
    }

    #[cfg(unix)]
    async fn output_of(script: &str) -> Result<String, String> {
        let command = UserCommand::new("--auth-command", &format!("/bin/sh -c '{script}'")).unwrap();
        command.run().await.map_err(|error| {
            assert!(error.is_config() && error.detail().is_none(), "{error:?}");
            error.to_string()
        })
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn auth_command_value_is_the_trimmed_first_output_line() {
        assert_eq!(output_of("echo Bearer a").await.unwrap(), "Bearer a");
        assert_eq!(output_of(r#"printf "  Bearer b \r\nmore""#).await.unwrap(), "Bearer b");
        // It prints more than a pipe holds, reads stdin, and leaves a background process.
        assert_eq!(output_of("echo c; yes | head -n 200000; cat; sleep 5 & exit 0").await.unwrap(), "c");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn auth_command_errors_do_not_contain_its_output() {
        for (script, part) in [
            ("echo hunter2; echo hunter2 >&2; exit 3", "exit status: 3"),
            ("echo hunter2; kill -9 $$", "signal: 9"),
            ("exit 0", "printed nothing"),
            ("echo; echo hunter2", "printed nothing"),
            (r#"printf "hunter2\377""#, "UTF-8"),
            ("yes hunter2 | tr -d \"\\n\" | head -c 70000", "without end"),
        ] {
            let line = output_of(script).await.unwrap_err();
            assert!(line.starts_with("--auth-command: the command ") && line.contains(part), "{line}");
            assert!(!line.contains("hunter2"), "{line}");
        }
        let missing = UserCommand::new("MCP_AUTH_COMMAND", "/hunter2/does/not/exist x").unwrap();
        let line = missing.run().await.unwrap_err().to_string();
        assert!(line.starts_with("MCP_AUTH_COMMAND: the command cannot be started: ") && !line.contains("hunter2"));
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn auth_command_times_out_after_30_seconds() {
        let command = UserCommand::new("--auth-command", "sleep 3600").unwrap();
        assert!(command.run().await.unwrap_err().to_string().contains("longer than 30 s"));
    }
}
