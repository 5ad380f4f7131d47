//! Runs a whole bridge between a client and a server that a string of bytes controls, in one process and in virtual
//! time. These promises hold for all input:
//!
//! - Each request of the client is answered exactly once, within a bounded time after the server's delays end. A
//!   cancelled request is answered at most once.
//! - A call that the server may have run is not sent again, and no error says that it did not run.
//! - stdout and the server get valid JSON-RPC messages only.
//! - The user's headers go to the server's own origin only, and never appear on stdout.
//! - The number of requests that the bridge makes on its own is bounded in any length of time.
//! - After the end of stdin, or when told to stop, the bridge ends within a bounded time.
//!
//! The fuzz target also checks memory, as it has a counting allocator.
//!
//! The bytes: four for the settings, then the client's steps, then what the server does with each request (see
//! [`script`]). After the last byte the server behaves correctly, or starts again at its first byte.

mod client;
mod replies;
mod script;
mod server;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use tokio::{
    io::duplex,
    sync::{Notify, oneshot},
    time::timeout,
};

pub(super) use self::script::Script;
#[cfg(feature = "oauth")]
pub(super) use self::server::next_head;
use self::{
    client::Client,
    server::{Kind, Server},
};
use crate::{Config, HeaderSource, Proxy, TransportMode, http::in_memory::Network};

/// The longest time that the bridge waits for a silent server.
const IDLE: Duration = Duration::from_secs(10);
/// The time for responses once the server has no more delays, if none waits for another: the waits between retries, once
/// in a handshake and once for the messages that waited for it. See [`client::patience`].
const PATIENCE: Duration = Duration::from_secs(150);
/// The deadline for the bridge to end after the end of stdin.
const END: Duration = Duration::from_secs(15);
/// A marker in the user's headers, and nowhere else.
const SECRET: &str = "hostile-secret";
/// The capacity of a pipe.
const PIPE: usize = 64 << 10;

/// Plays these bytes. Panics with the first broken promise.
pub fn hostile(input: &[u8]) {
    if let Some(broken) = broken_promise(input) {
        panic!("{broken}");
    }
}

/// Plays these bytes. Returns the first broken promise.
pub(super) fn broken_promise(input: &[u8]) -> Option<String> {
    let mut script = Script::new(input);
    let settings = Settings::read(&mut script);
    let steps = client::steps(&mut script, &settings);
    let promise = Arc::new(Promise::default());
    let server = Server::new(script.rest(settings.repeats), &settings, Arc::clone(&promise));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(play(&settings, steps, &server, &promise));
    promise.broken()
}

async fn play(settings: &Settings, steps: Vec<client::Step>, server: &Arc<Server>, promise: &Arc<Promise>) {
    let listening = Arc::clone(server);
    let _network = Network::new(move |uri| listening.connect(uri));
    let ((stdin, input), (output, stdout)) = (duplex(PIPE), duplex(PIPE));
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let mut bridge = tokio::spawn(crate::run(settings.config(), input, output, stopped));
    let mut client = Client::new(stdin, stdout, Arc::clone(server), Arc::clone(promise));

    let patience = client::patience(&steps, settings);
    let ask = async {
        for step in steps {
            client.take(step).await;
        }
        server.remove_delays();
        client.settle(patience).await;
    };
    tokio::select! {
        () = ask => {}
        () = promise.is_broken() => return,
        _ = &mut bridge => return promise.breaks("the bridge ended before it was told to"),
    }
    if settings.is_stopped {
        let _ = stop.send(());
    } else {
        client.close();
    }
    match timeout(END, bridge).await {
        Ok(Ok(Ok(_))) => client.end().await,
        Ok(ended) => promise.breaks(format!("the bridge failed: {ended:?}")),
        Err(_) => promise.breaks(format!("the bridge did not end within {END:?}")),
    }
}

/// The bridge's settings, and the kind of server.
#[expect(clippy::struct_excessive_bools, reason = "each is one question to the script")]
struct Settings {
    /// The server's script starts again after its last byte.
    repeats: bool,
    /// The client starts with a handshake.
    shakes_hands: bool,
    /// The bridge is told to stop, instead of the end of stdin.
    is_stopped: bool,
    /// New headers are loaded if the server refuses the old ones.
    renews_headers: bool,
    has_total: bool,
    transport: TransportMode,
    concurrency: usize,
    server: Kind,
}

impl Settings {
    fn read(script: &mut Script) -> Self {
        let (flags, kind) = (script.byte(), script.byte());
        let bit = |byte: u8, at: u8| byte >> at & 1 == 1;
        Self {
            repeats: bit(flags, 0),
            shakes_hands: !bit(flags, 1),
            is_stopped: bit(flags, 2),
            renews_headers: bit(flags, 3),
            has_total: bit(flags, 4),
            concurrency: if bit(flags, 5) { 1 } else { 64 },
            transport: match flags >> 6 {
                0 | 1 => TransportMode::Auto,
                2 => TransportMode::SseFirst,
                _ => TransportMode::Sse,
            },
            server: Kind {
                takes_modern: bit(kind, 0),
                takes_legacy: !bit(kind, 0) || bit(kind, 1),
                has_sessions: !bit(kind, 2),
                is_old: bit(kind, 3) && !bit(kind, 0) && !bit(kind, 1),
            },
        }
    }

