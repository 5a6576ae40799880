//! ServiceEntries under REGISTRY_ONLY: what they open, and that they open nothing beside it.

use tests::client::{Connection, connect};
use tests::internet::ECHO;
use tests::wait;
use tests::yaml::external;

use super::{GOOGLE, HTTPBIN, Outlook};
use crate::scene::at;

#[test]
fn every_kind_of_entry_opens_what_it_names_and_no_neighbour() {
    let scene = Outlook::new("kinds", "REGISTRY_ONLY");
    for address in
        ["203.0.113.30", "203.0.113.31", "198.51.100.7", "198.51.100.17", "2001:db8::30", "2001:db8::31"]
    {
        scene.internet.claim(&scene.mesh, address.parse().unwrap());
    }
    let entries = [
        external(HTTPBIN.0, "80/HTTP", "resolution: DNS"),
        external(GOOGLE.0, "443/HTTPS", "resolution: DNS"),
        external("one.example", "9000/TCP", "addresses: [203.0.113.30, \"2001:db8::30\"], resolution: NONE"),
        external("range.example", "9000/TCP", "addresses: [198.51.100.0/28], resolution: NONE"),
    ];
    scene.daemon.apply("entries.yaml", &entries.concat());
    scene.await_curl("http://httpbin.org/status/200");
    scene.await_curl("https://www.google.com/");
    scene.must_curl("https://httpbin.org/", 35, 0);
    scene.must_curl("http://www.google.com/", 0, 502);
    scene.must_curl("https://edition.cnn.com/", 35, 0);
    scene.must_curl("http://edition.cnn.com/", 0, 502);
    for (address, allowed) in [
        ("203.0.113.30", true),
        ("203.0.113.31", false),
        ("2001:db8::30", true),
        ("2001:db8::31", false),
        ("198.51.100.7", true),
        ("198.51.100.17", false),
    ] {
        assert_eq!(super::reaches(&scene.client, address.parse().unwrap()), allowed, "{address}");
    }
    // The next port of an address that is allowed.
    scene.must_be_closed("203.0.113.30", 3306);
}

#[test]
fn two_entries_share_a_port_and_each_has_its_own_server() {
    let scene = Outlook::new("mongo", "REGISTRY_ONLY");
    scene.internet.host(&scene.mesh, "mongo-a.example", &["203.0.113.41"]);
    scene.internet.host(&scene.mesh, "mongo-b.example", &["203.0.113.42"]);
    let entry = |name: &str| external(name, "9000/TCP", "resolution: DNS");
    scene.daemon.apply("mongo.yaml", &(entry("mongo-a.example") + &entry("mongo-b.example")));
    for (name, address) in [("mongo-a.example", "203.0.113.41"), ("mongo-b.example", "203.0.113.42")] {
        let answer = format!("{address} hello");
        wait::until(&format!("{name} answers"), || scene.echo_by_name(name, ECHO) == answer);
    }
    // Whoever has the address from elsewhere has no entry.
    scene.must_be_closed("203.0.113.41", ECHO);
}

#[test]
fn a_static_entry_spreads_over_its_endpoints_on_their_ports() {
    let scene = Outlook::new("static", "REGISTRY_ONLY");
    for address in ["203.0.113.51", "203.0.113.52"] {
        scene.internet.claim(&scene.mesh, address.parse().unwrap());
    }
    let more = "addresses: [203.0.113.50], resolution: STATIC, endpoints: [{address: 203.0.113.51}, {address: 203.0.113.52}]";
    let entry = external("static.example", "5000/TCP", more)
        .replace("protocol: TCP}", &format!("protocol: TCP, targetPort: {ECHO}}}"));
    scene.daemon.apply("static.yaml", &entry);
    let mut seen: Vec<_> =
        (0..8).map(|_| who(&mut connect(&scene.client, at("203.0.113.50", 5000)))).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["203.0.113.51", "203.0.113.52"]);
    scene.must_be_closed("203.0.113.51", ECHO);
}

#[test]
fn an_entry_follows_its_name() {
    follows("DNS");
}

#[test]
fn a_round_robin_entry_follows_its_name() {
    follows("DNS_ROUND_ROBIN");
}

/// New connections go where the name is now, open ones stay.
fn follows(resolution: &str) {
    let scene = Outlook::new("follows", "REGISTRY_ONLY");
    let [first, second] = ["203.0.113.61", "203.0.113.62"];
    scene.internet.host(&scene.mesh, "moving.example", &[first]);
    scene.internet.claim(&scene.mesh, at(second, 0).ip());
    // A TTL below the least that is believed, so that the story is short.
    let zone = scene.internet.zone();
    zone.set("moving.example", &[at(first, 0).ip()], 1);
    let more = format!("addresses: [203.0.113.60], resolution: {resolution}");
    scene.daemon.apply("moving.yaml", &external("moving.example", "9000/TCP", &more));
    let dial = || answers(&scene, "203.0.113.60");
    wait::until("the first address answers", || dial().as_deref() == Some(first));
    let mut open = connect(&scene.client, at("203.0.113.60", ECHO));
    assert_eq!(who(&mut open), first);
    zone.set("moving.example", &[at(second, 0).ip()], 1);
    wait::until("the second address answers", || dial().as_deref() == Some(second));
    assert_eq!(who(&mut open), first, "what is open stays where it is");
}

