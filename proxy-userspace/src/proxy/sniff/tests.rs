//! First bytes in tables, cut off everywhere, and broken at random.

use proptest::{collection, prelude::*, sample};

use super::*;

const BOTH: Sniff = Sniff { tls: true, http: true };

/// A hello as OpenSSL 3 sends it.
const OPENSSL: &str = "\
    1603010200010001fc0303aac4c5d3cd2ffe264eee6c4f3617e11f711ba36636cea5b6981dcb3705fd83ac20f0d34b4f\
    9c5bd91c1cce5937fb22d503e59854e1580d7dc0288b61aec26623d80024130213031301c02cc030c02bc02fcca9cca8\
    c024c028c023c027009f009e006b006700ff0100018f0000000e000c000009612e6578616d706c65000b000403000102\
    000a00160014001d0017001e0019001801000101010201030104002300000010000e000c02683208687474702f312e31\
    0016000000170000000d002a0028040305030603080708080809080a080b080408050806040105010601030303010302\
    040205020602002b00050403040303002d00020101003300260024001d0020461a9dbbe2d55443f25bb1915004d89e00\
    a13decdbbb587b004f09a981714023001500d20000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
    00000000000000000000000000000000000000000000000000000000000000000000000000";

/// Bytes behind their length, in `width` bytes.
fn block(width: usize, content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_be_bytes()[4 - width..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &block(2, content)].concat()
}

/// A server_name extension with these names.
fn sni(names: &[&str]) -> Vec<u8> {
    let names: Vec<u8> =
        names.iter().flat_map(|name| [&[0][..], &block(2, name.as_bytes())].concat()).collect();
    extension(0, &block(2, &names))
}

/// A handshake message as TLS 1.3 clients send it.
fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &block(1, &[9; 32]),
        &block(2, &[0x13, 0x01, 0x13, 0x02, 0xc0, 0x2f]),
        &block(1, &[0]),
        &block(2, &extensions.concat()),
    ];
    [&[1][..], &block(3, &body.concat())].concat()
}

/// The message in records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &block(2, part)].concat()).collect()
}

fn tls(extensions: &[Vec<u8>]) -> Vec<u8> {
    records(&hello(extensions), LONG)
}

const LONG: usize = 1 << 14;

/// As a browser would: versions, a key share, a name, ALPN.
fn usual(name: &str) -> Vec<Vec<u8>> {
    let alpn = extension(16, &block(2, &[block(1, b"h2"), block(1, b"http/1.1")].concat()));
    vec![extension(43, &[2, 3, 4]), sni(&[name]), alpn, extension(51, &block(2, &[5; 36]))]
}

/// A key share of the size that post-quantum ones have, and more.
fn huge(name: &str) -> Vec<Vec<u8>> {
    [vec![extension(51, &[5; 5000])], usual(name)].concat()
}

fn openssl() -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap() as u8;
    OPENSSL.as_bytes().chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect()
}

fn said(text: Option<&str>) -> Option<Box<str>> {
    text.map(Box::from)
}

#[test]
fn hellos_say_their_name_or_none() {
    let ech = [vec![extension(0xfe0d, &[8; 300])], usual("outer.example")].concat();
    let odd_kind = extension(0, &block(2, &[&[1][..], &block(2, b"a.example")].concat()));
    let longer = {
        let mut longer = hello(&usual("a.example"));
        longer.push(0);
        longer[3] += 1;
        records(&longer, LONG)
    };
    let then_alert = [&tls(&usual("a.example"))[..20], &[21, 3, 3, 0, 2, 1, 0]].concat();
    let rows: [(&str, Vec<u8>, Option<&str>); 19] = [
        ("OpenSSL's", openssl(), Some("a.example")),
        ("a plain one", tls(&usual("a.example")), Some("a.example")),
        ("in upper case, with a dot", tls(&usual("A.Example.")), Some("a.example")),
        ("beyond 4 KiB", tls(&huge("a.example")), Some("a.example")),
        ("in records of 100 bytes", records(&hello(&huge("a.example")), 100), Some("a.example")),
        ("in records of 1 byte", records(&hello(&usual("a.example")), 1), Some("a.example")),
        ("encrypted: the outer name", tls(&ech), Some("outer.example")),
        (
            "with application data behind it",
            [tls(&usual("a.example")), vec![23, 3, 3]].concat(),
            Some("a.example"),
        ),
        ("without a name", tls(&[extension(43, &[2, 3, 4])]), None),
        ("two names", tls(&[sni(&["a.example", "b.example"])]), None),
        ("two extensions of names", tls(&[sni(&["a.example"]), sni(&["b.example"])]), None),
        ("the same name twice", tls(&[sni(&["a.example"]), sni(&["a.example"])]), None),
        ("no name in the list", tls(&[sni(&[])]), None),
        ("an empty name", tls(&[sni(&[""])]), None),
        ("no host name", tls(&[sni(&["a\n.example"])]), None),
        ("a pattern", tls(&[sni(&["*.example"])]), None),
        ("another kind of name", tls(&[odd_kind]), None),
        ("longer than its parts", longer, None),
        ("another record in between", records(&then_alert, LONG), None),
    ];
    for (what, bytes, want) in rows {
        assert_eq!(hello::parse(&bytes), Parsed::Found(Sniffed::Tls(said(want))), "{what}");
    }
}

#[test]
fn a_hello_beyond_the_cap_has_no_name() {
    let begin = [&[22, 3, 1, 0x40, 0][..], &[1, 0, 0x40, 1], &[3, 3]].concat();
    assert_eq!(hello::parse(&begin), Parsed::Found(Sniffed::Tls(None)));
}

