//! bpffs: a file system of our own for link pins that outlive a daemon, and one that nobody sees.

use std::{
    ffi::OsStr,
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

use super::{error::Error, objects::PROGRAMS};

const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// The folder of one instance's pins: a bpffs of its own, so that nothing is left in anybody else's.
pub(super) struct PinFolder {
    path: PathBuf,
    /// Pins of an earlier daemon: they refuse or pass by its last word until new links are in place.
    leftovers: Vec<PathBuf>,
    next: usize,
}

impl PinFolder {
    /// Makes the folder and mounts a bpffs on it; one that is there already is a killed daemon's.
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&path).map_err(Error::file("making the pin folder", &path))?;
        mount_if_missing(&path).map_err(Error::file("mounting a bpffs on", &path))?;
        let entries = fs::read_dir(&path).map_err(Error::file("reading the pin folder", &path))?;
        // The kernel puts files of its own into every bpffs; only ours are named after programs.
        let ours = |name: &OsStr| {
            PROGRAMS.iter().any(|program| name.as_encoded_bytes().starts_with(program.as_bytes()))
        };
        let leftovers = entries.flatten().filter(|entry| ours(&entry.file_name()));
        let leftovers = leftovers.map(|entry| entry.path()).collect();
        Ok(Self { path, leftovers, next: 0 })
    }

    /// A name that no pin has.
    pub(super) fn fresh(&mut self, program: &str) -> PathBuf {
        loop {
            let path = self.path.join(format!("{program}-{}", self.next));
            self.next += 1;
            if !path.exists() {
                return path;
            }
        }
    }

    pub(super) fn drop_leftovers(&mut self) -> Result<(), Error> {
        for pin in self.leftovers.drain(..) {
            fs::remove_file(&pin).map_err(Error::file("dropping an old pin", &pin))?;
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
    PinFolder::open(folder.to_owned())?.remove()
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
