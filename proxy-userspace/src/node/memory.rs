//! How soon the allocator gives memory back. Which allocator it is, `main.rs` says.

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

/// `mi_option_purge_delay`, which the bindings do not name: milliseconds before unused pages go back.
const PURGE_DELAY: mi_option_t = 15;

/// Gives unused pages back at once. By default they go back when the allocator next has work to do after a
/// delay, which for an idle daemon is never: it would keep what reading the kernel's types took at start-up,
/// six times what it needs. `MIMALLOC_PURGE_DELAY` in the environment still overrides this.
pub fn give_back_at_once() {
    // SAFETY: sets a number in a table of the allocator, which it reads as it goes; it touches no allocation.
    unsafe { mi_option_set_default(PURGE_DELAY, 0) };
}
