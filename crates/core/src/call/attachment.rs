//! Attaches a client to a server that is not there yet: one that cannot be reached, does not answer in time, or wants
//! the user to sign in first.
//!
//! ```text
//!  handshake ── in time ──────────────> the server's answer
//!      │ too late, or the server is away
//!      ▼
//!  promised: the bridge's own answer ──> the handshake is tried until it succeeds ──> attached
//!      │ lists: of last time, or empty                                                   │
//!      │ other requests: held ─────────────────────────────────────────────────────────> sent
//!      │     └── too long, or refused: an error                    lists that differ: list_changed
//! ```
//!
//! Clients have a time limit for the handshake, and drop a server that misses it for the rest of their session. In the
//! legacy protocol the promise is a session that the server does not know ([`is_provisional`]). A modern client has no
//! session, so each of its requests shows whether the server is there.
//!
//! Rules: the client gets one answer to its handshake. Only lists come from what the server said last time, never an
//! answer to a call. A failure that waiting cannot help is told at once ([`Error::is_absence`]). Nothing is tried
//! twice at the same time.
//!
//! [`is_provisional`]: crate::server::session::Session::is_provisional

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use crate::{
    call::{
        Bridge,
        call_table::Pending,
        incoming, legacy_subscription, own_requests,
        provisional::{self, Absence},
        purpose::Purpose,
        renewal,
    },
    error::{Error, ErrorKind},
    json::splice::Object,
    server::retry,
    translate::modern_to_legacy,
    wire::{message::Message, revision::Era},
};

/// The longest pause between two attempts to reach the server.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How soon after an answer it is written to the state folder, together with those that follow.
const WRITE_DELAY: Duration = Duration::from_secs(1);
/// The most lists whose provisional answers are remembered, to tell the client if they change.
const MAX_GIVEN: usize = 64;

/// What is known about the server while the client has a provisional answer.
#[derive(Debug, Default)]
pub(crate) struct Attachment {
    /// The outcome of the last attempt to reach the server: the error, or `None` if the server is there.
    outcome: watch::Sender<Option<Error>>,
    /// A request waits, so the next attempt starts at once.
    hurry: Notify,
    /// A task tries to reach the server.
    is_trying: AtomicBool,
    /// A modern client has a provisional answer, and the server has not answered any of its requests since.
    is_promised_to_modern: AtomicBool,
    /// A modern client has lists that the bridge gave it, and was not told since that they may have changed.
    owes_changes: AtomicBool,
    /// The client's `initialized` has not come yet. The bridge sends its own when the server is there.
    awaits_initialized: AtomicBool,
    /// The lists that the client was given instead of the server's.
    given: Mutex<Given>,
    /// The server could not be reached since its session was set up, so it may come back as another one.
    was_lost: AtomicBool,
    /// The methods of the lists that a client in a session has asked for.
    listed: Mutex<BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Given {
    /// The requests, and true for those with a list of last time. The others got an empty list.
    lists: Vec<(Message, bool)>,
    /// Nothing was known of the server, so that each list may have changed.
    is_all: bool,
}

impl Attachment {
    /// Makes the next attempt start at once. Returns a receiver of its outcome.
    pub(crate) fn hurry(&self) -> watch::Receiver<Option<Error>> {
        let outcome = self.outcome.subscribe();
        self.hurry.notify_one();
        outcome
    }

    /// True if a modern client has only a provisional answer from the bridge.
    pub(crate) fn is_promised_to_modern(&self) -> bool {
        self.is_promised_to_modern.load(Ordering::Acquire)
    }

    /// Records that the server has answered a modern request.
    pub(crate) fn has_answered_modern(&self) {
        if self.is_promised_to_modern() {
            self.is_promised_to_modern.store(false, Ordering::Release);
        }
    }

    /// Returns true for the `initialized` of a client whose handshake the bridge answered. The server does not get it.
    pub(crate) fn takes_initialized(&self) -> bool {
        self.awaits_initialized.load(Ordering::Acquire) && self.awaits_initialized.swap(false, Ordering::AcqRel)
    }

    /// Records that the server cannot be reached.
    pub(crate) fn lost_sight(&self) {
        self.was_lost.store(true, Ordering::Release);
    }

    /// Remembers that a client in a session has this list.
    pub(crate) fn has_list(&self, request: &Message) {
        if request.era() == Era::Legacy {
            self.listed.lock().unwrap_or_else(PoisonError::into_inner).insert(request.method().to_owned());
        }
    }

    /// Returns true if a modern client must be told that its lists may have changed. The caller tells it.
    pub(crate) fn takes_owed_changes(&self) -> bool {
        self.owes_changes.swap(false, Ordering::AcqRel)
    }

