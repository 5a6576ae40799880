//! Waiting for something to become true, with a deadline; no test sleeps to be right.

use std::thread;
use std::time::{Duration, Instant};

/// How long a condition may take on a busy machine before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until `condition` holds and fails with `what` when it never does.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    find(what, || condition().then_some(()));
}

/// Waits until `probe` finds something and returns it; fails with `what` when it never does.
#[track_caller]
pub fn find<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