#[test]
fn requests_say_their_host_or_none() {
    for (request, want) in [
        ("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", Some("a.example")),
        ("GET / HTTP/1.0\r\nhOST:\tA.example. \r\nx: y\r\n\r\nbody", Some("a.example")),
        ("\r\nPOST /x HTTP/1.1\r\nx: y\r\nHost: a.example:8080\r\n\r\n", Some("a.example")),
        ("GET / HTTP/1.1\nHost: a.example\n\n", Some("a.example")),
        ("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", Some("a.example")),
        ("M-SEARCH / HTTP/1.1\r\nHost: a.example\r\n\r\n", Some("a.example")),
        // The absolute form wins.
        ("GET http://a.example/x?y HTTP/1.1\r\nHost: b.example\r\n\r\n", Some("a.example")),
        ("GET HTTPS://a.example:81?y HTTP/1.1\r\nHost: b.example\r\n\r\n", Some("a.example")),
        ("GET http://a.example HTTP/1.1\r\n\r\n", Some("a.example")),
        ("GET http://b@a.example/ HTTP/1.1\r\nHost: b\r\n\r\n", None),
        ("GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", None),
        ("GET a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n", Some("10.0.0.1")),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a.example b.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nhost: b.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nHost : a.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nx: y\r\n Host: a.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nx: y\rHost: a.example\r\nHost: b.example\r\n\r\n", None),
        ("GET / HTTP/1.1\r\nno colon\r\nHost: a.example\r\n\r\n", None),
        ("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n", None),
        ("GET / HTTP/1.2\r\nHost: a.example\r\n\r\n", None),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
    ] {
        assert_eq!(
            request::parse(request.as_bytes()),
            Parsed::Found(Sniffed::Http(said(want))),
            "{request:?}"
        );
    }
}

#[test]
fn what_is_neither_is_nothing() {
    for bytes in [
        &b"SSH-2.0-OpenSSH\r\n"[..],
        b"EHLO a.example\r\n",
        b"GET /\r\n",
        b"GET  / HTTP/1.1\r\n",
        b"GET / HTTP/1.1 \r\n",
        b"get / HTTP/1.1\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"AVERYLONGWORDTHATISNOMETHOD",
        b"\x16\x02\x01",
        b"\x80\x2e\x01\x03\x01",
        b"\0",
    ] {
        assert_eq!(parse(bytes, BOTH), Parsed::Found(Sniffed::Nothing), "{bytes:?}");
    }
    assert_eq!(parse(b"", BOTH), Parsed::NeedMore(Sniffed::Nothing));
}

#[test]
fn only_what_is_wanted_is_looked_for() {
    let (tls_only, http_only) = (Sniff { tls: true, http: false }, Sniff { tls: false, http: true });
    let (hello, request) = (tls(&usual("a.example")), b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(parse(&hello, http_only), Parsed::Found(Sniffed::Nothing));
    assert_eq!(parse(request, tls_only), Parsed::Found(Sniffed::Nothing));
    assert_eq!(parse(&hello, BOTH), Parsed::Found(Sniffed::Tls(said(Some("a.example")))));
    assert_eq!(parse(request, BOTH), Parsed::Found(Sniffed::Http(said(Some("a.example")))));
}

/// First bytes that say a name.
fn whole() -> Vec<Vec<u8>> {
    let requests = [
        "GET / HTTP/1.1\r\nHost: a.example\r\nUser-Agent: x\r\n\r\n",
        "POST http://a.example/ HTTP/1.1\nHost: b\n\n",
    ];
    let mut all: Vec<_> = requests.iter().map(|text| text.as_bytes().to_vec()).collect();
    all.extend([
        openssl(),
        tls(&usual("a.example")),
        tls(&huge("a.example")),
        records(&hello(&usual("a.example")), 7),
    ]);
    all
}

#[test]
fn every_beginning_needs_more() {
    for bytes in whole() {
        for end in 0..bytes.len() {
            let got = parse(&bytes[..end], BOTH);
            assert!(matches!(&got, Parsed::NeedMore(sniffed) if sniffed.name().is_none()), "{end}: {got:?}");
        }
        assert!(matches!(parse(&bytes, BOTH), Parsed::Found(sniffed) if sniffed.name() == Some("a.example")));
    }
}

/// One change to some bytes: what kind, where, and with what.
fn edit(bytes: &mut Vec<u8>, (kind, place, byte): (u8, usize, u8)) {
    let place = place % bytes.len().max(1);
    match kind {
        0 if place < bytes.len() => bytes[place] = byte,
        1 if place < bytes.len() => bytes[place] ^= 1 << (byte % 8),
        2 => bytes.truncate(place),
        _ => bytes.insert(place, byte),
    }
}

/// What was found stays found when more comes, and names are plain.
fn check(bytes: &[u8], cut: usize) {
    let (early, late) = (parse(&bytes[..cut % (bytes.len() + 1)], BOTH), parse(bytes, BOTH));
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if let Parsed::Found(_) = early {
        assert_eq!(early, late);
    }
    let (Parsed::Found(sniffed) | Parsed::NeedMore(sniffed)) = late;
    assert!(sniffed.name().is_none_or(|name| name.len() <= 253 && name.bytes().all(plain)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn broken_bytes_break_nothing(
        bytes in sample::select(whole()),
        edits in collection::vec((0..4_u8, any::<usize>(), any::<u8>()), 1..6),
        cut: usize,
    ) {
        let mut bytes = bytes;
        edits.into_iter().for_each(|one| edit(&mut bytes, one));
        check(&bytes, cut);
    }

    #[test]
    fn noise_says_nothing_odd(mut bytes in collection::vec(any::<u8>(), 0..200), tls: bool, cut: usize) {
        if tls {
            bytes.splice(..0, [22, 3, 1, 0, 180, 1, 0, 0, 170, 3, 3]);
        }
        check(&bytes, cut);
    }
}
