//! bpffs: a folder of link pins that outlives a daemon, and a file system that nobody sees.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::{Path, PathBuf},
    ptr,
};

use nix::{
    libc,
    mount::{MsFlags, mount},
    sys::statfs::{FsType, statfs},
};

use super::error::Error;

const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// The folder of one instance's pins.
pub(super) struct PinFolder {
    path: PathBuf,
    /// Pins of an earlier daemon: they refuse or pass by its last word until new links are in place.
    leftovers: Vec<PathBuf>,
    next: usize,
}

impl PinFolder {
    /// Makes the folder; the bpffs around it is mounted where it is missing.
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let parent = path.parent().unwrap_or_else(|| Path::new("/")).to_owned();
        mount_if_missing(&parent).map_err(Error::file("mounting a bpffs on", parent))?;
        fs::create_dir_all(&path).map_err(Error::file("making the pin folder", &path))?;
        let entries = fs::read_dir(&path).map_err(Error::file("reading the pin folder", &path))?;
        let leftovers = entries.flatten().map(|entry| entry.path()).collect();
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

    /// Takes the folder away, with what is left in it.
    pub(super) fn remove(mut self) -> Result<(), Error> {
        self.drop_leftovers()?;
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
    tracing::info!(folder = %folder.display(), "mounted a bpffs, which was missing");
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
