//! `cargo xtask COMMAND`: everything a developer or CI does with the project. One file per command.

#![allow(clippy::print_stdout, reason = "a command-line tool speaks on stdout")]

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod bench;
mod build;
mod children;
mod run;
mod setup;
mod system;
mod tcp_echo;
mod test;
mod tidy;
mod toolchain;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sets up, builds, runs, tests and measures Shunt", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing on this machine; says what and why
    Setup(setup::Arguments),
    /// Build the kernel programs and the daemon
    Build(build::Arguments),
    /// Run the tcp-echo example, or a command inside the mesh
    Run(run::Arguments),
    /// Check the format, the lints and the walls, then run every test
    Test(test::Arguments),
    /// Measure Shunt against no proxy, HAProxy, nginx and others
    Bench(bench::Arguments),
    /// Check the project's own rules, which no compiler knows
    Tidy,
    /// Answer every received line with PREFIX and the line, as Istio's tcp-echo does
    TcpEcho(tcp_echo::Arguments),
    /// Run a command that ends when its parent does
    #[command(hide = true)]
    Tied(children::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Setup(arguments) => setup::main(&arguments),
        Command::Build(arguments) => build::main(&arguments),
        Command::Run(arguments) => run::main(&arguments),
        Command::Test(arguments) => test::main(&arguments),
        Command::Bench(arguments) => bench::main(&arguments),
        Command::Tidy => tidy::main(),
        Command::TcpEcho(arguments) => tcp_echo::main(&arguments),
        Command::Tied(arguments) => children::main(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// What a command returns when all went well.
fn done() -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
