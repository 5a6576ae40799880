//! The run folder: one daemon at a time.

use std::{fs, io::Write as _, os::unix::fs::DirBuilderExt as _, path::Path};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};

/// Holds the run folder for this process; the kernel lets go of it when the process ends, however it ends.
pub(super) struct RunDir {
    _lock: Flock<fs::File>,
}

impl RunDir {
    /// Makes the folder, for root only, and takes it.
    ///
    /// # Errors
    /// When it cannot be made, or another daemon has it.
    pub(super) fn take(path: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
            format!("cannot make the run folder {}; name another with --run-dir", path.display())
        })?;
        let lock = path.join("lock");
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&lock);
        let file = file.with_context(|| format!("cannot open {}", lock.display()))?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            let holder = fs::read_to_string(path.join("lock")).unwrap_or_default();
            anyhow::anyhow!(
                "a daemon already runs with {} (process {}); stop it, or use another --run-dir and --instance",
                path.display(),
                holder.trim()
            )
        })?;
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { _lock: lock })
    }
}
