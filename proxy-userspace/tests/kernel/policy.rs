//! What the stories about egress share: policies, and what the programs tell of those who break them.

use std::{collections::BTreeMap, net::SocketAddr, os::fd::AsFd as _, process::Command, sync::Arc};

use proxy_common::{
    Destination, FailurePolicy, Workload,
    direct::{Denied, Event, EventKind},
};
use proxy_traffic::{Egress, EgressPolicy, EgressVerdict, Snapshot};
use shunt::{
    kernel::Doors,
    node::{NameSockets, cgroup},
};

use crate::world::{Greeter, VIP, VIP6, World, snapshot};

/// Both VIPs are claimed; what is not meets `verdict`, and datagrams may go to `datagrams` all the same.
pub(crate) fn rules(verdict: EgressVerdict, datagrams: &[(&str, u16)]) -> Arc<Snapshot> {
    with(&snapshot(&[VIP, VIP6], &[]), verdict, datagrams)
}

pub(crate) fn with(base: &Snapshot, verdict: EgressVerdict, datagrams: &[(&str, u16)]) -> Arc<Snapshot> {
    let mesh = EgressPolicy { verdict, ..EgressPolicy::default() };
    let datagrams = datagrams.iter().map(|(range, port)| (range.parse().unwrap(), *port));
    let egress = Egress { mesh, sidecars: Vec::new() };
    Arc::new(Snapshot { egress, datagrams: datagrams.collect(), ..base.clone() })
}

/// A world where this policy holds, and which knows its own addresses.
pub(crate) fn world(failure: FailurePolicy, verdict: EgressVerdict, datagrams: &[(&str, u16)]) -> World {
    let mut world = World::new(failure);
    know_home(&mut world);
    world.kernel_mut().sync(&rules(verdict, datagrams)).unwrap();
    world
}

/// Tells the programs which addresses are the workload's own.
pub(crate) fn know_home(world: &mut World) {
    let (own, cookie) = (world.workload.own_addresses().unwrap(), world.workload.cookie());
    world.kernel_mut().set_own(cookie, &own).unwrap();
}

/// The server answers for these addresses as well.
pub(crate) fn serve(world: &World, ranges: &[&str]) {
    let add = |range: &&str| {
        let status = Command::new("ip").args(["route", "add", "local", range, "dev", "lo"]).status();
        assert!(status.unwrap().success(), "{range}");
    };
    world.server.enter(|| ranges.iter().for_each(add)).unwrap();
}

/// Enrolls the workload anew, as one whose name queries come to the daemon.
pub(crate) fn enroll_with_names(world: &mut World, failure: FailurePolicy) -> (NameSockets, [Greeter; 2]) {
    let (listeners, names) =
        world.outside(|| (world.workload.listen().unwrap(), world.workload.name_sockets().unwrap()));
    let v6 = listeners.v6.unwrap();
    let port = |address: SocketAddr| address.port().to_be_bytes();
    let entry = Workload {
        cgroup_id: cgroup::id(&world.cgroup("work")).unwrap(),
        port4: port(listeners.v4.local_addr().unwrap()),
        port6: port(v6.local_addr().unwrap()),
        failure_policy: failure as u8,
        flags: Workload::DNS,
        ..Workload::default()
    };
    let (netns, cookie) = (world.workload.as_fd().try_clone_to_owned().unwrap(), world.workload.cookie());
    let doors = Doors {
        v4: listeners.v4.as_fd(),
        v6: Some(v6.as_fd()),
        dns4: Some(names.v4.as_fd()),
        dns6: Some(names.v6.as_ref().unwrap().as_fd()),
    };
    let about = Arc::new(proxy_traffic::Workload {
        name: "test".to_owned(),
        namespace: "default".to_owned(),
        labels: BTreeMap::new(),
    });
    world.kernel_mut().enroll(netns.as_fd(), cookie, entry, about, &doors).unwrap();
    (names, [listeners.v4, v6].map(|listener| Greeter::start(listener, "steered")))
}

/// While this process is in the story's cgroup `name`.
pub(crate) fn inside<T>(world: &World, name: &str, work: impl FnOnce() -> T) -> T {
    cgroup::move_self(&world.cgroup(name)).unwrap();
    let outcome = work();
    cgroup::move_self(&world.cgroup("work")).unwrap();
    outcome
}

pub(crate) fn count(world: &World, name: &str) -> u64 {
    let counters = world.kernel().counters().unwrap();
    counters.iter().find(|(counter, _)| *counter == name).unwrap().1
}

/// What was denied since the last call: its kind, protocol and destination. All of it was the workload's.
pub(crate) fn denied(world: &mut World) -> Vec<(u32, u32, SocketAddr)> {
    let (mut all, cookie) = (Vec::new(), world.workload.cookie());
    world.kernel_mut().events(|event: &Event| {
        assert_eq!((event.kind, event.netns_cookie), (EventKind::Denied as u32, cookie), "{event:?}");
        let Event { original: address, original_port: port, .. } = *event;
        all.push((event.cause, event.run, Destination { address, port }.into()));
    });
    all
}

/// The destinations among them that were denied as `kind`; there is nothing else.
pub(crate) fn denied_as(world: &mut World, kind: Denied) -> Vec<String> {
    let each = |(cause, _, to): (u32, u32, SocketAddr)| {
        assert_eq!(cause, kind as u32, "{to}");
        to.to_string()
    };
    denied(world).into_iter().map(each).collect()
}
