//! What may not leave: it is accepted, told so, and counted. What names lead to, and what nobody is led to.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    sync::Arc,
};

use proxy_traffic::{ClusterKind, Door, Egress, EgressPolicy, EgressVerdict, Snapshot, Workload};
use shunt::proxy::{Dial, Family, Pending, PlainDial, ServeDns};

use crate::{
    harness::{Names, PATIENCE, Proxy, cluster, echo, is_served, one, server},
    scene::{HTTP, Scene, Setting, TLS, hello, rule},
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n";

fn blocked(scene: &Scene, name: &str) {
    let line = scene.proxy.line();
    let destination = scene.destination;
    let want = format!("original_destination={destination} route=- cluster=BlackHoleCluster endpoint=- ");
    assert!(line.contains(&want), "{line}");
    assert!(line.contains(" response_flags=UH cause=egress_denied path=proxy "), "{line}");
    assert!(line.ends_with(&format!(" requested_server_name={name}")), "{line}");
    let text = scene.proxy.context.metrics.text().unwrap();
    let count = format!(
        "shunt_egress_blocked_total{{source_workload=\"client\",source_workload_namespace=\"default\",\
         destination=\"{destination}\",protocol=\"tcp\",verdict=\"close\"}} 1"
    );
    assert!(text.contains(&count), "{text}");
    assert!(text.contains("destination_service=\"BlackHoleCluster\""), "{text}");
}

#[test]
fn a_connection_that_may_not_leave_ends_at_once() {
    let scene = Setting::default().start();
    let mut client = scene.dial();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    blocked(&scene, "-");
}

#[test]
fn its_client_sees_an_end_and_no_reset_whatever_it_said() {
    for http in [false, true] {
        let scene = Setting { http, ..Setting::default() }.start();
        assert_eq!(scene.says(&hello("evil.example", 5000)), b"");
        // On a port for HTTP nobody asks for server names.
        blocked(&scene, "-");
    }
}

#[test]
fn http_is_answered_in_http() {
    for (status, want) in [(502, "HTTP/1.1 502 Bad Gateway\r\n"), (404, "HTTP/1.1 404 Not Found\r\n")] {
        let scene =
            Setting { http: true, ..Setting::default() }.with(None, |context| context.http_status = status);
        let answer = String::from_utf8(scene.says(REQUEST)).unwrap();
        assert!(answer.starts_with(want) && answer.ends_with("\r\n\r\n"), "{answer}");
        for header in ["content-length: 0", "connection: close", "server: istio-envoy", "date: "] {
            assert!(answer.contains(&format!("\r\n{header}")), "{header} in {answer}");
        }
        blocked(&scene, "evil.example");
        let line = scene.proxy.line();
        let bytes = format!(" sent_bytes={} received_bytes={} ", answer.len(), REQUEST.len());
        assert!(line.contains(&bytes), "{line}");
        assert_eq!(scene.proxy.metric("istio_tcp_sent_bytes_total"), answer.len() as u64);
    }
}

/// A client that is still sending would lose the answer to a reset.
#[test]
fn the_answer_arrives_though_the_request_goes_on() {
    let scene = Setting { http: true, ..Setting::default() }.start();
    let mut client = scene.dial();
    client.write_all(b"POST / HTTP/1.1\r\nHost: evil.example\r\ncontent-length: 40000\r\n\r\n").unwrap();
    let mut begin = [0; 12];
    client.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 502");
    client.write_all(&[b'x'; 40_000]).unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"\r\n\r\n"));
    drop(client);
    blocked(&scene, "evil.example");
}

#[test]
fn a_client_that_never_ends_is_cut_off_after_its_answer() {
    let scene = Setting { http: true, ..Setting::default() }.start();
    let mut client = scene.dial();
    client.write_all(REQUEST).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 502"));
    // It keeps its side open, and the record closes all the same.
    blocked(&scene, "evil.example");
    drop(client);
}

#[test]
fn a_host_that_no_rule_has_is_answered_too() {
    let rules = vec![rule(&[], &["a.example"], one("", server(echo)))];
    let scene = Setting { rules, sniff: HTTP, ..Setting::default() }.start();
    assert!(scene.says(REQUEST).starts_with(b"HTTP/1.1 502"));
    blocked(&scene, "evil.example");
}

#[test]
fn where_all_may_leave_nothing_is_listened_to() {
    let setting = Setting { http: true, verdict: EgressVerdict::Allow, ..Setting::default() };
    let scene = setting.start();
    assert_eq!(scene.says(REQUEST), REQUEST);
    let line = scene.proxy.line();
    assert!(
        line.contains("cluster=PassthroughCluster") && line.ends_with("requested_server_name=-"),
        "{line}"
    );
    assert!(!scene.proxy.context.metrics.text().unwrap().contains("shunt_egress_blocked_total{"));
}

#[test]
fn gateways_follow_no_egress_policy() {
    let forbidden = |snapshot: &mut Snapshot| {
        let mesh = EgressPolicy { verdict: EgressVerdict::Close, ..EgressPolicy::default() };
        snapshot.egress = Egress { mesh, sidecars: vec![] };
    };
    let proxy = Proxy::with(vec![(1, one("", server(echo)))], true, Arc::new(PlainDial));
    proxy.context.snapshot.rcu(|before| {
        let mut after = Snapshot::clone(before);
        forbidden(&mut after);
        after
    });
    assert!(is_served(&proxy.dial()));
}

