//! The listeners that `Gateway` resources ask for: bound while a route is, closed when none is left.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use proxy_traffic::{Door, Snapshot, Workload};
use socket2::{Domain, Protocol, Socket, Type};

use crate::proxy::{Acceptor, AcceptorHandle, PlainDial, Workers};

/// Waiting connections that the kernel holds for us.
const BACKLOG: i32 = 4096;

/// Every gateway port of this process.
pub(super) struct Gateways {
    /// Who dials, in logs and metrics.
    workload: Arc<Workload>,
    open: BTreeMap<SocketAddr, AcceptorHandle>,
    /// Ports that could not be bound, and why.
    failed: BTreeMap<SocketAddr, String>,
}

impl Gateways {
    /// None open yet; `labels` are those that a Gateway's selector finds.
    pub(super) fn new(labels: BTreeMap<String, String>) -> Self {
        let (name, namespace) = ("istio-ingressgateway".to_owned(), "istio-system".to_owned());
        let workload = Arc::new(Workload { name, namespace, labels });
        Self { workload, open: BTreeMap::new(), failed: BTreeMap::new() }
    }

    /// Opens what `snapshot` wants and has not, closes what it no longer wants. Connections that exist live on.
    /// Safe to call again: what could not be bound is tried once more.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, workers: &Workers) {
        let wanted = |address: &SocketAddr| snapshot.gateways.contains_key(address);
        self.failed.retain(|address, _| wanted(address));
        let unwanted: Vec<_> = self.open.keys().filter(|address| !wanted(address)).copied().collect();
        for handle in unwanted.iter().filter_map(|address| self.open.remove(address)) {
            handle.stop();
        }
        for (&address, listener) in &snapshot.gateways {
            if !self.open.contains_key(&address) {
                self.open_one(address, &listener.name, workers);
            }
        }
    }

    fn open_one(&mut self, address: SocketAddr, name: &str, workers: &Workers) {
        let opened = listen(address).and_then(|listener| {
            let (workload, dial) = (self.workload.clone(), Arc::new(PlainDial));
            workers.add(Acceptor { listener, door: Door::Gateway(address), workload, dial })
        });
        match opened {
            Ok(handle) => {
                tracing::info!("{name} listens on {address}");
                self.failed.remove(&address);
                self.open.insert(address, handle);
            }
            Err(error) => {
                let why = format!("{name} cannot listen on {address}: {error}; it is tried again every 5 s");
                if self.failed.insert(address, why.clone()).is_none() {
                    tracing::warn!("{why}");
                }
            }
        }
    }

    /// What could not be bound, in full sentences.
    pub(super) fn problems(&self) -> impl Iterator<Item = &String> {
        self.failed.values()
    }

    /// Closes every port.
    pub(super) fn close(&mut self) {
        std::mem::take(&mut self.open).into_values().for_each(|handle| handle.stop());
    }
}

/// A listening socket at `address`; an IPv6 one leaves IPv4 alone.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
