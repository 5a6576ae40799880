//! Outlier detection: who failed too often in a row, for how long it is left out, and when health stops to count.
//!
//! Pure: the time is an argument, any clock that only goes forward. Envoy's rules, with the failures that TCP knows:
//! refused, timed out, unreachable.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use proxy_common::ejection;

use crate::OutlierDetection;

/// What became of one attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered.
    Connected,
    /// It did not.
    Failed {
        /// How many in a row as the kernel counts them, this one included; `None`: the daemon dialled, and the
        /// detector counts. The two are counted apart, because the kernel's successes are not reported.
        run: Option<u32>,
    },
}

/// Who is left out now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Counts changes.
    pub version: u64,
    /// The ejected.
    pub ejected: BTreeSet<SocketAddr>,
    /// So few are healthy that health does not count.
    pub panic: bool,
}

/// The memory of one cluster's detection.
#[derive(Debug, Default)]
pub struct Detector {
    /// Those with something to remember.
    tracks: BTreeMap<SocketAddr, Track>,
    /// When `interval` last ended.
    swept: Option<Duration>,
}

/// One endpoint's past.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// Failures in a row, as the daemon saw them.
    run: u32,
    /// So many of the kernel's run have had their consequences.
    settled: u32,
    /// How often it was ejected, less the intervals that it stayed healthy.
    times: u32,
    /// When it may come back; `None`: it is not ejected.
    until: Option<Duration>,
}

impl Detector {
    /// Whether there is anything that a success or a sweep could change.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.tracks.is_empty()
    }

    /// Takes note of one attempt to connect to `endpoint`, one of `total`; whether it was ejected for it.
    pub fn report(
        &mut self,
        rules: &OutlierDetection,
        total: usize,
        endpoint: SocketAddr,
        outcome: Outcome,
        now: Duration,
    ) -> bool {
        let Outcome::Failed { run } = outcome else {
            self.succeeded(endpoint);
            return false;
        };
        let ejected = self.ejected().count();
        let track = self.tracks.entry(endpoint).or_default();
        let length = track.failed(run);
        if track.until.is_some() || !ejection::due(length.into(), rules.consecutive) {
            return false;
        }
        // Also where the share forbids the consequence, counting begins anew, as Envoy's does.
        track.settle(run);
        if !ejection::allowed(ejected as u64, total as u64, rules.max_ejection_percent) {
            return false;
        }
        track.times = track.times.saturating_add(1);
        track.until = Some(now.saturating_add(lasts(rules, track.times)));
        true
    }

    /// Forgets whom `is_member` does not know, and, when an interval has ended, lets those back whose time is over.
    /// Whether anybody's ejection ended.
    pub fn sweep(
        &mut self,
        rules: &OutlierDetection,
        is_member: impl Fn(&SocketAddr) -> bool,
        now: Duration,
    ) -> bool {
        let before = self.ejected().count();
        self.tracks.retain(|endpoint, _| is_member(endpoint));
        let last = *self.swept.get_or_insert(now);
        if now.saturating_sub(last) >= rules.interval {
            self.swept = Some(now);
            self.tracks.values_mut().for_each(|track| track.age(now));
            self.tracks.retain(|_, track| !track.is_blank());
        }
        self.ejected().count() != before
    }

    /// Forgets everybody; whether anybody was ejected.
    pub fn clear(&mut self) -> bool {
        let any = self.ejected().next().is_some();
        self.tracks.clear();
        any
    }

    /// Who is ejected.
    pub fn ejected(&self) -> impl Iterator<Item = SocketAddr> {
        self.tracks.iter().filter(|(_, track)| track.until.is_some()).map(|(endpoint, _)| *endpoint)
    }

    fn succeeded(&mut self, endpoint: SocketAddr) {
        if let Some(track) = self.tracks.get_mut(&endpoint) {
            track.run = 0;
        }
    }
}

impl Track {
    /// Counts one failure; how many in a row have had no consequence yet.
    fn failed(&mut self, run: Option<u32>) -> u32 {
        let Some(run) = run else {
            self.run = self.run.saturating_add(1);
            return self.run;
        };
        if run <= self.settled {
            // A success that nobody told of began a new run.
            self.settled = 0;
        }
        run - self.settled
    }

    /// The run that was just counted has had its consequences.
    const fn settle(&mut self, run: Option<u32>) {
        self.run = 0;
        if let Some(run) = run {
            self.settled = run;
        }
    }

    /// An interval has ended.
    fn age(&mut self, now: Duration) {
        match self.until {
            Some(until) if until <= now => {
                self.until = None;
                self.run = 0;
            }
            Some(_) => {}
            None => self.times = self.times.saturating_sub(1),
        }
    }

    /// Whether forgetting it changes nothing.
    const fn is_blank(&self) -> bool {
        self.run == 0 && self.settled == 0 && self.times == 0 && self.until.is_none()
    }
}

fn lasts(rules: &OutlierDetection, times: u32) -> Duration {
    let base = u64::try_from(rules.base_ejection.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(ejection::lasts_ms(base, times))
}
