//! `cargo xtask build`: the daemon with its kernel programs, which its build script compiles.

use crate::{done, setup, system};
use anyhow::Result;
use std::process::ExitCode;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Optimise, as `run`, `test` and `bench` do
    #[arg(long)]
    release: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure(setup::Purpose::Work)?;
    let profile: &[&str] = if arguments.release { &["--release"] } else { &[] };
    system::succeed(system::cargo(&["build", "--locked", "-p", "proxy-userspace"]).args(profile))?;
    done()
}

/// Builds what `system::shunt` names, unless the user named a binary.
pub(crate) fn release() -> Result<()> {
    if std::env::var_os("SHUNT_BIN").is_some() {
        return Ok(());
    }
    system::succeed(&mut system::cargo(&[
        "build",
        "--quiet",
        "--locked",
        "--release",
        "-p",
        "proxy-userspace",
    ]))
}
