//! A TCP proxy that breaks connections at a byte which the test chooses.
//!
//! It passes all it is given, until it is armed with a [`Cut`]. Then it counts the bytes of each direction, over all
//! connections, and does what the cut says, once, to the connection on which the byte passes. Only requests that come
//! after it was armed count, and the replies to them: what is left of earlier ones does not move the cut.

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

/// From whom the byte comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Both sides see an end.
    Close,
    /// Both sides see a reset.
    Reset,
    /// The receiver sees an end; what it sends itself still passes.
    Truncate,
    /// The receiver sees nothing more; what it sends itself still passes.
    Stall,
    /// The receiver sees the rest a little later.
    Delay,
}

/// The fault that follows once `after` bytes from this side have passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) side: Side,
    pub(crate) after: usize,
    pub(crate) fault: Fault,
}

/// The proxy; it ends, with all of its connections, when it is dropped.
pub(crate) struct FaultProxy {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    listening: JoinHandle<()>,
}

#[derive(Default)]
struct Plan {
    /// Tells one plan from the next.
    number: usize,
    cut: Option<Cut>,
    /// What has passed since it was armed.
    requests: Vec<u8>,
    responses: Vec<u8>,
    counts: (usize, usize),
    records: bool,
}

const LATER: Duration = Duration::from_millis(5);

impl FaultProxy {
    /// Listens on a free port, before a server.
    pub(crate) async fn before(server: SocketAddr) -> io::Result<Self> {
        Self::on(TcpListener::bind("127.0.0.1:0").await?, server)
    }

    /// The same, where the caller listens.
    pub(crate) fn on(listener: TcpListener, server: SocketAddr) -> io::Result<Self> {
        let (address, plan) = (listener.local_addr()?, Arc::<Mutex<Plan>>::default());
        let listening = tokio::spawn(listen(listener, server, Arc::clone(&plan)));
        Ok(Self { address, plan, listening })
    }

    /// Ends it; when this returns, nobody listens on its port any more.
    pub(crate) async fn stop(mut self) {
        self.listening.abort();
        let _ = (&mut self.listening).await;
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to count, for this cut.
    pub(crate) fn arm(&self, cut: Cut) {
        lock(&self.plan).follow(Plan { cut: Some(cut), ..Plan::default() });
    }

    /// Whether what it was armed with has not happened yet; it will not any more.
    pub(crate) fn disarm(&self) -> bool {
        lock(&self.plan).cut.take().is_some()
    }

    /// Begins to keep what passes.
    pub(crate) fn record(&self) {
        lock(&self.plan).follow(Plan { records: true, ..Plan::default() });
    }

    /// What has passed since [`Self::record`]: requests, responses.
    pub(crate) fn recorded(&self) -> (Vec<u8>, Vec<u8>) {
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
    /// Puts another plan in the place of this one, and gives this one.
    fn follow(&mut self, next: Self) -> Self {
        let number = self.number + 1;
        std::mem::replace(self, Self { number, ..next })
    }

    /// Counts what is about to pass. If the cut falls into it: how much of it still passes, and what follows. `asked` is the
    /// plan under which the connection's last request came; there is no other before its reply has ended.
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
                    // A server that is not there looks like one that hangs up at once.
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

/// Passes on what one side sends, to its end; an error is the fault that ends both directions.
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
