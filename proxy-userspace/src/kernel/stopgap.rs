//! Maps that no program reads yet, pinned where pins are asked for; gone once the programs bring them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap as BpfHash, IterableMap as _, LpmTrie, Map, MapData, MapError, RingBuf},
};
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
    let sizes = Sizes {
        workloads: objects::WORKLOADS,
        listeners: settings.claims,
        endpoints: settings.endpoints,
    };
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
    let events = RingBuf::create(1 << 20, 0).map_err(failed)?;
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

fn failed(source: MapError) -> Error {
    Error::Map { name: "a new map", source }
}
