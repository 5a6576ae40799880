//! What is gone leaves the maps: after a moment in which programs may still look at it, and accounts when their last
//! connection has ended and somebody has read them.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use proxy_common::direct::{Account, AccountKey};

use super::{super::error::Error, Tables, clusters::region};

/// How long listeners under scope 0 outlive those that have taken their place.
const LINGER: Duration = Duration::from_secs(1);
/// How long clusters and endpoints outlive the last listener that led to them: longer than any listener lingers.
const GRACE: Duration = Duration::from_secs(2);
/// How long `deliver` goes on taking in what `connect` has marked: a SYN may be on its way, and be sent again.
const DELIVER: Duration = Duration::from_secs(10);
/// How long an account without connections waits for a reader.
const UNREAD: Duration = Duration::from_secs(60);

/// Accounts of what is gone, on which nothing happens any more.
#[derive(Debug, Default)]
pub(super) struct Idle {
    since: HashMap<AccountKey, (Account, Instant, u64)>,
    /// Accounts need to be looked at although no cluster is gone: a workload is.
    again: bool,
}

impl Idle {
    pub(super) fn look_again(&mut self) {
        self.again = true;
    }
}

impl Tables {
    /// Does what time has come for.
    pub(in crate::kernel) fn tend(&mut self, now: Instant) -> Result<(), Error> {
        let over = |since: &Instant, grace| now.saturating_duration_since(*since) >= grace;
        let keys = self.lingering.iter().filter(|(_, since)| over(since, LINGER)).map(|(key, _)| *key);
        for key in keys.collect::<Vec<_>>() {
            self.remove_listener(key, now)?;
            self.lingering.remove(&key);
        }
        let keys = self.steered_gone.iter().filter(|(_, since)| over(since, DELIVER)).map(|(key, _)| *key);
        for key in keys.collect::<Vec<_>>() {
            self.maps.remove_steered(key)?;
            self.steered_gone.remove(&key);
        }
        if self.settled {
            self.bury(now)?;
        }
        self.regions.tend(now);
        self.try_postponed(now)
    }

    /// What found no room may find it now, once.
    fn try_postponed(&mut self, now: Instant) -> Result<(), Error> {
        if self.last.is_some() && self.may_find_room() {
            return Ok(());
        }
        self.postponed.take().map_or(Ok(()), |snapshot| self.sync(&snapshot, now).map(|_| ()))
    }

    /// Whether something takes room that it will soon give back.
    pub(super) fn may_find_room(&self) -> bool {
        self.regions.is_resting() || !self.lingering.is_empty() || self.clusters.is_anything_in(&self.maps)
    }

    /// Clusters and endpoints whose time is over: out of the maps, and out of the books with their last account.
    fn bury(&mut self, now: Instant) -> Result<(), Error> {
        let (endpoints, clusters) = self.clusters.over(now, GRACE);
        for number in &endpoints {
            self.maps.endpoints.remove(*number)?;
        }
        for number in &clusters {
            if let Some(entry) = self.maps.clusters.remove(*number)? {
                self.regions.release(region(&entry), now);
            }
        }
        if endpoints.is_empty() && clusters.is_empty() && !self.idle.again {
            return Ok(());
        }
        let (endpoints, clusters) = (HashSet::from_iter(endpoints), HashSet::from_iter(clusters));
        let left = self.close_accounts(&endpoints, &clusters, now)?;
        let named: HashSet<_> = left.iter().map(|key| key.endpoint).collect();
        endpoints.difference(&named).for_each(|number| self.clusters.forget_endpoint(*number));
        let named: HashSet<_> = left.iter().map(|key| key.cluster).collect();
        clusters.difference(&named).for_each(|number| self.clusters.forget_cluster(*number));
        Ok(())
    }

    /// Deletes the accounts of what is gone that have ended; those that are left come back.
    fn close_accounts(
        &mut self,
        endpoints: &HashSet<u32>,
        clusters: &HashSet<u32>,
        now: Instant,
    ) -> Result<Vec<AccountKey>, Error> {
        let (reads, enrolled) = (self.accounts.reads(), &self.scopes.enrolled);
        let is_gone = |key: &AccountKey| {
            let stranger = key.netns_cookie != 0 && !enrolled.contains_key(&key.netns_cookie);
            stranger || clusters.contains(&key.cluster) || endpoints.contains(&key.endpoint)
        };
        let gone = self.accounts.all()?.into_iter().filter(|(key, _)| is_gone(key)).collect::<Vec<_>>();
        let (mut left, mut idle) = (Vec::new(), HashMap::new());
        for (key, account) in gone {
            let before = self.idle.since.get(&key).filter(|(before, ..)| *before == account);
            let &(_, since, read) = before.unwrap_or(&(account, now, reads));
            let settled = reads > read || now.saturating_duration_since(since) >= UNREAD;
            if account.active == 0 && settled {
                self.accounts.remove(key)?;
            } else {
                idle.insert(key, (account, since, read));
                left.push(key);
            }
        }
        self.idle = Idle { again: !idle.is_empty(), since: idle };
        Ok(left)
    }
}
