//! Connections that find nobody: each has its flag, its cause and one record.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use proxy_traffic::ClusterKind;
use shunt::proxy::{Dial, Family, PlainDial};

use crate::{
    harness::{Blackhole, Proxy, cluster, echo, nobody, one, reset, server, until},
    scene::{OpensServer, shared},
};

/// Dials, sees the connection end without a byte, and expects this in its record.
fn expect(proxy: &Proxy, flag: &str, cause: &str) {
    let mut client = proxy.dial();
    // The proxy may close before or after this.
    let ended = client.read(&mut [0]);
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let line = proxy.line();
    assert!(line.contains(&format!("response_flags={flag} cause={cause} path=proxy")), "{line}");
    let label = format!("response_flags=\"{flag}\"");
    assert!(proxy.context.metrics.text().unwrap().contains(&label));
    for name in ["istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total"] {
        assert_eq!(proxy.metric(name), 1, "{name}");
    }
}

#[test]
fn a_missing_cluster_is_nc() {
    let missing = cluster("v9", ClusterKind::Missing("subset v9 is not defined".to_owned()));
    expect(&Proxy::start(vec![(1, missing)]), "NC", "no_cluster");
}

#[test]
fn a_cluster_without_endpoints_is_uh() {
    let empty = cluster("", ClusterKind::Endpoints(vec![]));
    expect(&Proxy::start(vec![(1, empty)]), "UH", "no_endpoint");
}

#[test]
fn a_refused_connection_is_uf() {
    expect(&Proxy::start(vec![(1, one("", nobody()))]), "UF,URX", "connect_refused");
}

#[test]
fn a_silent_endpoint_is_uf_after_the_connect_timeout() {
    let hole = Blackhole::new();
    let mut silent = one("", hole.address);
    silent.connect_timeout = Duration::from_millis(100);
    expect(&Proxy::start(vec![(1, silent)]), "UF,URX", "connect_timeout");
}

#[test]
fn a_socket_that_cannot_be_opened_is_uf() {
    struct Broken;
    impl Dial for Broken {
        fn socket(&self, _: Family) -> io::Result<OwnedFd> {
            Err(io::Error::other("out of sockets"))
        }

        fn datagram(&self, family: Family) -> io::Result<OwnedFd> {
            self.socket(family)
        }
    }
    let proxy = Proxy::with(vec![(1, one("", nobody()))], false, Arc::new(Broken));
    expect(&proxy, "UF,URX", "connect_failed");
}

#[test]
fn a_client_that_resets_while_its_endpoint_is_dialled_is_dc() {
    let hole = Blackhole::new();
    let proxy = Proxy::start(vec![(1, one("", hole.address))]);
    let client = proxy.dial();
    until("the connection is being served", || proxy.open() == 1);
    reset(client);
    let line = proxy.line();
    assert!(line.contains("response_flags=DC cause=client_gone"), "{line}");
}

#[test]
fn a_gateway_without_a_rule_is_nr() {
    expect(&Proxy::with(vec![], true, Arc::new(PlainDial)), "NR", "no_route");
}

#[test]
fn a_gateway_with_a_rule_forwards() {
    let proxy = Proxy::with(vec![(1, one("", server(echo)))], true, Arc::new(PlainDial));
    let mut client = proxy.dial();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    drop(client);
    assert!(
        proxy.line().contains("route=default/test cluster=outbound|9000||echo.default.svc.cluster.local")
    );
}

/// Unclaimed, and addressed to the daemon itself: passing it on would come back here, for ever.
#[test]
fn the_daemons_own_listener_is_not_dialled_in_circles() {
    expect(&Proxy::start(vec![]), "NR", "no_route");
}

#[test]
fn an_unclaimed_destination_is_dialled_as_it_is() {
    let listener = shared("0.0.0.0:0".parse().unwrap());
    let destination = SocketAddr::from(([127, 0, 0, 7], listener.local_addr().unwrap().port()));
    let proxy = Proxy::on(listener, vec![], false, Arc::new(OpensServer(destination)));
    let mut client = TcpStream::connect(destination).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    drop(client);
    let line = proxy.line();
    let want = format!(
        "original_destination={destination} route=- cluster=PassthroughCluster endpoint={destination}"
    );
    assert!(line.contains(&want) && line.contains("sent_bytes=5 received_bytes=5"), "{line}");
}
