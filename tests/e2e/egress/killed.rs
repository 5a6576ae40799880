//! A killed daemon under REGISTRY_ONLY: the failure policy is about what may not leave, too.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tests::client::Dial;
use tests::internet::ECHO;
use tests::{wait, yaml};

use super::{CNN, GOOGLE, Outlook};
use crate::scene::at;

/// How often the denied address is tried.
const ATTEMPTS: usize = 10_000;

fn scene(name: &str, args: &str) -> Outlook {
    let scene = Outlook::with_args(name, "REGISTRY_ONLY", args);
    let entry = yaml::external("cnn.example", "9000/TCP", "addresses: [203.0.113.11], resolution: NONE");
    scene.daemon.apply("entry.yaml", &entry);
    scene
}

/// How many of `attempts` get an answer of `address`; `tried` counts along.
fn hammer(scene: &Outlook, address: &str, attempts: usize, tried: &AtomicUsize) -> usize {
    let to = at(address, ECHO);
    scene.client.enter(|| {
        let succeeds = |_: &usize| {
            tried.fetch_add(1, Ordering::SeqCst);
            let Ok(mut connection) = Dial::to(to).connect_here() else { return false };
            let sent = std::io::Write::write_all(&mut connection.stream, b"hello\n");
            let answered = sent.is_ok() && connection.try_line().is_ok();
            // Ports of finished connections are to be had at once.
            connection.reset();
            answered
        };
        (0..attempts).filter(succeeds).count()
    })
}

/// Kills the daemon while `address` is tried `attempts` times; how many of these got an answer.
fn killed_under(scene: &mut Outlook, address: &str, attempts: usize) -> usize {
    let tried = AtomicUsize::new(0);
    let pid = nix::unistd::Pid::from_raw(scene.daemon.pid() as i32);
    let answered = thread::scope(|scope| {
        let hammering = scope.spawn(|| hammer(scene, address, attempts, &tried));
        wait::until("a tenth was tried", || tried.load(Ordering::SeqCst) > attempts / 10);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("the daemon runs");
        hammering.join().expect("no panic")
    });
    scene.daemon.kill9();
    answered
}

#[test]
fn with_policy_closed_nothing_denied_gets_out() {
    let mut scene = scene("egress-closed", "--failure-policy closed");
    assert_eq!(killed_under(&mut scene, GOOGLE.1, ATTEMPTS), 0);
    scene.daemon.start_again();
    scene.must_be_closed(GOOGLE.1, ECHO);
    scene.must_echo(CNN.1);
    scene.daemon.stop();
}

#[test]
fn with_policy_closed_refused_stays_refused() {
    let mut scene = scene("egress-refuse", "--failure-policy closed --egress-blocked refuse");
    assert_eq!(killed_under(&mut scene, GOOGLE.1, ATTEMPTS), 0);
}

#[test]
fn with_policy_open_everything_allowed_gets_out() {
    let mut scene = scene("egress-open", "--failure-policy open");
    assert_eq!(killed_under(&mut scene, CNN.1, 2_000), 2_000);
    scene.daemon.start_again();
    scene.must_be_closed(GOOGLE.1, ECHO);
    scene.must_echo(CNN.1);
    scene.daemon.stop();
}
