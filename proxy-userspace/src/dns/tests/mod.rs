//! The room's tests: a small mesh, and questions about it.

mod answers;
mod odd;
mod served;

use std::{collections::BTreeMap, net::IpAddr};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RData, RecordType},
};
use proxy_traffic::{Host, Snapshot, Workload};

use super::{Verdict, answer};

/// A host: name, addresses, who sees it.
type Named = (&'static str, &'static [&'static str], Option<&'static [&'static str]>);

/// The mesh that questions are about.
const MESH: &[Named] = &[
    ("echo.default.svc.cluster.local", &["10.96.0.7"], None),
    ("dual.other.svc.cluster.local", &["10.96.0.8", "fd00:96::8"], None),
    ("six.default.svc.cluster.local", &["fd00:96::9"], None),
    ("headless.default.svc.cluster.local", &[], None),
    ("secret.other.svc.cluster.local", &["10.96.0.10"], Some(&["other"])),
    ("httpbin.org", &["240.240.0.1"], None),
    ("none.example.com", &[], None),
    ("*.example.com", &["240.240.0.2"], None),
    ("*.deep.example.com", &["240.240.0.3"], None),
    ("hidden.test", &["240.240.0.4"], Some(&["other"])),
];

pub(super) fn mesh() -> Snapshot {
    let host = |addresses: &[&str], exported: &Option<&[&str]>| Host {
        namespace: "default".to_owned(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        exported: exported.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
    };
    let hosts =
        MESH.iter().map(|(name, addresses, exported)| ((*name).to_owned(), host(addresses, exported)));
    Snapshot { hosts: hosts.collect(), ..Snapshot::default() }
}

pub(super) fn workload() -> Workload {
    let labels = BTreeMap::new();
    Workload { name: "client".to_owned(), namespace: "default".to_owned(), labels }
}

pub(super) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

pub(super) fn ask(query: &[u8]) -> Verdict {
    answer(&mesh(), &workload(), query, false, "cluster.local")
}

pub(super) fn addresses(message: &Message) -> Vec<IpAddr> {
    message.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

/// What one record says, for comparing.
pub(super) fn told(message: &Message) -> Vec<String> {
    let text = |data: &RData| match data {
        RData::SOA(soa) => format!("SOA {}", soa.minimum),
        data => data.to_string(),
    };
    let sections = message.answers.iter().chain(&message.authorities);
    sections.map(|record| format!("{} {} {}", record.name, record.ttl, text(&record.data))).collect()
}
