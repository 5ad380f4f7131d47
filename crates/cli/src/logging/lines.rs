//! Formats events as lines of the log, in text or JSON.
//!
//! Rule: an event may contain text from a peer, so each field passes through [`mcp_gangway_core::text`], even the
//! fields of other crates' events. A field stays on its line, contains no control characters and no known secret, and
//! has a maximum length. Events of `info` and above are also limited in number (`flood`); below that each event is
//! logged, because the user asked for it.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use mcp_gangway_core::text::{excerpt, excerpt_read_limit};
use serde_json::{Map, Value};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    fmt::{
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::Context,
};

use super::{
    flood::{Flood, SuppressedLines, Verdict},
    sink::Sink,
};

/// The longest field, in bytes. The errors of this project are shorter.
const MAX_FIELD_BYTES: usize = 1024;
/// The longest excerpt of a counted message, in bytes.
const MAX_REMINDER_BYTES: usize = 256;

/// The layer that writes events to the sink.
pub(super) struct Lines(Arc<Shared>);

struct Shared {
    sink: Sink,
    is_json: bool,
    flood: Mutex<Flood>,
}

impl Lines {
    pub(super) fn new(sink: Sink, is_json: bool) -> Self {
        Self(Arc::new(Shared { sink, is_json, flood: Mutex::default() }))
    }

    /// Logs all counts of suppressed lines, even of periods that are not over.
    pub(super) fn log_all_suppressed(&self) {
        self.0.tell(None);
    }

    /// Acts on a verdict. Returns true if the line may be logged.
    fn heeds(&self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Say => return true,
            Verdict::Count => {}
            Verdict::CountUntil(then) => {
                let shared = Arc::clone(&self.0);
                // Without a runtime, the next event or `finish` logs the count.
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(async move {
                        tokio::time::sleep_until(then.into()).await;
                        shared.tell(Some(Instant::now()));
                    });
                }
            }
        }
        false
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (metadata, shared) = (event.metadata(), &self.0);
        if *metadata.level() > Level::INFO {
            return shared.write(metadata, &shared.text(&Fields::of(event)));
        }
        let now = Instant::now();
        shared.tell(Some(now));
        // The lock is released while the event is formatted, because that runs code of other crates.
        let verdict = shared.flood().take(metadata, now);
        if !self.heeds(verdict) {
            return;
        }
        let fields = Fields::of(event);
        let text = shared.text(&fields);
        let verdict = shared.flood().judge(metadata, &text, &excerpt(&fields.message, MAX_REMINDER_BYTES));
        if self.heeds(verdict) {
            shared.write(metadata, &text);
        }
    }
}

impl Shared {
    fn flood(&self) -> MutexGuard<'_, Flood> {
        self.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs the counts of the periods that are over.
    fn tell(&self, now: Option<Instant>) {
        let unsaid = self.flood().unsaid(now);
        for SuppressedLines { metadata, count, message } in unsaid {
            let message = format!("{count} more like it: {message}");
            // In JSON, the number is also a field.
            let rest = if self.is_json { vec![("count", count.into(), false)] } else { Vec::new() };
            self.write(metadata, &self.text(&Fields { message, rest }));
        }
    }

    /// Formats a line without its time, level and target.
    fn text(&self, fields: &Fields) -> String {
        if self.is_json {
            let rest = fields.rest.iter().map(|(name, value, _)| ((*name).to_owned(), value.clone()));
            let message = ("message".to_owned(), Value::from(fields.message.as_str()));
            return Value::from(rest.chain([message]).collect::<Map<_, _>>()).to_string();
        }
        let mut text = fields.message.clone();
        for (name, value, is_quoted) in &fields.rest {
            // Writing to a string cannot fail.
            let _ = match value {
                Value::String(value) if !is_quoted => write!(text, " {name}={value}"),
                value => write!(text, " {name}={value}"),
            };
        }
        text
    }

    fn write(&self, metadata: &Metadata<'_>, text: &str) {
        let mut time = String::new();
        // If the time cannot be formatted, write the line without it.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let (level, target) = (metadata.level(), metadata.target());
        self.sink.write(&if self.is_json {
            format!(r#"{{"timestamp":"{time}","level":"{level}","fields":{text},"target":"{target}"}}"#) + "\n"
        } else {
            format!("{time} {level:>5} {target}: {text}\n")
        });
    }
}

/// The fields of an event, safe to show.
#[derive(Default)]
struct Fields {
    message: String,
    /// Name, value, and whether a string value is quoted.
    rest: Vec<(&'static str, Value, bool)>,
}

impl Fields {
    fn of(event: &Event<'_>) -> Self {
        let mut fields = Self::default();
        event.record(&mut fields);
        fields
    }

    fn put(&mut self, field: &Field, value: impl Into<Value>, is_quoted: bool) {
        match (field.name(), value.into()) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => self.rest.push((name, value, is_quoted)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Beginning { text: String::new(), limit: excerpt_read_limit(MAX_FIELD_BYTES) + 1 };
        // An error only means that the limit was reached.
        let _ = write!(text, "{value:?}");
        self.put(field, excerpt(&text.text, MAX_FIELD_BYTES), false);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, excerpt(value, MAX_FIELD_BYTES), true);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value, true);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value, true);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value, true);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value, true);
    }
}

/// Keeps only as much of a text as `excerpt` looks at, so that formatting stops early.
struct Beginning {
    text: String,
    limit: usize,
}

impl fmt::Write for Beginning {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.limit.saturating_sub(self.text.len());
        let fits = part.get(..part.floor_char_boundary(room)).unwrap_or_default();
        self.text.push_str(fits);
        if fits.len() < part.len() { Err(fmt::Error) } else { Ok(()) }
    }
}
