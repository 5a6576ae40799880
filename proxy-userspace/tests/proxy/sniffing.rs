//! What clients say first decides where they go, and reaches who serves them unchanged.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use proxy_traffic::{EgressVerdict, Rule, Sniff};

use crate::{
    harness::{PATIENCE, one, reset, server, until},
    scene::{HTTP, Scene, Setting, TLS, hello, rule},
};

/// A server that says who it is, and then what it is told.
fn named(name: &'static str) -> impl Fn(TcpStream) + Send + Sync {
    move |mut stream| {
        // Some clients leave before they hear it.
        let _ = stream.write_all(name.as_bytes());
        crate::harness::echo(stream);
    }
}

/// Rules for a.example and anything below b.example, by server name or host.
fn by_name(of: Sniff) -> Vec<Rule> {
    let clusters = [("a", "a.example"), ("b", "*.b.example")];
    let rule = |(subset, pattern)| {
        let cluster = one(subset, server(named(subset)));
        if of == TLS { rule(&[pattern], &[], cluster) } else { rule(&[], &[pattern], cluster) }
    };
    clusters.map(rule).into()
}

fn blind() -> Rule {
    rule(&[], &[], one("any", server(named("any:"))))
}

/// The answer of the server called `name` to what it was told.
fn echoed(name: &str, bytes: &[u8]) -> Vec<u8> {
    [name.as_bytes(), bytes].concat()
}

fn ends(scene: &Scene, cluster: &str, name: &str) {
    let line = scene.proxy.line();
    assert!(line.contains(&format!(" cluster={cluster}")), "{line}");
    assert!(line.ends_with(&format!(" requested_server_name={name}")), "{line}");
}

#[test]
fn tls_goes_where_its_server_name_says() {
    for (name, padding, subset) in [
        ("a.example", 0, "a"),
        ("x.b.example", 0, "b"),
        ("A.Example", 5000, "a"),
        ("y.x.b.example", 12_000, "b"),
    ] {
        let scene = Setting { rules: by_name(TLS), sniff: TLS, ..Setting::default() }.start();
        let hello = hello(name, padding);
        assert_eq!(scene.says(&hello), echoed(subset, &hello));
        ends(&scene, &format!("outbound|9000|{subset}|"), &name.to_ascii_lowercase());
    }
}

#[test]
fn a_hello_may_come_byte_by_byte() {
    let scene = Setting { rules: by_name(TLS), sniff: TLS, ..Setting::default() }.start();
    let hello = hello("x.b.example", 0);
    let mut client = scene.dial();
    for byte in &hello {
        client.write_all(&[*byte]).unwrap();
    }
    let mut answer = vec![0; hello.len() + 1];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, echoed("b", &hello));
    // It is forwarded as any other from here on.
    client.write_all(b"more").unwrap();
    let mut more = [0; 4];
    client.read_exact(&mut more).unwrap();
    assert_eq!(&more, b"more");
    drop(client);
    ends(&scene, "outbound|9000|b|", "x.b.example");
}

#[test]
fn http_goes_where_its_host_says() {
    for (request, subset, name) in [
        ("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "a", "a.example"),
        ("GET / HTTP/1.1\r\nHost: A.example:8080\r\n\r\nbody", "a", "a.example"),
        ("GET / HTTP/1.1\r\nHost: x.b.example.\r\n\r\n", "b", "x.b.example"),
        ("GET http://a.example/ HTTP/1.1\r\nHost: x.b.example\r\n\r\n", "a", "a.example"),
        // Names that no rule has, or none.
        ("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n", "any", "b.example"),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", "any", "-"),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", "any", "-"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "any", "-"),
        ("SSH-2.0-x\r\n", "any", "-"),
    ] {
        let mut rules = by_name(HTTP);
        rules.push(blind());
        let scene = Setting { rules, sniff: HTTP, ..Setting::default() }.start();
        let who = if subset == "any" { "any:" } else { subset };
        assert_eq!(scene.says(request.as_bytes()), echoed(who, request.as_bytes()), "{request:?}");
        ends(&scene, &format!("outbound|9000|{subset}|"), name);
    }
}

