//! Reading the maps themselves, not our books: what a program would find.

use std::net::SocketAddr;

use proxy_common::{
    Destination, ListenerKey,
    direct::{Listener, Slot},
};

use super::{
    super::{
        diagnose::{Found, key, numbers},
        error::Error,
    },
    Tables,
    batch::arms_region,
    clusters::region,
    regions::Region,
};

impl Tables {
    /// What the workload `cookie` finds at `destination`; `None`: nothing claims it.
    pub(in crate::kernel) fn look(
        &self,
        cookie: u64,
        destination: SocketAddr,
    ) -> Result<Option<Found>, Error> {
        let own = self.maps.workloads.read(cookie)?.map_or(0, |workload| workload.scope);
        let Some((scope, listener)) = self.find(own, destination.into())? else { return Ok(None) };
        let arms = self.read(arms_region(&listener));
        let (mut clusters, mut endpoints) = (Vec::new(), Vec::new());
        for number in numbers(&arms) {
            let Some(cluster) = self.maps.clusters.read(number)? else { continue };
            clusters.push((number, cluster, self.read(region(&cluster))));
        }
        for number in numbers(clusters.iter().flat_map(|(_, _, slots)| slots)) {
            endpoints.extend(self.maps.endpoints.read(number)?.map(|endpoint| (number, endpoint)));
        }
        Ok(Some(Found { scope, listener, arms, clusters, endpoints }))
    }

    /// Exact before range, one's own before everybody's, the longer range first.
    fn find(&self, own: u32, destination: Destination) -> Result<Option<(u32, Listener)>, Error> {
        for scope in [own, 0] {
            if let Some(listener) = self.maps.listeners.read(key(scope, destination))? {
                return Ok(Some((scope, listener)));
            }
        }
        let mut longest: Option<(u32, Listener)> = None;
        for scope in [own, 0] {
            let found = self.maps.ranges.read((ListenerKey::BITS, key(scope, destination)))?;
            let longer = found.filter(|one| longest.is_none_or(|(_, other)| other.bits < one.bits));
            longest = longer.map(|listener| (scope, listener)).or(longest);
        }
        Ok(longest)
    }

    fn read(&self, region: Region) -> Vec<Slot> {
        (region.base..region.base + region.count).filter_map(|at| self.maps.slots.read(at)).collect()
    }
}
