//! What a hostile or broken resolver may say, and what we make of it. Time stands still while a resolver works and passes when it is
//! silent, so no case takes long.

use hickory_proto::{
    op::MessageType,
    rr::{
        DNSClass,
        rdata::{CNAME, TXT},
    },
};

use super::*;

const GOOD: &str = "203.0.113.1";
const BAD: &str = "203.0.113.66";

fn outside() -> Lookup {
    Lookup { external: true, allowed: Vec::new() }
}

fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

/// What is found for `a.test` where `play` answers.
#[track_caller]
fn check(what: &str, want: &[&str], play: impl Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync + 'static) {
    check_family(what, LookupFamily::V4Only, want, play);
}

#[track_caller]
fn check_family(
    what: &str,
    family: LookupFamily,
    want: &[&str],
    play: impl Fn(&Message, bool) -> Vec<Vec<u8>> + Send + Sync + 'static,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let found = runtime.unwrap().block_on(async {
        let server = Server::new(play).await;
        let found = server.resolver(family).resolve("a.test", &outside()).await;
        assert!(server.asked() > 0, "{what}: nobody was asked");
        found
    });
    let want: Vec<IpAddr> = want.iter().map(|address| address.parse().unwrap()).collect();
    assert_eq!(found, want, "{what}");
}

/// An honest answer, changed.
fn changed(question: &Message, change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut reply = reply(question);
    change(&mut reply);
    reply.to_vec().unwrap()
}

fn good(question: &Message) -> Vec<u8> {
    answer(question, 60, &[GOOD])
}

fn with_id(mut reply: Vec<u8>, change: u8) -> Vec<u8> {
    reply[1] ^= change;
    reply
}

#[test]
fn who_guesses_is_not_heard() {
    check("an honest answer", &[GOOD], |question, _| vec![good(question)]);
    check("twice", &[GOOD], |question, _| vec![good(question), good(question)]);
    check("another ID", &[], |question, _| vec![with_id(answer(question, 60, &[BAD]), 1)]);
    check("every ID but one, then the true one", &[GOOD], |question, _| {
        let guess = |change| with_id(answer(question, 60, &[BAD]), change);
        (1..200).map(guess).chain([good(question)]).collect()
    });
    check("another question", &[GOOD], |question, _| {
        let forged = changed(question, |reply| {
            reply.queries[0].name = name("b.test.");
            reply.answers = vec![record("a.test.", 60, BAD)];
        });
        vec![forged, good(question)]
    });
    check("no question", &[GOOD], |question, _| {
        let forged = changed(question, |reply| {
            reply.queries.clear();
            reply.answers = vec![record("a.test.", 60, BAD)];
        });
        vec![forged, good(question)]
    });
    check("the question in another case, and the truth by a connection", &[GOOD], |question, by_stream| {
        let other_case = changed(question, |reply| {
            let text = reply.queries[0].name().to_string();
            let swap =
                |c: char| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            reply.queries[0].name = name(&text.chars().map(swap).collect::<String>());
            reply.answers = vec![record("a.test.", 60, BAD)];
        });
        vec![if by_stream { good(question) } else { other_case }]
    });
    check("the question itself", &[], |question, _| vec![question.to_vec().unwrap()]);
    check("silence", &[], |_, _| vec![]);
}

#[test]
fn addresses_inside_are_no_answer() {
    for inside in
        ["10.0.0.1", "192.168.0.1", "100.64.0.1", "127.0.0.1", "0.0.0.0", "169.254.169.254", "240.240.0.1"]
    {
        check(inside, &[], move |question, _| vec![answer(question, 60, &[inside])]);
        check(inside, &[GOOD], move |question, _| vec![answer(question, 60, &[inside, GOOD])]);
    }
    for inside in ["::ffff:203.0.113.1", "::ffff:10.0.0.1", "fd00::1", "fe80::1", "::1", "fd00:ec2::254"] {
        let play = move |question: &Message, _| vec![answer(question, 60, &[inside])];
        check_family(inside, LookupFamily::V6Only, &[], play);
    }
    check("a name that stands for one inside", &[], |question, _| {
        vec![changed(question, |reply| {
            let inside = "echo.default.svc.cluster.local.";
            reply.answers = vec![alias("a.test.", inside), record(inside, 60, "10.96.0.7")];
        })]
    });
    check("the same, in two answers", &[], |question, _| {
        vec![changed(question, |reply| {
            let asked = reply.queries[0].name().to_ascii().to_lowercase();
            let inside = "echo.default.svc.cluster.local.";
            let found = if asked == inside { record(inside, 60, "10.96.0.7") } else { alias(&asked, inside) };
            reply.answers = vec![found];
        })]
    });
}

