//! Maps that no program reads yet; gone once the programs bring them.

use aya::{
    Ebpf,
    maps::{Array, HashMap as BpfHash, LpmTrie, MapError},
};

use super::{
    error::Error,
    objects::{self, KernelSettings},
    tables::{Opened, Sizes},
};

const NO_PREALLOC: u32 = 1;
const MMAPABLE: u32 = 1 << 10;

pub(super) fn open(capture: &mut Ebpf, settings: &KernelSettings) -> Result<(Opened, Sizes), Error> {
    let sizes = Sizes { workloads: objects::WORKLOADS, listeners: settings.claims, endpoints: 131_072 };
    let failed = |source: MapError| Error::Map { name: "a new map", source };
    let opened = Opened {
        workloads: objects::take(capture, "WORKLOADS")?,
        listeners: BpfHash::create(sizes.listeners, NO_PREALLOC).map_err(failed)?,
        ranges: LpmTrie::create(sizes.listeners, NO_PREALLOC).map_err(failed)?,
        slots: Array::create(4 * sizes.endpoints, MMAPABLE).map_err(failed)?,
        clusters: BpfHash::create(sizes.listeners, NO_PREALLOC).map_err(failed)?,
        endpoints: BpfHash::create(sizes.endpoints, NO_PREALLOC).map_err(failed)?,
        accounts: BpfHash::create(sizes.endpoints, NO_PREALLOC).map_err(failed)?,
        steered: objects::take(capture, "LISTENERS")?,
        steered_ranges: objects::take(capture, "SUBNETS")?,
    };
    Ok((opened, sizes))
}
