//! Tables: what is an answer, and whereto.

use super::*;

fn lookup(external: bool, allowed: &[&str]) -> Lookup {
    Lookup { external, allowed: allowed.iter().map(|range| range.parse().unwrap()).collect() }
}

#[test]
fn an_answer_does_not_send_us_inside() {
    for (address, external, internal) in [
        ("203.0.113.1", true, true),
        ("8.8.8.8", true, true),
        ("10.0.0.1", false, true),
        ("172.16.0.1", false, true),
        ("172.32.0.1", true, true),
        ("192.168.1.1", false, true),
        ("100.64.0.1", false, true),
        ("100.127.255.255", false, true),
        ("100.128.0.1", true, true),
        ("192.0.0.8", false, true),
        ("198.19.0.1", false, true),
        ("240.240.0.1", false, true),
        ("0.1.2.3", false, true),
        ("0.0.0.0", false, false),
        ("127.0.0.1", false, false),
        ("169.254.169.254", false, false),
        ("224.0.0.1", false, false),
        ("255.255.255.255", false, false),
        ("2001:db8::1", true, true),
        ("fd00::1", false, true),
        ("fec0::1", false, true),
        ("2001:2::1", false, true),
        ("64:ff9b::a00:1", false, true),
        ("64:ff9b::cb00:7101", true, true),
        ("2002:7f00:1::1", false, true),
        ("::a00:1", false, true),
        ("fd00:ec2::254", false, false),
        ("fe80::1", false, false),
        ("ff02::1", false, false),
        ("::1", false, false),
        ("::", false, false),
        ("::ffff:203.0.113.1", false, false),
        ("::ffff:10.0.0.1", false, false),
    ] {
        let address = address.parse().unwrap();
        assert_eq!(may_use(address, &lookup(true, &[])), external, "{address} from outside");
        assert_eq!(may_use(address, &lookup(false, &[])), internal, "{address} of the mesh");
    }
}

#[test]
fn what_an_entry_names_itself_may_be_used() {
    let named = lookup(true, &["10.0.0.0/8", "169.254.169.254/32", "fd00::/8"]);
    for (address, want) in [
        ("10.1.2.3", true),
        ("11.1.2.3", true),
        ("192.168.0.1", false),
        ("169.254.169.254", true),
        ("169.254.169.253", false),
        ("fd00:1::1", true),
        ("::ffff:10.0.0.1", false),
    ] {
        assert_eq!(may_use(address.parse().unwrap(), &named), want, "{address}");
    }
    let any = lookup(true, &["0.0.0.0/0", "::/0"]);
    assert!(!may_use(IpAddr::from([127, 0, 0, 1]), &any) && !may_use(IpAddr::from([10, 0, 0, 1]), &any));
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn a(owner: &str, last: u8, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::from(Ipv4Addr::new(203, 0, 113, last)))
}

fn alias(owner: &str, target: &str, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

#[track_caller]
fn check(records: &[Record], want: &[u8], seconds: u64) {
    let outside = lookup(true, &[]);
    let found = found(&name("a.test."), RecordType::A, records, &outside);
    let addresses: Vec<IpAddr> = want.iter().map(|last| IpAddr::from([203, 0, 113, *last])).collect();
    assert_eq!(found, Found { addresses, lifetime: Duration::from_secs(seconds) });
}

#[test]
fn records_of_the_name_and_of_what_it_stands_for_count() {
    check(&[], &[], 5);
    check(&[a("a.test.", 2, 60), a("A.TEST.", 1, 50), a("a.test.", 2, 60)], &[2, 1], 50);
    check(&[a("b.test.", 1, 60), a("a.test.", 2, 70)], &[2], 70);
    check(&[a("b.test.", 1, 60), alias("a.test.", "b.test.", 30)], &[1], 30);
    check(&[alias("c.test.", "b.test.", 30), a("b.test.", 1, 60)], &[], 5);
    check(&[alias("a.test.", "b.test.", 30), alias("b.test.", "a.test.", 30), a("a.test.", 1, 9)], &[], 5);
    let mut long: Vec<_> =
        (0..9).map(|at| alias(&format!("a{at}.test."), &format!("a{}.test.", at + 1), 60)).collect();
    long.push(a("a9.test.", 1, 60));
    long.insert(0, alias("a.test.", "a2.test.", 60));
    check(&long, &[1], 60);
    long[0] = alias("a.test.", "a0.test.", 60);
    check(&long, &[], 5);
}

#[test]
fn times_are_held_within_bounds_and_addresses_to_64() {
    for (ttl, want) in [
        (0, 5),
        (4, 5),
        (6, 6),
        (3600, 3600),
        (86400, 3600),
        (i32::MAX.cast_unsigned(), 3600),
        (1 << 31, 3600),
    ] {
        check(&[a("a.test.", 1, ttl)], &[1], want);
    }
    let many: Vec<_> = (0..=255).map(|last| a("a.test.", last, 60)).collect();
    check(&many, &(0..64).collect::<Vec<_>>(), 60);
}

#[test]
fn both_families_together_hold_as_long_as_the_shorter() {
    let found = |last, seconds| Found {
        addresses: vec![IpAddr::from([203, 0, 113, last])],
        lifetime: Duration::from_secs(seconds),
    };
    assert_eq!(found(1, 60).and(Found::default()), found(1, 60));
    assert_eq!(Found::default().and(found(1, 60)), found(1, 60));
    let both = found(1, 60).and(found(2, 30));
    assert_eq!((both.addresses.len(), both.lifetime.as_secs()), (2, 30));
}
