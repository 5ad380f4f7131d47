//! The tests. Each starts its own bridge, which inherits no memory or connections.
//!
//! Each round of a test runs all bridges in turn (A B C A B C …), so that changes on the machine affect all of them. A
//! failed test is not repeated, nor are its larger sizes tried. Every wait has a limit. A fixed workload is timed
//! before each measurement: a small spread means a quiet machine.

use std::{
    collections::BTreeMap,
    env,
    hint::black_box,
    io::{self, BufRead, BufReader, IsTerminal},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    Result,
    bridge::{Bridge, Call, Processors},
    direct::Direct,
    peers::{self, Peer, Places},
    report::{DIRECT, Machine, Named, Results, Row},
    server::{self, Format},
};

const MEBIBYTE: u64 = 1 << 20;
/// The bytes of the response for round trips.
const SMALL: u64 = 100;
/// The number of bridges whose memory is measured together.
const MANY: usize = 8;
/// Paced events: their number, their size in bytes, and the milliseconds between them.
const EVENTS: (u64, u64, u64) = (100, 200, 10);
/// The bytes of a stream, and of one event.
const STREAM: (u64, u64) = (1 << 30, 4 << 10);
/// For the test with a stopped reader: the bytes of its stream, and the number of other calls.
const SLOW: (u64, u64) = (64 << 20, 32);
/// The same for the test with a slow reader, which reads 16 KiB every 16 ms: 1 MB/s.
const SIPPED: u64 = 8 << 20;
const SIP_PAUSE: Duration = Duration::from_millis(16);
/// The most characters of a bridge's error that are shown.
const SAID: usize = 120;
/// The pause before a bridge counts as idle.
const REST: Duration = Duration::from_millis(700);

#[derive(Args)]
pub(crate) struct Options {
    /// Only tests with these name prefixes, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "TESTS")]
    only: Vec<String>,
    /// Only these bridges, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    bridges: Vec<String>,
    /// Rounds for each test
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One short round, to check that it works
    #[arg(long)]
    quick: bool,
    /// File with the list of bridges
    #[arg(long, default_value = "bench/peers.txt")]
    peers: PathBuf,
    /// Processor for the bridges, and optionally another for driver and server
    #[arg(long, value_delimiter = ',', num_args = 1, value_name = "CPU[,CPU]")]
    pin: Vec<usize>,
    /// Time limit of one measurement, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    limit: u64,
    /// Folder to also write the results, tables and plots to
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, default_missing_value = "docs/performance", conflicts_with = "quick")]
    record: Option<PathBuf>,
    /// Show stderr of the bridges
    #[arg(long)]
    show_errors: bool,
    /// The built command of this project
    #[arg(long, value_name = "FILE")]
    gangway: PathBuf,
    /// Folder of bench/install-peers
    #[arg(long, default_value = "target/peers", value_name = "FOLDER")]
    installed: PathBuf,
    /// File for the results
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
}

/// Measures, prints tables and writes the results.
pub(crate) fn run(options: &Options) -> Result<()> {
    let processors =
        Processors { bridge: options.pin.first().copied(), rest: options.pin.get(1).or(options.pin.first()).copied() };
    Processors::stay(processors.rest)?;
    let places = Places { gangway: options.gangway.clone(), peers: options.installed.clone() };
    let (mut peers, absent) = peers::read(&options.peers, &places)?;
    peers.retain(|peer| options.bridges.is_empty() || options.bridges.contains(&peer.name));
    if peers.is_empty() {
        return Err("there is no bridge to measure".into());
    }
    let server = Server::start()?;
    let bench = Bench {
        url: server.url.clone(),
        processors,
        limit: Duration::from_secs(options.limit),
        quick: options.quick,
        show_errors: options.show_errors,
    };
    let tests: Vec<Test> = Test::all()
        .into_iter()
        .filter(|test| options.only.is_empty() || options.only.iter().any(|prefix| test.name().starts_with(prefix)))
        .collect();
    if tests.is_empty() {
        return Err("no test has this name".into());
    }
    let mut results = Results {
        date: said("date", &["-u", "+%Y-%m-%d"]),
        command: command(options),
        machine: Machine::this(),
        versions: vec![
            Named { name: "mcp-gangway, commit".to_owned(), value: said("git", &["describe", "--always", "--dirty"]) },
            Named { name: "compiler".to_owned(), value: said("rustc", &["--version"]) },
        ],
        rounds: if options.quick { 1 } else { options.rounds },
        bridges: peers.iter().map(|peer| Named { name: peer.name.clone(), value: peer.version.clone() }).collect(),
        absent,
        spins: Vec::new(),
        rows: Vec::new(),
    };
    let mut failed: BTreeMap<(String, String), String> = BTreeMap::new();
    for test in tests {
        bench.test(test, &peers, &mut results, &mut failed);
        println!("{}", results.table(&test.name()));
    }
    println!("{}", results.conditions());
    results.write(&options.results)?;
    println!("results: {}", options.results.display());
    if let Some(folder) = &options.record {
        results.publish(folder)?;
        println!("recorded: {}", folder.display());
    }
    Ok(())
}