#[test]
fn a_name_that_no_rule_has_follows_the_policy() {
    let hello = hello("evil.example", 0);
    let scene = Setting { rules: by_name(TLS), sniff: TLS, ..Setting::default() }.start();
    assert_eq!(scene.says(&hello), b"");
    let line = scene.proxy.line();
    assert!(line.contains("route=- cluster=BlackHoleCluster endpoint=-"), "{line}");
    assert!(line.contains("response_flags=UH cause=egress_denied"), "{line}");
    assert!(line.ends_with("requested_server_name=evil.example"), "{line}");

    let verdict = EgressVerdict::Allow;
    let scene = Setting { rules: by_name(TLS), sniff: TLS, verdict, ..Setting::default() }.start();
    assert_eq!(scene.says(&hello), hello);
    let line = scene.proxy.line();
    let want = format!("route=- cluster=PassthroughCluster endpoint={} ", scene.destination);
    assert!(line.contains(&want) && line.ends_with("requested_server_name=evil.example"), "{line}");
}

#[test]
fn a_silent_client_hears_a_server_that_speaks_first() {
    let mut rules = by_name(TLS);
    rules.push(blind());
    let scene = Setting { rules, sniff: TLS, ..Setting::default() }.start();
    let mut client = scene.dial();
    let mut banner = [0; 4];
    client.read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"any:");
    drop(client);
    ends(&scene, "outbound|9000|any|", "-");

    // ALLOW_ANY takes what no rule does.
    let verdict = EgressVerdict::Allow;
    let scene = Setting { rules: by_name(TLS), sniff: TLS, verdict, ..Setting::default() }.start();
    let mut client = scene.dial();
    until("it was let pass", || scene.proxy.metric("istio_tcp_connections_opened_total") == 1);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    drop(client);
    ends(&scene, "PassthroughCluster", "-");
}

#[test]
fn where_only_names_lead_on_a_silent_client_may_take_longer() {
    let scene = Setting { rules: by_name(TLS), sniff: TLS, ..Setting::default() }.start();
    let mut client = scene.dial();
    // Three times what it would have where something else could take it.
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&hello("a.example", 0)).unwrap();
    client.read_exact(&mut [0]).unwrap();
    drop(client);
    ends(&scene, "outbound|9000|a|", "a.example");
}

#[test]
fn who_begins_and_never_ends_falls_to_the_other_rules_with_all_it_said() {
    let mut rules = by_name(HTTP);
    rules.push(blind());
    let scene = Setting { rules, sniff: HTTP, ..Setting::default() }.start();
    let mut client = scene.dial();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.exa").unwrap();
    let mut answer = vec![0; 31];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, b"any:GET / HTTP/1.1\r\nHost: a.exa");
    drop(client);
    ends(&scene, "outbound|9000|any|", "-");
}

#[test]
fn no_more_than_16_kib_are_waited_for() {
    let mut rules = by_name(HTTP);
    rules.push(blind());
    let scene = Setting { rules, sniff: HTTP, ..Setting::default() }.start();
    let request = format!("GET / HTTP/1.1\r\nx: {}\r\nHost: a.example\r\n\r\n", "y".repeat(16 * 1024));
    assert_eq!(scene.says(request.as_bytes()), echoed("any:", request.as_bytes()));
    ends(&scene, "outbound|9000|any|", "-");
}

#[test]
fn a_client_that_ends_before_it_says_enough_falls_to_the_other_rules() {
    for said in [&b""[..], b"GET / HTTP/1.1\r\nHo"] {
        let mut rules = by_name(HTTP);
        rules.push(blind());
        let scene = Setting { rules, sniff: HTTP, ..Setting::default() }.start();
        assert_eq!(scene.says(said), echoed("any:", said));
        ends(&scene, "outbound|9000|any|", "-");
    }
}

#[test]
fn a_client_that_resets_while_it_is_listened_to_is_dc() {
    for said in [&b""[..], b"\x16\x03\x01"] {
        let scene = Setting { rules: by_name(TLS), sniff: TLS, ..Setting::default() }.start();
        let mut client = scene.dial();
        client.write_all(said).unwrap();
        until("the connection is being served", || scene.proxy.open() == 1);
        reset(client);
        let line = scene.proxy.line();
        assert!(line.contains("response_flags=DC cause=client_gone"), "{line}");
    }
}

#[test]
fn a_client_that_only_ends_its_side_hears_the_whole_answer() {
    let scene = Setting { rules: by_name(TLS), sniff: TLS, ..Setting::default() }.start();
    let mut client = scene.dial();
    let hello = hello("a.example", 100);
    client.write_all(&hello).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, echoed("a", &hello));
}
