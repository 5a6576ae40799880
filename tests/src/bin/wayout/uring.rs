//! connect() through io_uring, with the kernel's interface only: one ring, one submission, one completion.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

const OPERATION_CONNECT: u8 = 16;
const WAIT: u32 = 1;
const SUBMISSIONS: i64 = 0x1000_0000;
/// Words of `io_uring_params` in which the kernel says where things are in the ring.
const SQ_TAIL: usize = 11;
const SQ_ARRAY: usize = 16;
const CQ_HEAD: usize = 20;
const CQ_MASK: usize = 22;
const CQ_ENTRIES: usize = 25;
/// More than a ring of one entry needs.
const SIZE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// Connects `socket` to the address in `address`.
pub(crate) fn connect(socket: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    let mut parameters = [0_u32; 30];
    // SAFETY: the kernel reads and writes `io_uring_params`, 120 bytes.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1_u32, parameters.as_mut_ptr()) };
    let ring = i32::try_from(ring).ok().filter(|ring| *ring >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let ring = unsafe { OwnedFd::from_raw_fd(ring) };
    let (queue, entries) = (Region::new(&ring, 0)?, Region::new(&ring, SUBMISSIONS)?);
    entries.write(&submission(socket, address));
    queue.word(parameters[SQ_ARRAY]).store(0, Ordering::Relaxed);
    queue.word(parameters[SQ_TAIL]).store(1, Ordering::Release);
    let none = std::ptr::null::<libc::c_void>();
    let fd = ring.as_fd().as_raw_fd();
    // SAFETY: `socket` and `address` live until the call has waited for the completion.
    let entered = unsafe { libc::syscall(libc::SYS_io_uring_enter, fd, 1_u32, 1_u32, WAIT, none, 0_usize) };
    if entered < 0 {
        return Err(io::Error::last_os_error());
    }
    let head = queue.word(parameters[CQ_HEAD]).load(Ordering::Acquire);
    let mask = queue.word(parameters[CQ_MASK]).load(Ordering::Acquire);
    // A completion is 16 bytes: what we called it, and after that its result.
    let result = queue.word(parameters[CQ_ENTRIES] + 16 * (head & mask) + 8).load(Ordering::Acquire) as i32;
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

/// The 64 bytes of an `io_uring_sqe`.
fn submission(socket: BorrowedFd<'_>, address: &[u8]) -> [u8; 64] {
    let mut entry = [0; 64];
    entry[0] = OPERATION_CONNECT;
    entry[4..8].copy_from_slice(&socket.as_raw_fd().to_ne_bytes());
    entry[8..16].copy_from_slice(&(address.len() as u64).to_ne_bytes());
    entry[16..24].copy_from_slice(&(address.as_ptr() as u64).to_ne_bytes());
    entry
}

/// A page of memory that is shared with the kernel.
struct Region(NonNull<libc::c_void>);

impl Region {
    fn new(ring: &OwnedFd, offset: i64) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping, at a place of the kernel's choice.
        Ok(Self(unsafe { mmap(None, SIZE, protection, flags, ring, offset)? }))
    }

    /// The word at `offset`, which the kernel told us.
    fn word(&self, offset: u32) -> &AtomicU32 {
        assert!(offset as usize + 4 <= SIZE.get() && offset.is_multiple_of(4));
        // SAFETY: aligned and inside the mapping, which lives as long as `self`; the kernel writes it as a whole.
        unsafe { &*self.0.as_ptr().cast::<u8>().add(offset as usize).cast::<AtomicU32>() }
    }

    fn write(&self, bytes: &[u8; 64]) {
        for (offset, word) in (0..).step_by(4).zip(bytes.chunks_exact(4)) {
            let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            self.word(offset).store(word, Ordering::Relaxed);
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more, since that would borrow `self`.
        let _ = unsafe { munmap(self.0, SIZE.get()) };
    }
}
