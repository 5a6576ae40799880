//! A process in the node's namespace that ends when its value is dropped, and with the benchmark at the latest.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::mesh::Workload;

const GRACE: Duration = Duration::from_secs(5);

/// A running proxy.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program ARGS` in the namespace of `place`; what it prints goes to `log`.
    pub(crate) fn start(place: &Workload, program: &Path, args: &[&str], log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        // Each of these execs the next, so the child is the proxy itself, and the kernel ends it with us.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "nsenter"]).arg(format!("--net={}", place.path().display()));
        command.arg(program).args(args).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // Ctrl-C is for the benchmark, which then ends its children one by one.
        command.process_group(0);
        let child = command.spawn().context("start setpriv (package util-linux)")?;
        Ok(Self { child, log })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` holds; fails with the log when the process ends first or it takes too long.
    pub(crate) fn await_ready(&mut self, what: &str, ready: impl Fn() -> bool) -> Result<()> {
        self.await_within(what, Duration::from_secs(15), ready)
    }

    /// The same, with as much patience as that.
    pub(crate) fn await_within(
        &mut self,
        what: &str,
        patience: Duration,
        ready: impl Fn() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                bail!("{what} did not come up ({ended:?}):\n{}", self.output());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Ends it at once, without a word.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill -9")?;
        self.child.wait().map(drop).context("wait for the end")
    }

    /// What it has printed so far.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended already, which is as good.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let deadline = Instant::now() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
