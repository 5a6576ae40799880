//! The eBPF programs: loaded, attached, told which workloads and destinations to look after.
//!
//! The only room that knows aya. It opens no socket and no namespace: descriptors and cookies come as arguments.
//! Everything it puts into the kernel goes with the process, unless the failure policy asks for pins.

mod accounts;
mod antichain;
mod deliver;
mod diagnose;
mod error;
mod events;
mod foreign;
mod guard;
mod lease;
mod links;
mod log;
mod objects;
mod pins;
mod preflight;
mod tables;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use proxy_common::{
    Counter, Egress,
    direct::{Account, AccountKey, Event},
};
use proxy_traffic::{Cluster, Snapshot, Workload};

use self::{
    deliver::Delivery,
    events::Events,
    guard::{Guards, Wanted},
    lease::Lease,
    links::Links,
    log::LogReader,
    objects::SharedMaps,
    pins::PinFolder,
    tables::Tables,
};
pub use self::{
    deliver::Doors,
    diagnose::Found,
    error::Error,
    foreign::Foreign,
    guard::{Guarded, Outside},
    log::LogLevel,
    objects::KernelSettings,
    pins::drop_stale_pins,
    preflight::{Facts, Unfit, preflight},
    tables::{EndpointOf, Fill, Synced},
};

/// The loaded programs. Dropping it detaches everything but pins; [`Kernel::close`] removes those too.
pub struct Kernel {
    capture: Ebpf,
    counters: PerCpuArray<MapData, u64>,
    tables: Tables,
    lease: Lease,
    events: Events,
    links: Links,
    deliveries: HashMap<u64, Delivery>,
    guards: Guards,
    shared: SharedMaps,
    _log: Option<LogReader>,
}

impl Kernel {
    /// Loads `capture` and creates the maps. Nothing is attached yet, so nothing changes for anybody.
    ///
    /// # Errors
    /// When the kernel refuses a map or a program.
    pub fn load(settings: &KernelSettings) -> Result<Self, Error> {
        let pins = settings.pin.clone().map(|path| PinFolder::open(path, &settings.layout())).transpose()?;
        let mut capture = objects::load_capture(settings, pins.as_ref().map(PinFolder::layout))?;
        let mut shared = SharedMaps::make(settings.claims, &capture)?;
        let counters = objects::take(&mut capture, "COUNTERS")?;
        let opened = objects::open(&mut capture, &mut shared)?;
        let mut tables = Tables::open(opened, settings.sizes(), Instant::now())?;
        // What an earlier daemon's guards let pass they go on to.
        tables.guard_packets(pins.as_ref().is_some_and(PinFolder::has_old_guards))?;
        let mut lease = Lease::new(objects::take(&mut capture, "LEASE")?, settings.lease);
        lease.renew()?;
        let events = Events::new(objects::take(&mut capture, "EVENTS")?);
        let log = LogReader::start(&mut capture, settings.log)?;
        let links = Links::new(pins);
        Ok(Self {
            capture,
            counters,
            tables,
            lease,
            events,
            links,
            deliveries: HashMap::new(),
            guards: Guards::default(),
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
        self.links.set(&mut self.capture, &antichain::cover(cgroups))?;
        self.stand_guard()?;
        self.tables.settle(Instant::now())
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
        entry: proxy_common::Workload,
        workload: Arc<Workload>,
        doors: &Doors<'_>,
    ) -> Result<(), Error> {
        let mut delivery = Delivery::attach(&mut self.shared, netns, doors)?;
        delivery.set_home(&self.tables.own(cookie))?;
        delivery.steer_all(self.tables.policy(&workload) == Egress::Close)?;
        self.tables.enroll(cookie, entry, &workload, Instant::now())?;
        self.deliveries.insert(cookie, delivery);
        self.stand_guard()
    }

    /// Says where everything comes out that leaves the namespace `cookie`, seen from the calling thread's; `None`: there is no one
    /// such place. Where its policy asks for it, packets are looked at there from now on; that this cannot be is no error, see
    /// [`Self::guarded`]. To be said again when interfaces may have changed, and best before [`Self::attach`].
    ///
    /// # Errors
    /// When a table is full or the kernel refuses to let go of another place.
    pub fn guard(&mut self, cookie: u64, outside: Option<Outside>) -> Result<(), Error> {
        self.guards.know(cookie, outside);
        self.stand_guard()
    }

    /// Whether packets of the namespace `cookie` are looked at where they leave it.
    #[must_use]
    pub fn guarded(&self, cookie: u64) -> Guarded {
        match self.tables.guarding(cookie) {
            Some(_) => self.guards.state(cookie),
            None => Guarded::NotNeeded,
        }
    }

    /// Puts guards where policies ask for them. What they let pass is known before the first stands, and until the last is gone.
    fn stand_guard(&mut self) -> Result<(), Error> {
        let wanted = self.guards.known().filter_map(|(cookie, outside)| {
            let outlives = self.tables.guarding(cookie)?;
            Some((cookie, Wanted { outside, outlives }))
        });
        let wanted: BTreeMap<_, _> = wanted.collect();
        if !wanted.is_empty() {
            self.tables.guard_packets(true)?;
        }
        let outcome = self.guards.set(&wanted, &mut self.shared, self.links.pins());
        let others = self.links.pins().is_some_and(|pins| pins.has_old_guards());
        if self.guards.is_idle() && !others {
            self.tables.guard_packets(false)?;
        }
        outcome
    }

    /// Makes `addresses` those that never leave the namespace `cookie`: no policy is about them. Best before it is enrolled; costs
    /// nothing while they stay the same.
    ///
    /// # Errors
    /// When the table is full or the kernel refuses.
    pub fn set_own(&mut self, cookie: u64, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        self.tables.set_own(cookie, addresses)?;
        self.deliveries.get_mut(&cookie).map_or(Ok(()), |delivery| delivery.set_home(addresses))
    }

    /// Leaves a namespace alone from now on; one that is not known is no error. Connections that exist live on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unenroll(&mut self, cookie: u64) -> Result<(), Error> {
        self.tables.unenroll(cookie, Instant::now())?;
        self.deliveries.remove(&cookie);
        self.guard(cookie, None)
    }

    /// Makes the tables those of `snapshot`: what is new goes in before what is gone comes out, and what is the same is
    /// not touched.
    ///
    /// # Errors
    /// When a table is full or the kernel refuses; what was in force before then still is.
    pub fn sync(&mut self, snapshot: &Arc<Snapshot>) -> Result<Synced, Error> {
        // What is to be steered from now on finds somebody, and still does while that ends.
        for (cookie, delivery) in &mut self.deliveries {
            if self.tables.verdict(*cookie, &snapshot.egress) == Egress::Close {
                delivery.steer_all(true)?;
            }
        }
        let outcome = self.tables.sync(snapshot, Instant::now());
        for (cookie, delivery) in &mut self.deliveries {
            delivery.steer_all(self.tables.verdict(*cookie, &snapshot.egress) == Egress::Close)?;
        }
        let guarded = self.stand_guard();
        outcome.and_then(|synced| guarded.map(|()| synced))
    }

    /// Why the tables are not those of the last snapshot that was synced: what was in force before then still is. `None`:
    /// they are.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.tables.trouble()
    }

