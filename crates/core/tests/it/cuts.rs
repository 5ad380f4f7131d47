//! Connections that break at each byte of a dialogue, in each direction and way: whatever is left of it, each request
//! gets exactly one answer, no tool runs twice, and the next request works (R5, R32-R36, R96).
//!
//! Lanes of a bridge, a fault proxy and a server each go through all places at the same time, so that their waits overlap.

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
    request, within,
};

/// How many bridges are at it at the same time.
const LANES: usize = 128;
/// How many of them start at the same time, which is the most that they have to do.
const STARTS: usize = 8;

/// Silence after which a bridge gives up, where the fault is silence.
const IDLE: Duration = Duration::from_secs(3);

/// What is asked while the connection breaks: a call with this form of answer, or the list of tools.
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

/// A server, a proxy before it, and a client whose bridge leads through the proxy.
struct Lane {
    model: Model,
    proxy: FaultProxy,
    client: Client,
    asked: usize,
    /// The key of the last call, and the steps of its progress that came.
    progress: Vec<u64>,
    serving: JoinHandle<()>,
}

/// What became of a request.
struct Outcome {
    answer: Value,
    runs: usize,
    progress: Vec<u64>,
    /// The fault came.
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

    /// A lane whose session has begun, and whose bridge sends nothing more unasked.
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
        // Nothing of it is done twice by the second try.
        assert_eq!(answer["result"]["protocolVersion"], VERSION, "{answer}");
        self.client.send(INITIALIZED).await;
    }

    /// The next answer, which must be for this id.
    async fn answer(&mut self, id: &str) -> Value {
        loop {
            let line = self.client.line(&format!("the answer to {id}")).await;
            let message: Value = serde_json::from_slice(&line).unwrap();
            if message["method"].is_null() {
                assert_eq!(message["id"], id, "an answer that nobody waits for: {message}");
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
        let broke = !self.proxy.disarm();
        Outcome { answer, runs: self.model.runs(&key), progress: std::mem::take(&mut self.progress), broke }
    }

    /// The bytes of one exchange, request and response.
    async fn recorded(mut self, ask: Ask) -> (Vec<u8>, Vec<u8>) {
        self.proxy.record();
        let outcome = self.ask(ask).await;
        assert!(outcome.is_result(), "{ask:?} fails though nothing breaks: {}", outcome.answer);
        self.proxy.recorded()
    }

    /// Nothing is left: no line, and no session at the server.
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

    /// What must hold wherever the connection breaks.
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
            assert!(*runs == 0 || data["mayHaveRun"] == true, "{what}: it ran, but the client is told: {answer}");
            assert!(progress.is_sorted() && progress.len() <= 2, "{what}: {progress:?}");
        }
    }
}

fn config(address: SocketAddr, configure: fn(&mut Config)) -> Config {
    let mut config = Config::new(&format!("http://{address}/mcp")).unwrap();
    config.proxy = mcp_gangway_core::Proxy::None;
    configure(&mut config);
    config
}

/// How many bytes of this response must pass for the bridge to know where the stream can be taken up again, if it can be.
fn resumable_from(response: &[u8]) -> Option<usize> {
    let first = response.windows(4).position(|four| four == b"\nid:")?;
    let end = response[first..].windows(2).position(|two| two == b"\n\n")?;
    Some(first + end + 2)
}

/// All cuts of an exchange with these faults.
fn cuts(ask: Ask, recorded: &(Vec<u8>, Vec<u8>), faults: &[Fault]) -> Vec<(Ask, Cut)> {
    let mut cuts = Vec::new();
    for &fault in faults {
        for (side, length) in [(Side::Request, recorded.0.len()), (Side::Response, recorded.1.len())] {
            // Silence that begins when all has passed would be the next exchange's.
            let last = if fault == Fault::Stall { length.saturating_sub(1) } else { length };
            cuts.extend((0..=last).map(|after| (ask, Cut { side, after, fault })));
        }
    }
    cuts
}

/// Goes through all `cuts`, on as many lanes as there are. `check` sees what became of each request.
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
                // What follows the answer may still be on its way when the answer is out.
                assert!(outcome.broke || outcome.is_result(), "{what}: the connection did not break");
                outcome.check(&what, ask);
                check(&what, ask, cut, &outcome);
                // Its answer is the next one: there was no second one to the request before.
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

/// Breaks each exchange of this kind everywhere, with all that ends a connection.
async fn break_everywhere(ask: Ask) {
    let recorded = Lane::ready(|_| {}).await.recorded(ask).await;
    assert!(recorded.0.len() > 200 && recorded.1.len() > 100, "that is no exchange: {recorded:?}");
    let border = resumable_from(&recorded.1);
    assert_eq!(border.is_some(), matches!(ask, Ask::Call("resumable" | "polled")), "{recorded:?}");
    let faults = [Fault::Close, Fault::Reset, Fault::Truncate, Fault::Delay];
    go_through(
        cuts(ask, &recorded, &faults),
        |_| {},
        move |what, ask, cut, outcome| {
            // What must be an answer of the server's, not only of the bridge: to a request that may be repeated, to one that
            // was only delayed, and to one whose reply can be taken up again.
            let resumes = cut.side == Side::Response && border.is_some_and(|border| border <= cut.after);
            let must = cut.fault == Fault::Delay || ask == Ask::List || resumes;
            assert!(!must || outcome.is_result(), "{what}: {}", outcome.answer);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r96_a_call_with_a_json_answer() {
    break_everywhere(Ask::Call("json")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r96_a_call_with_a_stream() {
    break_everywhere(Ask::Call("stream")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r32_r36_a_call_with_a_stream_that_can_be_resumed() {
    break_everywhere(Ask::Call("resumable")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r32_r36_a_call_with_a_stream_that_must_be_resumed() {
    break_everywhere(Ask::Call("polled")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r96_a_list_is_always_answered() {
    break_everywhere(Ask::List).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r44_silence_from_each_byte_on() {
    let mut all = Vec::new();
    for ask in FORMS.map(Ask::Call).into_iter().chain([Ask::List]) {
        let recorded = Lane::ready(|_| {}).await.recorded(ask).await;
        // Silence takes its time, so not at each byte.
        all.extend(cuts(ask, &recorded, &[Fault::Stall]).into_iter().step_by(7));
    }
    go_through(
        all,
        |config| config.timeouts.idle = IDLE,
        |what, ask, cut, outcome| {
            let kind = &outcome.answer["error"]["data"]["kind"];
            assert!(outcome.is_result() || kind == "timeout", "{what}: {}", outcome.answer);
            // What never left did not run, and what was replied to ran.
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
async fn r38_a_lost_session_whose_successor_breaks() {
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
                // It loses the push stream as well, and comes back for it.
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
async fn r5_a_handshake_that_breaks() {
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
                // To initialise is no tool call: it is repeated until it works.
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
