//! Opens messages of any size to read and change them. A large message is opened without its long values, or is loaded
//! into memory meanwhile.
//!
//! Rule: a loaded text counts against a memory budget, and the changed text goes back into a file.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::{
    memory::{self, Budget, Taken},
    wire::{long_values::LongValues, message::Message, spool::Storage},
};

/// A message with a text that can be read and changed. If it could not be opened, it is unchanged and has no text.
#[derive(Debug)]
pub(crate) struct OpenedMessage {
    pub(crate) message: Message,
    rest: OpenedRest,
}

#[derive(Debug)]
enum OpenedRest {
    /// The text is complete.
    Nothing,
    Long(Box<LongValues>),
    Lent {
        storage: Arc<Storage>,
        #[expect(dead_code, reason = "given back when it is dropped")]
        loan: Taken,
    },
}

impl OpenedMessage {
    /// Opens a message without its long values, if it has any.
    pub(crate) fn new(message: Message) -> Self {
        match LongValues::extract_long_values(&message) {
            Some((message, values)) => Self { message, rest: OpenedRest::Long(Box::new(values)) },
            None => Self { message, rest: OpenedRest::Nothing },
        }
    }

    /// Opens a whole message in memory, once `loans` has room for it and for the changed text. A message that is too
    /// large for that stays unopened.
    pub(crate) async fn whole(message: Message, loans: &Budget, storage: &Arc<Storage>) -> Self {
        let length = message.spooled().map_or(0, |spooled| usize::try_from(spooled.length()).unwrap_or(usize::MAX));
        let twice = length.saturating_mul(2);
        if length == 0 || twice > memory::LOANS {
            return Self { message, rest: OpenedRest::Nothing };
        }
        let loan = loans.take(twice).await;
        let copy = message.clone();
        let message = spawn_blocking(move || copy.loaded()).await.unwrap_or(message);
        Self { message, rest: OpenedRest::Lent { storage: Arc::clone(storage), loan } }
    }

    /// True if there is a text.
    pub(crate) fn is_open(&self) -> bool {
        !self.message.is_spooled()
    }

    /// Returns the whole message for `changed`, which was made from the text.
    pub(crate) async fn close(&self, changed: Message) -> Message {
        match &self.rest {
            OpenedRest::Nothing => changed,
            OpenedRest::Long(values) => values.restore_long_values(&changed),
            OpenedRest::Lent { storage, .. } => {
                // The disk may be slow, and the message is large.
                let (storage, copy) = (Arc::clone(storage), changed.clone());
                spawn_blocking(move || copy.stored(&storage)).await.unwrap_or(changed)
            }
        }
    }
}
