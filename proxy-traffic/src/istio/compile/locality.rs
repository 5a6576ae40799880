//! `localityLbSetting.distribute`: shares by place → weights of endpoints.

use crate::istio::resource::LocalityLbSetting;

/// The weight of each endpoint, given as place and own weight, for clients at `here`; 0: it gets nothing. With it
/// comes the number of the entry that says so; `None`: nothing is said of `here`.
pub(super) fn weights(
    setting: &LocalityLbSetting,
    here: &str,
    endpoints: &[(&str, u32)],
) -> Option<(usize, Vec<u32>)> {
    let mut entries = setting.distribute.iter().enumerate().filter(|_| setting.enabled.unwrap_or(true));
    let (index, entry) = entries.find(|(_, entry)| fits(&entry.from, here))?;
    let percents: Vec<_> = entry.to.iter().collect();
    let group = |place: &str| percents.iter().position(|(to, _)| fits(to, place));
    let groups: Vec<_> = endpoints.iter().map(|(place, _)| group(place)).collect();
    let mut sums = vec![0_u128; percents.len()];
    for (group, (_, weight)) in groups.iter().zip(endpoints) {
        if let Some(group) = group {
            sums[*group] += u128::from(*weight);
        }
    }
    let common = sums.iter().filter(|sum| **sum > 0).fold(1, |all, sum| multiple(all, *sum));
    let shares = groups.iter().zip(endpoints).map(|(group, (_, weight))| {
        group.map_or(0, |group| {
            let (_, percent) = percents[group];
            u128::from(percent.0) * u128::from(*weight) * common / sums[group]
        })
    });
    Some((index, reduced(&shares.collect::<Vec<_>>())))
}

/// Whether `place` lies within `rule`: what a rule leaves out, or writes as `*`, is anything.
pub(in crate::istio) fn fits(rule: &str, place: &str) -> bool {
    let mut place = place.split('/');
    rule.split('/').enumerate().all(|(depth, part)| {
        let own = place.next().unwrap_or_default();
        part == "*" || part == own || depth > 0 && part.is_empty()
    })
}

/// A common multiple of both; one that is as good as exact where the least would be huge.
fn multiple(one: u128, other: u128) -> u128 {
    const HUGE: u128 = 1 << 64;
    let least = one / divisor(one, other) * other;
    if least < HUGE { least } else { HUGE }
}

/// Greatest common divisor.
fn divisor(one: u128, other: u128) -> u128 {
    if other == 0 { one } else { divisor(other, one % other) }
}

/// The same proportions in small numbers. What is above 0 stays above 0.
fn reduced(shares: &[u128]) -> Vec<u32> {
    let unit = shares.iter().fold(0, |all, share| divisor(all, *share)).max(1);
    let most = shares.iter().max().map_or(0, |most| most / unit);
    let limit = u128::from(u32::MAX);
    let fit = |share: u128| {
        let share = share / unit;
        let scaled = if most > limit { share * limit / most } else { share };
        if share > 0 { scaled.max(1) } else { 0 }
    };
    shares.iter().map(|share| u32::try_from(fit(*share)).unwrap_or(u32::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::istio::{resource::Distribute, scalar::Count};

    #[test]
    fn a_place_lies_within_what_names_less_of_it() {
        for (rule, place, want) in [
            ("*", "eu/a/1", true),
            ("*", "", true),
            ("eu", "eu/a/1", true),
            ("eu/*", "eu/a/1", true),
            ("eu/*", "eu", true),
            ("eu/a", "eu/a/1", true),
            ("eu/a/*", "eu/a", true),
            ("eu/a/1", "eu/a/1", true),
            ("eu/a/1", "eu/a/2", false),
            ("eu/a/1", "eu/a", false),
            ("eu/b", "eu/a/1", false),
            ("eu", "europe", false),
            ("eu", "", false),
        ] {
            assert_eq!(fits(rule, place), want, "{rule} {place}");
        }
    }

    /// A setting that shares everything out among `p0`, `p1`, … by these percentages.
    fn setting(percents: &[u32]) -> LocalityLbSetting {
        let place = |(index, percent): (usize, &u32)| (format!("p{index}"), Count(*percent));
        let to: BTreeMap<_, _> = percents.iter().enumerate().map(place).collect();
        let distribute = vec![Distribute { from: "*".to_owned(), to }];
        LocalityLbSetting { distribute, ..LocalityLbSetting::default() }
    }

    proptest! {
        #[test]
        fn shares_are_exact(
            percents in vec(1u32..50, 1..4),
            endpoints in vec((0usize..4, 1u32..30), 1..12),
        ) {
            let places: Vec<_> = endpoints.iter().map(|(place, own)| (format!("p{place}"), *own)).collect();
            let places: Vec<_> = places.iter().map(|(place, own)| (place.as_str(), *own)).collect();
            let (_, weights) = weights(&setting(&percents), "", &places).unwrap();
            let own = |place: usize| -> u64 {
                endpoints.iter().filter(|(other, _)| *other == place).map(|(_, own)| u64::from(*own)).sum()
            };
            // weight = percent × own ÷ the place's own, times one factor for all: compared two by two without fractions.
            let share = |index: usize| {
                let (place, weight) = endpoints[index];
                percents.get(place).map_or((0, 1), |percent| (u64::from(percent * weight), own(place)))
            };
            for (one, other) in (0..weights.len()).flat_map(|one| (0..one).map(move |other| (one, other))) {
                let ((up, down), (other_up, other_down)) = (share(one), share(other));
                let (left, right) = (u64::from(weights[one]), u64::from(weights[other]));
                prop_assert_eq!(left * other_up * down, right * up * other_down);
                prop_assert_eq!(left == 0, up == 0);
            }
        }

        #[test]
        fn nobody_is_rounded_away(endpoints in vec((0usize..3, 1u32..), 1..12)) {
            let places: Vec<_> = endpoints.iter().map(|(place, own)| (format!("p{place}"), *own)).collect();
            let places: Vec<_> = places.iter().map(|(place, own)| (place.as_str(), *own)).collect();
            let (_, weights) = weights(&setting(&[98, 1, 1]), "", &places).unwrap();
            prop_assert!(weights.iter().all(|weight| *weight > 0), "{weights:?}");
        }
    }
}
