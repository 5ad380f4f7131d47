//! Connections between one request and the next: those of HTTP/1.1 while nobody uses them, and those of HTTP/2, which many
//! use at once.
//!
//! Rule: a connection is handed out if it is open as far as this process can know, and is kept for so long and in such
//! numbers as the settings say. Servers close idle ones without a word, many after 5 s, and what is on its way then is lost: so
//! a request that must not be repeated gets none that the server may be about to close.

use std::{
    collections::HashMap,
    future::poll_fn,
    hash::{Hash, Hasher},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{
    Uri,
    uri::{Authority, Scheme},
};
use hyper::client::conn::http2;
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::http1::{Http1, Responding as _};

/// Where a request goes: scheme, host and port, letter by letter (a host that is written in two ways has connections for
/// each, which is no harm).
#[derive(Clone, Eq)]
pub(super) struct PoolKey {
    is_secure: bool,
    authority: Authority,
}

/// A connection to send a request on.
pub(super) enum Connection<B> {
    Http1(Box<Http1<B>>),
    Http2(http2::SendRequest<B>),
}

/// The connections that are kept.
pub(super) struct Pool<B> {
    kept: Mutex<KeptConnections<B>>,
    idle_for: Duration,
    /// For one origin.
    most_idle: usize,
}

struct KeptConnections<B> {
    origins: HashMap<PoolKey, Connections<B>>,
    /// What wakes the task that watches the idle ones, if there is one.
    watcher: Option<Waker>,
}

struct Connections<B> {
    /// The last one is the one that was used last.
    idle: Vec<Idle<B>>,
    shared: Option<http2::SendRequest<B>>,
    /// There is one more: who is about to connect takes it, if it comes sooner.
    added: Arc<Notify>,
}

struct Idle<B> {
    connection: Box<Http1<B>>,
    /// `None` if it is kept as long as the server keeps it.
    until: Option<Instant>,
    /// Up to then the server keeps it, as far as anyone can know.
    sure_until: Instant,
}

/// For so long servers keep idle connections that do not say how long: uvicorn and Node.js do for 5 s.
const USUALLY_KEPT: Duration = Duration::from_secs(4);
/// So much earlier than the server says a connection counts as closed: what is sent must arrive in time.
const MARGIN: Duration = Duration::from_secs(1);

impl PoolKey {
    /// `None` if the URI is not absolute.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        Some(Self { is_secure: uri.scheme()? == &Scheme::HTTPS, authority: uri.authority()?.clone() })
    }
}

// As text, since to compare and hash an authority whatever its letters' case takes as long as all else that is done here.
impl PartialEq for PoolKey {
    fn eq(&self, other: &Self) -> bool {
        self.is_secure == other.is_secure && self.authority.as_str() == other.authority.as_str()
    }
}

impl Hash for PoolKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_secure.hash(state);
        self.authority.as_str().hash(state);
    }
}

