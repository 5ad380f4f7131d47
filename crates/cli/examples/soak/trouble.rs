//! The server behind a proxy that injects faults: cuts at random bytes, refusals, and restarts that lose all
//! sessions. The port never changes.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    Random,
    fault_proxy::{Cut, Fault, FaultProxy, Side},
    model::{Model, Page, ResponseOverride},
};

/// A cut happens within this many bytes, about the size of a few calls.
const REACH: u64 = 4000;
/// The longest time between two faults, in milliseconds.
const PAUSE: u64 = 40;
/// The longest downtime of a restart, in milliseconds. Mostly shorter than the bridge retries.
const AWAY: u64 = 2500;

/// The server and its fault proxy.
pub(crate) struct Trouble {
    pub(crate) model: Model,
    /// The number of faults, by kind.
    pub(crate) faults: BTreeMap<String, usize>,
    pub(crate) restarts: usize,
    address: SocketAddr,
    random: Random,
    place: Place,
}

/// The state of the port.
enum Place {
    /// Connections are refused, and no other process can take the port.
    Reserved(TcpSocket),
    Open {
        proxy: FaultProxy,
        server: JoinHandle<()>,
    },
    /// Between the two states.
    Changing,
}

impl Trouble {
    /// Starts the server on a free port.
    pub(crate) async fn start(random: Random) -> io::Result<Self> {
        let socket = reserve(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let (model, address, place) = (Model::default(), socket.local_addr()?, Place::Reserved(socket));
        // Makes the bridge keep a stream open, which breaks as well.
        model.push();
        let mut trouble = Self { model, faults: BTreeMap::new(), restarts: 0, address, random, place };
        trouble.listen().await?;
        Ok(trouble)
    }

    /// Returns the address of the server.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Injects faults until this time, then stops.
    pub(crate) async fn make(&mut self, until: Instant) -> crate::Result<()> {
        while Instant::now() < until {
            match self.random.below(100) {
                0 => self.restart().await?,
                1..=20 => self.refuse().await,
                _ => self.cut().await,
            }
        }
        self.model.behave_normally();
        Ok(())
    }

    /// Stops listening and drops all connections.
    pub(crate) async fn hang_up(&mut self) -> io::Result<()> {
        if let Place::Open { proxy, server } = std::mem::replace(&mut self.place, Place::Changing) {
            proxy.stop().await;
            server.abort();
            // It only ends by being aborted.
            let _ = server.await;
            self.place = Place::Reserved(reserve(self.address)?);
        }
        Ok(())
    }

    /// Listens again.
    pub(crate) async fn listen(&mut self) -> io::Result<()> {
        if let Place::Reserved(socket) = std::mem::replace(&mut self.place, Place::Changing) {
            let behind = TcpListener::bind("127.0.0.1:0").await?;
            let proxy = FaultProxy::on(socket.listen(1024)?, behind.local_addr()?)?;
            let server = tokio::spawn(self.model.clone().serve(behind));
            self.place = Place::Open { proxy, server };
        }
        Ok(())
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.hang_up().await?;
        self.model.forget();
        sleep(self.random.millis(AWAY)).await;
        self.restarts += 1;
        self.listen().await
    }

    /// Refuses one of the next calls. A refusal that the bridge may retry means that the call did not run (R96);
    /// others may have run.
    async fn refuse(&mut self) {
        let runs = self.random.below(2) == 0;
        let (echo, hint) = (self.random.below(2) == 0, self.random.below(3));
        let page = if echo { Page::Echo } else { Page::Nothing };
        let hint = [None, Some(0), Some(1)][usize::try_from(hint).unwrap_or_default()];
        let (status, retry_after, runs, page) = match self.random.below(12) {
            0 => (408, None, runs, page),
            1 => (429, hint, false, page),
            2 => (500, None, runs, page),
            3 => (502, None, runs, page),
            4 | 5 => (503, hint, runs && hint != Some(1), page),
            6 => (504, None, runs, page),
            7 => (400, None, true, Page::ToolError),
            8 => (404, None, true, Page::ToolError),
            9 => (400, None, false, Page::NoSession),
            10 => (401, None, false, page),
            _ => ([301, 302, 307, 308][usize::try_from(self.random.below(4)).unwrap_or_default()], None, false, page),
        };
        self.model.be(ResponseOverride { status, retry_after, runs, page });
        let hint = retry_after.map(|seconds| format!(" in {seconds} s")).unwrap_or_default();
        let page = if page == Page::Nothing { String::new() } else { format!(" {page:?}").to_lowercase() };
        self.count(format!("{status}{hint}{page}"));
        sleep(self.random.millis(PAUSE)).await;
    }

    /// Cuts or delays a connection at one of the next bytes.
    async fn cut(&mut self) {
        let side = if self.random.below(2) == 0 { Side::Request } else { Side::Response };
        let fault = match self.random.below(64) {
            0..=15 => Fault::Close,
            16..=31 => Fault::Reset,
            32..=47 => Fault::Truncate,
            // Each one delays a call by the whole time limit, so it is rare.
            48 => Fault::Stall,
            _ => Fault::Delay,
        };
        let after = usize::try_from(self.random.below(REACH)).unwrap_or_default();
        let pause = Duration::from_millis(1) + self.random.millis(PAUSE);
        let Place::Open { proxy, .. } = &self.place else { return };
        proxy.arm(Cut { side, after, fault });
        sleep(pause).await;
        let happened = !proxy.disarm().await;
        if happened {
            self.count(format!("{fault:?}").to_lowercase());
        }
    }

    fn count(&mut self, fault: String) {
        *self.faults.entry(fault).or_default() += 1;
    }
}

fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Dropped connections linger on this port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
