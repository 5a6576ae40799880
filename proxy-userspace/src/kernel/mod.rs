//! The eBPF programs: loaded, attached, told which workloads and destinations to look after.
//!
//! The only room that knows aya. It opens no socket and no namespace: descriptors and cookies come as arguments.
//! Everything it puts into the kernel goes with the process, unless the failure policy asks for pins.

mod antichain;
mod claims;
mod deliver;
mod error;
mod foreign;
mod links;
mod log;
mod objects;
mod pins;
mod preflight;
mod stub;
pub use stub::{EndpointOf, Fill};

use std::{
    collections::{BTreeSet, HashMap},
    os::fd::BorrowedFd,
    path::PathBuf,
};

use aya::{
    Ebpf,
    maps::{HashMap as BpfHash, MapData, PerCpuArray},
};
use proxy_common::{Counter, Workload};
use proxy_traffic::Snapshot;

use self::{claims::Claims, deliver::Delivery, links::Links, log::LogReader, objects::SharedMaps};
pub use self::{
    claims::Synced,
    error::Error,
    foreign::Foreign,
    log::LogLevel,
    objects::KernelSettings,
    pins::drop_stale_pins,
    preflight::{Facts, Unfit, preflight},
};

/// The loaded programs. Dropping it detaches everything but pins; [`Kernel::close`] removes those too.
pub struct Kernel {
    capture: Ebpf,
    workloads: BpfHash<MapData, u64, Workload>,
    counters: PerCpuArray<MapData, u64>,
    claims: Claims,
    links: Links,
    deliveries: HashMap<u64, Delivery>,
    shared: SharedMaps,
    _log: Option<LogReader>,
}

impl Kernel {
    /// Loads `capture` and creates the maps. Nothing is attached yet, so nothing changes for anybody.
    ///
    /// # Errors
    /// When the kernel refuses a map or a program.
    pub fn load(settings: &KernelSettings) -> Result<Self, Error> {
        let mut capture = objects::load_capture(settings)?;
        let shared = SharedMaps::share(&capture)?;
        let workloads = objects::take(&mut capture, "WORKLOADS")?;
        let counters = objects::take(&mut capture, "COUNTERS")?;
        let claims = Claims::new(
            objects::take(&mut capture, "LISTENERS")?,
            objects::take(&mut capture, "SUBNETS")?,
            settings.claims,
        );
        let log = LogReader::start(&mut capture, settings.log)?;
        let links = Links::new(settings.pin.clone())?;
        Ok(Self {
            capture,
            workloads,
            counters,
            claims,
            links,
            deliveries: HashMap::new(),
            shared,
            _log: log,
        })
    }

    /// Attaches to the fewest cgroups that cover `cgroups`; those that are no longer wanted are let go afterwards.
    /// Pins of a daemon that is gone are dropped once the new ones are in place, so sync and enroll first: until then
    /// the old programs go on refusing, and from then on the new ones know their workloads.
    ///
    /// # Errors
    /// When a folder is no cgroup2, or the kernel refuses. What was attached before stays.
    pub fn attach(&mut self, cgroups: &BTreeSet<PathBuf>) -> Result<(), Error> {
        self.links.set(&mut self.capture, &antichain::cover(cgroups))
    }

    /// Looks after the namespace `netns` from now on: first its packets find the listeners, then its connects are
    /// captured. A cookie that is known already is replaced without a gap.
    ///
    /// # Errors
    /// When the kernel refuses; the namespace is then as it was before.
    pub fn enroll(
        &mut self,
        netns: BorrowedFd<'_>,
        cookie: u64,
        workload: Workload,
        v4: BorrowedFd<'_>,
        v6: Option<BorrowedFd<'_>>,
    ) -> Result<(), Error> {
        let delivery = Delivery::attach(&mut self.shared, netns, v4, v6)?;
        self.workloads
            .insert(cookie, workload, 0)
            .map_err(|error| Error::write("WORKLOADS", objects::WORKLOADS, error))?;
        self.deliveries.insert(cookie, delivery);
        Ok(())
    }

    /// Leaves a namespace alone from now on; one that is not known is no error. Connections that exist live on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unenroll(&mut self, cookie: u64) -> Result<(), Error> {
        if self.deliveries.contains_key(&cookie) {
            self.workloads
                .remove(&cookie)
                .map_err(|error| Error::write("WORKLOADS", objects::WORKLOADS, error))?;
            self.deliveries.remove(&cookie);
        }
        Ok(())
    }

    /// Makes the claimed destinations those of `snapshot`: what is new goes in before what is gone comes out, and
    /// what is the same is not touched.
    ///
    /// # Errors
    /// When a map is full or the kernel refuses; what was claimed before is then still in force.
    pub fn sync(&mut self, snapshot: &Snapshot) -> Result<Synced, Error> {
        self.claims.sync(snapshot)
    }

    /// What the programs counted since they were loaded, by the names of [`Counter::ALL`].
    ///
    /// # Errors
    /// When the kernel refuses to read the map.
    pub fn counters(&self) -> Result<[(&'static str, u64); Counter::ALL.len()], Error> {
        let mut totals = Counter::ALL.map(|(_, name)| (name, 0));
        for ((counter, _), total) in Counter::ALL.into_iter().zip(&mut totals) {
            let cells = self
                .counters
                .get(&(counter as u32), 0)
                .map_err(|source| Error::Map { name: "COUNTERS", source })?;
            total.1 = cells.iter().sum();
        }
        Ok(totals)
    }

    /// Ends on purpose: pins go too, so that no connect is refused for want of a daemon that was told to stop.
    ///
    /// # Errors
    /// When a pin cannot be removed; everything else is detached all the same.
    pub fn close(self) -> Result<(), Error> {
        self.links.close()
    }
}
