//! Connections in memory in the place of TCP, for the checks that play a whole server in this process.
//!
//! Rule: they are one runtime's own, as each such check has one, and others run beside it.

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

/// Connects to where a URI points.
type Connect = Arc<dyn Fn(&Uri) -> io::Result<Box<dyn Wire>> + Send + Sync>;

static NETWORKS: LazyLock<Mutex<HashMap<Id, Connect>>> = LazyLock::new(Mutex::default);

fn networks() -> MutexGuard<'static, HashMap<Id, Connect>> {
    NETWORKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it lives, it is all the network that its runtime has.
pub(crate) struct Network(Id);

impl Network {
    /// The network of the runtime that this is called in.
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

/// A connection with where `target` points, if this runtime has such a network.
pub(super) fn connect(target: &Uri) -> Option<io::Result<Box<dyn Wire>>> {
    let connect = networks().get(&Handle::current().id()).cloned()?;
    Some(connect(target))
}
