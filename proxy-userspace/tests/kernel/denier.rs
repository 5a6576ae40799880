//! Somebody else's program that says no to every connect.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use nix::libc;

const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const CGROUP_SOCK_ADDR: u64 = 18;
const CONNECT4: u64 = 10;
/// `r0 = 0`, `exit`.
const NO: [u64; 2] = [0xb7, 0x95];

/// The program on one cgroup; gone with this.
pub(crate) struct Denier {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Denier {
    pub(crate) fn attach(cgroup: &Path) -> Self {
        let cgroup = File::open(cgroup).unwrap();
        let (code, license) = (NO.as_ptr() as u64, c"GPL".as_ptr() as u64);
        let count = (NO.len() as u64) << 32;
        let program =
            bpf(PROG_LOAD, &[CGROUP_SOCK_ADDR | count, code, license, 0, 0, 0, 0, 0, CONNECT4 << 32]);
        let [program_fd, cgroup_fd] =
            [program.as_raw_fd(), cgroup.as_raw_fd()].map(|fd| u64::from(fd.cast_unsigned()));
        let link = bpf(LINK_CREATE, &[program_fd | cgroup_fd << 32, CONNECT4]);
        Self { _program: program, _link: link }
    }
}

fn bpf(command: libc::c_int, attributes: &[u64]) -> OwnedFd {
    // SAFETY: the attributes are initialised and of the stated size; what they point at outlives the call.
    let status =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    assert!(status >= 0, "{}", io::Error::last_os_error());
    // SAFETY: both commands give a new descriptor.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(status).unwrap()) }
}
