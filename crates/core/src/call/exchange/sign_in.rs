//! What a client gets in the place of an answer while its user signs in: a handshake in the server's name, or for a modern
//! request the question where to sign in, if the client can show that.
//!
//! Rule: nothing is kept for such a request. Its client brings it whole again.

use std::time::Duration;

use tokio::time::timeout;

use super::Exchange;
use crate::{
    call::{incoming, sign_in_prompt},
    error::Error,
    wire::message::Message,
};

impl Exchange<'_> {
    /// Answers a handshake in the server's place, as the user takes too long to sign in. False if it is none.
    pub(super) async fn answer_provisionally(&self) -> bool {
        let Some(answer) = sign_in_prompt::answer(&self.message).filter(|_| !self.pending.is_own()) else {
            return false;
        };
        if self.pending.claim_answer() {
            if self.is_initialize() {
                self.bridge.server.session().promised(&self.message);
                sign_in_prompt::await_sign_in(self.bridge);
            }
            self.bridge.client.output.send(answer.into_line()).await;
        }
        true
    }

    /// A request that comes again after its client was asked to show where to sign in waits for that first, as long as others
    /// do. False if it is not to be sent: it is answered then, or nobody wants it any more.
    ///
    /// # Errors
    /// The user does not want to sign in.
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
            // One that failed is told by what comes of the request.
            Ok(_) => Ok(true),
            Err(_) if again.is_declined => Err(sign_in.pending()),
            Err(_) => {
                incoming::answer(self.bridge, self.pending, sign_in_prompt::later(&self.message)).await;
                Ok(false)
            }
        }
    }

    /// What the client is asked in the place of this error, if it can show its user where to sign in; once for each URL.
    pub(super) fn question_for(&self, error: &Error) -> Option<Message> {
        if !error.is_sign_in() {
            return None;
        }
        let prompt = self.bridge.server.requests.credentials.sign_in()?.shown()?;
        let question = sign_in_prompt::question(&self.message, &prompt)?;
        self.bridge.calls.shown_sign_ins.is_new(prompt.url()).then_some(question)
    }
}
