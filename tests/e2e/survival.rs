//! What the kernel routes goes on without the daemon: through a kill, a restart, an upgrade, for as long as the lease.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use tests::client::{Connection, Dial, connect, must_be_refused};
use tests::yaml;

use crate::datapath::Datapath;
use crate::scene::{Scene, answer};

/// A scene whose programs outlive the daemon.
pub(crate) fn pinned(name: &str, args: &str) -> Scene {
    Scene::with_args(name, Datapath::Direct, &format!("--pin {args}"))
}

/// How many connections arrive in a second.
const RATE: u32 = 1_000;

/// New connections of the client, at a steady pace, until they are stopped.
struct Newcomers {
    since: Instant,
    due: AtomicU32,
    served: AtomicUsize,
    failed: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Newcomers {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            due: AtomicU32::new(0),
            served: AtomicUsize::new(0),
            failed: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// One of the threads that share the work: each takes the next that is due, and what was late is made up for.
    fn arrive(&self, scene_client: &tests::mesh::Workload, to: std::net::SocketAddr) {
        scene_client.enter(|| {
            while !self.stop.load(Ordering::SeqCst) {
                let due =
                    self.since + Duration::from_secs(1) * self.due.fetch_add(1, Ordering::SeqCst) / RATE;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let outcome = Dial::to(to).connect_here().and_then(|mut one| one.send("hello\n").try_line());
                match outcome {
                    Ok(_) => drop(self.served.fetch_add(1, Ordering::SeqCst)),
                    Err(error) => self.failed.lock().expect("no panic").push(error.to_string()),
                }
            }
        });
    }

    /// Waits until `count` more were served or one failed.
    #[track_caller]
    fn must_see(&self, count: usize) {
        let before = self.served.load(Ordering::SeqCst);
        let enough = || self.served.load(Ordering::SeqCst) >= before + count;
        tests::wait::until("more are served", || {
            enough() || !self.failed.lock().expect("no panic").is_empty()
        });
        let failed = self.failed.lock().expect("no panic");
        assert!(failed.is_empty(), "{} failed, such as {:?}", failed.len(), failed.first());
    }
}

/// Ends the newcomers whatever happens.
struct Stop<'all>(&'all Newcomers);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// Runs `work` while [`RATE`] connections a second arrive.
fn under_load(scene: &mut Scene, work: impl FnOnce(&mut Scene, &Newcomers)) {
    let (client, to, newcomers) = (scene.client.clone(), scene.vip(), Newcomers::new());
    thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| newcomers.arrive(&client, to))));
        let stop = Stop(&newcomers);
        newcomers.must_see(100);
        work(scene, &newcomers);
        newcomers.must_see(100);
        drop(stop);
    });
    let (took, served) = (newcomers.since.elapsed(), newcomers.served.into_inner());
    let failed = newcomers.failed.into_inner().expect("no panic");
    let rate = served as f64 / took.as_secs_f64();
    eprintln!("{served} new connections in {took:.1?}, {rate:.0} a second, {} failed", failed.len());
    assert!(failed.is_empty(), "{} failed, such as {:?}", failed.len(), failed.first());
}

/// Each of them still talks to version v1.
#[track_caller]
fn must_live(open: &mut [Connection], word: &str) {
    for one in open {
        one.must_echo(word, &format!("one {word}"));
    }
}

/// What `shunt status` says of pins.
fn pins(scene: &Scene) -> Value {
    let status: Value = serde_json::from_str(&scene.daemon.must("status -o json")).expect("JSON");
    status["pins"].clone()
}

#[test]
fn a_kill_and_a_restart_under_load_fail_nobody() {
    let mut scene = pinned("survive", "");
    let mut open: Vec<Connection> = (0..500).map(|_| connect(&scene.client, scene.vip())).collect();
    must_live(&mut open, "before");
    under_load(&mut scene, |scene, newcomers| {
        scene.daemon.kill9();
        newcomers.must_see(500);
        must_live(&mut open, "alone");
        scene.daemon.start_again();
        newcomers.must_see(500);
        assert_eq!(pins(scene)["adopted"], true, "{}", scene.daemon.must("status"));
        must_live(&mut open, "again");
    });
    assert!(scene.daemon.must("status").contains("default/client app=web"));
    scene.daemon.apply("routing.yaml", &yaml::split(&[("v2", 100)]));
    assert_eq!(scene.answers(50)["two"], 50);
    must_live(&mut open, "edited");
    drop(open);
    let gauge = || scene.daemon.metrics().sum("shunt_direct_connections_open", &[]);
    tests::wait::until("nothing is open by the new daemon's books", || gauge() == 0);
    scene.daemon.stop();
}

