//! Messages of the bridge's own: requests whose answers come back to it, and what it tells a server without being asked.
//!
//! They travel like the client's, through an exchange each; only their answers go to a caller in place of stdout.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    task::AbortHandle,
    time::timeout,
};

use crate::{
    bridge::{Bridge, shutdown},
    call::{
        call_table::{Origin, Pending},
        exchange,
        intake::Lane,
        permits::Share,
    },
    error::{Error, Kind as Fault},
    server::{requests::Delivery, retry},
    wire::message::{Id, Message},
};

/// How long the server may take to accept what is told beside all else.
const TELLING_TIME: Duration = Duration::from_secs(30);

impl Bridge {
    /// Sends a request of the bridge's own, under an id of its own, and gives its answer. To drop the future is to give the
    /// request up: its connection is closed.
    ///
    /// # Errors
    /// As a request of the client's would get them.
    pub(crate) async fn call(self: &Arc<Self>, request: &Message, origin: Origin) -> Result<Message, Error> {
        let (_, call) = self.prepare(request, origin, Arc::default());
        call.await
    }

    /// The same, with the request's id at once. `delivery` is told how far the request has come.
    pub(crate) fn prepare(
        self: &Arc<Self>,
        request: &Message,
        origin: Origin,
        delivery: Arc<Delivery>,
    ) -> (Id, impl Future<Output = Result<Message, Error>> + Send + use<>) {
        let id = own_id();
        let request = request.with_id(&id);
        let share = if let Origin::Round(share) = origin { share } else { Share::Nobody };
        let lane = Lane { share, ..Lane::default() };
        let (pending, mut answer) = self.table.insert_own(&request, origin, delivery);
        let entry = Entry { bridge: Arc::clone(self), pending };
        let call = async move {
            // The reply's stream may go on after the answer; that is of no interest here.
            let early = tokio::select! {
                biased;
                answer = &mut answer => Some(answer),
                () = exchange::run_boxed(&entry.bridge, request, &entry.pending, lane) => None,
            };
            let answer = match early {
                Some(answer) => answer,
                None => answer.await,
            };
            answer.unwrap_or_else(|_| {
                Err(Error::new(Fault::NoAnswer, "the server did not answer the bridge's own request"))
            })
        };
        (id, call)
    }

    /// Sends a notification or a response of the bridge's own.
    pub(crate) async fn tell(self: &Arc<Self>, message: Message, origin: Origin, lane: Lane) {
        let (pending, _) = self.table.insert_own(&message, origin, Arc::default());
        let entry = Entry { bridge: Arc::clone(self), pending };
        exchange::run_boxed(self, message, &entry.pending, lane).await;
    }

    /// Tells the server something beside all else, once there is a place for that: whoever has led to it waits, if the server
    /// takes little. It has a limited time.
    pub(crate) async fn tell_beside(self: &Arc<Self>, message: Message, origin: Origin) {
        let place = self.permits.beside().acquire_owned().await;
        self.spawn_telling(message, origin, place.ok());
    }

    /// The same where nobody can wait. If there is no place, it is not told.
    pub(crate) fn tell_if_there_is_room(self: &Arc<Self>, message: Message, origin: Origin) {
        if let Ok(place) = self.permits.beside().try_acquire_owned() {
            self.spawn_telling(message, origin, Some(place));
        } else {
            tracing::warn!(method = message.method(), "the server takes no notifications; dropped");
        }
    }

    fn spawn_telling(self: &Arc<Self>, message: Message, origin: Origin, place: Option<OwnedSemaphorePermit>) {
        let bridge = Arc::clone(self);
        self.spawn(async move {
            let lane = Lane { share: Share::Responses, ..Lane::default() };
            if timeout(TELLING_TIME, bridge.tell(message, origin, lane)).await.is_err() {
                tracing::debug!("the server does not take what the bridge tells it");
            }
            drop(place);
        });
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

/// A place in the table, left when this is dropped, however that comes.
struct Entry {
    bridge: Arc<Bridge>,
    pending: Arc<Pending>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.bridge.table.remove(&self.pending);
    }
}

/// Ends a task when it is dropped.
#[derive(Debug)]
pub(crate) struct Task(pub(crate) AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The next id that no client and no server uses: it differs from process to process, and cannot be guessed.
pub(crate) fn own_id() -> Id {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let process = PROCESS.get_or_init(|| retry::random().to_bits());
    Id::own(&format!("mcp-gangway-{process:x}-{}", CALLS.fetch_add(1, Ordering::Relaxed)))
}
