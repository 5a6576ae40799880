//! Which cgroups the programs of `capture` are attached to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        linux::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use aya::Ebpf;

use super::{
    error::Error,
    objects::{self, PROGRAMS, Program},
    pins::PinFolder,
    sys,
};

/// The links in force, by cgroup.
pub(super) struct Links {
    attached: BTreeMap<PathBuf, Attached>,
    pins: Option<PinFolder>,
    /// Whether anything of ours was ever in place.
    began: bool,
}

/// The links of all programs to one cgroup. A cgroup that was removed and made again is another one.
struct Attached {
    inode: u64,
    /// In the order of [`PROGRAMS`]: those that route come last, and go first.
    links: Vec<Link>,
}

/// One link: it goes with the process, unless it is pinned.
struct Link {
    _fd: OwnedFd,
    pin: Option<PathBuf>,
}

impl Links {
    pub(super) fn new(pins: Option<PinFolder>) -> Self {
        Self { attached: BTreeMap::new(), pins, began: false }
    }

    /// Whether an earlier daemon's pins were taken over.
    pub(super) fn are_adopted(&self) -> bool {
        self.pins.as_ref().is_some_and(PinFolder::is_adopted)
    }

    /// Attaches what is missing, then lets go what is not wanted, then drops what an earlier daemon left and nobody
    /// took over.
    pub(super) fn set(&mut self, capture: &Ebpf, wanted: &BTreeSet<PathBuf>) -> Result<(), Error> {
        for path in wanted {
            self.ensure(capture, path)?;
        }
        self.began = true;
        let unwanted: Vec<_> = self.attached.keys().filter(|path| !wanted.contains(*path)).cloned().collect();
        for path in unwanted {
            self.attached.remove(&path).map_or(Ok(()), Attached::let_go)?;
        }
        let Some(pins) = &mut self.pins else { return Ok(()) };
        let held = self.attached.values().flat_map(|attached| &attached.links);
        pins.keep_only(&held.filter_map(|link| link.pin.as_deref()).collect())
    }

    /// Lets everything go, pins and their folder included. What a killed daemon left stays when nothing of ours ever
    /// took its place: a start that failed must not let pass what was refused before.
    pub(super) fn close(mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        let (began, pins) = (self.began, self.pins.take());
        if !began && pins.as_ref().is_some_and(PinFolder::has_leftovers) {
            return Ok(());
        }
        for attached in std::mem::take(&mut self.attached).into_values() {
            let released = attached.let_go();
            outcome = outcome.and(released);
        }
        let removed = pins.map_or(Ok(()), PinFolder::remove);
        outcome.and(removed)
    }

    fn ensure(&mut self, capture: &Ebpf, path: &Path) -> Result<(), Error> {
        let cgroup = File::open(path).map_err(Error::file("opening the cgroup", path))?;
        let inode = cgroup.metadata().map_err(Error::file("looking at the cgroup", path))?.st_ino();
        if self.attached.get(path).is_some_and(|attached| attached.inode == inode) {
            return Ok(());
        }
        let mut fresh = Attached { inode, links: Vec::new() };
        for program in PROGRAMS {
            let pin = self.pins.as_ref().map(|pins| pins.link(program.name, inode));
            match hold(capture, program, &cgroup, pin) {
                Ok(link) => fresh.links.push(link),
                Err(source) => {
                    // The first error is the one to tell; half a capture is worse than none.
                    let _ = fresh.let_go();
                    let doing = format!("attaching {} to", program.name);
                    return Err(Error::Attach { doing, path: path.to_owned(), source });
                }
            }
        }
        let old = self.attached.insert(path.to_owned(), fresh);
        old.map_or(Ok(()), Attached::let_go)
    }
}

impl Attached {
    /// Links go by being dropped, the last one first; pins that somebody has removed are no matter.
    fn let_go(self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for link in self.links.into_iter().rev() {
            let Some(pin) = link.pin else { continue };
            match fs::remove_file(&pin) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    outcome = outcome.and(Err(Error::file("unpinning", &pin)(error)));
                }
                _ => {}
            }
        }
        outcome
    }
}

/// The program's link to the cgroup: an earlier daemon's with our program put behind it, else a new one.
fn hold(capture: &Ebpf, program: Program, cgroup: &File, pin: Option<PathBuf>) -> io::Result<Link> {
    let code = objects::descriptor(capture, program.name)?;
    if let Some(pin) = &pin
        && let Ok(link) = sys::pinned(pin)
    {
        if sys::exchange(link.as_fd(), code).is_ok() {
            return Ok(Link { _fd: link, pin: Some(pin.clone()) });
        }
        // Its cgroup was removed, and this one has got the same number.
        fs::remove_file(pin)?;
    }
    let link = sys::link(code, cgroup.as_fd(), program.hook)?;
    if let Some(pin) = &pin {
        sys::pin(link.as_fd(), pin)?;
    }
    Ok(Link { _fd: link, pin })
}
