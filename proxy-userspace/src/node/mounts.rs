//! A private mount namespace in which `/etc/hosts` is a file of ours.

use std::{io, path::Path};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

const HOSTS: &str = "/etc/hosts";

/// Shows `file` as /etc/hosts to the calling thread and whatever it executes, and to nobody else. The process must
/// have one thread, or the others keep the old view.
///
/// # Errors
/// When /etc/hosts does not exist, or the caller may not mount (it takes CAP_SYS_ADMIN).
pub fn bind_hosts(file: &Path) -> io::Result<()> {
    if !Path::new(HOSTS).exists() {
        let text = "/etc/hosts does not exist, so nothing can be shown in its place: create an empty one";
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    let about = |doing: &'static str| {
        move |errno: nix::Error| {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("{doing}: {error}"))
        }
    };
    unshare(CloneFlags::CLONE_NEWNS).map_err(about("a mount namespace of its own"))?;
    // Mounts made outside go on to appear inside, and none made inside gets out.
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).map_err(about("making / a slave mount"))?;
    mount(Some(file), HOSTS, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|errno| about("binding over /etc/hosts")(errno))
}
