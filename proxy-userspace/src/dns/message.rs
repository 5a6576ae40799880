//! The few bytes of a message that are read where it is passed on as it is: RFC 1035, section 4.1.

/// Every message begins with so many bytes.
const HEADER: usize = 12;
/// QR, in the third byte.
const IS_RESPONSE: u8 = 0x80;
/// RA and SERVFAIL, the fourth byte of a refusal.
const SERVFAIL: u8 = 0x80 | 2;
/// OPT and TSIG are all that a question brings along.
const MOST_ADDITIONALS: u16 = 2;

fn count(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?))
}

/// Whether this is a question at all.
pub(super) fn is_query(message: &[u8]) -> bool {
    message.len() >= HEADER && message[2] & IS_RESPONSE == 0
}

/// Whether a header announces one question and nothing else but what comes along with one.
pub(super) fn is_plain(message: &[u8]) -> bool {
    let counts = [4, 6, 8].map(|at| count(message, at));
    counts == [Some(1), Some(0), Some(0)] && count(message, 10).is_some_and(|count| count <= MOST_ADDITIONALS)
}

/// The first question's name, and its type and class.
pub(super) fn question(message: &[u8]) -> Option<(&[u8], [u8; 4])> {
    count(message, 4).filter(|questions| *questions > 0)?;
    let mut end = HEADER;
    loop {
        let length = *message.get(end)?;
        // No pointers: there is nothing before the first name that one could point at.
        if length > 63 {
            return None;
        }
        end += 1 + usize::from(length);
        if length == 0 {
            return Some((message.get(HEADER..end)?, *message.get(end..)?.first_chunk()?));
        }
    }
}

/// Whether `reply` answers `query`: same ID, same question. Who refuses may leave the question out.
pub(super) fn echoes(query: &[u8], reply: &[u8]) -> bool {
    if reply.len() < HEADER || reply[2] & IS_RESPONSE == 0 || !query.starts_with(&reply[..2]) {
        return false;
    }
    let Some((name, kind)) = question(query) else { return true };
    match question(reply) {
        Some((other, same)) => other.eq_ignore_ascii_case(name) && same == kind,
        None => count(reply, 4) == Some(0) && reply[3] & 0x0f != 0,
    }
}

/// "Nobody could be asked": the answer to `query` where the network says so.
pub(super) fn servfail(query: &[u8]) -> Option<Vec<u8>> {
    let (name, _) = question(query)?;
    let mut reply = query.get(..HEADER + name.len() + 4)?.to_vec();
    reply[2] |= IS_RESPONSE;
    reply[3] = SERVFAIL;
    reply[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    Some(reply)
}
