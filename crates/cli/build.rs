//! Has the linker put the functions that a start executes beside each other, by the script `link/start.ld`.
//!
//! Rule: no build fails because of this. Which linker takes such scripts does not show in its name, so it is tried: only if a
//! tiny program, built with the flags of this build, links with the script (and runs, where it can) is the command given it.
//! `MCP_GANGWAY_PLAIN_LINK` in the environment does without.

#![allow(clippy::print_stdout, reason = "Cargo reads what a build script prints")]

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

/// Leaves the linker its own order.
const PLAIN: &str = "MCP_GANGWAY_PLAIN_LINK";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=link/start.ld");
    println!("cargo::rerun-if-env-changed={PLAIN}");
    let is = |variable: &str, values: &[&str]| env::var(variable).is_ok_and(|value| values.contains(&value.as_str()));
    if !is("CARGO_CFG_TARGET_OS", &["linux"])
        || !is("CARGO_CFG_TARGET_ENV", &["gnu", "musl"])
        || is("OPT_LEVEL", &["0"])
        || env::var_os(PLAIN).is_some()
    {
        return;
    }
    if let Ok(folder) = env::var("CARGO_MANIFEST_DIR") {
        let argument = format!("-T{folder}/link/start.ld");
        if serves(&argument).unwrap_or(false) {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
    }
}

/// Whether programs can be linked with this argument.
fn serves(argument: &str) -> Option<bool> {
    let (folder, target) = (env::var_os("OUT_DIR")?, env::var("TARGET").ok()?);
    let (source, program) = (Path::new(&folder).join("probe.rs"), Path::new(&folder).join("probe"));
    fs::write(&source, "fn main() {}").ok()?;
    let mut rustc = Command::new(env::var_os("RUSTC")?);
    rustc.args(["--target", &target, "-C", &format!("link-arg={argument}"), "-o"]).arg(&program).arg(&source);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.args(["-C", &format!("linker={linker}")]);
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    let runs = |command: &mut Command| {
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    Some(runs(&mut rustc) && (env::var("HOST").ok()? != target || runs(&mut Command::new(&program))))
}
