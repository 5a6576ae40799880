//! As much of the format of DNS messages (RFC 1035) as a small server and the stories' clients need.

use std::net::IpAddr;

/// The record type of IPv4 addresses.
pub const A: u16 = 1;
/// The record type of IPv6 addresses.
pub const AAAA: u16 = 28;
/// The record type of free text.
pub const TXT: u16 = 16;
/// The name exists.
pub const NO_ERROR: u8 = 0;
/// The name does not exist.
pub const NX_DOMAIN: u8 = 3;

/// A question as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// In lower case, without a final dot.
    pub name: String,
    /// The record type that is asked for.
    pub kind: u16,
    id: [u8; 2],
    /// Name, type and class as they came, upper case and lower case letters included.
    question: Vec<u8>,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The response code.
    pub code: u8,
    /// The addresses among the records, in order.
    pub addresses: Vec<IpAddr>,
}

/// A query with recursion desired.
pub fn ask(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend([kind.to_be_bytes(), 1_u16.to_be_bytes()].concat());
    bytes
}

/// The question in `bytes`.
pub fn parse(bytes: &[u8]) -> Option<Query> {
    let (name, end) = name(bytes, 12)?;
    let question = bytes.get(12..end + 4)?.to_vec();
    Some(Query { name, kind: number(bytes, end)?, id: [bytes[0], bytes[1]], question })
}

/// The answer to `query`: a response code, and an address record for each address of the type that was asked for.
pub fn answer(query: &Query, code: u8, addresses: &[IpAddr], ttl: u32) -> Vec<u8> {
    let fits = |address: &&IpAddr| query.kind == if address.is_ipv4() { A } else { AAAA };
    let records: Vec<_> = addresses.iter().filter(fits).map(|address| record(*address, ttl)).collect();
    let count = (records.len() as u16).to_be_bytes();
    let head = [query.id[0], query.id[1], 0x85, 0x80 | code, 0, 1, count[0], count[1], 0, 0, 0, 0];
    [&head[..], &query.question, &records.concat()].concat()
}

/// Reads an answer.
pub fn read(bytes: &[u8]) -> Option<Answer> {
    let (_, end) = name(bytes, 12)?;
    let (mut at, mut addresses) = (end + 4, Vec::new());
    for _ in 0..number(bytes, 6)? {
        at = name(bytes, at)?.1;
        let (kind, size) = (number(bytes, at)?, usize::from(number(bytes, at + 8)?));
        let data = bytes.get(at + 10..at + 10 + size)?;
        match kind {
            A => addresses.push(<[u8; 4]>::try_from(data).ok()?.into()),
            AAAA => addresses.push(<[u8; 16]>::try_from(data).ok()?.into()),
            _ => {}
        }
        at += 10 + size;
    }
    Some(Answer { code: bytes[3] & 15, addresses })
}

/// A record of the name in the question.
fn record(address: IpAddr, ttl: u32) -> Vec<u8> {
    let (kind, data) = match address {
        IpAddr::V4(v4) => (A, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AAAA, v6.octets().to_vec()),
    };
    let size = data.len() as u16;
    let head = [[0xc0, 12], kind.to_be_bytes(), 1_u16.to_be_bytes()].concat();
    [&head[..], &ttl.to_be_bytes(), &size.to_be_bytes(), &data].concat()
}

/// The name at `at` and where it ends; a pointer is not followed, nobody here asks what it says.
fn name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => return Some((labels.join("."), at + 1)),
            pointer if pointer >= 0xc0 => return Some((labels.join("."), at + 2)),
            size => {
                let label = bytes.get(at + 1..at + 1 + size)?;
                labels.push(String::from_utf8_lossy(label).to_lowercase());
                at += 1 + size;
            }
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_was_asked_for() {
        let query = parse(&ask(7, "Example.COM.", AAAA)).unwrap();
        assert_eq!((query.name.as_str(), query.kind), ("example.com", AAAA));
        let addresses = ["203.0.113.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let said = read(&answer(&query, NO_ERROR, &addresses, 60)).unwrap();
        assert_eq!(said, Answer { code: NO_ERROR, addresses: vec![addresses[1]] });
        let nothing = Answer { code: NX_DOMAIN, addresses: Vec::new() };
        assert_eq!(read(&answer(&query, NX_DOMAIN, &[], 60)), Some(nothing));
    }
}
