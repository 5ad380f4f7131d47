//! The life of each message, from the line on stdin or the call that makes it to its answer, and what all of them share.

pub(crate) mod call_table;
pub(crate) mod exchange;
pub(crate) mod incoming;
pub(crate) mod intake;
pub(crate) mod lane;
pub(crate) mod legacy_subscription;
pub(crate) mod own_requests;
pub(crate) mod parked_calls;
pub(crate) mod permits;
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
    call_table::{CallTable, Pending},
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
    server::{Server, protocol::Road, push_stream::Audience},
    translate::legacy_to_modern::LegacyClient,
    wire::{body::Lost, message::Message, revision::Era},
};

/// What all messages share: both sides, and all calls.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) calls: Calls,
    pub(crate) timeouts: Timeouts,
}

/// All calls that are not at their end.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) table: CallTable,
    pub(crate) permits: Permits,
    tasks: Mutex<JoinSet<()>>,
    pub(crate) renewal: Renewal,
    pub(crate) tool_list: ToolList,
    pub(crate) legacy_subscription: LegacySubscription,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) parked: ParkedCalls,
    /// What a legacy server did not want to log for modern clients, and the session in which it was asked. Held while it is
    /// asked.
    pub(crate) log_level: tokio::sync::Mutex<Option<(u64, String)>>,
    #[cfg(feature = "oauth")]
    pub(crate) shown_sign_ins: sign_in_prompt::ShownSignIns,
    /// For messages that are read back from their files to be changed.
    pub(crate) loans: Budget,
}

impl Bridge {
    /// The way of a request or notification of the client's.
    pub(crate) fn road(&self, message: &Message) -> Road {
        self.server.protocol().road(message, || self.client.is_translated())
    }

    /// A modern server has said to this client what it offers.
    pub(crate) fn shake_hands(&self, client: LegacyClient) {
        tracing::info!("the server speaks 2026-07-28 only; the client's older protocol is translated");
        self.server.protocol().modern_is(true);
        *self.client.legacy() = Some(client);
    }

    /// The server has shown that it takes the legacy handshake, so that nothing has to be translated for a legacy client.
    pub(crate) fn takes_handshake(&self) {
        self.server.protocol().legacy_is(true);
        *self.client.legacy() = None;
    }

    /// Whether a request is cancelled by the end of its exchange, in place of a notification (R69): modern requests, and
    /// those that become such.
    pub(crate) fn closes_to_cancel(&self, pending: &Pending) -> bool {
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
        incoming::hand_on(self, message, None).await;
    }

    async fn receive_lost(&self, lost: Lost) {
        // There is no request that it could be the answer to.
        let _ = incoming::hand_on_lost(self, lost, None).await;
    }

    async fn renew_session(self: &Arc<Self>, epoch: u64) -> Result<(), Error> {
        renewal::renew(self, epoch).await
    }
}

impl Calls {
    /// None yet; so many may be at the server at once.
    pub(crate) fn new(concurrency: usize) -> Self {
        Self {
            table: CallTable::default(),
            permits: Permits::new(concurrency),
            tasks: Mutex::default(),
            renewal: Renewal::default(),
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

    /// Does something beside all else; at the bridge's end it is broken off.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work)
    }

    /// Does something to its end, also if the one who waits for that goes away: what a server has begun with is not left
    /// half done. Only the bridge's end breaks it off.
    ///
    /// # Errors
    /// The bridge has ended.
    pub(crate) async fn see_through<T: Send + 'static>(
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

/// What a request is told that the bridge's end leaves unanswered.
pub(crate) fn shutdown() -> Error {
    Error::new(ErrorKind::Shutdown, "the bridge ends before the answer came")
}
