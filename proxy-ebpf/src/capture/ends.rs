//! How connections end: counted, told, and their place given back.

use proxy_common::{
    direct::{EventCause, EventKind, Tracked},
    limit,
};

use crate::{
    books::{self, cell},
    maps, records,
};

/// The client's own end of a connection.
#[derive(Clone, Copy, Default)]
pub(crate) struct Source {
    pub(crate) address: [u8; 16],
    pub(crate) port: [u8; 2],
}

/// What was measured of an established connection.
#[derive(Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) rtt_us: u32,
}

/// One that held a place was never established. `blame`: the endpoint is at fault.
#[inline(always)]
pub(crate) fn failed(tracked: &Tracked, cause: EventCause, blame: bool, source: Source) {
    if let Some(account) = maps::account(&books::endpoint_key(tracked)) {
        if cause as u32 == EventCause::ClientGone as u32 {
            cell!(account, abandoned).add(1);
        } else {
            cell!(account, failed).add(1);
        }
    }
    let blamed = blame && tracked.flags & Tracked::OUTLIER != 0;
    let run = if blamed { books::lengthen_run(tracked) } else { 0 };
    let logged = records::is_logged();
    if logged || blamed {
        records::write(blamed, |event| {
            *event = records::about(tracked, EventKind::Failed, cause);
            (event.run, event.logged) = (run, u8::from(logged));
            (event.source, event.source_port) = (source.address, source.port);
        });
    }
}

/// One that was established has ended.
#[inline(always)]
pub(crate) fn closed(tracked: &Tracked, cause: EventCause, measured: Measured, source: Source) {
    if let Some(account) = maps::known_account(&books::endpoint_key(tracked)) {
        cell!(account, closed).add(1);
        cell!(account, received).add(measured.received);
        cell!(account, sent).add(measured.sent);
        cell!(account, rtt_us).add(u64::from(measured.rtt_us));
    }
    if records::is_logged() {
        records::write(false, |event| {
            *event = records::about(tracked, EventKind::Closed, cause);
            (event.received, event.sent, event.rtt_us) = (measured.received, measured.sent, measured.rtt_us);
            (event.source, event.source_port, event.logged) = (source.address, source.port, 1);
        });
    }
}

/// The socket is gone for its process. An established connection ends later, but its place is free now.
#[inline(always)]
pub(crate) fn abandoned(tracked: &mut Tracked) {
    let taken = books::let_go(tracked);
    if !limit::releases(taken) || tracked.flags & Tracked::ESTABLISHED != 0 {
        return;
    }
    if taken == limit::RESERVED {
        // No route, or somebody else's program said no: the kernel never asked the endpoint.
        failed(tracked, EventCause::Unknown, false, Source::default());
    } else {
        // Impatience is no proof, but one whose SYN went unanswered had reason.
        let blame = tracked.flags & Tracked::RETRIED != 0;
        failed(tracked, EventCause::ClientGone, blame, Source::default());
    }
}
