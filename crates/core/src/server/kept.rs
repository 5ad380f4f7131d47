//! Keeps what the server says about itself, for the next start: its answer to the handshake, and its lists of tools,
//! prompts and resources. A client that starts before its server gets these ([`crate::call::attachment`]).
//!
//! Rules:
//! - Only capabilities, server info, instructions and lists are kept, never an answer to a call. There is one file for
//!   each URL with its headers. Its name is a hash.
//! - The text is the server's, so it is limited in size, and read with the same checks as a message of the server.
//! - A text that repeats a secret is not kept.
//! - The file is a JSON-RPC response per line. The `id` says what it answers.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    config::Config,
    folder::{Folder, name_of},
    json::splice::{Member, Object},
    text::repeats_secret,
    wire::{
        id::Id,
        line::blank_line_breaks,
        message::{Kind, Message},
        revision::{Era, SERVER_INFO},
    },
};

/// The extension of the files.
const EXTENSION: &str = "kept";
/// The most files in the folder. The oldest ones are removed.
const MAX_FILES: usize = 64;
/// The largest text that is kept of one answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// The largest text of all answers together, in bytes.
const MAX_TOTAL: usize = 3 << 20;
/// The most answers, which are mostly pages of lists.
const MAX_ANSWERS: usize = 256;
/// The methods that list something, and the member of the result that has the list.
const LISTS: [(&str, &str); 4] = [
    ("tools/list", "tools"),
    ("prompts/list", "prompts"),
    ("resources/list", "resources"),
    ("resources/templates/list", "resourceTemplates"),
];

/// What the server said last time, in this process or an earlier one.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The folder and the name of the file; `None` if nothing is kept.
    file: Option<(Folder, String)>,
    answers: Mutex<Answers>,
}

#[derive(Debug, Default)]
struct Answers {
    /// The text of each result, by what it answers.
    all: BTreeMap<String, String>,
    /// The file has been read.
    is_read: bool,
    /// The answers differ from those in the file.
    is_changed: bool,
}

impl Kept {
    /// Reads nothing yet.
    pub(crate) fn new(config: &Config) -> Self {
        let file = config.state_folder.clone().map(|folder| (Folder::new(folder), file_name(config)));
        Self { file, answers: Mutex::default() }
    }

    /// Reads the file, unless that was done. What this process has learnt is newer and stays.
    pub(crate) async fn read(&self) {
        let Some((folder, name)) = self.file.as_ref().filter(|_| !self.lock().is_read) else { return };
        let text = match folder.read(name).await {
            Ok(text) => text,
            Err(error) => {
                tracing::debug!(%error, "nothing is kept of what the server said last time");
                Vec::new()
            }
        };
        let mut answers = self.lock();
        if std::mem::replace(&mut answers.is_read, true) {
            return;
        }
        let lines = text.split(|&byte| byte == b'\n').take(MAX_ANSWERS);
        for line in lines.filter_map(|line| Message::one(line.to_vec())) {
            let key = line.id().and_then(|id| serde_json::from_str::<String>(id.as_str()).ok());
            if let (Some(key), Some(result)) = (key, line.result()) {
                answers.all.entry(key).or_insert_with(|| result.as_str().to_owned());
            }
        }
    }

    /// Learns from the answer to a request. Returns true if there is something new to write.
    pub(crate) fn learn(&self, request: &Message, answer: &Message) -> bool {
        if self.file.is_none() || answer.is_spooled() || !says_something(request.method()) {
            return false;
        }
        let Some(key) = key(request) else { return false };
        let Some(text) = answer.result().and_then(|result| reduced(request.method(), result)) else { return false };
        let mut answers = self.lock();
        if answers.all.get(&key) == Some(&text) || repeats_secret(&text) {
            return false;
        }
        if cursor(request).is_none() {
            // The pages after a first one that has changed are those of another list.
            let page = format!("{key} ");
            answers.all.retain(|other, _| !other.starts_with(&page));
        }
        answers.all.remove(&key);
        let total: usize = answers.all.values().map(String::len).sum();
        if text.len() <= MAX_ANSWER && total + text.len() <= MAX_TOTAL && answers.all.len() < MAX_ANSWERS {
            answers.all.insert(key, text);
        }
        !std::mem::replace(&mut answers.is_changed, true)
    }

    /// Writes the file, if there is something new.
    pub(crate) async fn write(&self) {
        let Some((folder, name)) = self.file.as_ref().filter(|_| self.lock().is_changed) else { return };
        self.read().await;
        let text = {
            let mut answers = self.lock();
            answers.is_changed = false;
            let line = |(key, result): (&String, &String)| {
                format!(
                    "{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}\n",
                    serde_json::Value::from(key.as_str())
                )
            };
            answers.all.iter().map(line).collect::<String>()
        };
        let written = folder.write(name, text.into_bytes()).await;
        if let Err(error) = written.and(folder.prune(EXTENSION, MAX_FILES).await) {
            tracing::debug!(%error, "what the server says is not kept");
        }
    }

    /// Returns the result that the server gave to such a request last time.
    pub(crate) fn result(&self, request: &Message) -> Option<String> {
        self.lock().all.get(&key(request)?).cloned()
    }

    /// True if the server answered a handshake of this era last time.
    pub(crate) fn has_handshake(&self, era: Era) -> bool {
        let method = if era == Era::Modern { "server/discover" } else { "initialize" };
        self.lock().all.contains_key(&format!("{} {method}", name(era)))
    }

