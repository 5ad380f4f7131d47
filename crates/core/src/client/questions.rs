//! Asks the client for input that a modern server needs (3.2). The requests have ids of the bridge's own. Their
//! answers are never sent to the server unchanged.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{
    client::stdio::Output,
    wire::{
        id::{Id, own_id},
        message::Message,
        reply::cancellation,
    },
};

/// The questions that the client has not answered yet.
#[derive(Debug, Default)]
pub(crate) struct Questions(Mutex<HashMap<String, oneshot::Sender<Message>>>);

impl Questions {
    /// Sends requests to the client and returns its responses in the same order. If the future is dropped, cancels the
    /// requests that have no response yet.
    pub(crate) async fn ask(&self, requests: &[Message], output: &Output) -> Vec<Message> {
        let mut asked = Vec::with_capacity(requests.len());
        for request in requests {
            let id = own_id();
            let (sender, response) = oneshot::channel();
            self.lock().insert(id.as_str().to_owned(), sender);
            asked.push((OpenQuestion { questions: self, output, id: id.clone() }, response));
            output.send(request.with_id(&id).into_line()).await;
        }
        let mut responses = Vec::with_capacity(asked.len());
        for (_open, response) in &mut asked {
            // The sender stays in the table until it is used.
            if let Ok(response) = response.await {
                responses.push(response);
            }
        }
        responses
    }

    /// Takes a response of the client if it answers one of these questions. Returns true if it does.
    pub(crate) fn take(&self, response: &Message) -> bool {
        let Some(id) = response.id() else { return false };
        let Some(sender) = self.lock().remove(id.as_str()) else { return false };
        // Fails if the request that needs the response is gone.
        let _ = sender.send(response.clone());
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Message>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question without a response yet. Cancels it when dropped.
struct OpenQuestion<'a> {
    questions: &'a Questions,
    output: &'a Output,
    id: Id,
}

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        if self.questions.lock().remove(self.id.as_str()).is_some() {
            self.output.send_now(cancellation(&self.id, "the request that needed it has ended"));
        }
    }
}
