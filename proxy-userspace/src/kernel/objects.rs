//! The two embedded objects, and the maps that both use.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapError},
    programs::{self, ProgramError, ProgramFd},
};
use proxy_common::Counter;

use super::{
    error::Error,
    log::LogLevel,
    pins::{self, PinFolder},
};

static CAPTURE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture"));
static DELIVER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/deliver"));

/// Workloads that one daemon can look after.
pub(super) const WORKLOADS: u32 = 4096;
/// Room for some ten thousand records of connections.
const EVENT_BYTES: u32 = 1 << 20;
/// The maps that say what is steered for somebody, which all objects share.
const SHARED: [&str; 2] = ["STEERED", "STEERED_RANGES"];
/// Slots for each endpoint that there is room for: its cluster's, and as many again while they are written anew.
const SLOTS_EACH: u32 = 4;

/// A program of `capture`, and the hook of a cgroup that it goes on (`enum bpf_attach_type`).
#[derive(Clone, Copy)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) hook: u32,
}

/// In the order in which they are attached: who routes comes when everybody is there to see what becomes of it.
pub(super) const PROGRAMS: [Program; 6] = [
    Program { name: "getpeername4", hook: 29 },
    Program { name: "getpeername6", hook: 30 },
    Program { name: "sock_release", hook: 34 },
    Program { name: "sock_event", hook: 3 },
    Program { name: "connect4", hook: 10 },
    Program { name: "connect6", hook: 11 },
];

/// What the programs are told once, at load.
#[derive(Clone, Debug)]
pub struct KernelSettings {
    /// Id of the daemon's own cgroup, whose tasks are never captured.
    pub own_cgroup: u64,
    /// Firewall mark of steered sockets; not 0.
    pub mark: u32,
    /// Exact destinations, and ranges of them, that can be claimed.
    pub claims: u32,
    /// Endpoints that the tables have room for.
    pub endpoints: u32,
    /// Share of direct connections that are told of one by one, of `u32::MAX`; 0: none.
    pub direct_log: u32,
    /// How long direct listeners may be used without a word from the daemon; 0: for ever.
    pub lease: Duration,
    /// Folder that becomes a bpffs where maps and links are pinned: what they say then outlives the daemon.
    pub pin: Option<PathBuf>,
    /// Messages of the programs; off costs nothing.
    pub log: LogLevel,
}

impl KernelSettings {
    /// Destinations that can be claimed unless somebody says otherwise.
    pub const CLAIMS: u32 = 65_536;
    /// Endpoints that there is room for unless somebody says otherwise.
    pub const ENDPOINTS: u32 = 131_072;
}

impl KernelSettings {
    /// How large each map is that a setting decides on, and all that are pinned, by name.
    pub(super) fn sizes(&self) -> BTreeMap<&'static str, u32> {
        BTreeMap::from([
            ("WORKLOADS", WORKLOADS),
            ("LISTENERS", self.claims),
            ("RANGES", self.claims),
            ("CLUSTERS", self.claims),
            ("STEERED", self.claims),
            ("STEERED_RANGES", self.claims),
            ("ENDPOINTS", self.endpoints),
            ("ACCOUNTS", self.endpoints),
            ("SLOTS", self.endpoints.saturating_mul(SLOTS_EACH)),
            ("TRACKED", 0),
            ("EVENTS", EVENT_BYTES),
            ("LEASE", 1),
            ("COUNTERS", Counter::ALL.len() as u32),
        ])
    }
}

/// Loads `capture` and has its programs verified. Its maps are those pinned in `pins`, which are made there if need be.
pub(super) fn load_capture(settings: &KernelSettings, pins: Option<&PinFolder>) -> Result<Ebpf, Error> {
    let level = settings.log as u8;
    let mut loader = EbpfLoader::new();
    loader
        .override_global("OWN_CGROUP", &settings.own_cgroup, true)
        .override_global("MARK", &settings.mark, true)
        .override_global("DIRECT_LOG", &settings.direct_log, true)
        .override_global("AYA_LOG_LEVEL", &level, true);
    for (name, size) in settings.sizes() {
        if size != 0 {
            loader.map_max_entries(name, size);
        }
        if let Some(pins) = pins {
            loader.map_pin_path(name, pins.map(name));
        }
    }
    let mut capture = loader.load(CAPTURE).map_err(|source| Error::Load { object: "capture", source })?;
    for program in PROGRAMS {
        load(&mut capture, program.name)?;
    }
    Ok(capture)
}

/// Has a program of `capture` verified.
fn load(capture: &mut Ebpf, name: &'static str) -> Result<(), Error> {
    let loaded = match capture.program_mut(name) {
        Some(programs::Program::CgroupSockAddr(program)) => program.load(),
        Some(programs::Program::CgroupSock(program)) => program.load(),
        Some(programs::Program::SockOps(program)) => program.load(),
        _ => return Err(Error::Missing(name)),
    };
    loaded.map_err(|source| Error::Program { doing: "loading".into(), name, source })
}

/// A loaded program of `capture`.
pub(super) fn descriptor<'a>(capture: &'a Ebpf, name: &str) -> io::Result<BorrowedFd<'a>> {
    let program = match capture.program(name) {
        Some(programs::Program::CgroupSockAddr(program)) => program.fd(),
        Some(programs::Program::CgroupSock(program)) => program.fd(),
        Some(programs::Program::SockOps(program)) => program.fd(),
        _ => return Err(io::ErrorKind::NotFound.into()),
    };
    program.map(ProgramFd::as_fd).map_err(io::Error::other)
}

/// The program `name` of an object.
pub(super) fn program<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, Error>
where
    &'a mut P: TryFrom<&'a mut programs::Program, Error = ProgramError>,
{
    let program = object.program_mut(name).ok_or(Error::Missing(name))?;
    program.try_into().map_err(|source| Error::Program { doing: "looking at".into(), name, source })
}

/// The map `name` of an object, as its type.
pub(super) fn take<M>(object: &mut Ebpf, name: &'static str) -> Result<M, Error>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = object.take_map(name).ok_or(Error::Missing(name))?;
    map.try_into().map_err(|source| Error::Map { name, source })
}

/// The socket storage `name` of an object.
pub(super) fn map_descriptor<'a>(object: &'a Ebpf, name: &'static str) -> Result<BorrowedFd<'a>, Error> {
    match object.map(name) {
        Some(Map::SkStorage(map)) => Ok(map.fd().as_fd()),
        _ => Err(Error::Missing(name)),
    }
}

/// The maps of claimed destinations, for objects that are loaded later. They are pinned in a bpffs that is mounted
/// nowhere: only this process sees it, and it goes when the descriptor is closed.
pub(super) struct SharedMaps {
    _mount: OwnedFd,
    /// One for all objects: making a loader reads the kernel's type descriptions, which takes longer than all else
    /// and which none of our programs needs.
    loader: EbpfLoader<'static>,
}

impl SharedMaps {
    pub(super) fn share(capture: &Ebpf) -> Result<Self, Error> {
        let mount = pins::detached_bpffs().map_err(|error| Error::Share(error.to_string()))?;
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        for name in SHARED {
            let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", mount.as_raw_fd()));
            let map = capture.map(name).ok_or(Error::Missing(name))?;
            map.pin(&path).map_err(|error| Error::Share(error.to_string()))?;
            loader.map_pin_path(name, path);
        }
        Ok(Self { _mount: mount, loader })
    }

    /// Loads `deliver` on these maps.
    pub(super) fn load_deliver(&mut self) -> Result<Ebpf, Error> {
        self.loader.load(DELIVER).map_err(|source| Error::Load { object: "deliver", source })
    }
}
