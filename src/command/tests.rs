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
        prop_assert!(Order::parse(&payload, &subject("one"), "a").is_err());
    }

    #[test]
    fn e9_an_order_is_valid_only_for_its_own_subject_and_id(query in ".{0,40}", id in "[a-z]{22}", other in "[a-z]{22}") {
        let order = Order { subject: subject("one").subject(), id: id.clone(), origin: Origin::default(), work: exchange(&query) };
        let opened = serde_json::to_vec(&order).unwrap();
        let read = Order::parse(&opened, &subject("one"), &id).unwrap().work;
        let read = if let Work::Exchange { query, .. } = read { query } else { Secret::default() };
        prop_assert_eq!(read.expose(), query.as_str());
        prop_assert!(matches!(Order::parse(&opened, &subject("two"), &id), Err(Malformed::Misplaced)));
        let put = CommandSubject { verb: Verb::Put, name: None, ..subject("one") };
        prop_assert!(matches!(Order::parse(&opened, &put, &id), Err(Malformed::Misplaced)));
        prop_assert!(id == other || Order::parse(&opened, &subject("one"), &other).is_err());
    }
}

#[test]
fn f1_a_printed_order_contains_no_secret() {
    let credential = Some(Credential::new(Secret::new("Bearer canary")));
    let cookies = vec![Cookie { name: "__Host-tokenbus-a".to_owned(), value: Secret::new("canary") }];
    let work = Work::Exchange { query: Secret::new("code=canary"), cookies, credential };
    let order = Order { subject: subject("one").subject(), id: "id".to_owned(), origin: Origin::default(), work };
    assert!(!format!("{order:?}").contains("canary"));
}
