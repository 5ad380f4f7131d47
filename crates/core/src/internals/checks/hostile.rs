//! A whole bridge between a client and a server that a string of bytes plays, in one process and in virtual time. Whatever
//! the two do, this is promised:
//!
//! - each request of the client's is answered exactly once, and within a bounded time once the server's delays are over;
//!   one that was cancelled at most once;
//! - a call that the server may have run is not sent a second time, and no error says that it has not run;
//! - stdout has valid JSON-RPC messages and nothing else, and the server gets such messages only;
//! - the user's headers go to the server's own origin only, and stand in no line of stdout;
//! - the requests that the bridge makes by itself are few in any length of time;
//! - after the end of stdin, or when it is told to stop, the bridge ends within a bounded time.
//!
//! The fuzz target looks at memory besides, as it has an allocator that counts.
//!
//! The bytes: four for the settings, then the client's steps, then what the server does with each of the requests that it
//! gets (see [`script`]). Where nothing is left the server does what is right, or begins again at its first byte.

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

/// The longest silence that the bridge allows the server.
const IDLE: Duration = Duration::from_secs(10);
/// When requests must be answered at the latest, once the server answers at once what it answers at all: the waits between
/// tries, in a handshake and once more for what waited for it. Each further handshake has as much.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long the bridge may go on after the end of stdin.
const END: Duration = Duration::from_secs(15);
/// Stands in the user's headers, and nowhere else.
const SECRET: &str = "hostile-secret";
/// What is in a pipe.
const PIPE: usize = 64 << 10;

/// Plays these bytes; panics with the first promise that is broken.
pub fn hostile(input: &[u8]) {
    if let Some(broken) = broken_promise(input) {
        panic!("{broken}");
    }
}

/// Plays these bytes; gives the first promise that is broken.
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

    let patience = PATIENCE * (1 + client::handshakes(&steps));
    let ask = async {
        for step in steps {
            client.take(step).await;
        }
        server.calm_down();
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
        Err(_) => promise.breaks(format!("the bridge went on for {END:?} after its end")),
    }
}

/// How the bridge is started, and what kind of server it is for.
#[expect(clippy::struct_excessive_bools, reason = "each is one question to the script")]
struct Settings {
    /// The server begins anew with its first byte after its last.
    repeats: bool,
    /// The client begins with a handshake.
    shakes_hands: bool,
    /// The bridge is told to stop, in the place of the end of stdin.
    is_stopped: bool,
    /// There are new headers where the old ones are refused.
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

/// The first promise that was broken, if one was.
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

    /// Bytes that differ from run to run of the loop, and are the same in each run of the test.
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
    fn a_server_that_does_what_is_right() {
        // Calls of both eras, at servers of either and of both.
        for kind in 0..16 {
            let input = [0, kind, 6, 0, 0, 0, 1, 0, 1, 4, 0, 2, 9, 0, 0, 7, 0, 0, 0, 3, 0];
            assert_eq!(broken_promise(&input), None, "server {kind}");
        }
    }

    /// Inputs that broke a promise once, made small.
    #[rustfmt::skip]
    const FOUND: &[(&str, &[u8])] = &[
        ("a call is sent again after a time-out of the gateway",
            &[0x01, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x04, 0x00, 0x00]),
        ("a call is sent again after an error under its own id",
            &[0x01, 0x00, 0x01, 0x01, 0xd6, 0x67, 0x04, 0xfa, 0xce, 0x02, 0x00, 0x01, 0x00]),
        ("a call is sent again over HTTP+SSE",
            &[0xff, 0x08, 0x01, 0x00, 0x40, 0x04, 0x00, 0x25, 0x00, 0x2b, 0x01, 0x00, 0x2c, 0x0c]),
        ("a call is said not to have run after a gateway's error",
            &[0x02, 0x04, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00]),
        ("a request is sent again for ever, as the server wants it at once",
            &[0x03, 0x04, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00]),
        ("a stream is taken up again a thousand times a second, as the server wants it at once",
            &[0x03, 0x04, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, 0x07,
              0x00, 0x0a, 0x00, 0x02, 0x00, 0x01, 0x0b, 0x00, 0x00, 0x01, 0x04, 0x00]),
        ("a second session is lost by a status that speaks of no tool, which is no call that may have run",
            &[0x01, 0x00, 0x03, 0x00, 0x2d, 0x2d, 0x32, 0x00, 0x00, 0x00, 0xd7, 0xd7, 0xd7, 0xd7, 0x22, 0x75, 0x72, 0x69, 0x22, 0x3a, 0x00, 0x02, 0x00, 0x03, 0x00, 0x00]),
        ("a call is sent again that a gateway has put a refusal on, with its result in it",
            &[0xff, 0xfe, 0x02, 0x00, 0x00, 0x02, 0xfa, 0x63, 0x61, 0x70, 0x61, 0x62, 0x69, 0x6c, 0x69, 0x74, 0x69, 0x00, 0x04]),
    ];

    #[test]
    fn what_was_found_is_mended() {
        for (what, input) in FOUND {
            assert_eq!(broken_promise(input), None, "{what}");
        }
    }

    #[test]
    fn whatever_happens() {
        let broken: Vec<_> = (0..200)
            .filter_map(|seed| {
                let input = arbitrary(seed, 20 + usize::try_from(seed).unwrap() % 200);
                broken_promise(&input).map(|broken| format!("{seed}: {broken}"))
            })
            .collect();
        assert!(broken.is_empty(), "{} of 200:\n{}", broken.len(), broken.join("\n"));
    }
}
