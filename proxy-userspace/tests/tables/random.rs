//! Any change after any other: what is found is what was asked for, and no two things share a slot.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::{collection::vec, prelude::*};
use proxy_common::{Verdict, direct::Balancing};
use proxy_traffic::Cluster;
use shunt::kernel::{Kernel, Synced};

use crate::harness::*;

const LISTENERS: u8 = 6;
const CLUSTERS: usize = 4;

/// What one snapshot says: of each cluster a bit for each endpoint, of each listener a bit for each cluster.
#[derive(Clone, Debug, Default)]
struct Rules {
    endpoints: [u8; CLUSTERS],
    round: bool,
    /// 0: none; with the highest bit: steered.
    listeners: [u8; LISTENERS as usize],
}

fn rules() -> impl Strategy<Value = Rules> {
    let listener = prop_oneof![Just(0), Just(0x80), 1u8..16];
    (any::<[u8; CLUSTERS]>(), any::<bool>(), proptest::array::uniform6(listener))
        .prop_map(|(endpoints, round, listeners)| Rules { endpoints, round, listeners })
}

fn bits(mask: u8) -> impl Iterator<Item = u8> {
    (0..8).filter(move |bit| mask & (1 << bit) != 0)
}

fn at(listener: u8) -> String {
    format!("10.99.0.{listener}:80")
}

impl Rules {
    fn sync(&self, kernel: &mut Kernel) -> Result<Synced, String> {
        let clusters = self.endpoints.iter().enumerate().map(|(number, mask)| {
            let places: Vec<_> = bits(*mask).map(|bit| format!("10.0.0.{bit}:80")).collect();
            let places: Vec<_> = places.iter().map(String::as_str).collect();
            let balancing = if self.round { Balancing::RoundRobin } else { Balancing::LeastRequest };
            let plain = cluster(&number.to_string(), &places);
            Arc::new(Cluster { balancing, ..Cluster::clone(&plain) })
        });
        let clusters: Vec<_> = clusters.collect();
        let places: Vec<_> = (0..LISTENERS).map(at).collect();
        let listeners = self.listeners.iter().zip(&places).filter(|(mask, _)| **mask != 0);
        let listeners = listeners.map(|(mask, place)| {
            let arms: Vec<_> =
                bits(*mask & 0x7f).map(|bit| (u64::from(bit) + 1, &clusters[usize::from(bit)])).collect();
            (place.as_str(), if *mask == 0x80 { steered() } else { direct(&arms) })
        });
        kernel.sync(&snapshot(&listeners.collect::<Vec<_>>())).map_err(|error| error.to_string())
    }

    /// Whether `kernel` leads everybody where these rules say.
    fn hold(&self, kernel: &Kernel) -> bool {
        self.listeners.iter().zip(0..).all(|(mask, listener)| {
            let Some(found) = kernel.look(0, at(listener).parse().unwrap()).unwrap() else {
                return *mask == 0;
            };
            if found.listener.verdict == Verdict::Steer as u32 {
                return *mask == 0x80;
            }
            let want: BTreeSet<_> = bits(*mask & 0x7f)
                .flat_map(|bit| bits(self.endpoints[usize::from(bit)]))
                .map(|bit| format!("10.0.0.{bit}:80"))
                .collect();
            let names: BTreeSet<_> = found
                .clusters
                .iter()
                .map(|(number, ..)| kernel.cluster(*number).unwrap().name.clone())
                .collect();
            names.len() == mask.count_ones() as usize && addresses(&found).into_iter().eq(want)
        })
    }
}

/// Every region that something points at, and whether no two of them touch.
fn disjoint(kernel: &Kernel) -> bool {
    let mut regions = BTreeSet::new();
    for listener in 0..LISTENERS {
        let Some(found) = kernel.look(0, at(listener).parse().unwrap()).unwrap() else { continue };
        regions.insert((found.listener.base, found.listener.count, 0));
        regions.extend(found.clusters.iter().map(|(number, entry, _)| (entry.base, entry.count, *number)));
    }
    let regions: Vec<_> = regions.into_iter().filter(|(_, count, _)| *count > 0).collect();
    regions.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_asked_for_last_and_found_room_is_in_force(steps in vec((rules(), 0u64..4), 1..16)) {
        let mut kernel = load(Sizes { listeners: 16, endpoints: 32 });
        let (mut now, mut current) = (Instant::now(), Rules::default());
        for (rules, seconds) in steps {
            let mut waiting = None;
            match rules.sync(&mut kernel) {
                Ok(_) => current = rules,
                Err(error) => {
                    prop_assert!(error.contains("is full"), "{}", error);
                    waiting = Some(rules);
                }
            }
            prop_assert!(current.hold(&kernel), "{:?}", current);
            prop_assert!(disjoint(&kernel));
            now += Duration::from_secs(seconds);
            // That it finds no room still is no news.
            let _ = kernel.tend(now);
            if let Some(rules) = waiting.take_if(|rules| rules.hold(&kernel)) {
                current = rules;
            }
            prop_assert!(current.hold(&kernel), "{:?}", current);
            prop_assert!(disjoint(&kernel));
        }
        prop_assert!(kernel.sync(&snapshot(&[])).is_ok());
        for later in 1..4 {
            kernel.tend(now + later * LATER).unwrap();
            kernel.accounts().unwrap();
        }
        for fill in kernel.fill() {
            prop_assert_eq!(fill.used, u32::from(fill.table == "SLOTS"), "{}", fill.table);
        }
    }
}
