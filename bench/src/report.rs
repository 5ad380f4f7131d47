//! Writes results as a file, tables and plots.
//!
//! Rule: no figure in the documentation is typed by hand. `publish` writes all of them, also again from the file.

use std::{fmt::Write, fs, path::Path, thread};

use serde::{Deserialize, Serialize};

use crate::{
    Result,
    measure::Test,
    plot::{self, Series},
    server::Format,
};

/// The name of the server without a bridge.
pub(crate) const DIRECT: &str = "no bridge";
/// The name of the bridge that only copies.
const FLOOR: &str = "floor";
/// The response sizes in the plots of time and memory, in MiB.
const SIZES: [u64; 4] = [1, 16, 64, 256];
/// The numbers of outstanding calls in the plot.
const OUTSTANDING: [usize; 4] = [1, 16, 64, 256];

/// The results of one run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) date: String,
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) versions: Vec<Named>,
    pub(crate) rounds: usize,
    pub(crate) bridges: Vec<Named>,
    /// Bridges that are not installed.
    pub(crate) absent: Vec<String>,
    /// The milliseconds for a fixed workload before each measurement.
    pub(crate) spins: Vec<f64>,
    pub(crate) rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Machine {
    processor: String,
    processors: usize,
    memory: String,
    kernel: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// The results of one bridge in one test.
#[derive(Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) test: String,
    pub(crate) bridge: String,
    /// The test's figures for each round.
    pub(crate) samples: Vec<Vec<f64>>,
    /// The reason if there are none.
    pub(crate) trouble: Option<String>,
}

impl Machine {
    /// Describes this machine.
    pub(crate) fn this() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let member = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        Self {
            processor: member(&read("/proc/cpuinfo"), "model name"),
            processors: thread::available_parallelism().map_or(0, usize::from),
            memory: member(&read("/proc/meminfo"), "MemTotal"),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        }
    }
}

impl Row {
    fn figure(&self, at: usize) -> Option<Summary> {
        let mut values: Vec<f64> = self.samples.iter().filter_map(|sample| sample.get(at).copied()).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Summary { median: f64::midpoint(lower, upper), least, most })
    }
}

/// One figure over all rounds.
#[derive(Clone, Copy)]
struct Summary {
    median: f64,
    least: f64,
    most: f64,
}

