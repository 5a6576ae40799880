//! Atomic instructions. The compiler's own need compare-and-swap, which the target is said not to have; the kernel has
//! had these since 5.12.

use core::arch::asm;

/// Adds `value` to the cell and gives what was there before. Wraps around, so that adding `u64::MAX` subtracts one.
///
/// # Safety
/// `cell` is valid and aligned, and others change it by atomic instructions only.
#[inline(always)]
pub(crate) unsafe fn fetch_add(cell: *mut u64, value: u64) -> u64 {
    let mut taken = value;
    // SAFETY: one instruction on the cell that the caller vouches for.
    unsafe {
        asm!("{taken} = atomic_fetch_add((u64 *)({cell} + 0), {taken})", cell = in(reg) cell, taken = inout(reg) taken)
    };
    taken
}

/// Puts `value` into the cell and gives what was there before.
///
/// # Safety
/// As for [`fetch_add`].
#[inline(always)]
pub(crate) unsafe fn swap(cell: *mut u64, value: u64) -> u64 {
    let mut taken = value;
    // SAFETY: one instruction on the cell that the caller vouches for.
    unsafe {
        asm!("{taken} = xchg_64({cell} + 0, {taken})", cell = in(reg) cell, taken = inout(reg) taken)
    };
    taken
}
