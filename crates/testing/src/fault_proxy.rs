//! A TCP proxy that breaks connections at a byte which the test chooses.
//!
//! It forwards everything until it is armed with a [`Cut`]. Then it counts the bytes of each direction over all
//! connections, and applies the cut once, to the connection that carries the chosen byte. It counts only requests that
//! arrive after it was armed, and their responses: remaining bytes of earlier exchanges do not move the cut.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// The sender of the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Both sides see an end.
    Close,
    /// Both sides see a reset.
    Reset,
    /// The receiver sees an end; its own bytes still pass.
    Truncate,
    /// The receiver sees nothing more; its own bytes still pass.
    Stall,
    /// The receiver sees the rest a little later.
    Delay,
}

/// A fault that occurs once `after` bytes from this side have passed.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub side: Side,
    pub after: usize,
    pub fault: Fault,
}

/// The proxy. Dropping it ends it and all of its connections.
pub struct FaultProxy {
    address: SocketAddr,
    state: Arc<State>,
    listening: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    plan: Mutex<Plan>,
    /// The number of connections that a fault ends and that are not closed yet.
    closing: watch::Sender<usize>,
}

#[derive(Default)]
struct Plan {
    /// Distinguishes this plan from the next.
    number: usize,
    cut: Option<Cut>,
    /// The bytes that have passed since the proxy was armed.
    requests: Vec<u8>,
    responses: Vec<u8>,
    counts: (usize, usize),
    records: bool,
}

const LATER: Duration = Duration::from_millis(5);

impl FaultProxy {
    /// Starts a proxy for a server, on a free port.
    pub async fn before(server: SocketAddr) -> io::Result<Self> {
        Self::on(TcpListener::bind("127.0.0.1:0").await?, server)
    }

    /// Starts a proxy for a server, on the caller's listener.
    pub fn on(listener: TcpListener, server: SocketAddr) -> io::Result<Self> {
        let (address, state) = (listener.local_addr()?, Arc::<State>::default());
        let listening = tokio::spawn(listen(listener, server, Arc::clone(&state)));
        Ok(Self { address, state, listening })
    }

    /// Stops the proxy. When this returns, its port refuses connections.
    pub async fn stop(mut self) {
        self.listening.abort();
        let _ = (&mut self.listening).await;
    }

    /// Returns the address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts to count bytes for this cut.
    pub fn arm(&self, cut: Cut) {
        self.state.plan().follow(Plan { cut: Some(cut), ..Plan::default() });
    }

    /// Disarms the proxy. True if the fault had not yet occurred. If it had, its connection is closed on return, so that
    /// it does not hit the next request.
    pub async fn disarm(&self) -> bool {
        let is_armed = self.state.plan().cut.take().is_some();
        // Cannot fail, because `self` owns the sender.
        let _ = self.state.closing.subscribe().wait_for(|closing| *closing == 0).await;
        is_armed
    }

    /// Starts to record the bytes that pass.
    pub fn record(&self) {
        self.state.plan().follow(Plan { records: true, ..Plan::default() });
    }

    /// Returns the bytes that have passed since [`Self::record`]: requests, responses.
    pub fn recorded(&self) -> (Vec<u8>, Vec<u8>) {
        let plan = self.state.plan().follow(Plan::default());
        (plan.requests, plan.responses)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Plan {
    /// Replaces this plan by the next one, and returns this one.
    fn follow(&mut self, next: Self) -> Self {
        let number = self.number + 1;
        std::mem::replace(self, Self { number, ..next })
    }

    /// Counts bytes that are about to pass. If the cut falls into them, returns how many of them still pass, and the
    /// fault. `asked` is the plan under which the connection's last request came; the next request comes only after
    /// its response.
    fn pass(&mut self, side: Side, bytes: &[u8], asked: &AtomicUsize) -> Option<(usize, Fault)> {
        match side {
            Side::Request => asked.store(self.number, Ordering::Relaxed),
            Side::Response if asked.load(Ordering::Relaxed) == self.number => {}
            Side::Response => return None,
        }
        let (count, record) = match side {
            Side::Request => (&mut self.counts.0, &mut self.requests),
            Side::Response => (&mut self.counts.1, &mut self.responses),
        };
        let before = *count;
        *count += bytes.len();
        if self.records {
            record.extend_from_slice(bytes);
        }
        let cut = self.cut.take_if(|cut| cut.side == side && cut.after <= before + bytes.len())?;
        Some((cut.after.saturating_sub(before), cut.fault))
    }
}

impl State {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes as [`Plan::pass`] does, and a connection that the fault ends.
    fn pass(&self, side: Side, bytes: &[u8], asked: &AtomicUsize) -> Option<(usize, Fault)> {
        let mut plan = self.plan();
        let cut = plan.pass(side, bytes, asked);
        if matches!(cut, Some((_, Fault::Close | Fault::Reset))) {
            self.closing.send_modify(|closing| *closing += 1);
        }
        cut
    }
}

async fn listen(listener: TcpListener, server: SocketAddr, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((bridge, _)) = accepted {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    // An unreachable server looks like one that hangs up at once.
                    if let Ok(server) = TcpStream::connect(server).await
                        && relay(bridge, server, &state).await.is_err()
                    {
                        state.closing.send_modify(|closing| *closing -= 1);
                    }
                });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Relays both directions of a connection until they end, and closes it. The error is the fault that ended them.
async fn relay(mut bridge: TcpStream, mut server: TcpStream, state: &State) -> Result<(), Fault> {
    // Without it, the connection is only slower.
    let _ = bridge.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    let (from_bridge, to_bridge) = bridge.split();
    let (from_server, to_server) = server.split();
    let asked = AtomicUsize::default();
    let ended = tokio::try_join!(
        pump(from_bridge, to_server, Side::Request, state, &asked),
        pump(from_server, to_bridge, Side::Response, state, &asked),
    );
    if matches!(ended, Err(Fault::Reset)) {
        let lingers = bridge.set_zero_linger().and_then(|()| server.set_zero_linger());
        assert!(lingers.is_ok(), "the connection cannot be reset: {lingers:?}");
    }
    ended.map(drop)
}

/// Forwards the bytes of one side until its end. The error is a fault that ends both directions.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    side: Side,
    state: &State,
    asked: &AtomicUsize,
) -> Result<(), Fault> {
    let mut buffer = vec![0; 16 << 10];
    let mut open = true;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        if !open {
            continue;
        }
        let cut = state.pass(side, bytes, asked);
        let (first, rest) = bytes.split_at(cut.map_or(count, |(passes, _)| passes));
        open = to.write_all(first).await.is_ok();
        match cut {
            None => {}
            Some((_, Fault::Delay)) => {
                tokio::time::sleep(LATER).await;
                open = to.write_all(rest).await.is_ok();
            }
            Some((_, Fault::Truncate)) => {
                let _ = to.shutdown().await;
                open = false;
            }
            Some((_, Fault::Stall)) => open = false,
            Some((_, fault @ (Fault::Close | Fault::Reset))) => return Err(fault),
        }
    }
    let _ = to.shutdown().await;
    Ok(())
}
