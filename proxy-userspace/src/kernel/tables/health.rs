//! Who is ejected, as `ENDPOINTS` and `CLUSTERS` say it.

use std::sync::Arc;

use proxy_common::direct;
use proxy_traffic::{Cluster, outlier::Health};

use super::{super::error::Error, Tables};

/// The health of `cluster`; where nobody looks for outliers everybody is healthy.
pub(super) fn of(cluster: &Cluster) -> Arc<Health> {
    cluster.outlier.as_ref().map_or_else(Arc::default, |_| cluster.state.health())
}

impl Tables {
    /// Writes what has changed since it was written; the number of clusters that it changed for.
    pub(in crate::kernel) fn sync_health(&mut self) -> Result<usize, Error> {
        let changed = self.clusters.watched.iter().filter_map(|number| {
            let held = self.clusters.by_number.get(number)?;
            let health = of(held.cluster.as_ref()?);
            (health.version != held.health).then_some((*number, health))
        });
        let changed: Vec<_> = changed.collect();
        for (number, health) in &changed {
            self.write_health(*number, health)?;
        }
        Ok(changed.len())
    }

    /// There is no moment at which everybody is ejected and health counts.
    fn write_health(&mut self, number: u32, health: &Health) -> Result<(), Error> {
        if health.panic {
            self.write_panic(number, direct::Cluster::PANIC)?;
        }
        let Some(held) = self.clusters.by_number.get(&number) else { return Ok(()) };
        for (address, endpoint) in &held.members {
            // Those that are gone have left the map, and nobody draws them.
            let Some(entry) = self.maps.endpoints.held.get(endpoint).copied() else { continue };
            let ejected = health.ejected.contains(address).into();
            self.maps.endpoints.put(*endpoint, direct::Endpoint { ejected, ..entry })?;
        }
        if !health.panic {
            self.write_panic(number, 0)?;
        }
        // Only now: what could not be written is tried again.
        if let Some(held) = self.clusters.by_number.get_mut(&number) {
            held.health = health.version;
        }
        Ok(())
    }

    fn write_panic(&mut self, number: u32, panic: u8) -> Result<(), Error> {
        let Some(entry) = self.maps.clusters.held.get(&number).copied() else { return Ok(()) };
        let flags = entry.flags & !direct::Cluster::PANIC | panic;
        self.maps.clusters.put(number, direct::Cluster { flags, ..entry }).map(|_| ())
    }
}
