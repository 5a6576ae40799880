//! bpffs: a file system of our own for what outlives a daemon, and one that nobody sees.
//!
//! In the first, one folder for each layout of the maps: `vNUMBER/MAP` and `vNUMBER/PROGRAM-CGROUP`. What a killed
//! daemon left there is taken over if it has our layout and our sizes; anything else stays in force until ours is in
//! place, and goes then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::{Path, PathBuf},
    ptr,
};

use aya::maps::MapData;
use nix::{
    libc,
    mount::{MsFlags, mount, umount},
    sys::statfs::{FsType, statfs},
};
use proxy_common::direct::LAYOUT;

use super::error::Error;

const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// The folder of one instance's pins: a bpffs of its own, so that nothing is left in anybody else's.
pub(super) struct PinFolder {
    path: PathBuf,
    /// Our layout's folder in it.
    current: PathBuf,
    /// Whether an earlier daemon's maps are in it.
    adopted: bool,
    /// What an earlier daemon left and we cannot use.
    leftovers: Vec<PathBuf>,
}

impl PinFolder {
    /// Makes the folder and mounts a bpffs on it; one that is there already is a killed daemon's. `sizes` are those of
    /// our maps, by name.
    pub(super) fn open(path: PathBuf, sizes: &BTreeMap<&str, u32>) -> Result<Self, Error> {
        fs::create_dir_all(&path).map_err(Error::file("making the pin folder", &path))?;
        mount_if_missing(&path).map_err(Error::file("mounting a bpffs on", &path))?;
        let current = path.join(format!("v{LAYOUT}"));
        let there = current.exists();
        if there && !fits(&current, sizes) {
            let aside = path.join(format!("v{LAYOUT}-{}", std::process::id()));
            fs::rename(&current, &aside).map_err(Error::file("putting aside", &current))?;
        }
        let adopted = there && current.exists();
        fs::create_dir_all(&current).map_err(Error::file("making the pin folder", &current))?;
        let leftovers = entries(&path)?.into_iter().filter(|entry| *entry != current && is_ours(entry));
        let leftovers = leftovers.collect();
        Ok(Self { path, current, adopted, leftovers })
    }

    /// Where the map of this name is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.current.join(name)
    }

    /// Where a program's link to a cgroup is pinned.
    pub(super) fn link(&self, program: &str, cgroup_id: u64) -> PathBuf {
        self.current.join(format!("{program}-{cgroup_id}"))
    }

    /// Whether an earlier daemon's maps were taken over.
    pub(super) fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// Whether something of an earlier daemon's is still in force.
    pub(super) fn has_leftovers(&self) -> bool {
        self.adopted || !self.leftovers.is_empty()
    }

    /// Drops every link but `links`, and whatever an earlier daemon left of another layout.
    pub(super) fn keep_only(&mut self, links: &BTreeSet<&Path>) -> Result<(), Error> {
        for entry in entries(&self.current)? {
            let is_link = entry.file_name().is_some_and(|name| name.as_encoded_bytes().contains(&b'-'));
            if is_link && !links.contains(entry.as_path()) {
                fs::remove_file(&entry).map_err(Error::file("dropping an old link", &entry))?;
            }
        }
        for leftover in self.leftovers.drain(..) {
            tracing::info!(
                "{}: the tables of an earlier daemon are dropped; its open direct connections live on, uncounted",
                leftover.display()
            );
            drop_all(&leftover)?;
        }
        Ok(())
    }

    /// Takes the folder away, with what is left in it.
    pub(super) fn remove(self) -> Result<(), Error> {
        for entry in entries(&self.path)?.into_iter().filter(|entry| is_ours(entry)) {
            drop_all(&entry)?;
        }
        umount(&self.path).map_err(io::Error::from).map_err(Error::file("unmounting", &self.path))?;
        fs::remove_dir(&self.path).map_err(Error::file("removing the pin folder", &self.path))
    }
}

/// The kernel puts files of its own into every bpffs.
fn is_ours(entry: &Path) -> bool {
    let name = entry.file_name().map(|name| name.as_encoded_bytes()).unwrap_or_default();
    name.starts_with(b"v") || name.starts_with(b"connect")
}

/// Whether every map in the folder is as large as ours would be.
fn fits(folder: &Path, sizes: &BTreeMap<&str, u32>) -> bool {
    sizes.iter().all(|(name, size)| {
        let map = MapData::from_pin(folder.join(name));
        let info = map.ok().and_then(|map| map.info().ok());
        info.is_some_and(|info| info.max_entries() == *size)
    })
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(Error::file("reading the pin folder", folder))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Removes a pin, or a folder of pins: links before maps, those that route first.
fn drop_all(path: &Path) -> Result<(), Error> {
    if !path.is_dir() {
        return fs::remove_file(path).map_err(Error::file("dropping an old pin", path));
    }
    let mut pins = entries(path)?;
    pins.sort_by_key(|pin| {
        let name = pin.file_name().map(|name| name.as_encoded_bytes()).unwrap_or_default();
        (!name.starts_with(b"connect"), !name.contains(&b'-'))
    });
    for pin in pins {
        fs::remove_file(&pin).map_err(Error::file("dropping an old pin", &pin))?;
    }
    fs::remove_dir(path).map_err(Error::file("removing the pin folder", path))
}

/// Removes the pins that an earlier daemon left in `folder`, and the folder; none is no error.
///
/// # Errors
/// When they are there and cannot be removed: their programs go on refusing.
pub fn drop_stale_pins(folder: &Path) -> Result<(), Error> {
    if !fs::exists(folder).map_err(Error::file("looking at the pin folder", folder))? {
        return Ok(());
    }
    PinFolder::open(folder.to_owned(), &BTreeMap::new())?.remove()
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
