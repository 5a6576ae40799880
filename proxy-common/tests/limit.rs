//! The limit's machine under every interleaving of what can happen to sockets: no step finds less than nothing, no
//! place is taken beyond the limit, and none is kept when all is over.

#![allow(clippy::unwrap_used, reason = "a model that cannot go on has failed")]

use std::collections::HashSet;

use proxy_common::limit::{ARMED, FREE, RESERVED, admits, armed, releases};

/// One atomic step of a program; each thread has one register.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Exchange the state for FREE.
    Take,
    /// Subtract one if what was taken held a place.
    GiveBack,
    /// Add one to the account.
    Add,
    /// Compare what the addition found; beyond the limit subtract again and end.
    Judge,
    /// Store a state.
    Hold(u64),
    /// Read the state.
    Read,
    /// Compare and exchange it for its armed form.
    Arm,
}

/// `connect()`: settle what an earlier attempt left, then reserve.
const CONNECT: [Step; 5] = [Step::Take, Step::GiveBack, Step::Add, Step::Judge, Step::Hold(RESERVED)];
/// `TCP_CONNECT_CB`.
const BEGIN: [Step; 2] = [Step::Read, Step::Arm];
/// `TCP_CONNECT_CB` of an MPTCP subflow, which nothing was reserved for.
const SUBFLOW: [Step; 3] = [Step::Add, Step::Judge, Step::Hold(ARMED)];
/// The way to CLOSE, and `sock_release`.
const RELEASE: [Step; 2] = [Step::Take, Step::GiveBack];

/// Steps that run one after the other, once thread `after` has ended.
#[derive(Clone, Debug)]
struct Thread {
    socket: usize,
    steps: Vec<Step>,
    after: Option<usize>,
}

/// Sockets, their account, and how far each thread is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    active: u64,
    states: Vec<u64>,
    /// Who was admitted and has not been taken from; what the account must never contradict.
    admitted: Vec<bool>,
    threads: Vec<(usize, u64)>,
}

impl World {
    fn step(&mut self, thread: usize, program: &Thread, max: u32) {
        let (at, register) = &mut self.threads[thread];
        let (state, admitted) = (&mut self.states[program.socket], &mut self.admitted[program.socket]);
        let step = program.steps[*at];
        *at += 1;
        match step {
            Step::Take => {
                *register = std::mem::replace(state, FREE);
                *admitted &= *register == FREE;
            }
            Step::GiveBack if releases(*register) => self.active = self.active.checked_sub(1).unwrap(),
            Step::GiveBack => {}
            Step::Add => {
                *register = self.active;
                self.active += 1;
            }
            Step::Judge if admits(*register, max) => *admitted = true,
            Step::Judge => {
                self.active = self.active.checked_sub(1).unwrap();
                *at = program.steps.len();
            }
            Step::Hold(next) => *state = next,
            Step::Read => *register = *state,
            Step::Arm if *state == *register => *state = armed(*register),
            Step::Arm => {}
        }
    }
}

/// Runs every interleaving; returns how many worlds there are, and the most that were admitted at a time.
fn explore(programs: &[Thread], max: u32) -> (usize, usize) {
    let sockets = programs.iter().map(|one| one.socket + 1).max().unwrap();
    let begin = World {
        active: 0,
        states: vec![FREE; sockets],
        admitted: vec![false; sockets],
        threads: vec![(0, 0); programs.len()],
    };
    let (mut seen, mut open, mut most) = (HashSet::new(), vec![begin], 0);
    while let Some(world) = open.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        let admitted = world.admitted.iter().filter(|one| **one).count();
        most = most.max(admitted);
        assert!(admitted <= max as usize && world.active >= admitted as u64, "{world:?}");
        let ended = |thread: usize| world.threads[thread].0 == programs[thread].steps.len();
        for (thread, program) in programs.iter().enumerate() {
            if !ended(thread) && program.after.is_none_or(ended) {
                let mut next = world.clone();
                next.step(thread, program, max);
                open.push(next);
            }
        }
        if (0..programs.len()).all(ended) {
            assert!(world.active == 0 && world.states.iter().all(|state| *state == FREE), "{world:?}");
        }
    }
    (seen.len(), most)
}

/// What happens to one socket in order, and then at the same time on several processors.
type Case = (&'static str, &'static [&'static [Step]], &'static [&'static [Step]]);

const CASES: &[Case] = &[
    ("closed by either side, killed, forked, refused, timed out", &[&CONNECT, &BEGIN], &[&RELEASE, &RELEASE]),
    ("reset or disconnected while the descriptor lives", &[&CONNECT, &BEGIN, &RELEASE], &[&RELEASE]),
    ("no route, or denied by another program", &[&CONNECT], &[&RELEASE]),
    ("closed while the kernel begins to connect", &[&CONNECT], &[&BEGIN, &RELEASE, &RELEASE]),
    ("a second attempt after no route", &[&CONNECT, &CONNECT, &BEGIN], &[&RELEASE, &RELEASE]),
    (
        "a second attempt after a refusal",
        &[&CONNECT, &BEGIN, &RELEASE, &CONNECT, &BEGIN],
        &[&RELEASE, &RELEASE],
    ),
    ("a second attempt beside the end of the first", &[&CONNECT, &BEGIN], &[&RELEASE, &CONNECT]),
    ("a second attempt that has no route", &[&CONNECT, &BEGIN, &RELEASE, &CONNECT], &[&RELEASE]),
    ("an MPTCP subflow, whose outer socket holds nothing", &[&SUBFLOW], &[&RELEASE]),
    ("never connected", &[], &[&RELEASE]),
];

/// The threads of `case` on `socket`; those at the same time begin when the one before them has ended.
fn threads(case: &Case, socket: usize, first: usize) -> Vec<Thread> {
    let (_, in_order, at_once) = case;
    let mut all = vec![Thread { socket, steps: in_order.concat(), after: None }];
    all.extend(at_once.iter().map(|steps| Thread { socket, steps: steps.to_vec(), after: Some(first) }));
    // A second attempt beside the end of the first is closed in the end like every other.
    if at_once.iter().any(|steps| steps.len() == CONNECT.len()) {
        all.push(Thread { socket, steps: RELEASE.to_vec(), after: Some(first + at_once.len()) });
    }
    all
}

#[test]
fn every_way_that_two_sockets_can_go_leaves_nothing_behind() {
    for one in CASES {
        for other in CASES {
            for max in 0..=2 {
                let mut programs = threads(one, 0, 0);
                programs.extend(threads(other, 1, programs.len()));
                let (worlds, _) = explore(&programs, max);
                assert!(worlds > 1, "{} / {}", one.0, other.0);
            }
        }
    }
}

#[test]
fn three_racers_for_two_places_never_become_three() {
    let case = &CASES[0];
    let mut programs = Vec::new();
    for socket in 0..3 {
        programs.extend(threads(case, socket, programs.len()));
    }
    let (_, most) = explore(&programs, 2);
    assert_eq!(most, 2);
}

#[test]
fn no_limit_admits_everybody() {
    assert!(admits(u64::MAX, u32::MAX) && !admits(u32::MAX as u64 - 1, u32::MAX - 1) && !admits(0, 0));
}