#[test]
fn what_is_said_of_others_is_no_answer() {
    check("another name", &[], |question, _| {
        vec![changed(question, |reply| reply.answers = vec![record("b.test.", 60, BAD)])]
    });
    check("another name beside ours", &[GOOD], |question, _| {
        vec![changed(question, |reply| {
            reply.answers = vec![record("b.test.", 60, BAD), record("a.test.", 60, GOOD)];
        })]
    });
    check("beside the answers", &[], |question, _| {
        vec![changed(question, |reply| {
            reply.additionals = vec![record("a.test.", 60, BAD)];
            reply.authorities = vec![record("a.test.", 60, BAD)];
        })]
    });
    check("another type", &[], |question, _| {
        let text = RData::TXT(TXT::new(vec![BAD.to_owned()]));
        vec![changed(question, |reply| {
            reply.answers =
                vec![record("a.test.", 60, "2001:db8::66"), Record::from_rdata(name("a.test."), 60, text)];
        })]
    });
    check("another class", &[], |question, _| {
        vec![changed(question, |reply| {
            let mut record = record("a.test.", 60, BAD);
            record.dns_class = DNSClass::CH;
            reply.answers = vec![record];
        })]
    });
    check("names in a circle", &[], |question, _| {
        vec![changed(question, |reply| {
            reply.answers =
                vec![alias("a.test.", "b.test."), alias("b.test.", "a.test."), record("c.test.", 60, BAD)];
        })]
    });
    check("names without an end", &[], |question, _| {
        vec![changed(question, |reply| {
            let asked = reply.queries[0].name().to_ascii().to_lowercase();
            reply.answers = vec![alias(&asked, &format!("x{asked}"))];
        })]
    });
    check("no answer at all", &[], |question, _| {
        vec![changed(question, |reply| reply.metadata.message_type = MessageType::Query)]
    });
}

#[test]
fn what_cannot_be_read_is_no_answer() {
    check("garbage", &[], |question, _| {
        vec![[&question.metadata.id.to_be_bytes()[..], &[0xa5; 300]].concat()]
    });
    check("nothing", &[], |_, _| vec![vec![]]);
    check("cut", &[], |question, _| vec![good(question)[..30].to_vec()]);
    check("a name that points at itself", &[], |question, _| {
        let mut looped = reply(question).to_vec().unwrap();
        let at = u16::try_from(looped.len()).unwrap();
        looped[7] = 1;
        looped.extend((0xc000 | at).to_be_bytes());
        looped.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 66]);
        vec![looped]
    });
    check("more records than there are", &[], |question, _| {
        let mut short = good(question);
        short[6..8].copy_from_slice(&[0xff, 0xff]);
        vec![short]
    });
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NXDomain, ResponseCode::NoError]
    {
        check(&code.to_string(), &[], move |question, _| vec![refusal(question, code)]);
    }
}

#[test]
fn what_is_large_comes_by_a_connection() {
    check("cut, and nobody there", &[], |question, by_stream| {
        let cut = changed(question, |reply| {
            reply.metadata.truncation = true;
            reply.answers = vec![record("a.test.", 60, BAD)];
        });
        if by_stream { vec![] } else { vec![cut] }
    });
    let many = |question: &Message, by_stream: bool| {
        vec![changed(question, |reply| {
            reply.metadata.truncation = !by_stream;
            let address = |at: u16| format!("203.0.{}.{}", at / 250, at % 250);
            let all = (0..1000).map(|at| record("a.test.", 60, &address(at)));
            reply.answers = all.take(if by_stream { 1000 } else { 10 }).collect();
        })]
    };
    let want: Vec<_> = (0..64).map(|last| format!("203.0.0.{last}")).collect();
    let want: Vec<_> = want.iter().map(String::as_str).collect();
    check("a thousand addresses", &want, many);
    check("64 KiB", &[GOOD], |question, by_stream| {
        let text = RData::TXT(TXT::new(vec!["x".repeat(250); 250]));
        vec![changed(question, |reply| {
            reply.metadata.truncation = !by_stream;
            if by_stream {
                reply.answers =
                    vec![Record::from_rdata(name("a.test."), 60, text), record("a.test.", 60, GOOD)];
            }
        })]
    });
}