#[test]
fn an_edit_made_while_nobody_looked_is_in_force_after_the_restart() {
    let mut scene = pinned("missed", "");
    scene.daemon.kill9();
    scene.daemon.write("routing.yaml", &yaml::split(&[("v2", 100)]));
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    scene.daemon.start_again();
    assert_eq!(scene.answers(50)["two"], 50);
    scene.daemon.stop();
}

#[test]
fn limits_are_counted_on_over_a_restart() {
    let mut scene = pinned("counted", "");
    let limited = yaml::subsets("tcp-echo", &["v1", "v2"])
        .replace("spec: {", "spec: {trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}, ");
    // An address of IPv6 that leads to IPv4 endpoints would be steered, and with it the limit.
    let services = fs::read_to_string(scene.daemon.config("services.yaml")).expect("services");
    scene.daemon.apply("services.yaml", &services.replace(", \"fd00:96::10\"", ""));
    scene.daemon.apply("subsets.yaml", &limited);
    let hello = |scene: &Scene| crate::fleet::hello(&scene.client, scene.vip());
    let mut open: Vec<_> = (0..5).filter_map(|_| hello(&scene)).collect();
    assert_eq!(open.len(), 3);
    scene.daemon.kill9();
    must_be_refused(&scene.client, scene.vip());
    scene.daemon.start_again();
    must_be_refused(&scene.client, scene.vip());
    drop(open.pop());
    let more = tests::wait::find("there is room again", || hello(&scene));
    must_be_refused(&scene.client, scene.vip());
    drop((open, more));
    tests::wait::until("three fit again", || {
        (0..4).filter_map(|_| hello(&scene)).collect::<Vec<_>>().len() == 3
    });
}

#[test]
fn pins_of_another_layout_are_replaced_without_a_gap() {
    let mut scene = pinned("layout", "");
    let mut open: Vec<Connection> = (0..20).map(|_| connect(&scene.client, scene.vip())).collect();
    let folder = scene.daemon.run_dir().join("pins");
    let other = folder.join("v999");
    under_load(&mut scene, |scene, newcomers| {
        scene.daemon.kill9();
        // The kernel's own files are there too.
        let mut layouts = fs::read_dir(&folder).expect("pins").flatten().map(|entry| entry.path());
        let name = layouts.find(|entry| entry.is_dir()).expect("a layout");
        fs::rename(&name, &other).expect("bpffs renames folders");
        newcomers.must_see(100);
        scene.daemon.start_again();
        newcomers.must_see(100);
        assert!(name.exists() && !other.exists(), "the old folder goes when the new programs run");
        assert_eq!(pins(scene)["adopted"], false);
    });
    scene.daemon.must_say("layout");
    must_live(&mut open, "still");
    scene.daemon.apply("routing.yaml", &yaml::split(&[("v2", 100)]));
    assert_eq!(scene.answers(50)["two"], 50);
    drop(open);
    scene.daemon.stop();
}

#[test]
fn a_full_table_leaves_the_old_rules_in_force() {
    let scene = Scene::with_args("full", Datapath::Direct, "--max-listeners 64");
    let many = |count: u16| {
        let service = |n: u16| {
            yaml::service_entry(
                &format!("s{n}.example"),
                &[format!("10.98.{}.{}", n / 200, 1 + n % 200)],
                9000,
                scene.two.address(),
            )
        };
        (1..=count).map(service).collect::<String>()
    };
    scene.daemon.apply("many.yaml", &many(20));
    scene.daemon.write("many.yaml", &many(200));
    let status = || scene.daemon.must("status");
    tests::wait::until("status names the flag", || status().contains("--max-listeners"));
    assert!(status().contains("LISTENERS") || status().contains("CLUSTERS"), "{}", status());
    assert_eq!(answer(&scene.client, scene.vip()), "one");
    assert_eq!(answer(&scene.client, crate::scene::at("10.98.0.8", 9000)), "two");
    scene.daemon.write("many.yaml", &many(30));
    scene.daemon.write("routing.yaml", &yaml::split(&[("v2", 100)]));
    tests::wait::until("what fits is in force", || answer(&scene.client, scene.vip()) == "two");
    tests::wait::until("nothing is wrong any more", || !status().contains("--max-listeners"));
    assert_eq!(answer(&scene.client, crate::scene::at("10.98.0.30", 9000)), "two");
}
