use proptest::prelude::*;

use super::*;
use crate::subject::ConnectionKey;

const ACCOUNT: &str = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";

fn subject(name: &str) -> CommandSubject {
    let key = ConnectionKey::parse_kv_key(&format!("{ACCOUNT}.slack.{name}")).unwrap();
    CommandSubject::connection(&key, Verb::Exchange)
}

fn exchange(query: &str) -> Work {
    Work::Exchange { query: Secret::new(query), cookies: Vec::new(), credential: None }
}

/// An order that is made at second 1,000 for the message id `m`.
fn order(id: &str, work: Work) -> Order {
    let (subject, id, message_id) = (subject("one").subject(), id.to_owned(), "m".to_owned());
    Order {
        subject,
        id,
        time: 1_000_000,
        message_id,
        answer_key: Secret::new("canary-key"),
        origin: Origin::default(),
        work,
    }
}

/// Stored in the second of the order.
fn stored(subject: &CommandSubject) -> Stored<'_> {
    Stored { subject, message_id: "m", time: Timestamp::from_second(1_000).unwrap() }
}

#[test]
fn h6_a_copy_of_an_order_is_refused() {
    let opened = serde_json::to_vec(&order("id", exchange("code=c"))).unwrap();
    let check = |message_id: &str, second: i64, expected: bool| {
        let one = subject("one");
        let stored = Stored { subject: &one, message_id, time: Timestamp::from_second(second).unwrap() };
        assert_eq!(Order::parse(&opened, "id", stored).is_ok(), expected, "{message_id} {second}");
    };
    check("m", 1_000, true);
    check("m", 1_060, true);
    check("m", 940, true);
    check("m", 1_061, false);
    check("m", 939, false);
    check("other", 1_000, false);
    check("", 1_000, false);
}

/// Arbitrary bytes, JSON-like texts, and nearly valid envelopes.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let near = ("[0-9]{1,3}|null|\"1\"", "[A-Za-z0-9_.-]{21,23}", ".{0,20}", "|,\"more\":1").prop_map(
        |(v, id, sealed, more)| {
            format!("{{\"v\":{v},\"id\":\"{id}\",\"sealed\":{}{more}}}", serde_json::json!(sealed)).into_bytes()
        },
    );
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..100),
        near,
        "[\\[\\]{}\",:0-9a-z]{0,60}".prop_map(String::into_bytes)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn e9_no_payload_panics_and_only_valid_envelopes_are_read(payload in payload()) {
        if let Ok(Envelope { v, id, sealed: _ }) = Envelope::parse(&payload) {
            prop_assert_eq!(v, VERSION);
            prop_assert!(crate::subject::is_id(&id));
        }
        prop_assert!(Order::parse(&payload, "a", stored(&subject("one"))).is_err());
    }

    #[test]
    fn e9_an_order_is_valid_only_for_its_own_subject_and_id(query in ".{0,40}", id in "[a-z]{22}", other in "[a-z]{22}") {
        let opened = serde_json::to_vec(&order(&id, exchange(&query))).unwrap();
        let (one, two) = (subject("one"), subject("two"));
        let read = Order::parse(&opened, &id, stored(&one)).unwrap().work;
        let read = if let Work::Exchange { query, .. } = read { query } else { Secret::default() };
        prop_assert_eq!(read.expose(), query.as_str());
        prop_assert!(matches!(Order::parse(&opened, &id, stored(&two)), Err(Malformed::Misplaced)));
        let put = CommandSubject { verb: Verb::Put, name: None, ..subject("one") };
        prop_assert!(matches!(Order::parse(&opened, &id, stored(&put)), Err(Malformed::Misplaced)));
        prop_assert!(id == other || Order::parse(&opened, &other, stored(&one)).is_err());
    }
}

#[test]
fn f1_a_printed_order_contains_no_secret() {
    let credential = Some(Credential::new(Secret::new("Bearer canary")));
    let cookies = vec![Cookie { name: "__Host-tokenbus-a".to_owned(), value: Secret::new("canary") }];
    let work = Work::Exchange { query: Secret::new("code=canary"), cookies, credential };
    let order = order("id", work);
    assert!(!format!("{order:?}").contains("canary"));
}
