//! Atomic numbers in maps.
//!
//! The target's `AtomicU64` can load and store, no more: the compiler thinks that it has nothing else. It has, since
//! Linux 5.12, and these are the instructions.

use core::{arch::asm, cell::UnsafeCell};

/// A number in a map's element, on which other CPUs are at work too.
#[repr(transparent)]
pub(crate) struct Number(UnsafeCell<u64>);

impl Number {
    /// # Safety
    /// `number` is aligned, and valid while the program runs; it is accessed through this type only.
    #[inline(always)]
    pub(crate) unsafe fn at<'a>(number: *mut u64) -> &'a Self {
        // SAFETY: the caller's word, and the layout is the same.
        unsafe { &*number.cast() }
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        // SAFETY: valid; an aligned word is read in one instruction.
        unsafe { self.0.get().read_volatile() }
    }

    /// Adds `value`; what was there before.
    #[inline(always)]
    pub(crate) fn add(&self, value: u64) -> u64 {
        let mut value = value;
        // SAFETY: one instruction on a valid word.
        unsafe {
            asm!("{value} = atomic_fetch_add((u64 *)({at} + 0), {value})",
                at = in(reg) self.0.get(), value = inout(reg) value, options(nostack));
        }
        value
    }

    /// Puts `value` there; what was there before.
    #[inline(always)]
    pub(crate) fn exchange(&self, value: u64) -> u64 {
        let mut value = value;
        // SAFETY: one instruction on a valid word.
        unsafe {
            asm!("{value} = xchg_64({at} + 0, {value})",
                at = in(reg) self.0.get(), value = inout(reg) value, options(nostack));
        }
        value
    }

    /// Puts `value` there if `expected` is; whether it was.
    #[inline(always)]
    pub(crate) fn replace(&self, expected: u64, value: u64) -> bool {
        let mut found = expected;
        // SAFETY: one instruction on a valid word.
        unsafe {
            asm!("r0 = cmpxchg_64({at} + 0, r0, {value})",
                at = in(reg) self.0.get(), value = in(reg) value, inout("r0") found, options(nostack));
        }
        found == expected
    }
}
