//! `cargo run --release --example soak -- [--seconds 60] [--calls 64] [--seed N]`: the command under fire.
//!
//! It runs the release build of `mcp-gangway` as a child process, keeps many calls outstanding, and meanwhile breaks
//! connections and restarts the server, at random. Every few seconds the faults pause until all is answered; then
//! nothing may be left over: no request, no descriptor, no memory.
//!
//! Rules that it holds the bridge to: each request gets one answer (R5), no tool runs twice (R96), no call that ran is said
//! not to have run, no line tells the credentials, nothing grows, and the end of stdin is the end of the process (R8). If one is broken, it says which,
//! and fails. The seed decides what is asked and what is broken; when the bytes flow is up to the machine.

#![allow(clippy::print_stdout, reason = "a soak reports how it goes")]
#![allow(clippy::indexing_slicing, reason = "a member that a JSON value does not have reads as null")]

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

/// The bridge as a child process, and what it said to each request.
mod client;
#[allow(dead_code, reason = "the core's tests use the rest of it")]
#[path = "../../../core/tests/it/support/fault_proxy.rs"]
mod fault_proxy;
#[allow(dead_code, reason = "the core's tests use the rest of it")]
#[path = "../../../core/tests/it/support/model.rs"]
mod model;
/// The server, and what goes wrong with it.
mod trouble;

use client::{Client, Ledger};
use model::Model;
use trouble::Trouble;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The time between two calms.
const STORM: Duration = Duration::from_secs(4);
/// How long the descriptors of connections that were closed may take to go.
const SETTLING: Duration = Duration::from_millis(300);
/// Calms before memory counts: until then buffers and pools grow to their size.
const WARM_UP: usize = 2;
/// The most resident memory after the handshake, in KiB. Where the linker puts together what a start executes it is 5200 to
/// 6000, by how the file lies in the page cache, and elsewhere over 7000.
const AT_REST: u64 = 6600;
/// How much more memory the last calm may show than the one after the warm-up, in KiB.
const MORE_MEMORY: u64 = 4 << 10;
/// What clients grant a server after they closed its stdin, before they end it by force (R8).
const GRACE: Duration = Duration::from_secs(2);
/// How much longer than asked for the whole may take.
const OVERTIME: Duration = Duration::from_mins(1);
/// The most of one kind of mistake that is shown.
const MOST_SHOWN: usize = 10;

/// Keeps calls outstanding while it breaks connections and restarts the server, and checks what becomes of them.
#[derive(Parser)]
struct Options {
    /// How long to go on
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Calls that are outstanding at the same time
    #[arg(long, default_value_t = 64)]
    calls: usize,
    /// The seed of an earlier run, to ask and break the same again
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

/// Gives the rules that were broken.
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

/// The command: the one that the environment names, or the one that was built beside this program.
fn command() -> Result<PathBuf> {
    if let Some(named) = env::var_os("MCP_GANGWAY_BIN") {
        return Ok(named.into());
    }
    let target = env::current_exe()?.parent().and_then(|examples| examples.parent()).map(PathBuf::from);
    let command =
        target.ok_or("this program stands nowhere")?.join("mcp-gangway").with_extension(env::consts::EXE_EXTENSION);
    if command.exists() { Ok(command) } else { Err(format!("build it first: no {}", command.display()).into()) }
}

/// What the bridge holds when it has nothing to do and nobody is connected.
struct Calm {
    descriptors: usize,
    /// In KiB, as all figures of memory here.
    resident: u64,
    /// The same, with what it shares with other processes divided among them.
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

/// One line for one calm.
fn report(time: Duration, ledger: &Ledger, trouble: &Trouble, calm: &Calm) {
    let errors: usize = ledger.errors.values().sum();
    let (runs, doubles) = trouble.model.all_runs();
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

/// The table at the end.
fn summarise(ledger: &Ledger, trouble: &Trouble, calms: &[Calm]) {
    fn row(name: &str, value: impl Display) {
        println!("  {name:<22}{value}");
    }
    fn kinds<K: Display>(counts: &BTreeMap<K, usize>) -> String {
        let all: Vec<_> = counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        format!("{} ({})", counts.values().sum::<usize>(), all.join(", "))
    }
    let (runs, doubles) = trouble.model.all_runs();
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
    row("answers to nobody", ledger.strangers);
    row("faults", kinds(&trouble.faults));
    row("restarts", trouble.restarts);
    row("sessions", trouble.model.sessions());
    if let (Some(first), Some(last)) = (calms.first(), calms.last()) {
        row("descriptors", format!("{} at the first calm, {} at the last", first.descriptors, last.descriptors));
        row("memory, RSS", format!("{} KiB at the first calm, {} at the last", first.resident, last.resident));
        row("memory, PSS", format!("{} KiB at the first calm, {} at the last", first.share, last.share));
    }
}

fn broken_rules(ledger: &Ledger, model: &Model, rest: &Calm, calms: &[Calm]) -> Vec<String> {
    let mut wrong = ledger.mistakes(model);
    let unshown = wrong.len().saturating_sub(MOST_SHOWN);
    wrong.truncate(MOST_SHOWN);
    if unshown > 0 {
        wrong.push(format!("and {unshown} more"));
    }
    let doubles = model.all_runs().1;
    for (count, what) in [
        (ledger.outstanding(), "requests have no answer"),
        (ledger.duplicates, "answers to requests that were answered before"),
        (ledger.strangers, "answers to requests that nobody made"),
        (doubles, "calls ran more than once"),
    ] {
        if count > 0 {
            wrong.push(format!("{count} {what}"));
        }
    }
    if rest.resident > AT_REST {
        wrong.push(format!("after the handshake {} KiB are resident, over {AT_REST}", rest.resident));
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

/// Numbers whose course the seed decides (`SplitMix64`).
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

    /// A time of less than so many milliseconds.
    fn millis(&mut self, limit: u64) -> Duration {
        Duration::from_millis(self.below(limit))
    }

    /// Other numbers, that the same seed decides.
    fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
