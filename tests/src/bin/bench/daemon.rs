//! The daemon under measurement: start it, enrol a client, kill it; nothing of it stays.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use tests::mesh::Workload;
use tests::sweep::{cgroup2, remove_cgroup};

use crate::place::Cgroup;
use crate::process::Process;

/// A running daemon; its cgroup and its pins go with it, however it ended.
pub(crate) struct Daemon {
    process: Option<Process>,
    binary: PathBuf,
    instance: String,
    dir: PathBuf,
    log: PathBuf,
}

/// The program to measure: `SHUNT_BIN`, else the release build.
pub(crate) fn binary() -> Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/shunt");
    let named = std::env::var_os("SHUNT_BIN").map(PathBuf::from);
    let found = named.or(Some(built)).filter(|path| path.is_file());
    found.context("no binary: set SHUNT_BIN, or build proxy-userspace with --release")
}

/// Whether `shunt run` of this binary knows `flag`.
pub(crate) fn knows(binary: &Path, flag: &str) -> Result<bool> {
    let output = Command::new(binary).args(["run", "--help"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().any(|word| word == flag))
}

impl Daemon {
    /// Starts it in `node` with the resources in `DIR/config`. It may not be ready yet.
    pub(crate) fn start(node: &Workload, instance: &str, dir: &Path, flags: &[&str]) -> Result<Self> {
        let binary = binary()?;
        let log = dir.join("shunt.log");
        let (instance, dir) = (instance.to_owned(), dir.to_owned());
        let mut daemon = Self { process: None, binary, instance, dir, log };
        daemon.restart(node, flags)?;
        Ok(daemon)
    }

    /// Starts it again, over what the last one has left.
    pub(crate) fn restart(&mut self, node: &Workload, flags: &[&str]) -> Result<()> {
        let dir = self.dir.display();
        let line = format!(
            "run --config {dir}/config --run-dir {dir}/run --state-dir {dir}/state --access-log off --instance {}",
            self.instance
        );
        let args: Vec<&str> = line.split(' ').chain(flags.iter().copied()).collect();
        self.process = Some(Process::start(node, &self.binary, &args, self.log.clone())?);
        Ok(())
    }

    /// Waits until it says that it is ready.
    pub(crate) fn await_ready(&mut self, patience: Duration) -> Result<()> {
        let log = self.log.clone();
        let said = move || fs::read_to_string(&log).unwrap_or_default();
        let ready = || said().lines().any(|line| line.split_whitespace().any(|word| word == "ready"));
        self.process()?.await_within("shunt run", patience, ready)
    }

    /// Enrols the namespace of `client`, only what is in `cgroup`.
    pub(crate) fn enroll(&mut self, client: &Workload, cgroup: &Cgroup) -> Result<()> {
        let mut enroll = Command::new(&self.binary);
        enroll.args(["enroll", "--name", "client", "--netns"]).arg(client.path());
        enroll.arg("--cgroup").arg(cgroup.path()).arg("--run-dir").arg(self.dir.join("run"));
        let output = enroll.output()?;
        if output.status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("shunt enroll: {}\n{complaint}\nthe daemon said:\n{}", output.status, self.process()?.output())
    }

    /// Waits until a byte sent to `target` comes back to the client.
    pub(crate) fn await_echo(&mut self, target: SocketAddr, dial: impl Fn() -> bool) -> Result<()> {
        self.process()?.await_ready(&format!("shunt at {target}"), dial)
    }

    /// Its process id.
    pub(crate) fn pid(&mut self) -> Result<u32> {
        Ok(self.process()?.pid())
    }

    /// Everything that the process now running has logged.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the daemon was killed")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process = None;
        // Without pins nothing is mounted there.
        let _ = umount2(&self.dir.join("run/pins"), MntFlags::MNT_DETACH);
        remove_cgroup(&cgroup2().join(&self.instance));
    }
}