/// One test.
#[derive(Clone, Copy)]
pub(crate) enum Test {
    /// From the start of the process to its first responses.
    Start,
    /// One call after the other.
    RoundTrip(Format),
    /// This many calls at once.
    Outstanding(usize),
    /// Memory of an idle bridge.
    Idle,
    /// The same with several bridges.
    Many,
    /// The age of an event when the bridge prints it.
    Age,
    /// One response of this many MiB.
    Big(Format, u64),
    /// Many events, as fast as possible.
    Stream(Format),
    /// A reader that stops for a while.
    Stopped,
    /// A reader that takes 1 MB/s.
    Sipping,
}

/// One column of a table.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

const fn figure(name: &'static str, unit: &'static str) -> Figure {
    Figure { name, unit }
}

impl Test {
    /// Returns all tests, in the order in which they run.
    pub(crate) fn all() -> Vec<Self> {
        let formats = [Format::Json, Format::Sse, Format::Ndjson];
        let mut all = vec![Self::Start, Self::RoundTrip(Format::Json), Self::RoundTrip(Format::Sse)];
        all.extend([1, 16, 64, 256].map(Self::Outstanding));
        all.extend([Self::Idle, Self::Many, Self::Age]);
        all.extend(formats.iter().flat_map(|&format| [1, 16, 64, 256].map(|size| Self::Big(format, size))));
        all.extend([Self::Stream(Format::Sse), Self::Stream(Format::Ndjson), Self::Stopped, Self::Sipping]);
        all
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Start => "start".to_owned(),
            Self::RoundTrip(format) => format!("round-trip-{}", format.name()),
            Self::Outstanding(calls) => format!("outstanding-{calls}"),
            Self::Idle => "idle".to_owned(),
            Self::Many => format!("idle-{MANY}"),
            Self::Age => "age".to_owned(),
            Self::Big(format, size) => format!("big-{}-{size}", format.name()),
            Self::Stream(format) => format!("stream-{}", format.name()),
            Self::Stopped => "slow-stopped".to_owned(),
            Self::Sipping => "slow-1-mb".to_owned(),
        }
    }

    /// Returns the title of the table.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Start => {
                "Start: from the start of the process to the answer to `initialize` and to a first call".into()
            }
            Self::RoundTrip(format) => {
                format!("Round trip: one call after the other, {SMALL} bytes of text as {}", format.title())
            }
            Self::Outstanding(1) => "Answers a second, one call outstanding".into(),
            Self::Outstanding(calls) => format!("Answers a second, {calls} calls outstanding"),
            Self::Idle => "Memory after 10 calls, at rest".into(),
            Self::Many => format!("Memory of {MANY} bridges at rest, each"),
            Self::Age => {
                let (count, size, pause) = EVENTS;
                format!("Age of an event when it comes out: {count} events of {size} bytes, one every {pause} ms")
            }
            Self::Big(format, size) => format!("One answer of {size} MiB as {}", format.title()),
            Self::Stream(format) => format!("1 GiB in events of 4 KiB as {}", format.title()),
            Self::Stopped => format!(
                "A reader that stops for 10 s in a stream of {} MiB, while {} other calls are made",
                SLOW.0 / MEBIBYTE,
                SLOW.1
            ),
            Self::Sipping => {
                format!("A reader that takes 1 MB/s of {} MiB, and {} other calls", SIPPED / MEBIBYTE, SLOW.1)
            }
        }
    }

    /// Returns the figures of the test. The first one is compared.
    pub(crate) fn figures(self) -> &'static [Figure] {
        const START: [Figure; 3] = [figure("initialize", "ms"), figure("first call", "ms"), figure("CPU", "ms")];
        const ROUND_TRIP: [Figure; 4] =
            [figure("p50", "µs"), figure("p90", "µs"), figure("p99", "µs"), figure("CPU a call", "µs")];
        const OUTSTANDING: [Figure; 2] = [figure("answers a second", ""), figure("CPU a call", "µs")];
        const IDLE: [Figure; 2] = [figure("RSS", "MiB"), figure("PSS", "MiB")];
        const AGE: [Figure; 3] = [figure("p50", "µs"), figure("p99", "µs"), figure("most", "µs")];
        const BIG: [Figure; 3] =
            [figure("time", "ms"), figure("speed", "MB/s"), figure("peak memory over idle", "MiB")];
        const SLOW: [Figure; 2] = [figure("peak memory over idle", "MiB"), figure("time", "ms")];
        match self {
            Self::Start => &START,
            Self::RoundTrip(_) => &ROUND_TRIP,
            Self::Outstanding(_) => &OUTSTANDING,
            Self::Idle | Self::Many => &IDLE,
            Self::Age => &AGE,
            Self::Big(..) | Self::Stream(_) => &BIG,
            Self::Stopped | Self::Sipping => &SLOW,
        }
    }

    /// True if the test can also call the server without a bridge.
    fn has_direct(self) -> bool {
        matches!(self, Self::RoundTrip(_) | Self::Age | Self::Big(..) | Self::Stream(_))
    }

    /// Returns the family of the test. Tests of one family grow: if one fails, the later ones would too.
    fn family(self) -> String {
        match self {
            Self::Big(format, _) => format!("big-{}", format.name()),
            _ => self.name(),
        }
    }
}

