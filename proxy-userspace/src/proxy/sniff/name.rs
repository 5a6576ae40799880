//! Names as clients write them → names as rules do.

/// The longest name that DNS has.
const LONGEST: usize = 253;

/// `text` in lower case and without a dot at its end, if it is a plain host name: labels of letters, digits, `-` and `_`.
pub(super) fn host(text: &[u8]) -> Option<Box<str>> {
    let text = text.strip_suffix(b".").unwrap_or(text);
    let is_label = |label: &[u8]| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.iter().all(plain)
    };
    if text.len() > LONGEST || !text.split(|byte| *byte == b'.').all(is_label) {
        return None;
    }
    let text = str::from_utf8(text).ok()?;
    Some(text.to_ascii_lowercase().into())
}

/// The host of `host[:port]`. An IPv6 address in brackets is no name.
pub(super) fn authority(text: &[u8]) -> Option<Box<str>> {
    let (name, port) = match text.iter().position(|byte| *byte == b':') {
        Some(colon) => (&text[..colon], &text[colon + 1..]),
        None => (text, &b""[..]),
    };
    let is_port = port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    if is_port { host(name) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_or_none() {
        let longest = format!("{}.{}", "a.".repeat(94), "b".repeat(63));
        for (text, want) in [
            ("example.com", Some("example.com")),
            ("EXAMPLE.Com.", Some("example.com")),
            ("a_b-c.d", Some("a_b-c.d")),
            ("10.0.0.1", Some("10.0.0.1")),
            (&longest, None),
            (&longest[1..], None),
            ("", None),
            (".", None),
            (".example.com", None),
            ("a..b", None),
            ("*.example.com", None),
            ("a b", None),
            ("a\0b", None),
            ("a\nb", None),
            ("ä.example", None),
            ("a/b", None),
            ("user@host", None),
        ] {
            assert_eq!(host(text.as_bytes()).as_deref(), want, "{text:?}");
        }
        let just = format!("{}{}", "a.".repeat(95), "b".repeat(63));
        assert_eq!(host(just.as_bytes()).map(|name| name.len()), Some(LONGEST));
        assert_eq!(host("a".repeat(64).as_bytes()), None);
    }

    #[test]
    fn a_port_is_cut_off() {
        for (text, want) in [
            ("example.com:8080", Some("example.com")),
            ("example.com.:80", Some("example.com")),
            ("example.com:", Some("example.com")),
            ("example.com:x", None),
            ("example.com:123456", None),
            ("[2001:db8::1]", None),
            ("[2001:db8::1]:80", None),
            ("2001:db8::1", None),
            ("", None),
            (":80", None),
        ] {
            assert_eq!(authority(text.as_bytes()).as_deref(), want, "{text:?}");
        }
    }
}
