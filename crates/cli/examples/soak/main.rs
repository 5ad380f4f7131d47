//! `cargo run --release --example soak -- [--seconds 60] [--calls 64] [--seed N]`: a soak test of the command.
//!
//! It runs the release build of `mcp-gangway` as a child process and keeps many calls outstanding. Meanwhile it
//! breaks connections and restarts the server at random. Every few seconds the faults pause until all calls are
//! answered; then no request, descriptor or memory may be left over.
//!
//! Rules that it checks: each request gets one answer (R5); no tool runs twice (R96); no error says that a call did
//! not run if it did; no line contains the credentials; nothing grows; the process ends after stdin does (R8). If a
//! rule is broken, the test names it and fails. The seed determines the requests and the faults, but not their
//! timing.

#![allow(clippy::print_stdout, reason = "the test prints its progress")]
#![allow(clippy::indexing_slicing, reason = "a missing member of a JSON value reads as null")]

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fmt::Display,
    fs,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use tokio::time::{Instant, sleep, timeout};

/// The bridge as a child process, and its answers.
mod client;
/// The server and its faults.
mod trouble;

use client::{Client, Ledger};
use mcp_gangway_testing::{fault_proxy, model, model::Model};
use trouble::Trouble;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The time between two pauses of the faults.
const STORM: Duration = Duration::from_secs(4);
/// How long closed connections may keep their descriptors.
const SETTLING: Duration = Duration::from_millis(300);
/// The number of pauses before memory is compared: until then buffers and pools grow to their size.
const WARM_UP: usize = 2;
/// The limit of resident memory after the handshake, in KiB. It is 7000 to 7500, depending on the page cache.
const AT_REST: u64 = 8000;
/// How much memory may grow between the pause after the warm-up and the last one, in KiB.
const MORE_MEMORY: u64 = 4 << 10;
/// How long clients wait after they close a server's stdin before they kill it (R8).
const GRACE: Duration = Duration::from_secs(2);
/// How much longer than requested the test may take.
const OVERTIME: Duration = Duration::from_mins(1);
/// The maximum number of mistakes of one kind to print.
const MAX_SHOWN: usize = 10;

