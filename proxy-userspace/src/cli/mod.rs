//! The command line: one file a command.

mod check;
mod enroll;
mod exec;
mod show;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// What is logged unless `SHUNT_LOG` says otherwise. What the resolver makes of answers we say ourselves.
const DEFAULT_LOG: &str = "info,hickory_net=off,hickory_proto=off,hickory_resolver=off";

use crate::{
    app,
    cause::chain,
    settings::{RUN_DIR, Settings},
};

/// Istio's traffic management for one node, without sidecars.
#[derive(Parser)]
#[command(name = "shunt", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon in the foreground; SIGTERM or Ctrl-C drains it
    Run(Box<Settings>),
    /// Run a command inside the mesh, as part of the local workload
    Exec(exec::Args),
    /// Read a folder of resources and say what is wrong with them (exit 0 clean, 1 problems, 2 unreadable)
    Check(check::Args),
    /// Show every listener with its verdict and rules
    Routes(show::Args),
    /// Show the daemon's state and what is wrong
    Status(show::Args),
    /// Look after another network namespace
    Enroll(enroll::Args),
    /// Leave a workload alone again
    Unenroll(enroll::Name),
    /// Print the version
    Version,
}

/// Where a running daemon is found.
#[derive(clap::Args)]
struct RunDir {
    /// Run folder of the daemon
    #[arg(long, value_name = "DIR", default_value = RUN_DIR)]
    run_dir: PathBuf,
}

impl RunDir {
    fn admin_socket(&self) -> PathBuf {
        self.run_dir.join("admin.sock")
    }
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(settings) => {
            start_logging();
            app::run(*settings).map(|()| ExitCode::SUCCESS)
        }
        Command::Exec(args) => exec::run(args),
        Command::Check(args) => check::run(&args),
        Command::Routes(args) => show::routes(&args),
        Command::Status(args) => show::status(&args),
        Command::Enroll(args) => enroll::enroll(args),
        Command::Unenroll(args) => enroll::unenroll(&args),
        Command::Version => print(&format!("shunt {}\n", env!("CARGO_PKG_VERSION"))),
    };
    outcome.unwrap_or_else(|error| {
        drop(writeln!(io::stderr(), "shunt: {}", chain(error.as_ref())));
        ExitCode::FAILURE
    })
}

/// Writes `text` to standard output; a reader that has seen enough is no error.
fn print(text: &str) -> anyhow::Result<ExitCode> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The daemon's own log goes to standard error; `SHUNT_LOG` sets its level, as in `SHUNT_LOG=debug`.
fn start_logging() {
    let filter = EnvFilter::try_from_env("SHUNT_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // Whoever reads the log may leave. The default complains about that on the same standard error, and panics.
    let format = format.log_internal_errors(false);
    format.with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
}