struct Bench {
    url: String,
    processors: Processors,
    limit: Duration,
    quick: bool,
    show_errors: bool,
}

impl Bench {
    fn test(&self, test: Test, peers: &[Peer], results: &mut Results, failed: &mut BTreeMap<(String, String), String>) {
        let who = test.has_direct().then_some(None).into_iter().chain(peers.iter().map(Some));
        let mut rows: Vec<(Option<&Peer>, Row)> = who
            .map(|peer| {
                let name = peer.map_or(DIRECT, |peer| peer.name.as_str()).to_owned();
                (peer, Row { test: test.name(), bridge: name, samples: Vec::new(), trouble: None })
            })
            .collect();
        let once = matches!(test, Test::Stopped | Test::Sipping);
        for round in 0..if once { 1 } else { results.rounds } {
            for (peer, row) in &mut rows {
                let key = (test.family(), row.bridge.clone());
                if let Some(trouble) = failed.get(&key) {
                    row.trouble.get_or_insert_with(|| format!("not tried: {trouble}"));
                    continue;
                }
                progress(&format!("{} {} {}", test.name(), round + 1, row.bridge));
                results.spins.push(spin());
                let measured = match peer {
                    Some(peer) => self.bridge(test, peer),
                    None => self.direct(test),
                };
                match measured {
                    Ok(sample) => row.samples.push(sample),
                    Err(error) => {
                        let trouble = match error.downcast_ref::<io::Error>() {
                            Some(error) if error.kind() == io::ErrorKind::TimedOut => {
                                format!("no end after {} s", self.limit.as_secs())
                            }
                            _ => error.to_string().chars().take(SAID).collect(),
                        };
                        row.samples.clear();
                        row.trouble = Some(trouble.clone());
                        failed.insert(key, format!("{}: {trouble}", test.name()));
                    }
                }
            }
        }
        progress("");
        results.rows.extend(rows.into_iter().map(|(_, row)| row));
    }

    fn bridge(&self, test: Test, peer: &Peer) -> Result<Vec<f64>> {
        match test {
            Test::Start => self.start_up(peer),
            Test::RoundTrip(format) => self.round_trip(peer, format),
            Test::Outstanding(calls) => self.outstanding(peer, calls),
            Test::Idle => self.idle(peer, 1),
            Test::Many => self.idle(peer, MANY),
            Test::Age => self.age(peer),
            Test::Big(format, size) => self.big(peer, format, size * MEBIBYTE),
            Test::Stream(format) => self.stream(peer, format),
            Test::Stopped => {
                let stop = Duration::from_secs(if self.quick { 2 } else { 10 });
                self.slow(peer, SLOW.0, stop, None)
            }
            Test::Sipping => {
                let bytes = if self.quick { SIPPED / 8 } else { SIPPED };
                self.slow(peer, bytes, Duration::ZERO, Some(SIP_PAUSE))
            }
        }
    }

