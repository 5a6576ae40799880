//! When an endpoint is ejected, for how long, and when health stops to count: the arithmetic, without a division.

/// No ejection lasts longer, unless the base time is longer already. Envoy's default, in milliseconds.
pub const LONGEST_MS: u64 = 300_000;

/// Whether `run` failures in a row eject; 0 `consecutive` never does.
#[inline(always)]
#[must_use]
pub const fn due(run: u64, consecutive: u32) -> bool {
    consecutive != 0 && run >= consecutive as u64
}

/// Whether one more may be ejected when `ejected` of `total` are: strict, 10 % of five is nobody.
#[inline(always)]
#[must_use]
pub const fn allowed(ejected: u64, total: u64, max_percent: u32) -> bool {
    ejected.saturating_add(1).saturating_mul(100) <= total.saturating_mul(max_percent as u64)
}

/// Whether so few of `total` are healthy that health does not count.
#[inline(always)]
#[must_use]
pub const fn panics(ejected: u64, total: u64, min_health_percent: u32) -> bool {
    let healthy = total.saturating_sub(ejected);
    healthy.saturating_mul(100) < total.saturating_mul(min_health_percent as u64)
}

/// How long the `times`-th ejection lasts.
#[inline(always)]
#[must_use]
pub const fn lasts_ms(base_ms: u64, times: u32) -> u64 {
    let longest = if base_ms > LONGEST_MS { base_ms } else { LONGEST_MS };
    let wanted = base_ms.saturating_mul(times as u64);
    if wanted < longest { wanted } else { longest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_small_cluster_may_be_nobody() {
        for (ejected, total, percent, want) in [
            (0, 5, 10, false),
            (0, 9, 10, false),
            (0, 10, 10, true),
            (1, 10, 10, false),
            (1, 20, 10, true),
            (0, 1, 100, true),
            (1, 1, 100, false),
            (0, 2, 50, true),
            (0, 3, 33, false),
            (0, 3, 34, true),
            (0, 0, 100, false),
            (0, 100, 0, false),
        ] {
            assert_eq!(allowed(ejected, total, percent), want, "{ejected} of {total}, {percent} %");
        }
    }

    #[test]
    fn health_counts_down_to_the_minimum_and_not_below() {
        for (ejected, total, percent, want) in [
            (0, 0, 50, false),
            (4, 4, 0, false),
            (1, 2, 50, false),
            (2, 3, 50, true),
            (1, 3, 67, true),
            (0, 3, 100, false),
            (1, 3, 100, true),
        ] {
            assert_eq!(panics(ejected, total, percent), want, "{ejected} of {total}, {percent} %");
        }
    }

    #[test]
    fn ejections_grow_up_to_the_cap() {
        assert_eq!([1, 2, 10, 11].map(|times| lasts_ms(30_000, times)), [30_000, 60_000, 300_000, 300_000]);
        assert_eq!([1, 2].map(|times| lasts_ms(400_000, times)), [400_000, 400_000]);
        assert_eq!(lasts_ms(u64::MAX, u32::MAX), u64::MAX);
    }

    #[test]
    fn a_run_is_due_when_it_is_long_enough() {
        assert_eq!(
            [(4, 5), (5, 5), (6, 5), (9, 0)].map(|(run, limit)| due(run, limit)),
            [false, true, true, false]
        );
    }
}
