//! The functions that the command executes from its start to its first answers: the linker script that puts them beside each
//! other, and how much is executed elsewhere.
//!
//! Rule: what runs only later or for few (large answers, translation between eras, sign-in, errors) is not in the list, as all
//! in it is in memory. Names are written without what a compiler or a version adds to them, so that the list outlives both.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    ops::Range,
    path::PathBuf,
    time::Instant,
};

use clap::Args;

use crate::{
    Result,
    bridge::{Bridge, Call},
    callgrind::Output,
    server::Format,
};

/// The section that the script makes.
const SECTION: &str = ".text.start";
/// The kernel maps so much around a page that is touched.
const AROUND: u64 = 64 << 10;
/// So much may be mapped for what is executed elsewhere. With a new list it is half of that, without one 4 MiB.
const MOST: u64 = 1 << 20;

#[derive(Args)]
pub(crate) struct Options {
    /// Fail if the functions no longer stand together
    #[arg(long)]
    check: bool,
    /// List the functions for the linker; the command must have its symbols
    #[arg(long, conflicts_with = "check")]
    record: bool,
    /// The command of this project, as it was built
    #[arg(long, value_name = "FILE")]
    gangway: PathBuf,
    /// The linker script
    #[arg(long, value_name = "FILE", default_value = "crates/cli/link/start.ld")]
    file: PathBuf,
}

/// Runs the command, and shows, judges or records what it executes.
pub(crate) fn run(options: &Options) -> Result<()> {
    let program = fs::canonicalize(&options.gangway)?;
    let command = [&*program.to_string_lossy(), "{url}", "--log-level", "error"];
    let output = Output::of_life(&command, &["--dump-instr=yes", "--demangle=no"], live)?;
    let executed = Executed::read(&output.text()?, &program.to_string_lossy())?;
    if options.record {
        let patterns: BTreeSet<String> = executed.functions.iter().filter_map(|name| pattern(name)).collect();
        if patterns.is_empty() {
            return Err(format!("{} has no symbols", program.display()).into());
        }
        fs::write(&options.file, script(&patterns))?;
        println!("recorded in {}: {} names", options.file.display(), patterns.len());
        return Ok(());
    }
    let section =
        section(&fs::read(&program)?, SECTION).ok_or("the linker was not given the list, or did not take it")?;
    let elsewhere = executed.blocks_outside(&section);
    println!(
        "{SECTION} has {} KiB; for what a start executes elsewhere {} KiB are mapped",
        (section.end - section.start) >> 10,
        elsewhere >> 10
    );
    if options.check && elsewhere > MOST {
        return Err(format!(
            "that is over {} KiB, as {} lacks functions that a start executes: `bench/functions --record`",
            MOST >> 10,
            options.file.display()
        )
        .into());
    }
    Ok(())
}

/// What clients do at first.
fn live(bridge: &mut Bridge, until: Instant) -> Result<()> {
    bridge.open(until)?;
    for (id, format) in (1..).zip([Format::Json, Format::Sse, Format::Json]) {
        // Long enough for escapes and other scripts.
        bridge.call(id, &Call::Text { size: 300, format }, until)?;
    }
    bridge.call(4, &Call::Events { count: 2, size: 200, pause: 1, format: Format::Sse }, until)?;
    Ok(())
}

/// What of the program was executed.
#[derive(Default)]
struct Executed {
    /// By their symbols.
    functions: BTreeSet<String>,
    /// Where instructions stand in the program.
    addresses: BTreeSet<u64>,
}

impl Executed {
    /// Reads what callgrind wrote: lines `ob=(1) FILE` and `fn=(2) NAME` say where the lines of costs after them belong, which
    /// begin with an address, or with its distance from the one before. A name stands only where its number is new.
    fn read(text: &str, program: &str) -> Result<Self> {
        let mut executed = Self::default();
        let (mut objects, mut names) = (BTreeSet::new(), BTreeMap::new());
        let (mut inside, mut address) = (false, 0_u64);
        for line in text.lines() {
            if let Some((key @ ("ob" | "cob" | "fn" | "cfn"), value)) = line.split_once('=') {
                let (number, name) = value.split_once(' ').unwrap_or((value, ""));
                match key {
                    "ob" | "cob" if name == program => drop(objects.insert(number)),
                    "fn" | "cfn" if !name.is_empty() => drop(names.insert(number, name)),
                    _ => {}
                }
                match key {
                    "ob" => inside = objects.contains(number),
                    "fn" if inside => executed.functions.extend(names.get(number).map(ToString::to_string)),
                    _ => {}
                }
            } else if let Some(place) = line.split(' ').next().filter(|place| line.len() > place.len()) {
                address = match place.as_bytes() {
                    [b'0', b'x', ..] => u64::from_str_radix(place.trim_start_matches("0x"), 16)?,
                    [b'+' | b'-', ..] => address.checked_add_signed(place.parse()?).ok_or("no such address")?,
                    [b'*'] => address,
                    _ => continue,
                };
                if inside {
                    executed.addresses.insert(address);
                }
            }
        }
        Ok(executed)
    }

    /// Bytes that the kernel maps for what stands outside of a section. Valgrind may take no other section than `.text` for the
    /// program's, so that the section's own functions are not all here.
    fn blocks_outside(&self, section: &Range<u64>) -> u64 {
        let outside = self.addresses.iter().filter(|address| !section.contains(address));
        outside.map(|address| address / AROUND).collect::<BTreeSet<_>>().len() as u64 * AROUND
    }
}

