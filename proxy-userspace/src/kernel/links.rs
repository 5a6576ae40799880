//! Which cgroups the connect programs are attached to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::linux::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSockAddr,
        cgroup_sock_addr::CgroupSockAddrLink,
        links::{FdLink, PinnedLink},
    },
};

use super::{
    error::Error,
    objects::{self, PROGRAMS},
    pins::PinFolder,
};

/// The links in force, by cgroup.
pub(super) struct Links {
    attached: BTreeMap<PathBuf, Attached>,
    pins: Option<PinFolder>,
}

/// The links of both programs to one cgroup. A cgroup that was removed and made again is another one.
struct Attached {
    inode: u64,
    links: Vec<Held>,
}

enum Held {
    /// Goes with the process.
    Plain { _link: CgroupSockAddrLink },
    /// Stays until it is unpinned.
    Pinned(PinnedLink),
}

impl Links {
    pub(super) fn new(pin: Option<PathBuf>) -> Result<Self, Error> {
        let pins = pin.map(PinFolder::open).transpose()?;
        Ok(Self { attached: BTreeMap::new(), pins })
    }

    /// Attaches what is missing, then lets go what is not wanted, then drops pins of an earlier daemon.
    pub(super) fn set(&mut self, capture: &mut Ebpf, wanted: &BTreeSet<PathBuf>) -> Result<(), Error> {
        for path in wanted {
            self.ensure(capture, path)?;
        }
        let unwanted: Vec<_> = self.attached.keys().filter(|path| !wanted.contains(*path)).cloned().collect();
        for path in unwanted {
            self.attached.remove(&path).map_or(Ok(()), Attached::let_go)?;
        }
        self.pins.as_mut().map_or(Ok(()), PinFolder::drop_leftovers)
    }

    /// Lets everything go, pins and their folder included. What a killed daemon left stays when nothing of ours ever
    /// took its place: a start that failed must not let pass what was refused before.
    pub(super) fn close(mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
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
        let mut fresh = Attached { inode, links: Vec::new() };
        for name in PROGRAMS {
            match self.hold(capture, name, path, &cgroup) {
                Ok(link) => fresh.links.push(link),
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
    ) -> Result<Held, Error> {
        let link = attach(capture, name, path, cgroup)?;
        match &mut self.pins {
            None => Ok(Held::Plain { _link: link }),
            Some(pins) => pin(pins, name, link).map(Held::Pinned),
        }
    }
}

impl Attached {
    /// Plain links go by being dropped, and so do those whose pin somebody has removed.
    fn let_go(self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for link in self.links {
            let Held::Pinned(pinned) = link else { continue };
            match pinned.unpin() {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    outcome = outcome.and(Err(Error::file("unpinning", "a link")(error)));
                }
                _ => {}
            }
        }
        outcome
    }
}

/// Links never take `AllowMultiple`: they always stand beside other people's.
fn attach(
    capture: &mut Ebpf,
    name: &'static str,
    path: &Path,
    cgroup: &File,
) -> Result<CgroupSockAddrLink, Error> {
    let program: &mut CgroupSockAddr = objects::program(capture, name)?;
    let link = program.attach(cgroup, CgroupAttachMode::Single).and_then(|link| program.take_link(link));
    link.map_err(|source| Error::Program { doing: format!("attaching to {}:", path.display()), name, source })
}

fn pin(pins: &mut PinFolder, name: &'static str, link: CgroupSockAddrLink) -> Result<PinnedLink, Error> {
    let path = pins.fresh(name);
    let failed = |text: String| Error::File {
        doing: "pinning a link at",
        path: path.clone(),
        source: io::Error::other(text),
    };
    let link = FdLink::try_from(link).map_err(|error| failed(error.to_string()))?;
    link.pin(&path).map_err(|error| failed(error.to_string()))
}
