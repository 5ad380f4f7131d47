//! Connections in memory in the place of TCP, for the checks that play a whole server in this process.
//!
//! Rule: they are one thread's own, as such a check has its runtime there, and others run beside it.

use std::{cell::RefCell, io};

use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};

/// One end of a connection.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects to where a URI points.
type Connect = Box<dyn Fn(&Uri) -> io::Result<Box<dyn Wire>>>;

thread_local! {
    static NETWORK: RefCell<Option<Connect>> = const { RefCell::new(None) };
}

/// While it lives, it is all the network that this thread has.
pub(crate) struct Network(());

impl Network {
    pub(crate) fn new(connect: impl Fn(&Uri) -> io::Result<Box<dyn Wire>> + 'static) -> Self {
        NETWORK.set(Some(Box::new(connect)));
        Self(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        NETWORK.set(None);
    }
}

/// A connection with where `target` points, if this thread has such a network.
pub(super) fn connect(target: &Uri) -> Option<io::Result<Box<dyn Wire>>> {
    NETWORK.with_borrow(|network| network.as_ref().map(|connect| connect(target)))
}
