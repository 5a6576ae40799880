//! A folder of YAML files, watched.
//!
//! Every `*.yaml` and `*.yml` directly inside it counts, whatever way it gets there: written in place, renamed
//! over, or swapped as a symbolic link the way Kubernetes mounts ConfigMaps. A file that is being written is left
//! alone until its writer closes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::sync::mpsc;

/// Editors, `cp` and `kubectl` come in bursts, and rules that belong together should count together: how long to wait for
/// the rest of one.
const SETTLE: Duration = Duration::from_millis(4);
/// How often to look for a folder that went away.
const RETRY: Duration = Duration::from_secs(1);
/// A larger file is somebody's mistake.
const LARGEST: u64 = 16 << 20;

/// What happened to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// New or rewritten; its whole text.
    Text(String),
    /// Gone.
    Removed,
    /// There, but not to be read; why. What it said before stays in force.
    Unreadable(String),
}

/// Changes by file path, in the order of the file names.
pub type Changes = Vec<(String, Change)>;

/// Why a folder cannot be read or watched.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It is not there, or not ours to read.
    #[error("cannot read {path}: {source}; name a folder of YAML files")]
    Read {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has no watch left for us.
    #[error("cannot watch {path}: {source}; raise fs.inotify.max_user_instances or max_user_watches")]
    Watch {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A folder and what was last read from it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    known: BTreeMap<OsString, Change>,
    /// Files with a writer that has not closed them yet.
    unfinished: BTreeSet<OsString>,
    /// Whether the folder that is watched no longer is the one at the path.
    lost: bool,
}

impl Folder {
    /// The folder at `path`, nothing read yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, known: BTreeMap::new(), unfinished: BTreeSet::new(), lost: false }
    }

    /// Reads the folder: what differs from the last time.
    ///
    /// # Errors
    /// When the folder itself cannot be listed; nothing is forgotten then.
    pub fn scan(&mut self) -> Result<Changes, FolderError> {
        let listed =
            list(&self.path).map_err(|source| FolderError::Read { path: self.path.clone(), source })?;
        let gone: Vec<_> = self.known.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        let mut changes = Changes::new();
        for name in gone {
            self.known.remove(&name);
            changes.push((self.label(&name), Change::Removed));
        }
        for name in listed {
            let now = read(&self.path.join(&name));
            if !self.unfinished.contains(&name) && self.known.get(&name) != Some(&now) {
                changes.push((self.label(&name), now.clone()));
                self.known.insert(name, now);
            }
        }
        Ok(changes)
    }

    /// Watches from now on. Call it before the first [`Self::scan`], so that nothing falls between.
    ///
    /// # Errors
    /// When the folder is not there, or the kernel cannot watch.
    pub fn watch(&self) -> Result<Watch, FolderError> {
        let path = self.path.clone();
        Watch::new(&self.path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FolderError::Read { path, source },
            _ => FolderError::Watch { path, source },
        })
    }

    /// Sends every change of the folder, from a thread of its own, for as long as the process lives. A folder
    /// that goes away is waited for: what it said stays in force.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn follow(mut self, mut watch: Watch, changes: mpsc::Sender<Changes>) -> io::Result<()> {
        let thread = thread::Builder::new().name("files".to_owned());
        let body = move || {
            while !changes.is_closed() {
                self.settle(&watch);
                // Another folder may stand in its place already; if none does, the scan says so.
                if std::mem::take(&mut self.lost)
                    && let Ok(fresh) = self.watch()
                {
                    watch = fresh;
                }
                while let Err(error) = self.send_changes(&changes) {
                    tracing::warn!("{error}; what it said stays in force");
                    watch = self.return_of_the_folder();
                }
            }
        };
        thread.spawn(body).map(drop)
    }

    /// Scans, and sends what was found.
    fn send_changes(&mut self, changes: &mpsc::Sender<Changes>) -> Result<(), FolderError> {
        let found = self.scan()?;
        if !found.is_empty() {
            // Fails only when nobody wants them any more.
            let _ = changes.blocking_send(found);
        }
        Ok(())
    }

    /// Waits for something to happen in the folder, and for the burst it comes in to pass.
    fn settle(&mut self, watch: &Watch) {
        match watch.0.read_events() {
            Ok(events) => events.iter().for_each(|event| self.note(event)),
            Err(error) => tracing::warn!(folder = ?self.path, "the watch failed: {error}; reading again"),
        }
        thread::sleep(SETTLE);
    }

    /// Keeps track of who is writing.
    fn note(&mut self, event: &InotifyEvent) {
        let Some(name) = &event.name else {
            let away =
                AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
            self.lost |= event.mask.intersects(away);
            return;
        };
        let begun = event.mask.contains(AddWatchFlags::IN_CREATE) && self.has_writer(name);
        if begun || event.mask.contains(AddWatchFlags::IN_MODIFY) {
            self.unfinished.insert(name.clone());
        } else {
            self.unfinished.remove(name);
        }
    }

    /// Whether a file that has just been created is being written: links are there as a whole.
    fn has_writer(&self, name: &OsStr) -> bool {
        fs::symlink_metadata(self.path.join(name)).is_ok_and(|about| about.is_file() && about.nlink() == 1)
    }

    /// Looks once a second until the folder can be watched again.
    fn return_of_the_folder(&mut self) -> Watch {
        self.unfinished.clear();
        loop {
            thread::sleep(RETRY);
            if let Ok(watch) = self.watch() {
                tracing::info!("{} is there again", self.path.display());
                return watch;
            }
        }
    }

    /// What problems call the file.
    fn label(&self, name: &OsStr) -> String {
        self.path.join(name).display().to_string()
    }
}

