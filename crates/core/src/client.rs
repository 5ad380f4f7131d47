//! The client side of the bridge: stdin, stdout, questions to the client, and the tools that it may see.

pub(crate) mod hidden_tools;
pub(crate) mod questions;
pub(crate) mod stdin;
pub mod stdio;

use crate::{
    config::{ClientEra, Config, ToolFilter},
    error::{Error, HintWords},
    translate::legacy_to_modern::LegacyClient,
    wire::{id::Id, reply::error_reply},
};
use bytes::Bytes;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::SetOnce;

use self::{questions::Questions, stdio::Output};

/// The state of the client side, which all messages share.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) output: Output,
    pub(crate) questions: Questions,
    pub(crate) tools: ToolFilter,
    /// The client gets the pages of a list in one.
    pub(crate) merges_pages: bool,
    /// The era to use with a client that speaks both.
    pub(crate) era: ClientEra,
    /// What is known about a legacy client, once it has completed a handshake with a modern server.
    legacy: Mutex<Option<LegacyClient>>,
    /// Set once the client sends no more. The bridge then stops retrying a server that it cannot reach.
    input_over: SetOnce<()>,
    /// The wording of hints in errors.
    words: HintWords,
}

impl Client {
    /// Sets up the state with the settings that concern the client.
    pub(crate) fn new(output: Output, config: &Config) -> Self {
        Self {
            output,
            questions: Questions::default(),
            tools: config.tools.clone(),
            merges_pages: config.merge_pages,
            era: config.client_era,
            legacy: Mutex::default(),
            input_over: SetOnce::new(),
            words: config.hint_words,
        }
    }

    /// Returns the error reply to the client's request with this id.
    pub(crate) fn error_reply(&self, id: Option<&Id>, error: &Error) -> Bytes {
        error_reply(id, error, self.words)
    }

    /// Locks the legacy client of a modern server. `None` before the handshake, or if its messages pass unchanged.
    pub(crate) fn legacy(&self) -> MutexGuard<'_, Option<LegacyClient>> {
        self.legacy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the client's messages are translated for a modern server.
    pub(crate) fn is_translated(&self) -> bool {
        self.legacy().is_some()
    }

    /// Records that the client sends no more.
    pub(crate) fn end_input(&self) {
        let _ = self.input_over.set(());
    }

    /// True if the client sends no more.
    pub(crate) fn has_ended_input(&self) -> bool {
        self.input_over.initialized()
    }

    /// Waits until the client sends no more.
    pub(crate) async fn input_over(&self) {
        self.input_over.wait().await;
    }
}