/// Through a rule as well; and to a gateway's, which is on every address.
#[test]
fn no_rule_leads_to_the_daemons_own_listener() {
    for (bind, gateway) in [("127.0.0.1:0", false), ("0.0.0.0:0", true)] {
        let listener = TcpListener::bind(bind).unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = SocketAddr::from(([127, 0, 0, 1], port));
        let proxy = Proxy::on(listener, vec![(1, one("", own))], gateway, Arc::new(PlainDial));
        assert!(!is_served(&Proxy::dial_to(own)));
        let line = proxy.line();
        assert!(line.contains("response_flags=NR cause=no_route"), "{line}");
    }
}

/// Never dials: no test sends anything to these addresses.
struct Never;

impl Dial for Never {
    fn socket(&self, _: Family) -> io::Result<OwnedFd> {
        Err(io::Error::other("never"))
    }

    fn datagram(&self, family: Family) -> io::Result<OwnedFd> {
        self.socket(family)
    }
}

/// The line of a client that says `name` where the name leads on, and has `addresses`.
fn led(port: Option<u16>, name: &str, addresses: &str) -> (Scene, String) {
    let rules = vec![rule(&["*"], &[], cluster("", ClusterKind::Named(port)))];
    let parse = |text: &str| text.parse::<IpAddr>().unwrap();
    let addresses = addresses.split_whitespace().map(parse).collect();
    let names = Names([("a.example".to_owned(), addresses)].into());
    let setting = Setting { rules, sniff: TLS, ..Setting::default() };
    let scene = setting.with(Some(Arc::new(Never)), |context| context.resolver = Arc::new(names));
    let mut client = scene.dial();
    client.write_all(&hello(name, 0)).unwrap();
    // It has ended, one way or another.
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    let line = scene.proxy.line();
    (scene, line)
}

#[test]
fn a_name_leads_to_its_own_address_wherever_the_client_was_going() {
    for (port, addresses, want) in [
        (Some(443), "203.0.113.9", "203.0.113.9:443"),
        (Some(443), "2001:db8::1 203.0.113.9", "203.0.113.9:443"),
        (Some(443), "2001:db8::1", "[2001:db8::1]:443"),
        (None, "203.0.113.9", "203.0.113.9:PORT"),
        // What it dialled is loopback: the name does not make that right.
        (Some(443), "127.0.0.7 203.0.113.9", "203.0.113.9:443"),
    ] {
        let (scene, line) = led(port, "a.example", addresses);
        let want = want.replace("PORT", &scene.destination.port().to_string());
        assert!(line.contains(&format!("original_destination={} ", scene.destination)), "{line}");
        assert!(line.contains(&format!(" endpoint={want} ")), "{line}");
        assert!(line.ends_with("cause=connect_failed path=proxy requested_server_name=a.example"), "{line}");
    }
}

#[test]
fn a_name_without_an_address_or_with_a_forbidden_one_leads_nowhere() {
    for (name, addresses, cause) in [
        ("a.example", "", "unresolved"),
        ("b.example", "203.0.113.9", "unresolved"),
        ("a.example", "127.0.0.1", "egress_denied"),
        ("a.example", "127.0.0.7", "egress_denied"),
        ("a.example", "169.254.169.254 ::1", "egress_denied"),
        ("a.example", "fd00:ec2::254", "egress_denied"),
        ("a.example", "::ffff:127.0.0.1", "egress_denied"),
        // An address as a name says no more than dialling it did, and this one is loopback.
        ("10.0.0.1", "", "unresolved"),
        ("127.0.0.7", "", "egress_denied"),
    ] {
        let (_, line) = led(Some(443), name, addresses);
        let want = format!("response_flags=UH cause={cause} path=proxy requested_server_name={name}");
        assert!(line.ends_with(&want), "{name} {addresses}: {line}");
    }
}

#[test]
fn a_host_without_an_address_is_unavailable() {
    let rules = vec![rule(&[], &["*"], cluster("", ClusterKind::Named(None)))];
    let scene = Setting { rules, sniff: HTTP, ..Setting::default() }.start();
    assert!(scene.says(REQUEST).starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"));
    let line = scene.proxy.line();
    assert!(line.contains("response_flags=UH cause=unresolved"), "{line}");
}

/// Answers every question with "names".
struct Answers;

impl ServeDns for Answers {
    fn serve(
        &self,
        stream: tokio::net::TcpStream,
        workload: &Arc<Workload>,
        resolver: SocketAddr,
        _: Arc<dyn Dial>,
    ) -> Pending<'_, ()> {
        let text = format!("{} asks {resolver}", workload.name);
        Box::pin(async move {
            stream.writable().await.unwrap();
            stream.try_write(text.as_bytes()).unwrap();
        })
    }
}

/// As root: the port is a privileged one.
#[test]
fn what_asks_a_name_server_is_handed_over() {
    let listener = TcpListener::bind("127.67.53.1:53").unwrap();
    let address = listener.local_addr().unwrap();
    let change = |context: &mut shunt::proxy::Context| context.dns = Some(Arc::new(Answers));
    let dial = Arc::new(PlainDial);
    let proxy = Proxy::under(Snapshot::default(), listener, Door::Mesh, dial, change);
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("client asks {address}"));
    let line = proxy.line();
    let want =
        "route=- cluster=- endpoint=- sent_bytes=0 received_bytes=0 response_flags=- cause=names path=proxy";
    assert!(line.contains(want), "{line}");
}
