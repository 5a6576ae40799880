//! The worker's one copy buffer. A connection has it for the length of one read and write, never longer.

use std::cell::RefCell;

/// What one read may bring. Below 64 KiB bulk throughput falls steeply, above 256 KiB nothing is gained.
pub(super) const SIZE: usize = 256 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into_boxed_slice());
}

/// Lends the buffer to `f`, which must not ask for it again.
pub(super) fn with<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| f(buffer))
}