impl Results {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        Ok(serde_json::from_slice(&fs::read(file)?)?)
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(file, serde_json::to_string(self)?.replace("{\"test\"", "\n{\"test\"") + "\n")?)
    }

    /// Writes the results, the tables and the plots into a folder.
    pub(crate) fn publish(&self, folder: &Path) -> Result<()> {
        self.write(&folder.join("results.json"))?;
        fs::write(folder.join("results.md"), self.document())?;
        for (name, picture) in self.plots() {
            fs::write(folder.join(name), picture)?;
        }
        Ok(())
    }

    /// Describes the machine, its load, and the versions.
    pub(crate) fn conditions(&self) -> String {
        let Machine { processor, processors, memory, kernel } = &self.machine;
        let mut text = format!(
            "{}; {processors} × {processor}, {memory} of memory, {kernel}; `{}`, {} rounds\n\n",
            self.date, self.command, self.rounds
        );
        let versions = self.versions.iter().chain(&self.bridges).filter(|version| !version.value.is_empty());
        let versions: Vec<String> = versions.map(|Named { name, value }| format!("{name} {value}")).collect();
        let _ = writeln!(text, "{}", versions.join("; "));
        if !self.absent.is_empty() {
            let _ = writeln!(text, "\nNot installed, so not measured: {}", self.absent.join(", "));
        }
        let mut spins = self.spins.clone();
        spins.sort_by(f64::total_cmp);
        let part = |of: f64| spins.get((of * spins.len().saturating_sub(1) as f64) as usize).copied().unwrap_or(0.0);
        let _ = writeln!(
            text,
            "\nA fixed workload before each measurement took {:.2} ms (median), {:.2} ms (90th percentile), \
             {:.2} ms (maximum). Close values mean a quiet machine.",
            part(0.5),
            part(0.9),
            part(1.0)
        );
        text
    }

    /// Returns the table of one test.
    pub(crate) fn table(&self, name: &str) -> String {
        let Some(test) = Test::all().into_iter().find(|test| test.name() == name) else { return String::new() };
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.test == name).collect();
        if rows.is_empty() {
            return String::new();
        }
        let first = |bridge: &str| rows.iter().find(|row| row.bridge == bridge)?.figure(0);
        let (direct, floor) = (first(DIRECT), first(FLOOR));
        let added = direct.filter(|_| matches!(test, Test::RoundTrip(_) | Test::Age));
        let mut head = vec!["bridge".to_owned()];
        for (at, figure) in test.figures().iter().enumerate() {
            head.push(format!("{} {}", figure.name, figure.unit).trim().to_owned());
            if at == 0 {
                head.push("least–most".to_owned());
                head.extend(added.map(|_| "added".to_owned()));
                head.extend(floor.map(|_| "of the floor's".to_owned()));
            }
        }
        let mut table = vec![head];
        for row in &rows {
            let mut cells = vec![row.bridge.clone()];
            if let Some(trouble) = &row.trouble {
                cells.push(format!("*{}*", trouble.replace('|', "/")));
            }
            for at in 0..test.figures().len() {
                let figure = row.figure(at);
                cells.push(figure.map(|figure| short(figure.median)).unwrap_or_default());
                if at > 0 {
                    continue;
                }
                let Some(figure) = figure else {
                    cells.pop();
                    break;
                };
                cells.push(format!("{}–{}", short(figure.least), short(figure.most)));
                let over = |direct: Summary| {
                    if row.bridge == DIRECT { String::new() } else { short(figure.median - direct.median) }
                };
                cells.extend(added.map(over));
                cells.extend(floor.map(|floor| ratio(figure.median, floor.median)));
            }
            table.push(cells);
        }
        format!("**{}**\n\n{}", test.title(), markdown(table))
    }

    fn document(&self) -> String {
        let mut text = format!(
            "# Results\n\nWritten by `bench/run --record`; [performance.md](../performance.md) explains the terms. \
             Figures are medians over the rounds.\n\n{}\n",
            self.conditions()
        );
        let mut grouped = Vec::new();
        for test in Test::all() {
            match test {
                Test::Outstanding(_) => {
                    if !grouped.contains(&"outstanding".to_owned()) {
                        grouped.push("outstanding".to_owned());
                        let tests = OUTSTANDING.map(|calls| (format!("{calls} at once"), Test::Outstanding(calls)));
                        text += &self.group("Answers a second, and CPU µs a call", &tests);
                    }
                }
                Test::Big(format, _) => {
                    if !grouped.contains(&format.title().to_owned()) {
                        grouped.push(format.title().to_owned());
                        let tests = SIZES.map(|size| (format!("{size} MiB"), Test::Big(format, size)));
                        let title = format!("One answer as {}: ms, and peak memory over idle in MiB", format.title());
                        text += &self.group(&title, &tests);
                    }
                }
                _ => {
                    let table = self.table(&test.name());
                    if !table.is_empty() {
                        text += &table;
                        text.push('\n');
                    }
                }
            }
        }
        text
    }

    /// Returns one table for tests of one kind, with the first and the last figure of each.
    fn group(&self, title: &str, tests: &[(String, Test)]) -> String {
        let mut names: Vec<&str> = Vec::new();
        for row in self.rows.iter().filter(|row| tests.iter().any(|(_, test)| test.name() == row.test)) {
            if !names.contains(&row.bridge.as_str()) {
                names.push(&row.bridge);
            }
        }
        if names.is_empty() {
            return String::new();
        }
        let mut table =
            vec![["bridge".to_owned()].into_iter().chain(tests.iter().map(|(head, _)| head.clone())).collect()];
        for name in names {
            let mut cells = vec![name.to_owned()];
            for (_, test) in tests {
                let row = self.rows.iter().find(|row| row.test == test.name() && row.bridge == name);
                cells.push(match row {
                    None => String::new(),
                    Some(Row { trouble: Some(trouble), .. }) => format!("*{}*", trouble.replace('|', "/")),
                    Some(row) => {
                        let last = test.figures().len() - 1;
                        let figures = [row.figure(0), row.figure(last)];
                        let figures: Vec<_> = figures.iter().flatten().map(|figure| short(figure.median)).collect();
                        figures.join(" / ")
                    }
                });
            }
            table.push(cells);
        }
        format!("**{title}**\n\n{}\n", markdown(table))
    }

    fn plots(&self) -> Vec<(&'static str, String)> {
        let note = format!("{}, {}", self.machine.processor, self.date);
        let big = |at| self.series(&SIZES.map(|size| (size as f64, Test::Big(Format::Json, size))), at);
        let outstanding = self.series(&OUTSTANDING.map(|calls| (calls as f64, Test::Outstanding(calls))), 0);
        vec![
            (
                "memory.svg",
                plot::lines(
                    "Memory for one JSON answer: peak over idle, MiB",
                    "size of the answer, MiB",
                    &note,
                    &big(2),
                ),
            ),
            ("time.svg", plot::lines("Time for one JSON answer, ms", "size of the answer, MiB", &note, &big(0))),
            ("outstanding.svg", plot::lines("Answers a second", "calls outstanding", &note, &outstanding)),
            (
                "age.svg",
                plot::ranges("Age of an event when it comes out, µs: p50 to p99", &note, &self.pairs(Test::Age)),
            ),
            (
                "start.svg",
                plot::ranges(
                    "From start to the answers to initialize and to a first call, ms",
                    &note,
                    &self.pairs(Test::Start),
                ),
            ),
        ]
    }

    /// Returns one line for each bridge, of the figure `at`.
    fn series(&self, tests: &[(f64, Test)], at: usize) -> Vec<Series> {
        let mut all: Vec<Series> = Vec::new();
        for (x, test) in tests {
            for row in self.rows.iter().filter(|row| row.test == test.name()) {
                let Some(figure) = row.figure(at) else { continue };
                let point = (*x, figure.median);
                match all.iter_mut().find(|series| series.name == row.bridge) {
                    Some(series) => series.points.push(point),
                    None => all.push(self.of(&row.bridge, vec![point])),
                }
            }
        }
        all
    }

    fn of(&self, bridge: &str, points: Vec<(f64, f64)>) -> Series {
        let number = self.bridges.iter().position(|named| named.name == bridge);
        Series { name: bridge.to_owned(), number, points }
    }

    /// Returns the first two figures of a test for each bridge.
    fn pairs(&self, test: Test) -> Vec<Series> {
        let rows = self.rows.iter().filter(|row| row.test == test.name());
        rows.filter_map(|row| {
            let points = vec![(row.figure(0)?.median, row.figure(1)?.median)];
            Some(self.of(&row.bridge, points))
        })
        .collect()
    }
}

