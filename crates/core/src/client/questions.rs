//! What the bridge asks the client for a modern server that needs input (3.2): requests with ids of the bridge's own, whose
//! answers never leave for the server as they are.

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

/// The questions that the client has not answered.
#[derive(Debug, Default)]
pub(crate) struct Questions(Mutex<HashMap<String, oneshot::Sender<Message>>>);

impl Questions {
    /// Puts requests to the client; gives its responses in the same order. If the future is dropped before, the client is
    /// told that nobody waits for them any more.
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

    /// Takes a response of the client's, if it answers such a question.
    pub(crate) fn take(&self, response: &Message) -> bool {
        let Some(id) = response.id() else { return false };
        let Some(sender) = self.lock().remove(id.as_str()) else { return false };
        // Fails if the request that needed it is gone.
        let _ = sender.send(response.clone());
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Message>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that is not answered yet.
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
