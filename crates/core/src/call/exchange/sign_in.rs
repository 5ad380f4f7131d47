//! Answers a modern request while the user signs in with the question to sign in at a URL, if the client can show one.
//!
//! Rule: the bridge stores nothing for such a request. The client sends it again.

use std::time::Duration;

use tokio::time::timeout;

use super::Exchange;
use crate::{
    call::{incoming, sign_in_prompt},
    error::Error,
    wire::message::Message,
};

impl Exchange<'_> {
    /// Makes a request that the client repeats after such a question wait for the sign-in, as long as other requests
    /// do. Returns false if it must not be sent, because it was answered here or cancelled.
    ///
    /// # Errors
    /// The user declined to sign in.
    pub(super) async fn sign_in_is_over(&mut self) -> Result<bool, Error> {
        let Some(again) = sign_in_prompt::again(&self.message).filter(|_| !self.pending.is_own()) else {
            return Ok(true);
        };
        self.message = again.request;
        let Some(sign_in) = self.bridge.server.requests.credentials.sign_in() else { return Ok(true) };
        let patience = if again.is_declined { Duration::ZERO } else { sign_in.patience() };
        let waited = tokio::select! {
            biased;
            () = self.pending.withdrawn() => return Ok(false),
            waited = timeout(patience, sign_in.is_done()) => waited,
        };
        match waited {
            // If the sign-in failed, sending the request reports that.
            Ok(_) => Ok(true),
            Err(_) if again.is_declined => Err(sign_in.pending()),
            Err(_) => {
                incoming::answer(self.bridge, self.pending, sign_in_prompt::later(&self.message)).await;
                Ok(false)
            }
        }
    }

    /// Returns the question that replaces this error, if the client can show its user where to sign in. Each URL is
    /// shown once.
    pub(super) fn question_for(&self, error: &Error) -> Option<Message> {
        if !error.is_sign_in() {
            return None;
        }
        let prompt = self.bridge.server.requests.credentials.sign_in()?.shown()?;
        let question = sign_in_prompt::question(&self.message, &prompt)?;
        self.bridge.calls.shown_sign_ins.is_new(prompt.url()).then_some(question)
    }
}
