//! Who is ejected, as `ENDPOINTS` and `CLUSTERS` say it.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use proxy_traffic::Cluster;

#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) version: u64,
    pub(super) ejected: BTreeSet<SocketAddr>,
    pub(super) panic: bool,
}

pub(super) fn of(_: &Cluster) -> Arc<Health> {
    Arc::default()
}
