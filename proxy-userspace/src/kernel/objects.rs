//! The embedded objects, and the maps that several of them use.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap as BpfHash, IterableMap as _, LpmTrie, Map, MapData, MapError},
    pin::PinError,
    programs::{Program, ProgramError},
};
use proxy_common::{Destination, Subnet, direct::LAYOUT};

use super::{
    error::Error,
    log::LogLevel,
    pins,
    tables::{Opened, Sizes},
};

static CAPTURE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture"));
static GUARD: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard"));
static DELIVER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/deliver"));

/// Workloads that one daemon can look after.
pub(super) const WORKLOADS: u32 = 4096;
/// The programs of `capture`, in the order in which they are attached: whoever counts is there before anything is
/// counted. They are detached the other way round.
pub(super) const PROGRAMS: [&str; 10] = [
    "getpeername4",
    "getpeername6",
    "sock_release",
    "sock_ops",
    "sock_create",
    "sendmsg4",
    "sendmsg6",
    MARKING,
    "connect4",
    "connect6",
];
/// Those that see connections end: they stay until the last has.
pub(super) const WATCHERS: [&str; 4] = ["getpeername4", "getpeername6", "sock_release", "sock_ops"];
/// It goes with the daemon in any case: sockets that it marked ask the daemon for names.
pub(super) const MARKING: &str = "mark_datagrams";
/// The maps that outlive a daemon where pins are asked for. What is only counted, or told, begins anew.
const PINNED: [&str; 11] = [
    "WORKLOADS",
    "LISTENERS",
    "RANGES",
    "OWN",
    "WAYS",
    "SLOTS",
    "CLUSTERS",
    "ENDPOINTS",
    "ACCOUNTS",
    "TRACKED",
    "LEASE",
];
/// The maps of steered destinations, which `deliver` asks: one for all namespaces.
const STEERED: &str = "STEERED";
const STEERED_RANGES: &str = "STEERED_RANGES";
/// The maps of `capture` that `guard` has too.
const WATCHED: [&str; 4] = ["WAYS", "EVENTS", "COUNTERS", "OURS"];
const NO_PREALLOC: u32 = 1;

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
    /// How long direct listeners may be used without a word from the daemon; 0: for ever.
    pub lease: Duration,
    /// Of a hundred direct connections, how many are written to the access log.
    pub direct_log_percent: u8,
    /// Folder that becomes a bpffs where links are pinned, for workloads whose connects must not pass while no daemon runs.
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
    pub(super) fn sizes(&self) -> Sizes {
        Sizes { workloads: WORKLOADS, listeners: self.claims, endpoints: self.endpoints }
    }

    /// The folder of pins that a daemon with these settings can take over: of the same types and sizes.
    pub(super) fn layout(&self) -> String {
        format!("v{LAYOUT}-{}-{}", self.claims, self.endpoints)
    }

    /// Up to which of all 32-bit draws a connection is logged.
    fn log_threshold(&self) -> u32 {
        let share = u64::from(u32::MAX) * u64::from(self.direct_log_percent.min(100)) / 100;
        u32::try_from(share).unwrap_or(u32::MAX)
    }
}

/// Loads `capture` and has its programs verified. `pins` is the folder where maps are found again, or left.
pub(super) fn load_capture(settings: &KernelSettings, pins: Option<&Path>) -> Result<Ebpf, Error> {
    let level = settings.log as u8;
    let log_threshold = settings.log_threshold();
    let sizes = settings.sizes();
    let mut loader = EbpfLoader::new();
    loader
        .override_global("OWN_CGROUP", &settings.own_cgroup, true)
        .override_global("MARK", &settings.mark, true)
        .override_global("DIRECT_LOG", &log_threshold, true)
        .override_global("AYA_LOG_LEVEL", &level, true)
        .map_max_entries("WORKLOADS", sizes.workloads)
        .map_max_entries("LISTENERS", sizes.listeners)
        .map_max_entries("RANGES", sizes.listeners)
        .map_max_entries("OWN", sizes.own())
        .map_max_entries("WAYS", sizes.ways())
        .map_max_entries("SLOTS", sizes.slots())
        .map_max_entries("CLUSTERS", sizes.listeners)
        .map_max_entries("ENDPOINTS", sizes.endpoints)
        .map_max_entries("ACCOUNTS", sizes.endpoints);
    if let Some(pins) = pins {
        for name in PINNED {
            loader.map_pin_path(name, pins.join(name));
        }
    }
    let mut capture = loader.load(CAPTURE).map_err(|source| Error::Load { object: "capture", source })?;
    for name in PROGRAMS {
        let loaded = match capture.program_mut(name).ok_or(Error::Missing(name))? {
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            Program::SockOps(program) => program.load(),
            _ => return Err(Error::Missing(name)),
        };
        loaded.map_err(|source| Error::Program { doing: "loading".into(), name, source })?;
    }
    Ok(capture)
}

