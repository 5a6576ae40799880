//! "Control Egress Traffic" as its readers type it, scenarios 1 to 3.

use super::{CNN, GOOGLE, HTTPBIN, Outlook};
use crate::scene::at;
use tests::client::connect;
use tests::internet::ECHO;
use tests::yaml;

#[test]
fn scenario_1_everything_may_be_called() {
    let scene = Outlook::new("seed1", "ALLOW_ANY");
    let mesh = std::fs::read_to_string(scene.daemon.config("mesh.yaml")).unwrap();
    assert!(mesh.contains("mode: ALLOW_ANY"));
    for host in [GOOGLE.0, CNN.0] {
        let said = scene.must_curl(&format!("-I https://{host}"), 0, 200);
        assert!(said.body.contains("HTTP/1.1 200"), "{said:?}");
    }
}

#[test]
fn scenario_2_registry_only_forbids_until_it_is_lifted() {
    let scene = Outlook::new("seed2", "ALLOW_ANY");
    let https = format!("-I https://{}", GOOGLE.0);
    let http = format!("-I http://{}/status/200", GOOGLE.0);
    for _ in 0..2 {
        scene.must_curl(&https, 0, 200);
        scene.must_curl(&http, 0, 200);
        scene.must_echo(GOOGLE.1);
        scene.the_mesh_works();
        let mut open = connect(&scene.client, at(GOOGLE.1, ECHO));
        scene.mode("REGISTRY_ONLY");
        scene.must_curl(&https, 35, 0);
        scene.must_curl(&format!("-I https://{}", CNN.0), 35, 0);
        scene.must_curl(&http, 0, 502);
        scene.must_be_closed(GOOGLE.1, ECHO);
        scene.the_mesh_works();
        // What is open goes on, unless it is said otherwise.
        open.must_echo("still here", &format!("{} still here", GOOGLE.1));
        scene.mode("ALLOW_ANY");
        scene.must_curl(&https, 0, 200);
        scene.must_echo(GOOGLE.1);
    }
}

#[test]
fn forbidden_http_is_answered_as_istio_1_1_did_if_one_likes() {
    let scene = Outlook::with_args("seed404", "REGISTRY_ONLY", "--http-blocked-status 404");
    scene.must_curl(&format!("-I http://{}/status/200", GOOGLE.0), 0, 404);
    scene.must_curl(&format!("-I https://{}", GOOGLE.0), 35, 0);
}

#[test]
fn scenario_3_an_entry_opens_one_protocol() {
    let scene = Outlook::new("seed3", "REGISTRY_ONLY");
    let host = HTTPBIN.0;
    let (http, https) = (format!("-I http://{host}/status/200"), format!("https://{host}/headers"));
    scene.must_curl(&http, 0, 502);
    scene.must_curl(&https, 35, 0);
    scene.daemon.apply("httpbin.yaml", &yaml::external(host, "80/HTTP", "resolution: DNS"));
    scene.await_curl(&http);
    scene.must_curl(&http, 0, 200);
    scene.must_curl(&https, 35, 0);
    scene.daemon.apply("httpbin.yaml", &yaml::external(host, "443/HTTPS", "resolution: DNS"));
    scene.await_curl(&https);
    let said = scene.must_curl(&https, 0, 200);
    assert!(said.body.contains(host), "{said:?}");
    scene.must_curl(&http, 0, 502);
    let seen = scene.internet.requests();
    assert!(
        seen.iter().all(|request| request.host == host && request.from == scene.client.ip4()),
        "{seen:?}"
    );
}
