//! Which cgroups the connect programs are attached to.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        linux::fs::MetadataExt as _,
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, Program, ProgramError,
        links::{FdLink, PinnedLink},
    },
};
use nix::libc;

use super::{
    error::Error,
    objects::{MARKING, PROGRAMS, WATCHERS},
    pins::PinFolder,
};

/// The links in force, by cgroup.
pub(super) struct Links {
    attached: BTreeMap<PathBuf, Attached>,
    /// Where nothing is routed any more, but connections that were may still be open: somebody must see them end.
    watching: BTreeMap<PathBuf, Attached>,
    pins: Option<PinFolder>,
}

/// The links of all programs to one cgroup, last attached first. A cgroup that was removed and made again is another
/// one.
struct Attached {
    inode: u64,
    links: Vec<(&'static str, Held)>,
}

/// One link.
pub(super) enum Held {
    /// Goes with the process.
    Plain { _link: FdLink },
    /// Stays until it is unpinned.
    Pinned(PinnedLink),
}

impl Links {
    pub(super) fn new(pins: Option<PinFolder>) -> Self {
        Self { attached: BTreeMap::new(), watching: BTreeMap::new(), pins }
    }

    /// Whether an earlier daemon's pins were taken over.
    pub(super) fn are_adopted(&self) -> bool {
        self.pins.as_ref().is_some_and(PinFolder::is_adopted)
    }

    /// Where links are pinned.
    pub(super) fn pins(&mut self) -> Option<&mut PinFolder> {
        self.pins.as_mut()
    }

    /// Attaches what is missing, then stops routing where it is not wanted, then drops pins of an earlier daemon.
    pub(super) fn set(&mut self, capture: &mut Ebpf, wanted: &BTreeSet<PathBuf>) -> Result<(), Error> {
        for path in wanted {
            self.ensure(capture, path)?;
        }
        let unwanted: Vec<_> = self.attached.keys().filter(|path| !wanted.contains(*path)).cloned().collect();
        for path in unwanted {
            let Some(attached) = self.attached.remove(&path) else { continue };
            let rest = attached.stop_routing()?;
            self.watching.insert(path, rest).map_or(Ok(()), Attached::let_go)?;
        }
        self.pins.as_mut().map_or(Ok(()), PinFolder::drop_leftovers)
    }

    /// Whether connections are waited for where nothing is routed any more.
    pub(super) fn has_watchers(&self) -> bool {
        !self.watching.is_empty()
    }

    /// The last of them has ended.
    pub(super) fn dismiss_watchers(&mut self) -> Result<(), Error> {
        let watching = std::mem::take(&mut self.watching).into_values();
        watching.map(Attached::let_go).fold(Ok(()), Result::and)
    }

    /// Lets everything go, pins and their folder included. What a killed daemon left stays when nothing of ours ever
    /// took its place: a start that failed must not let pass what was refused before.
    pub(super) fn close(mut self) -> Result<(), Error> {
        let mut outcome = self.dismiss_watchers();
        for attached in std::mem::take(&mut self.attached).into_values() {
            let released = attached.let_go();
            outcome = outcome.and(released);
        }
        let pins = self.pins.filter(|pins| !pins.has_leftovers());
        let removed = pins.map_or(Ok(()), PinFolder::remove);
        outcome.and(removed)
    }

    fn ensure(&mut self, capture: &mut Ebpf, path: &Path) -> Result<(), Error> {
        let cgroup = File::open(path).map_err(Error::file("opening the cgroup", path))?;
        let inode = cgroup.metadata().map_err(Error::file("looking at the cgroup", path))?.st_ino();
        if self.attached.get(path).is_some_and(|attached| attached.inode == inode) {
            return Ok(());
        }
        let before = self.watching.remove(path).filter(|watching| watching.inode == inode);
        let mut fresh = before.unwrap_or(Attached { inode, links: Vec::new() });
        for name in PROGRAMS {
            if fresh.links.iter().any(|(there, _)| *there == name) {
                continue;
            }
            match self.hold(capture, name, path, &cgroup, inode) {
                Ok(link) => fresh.links.insert(0, (name, link)),
                Err(error) => {
                    // The first error is the one to tell; half a capture is worse than none.
                    let _ = fresh.let_go();
                    return Err(error);
                }
            }
        }
        let old = self.attached.insert(path.to_owned(), fresh);
        old.map_or(Ok(()), Attached::let_go)
    }

