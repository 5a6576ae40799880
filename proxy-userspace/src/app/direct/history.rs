//! Accounts as they were read last, so that nothing is lost of those that the kernel forgets. Pure.

use std::{collections::HashMap, mem};

use proxy_common::direct::{Account, AccountKey};

/// The last read.
#[derive(Debug, Default)]
pub(super) struct History(HashMap<AccountKey, Account>);

impl History {
    /// What was there at the last read and is no longer part of `now`: accounts that are missing, or that began again.
    pub(super) fn gone(&mut self, now: &[(AccountKey, Account)]) -> Vec<(AccountKey, Account)> {
        let mut before = mem::take(&mut self.0);
        let mut gone = Vec::new();
        for (key, account) in now {
            if let Some(old) = before.remove(key)
                && is_behind(account, &old)
            {
                gone.push((*key, old));
            }
        }
        gone.extend(before);
        self.0 = now.iter().copied().collect();
        gone
    }
}

/// Whether an account has less than `old`, although accounts only grow.
fn is_behind(account: &Account, old: &Account) -> bool {
    let counts = |one: &Account| {
        [
            one.opened,
            one.closed,
            one.failed,
            one.abandoned,
            one.overflowed,
            one.unhealthy,
            one.missing,
            one.received,
            one.sent,
            one.rtt_us,
        ]
    };
    counts(account).iter().zip(counts(old)).any(|(now, old)| *now < old)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(endpoint: u32, opened: u64) -> (AccountKey, Account) {
        let key = AccountKey { netns_cookie: 7, cluster: 1, endpoint };
        (key, Account { opened, active: 9 - opened, run: 9 - opened, ..Account::default() })
    }

    #[test]
    fn what_is_missing_or_began_again_is_gone_and_only_once() {
        let mut history = History::default();
        assert_eq!(history.gone(&[account(1, 5), account(2, 5), account(3, 5)]), []);
        assert_eq!(history.gone(&[account(2, 1), account(3, 6)]), [account(2, 5), account(1, 5)]);
        assert_eq!(history.gone(&[account(2, 2), account(3, 6)]), []);
        assert_eq!(history.gone(&[account(3, 6)]), [account(2, 2)]);
    }
}
