//! Maps that no program reads yet, pinned where pins are asked for; gone once the programs bring them.

use std::{
    fs,
    os::fd::{FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap as BpfHash, IterableMap as _, LpmTrie, Map, MapData, MapError, RingBuf},
};
use nix::libc;
use proxy_common::direct::LAYOUT;

use super::{
    error::Error,
    objects::{self, KernelSettings},
    pins::PinFolder,
    tables::{Opened, Sizes},
};

const NO_PREALLOC: u32 = 1;
const MMAPABLE: u32 = 1 << 10;

struct Maker(Option<PathBuf>);

pub(super) struct Made {
    pub(super) opened: Opened,
    pub(super) sizes: Sizes,
    pub(super) lease: Array<MapData, u64>,
    pub(super) events: RingBuf<MapData>,
}

pub(super) fn open(capture: &mut Ebpf, settings: &KernelSettings) -> Result<Made, Error> {
    let sizes =
        Sizes { workloads: objects::WORKLOADS, listeners: settings.claims, endpoints: settings.endpoints };
    if let Some(pin) = &settings.pin {
        PinFolder::open(pin.clone())?;
    }
    let folder = settings.pin.as_ref().map(|pin| pin.join(format!("v{LAYOUT}")));
    if let Some(folder) = &folder {
        fs::create_dir_all(folder).map_err(Error::file("making the pin folder", folder))?;
    }
    let maker = Maker(folder);
    let opened = Opened {
        workloads: objects::take(capture, "WORKLOADS")?,
        listeners: maker.hash("LISTENERS", sizes.listeners)?,
        ranges: maker.trie("RANGES", sizes.listeners)?,
        slots: maker.array("SLOTS", sizes.slots(), MMAPABLE)?,
        clusters: maker.hash("CLUSTERS", sizes.listeners)?,
        endpoints: maker.hash("ENDPOINTS", sizes.endpoints)?,
        accounts: maker.hash("ACCOUNTS", sizes.endpoints)?,
        steered: objects::take(capture, "LISTENERS")?,
        steered_ranges: objects::take(capture, "SUBNETS")?,
    };
    let lease = maker.array("LEASE", 1, 0)?;
    let events = ring(1 << 20)?;
    Ok(Made { opened, sizes, lease, events })
}

impl Maker {
    fn hash<K: Pod, V: Pod>(&self, name: &str, size: u32) -> Result<BpfHash<MapData, K, V>, Error> {
        match self.pinned(name)? {
            Some(map) => map.try_into().map_err(failed),
            None => {
                let map = BpfHash::create(size, NO_PREALLOC).map_err(failed)?;
                self.pin(name, map.map())?;
                Ok(map)
            }
        }
    }

    fn trie<K: Pod, V: Pod>(&self, name: &str, size: u32) -> Result<LpmTrie<MapData, K, V>, Error> {
        match self.pinned(name)? {
            Some(map) => map.try_into().map_err(failed),
            None => {
                let map = LpmTrie::create(size, NO_PREALLOC).map_err(failed)?;
                self.pin(name, map.map())?;
                Ok(map)
            }
        }
    }

    fn array<V: Pod>(&self, name: &str, size: u32, flags: u32) -> Result<Array<MapData, V>, Error> {
        match self.pinned(name)? {
            Some(map) => map.try_into().map_err(failed),
            None => {
                let map = Array::create(size, flags).map_err(failed)?;
                self.pin(name, map.map())?;
                Ok(map)
            }
        }
    }

    fn pinned(&self, name: &str) -> Result<Option<Map>, Error> {
        let Some(path) = self.0.as_ref().map(|folder| folder.join(name)).filter(|path| path.exists()) else {
            return Ok(None);
        };
        let data = MapData::from_pin(path).map_err(failed)?;
        Map::from_map_data(data).map(Some).map_err(failed)
    }

    fn pin(&self, name: &str, map: &MapData) -> Result<(), Error> {
        let Some(path) = self.0.as_deref().map(|folder: &Path| folder.join(name)) else { return Ok(()) };
        map.pin(path).map_err(|error| Error::Share(error.to_string()))
    }
}

fn ring(size: u32) -> Result<RingBuf<MapData>, Error> {
    // Type, sizes of key and value, entries; the rest of the attributes is zero.
    let attributes = [27_u32, 0, 0, size];
    // SAFETY: the kernel reads these attributes and gives a new descriptor or -1.
    let status = unsafe { libc::syscall(libc::SYS_bpf, 0, attributes.as_ptr(), size_of_val(&attributes)) };
    if status < 0 {
        return Err(Error::file("making the map", "EVENTS")(std::io::Error::last_os_error()));
    }
    // SAFETY: new, and nobody else's.
    let map = unsafe { OwnedFd::from_raw_fd(status as i32) };
    Map::from_map_data(MapData::from_fd(map).map_err(failed)?).and_then(RingBuf::try_from).map_err(failed)
}

fn failed(source: MapError) -> Error {
    Error::Map { name: "a new map", source }
}
