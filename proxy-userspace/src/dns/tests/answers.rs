//! Tables: which question gets which answer.

use hickory_proto::{
    op::{Edns, ResponseCode},
    rr::RecordType,
};
use proxy_traffic::Host;

use super::{
    super::{Verdict, answer},
    *,
};

const A: RecordType = RecordType::A;
const AAAA: RecordType = RecordType::AAAA;

#[track_caller]
fn answered(name: &str, kind: RecordType) -> Option<Vec<String>> {
    match ask(&question(name, kind).to_vec().unwrap()) {
        Verdict::Answer(bytes) => Some(told(&Message::from_vec(&bytes).unwrap())),
        Verdict::Forward => None,
        Verdict::Drop => panic!("{name} dropped"),
    }
}

#[track_caller]
fn check(name: &str, kind: RecordType, want: &[&str]) {
    let want: Vec<_> = want.iter().map(|&line| line.to_owned()).collect();
    assert_eq!(answered(name, kind), Some(want), "{name} {kind}");
}

#[test]
fn hosts_of_the_mesh_are_answered_by_every_name_they_have() {
    for name in [
        "echo.default.svc.cluster.local.",
        "echo.default.svc.",
        "echo.default.",
        "echo.",
        "ECHO.default.svc.Cluster.Local.",
    ] {
        check(name, A, &[&format!("{name} 30 10.96.0.7")]);
    }
    check("dual.other.", A, &["dual.other. 30 10.96.0.8"]);
    check("dual.other.svc.", AAAA, &["dual.other.svc. 30 fd00:96::8"]);
    check("HTTPbin.org.", A, &["HTTPbin.org. 30 240.240.0.1"]);
}

#[test]
fn the_other_family_is_there_without_addresses() {
    let soa = "cluster.local. 30 SOA 30";
    check("echo.default.svc.cluster.local.", AAAA, &[soa]);
    check("echo.", AAAA, &[soa]);
    check("six.", A, &[soa]);
    check("echo.", RecordType::HTTPS, &[soa]);
    check("echo.", RecordType::TXT, &[soa]);
    check("httpbin.org.", AAAA, &["httpbin.org. 30 SOA 30"]);
    check("httpbin.org.", RecordType::SVCB, &["httpbin.org. 30 SOA 30"]);
    check("dual.other.", RecordType::ANY, &["dual.other. 30 10.96.0.8", "dual.other. 30 fd00:96::8"]);
}

#[test]
fn what_the_mesh_does_not_know_is_forwarded() {
    for (name, kind) in [
        ("example.org.", A),
        ("org.", A),
        (".", A),
        ("dual.", A),
        ("echo.default.svc.cluster.org.", A),
        ("nobody.default.svc.cluster.local.", A),
        ("echo.default.svc.cluster.local.default.svc.cluster.local.", A),
        ("headless.default.svc.cluster.local.", A),
        ("headless.default.svc.cluster.local.", RecordType::TXT),
        ("none.example.com.", A),
        ("example.com.", A),
        ("secret.other.svc.cluster.local.", A),
        ("hidden.test.", A),
        ("hidden.test.default.svc.cluster.local.", A),
        ("httpbin.org.", RecordType::MX),
        ("httpbin.org.default.svc.cluster.local.", RecordType::TXT),
        ("httpbin.org.default.svc.cluster.local.", RecordType::ANY),
        ("7.0.96.10.in-addr.arpa.", RecordType::PTR),
    ] {
        assert_eq!(answered(name, kind), None, "{name} {kind}");
    }
}

#[test]
fn hosts_from_outside_are_found_behind_search_domains() {
    for suffix in ["default.svc.cluster.local.", "svc.cluster.local.", "cluster.local."] {
        let name = format!("HttpBin.org.{suffix}");
        let alias = format!("{name} 30 HttpBin.org.");
        check(&name, A, &[&alias, "HttpBin.org. 30 240.240.0.1"]);
        check(&name, AAAA, &[&alias, "HttpBin.org. 30 SOA 30"]);
    }
    assert_eq!(answered("httpbin.org.other.svc.cluster.local.", A), None);
    let name = "a.example.com.svc.cluster.local.";
    check(name, A, &[&format!("{name} 30 a.example.com."), "a.example.com. 30 240.240.0.2"]);
}

#[test]
fn the_longest_wildcard_has_a_name() {
    for (name, address) in
        [("a.example.com.", 2), ("a.b.example.com.", 2), ("a.deep.example.com.", 3), ("deep.example.com.", 2)]
    {
        check(name, A, &[&format!("{name} 30 240.240.0.{address}")]);
    }
}

#[test]
fn who_sees_a_host_is_told_of_it() {
    let workload = Workload { namespace: "other".to_owned(), ..workload() };
    for name in ["hidden.test.", "secret.", "secret.other.svc.cluster.local."] {
        let query = question(name, A).to_vec().unwrap();
        let verdict = answer(&mesh(), &workload, &query, false, "cluster.local");
        assert!(matches!(verdict, Verdict::Answer(_)), "{name}");
    }
}

#[track_caller]
fn reply(snapshot: &Snapshot, query: &Message, over_tcp: bool) -> (Message, usize) {
    let query = query.to_vec().unwrap();
    let Verdict::Answer(bytes) = answer(snapshot, &workload(), &query, over_tcp, "cluster.local") else {
        panic!("no answer");
    };
    (Message::from_vec(&bytes).unwrap(), bytes.len())
}

#[test]
fn the_header_and_the_question_come_back() {
    let mut query = question("EcHo.", A);
    query.metadata.checking_disabled = true;
    query.edns = Some(Edns::new());
    query.edns.as_mut().unwrap().set_max_payload(1400).set_dnssec_ok(true);
    let (reply, _) = reply(&mesh(), &query, false);
    let head = &reply.metadata;
    assert_eq!((head.id, head.message_type), (0x1234, MessageType::Response));
    assert!(
        head.authoritative && head.recursion_desired && head.recursion_available && head.checking_disabled
    );
    assert!(!head.truncation && !head.authentic_data);
    assert_eq!(head.response_code, ResponseCode::NoError);
    assert!(reply.queries[0].name().eq_case(query.queries[0].name()));
    let edns = reply.edns.unwrap();
    assert!(edns.flags().dnssec_ok && edns.version() == 0);
    let (plain, _) = self::reply(&mesh(), &question("echo.", A), false);
    assert!(plain.edns.is_none());
}

#[test]
fn what_is_too_large_for_a_datagram_is_to_be_asked_for_by_tcp() {
    let mut snapshot = mesh();
    let many = (0..100).map(|last| IpAddr::from([10, 0, 0, last])).collect();
    let host = Host { namespace: "default".to_owned(), addresses: many, exported: None };
    snapshot.hosts.insert("many.default.svc.cluster.local".to_owned(), host);
    let mut query = question("many.", A);
    for (payload, over_tcp, want) in [
        (None, false, 0),
        (None, true, 100),
        (Some(512), false, 0),
        (Some(1400), false, 0),
        (Some(2048), false, 100),
    ] {
        query.edns = payload.map(|payload| Edns::new().set_max_payload(payload).clone());
        let (reply, length) = reply(&snapshot, &query, over_tcp);
        let found = (addresses(&reply).len(), reply.metadata.truncation);
        assert_eq!(found, (want, want == 0), "{payload:?} {over_tcp}");
        assert!(over_tcp || length <= usize::from(payload.unwrap_or(512)));
    }
}
