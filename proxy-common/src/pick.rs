//! Drawing by weight: pure arithmetic that a host test can prove.

/// Brings a uniform 64-bit `draw` into `0..total` without a division and without measurable bias
/// (multiply-shift; the bias is below `total / 2^64`). `total` 0 gives 0.
#[inline(always)]
#[must_use]
pub fn scale(draw: u64, total: u64) -> u64 {
    ((u128::from(draw) * u128::from(total)) >> 64) as u64
}

/// The index of the weight that `point` (from [`scale`] with the weights' sum) falls into; `None` when `point`
/// lies at or beyond the sum. A weight of 0 is never chosen.
#[must_use]
pub fn weighted(point: u64, weights: impl IntoIterator<Item = u64>) -> Option<usize> {
    let mut left = point;
    for (index, weight) in weights.into_iter().enumerate() {
        if left < weight {
            return Some(index);
        }
        left -= weight;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_of_the_sum_belongs_to_exactly_its_weight() {
        let weights = [0, 80, 0, 20, 0];
        let mut drawn = [0u64; 5];
        for point in 0..100 {
            drawn[weighted(point, weights).unwrap()] += 1;
        }
        assert_eq!(drawn, weights);
        assert_eq!(weighted(100, weights), None);
    }

    #[test]
    fn scale_covers_the_range_and_never_leaves_it() {
        for total in [1, 3, 100, u64::MAX] {
            assert_eq!(scale(0, total), 0);
            assert_eq!(scale(u64::MAX, total), total - 1);
        }
        assert_eq!(scale(u64::MAX, 0), 0);
    }
}
