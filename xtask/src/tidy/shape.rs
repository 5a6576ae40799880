//! How a file looks: its opening, its size, its functions' size, and what may not be left in it.

use super::{Fault, Source, code};

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 60;
const SAFETY_REACH: usize = 8;
/// Of code; the lints find some of these too, but not in every build.
const FORBIDDEN: [&str; 5] = ["#[ignore", "todo!", "unimplemented!", "dbg!", "#[should_panic"];
const UNFINISHED: [&str; 3] = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("X", "XX")];
/// The last are the tests of kernel/ and node/, and a client, which make system calls that nobody wraps.
const UNSAFE_ROOMS: [&str; 6] = [
    "proxy-ebpf/",
    "proxy-common/src/",
    "proxy-userspace/src/kernel/",
    "proxy-userspace/src/node/",
    "proxy-userspace/tests/",
    "tests/src/bin/wayout/",
];

pub(super) fn faults(source: &Source) -> Vec<Fault> {
    let Source { path, text, code } = source;
    let mut faults = size(text, code);
    faults.extend(leftovers(text, code));
    faults.extend(unsafety(path, text, code));
    if !may_print(path) {
        let prints = ["println!", "print!"].into_iter().flat_map(|word| code::words(code, word));
        faults.extend(prints.map(|at| (code::line(code, at), "only cli/, xtask and tests print".to_owned())));
    }
    faults
}

fn size(text: &str, code: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push((1, "a file opens with //!: what it does, what it leaves to others".to_owned()));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES {
        faults.push((lines, format!("{lines} lines are too many, {FILE_LINES} is the most")));
    }
    let long = code::functions(code).into_iter().filter(|(_, _, lines)| *lines > FUNCTION_LINES);
    faults.extend(long.map(|(name, line, lines)| {
        (line, format!("fn {name} has {lines} lines, {FUNCTION_LINES} is the most"))
    }));
    faults
}

fn leftovers(text: &str, code: &str) -> Vec<Fault> {
    let in_code = FORBIDDEN.into_iter().flat_map(|word| code::words(code, word).map(move |at| (at, word)));
    let in_text = UNFINISHED.into_iter().flat_map(|word| code::words(text, word).map(move |at| (at, word)));
    // Blanking changes no line, so lines are counted in the text that was searched.
    let coded = in_code.map(|(at, word)| (code::line(code, at), word));
    let written = in_text.map(|(at, word)| (code::line(text, at), word));
    coded.chain(written).map(|(line, word)| (line, format!("{word} is not for committed code"))).collect()
}

/// `unsafe` in its rooms only, each with the reason why it is sound.
fn unsafety(path: &str, text: &str, code: &str) -> Vec<Fault> {
    let lines: Vec<_> = text.lines().collect();
    let mut faults = Vec::new();
    for at in code::words(code, "unsafe") {
        let line = code::line(code, at);
        let next = code[at + "unsafe".len()..].trim_start();
        // An attribute is no code, and a declaration passes the duty on to its callers.
        if code[..at].ends_with("#[") || ["fn", "extern"].iter().any(|word| next.starts_with(word)) {
            continue;
        }
        if !UNSAFE_ROOMS.iter().any(|room| path.starts_with(room)) {
            faults.push((line, "unsafe belongs to proxy-ebpf, proxy-common, kernel/ and node/".to_owned()));
        }
        let reason =
            lines[line.saturating_sub(1 + SAFETY_REACH)..line].iter().any(|line| line.contains("SAFETY:"));
        if !reason {
            faults.push((line, "unsafe without a SAFETY: comment above it".to_owned()));
        }
    }
    faults
}

fn may_print(path: &str) -> bool {
    ["xtask/", "tests/", "proxy-userspace/src/cli/"].iter().any(|room| path.starts_with(room))
        || path.contains("/tests/")
        || path.ends_with("build.rs")
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
    fn files_open_with_a_door_plate() {
        check("a/src/a.rs", "//! Fine.\n", &[]);
        check("a/src/a.rs", "// No.\n", &[(1, "//!")]);
    }

    #[test]
    fn long_files_and_functions_are_found() {
        check("a/src/a.rs", &format!("//! A.\n{}", "\n".repeat(400)), &[(401, "401 lines")]);
        check(
            "a/src/a.rs",
            &format!("//! A.\nfn long() {{\n{}}}\n", "\n".repeat(59)),
            &[(2, "fn long has 61")],
        );
    }

    #[test]
    fn leftovers_are_found_in_code_but_not_in_strings() {
        check("a/src/a.rs", "//! A.\nfn f() { todo!() }\n", &[(2, "todo!")]);
        check("a/src/a.rs", "//! A.\nfn f() { \"todo!()\"; }\n", &[]);
        check("a/src/a.rs", concat!("//! A.\n// FIX", "ME later\n"), &[(2, "not for committed")]);
        check("a/src/a.rs", "//! A.\n#[ignore]\nfn f() {}\n", &[(2, "#[ignore")]);
    }

    #[test]
    fn unsafe_stays_in_its_rooms_and_says_why() {
        let sound = "//! A.\n// SAFETY: plain bytes.\nunsafe impl Pod for Key {}\n";
        check("proxy-common/src/a.rs", sound, &[]);
        check("proxy-traffic/src/a.rs", sound, &[(3, "belongs")]);
        check("proxy-ebpf/src/a.rs", "//! A.\nfn f() { unsafe { g() } }\n", &[(2, "SAFETY")]);
        check("proxy-ebpf/src/a.rs", "//! A.\n#[unsafe(no_mangle)]\nunsafe fn f() {}\n", &[]);
    }

    #[test]
    fn only_the_command_line_prints() {
        let text = "//! A.\nfn f() { println!(); eprintln!() }\n";
        check("proxy-userspace/src/cli/status.rs", text, &[]);
        check("proxy-userspace/src/app.rs", text, &[(2, "print")]);
    }
}
