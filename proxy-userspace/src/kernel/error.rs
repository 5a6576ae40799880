//! Why the kernel does not do what it was asked.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError, sys::SyscallError};
use nix::libc;

use super::tables::About;
use crate::cause::chain;

/// What failed, and what holds meanwhile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An object did not load.
    #[error("loading the kernel programs `{object}`: {source}")]
    Load {
        /// `capture`, `deliver` or `guard`.
        object: &'static str,
        /// The kernel's or the loader's words.
        source: EbpfError,
    },
    /// A program did not load or attach.
    #[error("{doing} {name}: {}", chain(source))]
    Program {
        /// `loading` or `attaching`, and where to.
        doing: String,
        /// The program.
        name: &'static str,
        /// The kernel's words.
        source: ProgramError,
    },
    /// An embedded object lacks something: it does not belong to this binary.
    #[error("the embedded kernel programs have no `{0}`: build the binary again")]
    Missing(&'static str),
    /// A map has no room.
    #[error("eBPF map {name} is full at {size} entries, {flag} helps; what was in force before still is")]
    Full {
        /// The map.
        name: &'static str,
        /// Its size.
        size: u32,
        /// The setting that makes it larger.
        flag: &'static str,
    },
    /// A map could not be read or written.
    #[error("eBPF map {name}: {}; what was in force before still is", chain(source))]
    Map {
        /// The map.
        name: &'static str,
        /// The kernel's words.
        source: MapError,
    },
    /// A file or a file system did not do what was asked.
    #[error("{doing} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// An interface is gone.
    #[error("no interface has the number {0} any more")]
    NoInterface(u32),
    /// A program needs a newer kernel than others do.
    #[error("{0} needs Linux {1}.{2} or newer")]
    Kernel(&'static str, u32, u32),
    /// Sharing maps between the programs.
    #[error("sharing maps between the kernel programs: {0}")]
    Share(String),
    /// The programs' messages cannot be read.
    #[error("reading the messages of the kernel programs: {0}")]
    Log(String),
}

impl Error {
    /// A failed write to a map: no room has a name of its own.
    pub(super) fn write(about: &About, source: MapError) -> Self {
        // Hash tables say E2BIG, tries ENOSPC.
        match &source {
            MapError::SyscallError(SyscallError { io_error, .. })
                if matches!(io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) =>
            {
                about.full()
            }
            _ => Self::Map { name: about.name, source },
        }
    }

    /// For `map_err` on file operations.
    pub(super) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }
}
