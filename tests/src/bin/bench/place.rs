//! Where a row's client runs: a network namespace, and a cgroup when Shunt looks after it.
//!
//! Shunt is told of that cgroup, so that its programs sit there and nowhere else: what does not go through Shunt does
//! not pass its programs either, and two daemons do not see each other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tests::mesh::Workload;
use tests::sweep::{cgroup2, remove_cgroup};

/// A client's namespace and, if it has one, its cgroup.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    client: Workload,
    cgroup: Option<PathBuf>,
}

/// A cgroup that goes with this value.
#[derive(Debug)]
pub(crate) struct Cgroup(PathBuf);

/// While it lives, this process is in another cgroup than before.
struct Visit {
    home: PathBuf,
}

impl Place {
    /// In `client`, and in `cgroup` if there is one.
    pub(crate) fn new(client: &Workload, cgroup: Option<&Cgroup>) -> Self {
        Self { client: client.clone(), cgroup: cgroup.map(|cgroup| cgroup.path().to_owned()) }
    }

    /// Runs `work` there. Its sockets belong there for good; those of the server stay where its listeners were made.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let _visit = self.cgroup.as_deref().map(Visit::to).transpose()?;
        Ok(self.client.enter(work))
    }
}

impl Cgroup {
    /// Makes it. A killed benchmark leaves it to the next run, which knows it by its name.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let path = cgroup2().join(name);
        fs::create_dir(&path).with_context(|| format!("make the cgroup {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove_cgroup(&self.0);
    }
}

impl Visit {
    fn to(cgroup: &Path) -> Result<Self> {
        let text = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        let own = text.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup v2 here")?;
        let visit = Self { home: cgroup2().join(own) };
        join(cgroup)?;
        Ok(visit)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // Had it failed, the next row would be measured in the wrong place: better no result than that one.
        join(&self.home).expect("back into the cgroup that this process came from");
    }
}

/// Moves this process, all of its threads.
fn join(cgroup: &Path) -> Result<()> {
    let file = cgroup.join("cgroup.procs");
    fs::write(&file, std::process::id().to_string()).with_context(|| format!("write {}", file.display()))
}