    /// Writes who is ejected where [`proxy_traffic::ClusterState::health`] has changed; the number of clusters it did for.
    ///
    /// # Errors
    /// When the kernel refuses; the rest is written next time.
    pub fn sync_health(&mut self) -> Result<usize, Error> {
        self.tables.sync_health()
    }

    /// Renews the lease and does what else time has come for; to be called every few seconds, and at least four times in
    /// the length of a lease.
    ///
    /// # Errors
    /// When the kernel refuses; what is left undone is done next time.
    pub fn tend(&mut self, now: Instant) -> Result<(), Error> {
        // First of all: without it the kernel stops to route.
        self.lease.renew()?;
        self.dismiss_watchers()?;
        self.tables.tend(now)
    }

    /// Lets the watching programs go where nothing is routed any more, once the last connection has ended.
    fn dismiss_watchers(&mut self) -> Result<(), Error> {
        let is_over =
            |(_, account): &(AccountKey, Account)| account.opened == account.closed && account.active == 0;
        if self.links.has_watchers() && self.tables.accounts.all()?.iter().all(is_over) {
            self.links.dismiss_watchers()?;
        }
        Ok(())
    }

    /// What connections have counted. An account of what is gone stays until it was read once after its last connection.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn accounts(&self) -> Result<Vec<(AccountKey, Account)>, Error> {
        self.tables.accounts.read()
    }

    /// The cluster with this number, as long as an account or a connection may name it.
    #[must_use]
    pub fn cluster(&self, number: u32) -> Option<&Arc<Cluster>> {
        self.tables.cluster(number)
    }

    /// The endpoint with this number, as long as an account or a connection may name it.
    #[must_use]
    pub fn endpoint(&self, number: u32) -> Option<&Arc<EndpointOf>> {
        self.tables.endpoint(number)
    }

    /// Readable when [`Self::events`] has something to tell.
    #[must_use]
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        self.events.fd()
    }

    /// What the programs have told of single connections since the last call.
    pub fn events(&mut self, each: impl FnMut(&Event)) {
        self.events.each(each);
    }

    /// What a connect of the workload `cookie` to `destination` finds now; `None`: nothing claims it.
    ///
    /// # Errors
    /// When the kernel refuses to read a map.
    pub fn look(&self, cookie: u64, destination: SocketAddr) -> Result<Option<Found>, Error> {
        self.tables.look(cookie, destination)
    }

    /// The map that holds what each direct connection's socket remembers, for those who list sockets with it.
    ///
    /// # Errors
    /// When this binary's programs have none.
    pub fn tracked_map_fd(&self) -> Result<BorrowedFd<'_>, Error> {
        objects::map_descriptor(&self.capture, "TRACKED")
    }

    /// Whether an earlier daemon's tables were taken over.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.links.are_adopted()
    }

    /// How full the tables are.
    #[must_use]
    pub fn fill(&self) -> Vec<Fill> {
        self.tables.fill()
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
        let unguarded = self.guards.close();
        self.links.close().and(unguarded)
    }
}
