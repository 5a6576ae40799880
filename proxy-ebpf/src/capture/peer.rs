//! `getpeername`: the application sees the address that it dialled, wherever its connection went.

use proxy_common::direct::Tracked;

use crate::connect::Connect;

/// Answers for an IPv4 socket.
#[inline(always)]
pub(crate) fn show4(connect: &Connect) {
    if let Some(tracked) = rewritten(connect)
        && connect.destination4() == endpoint(tracked)
    {
        connect.write4(&tracked.original, tracked.original_port);
    }
}

/// Answers for an IPv6 socket; a v4-mapped address stays one.
#[inline(always)]
pub(crate) fn show6(connect: &Connect) {
    if let Some(tracked) = rewritten(connect)
        && connect.destination6() == endpoint(tracked)
    {
        connect.write6(&tracked.original, tracked.original_port);
    }
}

/// What the socket remembers, if it was sent somewhere else.
#[inline(always)]
fn rewritten(connect: &Connect) -> Option<&Tracked> {
    let memory = connect.tracked();
    if memory.is_null() {
        return None;
    }
    // SAFETY: not null, and lives until this program ends.
    let tracked = unsafe { &*memory };
    (tracked.flags & Tracked::REWRITTEN != 0).then_some(tracked)
}

/// Where it went. A socket may have been connected elsewhere since, where nobody looked.
#[inline(always)]
fn endpoint(tracked: &Tracked) -> proxy_common::Destination {
    proxy_common::Destination { address: tracked.endpoint_address, port: tracked.endpoint_port }
}
