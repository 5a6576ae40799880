//! `shunt exec`: becomes a command of the local workload.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use hyper::Method;

use super::RunDir;
use crate::{
    admin::{ExecContext, client},
    node::{Namespace, cgroup, mounts},
};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    run_dir: RunDir,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Exit codes of a command that could not be run, as shells give them.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let answer = client::ask(&args.run_dir.admin_socket(), Method::GET, "/exec", Vec::new())?;
    let context: ExecContext = serde_json::from_str(&answer)?;
    // A socket belongs to the namespace and the cgroup that its creator was in at that moment: join both first.
    Namespace::open(&context.netns)
        .and_then(|namespace| namespace.join())
        .context("cannot enter the daemon's network namespace (needs root)")?;
    cgroup::move_self(&context.cgroup)
        .with_context(|| format!("cannot join the cgroup {} (needs root)", context.cgroup.display()))?;
    mounts::bind_hosts(&context.hosts).context("cannot show the mesh's names in /etc/hosts")?;
    let mut words = args.command.into_iter();
    let program = words.next().context("no command given")?;
    let error = Command::new(&program).args(words).exec();
    let code = match error.kind() {
        io::ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    writeln!(io::stderr(), "shunt: cannot run {}: {error}", program.display())?;
    Ok(ExitCode::from(code))
}
