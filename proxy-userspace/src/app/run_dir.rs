//! The run folder: one daemon at a time, and nobody else's to write in.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use nix::{
    fcntl::{Flock, FlockArg},
    libc,
    unistd::geteuid,
};

/// Holds the run folder for this process; the kernel lets go of it when the process ends, however it ends. Dropping
/// it takes the lock file away, and the folder if it is empty by then.
pub(super) struct RunDir {
    path: PathBuf,
    lock: Flock<fs::File>,
}

impl RunDir {
    /// Makes the folder, for root only, and takes it.
    ///
    /// # Errors
    /// When it cannot be made, others may write to it, or another daemon has it.
    pub(super) fn take(path: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
            format!("cannot make the run folder {}; name another with --run-dir", path.display())
        })?;
        must_be_ours(path)?;
        let mut lock = lock(path)?;
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { path: path.to_owned(), lock })
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Another file under the name is another daemon's.
        if is_at(&self.lock, &self.path.join("lock")) {
            drop(fs::remove_file(self.path.join("lock")));
            drop(fs::remove_dir(&self.path));
        }
    }
}

/// Whoever may write to the folder could have us write elsewhere, by a link, or answer in our place.
fn must_be_ours(path: &Path) -> anyhow::Result<()> {
    let about = fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    ensure!(
        about.uid() == geteuid().as_raw() && about.mode() & 0o022 == 0,
        "others may write to the run folder {}; chown it to root and chmod it to 0700, or name another with --run-dir",
        path.display()
    );
    Ok(())
}

fn lock(path: &Path) -> anyhow::Result<Flock<fs::File>> {
    let name = path.join("lock");
    loop {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&name).with_context(|| format!("cannot open {}", name.display()))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            let holder = fs::read_to_string(&name).unwrap_or_default();
            anyhow::anyhow!(
                "a daemon already runs with {} (process {}); stop it, or use another --run-dir and --instance",
                path.display(),
                holder.trim()
            )
        })?;
        // A daemon that ended between our two steps has taken the file away: what we locked is nobody's lock.
        if is_at(&lock, &name) {
            return Ok(lock);
        }
    }
}

/// Whether `file` is what stands at `path`.
fn is_at(file: &fs::File, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (there.dev(), there.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_is_left() {
        let path = std::env::temp_dir().join(format!("shunt-run-dir-{}", std::process::id()));
        let first = RunDir::take(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let second = RunDir::take(&path).err().unwrap().to_string();
        assert!(second.contains(&std::process::id().to_string()), "{second}");
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let path = std::env::temp_dir().join(format!("shunt-run-dir-open-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        let error = RunDir::take(&path).err().unwrap().to_string();
        assert!(error.contains("others may write") && !path.join("lock").exists(), "{error}");
        fs::remove_dir(&path).unwrap();
    }
}
