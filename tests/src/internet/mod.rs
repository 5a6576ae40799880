//! A small internet beside a mesh: one namespace with public addresses, in which a name server, web servers and others
//! listen. Addresses are those that are reserved for examples (203.0.113.0/24, 198.51.100.0/24, 2001:db8::/32).

mod authority;
mod curl;
mod web;
pub mod wire;
mod zone;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

pub use self::curl::Curled;
pub use self::web::Request;
pub use self::zone::{Lie, Question, Zone, read_framed, write_framed};
use self::{authority::Authority, web::Web, zone::NameServer};
use crate::mesh::{Mesh, Workload};
use crate::server::Server;
use crate::sweep::unique;

/// The name server's addresses.
pub const RESOLVERS: [&str; 3] = ["203.0.113.53", "203.0.113.54", "2001:db8::53"];
/// Where every address answers each line with itself and the line.
pub const ECHO: u16 = 9000;
/// Where every address speaks first: one line with itself and the client's address.
pub const BANNER: u16 = 3306;

/// The internet. Every address of it serves HTTP, HTTPS, [`ECHO`] and [`BANNER`].
#[derive(Debug)]
pub struct Internet {
    place: Workload,
    zone: Arc<Zone>,
    authority: Arc<Authority>,
    web: Web,
    dir: PathBuf,
    _names: NameServer,
    _others: [Server; 2],
}

impl Internet {
    /// An internet that routes to and from `mesh`, with a name server and no host yet.
    pub fn new(mesh: &Mesh) -> Self {
        let place = mesh.workload("internet");
        let dir = std::env::temp_dir().join(unique("internet"));
        fs::create_dir_all(&dir).expect("a folder");
        let resolvers = RESOLVERS.map(address);
        resolvers.iter().for_each(|address| place.claim(mesh, *address));
        let zone = Arc::new(Zone::default());
        let authority = Arc::new(Authority::new(&zone));
        fs::write(dir.join("authority.pem"), &authority.pem).expect("write a certificate");
        Self {
            web: Web::start(&place, authority.server()),
            _names: zone::serve(&place, &resolvers, &zone),
            _others: [echo(&place), banner(&place)],
            authority,
            place,
            zone,
            dir,
        }
    }

    /// Adds a host; addresses that are there already it shares with others.
    pub fn host(&self, mesh: &Mesh, name: &str, addresses: &[&str]) {
        let addresses: Vec<_> = addresses.iter().copied().map(address).collect();
        addresses.iter().for_each(|address| self.claim(mesh, *address));
        self.zone.set(name, &addresses, 60);
    }

    /// Adds an address without a name.
    pub fn claim(&self, mesh: &Mesh, address: IpAddr) {
        let has = self.place.enter(|| std::net::UdpSocket::bind((address, 0)).is_ok());
        if !has {
            self.place.claim(mesh, address);
        }
    }

    /// The namespace.
    pub fn place(&self) -> &Workload {
        &self.place
    }

    /// What the name server says.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The requests that its web servers have had.
    pub fn requests(&self) -> Vec<Request> {
        self.web.requests()
    }

    /// A TLS client for stories that look at each byte: it is about to greet `name`, at a length of `protocols` times 100 bytes.
    pub fn tls_client(&self, name: &str, protocols: usize) -> rustls::ClientConnection {
        self.authority.client(name, protocols)
    }

    /// `/etc/resolv.conf` of those who ask its name server over IPv4.
    pub fn resolv_conf(&self) -> String {
        format!("nameserver {}\noptions timeout:2 attempts:2\n", RESOLVERS[0])
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Answers each line with the address that was dialled and the line.
fn echo(place: &Workload) -> Server {
    Server::start(place, ECHO, |mut stream| {
        let at = stream.local_addr()?.ip().to_canonical();
        crate::server::answer_lines(&mut stream, &at.to_string())
    })
}

/// Speaks first, then is silent until the client ends.
fn banner(place: &Workload) -> Server {
    Server::start(place, BANNER, |mut stream| {
        let (at, from) = (stream.local_addr()?.ip().to_canonical(), stream.peer_addr()?.ip().to_canonical());
        std::io::Write::write_all(&mut stream, format!("{at} greets {from}\n").as_bytes())?;
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    })
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is an IP address"))
}
