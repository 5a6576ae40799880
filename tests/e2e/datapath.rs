//! Who carries a story's connections: the kernel by itself, or the daemon. Most stories are told once for each.

use tests::client::{connect, must_be_refused};
use tests::mesh::Workload;
use tests::metrics::Metrics;

/// The verdict that a story is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datapath {
    /// The kernel routes what it can.
    Direct,
    /// The daemon carries every connection.
    Steer,
}

/// Makes two tests of each story, `STORY::direct` and `STORY::steer`: `twice! { eighty_twenty, by_port }`.
macro_rules! twice {
    ($($story:ident),+ $(,)?) => {
        $(
            mod $story {
                use super::$story as story;
                use crate::datapath::Datapath;

                #[test]
                fn direct() {
                    story(Datapath::Direct);
                }

                #[test]
                fn steer() {
                    story(Datapath::Steer);
                }
            }
        )+
    };
}

impl Datapath {
    /// What `shunt run` is told.
    pub(crate) fn args(self) -> &'static str {
        match self {
            Self::Direct => "--datapath auto",
            Self::Steer => "--datapath steer",
        }
    }

    /// The field `path` of the access log.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Steer => "proxy",
        }
    }

    /// The verdict as `shunt routes` calls it.
    pub(crate) fn verdict(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Steer => "steer",
        }
    }

    /// The verdict as `shunt_connects_total` calls it.
    pub(crate) fn counted(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Steer => "steered",
        }
    }

    /// Connections that are open now.
    pub(crate) fn open(self, metrics: &Metrics) -> u64 {
        match self {
            Self::Direct => metrics.sum("shunt_direct_connections_open", &[]),
            Self::Steer => metrics.sum("shunt_connections_open", &[]),
        }
    }

    /// Asserts that a connection of `workload` to `to` comes to nothing: the kernel refuses it, the daemon accepts
    /// and closes.
    #[track_caller]
    pub(crate) fn must_turn_away(self, workload: &Workload, to: std::net::SocketAddr) {
        match self {
            Self::Direct => must_be_refused(workload, to),
            Self::Steer => connect(workload, to).must_be_closed(),
        }
    }
}