/// Formats three digits, as the measurements are not more precise.
pub(crate) fn short(value: f64) -> String {
    let digits = match value.abs() {
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    if value.abs() >= 100_000.0 { format!("{:.0}k", value / 1000.0) } else { format!("{value:.digits$}") }
}

fn ratio(value: f64, floor: f64) -> String {
    // The floor's growth may be zero.
    if floor.abs() < 0.005 { String::new() } else { format!("{}×", short(value / floor)) }
}

/// Formats a table with aligned columns, for terminals. Missing cells at the end of a row are empty.
fn markdown(rows: Vec<Vec<String>>) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    // Cells with an error text do not count for the column's width.
    let width = |column| {
        let cells =
            rows.iter().filter_map(|row: &Vec<String>| row.get(column)).filter(|cell: &&String| !cell.starts_with('*'));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, mut row) in rows.into_iter().enumerate() {
        row.resize(columns, String::new());
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column == 0 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let _ = if column == 0 {
                    write!(text, "|{:-<1$}", "", width + 2)
                } else {
                    write!(text, "|{:-<1$}:", "", width + 1)
                };
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_with_least_and_most() {
        let row = |samples: &[f64]| Row {
            test: String::new(),
            bridge: String::new(),
            samples: samples.iter().map(|&sample| vec![sample]).collect(),
            trouble: None,
        };
        let figure = row(&[3.0, 1.0, 9.0]).figure(0).unwrap();
        assert_eq!([figure.median, figure.least, figure.most].map(short), ["3.00", "1.00", "9.00"]);
        assert_eq!(short(row(&[1.0, 2.0]).figure(0).unwrap().median), "1.50");
        assert!(row(&[]).figure(0).is_none());
    }

    #[test]
    fn a_table_is_markdown() {
        let table =
            markdown(vec![vec!["bridge".into(), "p50 µs".into()], vec!["a".into(), "1.00".into()], vec!["b".into()]]);
        assert_eq!(table, "| bridge | p50 µs |\n|--------|-------:|\n| a      |   1.00 |\n| b      |        |\n");
    }
}
