//! However a direct connection begins and ends: every place is given back, and it is counted as what it was.

use std::{
    collections::BTreeSet,
    env,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _},
    net::TcpStream,
    os::fd::{AsFd as _, OwnedFd},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use proxy_common::direct::Account;
use socket2::{Domain, Socket, Type};

use crate::{
    address,
    denier::Denier,
    stage::{
        CONNECT_TIMEOUT, DIRECT, DIRECT6, LIMIT, PASS, REFUSING, SERVED, SILENT, Stage, UNREACHABLE, accept,
    },
    world::{disconnect, hear},
};

const MAPPED: &str = "[::ffff:10.99.0.5]:80";
const GREETING: &str = "10.98.0.1:80";

const HANDED: &str = "SHUNT_TEST_HANDED";

type Story = fn(&mut Stage);

/// Name, story, endpoint; opened, failed, abandoned, overflowed.
const CASES: &[(&str, Story, &str, [u64; 4])] = &[
    ("the client closes", |stage| drop(stage.dial()), SERVED, [1, 0, 0, 0]),
    ("the server closes", server_closes, SERVED, [1, 0, 0, 0]),
    ("the client resets", |stage| reset(stage.dial()), SERVED, [1, 0, 0, 0]),
    ("the server resets", server_resets, SERVED, [1, 0, 0, 0]),
    ("killed", killed, GREETING, [2, 0, 0, 0]),
    ("forked", forked, SERVED, [1, 0, 0, 0]),
    ("refused", |stage| fails(stage, libc::ECONNREFUSED), REFUSING, [0, 1, 0, 0]),
    ("refused, then elsewhere", refused_then_elsewhere, REFUSING, [0, 1, 0, 0]),
    ("no route", |stage| fails(stage, libc::EHOSTUNREACH), UNREACHABLE, [0, 1, 0, 0]),
    ("no answer", no_answer, SILENT, [0, 1, 0, 0]),
    ("closed before an answer", closed_before_an_answer, SILENT, [0, 0, 1, 0]),
    ("bounds of the application", bounds, SERVED, [2, 0, 0, 0]),
    ("denied before us", |stage| denied(stage, false, false), SERVED, [0, 1, 0, 0]),
    ("denied after us", |stage| denied(stage, true, false), SERVED, [0, 1, 0, 0]),
    ("denied below us", |stage| denied(stage, true, true), SERVED, [0, 1, 0, 0]),
    ("denied above us", denied_above, SERVED, [0, 1, 0, 0]),
    ("disconnected, then elsewhere", |stage| twice(stage, PASS), SERVED, [1, 0, 0, 0]),
    ("disconnected, then again", |stage| twice(stage, DIRECT), SERVED, [2, 0, 0, 0]),
    ("connected while connected", connected_while_connected, SERVED, [1, 0, 0, 0]),
    ("data in the SYN", fast_open, SERVED, [2, 0, 0, 0]),
    ("mapped", |stage| drop(stage.world.dial(MAPPED).unwrap()), SERVED, [1, 0, 0, 0]),
    ("IPv6", |stage| drop(stage.world.dial(DIRECT6).unwrap()), SERVED, [1, 0, 0, 0]),
    ("non-blocking", non_blocking, SERVED, [1, 0, 0, 0]),
    ("non-blocking, refused", non_blocking_refused, REFUSING, [0, 1, 0, 0]),
    ("made before it was enrolled", before_enrolment, SERVED, [1, 0, 0, 0]),
    ("made outside the cgroup", made_outside, SERVED, [0, 0, 0, 0]),
    ("handed out of the cgroup", handed_out, SERVED, [1, 0, 0, 0]),
    ("connected outside the cgroup", connected_outside, SERVED, [0, 0, 0, 0]),
    ("over the limit", over_the_limit, SERVED, [4, 0, 0, 1]),
];

