//! The programs in a bundle: one command per operating system, because a bundle cannot choose by processor.
//!
//! So the programs of one system are joined: on macOS into one universal file, on Linux behind a shell script. On Windows
//! the x64 program is enough, because Windows on Arm runs it too. On Linux the glibc program is taken, because a static
//! one does not see host names that the system finds by plugins; the static one if there is no other.

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use mcp_gangway_core::Error;

use super::zip::Entry;
use crate::Failure;

/// The script that starts one of several programs.
const LAUNCHER: &str = "#!/bin/sh
# Starts the program for this machine's processor.
case $(uname -m) in
  aarch64 | arm64) cpu=arm64 ;;
  *) cpu=x64 ;;
esac
exec \"$0-$cpu\" \"$@\"
";

/// An operating system, in the order of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum System {
    MacOs,
    Linux,
    Windows,
}

impl System {
    /// Its name in a manifest.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MacOs => "darwin",
            Self::Linux => "linux",
            Self::Windows => "win32",
        }
    }

    /// The file in the bundle that the host starts.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::MacOs => "server/darwin/mcp-gangway",
            Self::Linux => "server/linux/mcp-gangway",
            Self::Windows => "server/win32/mcp-gangway.exe",
        }
    }
}

/// A processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Processor {
    X64,
    Arm64,
}

impl Processor {
    fn name(self) -> &'static str {
        match self {
            Self::X64 => "x64",
            Self::Arm64 => "arm64",
        }
    }
}

/// The files of the programs. There is at least one.
pub(super) struct Programs(BTreeMap<System, BTreeMap<Processor, PathBuf>>);

impl Programs {
    /// Takes the running program.
    ///
    /// # Errors
    /// Bundles do not exist for this system.
    pub(super) fn of_this_system() -> Result<Self, Error> {
        let os = match env::consts::OS {
            "macos" => "darwin",
            "windows" => "win32",
            other => other,
        };
        let cpu = match env::consts::ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            other => other,
        };
        let platform = format!("{os}-{cpu}");
        let no_program = |why: String| Error::config(format!("{why}; name other programs with --binaries"));
        let (system, processor) =
            parsed(&platform).ok_or_else(|| no_program(format!("bundles do not run on {platform}")))?;
        let path = env::current_exe().map_err(|error| no_program(format!("cannot find this program: {error}")))?;
        Ok(Self([(system, [(processor, path)].into())].into()))
    }

    /// Takes the programs in a folder.
    ///
    /// # Errors
    /// It cannot be read, or there is none.
    pub(super) fn of_folder(folder: &Path) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::config(format!("--binaries: cannot read {}: {error}", folder.display()));
        let mut platforms = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            platforms.extend(entry.map_err(failed)?.file_name().into_string());
        }
        // Names with -musl come after those without.
        platforms.sort_unstable();
        let mut programs: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for platform in platforms {
            let Some((system, processor)) = parsed(platform.strip_suffix("-musl").unwrap_or(&platform)) else {
                continue;
            };
            let name = if system == System::Windows { "mcp-gangway.exe" } else { "mcp-gangway" };
            let path = folder.join(&platform).join(name);
            if path.is_file() {
                programs.entry(system).or_default().entry(processor).or_insert(path);
            }
        }
        if programs.is_empty() {
            return Err(Error::config(format!(
                "--binaries: there is no program in {}; put them there as PLATFORM/mcp-gangway, with a PLATFORM like \
                 darwin-arm64",
                folder.display()
            )));
        }
        if let Some(windows) = programs.get_mut(&System::Windows)
            && windows.contains_key(&Processor::X64)
        {
            windows.remove(&Processor::Arm64);
        }
        Ok(Self(programs))
    }

    pub(super) fn systems(&self) -> impl Iterator<Item = System> {
        self.0.keys().copied()
    }

    pub(super) fn first(&self) -> System {
        self.systems().next().unwrap_or(System::Linux)
    }

    /// Reads the programs and joins those of one system.
    ///
    /// # Errors
    /// A file cannot be read, or is no program of its system.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, Failure> {
        let mut entries = Vec::new();
        for (system, files) in &self.0 {
            let path = system.path();
            let mut programs = Vec::new();
            for (processor, file) in files {
                let failed = |error| Failure::system(&format!("cannot read {}", file.display()), &error);
                programs.push((processor, fs::read(file).map_err(failed)?));
            }
            match (system, programs.as_mut_slice()) {
                (_, [(_, only)]) => entries.push(Entry::program(path, std::mem::take(only))),
                (System::MacOs, all) => {
                    let slices: Vec<_> = all.iter().map(|(_, bytes)| bytes.as_slice()).collect();
                    let joined = universal(&slices).ok_or_else(|| {
                        let line = "--binaries: a program for macOS is no Mach-O file; build it again".to_owned();
                        Failure::usage(line)
                    })?;
                    entries.push(Entry::program(path, joined));
                }
                (_, all) => {
                    entries.push(Entry::program(path, LAUNCHER.into()));
                    for (processor, bytes) in all {
                        let path = format!("{path}-{}", processor.name());
                        entries.push(Entry::program(&path, std::mem::take(bytes)));
                    }
                }
            }
        }
        Ok(entries)
    }
}

impl fmt::Display for Programs {
    /// Names the systems and their processors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (system, files)) in self.0.iter().enumerate() {
            let processors: Vec<_> = files.keys().map(|processor| processor.name()).collect();
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{} ({})", system.name(), processors.join(" and "))?;
        }
        Ok(())
    }
}

fn parsed(platform: &str) -> Option<(System, Processor)> {
    let (system, processor) = platform.split_once('-')?;
    let system = [System::MacOs, System::Linux, System::Windows].into_iter().find(|known| known.name() == system)?;
    let processor = [Processor::X64, Processor::Arm64].into_iter().find(|known| known.name() == processor)?;
    Some((system, processor))
}

/// Joins Mach-O files of 64 bits into a universal one, as `lipo` does: a header of big-endian numbers, then the files,
/// each at a multiple of the largest page. None if one is no such file.
fn universal(files: &[&[u8]]) -> Option<Vec<u8>> {
    const MAGIC: u32 = 0xcafe_babe;
    const FILE_MAGIC: [u8; 4] = [0xcf, 0xfa, 0xed, 0xfe];
    /// The binary logarithm of the page's size.
    const ALIGN: u32 = 14;

    let mut header = vec![MAGIC, u32::try_from(files.len()).ok()?];
    let mut out = Vec::new();
    let mut body = Vec::new();
    for file in files {
        let [magic, cpu, subtype] = [0..4, 4..8, 8..12].map(|range| file.get(range));
        if magic? != FILE_MAGIC {
            return None;
        }
        let number = |bytes: Option<&[u8]>| Some(u32::from_le_bytes(bytes?.try_into().ok()?));
        body.resize(body.len().next_multiple_of(1 << ALIGN), 0);
        let start = u32::try_from(body.len() + (1 << ALIGN)).ok()?;
        header.extend([number(cpu)?, number(subtype)?, start, u32::try_from(file.len()).ok()?, ALIGN]);
        body.extend_from_slice(file);
    }
    out.extend(header.into_iter().flat_map(u32::to_be_bytes));
    out.resize(1 << ALIGN, 0);
    out.append(&mut body);
    Some(out)
}