/// The addresses of a section of a 64-bit ELF file, which `strip` leaves where it is.
fn section(file: &[u8], name: &str) -> Option<Range<u64>> {
    let number = |at: usize, size: usize| {
        let bytes = file.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    let (table, size) = (number(0x28, 8)? as usize, number(0x3a, 2)? as usize);
    let header = |index: usize| table + index * size;
    let names = number(header(number(0x3e, 2)? as usize) + 0x18, 8)? as usize;
    let found = (0..number(0x3c, 2)? as usize).map(header).find(|&header| {
        let its = number(header, 4).and_then(|at| file.get(names + at as usize..));
        its.is_some_and(|its| its.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)))
    })?;
    let (start, size) = (number(found + 0x10, 8)?, number(found + 0x20, 8)?);
    Some(start..start + size)
}

/// A symbol without hashes and versions, for which any may stand.
fn pattern(symbol: &str) -> Option<String> {
    // Callgrind counts the levels of a recursion.
    let symbol = symbol.split('\'').next().unwrap_or_default();
    // Behind a dot the compiler numbers copies, which the last `*` stands for.
    if symbol.starts_with("_ZN") {
        let (path, _) = symbol.rsplit_once("17h")?;
        Some(format!("{path}17h*"))
    } else if symbol.starts_with("_R") {
        // A crate is `C`, `s`, a hash, `_`, and its name.
        let mut parts = symbol.split('.').next()?.split("Cs");
        let mut pattern = parts.next()?.to_owned();
        for part in parts {
            match part.split_once('_') {
                Some((hash, rest)) if hash.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                    let _ = write!(pattern, "Cs*_{rest}");
                }
                _ => {
                    let _ = write!(pattern, "Cs{part}");
                }
            }
        }
        Some(pattern + "*")
    } else if let Some((_, name)) = symbol.strip_prefix("aws_lc_").and_then(|rest| rest.split_once(char::is_alphabetic))
    {
        // Its version is in its names.
        let start = symbol.len() - name.len() - 1;
        Some(format!("aws_lc_*{}", symbol.get(start..)?))
    } else {
        // What has no name is shown by its address, or in brackets.
        symbol.starts_with(|first: char| first.is_ascii_alphabetic()).then(|| symbol.to_owned())
    }
}

fn script(patterns: &BTreeSet<String>) -> String {
    let mut text = "\
/*
 * What mcp-gangway executes from its start to its first answers, put together by the linker, so that the kernel need not
 * keep most of the program in memory for it. Written by `bench/functions --record`; build.rs hands it to the linker.
 *
 * A `*` stands for what compilers and versions add to names. A name that no function has does no harm. The order of the
 * names says nothing: one rule keeps the compiler's order, in which functions that are made for one type are neighbours.
 * Patterns begin with a name, not with a `*`, over which GNU ld takes minutes.
 */
SECTIONS
{
    .text.start :
    {
        *(
"
    .to_owned();
    for pattern in patterns {
        let _ = writeln!(text, "            .text.{pattern}");
    }
    text.push_str(
        "        )
        /* What runs before `main`, and what the compiler thinks unlikely: small, and some of it always runs. */
        *(.text.startup.*)
        *(.text.unlikely.*)
    }
}
INSERT BEFORE .text;
",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_no_hashes() {
        for (symbol, expected) in [
            ("_ZN7gangway6bridge3run17h0123456789abcdefE'2", Some("_ZN7gangway6bridge3run17h*")),
            ("_ZN7gangway6bridge3run17h0123456789abcdefE.12", Some("_ZN7gangway6bridge3run17h*")),
            ("_RNvNtCsjrHSEGnQ3l9_3std2rt4init.7", Some("_RNvNtCs*_3std2rt4init*")),
            (
                "_RINvNtCsa1_4core3ptr4dropNtCsb2_5alloc3VecECsc3_3std",
                Some("_RINvNtCs*_4core3ptr4dropNtCs*_5alloc3VecECs*_3std*"),
            ),
            ("main", Some("main")),
            ("aws_lc_0_1_0_OPENSSL_cpuid_setup", Some("aws_lc_*OPENSSL_cpuid_setup")),
            ("0x0000000000243520", None),
            ("(below main)", None),
        ] {
            assert_eq!(pattern(symbol).as_deref(), expected);
        }
    }

    #[test]
    fn only_the_program_counts() {
        let text = "positions: instr line\n\nob=(1) /lib/libc.so\nfn=(1) puts\n0x40000 0 1\n+4 0 1\n\nob=(2) /bin/it\n\
                    fn=(2) one\n0x10000 0 1\n+3 0 1\ncob=(1)\ncfn=(3) two\ncalls=1 0x40000 0\n* 0 7\n\
                    cfn=(4) three\ncalls=1 0x30000 0\n* 0 1\n-2 0 1\nfn=(4)\n0x30000 0 1\n";
        let executed = Executed::read(text, "/bin/it").unwrap();
        assert_eq!(executed.addresses.iter().copied().collect::<Vec<_>>(), [0x10000, 0x10001, 0x10003, 0x30000]);
        assert_eq!(executed.blocks_outside(&(0x10001..0x20000)), 2 * AROUND);
        assert_eq!(executed.blocks_outside(&(0x10000..0x20000)), AROUND);
        assert_eq!(executed.functions.iter().collect::<Vec<_>>(), ["one", "three"]);
    }

    #[test]
    fn a_section_is_found() {
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        let text = section(&this, ".text").unwrap();
        assert!(text.end > text.start);
        assert_eq!(section(&this, ".tex"), None);
    }
}
