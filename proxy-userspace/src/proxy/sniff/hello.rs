//! The first bytes of a TLS connection → the server name that the client asks for (RFC 8446, RFC 6066).
//!
//! A hello whose name cannot be told for sure has none: one that is broken, asks for two, or says something that is no host
//! name. Of an encrypted hello (ECH) the outer name counts, which is all that anybody but the server sees.

use std::borrow::Cow;

use proxy_traffic::Sniffed;

use super::{CAP, Parsed, name};

/// Content type of handshake records.
const HANDSHAKE: u8 = 22;
/// Type of the handshake message.
const CLIENT_HELLO: u8 = 1;
/// Type of the extension, and of the one kind of name in it.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Type, version and length of a record.
const RECORD_HEADER: usize = 5;
/// What one record may hold.
const LONGEST_RECORD: usize = 1 << 14;

/// What `bytes` say.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    if bytes.iter().zip([HANDSHAKE, 3]).any(|(byte, want)| *byte != want) {
        return Parsed::Found(Sniffed::Nothing);
    }
    match message(bytes) {
        Message::Partial if bytes.is_empty() => Parsed::NeedMore(Sniffed::Nothing),
        Message::Partial => Parsed::NeedMore(Sniffed::Tls(None)),
        Message::Broken => Parsed::Found(Sniffed::Tls(None)),
        Message::Whole(hello) => Parsed::Found(Sniffed::Tls(server_name(&hello))),
    }
}

/// A handshake message, gathered from its records.
enum Message<'a> {
    Partial,
    Broken,
    /// Without type and length.
    Whole(Cow<'a, [u8]>),
}

/// The first message of the records in `bytes`. It is copied only where it is spread over several of them.
fn message(bytes: &[u8]) -> Message<'_> {
    let mut gathered = Cow::Borrowed(&[][..]);
    let mut rest = bytes;
    while let Some((header, after)) = rest.split_at_checked(RECORD_HEADER) {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if header[0] != HANDSHAKE || header[1] != 3 || !(1..=LONGEST_RECORD).contains(&length) {
            return Message::Broken;
        }
        let (content, next) = after.split_at(length.min(after.len()));
        if gathered.is_empty() {
            gathered = Cow::Borrowed(content);
        } else {
            gathered.to_mut().extend_from_slice(content);
        }
        if let Some((&[kind, a, b, c], body)) = gathered.split_first_chunk() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if kind != CLIENT_HELLO || length > CAP {
                return Message::Broken;
            }
            if body.len() >= length {
                return Message::Whole(body_of(gathered, length));
            }
        }
        rest = next;
    }
    if rest.first().is_some_and(|kind| *kind != HANDSHAKE) { Message::Broken } else { Message::Partial }
}

/// The `length` bytes behind type and length.
fn body_of(message: Cow<'_, [u8]>, length: usize) -> Cow<'_, [u8]> {
    match message {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[4..4 + length]),
        Cow::Owned(bytes) => Cow::Owned(bytes[4..4 + length].to_vec()),
    }
}

/// The one name that a ClientHello asks for.
fn server_name(hello: &[u8]) -> Option<Box<str>> {
    let mut hello = Reader(hello);
    // Version and random; session; cipher suites; compression.
    hello.take(2 + 32)?;
    hello.block8()?;
    hello.block16()?;
    hello.block8()?;
    let mut extensions = Reader(hello.block16()?);
    let mut found = None;
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.number16()?, extensions.block16()?);
        if kind == SERVER_NAME && found.replace(content).is_some() {
            return None;
        }
    }
    let mut list = Reader(found?);
    let mut names = Reader(list.block16()?);
    let (kind, text) = (names.take(1)?[0], names.block16()?);
    let is_all = list.0.is_empty() && names.0.is_empty() && hello.0.is_empty();
    if kind == HOST_NAME && is_all { name::host(text) } else { None }
}

/// Takes what TLS writes from the front of some bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// What a length of one byte says.
    fn block8(&mut self) -> Option<&'a [u8]> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    /// What a length of two bytes says.
    fn block16(&mut self) -> Option<&'a [u8]> {
        let length = self.number16()?;
        self.take(length.into())
    }
}
