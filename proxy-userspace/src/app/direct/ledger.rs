//! From the kernel's accounts to Istio's series: whose connections, to whom, and how they ended.

use std::{collections::HashMap, sync::Arc};

use proxy_common::direct::{Account, AccountKey};
use proxy_traffic::{Cluster, Flag, Workload, WorkloadName};

use crate::metrics::{Metrics, Series, Totals};

/// Bytes of connections that are still open: from the client, and to it.
pub(super) type Live = HashMap<AccountKey, (u64, u64)>;

/// Who an account's connections went to, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) endpoint: Option<Arc<WorkloadName>>,
}

/// The series that accounts count on. Finding one by its labels takes as long as a connection; here it is done once
/// for each account.
pub(super) struct Ledger {
    metrics: Arc<Metrics>,
    /// The place in `books`, by the cookie of a network namespace.
    cookies: HashMap<u64, usize>,
    books: Vec<Book>,
}

/// One workload's series.
struct Book {
    workload: Arc<Workload>,
    /// The place in `totals`, by account and flag.
    places: HashMap<(AccountKey, Flag), usize>,
    /// The place in `totals`, by the series' address: several accounts may share a series.
    shared: HashMap<usize, usize>,
    totals: Vec<(Arc<Series>, Totals)>,
}

impl Ledger {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, cookies: HashMap::new(), books: Vec::new() }
    }

    /// Accounts of the namespace `cookie` are those of `workload` from here on.
    pub(super) fn open(&mut self, cookie: u64, workload: &Arc<Workload>) {
        let same = self.books.iter().position(|book| book.workload == *workload);
        let place = same.unwrap_or_else(|| {
            self.books.push(Book::new(Arc::clone(workload)));
            self.books.len() - 1
        });
        self.cookies.insert(cookie, place);
    }

    /// Whose the accounts of `cookie` are.
    pub(super) fn workload(&self, cookie: u64) -> Option<&Arc<Workload>> {
        self.cookies.get(&cookie).map(|place| &self.books[*place].workload)
    }

    /// Leaves the accounts of a workload alone; its series are forgotten by whoever says so.
    pub(super) fn forget(&mut self, workload: &Workload) {
        let Some(gone) = self.books.iter().position(|book| *book.workload == *workload) else { return };
        self.books.remove(gone);
        self.cookies.retain(|_, place| *place != gone);
        for place in self.cookies.values_mut().filter(|place| **place > gone) {
            *place -= 1;
        }
    }

    /// Brings the series up to date. `live` was read after `accounts`: what ended between is in neither and shows up next
    /// time, while in the other order it would be counted twice.
    pub(super) fn update(
        &mut self,
        accounts: &[(AccountKey, Account)],
        live: &Live,
        named: impl Fn(AccountKey) -> Named,
    ) {
        let none = Totals::default();
        for (_, totals) in self.books.iter_mut().flat_map(|book| &mut book.totals) {
            *totals = none;
        }
        for (key, account) in accounts {
            for (flag, totals) in parts(account) {
                self.add(*key, flag, totals, &named);
            }
        }
        for (key, (received, sent)) in live {
            let totals = Totals { received: *received, sent: *sent, ..none };
            self.add(*key, Flag::None, totals, &named);
        }
        for (series, totals) in self.books.iter().flat_map(|book| &book.totals) {
            series.routed(*totals);
        }
    }

    /// Keeps what accounts had that the kernel no longer has.
    pub(super) fn fold(&mut self, gone: &[(AccountKey, Account)], named: impl Fn(AccountKey) -> Named) {
        for (key, account) in gone {
            let Some(book) = self.cookies.get(&key.netns_cookie).map(|place| &mut self.books[*place]) else {
                continue;
            };
            for (flag, totals) in parts(account) {
                let place = book.place(&self.metrics, *key, flag, &named);
                book.totals[place].0.fold(totals);
                book.places.remove(&(*key, flag));
            }
        }
    }

    fn add(&mut self, key: AccountKey, flag: Flag, totals: Totals, named: &impl Fn(AccountKey) -> Named) {
        let Some(book) = self.cookies.get(&key.netns_cookie).map(|place| &mut self.books[*place]) else {
            return;
        };
        let place = book.place(&self.metrics, key, flag, named);
        book.totals[place].1 += totals;
    }
}

