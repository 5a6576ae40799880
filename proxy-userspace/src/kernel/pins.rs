//! bpffs: a file system of our own for link pins that outlive a daemon, and one that nobody sees.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::{Path, PathBuf},
    ptr,
};

use nix::{
    libc,
    mount::{MsFlags, mount, umount},
    sys::statfs::{FsType, statfs},
};

use super::{error::Error, guard::GUARD, objects::PROGRAMS};

const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// The folder of one instance's pins: a bpffs of its own, so that nothing is left in anybody else's. Inside it maps and
/// links are in a folder that is named after their layout.
pub(super) struct PinFolder {
    path: PathBuf,
    layout: PathBuf,
    /// Pins of an earlier daemon: its links refuse or pass by its last word until new ones are in place. Folders are
    /// those of other layouts.
    leftovers: BTreeSet<PathBuf>,
    /// Whether an earlier daemon's links of our layout were there.
    adopted: bool,
}

impl PinFolder {
    /// Makes the folder and mounts a bpffs on it; one that is there already is a killed daemon's.
    pub(super) fn open(path: PathBuf, layout: &str) -> Result<Self, Error> {
        fs::create_dir_all(&path).map_err(Error::file("making the pin folder", &path))?;
        mount_if_missing(&path).map_err(Error::file("mounting a bpffs on", &path))?;
        let layout = path.join(layout);
        fs::create_dir_all(&layout).map_err(Error::file("making the pin folder", &layout))?;
        let mut leftovers = entries(&path)?;
        leftovers.retain(|entry| *entry != layout && (is_link(entry) || is_layout(entry)));
        let before = leftovers.len();
        leftovers.extend(entries(&layout)?.into_iter().filter(|entry| is_link(entry)));
        let adopted = leftovers.len() > before;
        Ok(Self { path, layout, leftovers, adopted })
    }

    /// Where maps and links of our own layout are.
    pub(super) fn layout(&self) -> &Path {
        &self.layout
    }

    /// Where the link of `program` to a cgroup is pinned. The number of a cgroup is never used again.
    pub(super) fn link(&self, program: &str, cgroup: u64) -> PathBuf {
        self.layout.join(format!("{program}-{cgroup}"))
    }

    /// Whether an earlier daemon of the same layout left its pins.
    pub(super) fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// What an earlier daemon pinned there is ours now.
    pub(super) fn adopt(&mut self, pin: &Path) {
        self.leftovers.remove(pin);
    }

    /// Whether what packets find on their way out is still decided by an earlier daemon somewhere.
    pub(super) fn has_old_guards(&self) -> bool {
        self.leftovers.iter().any(|pin| is_link_of(pin, GUARD))
    }

    pub(super) fn drop_leftovers(&mut self) -> Result<(), Error> {
        while let Some(pin) = self.leftovers.pop_last() {
            if is_layout(&pin) {
                tracing::info!(
                    "{}: dropping what an earlier daemon left pinned: of another layout or size, or no pins are \
                     wanted; its open direct connections live on, uncounted",
                    pin.display()
                );
            }
            remove_all(&pin)?;
        }
        Ok(())
    }

    /// Whether an earlier daemon's pins still decide: nothing of ours has taken their place.
    pub(super) fn has_leftovers(&self) -> bool {
        !self.leftovers.is_empty()
    }

    /// Takes the folder away, with what is left in it.
    pub(super) fn remove(mut self) -> Result<(), Error> {
        self.drop_leftovers()?;
        remove_all(&self.layout)?;
        umount(&self.path).map_err(io::Error::from).map_err(Error::file("unmounting", &self.path))?;
        fs::remove_dir(&self.path).map_err(Error::file("removing the pin folder", &self.path))
    }
}

/// Removes the pins that an earlier daemon left in `folder`, and the folder; none is no error.
///
/// # Errors
/// When they are there and cannot be removed: their programs go on refusing.
pub fn drop_stale_pins(folder: &Path) -> Result<(), Error> {
    if !fs::exists(folder).map_err(Error::file("looking at the pin folder", folder))? {
        return Ok(());
    }
    PinFolder::open(folder.to_owned(), "v0")?.remove()
}

fn entries(folder: &Path) -> Result<BTreeSet<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::file("reading the pin folder", folder))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// The kernel puts files of its own into every bpffs; only our links are named after programs.
fn is_link(pin: &Path) -> bool {
    PROGRAMS.into_iter().chain([GUARD]).any(|program| is_link_of(pin, program))
}

fn is_link_of(pin: &Path, program: &str) -> bool {
    pin.file_name().unwrap_or_default().as_encoded_bytes().starts_with(program.as_bytes())
}

fn is_layout(entry: &Path) -> bool {
    entry.is_dir() && entry.file_name().unwrap_or_default().as_encoded_bytes().starts_with(b"v")
}

/// Removes a pin, or a layout's folder with its pins: links last attached first, so that nothing is counted that
/// nobody would see end. What is gone already is no error.
fn remove_all(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        let mut pins: Vec<_> = entries(path)?.into_iter().collect();
        let rank = |pin: &PathBuf| {
            let name = pin.file_name().unwrap_or_default().as_encoded_bytes();
            PROGRAMS.iter().rposition(|program| name.starts_with(program.as_bytes()))
        };
        pins.sort_by_key(|pin| std::cmp::Reverse(rank(pin)));
        for pin in &pins {
            remove_all(pin)?;
        }
        return fs::remove_dir(path).map_err(Error::file("removing the pin folder", path));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("dropping an old pin", path)(error))
        }
        _ => Ok(()),
    }
}

fn mount_if_missing(folder: &Path) -> io::Result<()> {
    if statfs(folder)?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    mount(Some("bpf"), folder, Some("bpf"), MsFlags::empty(), Some("mode=0700"))?;
    Ok(())
}

/// A bpffs that is mounted nowhere; its paths start with `/proc/self/fd/NUMBER`.
pub(super) fn detached_bpffs() -> io::Result<OwnedFd> {
    const CMD_CREATE: libc::c_uint = 6;
    // SAFETY: each call gets an open descriptor or a constant, and NUL-terminated text or null where it allows that.
    unsafe {
        let context = owned(libc::syscall(libc::SYS_fsopen, c"bpf".as_ptr(), libc::FSOPEN_CLOEXEC))?;
        let none = ptr::null::<libc::c_char>();
        let made =
            libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CMD_CREATE, none, none, 0 as libc::c_int);
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        owned(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, 0))
    }
}

/// # Safety
/// `status` is what a call returned that gives a new descriptor or -1.
unsafe fn owned(status: libc::c_long) -> io::Result<OwnedFd> {
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(status as RawFd) })
}
