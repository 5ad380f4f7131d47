//! The client's side: stdin, stdout, what the client is asked, and what it may see.

pub(crate) mod hidden_tools;
pub(crate) mod questions;
pub(crate) mod stdin;
pub mod stdio;

use crate::{
    config::{ClientEra, ToolFilter},
    error::{Error, HintWords},
    translate::legacy_to_modern::LegacyClient,
    wire::{id::Id, reply::error_reply},
};
use bytes::Bytes;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::SetOnce;

use self::{questions::Questions, stdio::Output};

/// What all messages share of the client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) output: Output,
    pub(crate) questions: Questions,
    pub(crate) tools: ToolFilter,
    /// What a client is to speak that knows both eras.
    pub(crate) era: ClientEra,
    /// What is known of a legacy client, once it has shaken hands with a modern server.
    legacy: Mutex<Option<LegacyClient>>,
    /// Set once the client says no more: nobody will be there when a server comes back that cannot be reached.
    input_over: SetOnce<()>,
    /// The words in which errors say what helps.
    words: HintWords,
}

impl Client {
    pub(crate) fn new(output: Output, tools: ToolFilter, era: ClientEra, words: HintWords) -> Self {
        Self {
            output,
            questions: Questions::default(),
            tools,
            era,
            legacy: Mutex::default(),
            input_over: SetOnce::new(),
            words,
        }
    }

    /// The error reply to the client's request with this id.
    pub(crate) fn error_reply(&self, id: Option<&Id>, error: &Error) -> Bytes {
        error_reply(id, error, self.words)
    }

    /// The legacy client of a modern server; none before the handshake, and none whose messages pass as they are.
    pub(crate) fn legacy(&self) -> MutexGuard<'_, Option<LegacyClient>> {
        self.legacy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client's messages are translated for a modern server.
    pub(crate) fn is_translated(&self) -> bool {
        self.legacy().is_some()
    }

    /// The client says no more.
    pub(crate) fn end_input(&self) {
        let _ = self.input_over.set(());
    }

    /// Waits until the client says no more.
    pub(crate) async fn input_over(&self) {
        self.input_over.wait().await;
    }
}