    /// True if the answer to a request is the one that the server gave last time.
    pub(crate) fn is_unchanged(&self, request: &Message, answer: &Message) -> bool {
        let text = answer.result().and_then(|result| reduced(request.method(), result));
        text.is_some() && text == self.result(request)
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the member of the result that has the list, if the method lists something.
pub(crate) fn list_member(method: &str) -> Option<&'static str> {
    LISTS.iter().find(|(list, _)| *list == method).map(|(_, member)| *member)
}

fn says_something(method: &str) -> bool {
    matches!(method, "initialize" | "server/discover") || list_member(method).is_some()
}

/// Returns the name of the file: a hash of everything that chooses the server and the user.
fn file_name(config: &Config) -> String {
    let socket = config.unix_socket.as_ref().map(|path| path.display().to_string());
    let headers = config
        .headers()
        .iter()
        .map(|(name, value)| Some(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))));
    let address = match &config.url_source {
        Some(source) => [Some(source.name.clone()), None],
        None => [Some(config.url.as_url().to_string()), socket],
    };
    let parts = address.into_iter().chain(headers);
    format!("{}.{EXTENSION}", name_of(parts))
}

/// Returns what an answer is kept under: the era, the method, and the cursor of a page.
fn key(request: &Message) -> Option<String> {
    if request.kind() != Kind::Request {
        return None;
    }
    let key = format!("{} {}", name(request.era()), request.method());
    let key = cursor(request).map_or(key.clone(), |cursor| format!("{key} {cursor}"));
    // A key is the id of a line, and must be valid as such.
    Id::read(serde_json::Value::from(key.as_str()).to_string().into()).map(|_| key)
}

fn cursor(request: &Message) -> Option<&str> {
    request.params()?.get("cursor").filter(|cursor| *cursor != "null")
}

fn name(era: Era) -> &'static str {
    if era == Era::Modern { "modern" } else { "legacy" }
}

/// Returns the members of a result that are kept, on one line.
fn reduced(method: &str, result: Object<'_>) -> Option<String> {
    let list = list_member(method);
    let names: &[&str] = match list {
        Some(list) => &[list, "nextCursor", "resultType"],
        None => &["protocolVersion", "supportedVersions", "capabilities", "serverInfo", "instructions"],
    };
    let is_kept = |member: &Member<'_>| names.iter().any(|name| member.is(name));
    let mut members: Vec<_> =
        result.members().filter(is_kept).map(|member| format!("{}:{}", member.written_name(), member.value)).collect();
    let info = result.object("_meta").and_then(|meta| meta.get(SERVER_INFO)).filter(|_| list.is_none());
    members.extend(info.map(|info| format!("\"_meta\":{{\"{SERVER_INFO}\":{info}}}")));
    let mut text = format!("{{{}}}", members.join(",")).into_bytes();
    blank_line_breaks(&mut text);
    String::from_utf8(text).ok().filter(|_| list.is_none_or(|list| result.get(list).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::one(text.to_owned()).unwrap()
    }

    fn kept(folder: &std::path::Path) -> Kept {
        let mut config = Config::new("https://example.com/mcp").unwrap();
        config.state_folder = Some(folder.to_owned());
        Kept::new(&config)
    }

    fn list(cursor: &str) -> Message {
        message(&format!(r#"{{"id":1,"method":"tools/list","params":{{"cursor":{cursor}}}}}"#))
    }

    fn tools(tools: &str) -> Message {
        message(&format!("{{\"id\":1,\"result\":{{\"tools\":[{tools}],\n\"_meta\":{{}}}}}}"))
    }

    #[tokio::test]
    async fn answers_are_kept_without_what_is_not_needed_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let one = kept(folder.path());
        one.read().await;
        assert!(one.learn(&list("null"), &tools("1e400")));
        assert!(!one.learn(&list("\"a\\n\""), &tools("2")), "to be written already");
        assert!(!one.learn(&message(r#"{"id":1,"method":"tools/call"}"#), &tools("3")), "no call is kept");
        assert!(!one.learn(&list("null"), &message(r#"{"id":1,"error":{"code":1,"message":"m"}}"#)));
        one.write().await;
        let two = kept(folder.path());
        assert_eq!(two.result(&list("null")), None, "nothing is read before it is needed");
        two.read().await;
        assert_eq!(two.result(&list("null")).unwrap(), r#"{"tools":[1e400]}"#);
        assert_eq!(two.result(&list("\"a\\n\"")).unwrap(), r#"{"tools":[2]}"#);
        assert!(two.is_unchanged(&list("null"), &tools("1e400")) && !two.is_unchanged(&list("null"), &tools("1")));
        // Another first page begins another list.
        assert!(two.learn(&list("null"), &tools("4")));
        assert_eq!(two.result(&list("\"a\\n\"")), None);
        assert!(!two.has_handshake(Era::Legacy));
    }

    #[tokio::test]
    async fn answers_over_the_limits_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let kept = kept(folder.path());
        kept.learn(&list("null"), &tools("1"));
        kept.learn(&list("null"), &tools(&format!("\"{}\"", "a".repeat(MAX_ANSWER))));
        assert_eq!(kept.result(&list("null")), None, "the old list is not the server's any more");
        for page in 0..2 * MAX_ANSWERS {
            kept.learn(&list(&page.to_string()), &tools("1"));
        }
        assert_eq!(kept.lock().all.len(), MAX_ANSWERS);
        let half = format!("\"{}\"", "a".repeat(MAX_ANSWER / 2));
        for page in 0..10 {
            kept.learn(&list(&page.to_string()), &tools(&half));
        }
        assert!(kept.lock().all.values().map(String::len).sum::<usize>() <= MAX_TOTAL);
        kept.learn(&list(&format!("\"{}\"", "c".repeat(5000))), &tools("1"));
        kept.write().await;
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        assert!(file.metadata().unwrap().len() < 4 << 20);
    }
}
