//! `cargo xtask test`: format, lints, walls, licences, then every test in one run, whose summary comes last.

use crate::{
    build, done, setup,
    system::{cargo, find_program, is_root, shunt, succeed, workspace},
    tidy,
};
use anyhow::{Result, bail};
use std::{
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the tests whose name contains this, and no checks before them
    filter: Option<String>,
}

pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    if !is_root() {
        bail!("the tests load kernel programs and make network namespaces: run them as root");
    }
    step("what this machine needs", || setup::ensure(setup::Purpose::Work))?;
    if arguments.filter.is_none() {
        checks()?;
    }
    step("build of the daemon, as users get it", build::release)?;
    println!("==> the tests");
    succeed(runner(arguments.filter.as_deref()).env("SHUNT_BIN", shunt()))?;
    done()
}

fn checks() -> Result<()> {
    step("format", format)?;
    step("lints", || {
        succeed(&mut cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-Dwarnings",
        ]))
    })?;
    step("walls (tidy)", tidy::check)?;
    if find_program("cargo-deny").is_some() {
        step("licences and advisories", || succeed(&mut cargo(&["deny", "--log-level", "error", "check"])))?;
    }
    Ok(())
}

fn format() -> Result<()> {
    succeed(&mut cargo(&["fmt", "--all", "--check"]))?;
    let kernel = workspace().join("proxy-ebpf/Cargo.toml");
    if !kernel.is_file() {
        return Ok(());
    }
    succeed(cargo(&["fmt", "--check", "--manifest-path"]).arg(kernel))
}

/// nextest runs each test in a process of its own and ends with one summary; cargo's own runner is for machines
/// without it, where its installation would take longer than the tests.
fn runner(filter: Option<&str>) -> Command {
    let threads = "--test-threads=2";
    let has_nextest = cargo(&["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let mut command = if has_nextest.is_ok_and(|status| status.success()) {
        let mut command = cargo(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast", threads]);
        command
            .args(["--status-level=fail", "--final-status-level=slow", "--hide-progress-bar"])
            .args(filter);
        command
    } else {
        // Without doc tests, which are none: their empty run would be the closing line.
        let targets = ["--lib", "--bins", "--tests"];
        let mut command = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
        command.args(targets).args(filter).args(["--", threads]);
        command
    };
    command.env_remove("RUST_LOG");
    command
}

/// One step, with a line before and its time after.
fn step(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("==> {what}");
    let begun = Instant::now();
    work()?;
    println!("    done in {:.1} s", begun.elapsed().as_secs_f32());
    Ok(())
}