    fn direct(&self, test: Test) -> Result<Vec<f64>> {
        let mut server = Direct::connect(&self.url, self.limit)?;
        let until = self.until();
        match test {
            Test::RoundTrip(format) => {
                let call = Call::Text { size: SMALL, format };
                for _ in 0..200 {
                    server.call(&call, until, |_| {})?;
                }
                let mut times = self.times(|_| server.call(&call, until, |_| {}).map(drop))?;
                let percentiles = [0.5, 0.9, 0.99].map(|part| 1e6 * percentile(&mut times, part));
                Ok(percentiles.to_vec())
            }
            Test::Age => {
                let mut ages = Vec::new();
                server.call(&events(EVENTS, Format::Sse), until, |text| ages.extend(ages_of(text)))?;
                summary_of_ages(ages)
            }
            Test::Big(format, size) => {
                let begin = Instant::now();
                let bytes = server.call(&Call::Text { size: size * MEBIBYTE, format }, until, |_| {})?;
                Ok(vec![1e3 * begin.elapsed().as_secs_f64(), speed(bytes, begin)])
            }
            Test::Stream(format) => {
                let begin = Instant::now();
                let bytes = server.call(&self.whole_stream(format), until, |_| {})?;
                Ok(vec![1e3 * begin.elapsed().as_secs_f64(), speed(bytes, begin)])
            }
            _ => Err("nothing to compare with".into()),
        }
    }

    fn start(&self, peer: &Peer) -> Result<Bridge> {
        Bridge::start(peer, &self.url, self.processors, self.show_errors)
    }

    /// Starts a bridge and makes some calls.
    fn warm(&self, peer: &Peer, calls: u64, call: &Call) -> Result<Bridge> {
        let until = self.until();
        let mut bridge = self.start(peer)?;
        bridge.open(until)?;
        for id in 1..=calls {
            bridge.call(id, call, until)?;
        }
        Ok(bridge)
    }

    fn until(&self) -> Instant {
        Instant::now() + self.limit
    }

    /// Repeats `go` and returns the duration of each run, in seconds.
    fn times(&self, mut go: impl FnMut(u64) -> Result<()>) -> Result<Vec<f64>> {
        let end = Instant::now() + Duration::from_millis(if self.quick { 100 } else { 1000 });
        let mut times = Vec::new();
        while Instant::now() < end {
            let begin = Instant::now();
            go(times.len() as u64)?;
            times.push(begin.elapsed().as_secs_f64());
        }
        Ok(times)
    }

    fn start_up(&self, peer: &Peer) -> Result<Vec<f64>> {
        let (most, end) = (if self.quick { 1 } else { 10 }, Instant::now() + Duration::from_secs(3));
        let mut times: [Vec<f64>; 3] = Default::default();
        let call = Call::Text { size: SMALL, format: Format::Json };
        while times[0].len() < most && (times[0].is_empty() || Instant::now() < end) {
            let until = self.until();
            let mut bridge = self.start(peer)?;
            bridge.open(until)?;
            times[0].push(bridge.started.elapsed().as_secs_f64());
            bridge.call(1, &call, until)?;
            times[1].push(bridge.started.elapsed().as_secs_f64());
            times[2].push(bridge.processor_time()?);
        }
        Ok(times.map(|mut times| 1e3 * percentile(&mut times, 0.5)).to_vec())
    }

    fn round_trip(&self, peer: &Peer, format: Format) -> Result<Vec<f64>> {
        let call = Call::Text { size: SMALL, format };
        let mut bridge = self.warm(peer, if self.quick { 10 } else { 200 }, &call)?;
        let (until, before) = (self.until(), bridge.processor_time()?);
        let mut times = self.times(|id| bridge.call(1000 + id, &call, until).map(drop))?;
        let used = (bridge.processor_time()? - before) / times.len() as f64;
        let percentiles = [0.5, 0.9, 0.99].map(|part| 1e6 * percentile(&mut times, part));
        Ok(percentiles.into_iter().chain([1e6 * used]).collect())
    }

