//! Metrics of the direct verdict beside Istio's: read from the kernel at a scrape, kept for the text.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue},
    metrics::MetricType,
};
use proxy_common::direct::{Account, AccountKey};

/// What one scrape found; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauges(Arc<Mutex<Reading>>);

/// See the names of the metrics.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) open: u64,
    pub(super) ejected: usize,
    /// `None` for a lease that never ends.
    pub(super) lease: Option<Duration>,
    pub(super) tables: Vec<(&'static str, u64, u64)>,
    pub(super) round_trips: RoundTrips,
}

/// Smoothed round-trip times of ended connections, by endpoint.
#[derive(Debug, Default)]
pub(super) struct RoundTrips(HashMap<u32, RoundTrip>);

#[derive(Debug)]
struct RoundTrip {
    labels: [(&'static str, String); 2],
    /// Of accounts that the kernel no longer has.
    folded: Sum,
    now: Sum,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    us: u64,
    count: u64,
}

/// The cluster and the address of an endpoint.
pub(super) type Place = (String, SocketAddr);

impl Gauges {
    /// Changes what the next scrape says.
    pub(super) fn update(&self, change: impl FnOnce(&mut Reading)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl RoundTrips {
    /// Brings the sums up to date; an endpoint that `place` does not know is left out from here on.
    pub(super) fn update(
        &mut self,
        accounts: &[(AccountKey, Account)],
        place: impl Fn(u32) -> Option<Place>,
    ) {
        self.0.values_mut().for_each(|row| row.now = Sum::default());
        for (key, account) in ended(accounts) {
            self.with(key.endpoint, &place, |row| row.now.add(account));
        }
        self.0.retain(|endpoint, row| row.now.count > 0 || place(*endpoint).is_some());
    }

    /// Keeps what accounts had that the kernel no longer has.
    pub(super) fn fold(&mut self, gone: &[(AccountKey, Account)], place: impl Fn(u32) -> Option<Place>) {
        for (key, account) in ended(gone) {
            self.with(key.endpoint, &place, |row| row.folded.add(account));
        }
    }

    fn with(
        &mut self,
        endpoint: u32,
        place: impl Fn(u32) -> Option<Place>,
        change: impl FnOnce(&mut RoundTrip),
    ) {
        if let Some(row) = self.0.get_mut(&endpoint) {
            return change(row);
        }
        let Some((cluster, address)) = place(endpoint) else { return };
        let labels = [("cluster", cluster), ("endpoint", address.to_string())];
        let none = Sum::default();
        change(self.0.entry(endpoint).or_insert(RoundTrip { labels, folded: none, now: none }));
    }
}

impl Sum {
    fn add(&mut self, account: &Account) {
        self.us += account.rtt_us;
        self.count += account.closed;
    }
}

/// Accounts of endpoints that had connections which ended.
fn ended(accounts: &[(AccountKey, Account)]) -> impl Iterator<Item = (&AccountKey, &Account)> {
    let some = accounts.iter().filter(|(key, account)| key.endpoint != 0 && account.closed > 0);
    some.map(|(key, account)| (key, account))
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let help = "Connections that the kernel routed and that are open now";
        gauge(&mut encoder, "shunt_direct_connections_open", help, reading.open.cast_signed())?;
        let (help, ejected) = ("Endpoints that outlier detection ejected", i64::try_from(reading.ejected));
        gauge(&mut encoder, "shunt_endpoints_ejected", help, ejected.unwrap_or(i64::MAX))?;
        if let Some(lease) = reading.lease {
            let help = "How long the kernel would go on routing without the daemon";
            gauge(&mut encoder, "shunt_lease_seconds", help, lease.as_secs_f64())?;
        }
        let used = reading.tables.iter().map(|(table, used, _)| (*table, *used));
        by_table(&mut encoder, "shunt_table_used", "Entries of a kernel table in use", used)?;
        let size = reading.tables.iter().map(|(table, _, size)| (*table, *size));
        by_table(&mut encoder, "shunt_table_size", "Entries that a kernel table has room for", size)?;
        reading.round_trips.encode(&mut encoder)
    }
}

impl RoundTrips {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = (
            "shunt_direct_rtt_seconds",
            "Smoothed round-trip times at the end of connections that the kernel routed",
        );
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for row in self.0.values() {
            let count = row.folded.count + row.now.count;
            let seconds = Duration::from_micros(row.folded.us + row.now.us).as_secs_f64();
            let mut metric = family.encode_family(&row.labels)?;
            metric.encode_histogram::<[(&str, &str); 0]>(seconds, count, &[(f64::MAX, count)], None)?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn by_table(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (table, value) in values {
        family.encode_family(&[("table", table)])?.encode_gauge(&value.cast_signed())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    fn account(endpoint: u32, closed: u64, rtt_us: u64) -> (AccountKey, Account) {
        let key = AccountKey { netns_cookie: u64::from(endpoint), cluster: 1, endpoint };
        (key, Account { closed, rtt_us, ..Account::default() })
    }

    fn place(endpoint: u32) -> Option<Place> {
        (endpoint < 9).then(|| ("a".to_owned(), SocketAddr::from(([10, 0, 0, 1], endpoint as u16))))
    }

    fn text(gauges: &Gauges) -> String {
        let (mut registry, mut out) = (Registry::default(), String::new());
        registry.register_collector(Box::new(gauges.clone()));
        text::encode(&mut out, &registry).unwrap();
        out
    }

    #[test]
    fn the_text_is_what_a_scraper_reads() {
        let gauges = Gauges::default();
        assert!(!text(&gauges).contains("shunt_lease_seconds"), "a lease for ever has no length");
        gauges.update(|reading| {
            (reading.open, reading.ejected, reading.lease) = (3, 1, Some(Duration::from_millis(59_500)));
            reading.tables = vec![("CLUSTERS", 2, 65_536)];
            reading.round_trips.update(&[account(1, 4, 2_000_000), account(2, 0, 0)], place);
        });
        let text = text(&gauges);
        for line in [
            "shunt_direct_connections_open 3\n",
            "shunt_endpoints_ejected 1\n",
            "shunt_lease_seconds 59.5\n",
            "shunt_table_used{table=\"CLUSTERS\"} 2\n",
            "shunt_table_size{table=\"CLUSTERS\"} 65536\n",
            "shunt_direct_rtt_seconds_sum{cluster=\"a\",endpoint=\"10.0.0.1:1\"} 2.0\n",
            "shunt_direct_rtt_seconds_count{cluster=\"a\",endpoint=\"10.0.0.1:1\"} 4\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("10.0.0.1:2"), "{text}");
    }

    #[test]
    fn round_trips_of_accounts_that_are_gone_stay_in_the_sum() {
        let gauges = Gauges::default();
        gauges.update(|reading| {
            reading.round_trips.update(&[account(1, 4, 8)], place);
            reading.round_trips.fold(&[account(1, 5, 9)], place);
            reading.round_trips.update(&[account(1, 1, 1)], place);
        });
        assert!(text(&gauges).contains("_count{cluster=\"a\",endpoint=\"10.0.0.1:1\"} 6\n"));
        gauges.update(|reading| reading.round_trips.update(&[], |_| None));
        assert!(!text(&gauges).contains("10.0.0.1:1"));
    }
}
