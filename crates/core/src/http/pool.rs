//! The connection pool: idle HTTP/1.1 connections, and HTTP/2 connections, which many requests share.
//!
//! Rule: the pool hands out a connection only if it is open as far as this process knows, and keeps it within the
//! time and number limits of the settings. Servers close idle connections without notice, many after 5 s, and a
//! request sent at that moment is lost. So a request that must not be repeated gets no connection that the server may
//! be about to close.

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

use super::http1::{ErasedConnection as _, Http1};

/// The origin of a request: scheme, host and port, compared as text. A host that is written in two ways gets separate
/// connections, which is harmless.
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

/// The connections in the pool.
pub(super) struct Pool<B> {
    kept: Mutex<KeptConnections<B>>,
    idle_for: Duration,
    /// The limit for one origin.
    most_idle: usize,
}

struct KeptConnections<B> {
    origins: HashMap<PoolKey, Connections<B>>,
    /// Wakes the task that watches the idle connections, if it runs.
    watcher: Option<Waker>,
}

struct Connections<B> {
    /// Ordered by last use, the most recent last.
    idle: Vec<Idle<B>>,
    shared: Option<http2::SendRequest<B>>,
    /// Notified when a connection is added. A request that is waiting for a new connection takes this one instead.
    added: Arc<Notify>,
}

struct Idle<B> {
    connection: Box<Http1<B>>,
    /// `None` if only the server limits how long it is kept.
    until: Option<Instant>,
    /// The server keeps the connection until then, as far as this process knows.
    sure_until: Instant,
}

/// How long servers are assumed to keep idle connections if they do not say: uvicorn and Node.js keep them for 5 s.
const DEFAULT_IDLE_TIME: Duration = Duration::from_secs(4);
/// A connection counts as closed this much before the time that the server announced, so that a request still arrives
/// in time.
const MARGIN: Duration = Duration::from_secs(1);

impl PoolKey {
    /// Returns `None` if the URI is not absolute.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        Some(Self { is_secure: uri.scheme()? == &Scheme::HTTPS, authority: uri.authority()?.clone() })
    }
}

// Compared and hashed as text: doing so without regard to case takes as long as everything else here.
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

    /// Takes a connection to this origin, if there is one. If the request is not repeatable, the server must
    /// certainly still keep the connection open.
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
            // Replace the waker, so that events on this connection no longer wake the watcher.
            let is_open = connection.drive(&mut Context::from_waker(Waker::noop())).is_pending();
            if is_open && connection.is_free() && until.is_none_or(|until| now < until) {
                return Some(Connection::Http1(connection));
            }
        }
        None
    }

    /// Returns the notification for new connections to this origin.
    pub(super) fn added(&self, origin: &PoolKey) -> Arc<Notify> {
        Arc::clone(&self.kept().of(origin).added)
    }

    /// Keeps an unused connection, unless it is closed or the pool is full.
    pub(super) fn put(self: &Arc<Self>, mut connection: Box<Http1<B>>) {
        // Without a runtime, nothing would notice that the connection closes.
        let Ok(runtime) = Handle::try_current() else { return };
        let now = Instant::now();
        let until = now.checked_add(self.idle_for);
        let sure_for = connection.kept_for().map_or(DEFAULT_IDLE_TIME, |kept| kept.saturating_sub(MARGIN));
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

    /// Shares this connection among all requests to the origin.
    pub(super) fn share(&self, origin: &PoolKey, connection: http2::SendRequest<B>) {
        let mut kept = self.kept();
        let connections = kept.of(origin);
        connections.shared = Some(connection);
        connections.added.notify_one();
    }
}

/// Closes connections that are idle for too long, and drops those that the server has closed.
async fn watch<B: Send + 'static>(pool: Weak<Pool<B>>) {
    let mut due = pin!(sleep_until(Instant::now()));
    poll_fn(|context| {
        let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
        let mut kept = pool.kept();
        loop {
            let now = Instant::now();
            kept.origins.retain(|_, connections| connections.retain_usable(now, context));
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
    /// Drops connections that are closed or idle for too long. Returns false if none is left and no request waits for
    /// one.
    fn retain_usable(&mut self, now: Instant, context: &mut Context<'_>) -> bool {
        self.idle.retain_mut(|Idle { connection, until, .. }| {
            until.is_none_or(|until| now < until) && connection.drive(context).is_pending()
        });
        self.shared.take_if(|shared| shared.is_closed());
        !self.idle.is_empty() || self.shared.is_some() || Arc::strong_count(&self.added) > 1
    }
}
