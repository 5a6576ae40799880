//! The first bytes of an HTTP/1 connection → the host that its first request asks for (RFC 9112).
//!
//! The host of a target in absolute form wins over the Host header (section 3.2.2). A request whose host cannot be told for sure
//! has none: several Host headers, folded lines, blanks before a colon, CONNECT, HTTP/2.

use proxy_traffic::Sniffed;

use super::{Parsed, name};

/// Longer methods are not known to anybody.
const LONGEST_METHOD: usize = 24;

/// What `bytes` say.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    // A client may send empty lines before its request.
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let bytes = &bytes[blank..];
    if !may_begin(bytes) {
        return Parsed::Found(Sniffed::Nothing);
    }
    let Some((line, headers)) = line(bytes) else { return Parsed::NeedMore(Sniffed::Nothing) };
    let Some((method, target, version)) = request_line(line) else {
        return Parsed::Found(Sniffed::Nothing);
    };
    if !matches!(version, b"1.0" | b"1.1") {
        return Parsed::Found(Sniffed::Http(None));
    }
    match host_header(headers) {
        Host::NeedMore => Parsed::NeedMore(Sniffed::Http(None)),
        Host::Undecidable => Parsed::Found(Sniffed::Http(None)),
        Host::Is(value) => Parsed::Found(Sniffed::Http(host(method, target, value))),
    }
}

/// Whether a request can begin like this: an upper-case word and a blank.
fn may_begin(bytes: &[u8]) -> bool {
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    method <= LONGEST_METHOD && bytes.get(method).is_none_or(|byte| *byte == b' ' && method > 0)
}

/// The first line without its end, and what follows.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + 1..]))
}

/// Method, target and version number.
fn request_line(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_whole = words.next().is_none() && !target.is_empty() && !target.contains(&b'\r');
    is_whole.then_some((method, target, version.strip_prefix(b"HTTP/")?))
}

/// What the headers say of the host.
enum Host<'a> {
    NeedMore,
    Undecidable,
    /// The value of the one Host header, if there is one.
    Is(Option<&'a [u8]>),
}

fn host_header(mut headers: &[u8]) -> Host<'_> {
    let mut found = None;
    loop {
        let Some((header, rest)) = line(headers) else { return Host::NeedMore };
        if header.is_empty() {
            return Host::Is(found);
        }
        let colon = header.iter().position(|byte| *byte == b':').unwrap_or_default();
        let (field, value) = header.split_at(colon);
        if field.is_empty() || !field.iter().all(is_token) || value.contains(&b'\r') {
            return Host::Undecidable;
        }
        if field.eq_ignore_ascii_case(b"host") && found.replace(value[1..].trim_ascii()).is_some() {
            return Host::Undecidable;
        }
        headers = rest;
    }
}

/// Whether names of fields are made of it (RFC 9110 section 5.6.2).
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// Who is asked for.
fn host(method: &[u8], target: &[u8], header: Option<&[u8]>) -> Option<Box<str>> {
    if method == b"CONNECT" {
        return None;
    }
    if target.starts_with(b"/") || target == b"*" {
        return name::authority(header?);
    }
    let after = |scheme: &[u8]| {
        let (begin, rest) = target.split_at_checked(scheme.len())?;
        begin.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = after(b"http://").or_else(|| after(b"https://"))?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    name::authority(&rest[..end])
}