/// The maps that the daemon writes.
pub(super) fn open(capture: &mut Ebpf, shared: &mut SharedMaps) -> Result<Opened, Error> {
    Ok(Opened {
        workloads: take(capture, "WORKLOADS")?,
        listeners: take(capture, "LISTENERS")?,
        ranges: take(capture, "RANGES")?,
        own: take(capture, "OWN")?,
        ways: take(capture, "WAYS")?,
        slots: take(capture, "SLOTS")?,
        clusters: take(capture, "CLUSTERS")?,
        endpoints: take(capture, "ENDPOINTS")?,
        accounts: take(capture, "ACCOUNTS")?,
        steered: shared.steered.take().ok_or(Error::Missing(STEERED))?,
        steered_ranges: shared.steered_ranges.take().ok_or(Error::Missing(STEERED_RANGES))?,
    })
}

/// The socket storage `name` of an object.
pub(super) fn map_descriptor<'a>(object: &'a Ebpf, name: &'static str) -> Result<BorrowedFd<'a>, Error> {
    match object.map(name) {
        Some(Map::SkStorage(map)) => Ok(map.fd().as_fd()),
        _ => Err(Error::Missing(name)),
    }
}

/// The program `name` of an object.
pub(super) fn program<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, Error>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
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

/// The maps of steered destinations, and those of `capture` that `guard` has too, for objects that are loaded later. They are pinned in a bpffs that is mounted
/// nowhere: only this process sees it, and it goes when the descriptor is closed.
pub(super) struct SharedMaps {
    _mount: OwnedFd,
    /// One for all objects: making a loader reads the kernel's type descriptions, which takes longer than all else
    /// and which none of our programs needs.
    loader: EbpfLoader<'static>,
    /// Until the tables take them.
    steered: Option<BpfHash<MapData, Destination, u32>>,
    steered_ranges: Option<LpmTrie<MapData, Subnet, u32>>,
}

impl SharedMaps {
    pub(super) fn make(size: u32, capture: &Ebpf) -> Result<Self, Error> {
        let mount = pins::detached_bpffs().map_err(|error| Error::Share(error.to_string()))?;
        let failed = |name| move |source| Error::Map { name, source };
        let steered = BpfHash::create(size, NO_PREALLOC).map_err(failed(STEERED))?;
        let steered_ranges = LpmTrie::create(size, NO_PREALLOC).map_err(failed(STEERED_RANGES))?;
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        let mut share = |name: &'static str, pin: &dyn Fn(&Path) -> Result<(), PinError>| {
            let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", mount.as_raw_fd()));
            pin(&path).map_err(|error| Error::Share(error.to_string()))?;
            loader.map_pin_path(name, path);
            Ok(())
        };
        share(STEERED, &|path| steered.map().pin(path))?;
        share(STEERED_RANGES, &|path| steered_ranges.map().pin(path))?;
        for name in WATCHED {
            let map = capture.map(name).ok_or(Error::Missing(name))?;
            share(name, &|path| map.pin(path))?;
        }
        Ok(Self { _mount: mount, loader, steered: Some(steered), steered_ranges: Some(steered_ranges) })
    }

    /// Loads `deliver` on these maps.
    pub(super) fn load_deliver(&mut self) -> Result<Ebpf, Error> {
        self.loader.load(DELIVER).map_err(|source| Error::Load { object: "deliver", source })
    }

    /// Loads `guard` on `capture`'s.
    pub(super) fn load_guard(&mut self) -> Result<Ebpf, Error> {
        self.loader.load(GUARD).map_err(|source| Error::Load { object: "guard", source })
    }
}
