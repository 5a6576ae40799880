//! The two embedded objects, and the maps that both use.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapError},
    programs::{CgroupSockAddr, Program, ProgramError},
};

use super::{error::Error, log::LogLevel, pins};

static CAPTURE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture"));
static DELIVER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/deliver"));

/// Workloads that one daemon can look after.
pub(super) const WORKLOADS: u32 = 4096;
/// The maps of claimed destinations, which `capture` and `deliver` share.
const SHARED: [&str; 2] = ["LISTENERS", "SUBNETS"];
/// The programs of `capture`.
pub(super) const PROGRAMS: [&str; 2] = ["connect4", "connect6"];

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

/// Loads `capture` and has its programs verified.
pub(super) fn load_capture(settings: &KernelSettings) -> Result<Ebpf, Error> {
    let level = settings.log as u8;
    let mut capture = EbpfLoader::new()
        .override_global("OWN_CGROUP", &settings.own_cgroup, true)
        .override_global("MARK", &settings.mark, true)
        .override_global("AYA_LOG_LEVEL", &level, true)
        .map_max_entries("WORKLOADS", WORKLOADS)
        .map_max_entries("LISTENERS", settings.claims)
        .map_max_entries("SUBNETS", settings.claims)
        .load(CAPTURE)
        .map_err(|source| Error::Load { object: "capture", source })?;
    for name in PROGRAMS {
        let program: &mut CgroupSockAddr = program(&mut capture, name)?;
        program.load().map_err(|source| Error::Program { doing: "loading".into(), name, source })?;
    }
    Ok(capture)
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