/// Keeps calls outstanding while it breaks connections and restarts the server, and checks every outcome
#[derive(Parser)]
struct Options {
    /// How long to run, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Number of concurrent calls
    #[arg(long, default_value_t = 64)]
    calls: usize,
    /// Seed of an earlier run, to repeat its requests and faults
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    let limit = Duration::from_secs(options.seconds) + OVERTIME;
    let soaked = timeout(limit, soak(&options)).await;
    match soaked.unwrap_or_else(|_| Err(format!("it did not end within {limit:?}").into())) {
        Ok(wrong) if wrong.is_empty() => {
            println!("\nAll rules hold.");
            ExitCode::SUCCESS
        }
        Ok(wrong) => {
            println!("\nBroken rules:\n  {}", wrong.join("\n  "));
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("\nThe soak failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the test and returns the rules that were broken.
async fn soak(options: &Options) -> Result<Vec<String>> {
    let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    let mut random = Random(seed);
    let command = command()?;
    println!("{} for {} s with {} calls at once, seed {seed}", command.display(), options.seconds, options.calls);

    let mut trouble = Trouble::start(random.fork()).await?;
    let mut client = Client::launch(&command, trouble.address(), random)?;
    client.shake_hands().await?;
    let rest = Calm::of(client.process()?)?;
    let mut calms = Vec::new();
    let (start, length) = (Instant::now(), Duration::from_secs(options.seconds));
    while start.elapsed() < length && client.ledger.outstanding() == 0 {
        let until = Instant::now() + STORM.min(length.saturating_sub(start.elapsed()));
        tokio::try_join!(client.storm(until, options.calls), trouble.make(until))?;
        client.settle().await?;
        trouble.hang_up().await?;
        sleep(SETTLING).await;
        let calm = Calm::of(client.process()?)?;
        trouble.listen().await?;
        report(start.elapsed(), &client.ledger, &trouble, &calm);
        calms.push(calm);
    }
    let mut wrong = Vec::new();
    match client.close(GRACE).await? {
        Some(status) if status.success() => {}
        Some(status) => wrong.push(format!("after the end of stdin the command ended with {status}")),
        None => wrong.push(format!("the command did not end within {GRACE:?} of the end of stdin")),
    }
    summarise(&client.ledger, &trouble, &calms);
    wrong.extend(broken_rules(&client.ledger, &trouble.model, &rest, &calms));
    Ok(wrong)
}

/// Returns the path of the command: `MCP_GANGWAY_BIN`, or the build next to this program.
fn command() -> Result<PathBuf> {
    if let Some(named) = env::var_os("MCP_GANGWAY_BIN") {
        return Ok(named.into());
    }
    let target = env::current_exe()?.parent().and_then(|examples| examples.parent()).map(PathBuf::from);
    let command =
        target.ok_or("no path of this program")?.join("mcp-gangway").with_extension(env::consts::EXE_EXTENSION);
    if command.exists() { Ok(command) } else { Err(format!("build first: no {}", command.display()).into()) }
}

/// The bridge's resources when it is idle and has no connections.
struct Calm {
    descriptors: usize,
    /// Resident memory (RSS), in KiB.
    resident: u64,
    /// Proportional memory (PSS), in KiB: shared memory is divided among its processes.
    share: u64,
}

impl Calm {
    fn of(process: u32) -> Result<Self> {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"))?.count();
        let memory = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let figure = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).ok_or("no figures of memory")
        };
        Ok(Self { descriptors, resident: figure("Rss:")?, share: figure("Pss:")? })
    }
}

/// Prints one line for a pause.
fn report(time: Duration, ledger: &Ledger, trouble: &Trouble, calm: &Calm) {
    let errors: usize = ledger.errors.values().sum();
    let (runs, doubles) = trouble.model.run_counts();
    println!(
        "{:6.1} s  {:6} sent {:6} answered {:6} results {:5} errors {:6} ran {doubles} twice  {:5} faults {:3} restarts \
         {:3} descriptors  RSS {} KiB  PSS {} KiB",
        time.as_secs_f64(),
        ledger.sent(),
        ledger.sent() - ledger.outstanding(),
        ledger.results,
        errors,
        runs,
        trouble.faults.values().sum::<usize>(),
        trouble.restarts,
        calm.descriptors,
        calm.resident,
        calm.share,
    );
}

/// Prints the final table.
fn summarise(ledger: &Ledger, trouble: &Trouble, calms: &[Calm]) {
    fn row(name: &str, value: impl Display) {
        println!("  {name:<22}{value}");
    }
    fn kinds<K: Display>(counts: &BTreeMap<K, usize>) -> String {
        let all: Vec<_> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        format!("{} ({})", counts.values().sum::<usize>(), all.join(", "))
    }
    let (runs, doubles) = trouble.model.run_counts();
    println!();
    row("sent", ledger.sent());
    row("answered", ledger.sent() - ledger.outstanding());
    row("results", ledger.results);
    row("errors of tools", ledger.tool_errors);
    row("errors", kinds(&ledger.errors));
    row("progress", ledger.progress);
    row("calls that ran", runs);
    row("ran twice", doubles);
    row("lost", ledger.outstanding());
    row("answered twice", ledger.duplicates);
    row("unknown answers", ledger.strangers);
    row("faults", kinds(&trouble.faults));
    row("restarts", trouble.restarts);
    row("sessions", trouble.model.sessions());
    if let (Some(first), Some(last)) = (calms.first(), calms.last()) {
        row("descriptors", format!("{} at the first pause, {} at the last", first.descriptors, last.descriptors));
        row("memory, RSS", format!("{} KiB at the first pause, {} at the last", first.resident, last.resident));
        row("memory, PSS", format!("{} KiB at the first pause, {} at the last", first.share, last.share));
    }
}

fn broken_rules(ledger: &Ledger, model: &Model, rest: &Calm, calms: &[Calm]) -> Vec<String> {
    let mut wrong = ledger.mistakes(model);
    let unshown = wrong.len().saturating_sub(MAX_SHOWN);
    wrong.truncate(MAX_SHOWN);
    if unshown > 0 {
        wrong.push(format!("and {unshown} more"));
    }
    let doubles = model.run_counts().1;
    for (count, what) in [
        (ledger.outstanding(), "requests have no answer"),
        (ledger.duplicates, "answers to requests that were answered before"),
        (ledger.strangers, "answers to unknown requests"),
        (doubles, "calls ran more than once"),
        (ledger.changes.saturating_sub(model.sessions()), "more changes of the tools than sessions"),
    ] {
        if count > 0 {
            wrong.push(format!("{count} {what}"));
        }
    }
    if rest.resident > AT_REST {
        wrong.push(format!("{} KiB are resident after the handshake, more than {AT_REST}", rest.resident));
    }
    if let (Some(first), Some(most)) = (calms.first(), calms.iter().map(|calm| calm.descriptors).max())
        && most > first.descriptors
    {
        wrong.push(format!("descriptors grew from {} to {most}", first.descriptors));
    }
    if let (Some(warm), Some(last)) = (calms.get(WARM_UP), calms.last())
        && last.share > warm.share + MORE_MEMORY
    {
        wrong.push(format!("memory grew from {} KiB after the warm-up to {} KiB", warm.share, last.share));
    }
    wrong
}

/// Pseudo-random numbers from a seed (`SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Returns a random duration below this many milliseconds.
    fn millis(&mut self, limit: u64) -> Duration {
        Duration::from_millis(self.below(limit))
    }

    /// Returns an independent generator that the same seed determines.
    fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
