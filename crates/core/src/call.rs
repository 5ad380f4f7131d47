//! Messages in progress, from stdin or a request of the bridge to the response, and the state that they share.
//!
//! Client messages pass through `intake`, `exchange` and `incoming`: `intake` starts a task for each message,
//! `exchange` sends it and follows the reply, and `incoming` hands on each message in the reply. `own_requests` does
//! the same for messages of the bridge.

pub(crate) mod attachment;
pub(crate) mod call_table;
pub(crate) mod exchange;
pub(crate) mod heartbeat;
pub(crate) mod incoming;
pub(crate) mod intake;
pub(crate) mod keep_alive;
pub(crate) mod lane;
pub(crate) mod legacy_subscription;
pub(crate) mod own_requests;
pub(crate) mod pages;
pub(crate) mod parked_calls;
pub(crate) mod permits;
pub(crate) mod provisional;
pub(crate) mod purpose;
pub(crate) mod renewal;
#[cfg(feature = "oauth")]
pub(crate) mod sign_in_prompt;
pub(crate) mod subscriptions;
pub(crate) mod tool_list;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::oneshot,
    task::{AbortHandle, JoinSet},
};

use self::{
    attachment::Attachment,
    call_table::{CallTable, Pending},
    heartbeat::Heartbeats,
    legacy_subscription::LegacySubscription,
    parked_calls::ParkedCalls,
    permits::Permits,
    renewal::Renewal,
    subscriptions::Subscriptions,
    tool_list::ToolList,
};
use crate::{
    client::Client,
    config::Timeouts,
    error::{Error, ErrorKind},
    memory::{self, Budget},
    server::{Server, protocol::TranslationRoute, push_stream::Audience},
    translate::legacy_to_modern::LegacyClient,
    wire::{body::LostResponse, message::Message, revision::Era},
};

/// State that all messages share: the client, the server and the calls.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) calls: Calls,
    pub(crate) timeouts: Timeouts,
}

/// All messages in progress, with their tasks and limits.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) table: CallTable,
    pub(crate) permits: Permits,
    tasks: Mutex<JoinSet<()>>,
    pub(crate) renewal: Renewal,
    pub(crate) attachment: Attachment,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) tool_list: ToolList,
    pub(crate) legacy_subscription: LegacySubscription,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) parked: ParkedCalls,
    /// The log level that a legacy server last refused to set for modern clients, and the epoch of that session.
    /// Locked while the level is set.
    pub(crate) log_level: tokio::sync::Mutex<Option<(u64, String)>>,
    #[cfg(feature = "oauth")]
    pub(crate) shown_sign_ins: sign_in_prompt::ShownSignIns,
    /// Memory budget for messages that are read back from their files to be changed.
    pub(crate) loans: Budget,
}

impl Bridge {
    /// Returns how a client message reaches the server: directly or translated.
    pub(crate) fn translation_route(&self, message: &Message) -> TranslationRoute {
        self.server.protocol().translation_route(message, || self.client.is_translated())
    }

    /// Records that a modern server has described itself to this legacy client. From now on the client's messages are
    /// translated.
    pub(crate) fn shake_hands(&self, client: LegacyClient) {
        tracing::info!("the server speaks 2026-07-28 only; the client's older protocol is translated");
        self.server.protocol().set_modern(true);
        *self.client.legacy() = Some(client);
    }

    /// Records that the server accepts the legacy handshake, so a legacy client needs no translation.
    pub(crate) fn record_handshake_accepted(&self) {
        self.server.protocol().set_legacy(true);
        *self.client.legacy() = None;
    }

    /// True if ending the exchange cancels the request, without a notification (R69). This holds for modern requests
    /// and for those that become modern ones.
    pub(crate) fn cancels_by_closing(&self, pending: &Pending) -> bool {
        pending.era() == Era::Modern || self.client.is_translated()
    }
}

impl Audience for Bridge {
    fn server(&self) -> &Server {
        &self.server
    }

    fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    async fn receive(self: &Arc<Self>, message: Message) {
        incoming::forward_message(self, message, None).await;
    }

    async fn receive_lost(&self, lost: LostResponse) {
        // No request failed here, so there is no error to return.
        let _ = incoming::fail_lost_call(self, lost, None).await;
    }

    async fn renew_session(self: &Arc<Self>, epoch: u64) -> Result<(), Error> {
        renewal::renew(self, epoch).await
    }
}

impl Calls {
    /// Creates an empty set of calls. At most `concurrency` requests are at the server at once.
    pub(crate) fn new(concurrency: usize) -> Self {
        Self {
            table: CallTable::default(),
            permits: Permits::new(concurrency),
            tasks: Mutex::default(),
            renewal: Renewal::default(),
            attachment: Attachment::default(),
            heartbeats: Heartbeats::default(),
            tool_list: ToolList::default(),
            legacy_subscription: LegacySubscription::default(),
            subscriptions: Subscriptions::default(),
            parked: ParkedCalls::default(),
            log_level: tokio::sync::Mutex::default(),
            #[cfg(feature = "oauth")]
            shown_sign_ins: sign_in_prompt::ShownSignIns::default(),
            loans: Budget::new(memory::LOANS),
        }
    }

    pub(crate) fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` in the background. It is aborted when the bridge ends.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work)
    }

    /// Runs `work` to completion even if the caller is dropped, so that nothing is left half done at the server. Only
    /// the end of the bridge aborts it.
    ///
    /// # Errors
    /// The bridge has ended.
    pub(crate) async fn run_to_completion<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, outcome) = oneshot::channel();
        self.spawn(async move {
            let _ = done.send(work.await);
        });
        outcome.await.map_err(|_| shutdown())
    }
}

/// Returns the error for a request that is still unanswered when the bridge ends.
pub(crate) fn shutdown() -> Error {
    Error::new(ErrorKind::Shutdown, "the bridge ends before the answer came")
}