    fn outstanding(&self, peer: &Peer, calls: usize) -> Result<Vec<f64>> {
        let call = Call::Text { size: SMALL, format: Format::Json };
        let mut bridge = self.warm(peer, 10, &call)?;
        let length = Duration::from_millis(if self.quick { 200 } else { 1000 });
        // The time until every connection is open is not part of this test.
        let measured = Instant::now() + length / 4;
        let end = measured + length;
        let until = end + self.limit;
        let mut waiting = Vec::new();
        let ask = |waiting: &mut Vec<bool>| {
            waiting.push(true);
            call.request(waiting.len() as u64 + 99) + "\n"
        };
        let first: String = (0..calls).map(|_| ask(&mut waiting)).collect();
        bridge.write(first.as_bytes(), until)?;
        let (mut open, mut counted, mut before, mut last) = (calls, 0_u64, None, measured);
        while open > 0 {
            let Some(id) = bridge.hear(until)?.answers()? else { continue };
            match waiting.get_mut((id as usize).wrapping_sub(100)) {
                Some(waiting) if *waiting => *waiting = false,
                _ => return Err(format!("{id} was answered twice").into()),
            }
            let now = Instant::now();
            // For a slow bridge, count each open call at least once more, but with a time limit.
            if now > end && (counted >= calls as u64 || now > end + 10 * length) {
                open -= 1;
                continue;
            }
            if before.is_some() {
                counted += 1;
                last = now;
            } else if now > measured {
                before = Some((bridge.processor_time()?, now));
            }
            bridge.write(ask(&mut waiting).as_bytes(), until)?;
        }
        // The processor time includes the calls that were open at the end, but the count does not: at most 256 of
        // thousands.
        let (before, begin) = before.filter(|_| counted > 0).ok_or("too few responses came in time")?;
        let used = (bridge.processor_time()? - before) / (counted + calls as u64) as f64;
        Ok(vec![counted as f64 / (last - begin).as_secs_f64(), 1e6 * used])
    }

    fn idle(&self, peer: &Peer, count: usize) -> Result<Vec<f64>> {
        let call = Call::Text { size: SMALL, format: Format::Json };
        let bridges = (0..count).map(|_| self.warm(peer, 10, &call)).collect::<Result<Vec<_>>>()?;
        thread::sleep(REST);
        let all = bridges.iter().map(Bridge::memory);
        let (resident, proportional) =
            all.fold((0, 0), |sum, memory| (sum.0 + memory.resident, sum.1 + memory.proportional));
        Ok([resident, proportional].map(|bytes| mebibytes(bytes) / count as f64).to_vec())
    }

    fn age(&self, peer: &Peer) -> Result<Vec<f64>> {
        let mut bridge = self.warm(peer, 10, &Call::Text { size: SMALL, format: Format::Sse })?;
        let until = self.until();
        bridge.ask(100, &events(EVENTS, Format::Sse), until)?;
        let mut ages = Vec::new();
        loop {
            let line = bridge.hear(until)?;
            if line.answers()?.is_some() {
                break;
            }
            ages.extend(ages_of(line.head));
        }
        summary_of_ages(ages)
    }

    fn big(&self, peer: &Peer, format: Format, size: u64) -> Result<Vec<f64>> {
        let mut bridge = self.warm(peer, 10, &Call::Text { size: SMALL, format })?;
        let idle = self.at_rest(&bridge);
        let (until, begin) = (self.until(), Instant::now());
        let length = bridge.call(100, &Call::Text { size, format }, until)?;
        let (time, speed) = (1e3 * begin.elapsed().as_secs_f64(), speed(length, begin));
        if length < size {
            return Err(format!("{length} bytes came of {size}").into());
        }
        Ok(vec![time, speed, mebibytes(bridge.peak().saturating_sub(idle))])
    }

    fn stream(&self, peer: &Peer, format: Format) -> Result<Vec<f64>> {
        let mut bridge = self.warm(peer, 10, &Call::Text { size: SMALL, format })?;
        let idle = self.at_rest(&bridge);
        let call = self.whole_stream(format);
        let (until, begin) = (self.until(), Instant::now());
        bridge.ask(100, &call, until)?;
        let (mut lines, mut bytes) = (0, 0);
        loop {
            let line = bridge.hear(until)?;
            bytes += line.length;
            if line.answers()?.is_some() {
                break;
            }
            lines += 1;
        }
        let (time, speed) = (1e3 * begin.elapsed().as_secs_f64(), speed(bytes, begin));
        all_came(lines, &call)?;
        Ok(vec![time, speed, mebibytes(bridge.peak().saturating_sub(idle))])
    }