impl<B: Send + 'static> Pool<B> {
    pub(super) fn new(idle_for: Duration, most_idle: usize) -> Arc<Self> {
        let kept = Mutex::new(KeptConnections { origins: HashMap::new(), watcher: None });
        Arc::new(Self { kept, idle_for, most_idle })
    }

    /// A connection with this origin, if there is one; for a request that may be lost and repeated, or for one that must not.
    pub(super) fn take(&self, origin: &PoolKey, is_repeatable: bool) -> Option<Connection<B>> {
        let mut kept = self.kept();
        let connections = kept.origins.get_mut(origin)?;
        if let Some(shared) = connections.shared.take_if(|shared| !shared.is_closed()) {
            return Some(Connection::Http2(connections.shared.insert(shared).clone()));
        }
        let now = Instant::now();
        let serves = |idle: &Idle<B>| is_repeatable || now < idle.sure_until;
        while let Some(at) = connections.idle.iter().rposition(serves) {
            let Idle { mut connection, until, .. } = connections.idle.remove(at);
            // From here on it is not the watcher's, which would wake for all that happens on it.
            let is_open = connection.drive(&mut Context::from_waker(Waker::noop())).is_pending();
            if is_open && connection.is_free() && until.is_none_or(|until| now < until) {
                return Some(Connection::Http1(connection));
            }
        }
        None
    }

    /// What tells that there is one more connection with this origin.
    pub(super) fn added(&self, origin: &PoolKey) -> Arc<Notify> {
        Arc::clone(&self.kept().of(origin).added)
    }

    /// Keeps a connection that nobody uses any more, unless it is closed or there are enough.
    pub(super) fn put(self: &Arc<Self>, mut connection: Box<Http1<B>>) {
        // Nobody would see it close.
        let Ok(runtime) = Handle::try_current() else { return };
        let now = Instant::now();
        let until = now.checked_add(self.idle_for);
        let sure_for = connection.kept_for().map_or(USUALLY_KEPT, |kept| kept.saturating_sub(MARGIN));
        let sure_until = now.checked_add(sure_for).unwrap_or(now);
        let mut kept = self.kept();
        let watcher = kept.watcher.clone();
        let mut context = Context::from_waker(watcher.as_ref().unwrap_or(Waker::noop()));
        if connection.drive(&mut context).is_ready() || !connection.is_free() {
            return;
        }
        let connections = kept.of(connection.origin());
        if connections.idle.len() >= self.most_idle {
            return;
        }
        connections.idle.push(Idle { connection, until, sure_until });
        connections.added.notify_one();
        if watcher.is_none() {
            kept.watcher = Some(Waker::noop().clone());
            drop(runtime.spawn(watch(Arc::downgrade(self))));
        }
    }

    /// Lets all share this connection with the origin.
    pub(super) fn share(&self, origin: &PoolKey, connection: http2::SendRequest<B>) {
        let mut kept = self.kept();
        let connections = kept.of(origin);
        connections.shared = Some(connection);
        connections.added.notify_one();
    }
}

/// Closes connections that have been idle for too long, and forgets those that the server has closed.
async fn watch<B: Send + 'static>(pool: Weak<Pool<B>>) {
    let mut due = pin!(sleep_until(Instant::now()));
    poll_fn(|context| {
        let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
        let mut kept = pool.kept();
        loop {
            let now = Instant::now();
            kept.origins.retain(|_, connections| connections.are_of_use(now, context));
            let idle = || kept.origins.values().flat_map(|connections| &connections.idle);
            if idle().next().is_none() {
                kept.watcher = None;
                return Poll::Ready(());
            }
            if let Some(next) = idle().filter_map(|idle| idle.until).min() {
                due.as_mut().reset(next);
                if due.as_mut().poll(context).is_ready() {
                    continue;
                }
            }
            kept.watcher = Some(context.waker().clone());
            return Poll::Pending;
        }
    })
    .await;
}

impl<B> Pool<B> {
    fn kept(&self) -> MutexGuard<'_, KeptConnections<B>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> KeptConnections<B> {
    fn of(&mut self, origin: &PoolKey) -> &mut Connections<B> {
        self.origins.entry(origin.clone()).or_insert_with(|| Connections {
            idle: Vec::new(),
            shared: None,
            added: Arc::default(),
        })
    }
}

impl<B: Send + 'static> Connections<B> {
    /// Lets go of what is closed or has been idle for too long. False if nothing is left, and nobody waits for more.
    fn are_of_use(&mut self, now: Instant, context: &mut Context<'_>) -> bool {
        self.idle.retain_mut(|Idle { connection, until, .. }| {
            until.is_none_or(|until| now < until) && connection.drive(context).is_pending()
        });
        self.shared.take_if(|shared| shared.is_closed());
        !self.idle.is_empty() || self.shared.is_some() || Arc::strong_count(&self.added) > 1
    }
}
