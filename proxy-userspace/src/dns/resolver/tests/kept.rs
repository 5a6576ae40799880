//! Names that are followed, with a clock that goes when nobody has anything to do.

use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::rr::RecordType;
use proxy_traffic::Map;
use tokio::{sync::mpsc, time::timeout};

use super::*;

type Changes = mpsc::Receiver<(String, Vec<IpAddr>)>;

fn follow(resolver: Resolver, names: &[&str]) -> (Keeper, Changes) {
    let (tell, changes) = mpsc::channel(8);
    let mut keeper = Keeper::new(resolver, tell);
    keeper.follow(&lookups(names));
    (keeper, changes)
}

fn lookups(names: &[&str]) -> Map<String, Lookup> {
    names.iter().map(|name| ((*name).to_owned(), Lookup::default())).collect()
}

async fn next(changes: &mut Changes) -> (String, Vec<String>) {
    let told = timeout(Duration::from_secs(86400), changes.recv()).await.unwrap().unwrap();
    (told.0, told.1.iter().map(ToString::to_string).collect())
}

/// Seconds between questions.
fn pauses(server: &Server) -> Vec<u64> {
    let asked = server.asked.lock().unwrap();
    asked.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn answers_hold_from_five_seconds_to_an_hour() {
    for (ttl, pause) in [(0, 5), (60, 60), (i32::MAX.cast_unsigned(), 3600), (1 << 31, 3600)] {
        let server = Server::new(move |question, _| vec![answer(question, ttl, &["203.0.113.1"])]).await;
        let (_keeper, mut changes) = follow(server.resolver(LookupFamily::V4Only), &["a.test"]);
        assert_eq!(next(&mut changes).await, ("a.test".to_owned(), vec!["203.0.113.1".to_owned()]));
        while server.asked() < 4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(pauses(&server), [pause; 3], "{ttl}");
        assert!(changes.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_good_addresses_stay_and_changes_are_told() {
    let turn = AtomicUsize::new(0);
    let server = Server::new(move |question, _| {
        vec![match turn.fetch_add(1, Ordering::Relaxed) {
            0 => answer(question, 30, &["203.0.113.2", "203.0.113.1"]),
            1 => answer(question, 30, &["203.0.113.1", "203.0.113.2"]),
            2..9 => refusal(question, ResponseCode::NXDomain),
            9..12 => answer(question, 30, &["127.0.0.1"]),
            _ => answer(question, 30, &["203.0.113.3"]),
        }]
    })
    .await;
    let (_keeper, mut changes) = follow(server.resolver(LookupFamily::V4Only), &["a.test"]);
    assert_eq!(next(&mut changes).await.1, ["203.0.113.2", "203.0.113.1"]);
    assert_eq!(next(&mut changes).await.1, ["203.0.113.3"]);
    assert_eq!(pauses(&server), [30, 30, 5, 10, 20, 40, 60, 60, 60, 60, 60, 60]);
}

#[tokio::test(start_paused = true)]
async fn only_names_that_are_followed_are_asked_for() {
    let server = Server::new(|question, _| vec![answer(question, 60, &["203.0.113.1"])]).await;
    let (mut keeper, mut changes) = follow(server.resolver(LookupFamily::V4Only), &["a.test", "b.test"]);
    let mut told = [next(&mut changes).await.0, next(&mut changes).await.0];
    told.sort();
    assert_eq!(told, ["a.test", "b.test"]);
    keeper.follow(&lookups(&["b.test", "c.test"]));
    assert_eq!(next(&mut changes).await.0, "c.test");
    assert_eq!(server.asked(), 3);
    keeper.follow(&lookups(&[]));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(server.asked(), 3);
    // Who comes back is told anew.
    keeper.follow(&lookups(&["a.test"]));
    assert_eq!(next(&mut changes).await.0, "a.test");
    drop(keeper);
    assert!(changes.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn families_are_preferred_as_told() {
    for (family, both, four, six) in [
        (LookupFamily::V4Preferred, "203.0.113.1", "203.0.113.1", "2001:db8::1"),
        (LookupFamily::V6Preferred, "2001:db8::1", "203.0.113.1", "2001:db8::1"),
        (LookupFamily::V4Only, "203.0.113.1", "203.0.113.1", ""),
        (LookupFamily::V6Only, "2001:db8::1", "", "2001:db8::1"),
        (LookupFamily::All, "203.0.113.1 2001:db8::1", "203.0.113.1", "2001:db8::1"),
    ] {
        let server = Server::new(|question, _| {
            let asked = &question.queries[0];
            let only = asked.name().to_ascii().to_lowercase();
            let has = match asked.query_type() {
                RecordType::A if only != "six.test." => "203.0.113.1",
                RecordType::AAAA if only != "four.test." => "2001:db8::1",
                _ => return vec![answer(question, 60, &[])],
            };
            vec![answer(question, 60, &[has])]
        })
        .await;
        let resolver = server.resolver(family);
        for (name, want) in [("both.test", both), ("four.test", four), ("six.test", six)] {
            let found = resolver.resolve(name, &Lookup::default()).await;
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), want, "{name} {family:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_client_says_is_remembered_as_long_as_it_holds() {
    let server = Server::new(|question, _| match question.queries[0].name().num_labels() {
        2 => vec![answer(question, 60, &["203.0.113.1", "10.0.0.1"])],
        _ => vec![refusal(question, ResponseCode::NXDomain)],
    })
    .await;
    let resolver = server.resolver(LookupFamily::V4Only);
    let outside = Lookup { external: true, allowed: Vec::new() };
    let one = [IpAddr::from([203, 0, 113, 1])];
    for _ in 0..3 {
        assert_eq!(resolver.resolve("a.test", &outside).await, one);
        assert!(resolver.resolve("no.a.test", &outside).await.is_empty());
    }
    assert_eq!(server.asked(), 2);
    assert_eq!(resolver.resolve("a.test", &Lookup::default()).await.len(), 2);
    assert_eq!(server.asked(), 3);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(resolver.resolve("a.test", &Lookup::default()).await.len(), 2);
    assert!(resolver.resolve("no.a.test", &outside).await.is_empty());
    assert_eq!(server.asked(), 4);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(resolver.resolve("a.test", &Lookup::default()).await.len(), 2);
    assert_eq!(server.asked(), 5);
    for odd in ["", "..", "a..test", &"x".repeat(300)] {
        assert!(resolver.resolve(odd, &outside).await.is_empty(), "{odd}");
    }
}
