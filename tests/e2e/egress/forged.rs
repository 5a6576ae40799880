//! Clients that lie: a right name at a wrong address, a wrong name at a right one, no name at all, and addresses that no rule
//! that says "any" means.

use tests::client::connect;
use tests::yaml::external;

use super::{CNN, GOOGLE, HTTPBIN, Outlook};
use crate::scene::at;

/// The link-local address that clouds serve secrets at.
const METADATA: &str = "169.254.169.254";

#[test]
fn a_right_name_at_a_wrong_address_goes_where_the_name_is() {
    let scene = Outlook::new("forged", "REGISTRY_ONLY");
    let entry = external(HTTPBIN.0, "80/HTTP 443/HTTPS", "resolution: DNS");
    scene.daemon.apply("entry.yaml", &entry);
    scene.await_curl("https://httpbin.org/");
    for (scheme, port) in [("https", 443), ("http", 80)] {
        // The entry's own host, said to be at the addresses of others.
        for wrong in [GOOGLE.1, CNN.1] {
            let said = scene.must_curl(
                &format!("--resolve httpbin.org:{port}:{wrong} {scheme}://httpbin.org/who"),
                0,
                200,
            );
            assert_eq!(
                said.body.trim(),
                format!("httpbin.org at {}", HTTPBIN.1),
                "{scheme} by way of {wrong}"
            );
        }
    }
    let told = scene.internet.requests();
    assert!(told.iter().all(|request| request.at.to_string() == HTTPBIN.1), "{told:?}");
}

#[test]
fn a_name_without_a_resolution_of_its_own_is_dialled_where_it_says_if_it_is_there() {
    let scene = Outlook::new("named-none", "REGISTRY_ONLY");
    scene.internet.host(&scene.mesh, "two.example", &["203.0.113.91", "203.0.113.92"]);
    scene.internet.host(&scene.mesh, "a.wild.example", &["203.0.113.93"]);
    let entries = [
        external("two.example", "80/HTTP 443/HTTPS", "resolution: NONE"),
        external("*.wild.example", "80/HTTP 443/HTTPS", "resolution: NONE"),
    ];
    scene.daemon.apply("none.yaml", &entries.concat());
    for (scheme, port) in [("http", 80), ("https", 443)] {
        let ask = |name: &str, at: &str| {
            let said =
                scene.must_curl(&format!("--resolve {name}:{port}:{at} {scheme}://{name}/who"), 0, 200);
            said.body.trim().rsplit(' ').next().unwrap_or_default().to_owned()
        };
        for own in ["203.0.113.91", "203.0.113.92"] {
            assert_eq!(ask("two.example", own), own, "{scheme}");
        }
        assert!(["203.0.113.91", "203.0.113.92"].contains(&ask("two.example", CNN.1).as_str()), "{scheme}");
        assert_eq!(ask("a.wild.example", "203.0.113.93"), "203.0.113.93", "{scheme}");
        assert_eq!(ask("a.wild.example", CNN.1), "203.0.113.93", "{scheme}");
    }
    scene.must_curl("https://a.wild.example/", 0, 200);
    scene.must_curl(&format!("--resolve wild.example:443:{} https://wild.example/", CNN.1), 35, 0);
}

#[test]
fn a_wrong_name_at_a_right_address_goes_nowhere() {
    let scene = Outlook::new("unknown", "REGISTRY_ONLY");
    let entry = external(HTTPBIN.0, "80/HTTP 443/HTTPS", "resolution: DNS");
    scene.daemon.apply("entry.yaml", &entry);
    scene.await_curl("https://httpbin.org/");
    let seen = scene.internet.requests().len();
    let right = HTTPBIN.1;
    scene.must_curl(&format!("--resolve www.google.com:443:{right} https://www.google.com/"), 35, 0);
    scene.must_curl(&format!("--resolve www.google.com:80:{right} http://www.google.com/"), 0, 502);
    // No server name at all.
    scene.must_curl(&format!("-k https://{right}/"), 35, 0);
    scene.must_curl(&format!("http://{right}/"), 0, 502);
    // Neither TLS nor HTTP.
    connect(&scene.client, at(right, 443)).send("hello\n").must_be_closed();
    assert_eq!(scene.internet.requests().len(), seen);
}

#[test]
fn an_entry_for_any_address_does_not_mean_the_metadata_server() {
    let scene = Outlook::new("metadata", "REGISTRY_ONLY");
    for address in [METADATA, "fd00:ec2::254", "203.0.113.70"] {
        scene.internet.claim(&scene.mesh, address.parse().unwrap());
    }
    let entries = [
        external("everything.example", "9000/TCP", "resolution: NONE"),
        external("secrets.example", "80/HTTP", "resolution: DNS"),
    ];
    scene.internet.host(&scene.mesh, "secrets.example", &[METADATA]);
    scene.daemon.apply("any.yaml", &entries.concat());
    let reach = |address: &str| super::reaches(&scene.client, address.parse().unwrap());
    assert!(reach("203.0.113.70"));
    assert!(!reach(METADATA) && !reach("fd00:ec2::254"));
    // Nor does a name whose owner says that it lives there.
    let said = scene.curl("http://secrets.example/latest/meta-data");
    assert_ne!(said.status, 200, "{said:?}");
    assert_eq!(scene.internet.requests(), []);
}
