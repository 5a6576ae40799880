//! Connections to name servers. What no listener claims is handed to who answers for names; its record says `names`, and neither
//! a cluster nor bytes: nothing was forwarded.

use std::sync::Arc;

use proxy_traffic::{Door, Sniffed, route};
use tokio::net::TcpStream;

use super::{ServeDns, record::Record};

/// The port of name servers.
const PORT: u16 = 53;

/// Who serves this connection, if it is one of these.
pub(super) fn server(record: &Record) -> Option<Arc<dyn ServeDns>> {
    if record.destination().port() != PORT {
        return None;
    }
    let entrance = record.entrance();
    let server = entrance.context.dns.as_ref()?;
    let snapshot = entrance.context.snapshot.load();
    let flow = record.flow(&entrance, &Sniffed::Nothing);
    let is_unclaimed = flow.door == Door::Mesh && matches!(route::select(&snapshot, &flow), Ok(None));
    is_unclaimed.then(|| Arc::clone(server))
}

/// Serves it to its end.
pub(super) async fn serve(server: Arc<dyn ServeDns>, downstream: TcpStream, mut record: Box<Record>) {
    let entrance = record.entrance();
    let owner = &entrance.owner;
    server.serve(downstream, &owner.workload, record.destination(), Arc::clone(&owner.dial)).await;
    record.served_names();
}
