//! A question and the mesh's hosts → an answer, or the word that somebody else has it. Nothing here can fail: what we do not
//! understand is for the resolver that was asked.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, Metadata, OpCode, Query},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{CNAME, SOA},
    },
};
use proxy_traffic::{Snapshot, Workload};

use super::{
    hosts::{Found, View},
    message,
};

/// How long clients may believe us, in seconds.
const TTL: u32 = 30;
/// The largest datagram that we take, as we tell those who speak EDNS; and the largest that we send.
const PAYLOAD: u16 = 4096;
/// The largest datagram for those who do not.
const PLAIN_PAYLOAD: u16 = 512;

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole of the answer.
    Answer(Vec<u8>),
    /// The resolver that was asked shall have it as it is.
    Forward,
    /// It is no question: too short, or itself an answer.
    Drop,
}

/// Answers `query` for `workload`, in a cluster whose names end in `domain`.
#[must_use]
pub fn answer(
    snapshot: &Snapshot,
    workload: &Workload,
    query: &[u8],
    over_tcp: bool,
    domain: &str,
) -> Verdict {
    if !message::is_query(query) {
        return Verdict::Drop;
    }
    let view = View { snapshot, workload, domain };
    let reply = parse(query).and_then(|request| {
        let question = request.queries.first()?;
        let found = view.find(&plain(question.name())?)?;
        encode(&request, reply(&view, question, &found)?, over_tcp)
    });
    reply.map_or(Verdict::Forward, Verdict::Answer)
}

/// One question as every resolver asks it; anything else is not ours to judge.
fn parse(query: &[u8]) -> Option<Message> {
    // Counts first: a reader makes room for as many records as a header announces.
    if !message::is_plain(query) {
        return None;
    }
    let request = Message::from_vec(query).ok()?;
    let is_plain = request.metadata.op_code == OpCode::Query
        && !request.metadata.truncation
        && request.signature.is_none()
        && request.edns.as_ref().is_none_or(|edns| edns.version() == 0)
        && request.queries.iter().all(|question| question.query_class() == DNSClass::IN);
    is_plain.then_some(request)
}

/// A name as hosts are written; none if it holds what no host has.
fn plain(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        if !label.iter().all(fits) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    Some(text)
}

/// What is said of a host.
#[derive(Default)]
struct Reply {
    answers: Vec<Record>,
    /// Whose word it is that there is nothing more.
    authority: Option<Record>,
}

fn reply(view: &View<'_>, question: &Query, found: &Found<'_>) -> Option<Reply> {
    let wanted: fn(&IpAddr) -> bool = match question.query_type() {
        RecordType::A => IpAddr::is_ipv4,
        RecordType::AAAA => IpAddr::is_ipv6,
        RecordType::ANY if found.alias_of.is_none() => |_| true,
        RecordType::HTTPS | RecordType::SVCB => |_| false,
        _ if found.is_internal => |_| false,
        _ => return None,
    };
    let mut reply = Reply::default();
    let mut owner = question.name().clone();
    if let Some(labels) = found.alias_of {
        let target = Name::from_labels(owner.iter().take(labels)).ok()?;
        let alias = RData::CNAME(CNAME(target.clone()));
        reply.answers.push(Record::from_rdata(owner, TTL, alias));
        owner = target;
    }
    let addresses: Vec<_> = found.host.addresses.iter().copied().filter(wanted).collect();
    if addresses.is_empty() {
        reply.authority = Some(soa(view, &owner, found.is_internal)?);
    }
    reply.answers.extend(
        addresses.into_iter().map(|address| Record::from_rdata(owner.clone(), TTL, RData::from(address))),
    );
    Some(reply)
}

/// For how long "there is none" holds.
fn soa(view: &View<'_>, name: &Name, is_internal: bool) -> Option<Record> {
    let zone = Name::from_ascii(view.domain).ok()?;
    let server = zone.prepend_label("ns").ok()?;
    let person = zone.prepend_label("hostmaster").ok()?;
    let serial = u32::try_from(view.snapshot.generation & u64::from(u32::MAX)).unwrap_or_default();
    let zone = if is_internal { zone } else { name.clone() };
    let soa = SOA::new(server, person, serial, 7200, 1800, 86400, TTL);
    Some(Record::from_rdata(zone, TTL, RData::SOA(soa)))
}

fn encode(request: &Message, reply: Reply, over_tcp: bool) -> Option<Vec<u8>> {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.authoritative = true;
    metadata.recursion_available = true;
    let mut response = Message::response(metadata.id, metadata.op_code);
    response.metadata = metadata;
    response.queries.clone_from(&request.queries);
    response.answers = reply.answers;
    response.authorities.extend(reply.authority);
    response.edns = request.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD).set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    let limit = request.edns.as_ref().map_or(PLAIN_PAYLOAD, Edns::max_payload).clamp(PLAIN_PAYLOAD, PAYLOAD);
    let bytes = response.to_vec().ok()?;
    if over_tcp || bytes.len() <= usize::from(limit) {
        Some(bytes)
    } else {
        response.truncate().to_vec().ok()
    }
}