#[test]
fn every_place_is_given_back_and_counted_as_what_it_was() {
    let mut stage = Stage::new();
    let mut wrong = Vec::new();
    for (name, story, endpoint, want) in CASES {
        stage.next(&[endpoint]);
        story(&mut stage);
        let Account { active, opened, closed, failed, abandoned, overflowed, .. } = stage.settled();
        if active != 0 || closed != opened || [opened, failed, abandoned, overflowed] != *want {
            wrong.push(format!(
                "{name}: active {active}, opened {opened}, closed {closed}, failed {failed}, \
                 abandoned {abandoned}, overflowed {overflowed}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

fn reset(stream: TcpStream) {
    Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn fails(stage: &Stage, errno: i32) {
    let error = stage.world.in_workload(|| socket().connect(&address(DIRECT)).unwrap_err());
    assert_eq!(error.raw_os_error(), Some(errno), "{error}");
}

fn server_closes(stage: &mut Stage) {
    let (mut client, server) = stage.pair();
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

fn server_resets(stage: &mut Stage) {
    let (mut client, server) = stage.pair();
    reset(server);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    // Before it is closed.
    assert_eq!(stage.until(|sum| sum.active == 0).active, 0);
}

fn child(stage: &Stage, script: &str, arguments: &[&str], stdin: impl Into<Stdio> + Send) -> Child {
    let mut command = Command::new("bash");
    command.args(["-c", script]).args(arguments).stdin(stdin).stdout(Stdio::piped());
    stage.world.in_workload(|| command.spawn().unwrap())
}

fn line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn killed(stage: &mut Stage) {
    let script = "exec 3<>/dev/tcp/10.99.0.5/80 4<>/dev/tcp/10.99.0.5/80; echo ready; read";
    let mut child = child(stage, script, &[], Stdio::piped());
    assert_eq!(line(&mut child), "ready");
    // A place in the limit and one at the endpoint each.
    assert_eq!(stage.sum().active, 4);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn forked(stage: &mut Stage) {
    let (client, _server) = stage.pair();
    let copy = OwnedFd::from(client.try_clone().unwrap());
    let mut child = child(stage, "echo ready; exec sleep 60", &[], copy);
    assert_eq!(line(&mut child), "ready");
    drop(client);
    assert_eq!(stage.sum().active, 2, "the child's copy is open");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn refused_then_elsewhere(stage: &mut Stage) {
    stage.world.in_workload(|| {
        let socket = socket();
        socket.connect(&address(DIRECT)).unwrap_err();
        socket.connect(&address(PASS)).unwrap();
        assert!(hear(&socket.into()).starts_with("native at 10.99.0.1:81"));
    });
}

fn no_answer(stage: &mut Stage) {
    let begin = Instant::now();
    fails(stage, libc::ETIMEDOUT);
    let took = begin.elapsed();
    assert!((CONNECT_TIMEOUT..CONNECT_TIMEOUT + Duration::from_secs(1)).contains(&took), "{took:?}");
}

fn closed_before_an_answer(stage: &mut Stage) {
    stage.world.in_workload(|| {
        let socket = socket();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&address(DIRECT)).unwrap_err();
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(CONNECT_TIMEOUT));
        // Asked twice, it still is one connect.
        let again = socket.connect(&address(DIRECT)).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EALREADY));
    });
}

fn bounds(stage: &mut Stage) {
    for theirs in [Some(Duration::from_millis(7777)), None] {
        let after = stage.world.in_workload(|| {
            let socket = socket();
            socket.set_tcp_user_timeout(theirs).unwrap();
            socket.connect(&address(DIRECT)).unwrap();
            socket.tcp_user_timeout().unwrap()
        });
        assert_eq!(after.filter(|bound| !bound.is_zero()), theirs);
    }
}

fn denied(stage: &mut Stage, after: bool, below: bool) {
    let work = stage.world.cgroup("work");
    let top = work.parent().unwrap().to_owned();
    if !after {
        stage.world.kernel_mut().attach(&BTreeSet::new()).unwrap();
    }
    let denier = Denier::attach(if below { &work } else { &top });
    stage.world.kernel_mut().attach(&BTreeSet::from([top])).unwrap();
    fails(stage, libc::EPERM);
    drop(denier);
}

fn denied_above(stage: &mut Stage) {
    let work = stage.world.cgroup("work");
    let top = work.parent().unwrap().to_owned();
    stage.world.kernel_mut().attach(&BTreeSet::from([work])).unwrap();
    let denier = Denier::attach(&top);
    fails(stage, libc::EPERM);
    drop(denier);
    stage.world.kernel_mut().attach(&BTreeSet::from([top])).unwrap();
}

fn twice(stage: &mut Stage, second: &str) {
    stage.world.in_workload(|| {
        let socket = socket();
        socket.connect(&address(DIRECT)).unwrap();
        disconnect(&socket);
        socket.connect(&address(second)).unwrap();
        assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(second.parse().unwrap()));
    });
}

fn connected_while_connected(stage: &mut Stage) {
    stage.world.in_workload(|| {
        let socket = socket();
        socket.connect(&address(DIRECT)).unwrap();
        let error = socket.connect(&address(DIRECT)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EISCONN));
    });
}

fn fast_open(stage: &mut Stage) {
    // The first gets the cookie, the second uses it.
    for _ in 0..2 {
        let client = stage.world.in_workload(|| {
            let socket = socket();
            socket.send_to_with_flags(b"early", &address(DIRECT), libc::MSG_FASTOPEN).unwrap();
            TcpStream::from(socket)
        });
        let mut server = accept(&stage.server, &client);
        let mut bytes = [0; 5];
        server.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"early");
        assert_eq!(client.peer_addr().unwrap(), DIRECT.parse().unwrap());
    }
}

fn connected_later(stage: &Stage) -> Option<io::Error> {
    stage.world.in_workload(|| {
        let socket = socket();
        socket.set_nonblocking(true).unwrap();
        let error = socket.connect(&address(DIRECT)).err();
        assert!(error.is_none_or(|error| error.raw_os_error() == Some(libc::EINPROGRESS)));
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        poll(&mut ready, PollTimeout::from(5000_u16)).unwrap();
        socket.take_error().unwrap()
    })
}

fn non_blocking(stage: &mut Stage) {
    assert!(connected_later(stage).is_none());
}

fn non_blocking_refused(stage: &mut Stage) {
    assert_eq!(connected_later(stage).unwrap().kind(), ErrorKind::ConnectionRefused);
}

fn before_enrolment(stage: &mut Stage) {
    let cookie = stage.world.workload.cookie();
    stage.world.kernel_mut().unenroll(cookie).unwrap();
    let socket = stage.world.in_workload(socket);
    stage.world.enroll_work();
    socket.connect(&address(DIRECT)).unwrap();
}

/// The kernel asks the cgroup that a socket was made in.
fn made_outside(stage: &mut Stage) {
    let socket = stage.world.outside(|| stage.world.in_workload(socket));
    socket.connect(&address(DIRECT)).unwrap();
    assert!(hear(&socket.into()).starts_with("native at 10.99.0.5:80"));
}

fn handed_out(stage: &mut Stage) {
    let (client, _server) = stage.pair();
    let script = "echo $$ > $0/cgroup.procs; echo ready; exec sleep 60";
    let other = stage.world.cgroup("other").display().to_string();
    let mut child = child(stage, script, &[&other], OwnedFd::from(client));
    assert_eq!(line(&mut child), "ready");
    assert_eq!(stage.sum().active, 2);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The task that connects is not one of the workload's.
fn connected_outside(stage: &mut Stage) {
    let socket = stage.world.in_workload(socket);
    let script =
        "echo $$ > $0/cgroup.procs; exec env SHUNT_TEST_HANDED=1 $1 --exact ends::connects_standard_input";
    let (other, own) = (stage.world.cgroup("other"), env::current_exe().unwrap());
    let arguments = [other.to_str().unwrap(), own.to_str().unwrap()];
    let mut child = child(stage, script, &arguments, OwnedFd::from(socket.try_clone().unwrap()));
    io::copy(child.stdout.as_mut().unwrap(), &mut io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(hear(&socket.into()).starts_with("native at 10.99.0.5:80"));
}

#[test]
fn connects_standard_input() {
    // Part of another story, which runs it in a process of its own.
    if env::var_os(HANDED).is_none() {
        return;
    }
    let copy = io::stdin().as_fd().try_clone_to_owned().unwrap();
    Socket::from(copy).connect(&address(DIRECT)).unwrap();
}

fn over_the_limit(stage: &mut Stage) {
    let _held: Vec<_> = (0..LIMIT).map(|_| stage.dial()).collect();
    fails(stage, libc::ECONNREFUSED);
}