/// The kernel's side of watching a folder.
#[derive(Debug)]
pub struct Watch(Inotify);

impl Watch {
    fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        let what = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        inotify.add_watch(path, what)?;
        Ok(Self(inotify))
    }
}

/// The names of the YAML files in `folder`.
fn list(folder: &Path) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let path = Path::new(&name);
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !name.as_encoded_bytes().starts_with(b".") {
            names.insert(name);
        }
    }
    Ok(names)
}

/// One file as it is now.
fn read(path: &Path) -> Change {
    let unreadable = |why: String| Change::Unreadable(why);
    match fs::metadata(path) {
        Ok(about) if !about.is_file() => return unreadable("is not a file".to_owned()),
        Ok(about) if about.len() > LARGEST => {
            return unreadable(format!("is larger than {} MiB; split it", LARGEST >> 20));
        }
        _ => {}
    }
    fs::read_to_string(path).map_or_else(|error| unreadable(format!("cannot be read: {error}")), Change::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that is gone when the test is.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("shunt-files-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) -> String {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn text(text: &str) -> Change {
        Change::Text(text.to_owned())
    }

    #[test]
    fn a_scan_tells_only_what_differs_from_the_last_one() {
        let scratch = Scratch::new("scan");
        let (a, b) = (scratch.write("a.yaml", "1"), scratch.write("b.yml", "2"));
        scratch.write("notes.txt", "not ours");
        scratch.write(".c.yaml", "an editor's");
        let mut folder = Folder::new(scratch.0.clone());
        assert_eq!(folder.scan().unwrap(), [(a.clone(), text("1")), (b.clone(), text("2"))]);
        assert_eq!(folder.scan().unwrap(), []);
        scratch.write("a.yaml", "3");
        fs::remove_file(&b).unwrap();
        assert_eq!(folder.scan().unwrap(), [(b, Change::Removed), (a, text("3"))]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_called_so() {
        for path in ["/there/is/none", "/dev/null"] {
            let error = Folder::new(path.into()).watch().unwrap_err().to_string();
            assert!(error.contains(path) && error.contains("name a folder"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_and_not_taken_for_removed() {
        let scratch = Scratch::new("unreadable");
        fs::create_dir(scratch.0.join("d.yaml")).unwrap();
        fs::write(scratch.0.join("latin.yaml"), [0xe9]).unwrap();
        let changes = Folder::new(scratch.0.clone()).scan().unwrap();
        assert!(changes.iter().all(|(_, change)| matches!(change, Change::Unreadable(_))), "{changes:?}");
        assert_eq!(changes.len(), 2);
    }

    #[tokio::test]
    async fn every_way_of_writing_a_file_is_followed() {
        let scratch = Scratch::new("follow");
        let mut folder = Folder::new(scratch.0.clone());
        let watch = folder.watch().unwrap();
        assert_eq!(folder.scan().unwrap(), []);
        let (send, mut changes) = mpsc::channel(1);
        folder.follow(watch, send).unwrap();

        let a = scratch.write("a.yaml", "written");
        assert_eq!(changes.recv().await.unwrap(), [(a.clone(), text("written"))]);
        let draft = scratch.write("draft", "renamed");
        fs::rename(&draft, &a).unwrap();
        assert_eq!(changes.recv().await.unwrap(), [(a.clone(), text("renamed"))]);
        let other = scratch.write("elsewhere", "linked");
        fs::remove_file(&a).unwrap();
        assert_eq!(changes.recv().await.unwrap(), [(a.clone(), Change::Removed)]);
        std::os::unix::fs::symlink(other, &a).unwrap();
        assert_eq!(changes.recv().await.unwrap(), [(a, text("linked"))]);
    }

    #[tokio::test]
    async fn a_half_written_file_waits_for_its_writer() {
        use std::io::Write as _;
        let scratch = Scratch::new("half");
        let mut folder = Folder::new(scratch.0.clone());
        let watch = folder.watch().unwrap();
        folder.scan().unwrap();
        let (send, mut changes) = mpsc::channel(1);
        folder.follow(watch, send).unwrap();

        let mut file = fs::File::create(scratch.0.join("a.yaml")).unwrap();
        file.write_all(b"half").unwrap();
        let b = scratch.write("b.yaml", "whole");
        let first = changes.recv().await.unwrap();
        assert!(first.contains(&(b, text("whole"))), "{first:?}");
        assert!(first.iter().all(|(_, change)| *change != text("half")), "{first:?}");
        file.write_all(b" and half").unwrap();
        drop(file);
        assert_eq!(changes.recv().await.unwrap()[0].1, text("half and half"));
        // Links have no writer to wait for.
        fs::hard_link(scratch.0.join("a.yaml"), scratch.0.join("c.yaml")).unwrap();
        assert_eq!(changes.recv().await.unwrap()[0].1, text("half and half"));
        std::os::unix::fs::symlink("a.yaml", scratch.0.join("d.yaml")).unwrap();
        assert_eq!(changes.recv().await.unwrap()[0].1, text("half and half"));
    }

    #[tokio::test]
    async fn a_folder_that_returns_is_read_again() {
        let scratch = Scratch::new("returns");
        scratch.write("a.yaml", "before");
        let mut folder = Folder::new(scratch.0.clone());
        let watch = folder.watch().unwrap();
        folder.scan().unwrap();
        let (send, mut changes) = mpsc::channel(1);
        folder.follow(watch, send).unwrap();
        let away = scratch.0.with_extension("away");
        fs::rename(&scratch.0, &away).unwrap();
        fs::create_dir(&scratch.0).unwrap();
        fs::remove_dir_all(&away).unwrap();
        scratch.write("b.yaml", "after");
        let mut seen = Changes::new();
        while !seen.iter().any(|(_, change)| *change == text("after")) {
            seen.extend(changes.recv().await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_swapped_for_another_is_followed_there() {
        let (scratch, other) = (Scratch::new("swapped"), Scratch::new("swap"));
        scratch.write("a.yaml", "old");
        other.write("a.yaml", "new");
        let mut folder = Folder::new(scratch.0.clone());
        let watch = folder.watch().unwrap();
        folder.scan().unwrap();
        let (send, mut changes) = mpsc::channel(1);
        folder.follow(watch, send).unwrap();
        let away = scratch.0.with_extension("away");
        fs::rename(&scratch.0, &away).unwrap();
        fs::rename(&other.0, &scratch.0).unwrap();
        let a = scratch.0.join("a.yaml").display().to_string();
        assert_eq!(changes.recv().await.unwrap(), [(a.clone(), text("new"))]);
        scratch.write("a.yaml", "edited");
        assert_eq!(changes.recv().await.unwrap(), [(a, text("edited"))]);
        fs::remove_dir_all(away).unwrap();
    }
}
