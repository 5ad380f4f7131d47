//! The log of the bridge, for tests that check it or wait for one of its lines.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use tokio::sync::Notify;
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

use super::within;

/// All log lines, at every level.
#[derive(Clone, Default)]
pub struct Log {
    text: Arc<Mutex<String>>,
    changed: Arc<Notify>,
}

impl Log {
    /// Records what this thread logs, until the guard is dropped.
    pub fn record(&self) -> DefaultGuard {
        tracing::subscriber::set_default(self.clone())
    }

    /// All lines so far.
    pub fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// Waits until a line contains this.
    pub async fn wait_for(&self, part: &str) {
        within(part, async {
            while !self.text().contains(part) {
                self.changed.notified().await;
            }
        })
        .await;
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        span.record(&mut self.clone());
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        writeln!(self.text.lock().unwrap(), "{field}={value:?}").unwrap();
        self.changed.notify_one();
    }
}