    fn config(&self) -> Config {
        let mut config = Config::new("http://server.test/mcp").expect("a URL");
        config.proxy = Proxy::None;
        config.set_authorization(&format!("Bearer {SECRET}")).expect("a header");
        config.timeouts.idle = IDLE;
        config.timeouts.total = self.has_total.then_some(Duration::from_secs(30));
        config.limits.concurrency = self.concurrency;
        config.transport = self.transport;
        if self.renews_headers {
            let same = || Box::pin(async { Ok(HeaderMap::new()) }) as crate::LoadedHeaders;
            config.header_source = Some(HeaderSource::new(same, false));
        }
        config
    }
}

/// The first broken promise, if any.
#[derive(Default)]
struct Promise {
    broken: Mutex<Option<String>>,
    changed: Notify,
}

impl Promise {
    fn breaks(&self, how: impl Into<String>) {
        lock(&self.broken).get_or_insert_with(|| how.into());
        self.changed.notify_one();
    }

    async fn is_broken(&self) {
        while lock(&self.broken).is_none() {
            self.changed.notified().await;
        }
    }

    fn broken(&self) -> Option<String> {
        lock(&self.broken).take()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that differ in each iteration of the loop, but not between runs of the test.
    fn arbitrary(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn well_behaved_servers_break_no_promise() {
        // Calls of both eras, at servers of either era and of both.
        for kind in 0..16 {
            let input = [0, kind, 6, 0, 0, 0, 1, 0, 1, 4, 0, 2, 9, 0, 0, 7, 0, 0, 0, 3, 0];
            assert_eq!(broken_promise(&input), None, "server {kind}");
        }
    }

    /// Inputs that once broke a promise, minimised.
    #[rustfmt::skip]
    const FOUND: &[(&str, &[u8])] = &[
        ("a call is sent again after a gateway timeout",
            &[0x01, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x04, 0x00, 0x00]),
        ("a call is sent again after an error under its own id",
            &[0x01, 0x00, 0x01, 0x01, 0xd6, 0x67, 0x04, 0xfa, 0xce, 0x02, 0x00, 0x01, 0x00]),
        ("a call is sent again over HTTP+SSE",
            &[0xff, 0x08, 0x01, 0x00, 0x40, 0x04, 0x00, 0x25, 0x00, 0x2b, 0x01, 0x00, 0x2c, 0x0c]),
        ("an error denies that a call ran after a gateway's error",
            &[0x02, 0x04, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00]),
        ("a request is retried forever, as the server asks for it at once",
            &[0x03, 0x04, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00]),
        ("a stream is resumed a thousand times a second, as the server asks for it at once",
            &[0x03, 0x04, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, 0x07,
              0x00, 0x0a, 0x00, 0x02, 0x00, 0x01, 0x0b, 0x00, 0x00, 0x01, 0x04, 0x00]),
        ("a second session is lost through a status that no tool causes, so the call did not run",
            &[0x01, 0x00, 0x03, 0x00, 0x2d, 0x2d, 0x32, 0x00, 0x00, 0x00, 0xd7, 0xd7, 0xd7, 0xd7, 0x22, 0x75, 0x72, 0x69, 0x22, 0x3a, 0x00, 0x02, 0x00, 0x03, 0x00, 0x00]),
        ("a call is sent again although a gateway's refusal has its result in it",
            &[0xff, 0xfe, 0x02, 0x00, 0x00, 0x02, 0xfa, 0x63, 0x61, 0x70, 0x61, 0x62, 0x69, 0x6c, 0x69, 0x74, 0x69, 0x00, 0x04]),
        ("all requests wait one after another for a stream that names no endpoint, one permit for all",
            b"\xef\x00\x14\x00rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x8b\xfa\xff\xff\xd5\xff\x00\x00\x14\x00\x00\x00"),
    ];

    #[test]
    fn inputs_of_past_failures_break_no_promise() {
        for (what, input) in FOUND {
            assert_eq!(broken_promise(input), None, "{what}");
        }
    }

    #[test]
    fn random_inputs_break_no_promise() {
        let broken: Vec<_> = (0..200)
            .filter_map(|seed| {
                let input = arbitrary(seed, 20 + usize::try_from(seed).unwrap() % 200);
                broken_promise(&input).map(|broken| format!("{seed}: {broken}"))
            })
            .collect();
        assert!(broken.is_empty(), "{} of 200:\n{}", broken.len(), broken.join("\n"));
    }
}
