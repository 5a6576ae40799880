//! Listeners that ask for what clients say first, policies for what may leave, and clients that say it.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::Arc,
    thread,
};

use proxy_traffic::{
    Cluster, Destination, Door, Egress, EgressPolicy, EgressVerdict, Listener, Match, Route, Rule, Snapshot,
    Sniff,
};
use shunt::proxy::{Context, Dial, Family, PlainDial};
use socket2::{Domain, Socket, Type};

use crate::harness::{Proxy, echo};

/// A proxy, and an address that its clients mean which is not its own.
pub(crate) struct Scene {
    pub(crate) proxy: Proxy,
    pub(crate) destination: SocketAddr,
}

/// What makes a scene.
pub(crate) struct Setting {
    /// Those of the destination's listener; without any there is no listener.
    pub(crate) rules: Vec<Rule>,
    pub(crate) sniff: Sniff,
    pub(crate) verdict: EgressVerdict,
    /// Whether somebody speaks HTTP on the destination's port.
    pub(crate) http: bool,
}

pub(crate) const TLS: Sniff = Sniff { tls: true, http: false };
pub(crate) const HTTP: Sniff = Sniff { tls: false, http: true };

impl Default for Setting {
    fn default() -> Self {
        Self { rules: vec![], sniff: Sniff::default(), verdict: EgressVerdict::Close, http: false }
    }
}

impl Setting {
    /// Starts it; whoever is dialled at the destination itself is an echo.
    pub(crate) fn start(self) -> Scene {
        self.with(None, |_| {})
    }

    /// The same with another way to dial, and another context.
    pub(crate) fn with(self, dial: Option<Arc<dyn Dial>>, change: impl FnOnce(&mut Context)) -> Scene {
        let listener = shared("0.0.0.0:0".parse().unwrap());
        let destination = SocketAddr::from(([127, 0, 0, 7], listener.local_addr().unwrap().port()));
        let mut snapshot = Snapshot::default();
        if !self.rules.is_empty() {
            let listener = Listener { rules: self.rules, sniff: self.sniff, ..Listener::default() };
            snapshot.listeners.insert(destination, Arc::new(listener));
        }
        let mesh = EgressPolicy { verdict: self.verdict, ..EgressPolicy::default() };
        snapshot.egress = Egress { mesh, sidecars: vec![] };
        snapshot.http_ports.extend(self.http.then_some(destination.port()));
        let dial = dial.unwrap_or_else(|| Arc::new(OpensServer(destination)));
        let proxy = Proxy::under(snapshot, listener, Door::Mesh, dial, change);
        Scene { proxy, destination }
    }
}

impl Scene {
    pub(crate) fn dial(&self) -> TcpStream {
        let stream = Proxy::dial_to(self.destination);
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Says `bytes`, and everything that comes back until the end of the stream.
    pub(crate) fn says(&self, bytes: &[u8]) -> Vec<u8> {
        let mut client = self.dial();
        // Who is turned away at once may not take it.
        let _ = client.write_all(bytes);
        let _ = client.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        answer
    }
}

/// Connections that say one of these names go to `cluster`; all of them without.
pub(crate) fn rule(server_names: &[&str], authorities: &[&str], cluster: Cluster) -> Rule {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let one = Match { server_names: own(server_names), authorities: own(authorities), ..Match::default() };
    let matches = if one == Match::default() { vec![] } else { vec![one] };
    let destinations = vec![Destination { weight: 1, cluster: Arc::new(cluster) }];
    Rule { matches, route: Arc::new(Route { name: "default/test".to_owned(), destinations }) }
}

/// A ClientHello that asks for `name`, with `padding` bytes of another extension before.
pub(crate) fn hello(name: &str, padding: usize) -> Vec<u8> {
    let block =
        |width: usize, content: &[u8]| [&(content.len() as u32).to_be_bytes()[4 - width..], content].concat();
    let list = block(2, &[&[0][..], &block(2, name.as_bytes())].concat());
    let extensions = [&[0, 51][..], &block(2, &vec![5; padding]), &[0, 0], &block(2, &list)].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &block(2, &[0x13, 1]), &block(1, &[0]), &block(2, &extensions)];
    let message = [&[1][..], &block(3, &body.concat())].concat();
    [&[22, 3, 1][..], &block(2, &message)].concat()
}

/// A listener that shares its port with others of this user.
pub(crate) fn shared(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(8).unwrap();
    socket.into()
}

/// Opens the server at the client's destination when it is dialled: earlier, the client would have met it itself.
pub(crate) struct OpensServer(pub(crate) SocketAddr);

impl Dial for OpensServer {
    fn socket(&self, family: Family) -> io::Result<OwnedFd> {
        let server = shared(self.0);
        thread::spawn(move || echo(server.accept().unwrap().0));
        PlainDial.socket(family)
    }

    fn datagram(&self, family: Family) -> io::Result<OwnedFd> {
        PlainDial.datagram(family)
    }
}