#[test]
fn the_last_good_addresses_outlive_a_name() {
    let scene = Outlook::new("last-good", "REGISTRY_ONLY");
    scene.internet.host(&scene.mesh, "gone.example", &["203.0.113.61"]);
    scene.internet.zone().set("gone.example", &["203.0.113.61".parse().unwrap()], 1);
    let entry = external("gone.example", "9000/TCP", "addresses: [203.0.113.60], resolution: DNS");
    scene.daemon.apply("gone.yaml", &entry);
    wait::until("it answers", || answers(&scene, "203.0.113.60").is_some());
    let asked = || scene.internet.zone().asked("gone.example").len();
    scene.internet.zone().remove("gone.example");
    let before = asked();
    wait::until("the name is asked for in vain", || asked() > before);
    assert_eq!(answers(&scene, "203.0.113.60").as_deref(), Some("203.0.113.61"));
}

#[test]
fn beside_an_entry_everything_passes_where_everything_may() {
    let scene = Outlook::new("beside", "ALLOW_ANY");
    scene.daemon.apply("entry.yaml", &external(HTTPBIN.0, "80/HTTP 443/HTTPS", "resolution: DNS"));
    scene.await_curl("https://httpbin.org/");
    scene.must_curl("https://www.google.com/", 0, 200);
    scene.must_curl("http://www.google.com/", 0, 200);
    // Neither says a name.
    scene.must_curl(&format!("http://{}/", GOOGLE.1), 0, 200);
    scene.must_echo(GOOGLE.1);
    let told = scene.internet.requests();
    let right = |host: &str| if host == HTTPBIN.0 { HTTPBIN.1 } else { GOOGLE.1 };
    assert!(told.iter().all(|request| request.at.to_string() == right(&request.host)), "{told:?}");
}

#[test]
fn an_entry_is_for_those_it_is_exported_to() {
    let mut scene = Outlook::new("exported", "REGISTRY_ONLY");
    let shop = scene.mesh.workload("shop");
    scene.daemon.enroll(&shop, "--namespace shop");
    let entries = [
        external(HTTPBIN.0, "80/HTTP", "resolution: DNS, exportTo: [shop]"),
        external("echo.example", "9000/TCP", "addresses: [203.0.113.10], resolution: NONE, exportTo: [shop]"),
    ];
    scene.daemon.apply("exported.yaml", &entries.concat());
    wait::until("shop is served", || scene.internet.curl(&shop, "http://httpbin.org/").status == 200);
    scene.must_curl("http://httpbin.org/", 0, 502);
    let address = GOOGLE.1.parse().unwrap();
    assert!(super::reaches(&shop, address) && !super::reaches(&scene.client, address));
}

#[test]
fn who_speaks_first_is_heard_within_a_second() {
    let scene = Outlook::new("banner", "REGISTRY_ONLY");
    let entries = [
        external("mysql.example", "3306/TCP", "addresses: [203.0.113.10], resolution: NONE"),
        // The same port of any address belongs to a name; who says nothing is not asked for one for long.
        external("web.example", "3306/TLS", "resolution: DNS"),
    ];
    scene.daemon.apply("banner.yaml", &entries.concat());
    let begun = std::time::Instant::now();
    let greeting = connect(&scene.client, at("203.0.113.10", 3306)).line();
    assert_eq!(greeting, format!("203.0.113.10 greets {}", scene.client.v4()));
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
    // Where everything may leave, so may what is sniffed and says nothing.
    scene.mode("ALLOW_ANY");
    let begun = std::time::Instant::now();
    connect(&scene.client, at("203.0.113.11", 3306)).line();
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// Which of the internet's addresses is at the other end.
fn who(connection: &mut Connection) -> String {
    let line = connection.send("hello\n").line();
    line.strip_suffix(" hello").unwrap_or_else(|| panic!("odd answer {line:?}")).to_owned()
}

/// Which of the internet's addresses a connection to `address` ends at, if at any.
fn answers(scene: &Outlook, address: &str) -> Option<String> {
    let mut connection = tests::client::Dial::to(at(address, ECHO)).try_connect(&scene.client).ok()?;
    std::io::Write::write_all(&mut connection.stream, b"hello\n").ok()?;
    Some(connection.try_line().ok()?.strip_suffix(" hello")?.to_owned())
}
