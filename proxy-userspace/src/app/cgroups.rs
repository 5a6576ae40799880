//! The daemon's cgroups: its own, which is exempt from capture, and the local workload's.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};

use crate::node::cgroup::{self, Mount};

/// `INSTANCE/daemon` and `INSTANCE/workload` under the cgroup2 mount. Dropping it takes this process back to where it
/// came from, moves what is left of the workload there too, and removes the folders.
pub(super) struct Cgroups {
    root: PathBuf,
    /// Where this process was before.
    origin: PathBuf,
    instance: PathBuf,
    daemon: PathBuf,
    workload: PathBuf,
    /// Two daemons would move each other's processes.
    _lock: Flock<fs::File>,
}

impl Cgroups {
    /// Makes them and moves this process into its own. What a killed daemon left is used again.
    pub(super) fn make(instance: &str) -> anyhow::Result<Self> {
        let mount = Mount::find()?;
        let (root, origin) = (mount.root().to_owned(), mount.root().join(own_cgroup()?));
        let folder = mount.create(instance)?;
        let _lock = lock(&folder, instance)?;
        let (daemon, workload) = (folder.join("daemon"), folder.join("workload"));
        let cgroups = Self { root, origin, instance: folder, daemon, workload, _lock };
        mount.create(&format!("{instance}/daemon"))?;
        mount.create(&format!("{instance}/workload"))?;
        cgroup::move_self(&cgroups.daemon).context("cannot move the daemon into its own cgroup")?;
        Ok(cgroups)
    }

    /// The folder of the root cgroup: programs that are attached there see everybody.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of the local workload.
    pub(super) fn workload(&self) -> &Path {
        &self.workload
    }

    /// The daemon's own, by the kernel's number.
    pub(super) fn daemon_id(&self) -> io::Result<u64> {
        cgroup::id(&self.daemon)
    }

    fn leave(&self) -> io::Result<()> {
        cgroup::move_self(&self.origin).or_else(|_| cgroup::move_self(&self.root))?;
        if self.workload.exists() {
            cgroup::evict(&self.workload, &self.root)?;
        }
        let (workload, daemon) = (cgroup::remove(&self.workload), cgroup::remove(&self.daemon));
        workload.and(daemon).and_then(|()| cgroup::remove(&self.instance))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            tracing::warn!("{error}; it stays, and the next start uses it again");
        }
    }
}

/// Holds the instance for this process. The file is one that only root can open, or anybody could keep us out.
fn lock(folder: &Path, instance: &str) -> anyhow::Result<Flock<fs::File>> {
    let path = folder.join("cgroup.kill");
    let file = fs::OpenOptions::new().write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        anyhow::anyhow!("a daemon already runs as {instance}; name this one with another --instance")
    })
}

/// This process's cgroup, relative to the root: the line `0::/PATH` of /proc/self/cgroup.
fn own_cgroup() -> anyhow::Result<String> {
    let listing = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    let own = listing.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(own.unwrap_or_default().to_owned())
}
