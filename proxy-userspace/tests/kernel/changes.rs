//! Tables and programs that change while connections are made: none fails, none goes elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::programs::links::{FdLink, PinnedLink};
use proxy_common::FailurePolicy;
use shunt::node::Namespace;
use socket2::Socket;

use crate::{
    stage::{DIRECT, cluster, snapshot},
    world::{self, PATIENCE, World, hear},
};

/// Where a connection arrives; it leaves no port behind.
fn arrived() -> String {
    let stream = world::connect(DIRECT).unwrap();
    let heard = hear(&stream);
    Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
    heard.split(' ').nth(2).unwrap_or_default().to_owned()
}

/// Connects all the time while `change` does its work; where everybody arrived.
fn meanwhile(world: &mut World, change: impl FnOnce(&mut World, &AtomicUsize)) -> BTreeMap<String, usize> {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    // The servers hold what they accept.
    world::raise_descriptor_limit();
    let (over, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    let file = world.in_workload(|| fs::File::open("/proc/thread-self/ns/net").unwrap());
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let namespace = Namespace::open(Path::new(&path)).unwrap();
    let dial = || {
        let mut places = BTreeMap::new();
        while !over.load(Ordering::Relaxed) {
            *places.entry(arrived()).or_default() += 1;
            made.fetch_add(1, Ordering::Relaxed);
        }
        places
    };
    thread::scope(|scope| {
        let connecting = scope.spawn(|| namespace.enter(dial).unwrap());
        {
            // Also when the change fails.
            let _over = Over(&over);
            change(world, &made);
        }
        connecting.join().unwrap()
    })
}

/// Until so many more connections were made.
fn more(made: &AtomicUsize, count: usize) {
    let (begin, deadline) = (made.load(Ordering::Relaxed), Instant::now() + PATIENCE);
    while made.load(Ordering::Relaxed) < begin + count {
        assert!(Instant::now() < deadline, "connections have come to a stand after {begin}");
        thread::yield_now();
    }
}

#[test]
fn tables_that_change_under_load_lead_to_the_old_or_the_new_and_nowhere_else() {
    let mut world = World::new(FailurePolicy::Closed);
    let rules = |turn: usize| {
        let (heavy, light) = if turn.is_multiple_of(2) { (80, 20) } else { (20, 80) };
        let ends =
            if turn % 4 < 2 { ["10.98.0.1:80", "10.98.0.2:80"] } else { ["10.98.0.3:80", "10.98.0.4:80"] };
        let arms =
            [(heavy, cluster("flip-a", &ends)), (light, cluster("flip-b", &[ends[1], "10.98.0.5:80"]))];
        snapshot([(DIRECT, arms.into())])
    };
    world.kernel_mut().sync(&rules(0)).unwrap();
    let mut flips = 0;
    let places = meanwhile(&mut world, |world, made| {
        more(made, 1);
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            flips += 1;
            world.kernel_mut().sync(&rules(flips)).unwrap();
            world.kernel_mut().tend(Instant::now()).unwrap();
        }
    });
    let known: Vec<_> = (1..=5).map(|last| format!("10.98.0.{last}:80")).collect();
    assert!(places.keys().all(|place| known.contains(place)), "{places:?}");
    assert!(flips > 100, "{flips}");
    for counter in ["failed_open", "failed_closed", "unhealthy", "missing", "table_failed", "passed"] {
        let counters = world.kernel().counters().unwrap();
        assert!(counters.contains(&(counter, 0)), "{counter}: {counters:?}");
    }
}

/// Link and program of every pin.
fn pinned(folder: &Path) -> BTreeMap<String, (u32, u32)> {
    let layouts = fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let pins = layouts.flat_map(|layout| fs::read_dir(layout.path()).unwrap().flatten());
    let links = pins.filter(|pin| pin.file_name().to_string_lossy().contains('-'));
    let ids = links.map(|pin| {
        let link: FdLink = PinnedLink::from_pin(pin.path()).unwrap().into();
        let info = link.info().unwrap();
        (pin.file_name().to_string_lossy().into_owned(), (info.id(), info.program_id()))
    });
    ids.collect()
}

#[test]
fn programs_behind_pins_are_replaced_and_no_connect_notices() {
    let mut world = World::pinned(FailurePolicy::Closed);
    let rules = || snapshot([(DIRECT, vec![(1, cluster("kept", &["10.98.0.1:80"]))])]);
    world.kernel_mut().sync(&rules()).unwrap();
    let folder = world.pin.clone().unwrap();
    let before = pinned(&folder);
    assert!(before.len() >= 6, "{before:?}");
    let places = meanwhile(&mut world, |world, made| {
        for _ in 0..2 {
            more(made, 20);
            world.drop_kernel();
            more(made, 20);
            world.start_daemon_with(&rules());
            more(made, 20);
        }
    });
    let after = pinned(&folder);
    assert_eq!(before.keys().collect::<BTreeSet<_>>(), after.keys().collect::<BTreeSet<_>>());
    for (pin, (link, program)) in &before {
        assert_eq!(after[pin].0, *link, "{pin}: the link stays");
        assert_ne!(after[pin].1, *program, "{pin}: the program does not");
    }
    assert_eq!(places.keys().collect::<Vec<_>>(), ["10.98.0.1:80"], "{places:?}");
    let accounts = world.kernel().accounts().unwrap();
    let sum = |field: fn(&proxy_common::direct::Account) -> u64| {
        accounts.iter().map(|(_, one)| field(one)).sum::<u64>()
    };
    let total = places.values().sum::<usize>() as u64;
    assert_eq!((sum(|one| one.active), sum(|one| one.opened), sum(|one| one.closed)), (0, total, total));
}