    /// Remembers a list that the client was given. `is_kept` is true for a list of last time.
    pub(crate) fn gave(&self, request: &Message, is_kept: bool) {
        if request.era() == Era::Modern {
            return self.owes_changes.store(true, Ordering::Release);
        }
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.lists.len() < MAX_GIVEN {
            given.lists.push((request.clone(), is_kept));
        } else {
            given.is_all = true;
        }
    }
}

/// Answers a handshake instead of the server. `epoch` is that of the session before the handshake. Returns false if the
/// client has an answer already, or if the request is no handshake.
pub(crate) async fn promise(
    bridge: &Bridge,
    request: &Message,
    pending: &Pending,
    epoch: u64,
    absence: Absence,
) -> bool {
    let (kept, attachment) = (&bridge.server.kept, &bridge.calls.attachment);
    kept.read().await;
    let is_modern = request.method() == "server/discover";
    let last = kept.result(request);
    let answer = if is_modern && last.is_none() && kept.has_handshake(Era::Legacy) {
        // The server speaks the older protocol, so the client should, too.
        Some(modern_to_legacy::no_discovery(request))
    } else {
        provisional::handshake(request, last.as_deref(), absence)
    };
    let Some(answer) = answer.filter(|_| pending.claim_promise()) else { return false };
    tracing::info!(method = request.method(), is_known = last.is_some(), "the bridge answers instead of the server");
    if is_modern {
        attachment.is_promised_to_modern.store(answer.error().is_none(), Ordering::Release);
    } else {
        attachment.awaits_initialized.store(true, Ordering::Release);
        *attachment.given.lock().unwrap_or_else(PoisonError::into_inner) =
            Given { lists: Vec::new(), is_all: last.is_none() };
        bridge.server.session().promised(request, epoch);
    }
    bridge.client.output.send(answer.into_line()).await;
    true
}

/// Tries in the background to make the real handshake until it succeeds. `why` is why the client's own failed.
pub(crate) fn keep_trying(bridge: &Arc<Bridge>, why: Option<Error>) {
    let attachment = &bridge.calls.attachment;
    if let Some(error) = why {
        attachment.outcome.send_replace(Some(error));
    }
    if attachment.is_trying.swap(true, Ordering::AcqRel) {
        return;
    }
    bridge.calls.spawn({
        let bridge = Arc::clone(bridge);
        async move {
            let attachment = &bridge.calls.attachment;
            loop {
                try_until_attached(&bridge).await;
                attachment.is_trying.store(false, Ordering::Release);
                // Another handshake may have been promised in between.
                let is_over = !bridge.server.session().is_provisional();
                if is_over || attachment.is_trying.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        }
    });
}

async fn try_until_attached(bridge: &Arc<Bridge>) {
    let attachment = &bridge.calls.attachment;
    for failures in 0.. {
        // The outcome of the client's own handshake, at first.
        let error = attachment.outcome.borrow().clone();
        wait_for_a_chance(bridge, error.as_ref(), failures).await;
        let epoch = bridge.server.session().epoch();
        if !bridge.server.session().is_provisional() {
            return;
        }
        match renewal::renew(bridge, epoch).await {
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(error = %error, detail = error.detail(), "the server is not there yet");
                attachment.outcome.send_replace(Some(error));
            }
        }
    }
}

/// Waits until another attempt has a chance: for a moment if the server is away, for the user if a sign-in is open, and
/// otherwise for the next request of the client.
async fn wait_for_a_chance(bridge: &Bridge, error: Option<&Error>, failures: u32) {
    let pause = async {
        match error {
            None => {}
            Some(error) if error.is_absence() => {
                let pause = retry::backoff(bridge.timeouts.reconnect, failures, 1.0).min(MAX_PAUSE);
                sleep(pause.max(error.retry_after().unwrap_or_default().min(MAX_PAUSE))).await;
            }
            #[cfg(feature = "oauth")]
            Some(error) if error.is_about_tokens() => {
                let Some(sign_in) = bridge.server.requests.credentials.sign_in() else {
                    return std::future::pending().await;
                };
                // If a sign-in fails, the client's requests report that; the next one may succeed.
                while !sign_in.is_done().await {
                    sign_in.wait_for_next_sign_in().await;
                }
                // The server may refuse the new token as well.
                sleep(retry::backoff(bridge.timeouts.retry, failures, 1.0).min(MAX_PAUSE)).await;
            }
            Some(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = pause => {}
        () = bridge.calls.attachment.hurry.notified() => {}
    }
}

/// Uses the server's answer to a handshake that the client has a provisional answer to.
pub(crate) fn settle(bridge: &Arc<Bridge>, request: Message, answer: Message) {
    bridge.calls.spawn({
        let bridge = Arc::clone(bridge);
        async move {
            if request.method() == "server/discover" {
                return incoming::learn(&bridge, &request, &answer);
            }
            let turn = bridge.calls.renewal.turn().await;
            if let Some((_, why)) = answer.error() {
                drop(turn);
                return keep_trying(&bridge, Some(refused(&why)));
            }
            incoming::learn(&bridge, &request, &answer);
            if bridge.client.is_translated() {
                legacy_subscription::begin(&bridge);
            } else if bridge.server.session().is_provisional() {
                drop(turn);
                return keep_trying(&bridge, Some(refused("its answer is no result")));
            } else {
                renewal::begin_session(&bridge).await;
            }
            attached(&bridge);
        }
    });
}

/// Returns the error for a server that refuses the real handshake after a provisional answer.
pub(crate) fn refused(why: &str) -> Error {
    Error::new(ErrorKind::InvalidAnswer, format!("the server refuses the client's handshake: {why}"))
}

/// Lets held requests go on, and tells the client which lists differ from those that it was given.
pub(crate) fn attached(bridge: &Arc<Bridge>) {
    tracing::info!("the server is there");
    bridge.calls.attachment.outcome.send_replace(None);
    bridge.calls.spawn({
        let bridge = Arc::clone(bridge);
        async move { announce_differences(&bridge).await }
    });
}

/// Tells the client which of its lists differ, if the server was away before it got this new session.
pub(crate) fn came_back(bridge: &Arc<Bridge>) {
    if !bridge.calls.attachment.was_lost.swap(false, Ordering::AcqRel) {
        return;
    }
    bridge.calls.spawn({
        let bridge = Arc::clone(bridge);
        async move {
            let listed = bridge.calls.attachment.listed.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for list in provisional::LISTS {
                let mut differs = false;
                for method in listed.iter().filter(|method| method.split('/').next() == Some(list)) {
                    differs = differs || has_other_pages(&bridge, method).await;
                }
                if let Some(told) = provisional::list_changed(list).filter(|_| differs) {
                    bridge.client.output.send(told.into_line()).await;
                }
            }
        }
    });
}

/// Asks the server for the pages of a list that the client has. Returns true if one differs.
async fn has_other_pages(bridge: &Arc<Bridge>, method: &str) -> bool {
    let mut cursor = None;
    for _ in 0..MAX_GIVEN {
        let params = cursor.map_or_else(|| "{}".to_owned(), |cursor| format!("{{\"cursor\":{cursor}}}"));
        let page = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"{method}","params":{params}}}"#);
        let Some(page) = Message::one(page) else { return true };
        // The client does not have the pages after the last one that is kept.
        let Some(kept) = bridge.server.kept.result(&page) else { return params == "{}" };
        if differs_now(bridge, &page).await {
            return true;
        }
        cursor = Object::of(&kept).and_then(|page| page.get("nextCursor")).map(str::to_owned);
        if cursor.as_deref().is_none_or(|cursor| cursor == "null") {
            return false;
        }
    }
    true
}

async fn announce_differences(bridge: &Arc<Bridge>) {
    let Given { lists, is_all } =
        std::mem::take(&mut *bridge.calls.attachment.given.lock().unwrap_or_else(PoisonError::into_inner));
    for list in provisional::LISTS {
        let of_list = lists.iter().filter(|(request, _)| request.method().split('/').next() == Some(list));
        let mut differs = is_all;
        for (request, is_kept) in of_list {
            differs = differs || !is_kept || differs_now(bridge, request).await;
        }
        if let Some(told) = provisional::list_changed(list).filter(|_| differs) {
            bridge.client.output.send(told.into_line()).await;
        }
    }
}

/// Asks the server for a list. Returns true if it is not the one that the client was given.
async fn differs_now(bridge: &Arc<Bridge>, request: &Message) -> bool {
    if bridge.client.is_translated() {
        return true;
    }
    match own_requests::call(bridge, request, Purpose::recheck()).await {
        Ok(answer) if bridge.server.kept.is_unchanged(request, &answer) => false,
        Ok(answer) => {
            incoming::learn(bridge, request, &answer);
            true
        }
        Err(error) => {
            tracing::debug!(error = %error, method = request.method(), "a list cannot be compared");
            true
        }
    }
}

/// Writes what the server says about itself to the state folder, soon.
pub(crate) fn write_soon(bridge: &Arc<Bridge>) {
    bridge.calls.spawn({
        let bridge = Arc::clone(bridge);
        async move {
            sleep(WRITE_DELAY).await;
            bridge.server.kept.write().await;
        }
    });
}