impl Book {
    fn new(workload: Arc<Workload>) -> Self {
        Self { workload, places: HashMap::new(), shared: HashMap::new(), totals: Vec::new() }
    }

    /// Where connections of the account that ended with `flag` are counted.
    fn place(
        &mut self,
        metrics: &Metrics,
        key: AccountKey,
        flag: Flag,
        named: &impl Fn(AccountKey) -> Named,
    ) -> usize {
        if let Some(place) = self.places.get(&(key, flag)) {
            return *place;
        }
        let Named { cluster, endpoint } = named(key);
        // Who was refused never had an endpoint, whatever account it was counted on.
        let endpoint =
            endpoint.filter(|_| !matches!(flag, Flag::Overflow | Flag::NoHealthyUpstream | Flag::NoCluster));
        let series = metrics.series(&self.workload, cluster.as_deref(), endpoint.as_ref(), flag);
        let place = *self.shared.entry(Arc::as_ptr(&series).addr()).or_insert_with(|| {
            self.totals.push((series, Totals::default()));
            self.totals.len() - 1
        });
        self.places.insert((key, flag), place);
        place
    }
}

/// An account, by how connections ended; what it has none of is left out.
fn parts(account: &Account) -> impl Iterator<Item = (Flag, Totals)> {
    let Account { opened, closed, sent, received, .. } = *account;
    let all = [
        (Flag::None, Totals { opened, closed, sent, received }),
        (Flag::UpstreamFailure, Totals::refused(account.failed)),
        (Flag::DownstreamClosed, Totals::refused(account.abandoned)),
        (Flag::Overflow, Totals::refused(account.overflowed)),
        (Flag::NoHealthyUpstream, Totals::refused(account.unhealthy)),
        (Flag::NoCluster, Totals::refused(account.missing)),
    ];
    all.into_iter().filter(|(_, totals)| totals.opened > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OPEN: Account = Account {
        active: 1,
        cursor: 0,
        opened: 5,
        closed: 4,
        failed: 0,
        abandoned: 0,
        overflowed: 0,
        unhealthy: 0,
        missing: 0,
        received: 100,
        sent: 1000,
        rtt_us: 0,
        run: 0,
    };

    fn key(netns_cookie: u64, endpoint: u32) -> AccountKey {
        AccountKey { netns_cookie, cluster: 1, endpoint }
    }

    fn workload(name: &str) -> Arc<Workload> {
        Arc::new(Workload { name: name.to_owned(), namespace: "default".to_owned(), labels: [].into() })
    }

    fn named(key: AccountKey) -> Named {
        let endpoint = WorkloadName { name: format!("w{}", key.endpoint), ..WorkloadName::default() };
        let cluster = Cluster::passthrough(Duration::from_secs(1));
        Named { cluster: Some(Arc::new(cluster)), endpoint: Some(Arc::new(endpoint)) }
    }

    /// The sum of a family's series whose line has all of `labels`.
    fn sum(ledger: &Ledger, family: &str, labels: &[&str]) -> u64 {
        let text = ledger.metrics.text().unwrap();
        let lines = text.lines().filter(|line| line.starts_with(&format!("istio_tcp_{family}_total{{")));
        let lines = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(Arc::new(Metrics::new()));
        ledger.open(7, &workload("web"));
        ledger
    }

    #[test]
    fn an_account_becomes_series_by_the_way_connections_ended() {
        let mut ledger = ledger();
        let refused = Account {
            failed: 3,
            abandoned: 1,
            overflowed: 2,
            unhealthy: 4,
            missing: 5,
            ..Account::default()
        };
        let accounts = [(key(7, 1), OPEN), (key(7, 2), refused), (key(0, 1), OPEN), (key(9, 1), OPEN)];
        ledger.update(&accounts, &Live::from([(key(7, 1), (11, 22))]), named);
        for (flag, endpoint, opened, closed) in [
            ("-", "w1", 5, 4),
            ("UF,URX", "w2", 3, 3),
            ("DC", "w2", 1, 1),
            ("UO", "unknown", 2, 2),
            ("UH", "unknown", 4, 4),
            ("NC", "unknown", 5, 5),
        ] {
            let flag = format!("response_flags=\"{flag}\"");
            let endpoint = format!("destination_workload=\"{endpoint}\"");
            let labels = [&*flag, &endpoint, "source_workload=\"web\""];
            assert_eq!(sum(&ledger, "connections_opened", &labels), opened, "{flag}");
            assert_eq!(sum(&ledger, "connections_closed", &labels), closed, "{flag}");
        }
        // Nobody's accounts, and those of an unknown namespace, are in no series.
        assert_eq!(sum(&ledger, "connections_opened", &[]), 5 + 3 + 1 + 2 + 4 + 5);
        assert_eq!(sum(&ledger, "received_bytes", &[]), 111);
        assert_eq!(sum(&ledger, "sent_bytes", &[]), 1022);
    }

    #[test]
    fn a_connection_that_ends_between_two_reads_does_not_turn_a_series_back() {
        let mut ledger = ledger();
        ledger.update(&[(key(7, 1), OPEN)], &Live::from([(key(7, 1), (50, 50))]), named);
        ledger.update(&[(key(7, 1), OPEN)], &Live::new(), named);
        assert_eq!(sum(&ledger, "received_bytes", &[]), 150);
        let ended = Account { closed: 5, received: 160, ..OPEN };
        ledger.update(&[(key(7, 1), ended)], &Live::new(), named);
        assert_eq!(sum(&ledger, "received_bytes", &[]), 160);
    }

    #[test]
    fn an_account_that_is_gone_stays_in_the_sum() {
        let mut ledger = ledger();
        ledger.update(&[(key(7, 1), OPEN), (key(7, 2), OPEN)], &Live::new(), named);
        ledger.fold(&[(key(7, 1), Account { opened: 6, ..OPEN })], named);
        ledger.update(&[(key(7, 2), OPEN)], &Live::new(), named);
        assert_eq!(sum(&ledger, "connections_opened", &[]), 11);
        ledger.update(&[(key(7, 2), Account { opened: 9, ..OPEN })], &Live::new(), named);
        assert_eq!(sum(&ledger, "connections_opened", &[]), 15);
    }

    #[test]
    fn a_workload_in_two_namespaces_has_one_sum_and_one_that_left_has_none() {
        let mut ledger = ledger();
        ledger.open(8, &workload("web"));
        ledger.open(9, &workload("other"));
        let accounts = [(key(7, 1), OPEN), (key(8, 1), OPEN), (key(9, 1), OPEN)];
        ledger.update(&accounts, &Live::new(), named);
        assert_eq!(sum(&ledger, "connections_opened", &["source_workload=\"web\""]), 10);
        ledger.forget(&workload("web"));
        ledger.metrics.forget(&workload("web"));
        ledger.update(&accounts, &Live::new(), named);
        assert_eq!(sum(&ledger, "connections_opened", &["source_workload=\"web\""]), 0);
        assert_eq!(sum(&ledger, "connections_opened", &["source_workload=\"other\""]), 5);
        assert_eq!(ledger.workload(9).unwrap().name, "other");
        assert!(ledger.workload(7).is_none());
    }

    #[test]
    fn ten_thousand_accounts_are_read_in_a_moment() {
        let mut ledger = ledger();
        let accounts: Vec<_> = (1..=10_000).map(|endpoint| (key(7, endpoint), OPEN)).collect();
        ledger.update(&accounts, &Live::new(), named);
        let started = std::time::Instant::now();
        ledger.update(&accounts, &Live::new(), named);
        // Some 3 ms without optimisation, on two old cores.
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    }
}
