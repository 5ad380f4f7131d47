//! Stdin or stdout as a socket, polled on the runtime's own thread.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

pub(super) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    pub(super) fn new(stream: &impl AsFd, interest: Interest) -> Option<Self> {
        let descriptor = stream.as_fd().try_clone_to_owned().ok()?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that may change their descriptor; OwnedFd cannot"
        )]
        let socket = AsyncFd::with_interest(descriptor, interest);
        socket.ok().map(Self)
    }
}

/// A reader that is gone is an error, not a signal. Apple's systems have no such flag; Rust programs and Python ignore
/// SIGPIPE anyway.
#[cfg(target_vendor = "apple")]
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT;
#[cfg(not(target_vendor = "apple"))]
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let read = ready.try_io(|socket| Ok(recv(socket, buf.initialize_unfilled(), RecvFlags::DONTWAIT)?.1));
            if let Ok(read) = read {
                buf.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = ready.try_io(|socket| Ok(send(socket, bytes, SEND_FLAGS)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
