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
    plan: Arc<Mutex<Plan>>,
    listening: JoinHandle<()>,
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
        let (address, plan) = (listener.local_addr()?, Arc::<Mutex<Plan>>::default());
        let listening = tokio::spawn(listen(listener, server, Arc::clone(&plan)));
        Ok(Self { address, plan, listening })
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
        lock(&self.plan).follow(Plan { cut: Some(cut), ..Plan::default() });
    }

    /// Disarms the proxy. True if the fault had not yet occurred.
    pub fn disarm(&self) -> bool {
        lock(&self.plan).cut.take().is_some()
    }

    /// Starts to record the bytes that pass.
    pub fn record(&self) {
        lock(&self.plan).follow(Plan { records: true, ..Plan::default() });
    }

    /// Returns the bytes that have passed since [`Self::record`]: requests, responses.
    pub fn recorded(&self) -> (Vec<u8>, Vec<u8>) {
        let plan = lock(&self.plan).follow(Plan::default());
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

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(listener: TcpListener, server: SocketAddr, plan: Arc<Mutex<Plan>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((bridge, _)) = accepted {
                let plan = Arc::clone(&plan);
                connections.spawn(async move {
                    // An unreachable server looks like one that hangs up at once.
                    if let Ok(server) = TcpStream::connect(server).await {
                        let _ = relay(bridge, server, &plan).await;
                    }
                });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn relay(mut bridge: TcpStream, mut server: TcpStream, plan: &Mutex<Plan>) -> io::Result<()> {
    bridge.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_bridge, to_bridge) = bridge.split();
    let (from_server, to_server) = server.split();
    let asked = AtomicUsize::default();
    let ended = tokio::try_join!(
        pump(from_bridge, to_server, Side::Request, plan, &asked),
        pump(from_server, to_bridge, Side::Response, plan, &asked),
    );
    if matches!(ended, Err(Fault::Reset)) {
        bridge.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    Ok(())
}

/// Forwards the bytes of one side until its end. The error is a fault that ends both directions.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    side: Side,
    plan: &Mutex<Plan>,
    asked: &AtomicUsize,
) -> Result<(), Fault> {
    let mut buffer = vec![0; 16 << 10];
    let mut open = true;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        if !open {
            continue;
        }
        let cut = lock(plan).pass(side, bytes, asked);
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
