//! Child processes that never outlive us, and waiting for them and for signals in one place.
//!
//! A child starts as this program's hidden command `tied`, which asks the kernel for a signal at its parent's death
//! and then becomes the wanted program: so even `kill -9` of the parent leaves nothing behind.

use anyhow::{Context, Result, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::getppid,
};
use std::{
    ffi::OsString,
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{self, Child, Command, ExitCode, ExitStatus},
    time::Duration,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Who must be the parent for this to make sense
    parent: i32,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

pub(crate) fn main(arguments: &Arguments) -> Result<ExitCode> {
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    if getppid().as_raw() != arguments.parent {
        bail!("the parent has gone");
    }
    SigSet::all().thread_unblock()?;
    let (program, rest) = arguments.command.split_first().context("no command")?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// What to `spawn` so that `program` ends with this process. Call it from the main thread: the kernel counts the
/// death of the thread that spawned.
pub(crate) fn tied(program: impl Into<OsString>) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("tied").arg(process::id().to_string()).arg("--").arg(program.into());
    Ok(command)
}

/// The signals that end a command, and the news that a child ended, as an event to wait for.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// From now on those signals only show here. Call it before any thread starts.
    pub(crate) fn catch() -> Result<Self> {
        let set = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD]);
        set.thread_block()?;
        Ok(Self(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Waits for any of them, or for `limit`; the result is the signal that asks us to stop, if one came.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> Result<Option<Signal>> {
        let limit = limit.map_or(Ok(PollTimeout::NONE), PollTimeout::try_from)?;
        poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], limit)?;
        let mut asked = None;
        while let Some(news) = self.0.read_signal()? {
            let signal = Signal::try_from(news.ssi_signo.cast_signed())?;
            asked = asked.or_else(|| Some(signal).filter(|signal| *signal != Signal::SIGCHLD));
        }
        Ok(asked)
    }
}

/// Sends a signal to a child that we have not waited for yet.
pub(crate) fn send(child: &Child, signal: Signal) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, signal).context("cannot signal the child")
}

/// The exit code that a shell would give.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_command_exits_like_in_a_shell() {
        let show = |raw| format!("{:?}", exit_code(ExitStatus::from_raw(raw)));
        assert_eq!(show(0), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(show(3 << 8), format!("{:?}", ExitCode::from(3)));
        assert_eq!(show(libc_sigterm()), format!("{:?}", ExitCode::from(143)));
    }

    fn libc_sigterm() -> i32 {
        Signal::SIGTERM as i32
    }
}
