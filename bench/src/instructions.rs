//! Counts the instructions of the hot paths with valgrind. The counts do not depend on the load of the machine, so
//! continuous integration can compare a change with the record.
//!
//! Rule: compare only equal conditions. The compiler, valgrind and the processor features that valgrind reports decide
//! which code is generated and which variant runs. If they differ from the record, the figures are printed but not
//! judged.

use std::{
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clap::Args;

use crate::{
    Result,
    bridge::{Bridge, Call},
    callgrind::{LIMIT, Output},
    server::Format,
};

/// How much a figure may exceed its record, in percent. Runs of one build differ by 0.1 %. The rest allows for compiler
/// effects of changes elsewhere.
const TOLERANCE: f64 = 2.0;
/// The life of the command with one call: start, handshake, call, end.
const LIFE: &str = "start-call-end";

#[derive(Args)]
pub(crate) struct Options {
    /// Fail if a path executes more than its record allows
    #[arg(long)]
    check: bool,
    /// Record these figures
    #[arg(long, conflicts_with = "check")]
    record: bool,
    /// The built example `instructions` of the core
    #[arg(long, value_name = "FILE")]
    paths: PathBuf,
    /// The built command of this project
    #[arg(long, value_name = "FILE")]
    gangway: PathBuf,
    /// The file with the record
    #[arg(long, value_name = "FILE", default_value = "bench/instructions.txt")]
    file: PathBuf,
}

/// Counts and prints, and compares or records.
pub(crate) fn run(options: &Options) -> Result<()> {
    let conditions = conditions()?;
    let old = Record::read(&options.file)?;
    let comparable = old.conditions == conditions;
    let mut new = Record { conditions, figures: Vec::new() };
    let (mut worse, mut better) = (Vec::new(), Vec::new());
    println!("{:<24} {:>12} {:>12} {:>8}", "path", "record", "now", "");
    for (name, unit, now) in count(options)? {
        let before = old.figures.iter().find(|figure| figure.0 == name).map(|figure| figure.2);
        let change = before.map(|before| 100.0 * (now / before - 1.0));
        let shown = change.map_or("new".to_owned(), |change| format!("{change:+.1} %"));
        println!("{name:<24} {:>12} {:>12} {shown:>8}  a {unit}", before.map(exact).unwrap_or_default(), exact(now));
        match change {
            None => better.push(name.clone()),
            Some(change) if change > TOLERANCE => worse.push(format!("{name} {change:+.1} %")),
            Some(change) if change < -TOLERANCE => better.push(name.clone()),
            Some(_) => {}
        }
        new.figures.push((name, unit, now));
    }
    if options.record {
        new.write(&options.file)?;
        println!("recorded in {}", options.file.display());
    } else if !comparable {
        println!("not judged, as the record is from other tools:\n  {}\n  {}", old.conditions, new.conditions);
    } else if options.check && !worse.is_empty() {
        return Err(format!(
            "over {TOLERANCE} % more instructions than recorded: {}. If that is worth it, `bench/instructions --record` \
             and say in the commit why",
            worse.join(", ")
        )
        .into());
    } else if !better.is_empty() {
        println!("a new record is due (bench/instructions --record): {}", better.join(", "));
    }
    Ok(())
}

/// Returns name, unit and instructions for each path.
fn count(options: &Options) -> Result<Vec<(String, String, f64)>> {
    let list = Command::new(&options.paths).output();
    let list = list.map_err(|error| format!("{}: {error}", options.paths.display()))?;
    let list = String::from_utf8(list.stdout)?;
    let mut figures = Vec::new();
    for line in list.lines() {
        let [name, unit, units, few, many] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("{}: {line}", options.paths.display()).into());
        };
        let total = |count: &str| counted(&options.paths, &[name, count]);
        let times = many.parse::<f64>()? - few.parse::<f64>()?;
        let difference = total(many)? as f64 - total(few)? as f64;
        figures.push((name.to_owned(), unit.to_owned(), difference / times / units.parse::<f64>()?));
    }
    figures.push((LIFE.to_owned(), "process".to_owned(), life(&options.gangway)? as f64));
    Ok(figures)
}

/// Counts the instructions of a whole program.
fn counted(program: &Path, arguments: &[&str]) -> Result<u64> {
    let file = Output::new();
    let mut child =
        Command::new("valgrind").args(file.options()).arg(program).args(arguments).stderr(Stdio::null()).spawn()?;
    let until = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            return Err(format!("{} did not end within {LIMIT:?}", arguments.join(" ")).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if !status.success() {
        return Err(format!("{} failed: {status}", arguments.join(" ")).into());
    }
    file.total()
}

/// Counts the instructions of the command from its start through a first call to its end.
fn life(gangway: &Path) -> Result<u64> {
    let live = |bridge: &mut Bridge, until| {
        bridge.open(until)?;
        bridge.call(1, &Call::Text { size: 100, format: Format::Json }, until)?;
        Ok(())
    };
    Output::of_life(&[&gangway.to_string_lossy(), "{url}"], &[], live)?.total()
}

/// The record file: a line of conditions, and a line for each figure.
#[derive(Default)]
struct Record {
    conditions: String,
    figures: Vec<(String, String, f64)>,
}

impl Record {
    /// Reads the file. Returns an empty record if there is none.
    fn read(file: &Path) -> Result<Self> {
        let mut record = Self::default();
        for line in fs::read_to_string(file).unwrap_or_default().lines() {
            if let Some(conditions) = line.strip_prefix("# with ") {
                conditions.clone_into(&mut record.conditions);
            } else if !line.starts_with('#') {
                let [name, figure, unit] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                    return Err(format!("{}: {line}", file.display()).into());
                };
                record.figures.push((name.to_owned(), unit.to_owned(), figure.parse()?));
            }
        }
        Ok(record)
    }

    fn write(&self, file: &Path) -> Result<()> {
        let mut text = format!(
            "# Instructions of the hot paths, written by `bench/instructions --record`: path, count, unit.\n\
             # with {}\n",
            self.conditions
        );
        for (name, unit, figure) in &self.figures {
            let _ = writeln!(text, "{name:<24} {:>12} {unit}", exact(*figure));
        }
        Ok(fs::write(file, text)?)
    }
}

/// Returns the conditions that decide which instructions run.
fn conditions() -> Result<String> {
    let said = |program: &str| -> Result<String> {
        let output = Command::new(program).arg("--version").output().map_err(|error| format!("{program}: {error}"))?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    // Valgrind hides processor features that it cannot run. Of the others, AVX2 makes the difference.
    let flags = fs::read_to_string("/proc/cpuinfo")?;
    let wide = if flags.split_whitespace().any(|flag| flag == "avx2") { "AVX2" } else { "no AVX2" };
    let compiler = said("rustc")?.split(" (").next().unwrap_or_default().to_owned();
    Ok(format!("{compiler}, {}, {}, {wide}", said("valgrind")?, env::consts::ARCH))
}

fn exact(figure: f64) -> String {
    if figure < 100.0 { format!("{figure:.3}") } else { format!("{figure:.0}") }
}
