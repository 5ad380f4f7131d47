//! In-memory connections that replace TCP, for tests that run a whole server in this process.
//!
//! Rule: a network belongs to one runtime, because each such test has its own and others run at the same time.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use http::Uri;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::{Handle, Id},
};

/// One end of a connection.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects to a URI.
type Connect = Arc<dyn Fn(&Uri) -> io::Result<Box<dyn Wire>> + Send + Sync>;

static NETWORKS: LazyLock<Mutex<HashMap<Id, Connect>>> = LazyLock::new(Mutex::default);

fn networks() -> MutexGuard<'static, HashMap<Id, Connect>> {
    NETWORKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces the whole network of its runtime until it is dropped.
pub(crate) struct Network(Id);

impl Network {
    /// Creates the network of the current runtime.
    pub(crate) fn new(connect: impl Fn(&Uri) -> io::Result<Box<dyn Wire>> + Send + Sync + 'static) -> Self {
        let runtime = Handle::current().id();
        networks().insert(runtime, Arc::new(connect));
        Self(runtime)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        networks().remove(&self.0);
    }
}

/// Connects to `target`, if this runtime has such a network.
pub(super) fn connect(target: &Uri) -> Option<io::Result<Box<dyn Wire>>> {
    let connect = networks().get(&Handle::current().id()).cloned()?;
    Some(connect(target))
}
