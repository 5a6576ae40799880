//! Whatever arrives, there is a verdict and no panic; and what is odd is not answered by us.

use hickory_proto::{op::Edns, rr::DNSClass};
use proptest::{collection::vec, prelude::*};

use super::{
    super::{Verdict, message},
    *,
};

fn edited(edit: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = question("echo.", RecordType::A);
    edit(&mut message);
    message.to_vec().unwrap()
}

#[test]
fn what_is_odd_is_for_the_resolver_or_for_nobody() {
    let another = Query::query(Name::from_ascii("dual.other.").unwrap(), RecordType::A);
    let strange_label = Name::from_labels([b"ec ho".as_slice(), b"default"]).unwrap();
    for (what, bytes, want) in [
        ("nothing", vec![], Verdict::Drop),
        ("half a header", vec![0; 11], Verdict::Drop),
        ("no question", vec![0; 12], Verdict::Forward),
        ("an answer", edited(|message| message.metadata.message_type = MessageType::Response), Verdict::Drop),
        ("an update", edited(|message| message.metadata.op_code = OpCode::Update), Verdict::Forward),
        ("truncated", edited(|message| message.metadata.truncation = true), Verdict::Forward),
        ("two questions", edited(|message| message.queries.push(another.clone())), Verdict::Forward),
        ("another class", edited(|message| message.queries[0].query_class = DNSClass::CH), Verdict::Forward),
        ("a strange label", edited(|message| message.queries[0].name = strange_label), Verdict::Forward),
        (
            "another EDNS",
            edited(|message| message.edns = Some(Edns::new().set_version(1).clone())),
            Verdict::Forward,
        ),
        ("cut", edited(|_| ())[..15].to_vec(), Verdict::Forward),
    ] {
        assert_eq!(ask(&bytes), want, "{what}");
    }
}

#[test]
fn a_name_that_points_at_itself_is_forwarded() {
    let mut query = question("echo.", RecordType::A).to_vec().unwrap();
    query.splice(12..18, [0xc0, 12]);
    assert_eq!(ask(&query), Verdict::Forward);
    assert_eq!(message::question(&query), None);
}

#[test]
fn only_an_answer_to_the_question_is_one() {
    let query = question("echo.", RecordType::A).to_vec().unwrap();
    let Verdict::Answer(good) = ask(&query) else { panic!("no answer") };
    let change = |at: usize, byte: u8| {
        let mut reply = good.clone();
        reply[at] = byte;
        reply
    };
    let bare = |code: u8| [0x12, 0x34, 0x81, code, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    for (what, reply, want) in [
        ("good", good.clone(), true),
        ("another case", change(13, b'E'), true),
        ("another ID", change(1, 0), false),
        ("a question", change(2, 0), false),
        ("another name", change(13, b'f'), false),
        ("another type", change(19, 28), false),
        ("cut", good[..15].to_vec(), false),
        ("nothing", vec![], false),
        ("a refusal without its question", bare(1), true),
        ("an empty answer without its question", bare(0), false),
    ] {
        assert_eq!(message::echoes(&query, &reply), want, "{what}");
    }
    let refusal = message::servfail(&query).unwrap();
    assert!(message::echoes(&query, &refusal));
    assert_eq!(Message::from_vec(&refusal).unwrap().metadata.response_code.to_string(), "Server Failure");
}

fn queries() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "echo.",
        "httpbin.org.default.svc.cluster.local.",
        "a.b.example.com.",
        ".",
    ]);
    let kind = prop::sample::select(vec![1_u16, 28, 65, 255, 16, 252, 41, 250]);
    (name, kind, any::<bool>()).prop_map(|(name, kind, with_edns)| {
        let mut message = question(name, RecordType::from(kind));
        message.edns = with_edns.then(Edns::new);
        message.to_vec().unwrap()
    })
}

fn claims(bytes: &[u8]) {
    for over_tcp in [false, true] {
        let verdict = answer(&mesh(), &workload(), bytes, over_tcp, "cluster.local");
        if let Verdict::Answer(reply) = &verdict {
            assert!(message::echoes(bytes, reply), "{bytes:x?}");
            assert!(Message::from_vec(reply).is_ok() && (over_tcp || reply.len() <= 4096));
        }
        assert_eq!(verdict == Verdict::Drop, !message::is_query(bytes));
    }
    let _ = message::servfail(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_have_a_verdict(bytes in vec(any::<u8>(), 0..600)) {
        claims(&bytes);
    }

    #[test]
    fn mutated_questions_have_a_verdict(
        mut bytes in queries(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        tail in vec(any::<u8>(), 0..20),
    ) {
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            let length = cut.index(bytes.len());
            bytes.truncate(length);
        }
        bytes.extend(tail);
        claims(&bytes);
    }

    #[test]
    fn random_answers_are_judged(query in queries(), reply in vec(any::<u8>(), 0..60)) {
        message::echoes(&query, &reply);
        message::question(&reply);
    }
}
