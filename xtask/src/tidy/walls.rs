//! Who may import whom.

use super::{Fault, Source, code};

/// The daemon's rooms, which do not know each other.
const SIBLINGS: [&str; 6] = ["source", "kernel", "node", "proxy", "admin", "dns"];
/// Who may use aya; proxy-common only says that its types are plain bytes.
const AYA_ROOMS: [&str; 5] = [
    "proxy-ebpf/",
    "proxy-common/",
    "proxy-userspace/src/kernel/",
    "proxy-userspace/tests/tables/",
    "proxy-userspace/tests/kernel/changes.rs",
];
/// Input, output, clocks, chance and concurrency: proxy-traffic is given what it needs of these.
const IMPURE: [&str; 14] = [
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "Instant::now",
    "SystemTime",
    "tokio",
    "fastrand",
    "nix",
    "async",
];

pub(super) fn faults(source: &Source) -> Vec<Fault> {
    let code = without_tests(&source.code);
    let mut faults = rooms(&source.path, code);
    if !AYA_ROOMS.iter().any(|room| source.path.starts_with(room)) {
        let uses = ["aya::", "aya_ebpf::", "aya_log::", "aya_obj::"]
            .into_iter()
            .flat_map(|word| code::words(code, word));
        faults.extend(uses.map(|at| (code::line(code, at), "only kernel/ knows aya".to_owned())));
    }
    if source.path.starts_with("proxy-traffic/src/") && !is_test(&source.path) {
        let uses = IMPURE.into_iter().flat_map(|word| code::words(code, word).map(move |at| (at, word)));
        faults.extend(
            uses.map(|(at, word)| (code::line(code, at), format!("proxy-traffic is pure: no {word}"))),
        );
    }
    faults
}

fn rooms(path: &str, code: &str) -> Vec<Fault> {
    let Some(inside) = path.strip_prefix("proxy-userspace/src/") else { return Vec::new() };
    let own = inside.split(['/', '.']).next().unwrap_or_default();
    let sibling = SIBLINGS.contains(&own);
    let may_know_app = ["app", "main", "lib", "cli"].contains(&own);
    let mut faults = Vec::new();
    for (at, room) in imports(code) {
        if sibling && room != own && SIBLINGS.contains(&room) {
            faults.push((
                code::line(code, at),
                format!("{own} does not know {room}: app brings them together"),
            ));
        } else if room == "app" && !may_know_app {
            faults.push((code::line(code, at), "nobody but main and cli/ knows app".to_owned()));
        }
    }
    faults
}

/// What follows every `crate::`, also inside its braces.
fn imports(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for at in code::words(code, "crate::") {
        let begin = at + "crate::".len();
        let mut depth = 0_usize;
        let mut expected = true;
        for (offset, next) in code[begin..].char_indices() {
            let here = begin + offset;
            if expected && (next.is_alphabetic() || next == '_') {
                found.push((here, word(&code[here..])));
                expected = false;
            }
            match next {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' if depth == 1 => expected = true,
                _ => {}
            }
            if depth == 0 && !expected {
                break;
            }
        }
    }
    found
}

fn word(code: &str) -> &str {
    code.split(|next: char| !next.is_alphanumeric() && next != '_').next().unwrap_or_default()
}

/// Tests may use what they need.
fn without_tests(code: &str) -> &str {
    code.find("#[cfg(test)]\nmod ").map_or(code, |at| &code[..at])
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, text: &str, expected: &[(usize, &str)]) {
        let source = Source { path: path.into(), text: text.into(), code: code::only(text) };
        let found = faults(&source);
        let same = |(found, expected): (&Fault, &(usize, &str))| {
            found.0 == expected.0 && found.1.contains(expected.1)
        };
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(same), "{found:?}");
    }

    #[test]
    fn siblings_do_not_know_each_other() {
        let room = "proxy-userspace/src/proxy/tcp.rs";
        check(room, "use crate::proxy::forward;\nuse crate::metrics;\n", &[]);
        check(room, "use crate::kernel::Kernel;\n", &[(1, "proxy does not know kernel")]);
        check(room, "use crate::{metrics::{admin, A},\n  node::B};\n", &[(2, "know node")]);
        check("proxy-userspace/src/dns/server.rs", "use crate::node::A;\n", &[(1, "dns does not know node")]);
        check("proxy-userspace/src/admin.rs", "fn f() { crate::source::g() }\n", &[(1, "know source")]);
        check("proxy-userspace/src/app.rs", "use crate::{kernel, node, proxy};\n", &[]);
    }

    #[test]
    fn only_main_and_cli_know_app() {
        check("proxy-userspace/src/settings.rs", "use crate::app;\n", &[(1, "app")]);
        check("proxy-userspace/src/cli/run.rs", "use crate::app;\n", &[]);
    }

    #[test]
    fn only_the_kernel_room_knows_aya() {
        check("proxy-userspace/src/kernel/load.rs", "use aya::Ebpf;\n", &[]);
        check("proxy-userspace/src/app.rs", "use aya::Ebpf;\n", &[(1, "aya")]);
    }

    #[test]
    fn traffic_is_pure_but_its_tests_are_free() {
        let path = "proxy-traffic/src/route.rs";
        check(path, "use std::net::IpAddr;\n// std::fs\n", &[]);
        check(
            path,
            "use std::fs;\nasync fn f() { Instant::now(); }\n",
            &[(1, "std::fs"), (2, "Instant"), (2, "async")],
        );
        check(path, "#[cfg(test)]\nmod tests { use std::fs; }\n", &[]);
    }
}
