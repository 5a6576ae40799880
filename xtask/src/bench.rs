//! `cargo xtask bench`: prepares the machine and hands over to the bench of the `tests` crate.

use crate::{build, setup, system};
use anyhow::{Result, bail};
use std::{os::unix::process::CommandExt, process::ExitCode};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What the bench itself takes; `--help` after `--` tells
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    if !system::is_root() {
        bail!("the bench makes network namespaces: run it as root");
    }
    setup::ensure(setup::Purpose::Bench)?;
    build::release()?;
    let mut bench =
        system::cargo(&["run", "--quiet", "--locked", "--release", "-p", "tests", "--bin", "bench", "--"]);
    Err(bench.args(&arguments.arguments).env("SHUNT_BIN", system::shunt()).exec().into())
}