    fn hold(
        &mut self,
        capture: &mut Ebpf,
        name: &'static str,
        path: &Path,
        cgroup: &File,
        inode: u64,
    ) -> Result<Held, Error> {
        let program = capture.program_mut(name).ok_or(Error::Missing(name))?;
        let pins = self.pins.as_mut().filter(|_| name != MARKING).map(|pins| (pins, inode));
        hold(program, name, &path.display().to_string(), pins, |program| attach(program, cgroup))
    }
}

/// Attaches `program`, called `name`, with a link that is pinned under its name and the number of what it is attached to, where
/// there are `pins`: one that is there already gets this program.
pub(super) fn hold(
    program: &mut Program,
    name: &'static str,
    place: &str,
    pins: Option<(&mut PinFolder, u64)>,
    attach: impl FnOnce(&mut Program) -> Result<FdLink, ProgramError>,
) -> Result<Held, Error> {
    let failed = |source| Error::Program { doing: format!("attaching to {place}:"), name, source };
    let Some((pins, number)) = pins else {
        return attach(program).map(|link| Held::Plain { _link: link }).map_err(failed);
    };
    let pin = pins.link(name, number);
    if let Some(link) = replace(program, &pin).map_err(Error::file("replacing the program at", &pin))? {
        pins.adopt(&pin);
        return Ok(Held::Pinned(link));
    }
    let link = attach(program).map_err(failed)?;
    let pinned = link.pin(&pin);
    pinned.map(Held::Pinned).map_err(|error| Error::File {
        doing: "pinning a link at",
        path: pin,
        source: io::Error::other(error.to_string()),
    })
}

impl Held {
    /// Plain links go by being dropped, and so do those whose pin somebody has removed.
    pub(super) fn let_go(self) -> Result<(), Error> {
        let Self::Pinned(pinned) = self else { return Ok(()) };
        match pinned.unpin() {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file("unpinning", "a link")(error))
            }
            _ => Ok(()),
        }
    }
}

impl Attached {
    /// New connections are nobody's business any more; open ones are seen to their end.
    fn stop_routing(self) -> Result<Self, Error> {
        let Self { inode, links } = self;
        let (routing, links) = links.into_iter().partition(|(name, _)| !WATCHERS.contains(name));
        Self { inode, links: routing }.let_go()?;
        Ok(Self { inode, links })
    }

    fn let_go(self) -> Result<(), Error> {
        self.links.into_iter().map(|(_, link)| link.let_go()).fold(Ok(()), Result::and)
    }
}

/// Links never take `AllowMultiple`: they always stand beside other people's.
fn attach(program: &mut Program, cgroup: &File) -> Result<FdLink, ProgramError> {
    let mode = CgroupAttachMode::Single;
    let link = match program {
        Program::CgroupSockAddr(program) => {
            program.attach(cgroup, mode).and_then(|link| program.take_link(link)).map(FdLink::try_from)
        }
        Program::CgroupSock(program) => {
            program.attach(cgroup, mode).and_then(|link| program.take_link(link)).map(FdLink::try_from)
        }
        Program::SockOps(program) => {
            program.attach(cgroup, mode).and_then(|link| program.take_link(link)).map(FdLink::try_from)
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    // Kernels that have no links are too old for us in other ways.
    link?.map_err(|_| ProgramError::NotAttached)
}

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_UPDATE: libc::c_int = 29;

/// Puts `program` in the place of the one behind a pinned link, without a moment in which there is none. `None`: there is
/// no such link, or its cgroup is gone.
fn replace(program: &Program, pin: &Path) -> io::Result<Option<PinnedLink>> {
    let Some(link) = open(pin)? else { return Ok(None) };
    let program = program.fd().map_err(io::Error::other)?;
    match update(link.as_fd(), program.as_fd()) {
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
            fs::remove_file(pin)?;
            Ok(None)
        }
        Err(error) => Err(error),
        Ok(()) => PinnedLink::from_pin(pin).map(Some).map_err(io::Error::other),
    }
}

fn open(pin: &Path) -> io::Result<Option<OwnedFd>> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    // `union bpf_attr`: the path's address, then two words of zeros.
    let attributes = [path.as_ptr() as u64, 0];
    // SAFETY: the kernel reads these attributes and the path, and gives a new descriptor or -1.
    let status =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, attributes.as_ptr(), size_of_val(&attributes)) };
    match i32::try_from(status) {
        // SAFETY: the descriptor is new, so nobody else owns it.
        Ok(fd @ 0..) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::NotFound => Ok(None),
            error => Err(error),
        },
    }
}

fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // `union bpf_attr`: link, program, flags, and a program that is expected there (not asked for).
    let attributes = [link.as_raw_fd(), program.as_raw_fd(), 0, 0];
    // SAFETY: the kernel reads these attributes.
    let status = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_LINK_UPDATE, attributes.as_ptr(), size_of_val(&attributes))
    };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