    fn slow(&self, peer: &Peer, bytes: u64, stop: Duration, pause: Option<Duration>) -> Result<Vec<f64>> {
        let small = Call::Text { size: SMALL, format: Format::Json };
        let mut bridge = self.warm(peer, 10, &small)?;
        let idle = self.at_rest(&bridge);
        let size = STREAM.1;
        let call = Call::Events { count: bytes / size, size, pause: 0, format: Format::Sse };
        let paced = pause.map_or(Duration::ZERO, |_| Duration::from_micros(bytes));
        let begin = Instant::now();
        let until = begin + self.limit + stop + 2 * paced;
        bridge.ask(100, &call, until)?;
        for id in 1..=SLOW.1 {
            bridge.ask(100 + id, &small, until)?;
        }
        bridge.lines.pause = pause;
        thread::sleep(stop);
        let (mut lines, mut answers) = (0, vec![false; SLOW.1 as usize + 1]);
        while answers.contains(&false) {
            match bridge.hear(until)?.answers()? {
                None => lines += 1,
                Some(id) => match answers.get_mut((id as usize).wrapping_sub(100)) {
                    Some(answered) if !*answered => *answered = true,
                    _ => return Err(format!("{id} was answered twice").into()),
                },
            }
        }
        let time = 1e3 * begin.elapsed().as_secs_f64();
        all_came(lines, &call)?;
        Ok(vec![mebibytes(bridge.peak().saturating_sub(idle)), time])
    }

    /// Waits, resets the peak and returns the memory before the test.
    fn at_rest(&self, bridge: &Bridge) -> u64 {
        thread::sleep(if self.quick { REST / 7 } else { REST / 3 });
        bridge.forget_peak();
        bridge.memory().resident
    }

    fn whole_stream(&self, format: Format) -> Call {
        let (bytes, size) = STREAM;
        let bytes = if self.quick { bytes / 64 } else { bytes };
        Call::Events { count: bytes / size, size, pause: 0, format }
    }
}

/// The server as a separate process.
pub(crate) struct Server {
    process: Child,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let mut process = command.arg("server").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = process.stdout.take().ok_or("the server has no stdout")?;
        let mut url = String::new();
        BufReader::new(output).read_line(&mut url)?;
        Ok(Self { process, url: url.trim_end().to_owned() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the milliseconds for a fixed workload.
fn spin() -> f64 {
    let begin = Instant::now();
    let mut number = 1_u64;
    for step in 0..2_000_000_u64 {
        number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step));
    }
    1e3 * begin.elapsed().as_secs_f64()
}

fn events((count, size, pause): (u64, u64, u64), format: Format) -> Call {
    Call::Events { count, size, pause, format }
}

/// Returns the seconds since each event in this text was sent.
fn ages_of(text: &[u8]) -> impl Iterator<Item = f64> {
    let now = server::now();
    server::left_at(text).map(move |left| now.saturating_sub(left) as f64 / 1e9)
}

fn summary_of_ages(mut ages: Vec<f64>) -> Result<Vec<f64>> {
    if ages.len() as u64 != EVENTS.0 {
        return Err(format!("{} of {} events came before the result", ages.len(), EVENTS.0).into());
    }
    Ok([0.5, 0.99, 1.0].map(|part| 1e6 * percentile(&mut ages, part)).to_vec())
}

fn all_came(lines: u64, call: &Call) -> Result<()> {
    match call {
        Call::Events { count, .. } if lines != *count => Err(format!("{lines} of {count} events came").into()),
        _ => Ok(()),
    }
}

/// Returns the value at this fraction of the sorted values.
fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (part * (values.len().saturating_sub(1)) as f64).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}

fn speed(bytes: u64, begin: Instant) -> f64 {
    bytes as f64 / 1e6 / begin.elapsed().as_secs_f64()
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / MEBIBYTE as f64
}

/// Shows the current measurement on a terminal.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

/// Returns the output of a program, or nothing.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

/// Returns the command that repeats this run.
fn command(options: &Options) -> String {
    let mut words = vec!["bench/run".to_owned()];
    let list = |name: &str, values: &[String]| {
        if values.is_empty() { vec![] } else { vec![name.to_owned(), values.join(",")] }
    };
    words.extend(list("--only", &options.only));
    words.extend(list("--bridges", &options.bridges));
    words.extend(list("--pin", &options.pin.iter().map(ToString::to_string).collect::<Vec<_>>()));
    if options.quick {
        words.push("--quick".to_owned());
    } else {
        words.extend(list("--rounds", &[options.rounds.to_string()]));
    }
    words.extend(list("--limit", &[options.limit.to_string()]));
    if options.record.is_some() {
        words.push("--record".to_owned());
    }
    words.join(" ")
}
