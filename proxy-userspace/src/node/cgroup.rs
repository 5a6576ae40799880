//! cgroups of version 2: where they are mounted, and the few folders that Shunt makes in them.

use std::{
    fs, io,
    os::linux::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

/// No such process.
const ESRCH: i32 = 3;

/// The mounted cgroup2 tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    root: PathBuf,
}

impl Mount {
    /// The cgroup2 mount of this machine: usually /sys/fs/cgroup, on hybrid machines /sys/fs/cgroup/unified.
    ///
    /// # Errors
    /// When there is none, or /proc is not mounted.
    pub fn find() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Self::parse(&mounts).ok_or_else(|| {
            let text = "no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup";
            io::Error::new(io::ErrorKind::NotFound, text)
        })
    }

    /// The first cgroup2 of a mountinfo listing; one that shows the whole tree comes before a part of it.
    fn parse(mountinfo: &str) -> Option<Self> {
        let mounts = mountinfo.lines().filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut fields = left.split(' ').skip(3);
            let (root, target) = (fields.next()?, fields.next()?);
            right.starts_with("cgroup2 ").then(|| (root != "/", unescape(target)))
        });
        mounts.min_by_key(|(partial, _)| *partial).map(|(_, root)| Self { root: root.into() })
    }

    /// The folder of the root cgroup.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the cgroup `name` (`instance/workload`) with its parents; one that exists is taken as it is.
    ///
    /// # Errors
    /// When the tree is read-only, or the caller may not write to it.
    pub fn create(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("cgroup {}: {error}", path.display())))?;
        Ok(path)
    }
}

/// The id by which eBPF programs know the cgroup.
///
/// # Errors
/// When the folder does not exist, or is none of cgroup2.
pub fn id(path: &Path) -> io::Result<u64> {
    let about =
        |error: io::Error| io::Error::new(error.kind(), format!("cgroup {}: {error}", path.display()));
    let kind = statfs(path).map_err(io::Error::from).map_err(about)?.filesystem_type();
    if kind != CGROUP2_SUPER_MAGIC {
        let text = format!("{} is no cgroup v2 folder", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(fs::metadata(path).map_err(about)?.st_ino())
}

/// Moves the calling process, with all its threads, into the cgroup.
///
/// # Errors
/// When the folder is no cgroup, or the caller may not write to it.
pub fn move_self(path: &Path) -> io::Result<()> {
    let procs = path.join("cgroup.procs");
    fs::write(&procs, std::process::id().to_string())
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", procs.display())))
}

/// Moves every process of the cgroup `from` to the cgroup `to`. One that ends meanwhile is no error.
///
/// # Errors
/// When `from` is no cgroup, or the caller may not write to `to`.
pub fn evict(from: &Path, to: &Path) -> io::Result<()> {
    let about = |path: PathBuf| {
        move |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let (source, target) = (from.join("cgroup.procs"), to.join("cgroup.procs"));
    for process in fs::read_to_string(&source).map_err(about(source))?.lines() {
        match fs::write(&target, process) {
            Err(error) if error.raw_os_error() != Some(ESRCH) => return Err(about(target)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Removes the cgroup; one that is gone is no error, one with processes in it is.
///
/// # Errors
/// When it holds processes or cgroups.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("cgroup {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// mountinfo writes blanks and the like as `\040`.
fn unescape(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        let Some(code) = code else { break };
        text.push(char::from(code));
        rest = &rest[at + 4..];
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_of_cgroup2_has_an_id() {
        let error = id(&std::env::temp_dir()).unwrap_err().to_string();
        assert!(error.contains("no cgroup v2 folder"), "{error}");
        let error = id(Path::new("/sys/fs/cgroup/there-is-none")).unwrap_err().to_string();
        assert!(error.contains("there-is-none"), "{error}");
    }

    #[test]
    fn finds_the_whole_tree_wherever_it_is_mounted() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro\n\
                      31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n";
        let pure = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw\n";
        let part = "40 24 0:30 /docker/x /mnt/part rw - cgroup2 cgroup rw\n";
        let blank = "35 24 0:30 / /mnt/c\\040g rw - cgroup2 cgroup rw\n";
        for (mountinfo, want) in [
            (hybrid.to_owned(), Some("/sys/fs/cgroup/unified")),
            (pure.to_owned(), Some("/sys/fs/cgroup")),
            (format!("{part}{pure}"), Some("/sys/fs/cgroup")),
            (part.to_owned(), Some("/mnt/part")),
            (blank.to_owned(), Some("/mnt/c g")),
            ("1 2 0:1 / /x rw - cgroup cgroup rw\n".to_owned(), None),
        ] {
            let found = Mount::parse(&mountinfo).map(|mount| mount.root);
            assert_eq!(found, want.map(PathBuf::from), "{mountinfo}");
        }
    }
}
