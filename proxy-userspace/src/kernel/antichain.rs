//! The fewest cgroups that cover a set of cgroups. Pure.

use std::{collections::BTreeSet, path::PathBuf};

/// Those of `cgroups` that lie below no other of them: a program runs once for a cgroup and everything below it,
/// and twice where two links cover the same task.
pub(super) fn cover(cgroups: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let mut cover: Vec<&PathBuf> = Vec::new();
    // Paths compare component by component, so whatever lies below a path follows right after it.
    for cgroup in cgroups {
        if cover.last().is_none_or(|above| !cgroup.starts_with(above)) {
            cover.push(cgroup);
        }
    }
    cover.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_no_other_covers() {
        for (given, want) in [
            (&[][..], &[][..]),
            (&["/c/a", "/c/b"], &["/c/a", "/c/b"]),
            (&["/c", "/c/a", "/c/a/x"], &["/c"]),
            (&["/c/a", "/c/a-b", "/c/a/x", "/c/a.d"], &["/c/a", "/c/a-b", "/c/a.d"]),
            (&["/c/ab", "/c/a"], &["/c/a", "/c/ab"]),
            (&["/c/a/x", "/c/b", "/c/b/y/z"], &["/c/a/x", "/c/b"]),
        ] {
            let given = given.iter().map(PathBuf::from).collect();
            let want: BTreeSet<_> = want.iter().map(PathBuf::from).collect();
            assert_eq!(cover(&given), want);
        }
    }
}
