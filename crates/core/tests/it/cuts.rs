//! Connections that break at each byte of a dialogue, in each direction and in each way. Rules: each request gets
//! exactly one answer, no tool runs twice, and the next request works (R5, R32-R36, R96).
//!
//! Several lanes, each with a bridge, a fault proxy and a server, process all cuts concurrently, so that their waits
//! overlap.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use mcp_gangway_core::Config;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Mutex, Semaphore},
    task::{JoinHandle, JoinSet},
};

use crate::support::{
    Client, INITIALIZED, VERSION,
    fault_proxy::{Cut, Fault, FaultProxy, Side},
    model::{FORMS, Model},
    request, wait_for_no_server, within,
};

/// The number of concurrent lanes.
const LANES: usize = 128;
/// The number of lanes that start concurrently. Starting is the most expensive part.
const STARTS: usize = 8;

/// The idle timeout of a bridge in the tests of silence.
const IDLE: Duration = Duration::from_secs(3);

/// The request during which the connection breaks: a call with this form of answer, or the list of tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Call(&'static str),
    List,
}

impl Ask {
    fn line(self, key: &str) -> String {
        let id = format!("\"{key}\"");
        match self {
            Self::Call(form) => {
                let arguments = format!(r#"{{"key":"{key}"}}"#);
                let meta = format!(r#"{{"progressToken":"{key}"}}"#);
                request(&id, "tools/call", &format!(r#"{{"name":"{form}","arguments":{arguments},"_meta":{meta}}}"#))
            }
            Self::List => request(&id, "tools/list", "{}"),
        }
    }

    fn is_stream(self) -> bool {
        !matches!(self, Self::List | Self::Call("json"))
    }
}

/// A server, a proxy in front of it, and a client whose bridge connects through the proxy.
struct Lane {
    model: Model,
    proxy: FaultProxy,
    client: Client,
    asked: usize,
    /// The progress steps that arrived for the last call.
    progress: Vec<u64>,
    serving: JoinHandle<()>,
}

/// The outcome of a request.
struct Outcome {
    answer: Value,
    runs: usize,
    progress: Vec<u64>,
    /// True if the fault occurred.
    broke: bool,
}

impl Lane {
    async fn start(configure: fn(&mut Config)) -> Self {
        let model = Model::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let serving = tokio::spawn(model.clone().serve(listener));
        let proxy = FaultProxy::before(server).await.unwrap();
        let client = Client::start(config(proxy.address(), configure));
        Self { model, proxy, client, asked: 0, progress: Vec::new(), serving }
    }

    /// Returns a lane with a session, whose bridge sends nothing more on its own initiative.
    async fn ready(configure: fn(&mut Config)) -> Self {
        let mut lane = Self::start(configure).await;
        lane.shake_hands().await;
        let outcome = lane.ask(Ask::Call("json")).await;
        assert!(outcome.is_result(), "{}", outcome.answer);
        within("the request for the push stream", lane.model.listened()).await;
        lane
    }

    async fn shake_hands(&mut self) {
        self.client.initialize().await;
        let answer = self.answer("init").await;
        // A second attempt must not repeat any part of the handshake.
        assert_eq!(answer["result"]["protocolVersion"], VERSION, "{answer}");
        self.client.send(INITIALIZED).await;
    }

    /// Returns the next answer, which must be for this id.
    async fn answer(&mut self, id: &str) -> Value {
        loop {
            let line = self.client.line(&format!("the answer to {id}")).await;
            let message: Value = serde_json::from_slice(&line).unwrap();
            if message["method"].is_null() {
                assert_eq!(message["id"], id, "an unexpected answer: {message}");
                return message;
            }
            assert_eq!(message["params"]["progressToken"], id, "{message}");
            self.progress.push(message["params"]["progress"].as_u64().unwrap());
        }
    }

    async fn ask(&mut self, ask: Ask) -> Outcome {
        self.asked += 1;
        let key = format!("k-{:08}", self.asked);
        self.progress.clear();
        self.client.send(ask.line(&key)).await;
        let answer = self.answer(&key).await;
        let broke = !self.proxy.disarm().await;
        Outcome { answer, runs: self.model.runs(&key), progress: std::mem::take(&mut self.progress), broke }
    }

    /// Returns the bytes of one exchange: request and response.
    async fn recorded(mut self, ask: Ask) -> (Vec<u8>, Vec<u8>) {
        self.proxy.record();
        let outcome = self.ask(ask).await;
        assert!(outcome.is_result(), "{ask:?} fails without a cut: {}", outcome.answer);
        self.proxy.recorded()
    }

    /// Expects that no line is left, and ends the bridge.
    async fn finish(mut self) {
        self.client.close_stdin();
        self.client.end().await;
        self.client.expect_end_of_output().await;
        self.serving.abort();
    }
}

impl Outcome {
    fn is_result(&self) -> bool {
        self.answer["result"].is_object()
    }

    /// Checks the rules that hold for every cut.
    fn check(&self, what: &str, ask: Ask) {
        let Self { answer, runs, progress, .. } = self;
        assert!(*runs <= 1, "{what}: the tool ran {runs} times");
        if self.is_result() {
            assert_eq!(*runs, usize::from(ask != Ask::List), "{what}: {answer}");
            let steps: &[u64] = if ask.is_stream() { &[1, 2] } else { &[] };
            assert_eq!(progress, steps, "{what}");
        } else {
            let data = &answer["error"]["data"];
            assert_eq!(data["source"], "mcp-gangway", "{what}: {answer}");
            assert!(data["mayHaveRun"].is_boolean(), "{what}: {answer}");
            assert!(*runs == 0 || data["mayHaveRun"] == true, "{what}: it ran, but the client received: {answer}");
            assert!(progress.is_sorted() && progress.len() <= 2, "{what}: {progress:?}");
        }
    }
}

fn config(address: SocketAddr, configure: fn(&mut Config)) -> Config {
    let mut config = Config::new(&format!("http://{address}/mcp")).unwrap();
    config.proxy = mcp_gangway_core::Proxy::None;
    wait_for_no_server(&mut config);
    configure(&mut config);
    config
}

/// Returns how many bytes of this response must pass before the bridge can resume the stream; `None` if it never can.
fn resumable_from(response: &[u8]) -> Option<usize> {
    let first = response.windows(4).position(|four| four == b"\nid:")?;
    let end = response[first..].windows(2).position(|two| two == b"\n\n")?;
    Some(first + end + 2)
}

/// Returns all cuts of an exchange with these faults.
fn cuts(ask: Ask, recorded: &(Vec<u8>, Vec<u8>), faults: &[Fault]) -> Vec<(Ask, Cut)> {
    let mut cuts = Vec::new();
    for &fault in faults {
        for (side, length) in [(Side::Request, recorded.0.len()), (Side::Response, recorded.1.len())] {
            // A stall after the last byte would affect the next exchange.
            let last = if fault == Fault::Stall { length.saturating_sub(1) } else { length };
            cuts.extend((0..=last).map(|after| (ask, Cut { side, after, fault })));
        }
    }
    cuts
}

/// Runs all `cuts`, distributed over the lanes. Calls `check` with the outcome of each request.
async fn go_through(
    cuts: Vec<(Ask, Cut)>,
    configure: fn(&mut Config),
    check: impl Fn(&str, Ask, Cut, &Outcome) + Copy + Send + Sync + 'static,
) {
    let count = cuts.len();
    let cuts = Arc::new(Mutex::new(VecDeque::from(cuts)));
    let starts = Arc::new(Semaphore::new(STARTS));
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let (cuts, starts) = (Arc::clone(&cuts), Arc::clone(&starts));
        lanes.spawn(async move {
            let start = starts.acquire().await;
            let mut lane = Lane::ready(configure).await;
            drop(start);
            let (mut answers, mut errors) = (0, 0);
            loop {
                let Some((ask, cut)) = cuts.lock().await.pop_front() else { break };
                lane.proxy.arm(cut);
                let outcome = lane.ask(ask).await;
                let what = format!("{ask:?}, {cut:?}");
                // Bytes after the answer may still be in flight when the answer is out.
                assert!(outcome.broke || outcome.is_result(), "{what}: the connection did not break");
                outcome.check(&what, ask);
                check(&what, ask, cut, &outcome);
                // The next line answers this request, so the request before got only one answer.
                let next = lane.ask(Ask::Call("json")).await;
                assert!(next.is_result() && next.runs == 1, "after {what}: {}", next.answer);
                *if outcome.is_result() { &mut answers } else { &mut errors } += 1;
            }
            lane.finish().await;
            (answers, errors)
        });
    }
    let (mut answers, mut errors) = (0, 0);
    while let Some(lane) = lanes.join_next().await {
        let (lane_answers, lane_errors) = lane.expect("a lane without a fault");
        answers += lane_answers;
        errors += lane_errors;
    }
    println!("{count} cuts: {answers} answers of the server, {errors} errors of the bridge");
    assert_eq!(answers + errors, count);
}

/// Breaks each exchange of this kind at each byte, with each fault that ends a connection.
async fn break_everywhere(ask: Ask) {
    let recorded = Lane::ready(|_| {}).await.recorded(ask).await;
    assert!(recorded.0.len() > 200 && recorded.1.len() > 100, "not an exchange: {recorded:?}");
    let border = resumable_from(&recorded.1);
    assert_eq!(border.is_some(), matches!(ask, Ask::Call("resumable" | "polled")), "{recorded:?}");
    let faults = [Fault::Close, Fault::Reset, Fault::Truncate, Fault::Delay];
    go_through(
        cuts(ask, &recorded, &faults),
        |_| {},
        move |what, ask, cut, outcome| {
            // The server itself must answer, not only the bridge, if the request may be repeated, if it was only
            // delayed, or if its response can be resumed.
            let resumes = cut.side == Side::Response && border.is_some_and(|border| border <= cut.after);
            let must = cut.fault == Fault::Delay || ask == Ask::List || resumes;
            assert!(!must || outcome.is_result(), "{what}: {}", outcome.answer);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r96_a_call_with_a_json_response_cut_at_any_byte_runs_at_most_once() {
    break_everywhere(Ask::Call("json")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r96_a_call_with_a_stream_response_cut_at_any_byte_runs_at_most_once() {
    break_everywhere(Ask::Call("stream")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r32_r36_a_call_is_answered_when_its_resumable_stream_is_cut() {
    break_everywhere(Ask::Call("resumable")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r32_r36_a_call_is_answered_when_its_polled_stream_is_cut() {
    break_everywhere(Ask::Call("polled")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r96_a_list_is_always_answered() {
    break_everywhere(Ask::List).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r44_a_stalled_exchange_ends_in_a_timeout_or_a_result() {
    let mut all = Vec::new();
    for ask in FORMS.map(Ask::Call).into_iter().chain([Ask::List]) {
        let recorded = Lane::ready(|_| {}).await.recorded(ask).await;
        // Each stall takes the whole timeout, so test only every seventh byte.
        all.extend(cuts(ask, &recorded, &[Fault::Stall]).into_iter().step_by(7));
    }
    go_through(
        all,
        |config| config.timeouts.idle = IDLE,
        |what, ask, cut, outcome| {
            let kind = &outcome.answer["error"]["data"]["kind"];
            assert!(outcome.is_result() || kind == "timeout", "{what}: {}", outcome.answer);
            // A request that was not sent did not run, and one with a response ran.
            let may_be = match (cut.side, cut.after) {
                (Side::Request, 0) => outcome.runs == 0 && !outcome.is_result(),
                (Side::Request, _) => true,
                (Side::Response, _) => outcome.runs == usize::from(ask != Ask::List),
            };
            assert!(may_be, "{what}: {} runs, {}", outcome.runs, outcome.answer);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r38_a_cut_during_session_recovery_leaves_the_bridge_working() {
    let lane = Lane::ready(|_| {}).await;
    lane.model.forget();
    let recorded = lane.recorded(Ask::Call("stream")).await;
    let all = Arc::new(Mutex::new(VecDeque::from(cuts(Ask::Call("stream"), &recorded, &[Fault::Close]))));
    let mut lanes = JoinSet::new();
    for number in 0..LANES {
        let all = Arc::clone(&all);
        lanes.spawn(async move {
            let mut lane = Lane::start(|_| {}).await;
            if number % 2 == 0 {
                // This lane also loses its push stream and must reopen it.
                lane.model.push();
            }
            lane.shake_hands().await;
            loop {
                let Some((ask, cut)) = all.lock().await.pop_front() else { break };
                let what = format!("{cut:?}");
                let sessions = lane.model.sessions();
                lane.model.forget();
                lane.proxy.arm(cut);
                let outcome = lane.ask(ask).await;
                outcome.check(&what, ask);
                let next = lane.ask(Ask::Call("json")).await;
                assert!(next.is_result() && next.runs == 1, "after {what}: {}", next.answer);
                let sessions = lane.model.sessions() - sessions;
                assert!((1..=2).contains(&sessions), "{what}: {sessions} new sessions");
            }
            lane.finish().await;
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane.expect("a lane without a fault");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_a_handshake_succeeds_after_its_connection_is_cut() {
    let mut lane = Lane::start(|_| {}).await;
    lane.proxy.record();
    lane.shake_hands().await;
    let outcome = lane.ask(Ask::Call("stream")).await;
    assert!(outcome.is_result(), "{}", outcome.answer);
    let recorded = lane.proxy.recorded();
    lane.finish().await;

    let mut all = cuts(Ask::Call("stream"), &recorded, &[Fault::Close]);
    all.extend(cuts(Ask::Call("stream"), &recorded, &[Fault::Reset]).into_iter().step_by(3));
    let all = Arc::new(Mutex::new(VecDeque::from(all)));
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let all = Arc::clone(&all);
        lanes.spawn(async move {
            loop {
                let Some((ask, cut)) = all.lock().await.pop_front() else { break };
                let what = format!("{cut:?}");
                let mut lane = within(&what, Lane::start(|_| {})).await;
                lane.proxy.arm(cut);
                // `initialize` is not a tool call, so the bridge repeats it until it succeeds.
                lane.shake_hands().await;
                let outcome = lane.ask(ask).await;
                outcome.check(&what, ask);
                let next = lane.ask(Ask::Call("json")).await;
                assert!(next.is_result() && next.runs == 1, "after {what}: {}", next.answer);
                assert!(lane.model.sessions() <= 2, "{what}: {} sessions", lane.model.sessions());
                lane.finish().await;
            }
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane.expect("a lane without a fault");
    }
}
