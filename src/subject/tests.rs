use proptest::prelude::*;

use super::*;

const ACCOUNT: &str = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";

fn key() -> ConnectionKey {
    ConnectionKey::parse_kv_key(&format!("{ACCOUNT}.slack.workspace1")).unwrap()
}

#[test]
fn a_connection_key_has_its_subjects() {
    assert_eq!(key().subject(), format!("ms.integration.oauth.{ACCOUNT}.slack.workspace1"));
    assert_eq!(key().record_subject(), format!("oauth.record.{ACCOUNT}.slack.workspace1"));
    assert_eq!(key().schedule_at(), format!("ms.integration.oauth.{ACCOUNT}.slack.workspace1.refresh.at"));
}

#[test]
fn a_command_is_read_back_from_its_subject() {
    let exchange = CommandSubject::connection(&key(), Verb::Exchange);
    let put = CommandSubject::config(key().integration, key().account, Verb::Put);
    for command in [exchange, put] {
        assert_eq!(CommandSubject::parse(&command.subject()), Ok(command));
    }
}

#[test]
fn e4_names_that_could_widen_a_subject_are_rejected() {
    for name in ["", ".", "*", ">", "a.b", "a b", "a/b", "a*", ">a", "-a", "_a", "ä", "a\n", "a\0", &"a".repeat(65)] {
        assert_eq!(ConnectionName::parse(name), Err(NameError::Connection), "{name:?}");
        assert_eq!(Integration::parse(name), Err(NameError::Integration), "{name:?}");
    }
    assert_eq!(Integration::parse("oauth-x"), Err(NameError::Integration));
    assert!(ConnectionName::parse("oauth-x").is_ok());
    assert!(ConnectionName::parse(&"a".repeat(64)).is_ok());
}

#[test]
fn accounts_are_checked_by_type_and_checksum() {
    assert!(Account::parse(ACCOUNT).is_ok());
    let user = nkeys::KeyPair::new_user().public_key();
    let flipped = ACCOUNT.replace('7', "6");
    for account in ["", "A", &user, &flipped, &ACCOUNT.to_lowercase(), "*"] {
        assert_eq!(Account::parse(account), Err(NameError::Account), "{account}");
    }
}

#[test]
fn other_subjects_are_not_commands() {
    let config_with_exchange = format!("ms.integration.oauth.config.slack.{ACCOUNT}.exchange");
    let connection_with_put = format!("ms.integration.oauth.{ACCOUNT}.slack.w.put");
    let token = key().subject();
    for subject in [&config_with_exchange, &connection_with_put, &token, "ms.integration.oauth", "a.b.c.d.e.f.g"] {
        assert!(CommandSubject::parse(subject).is_err(), "{subject}");
    }
}

#[test]
fn e6_only_our_reply_subjects_are_accepted() {
    let id = "a".repeat(22);
    let (edge, worker) = (Waiter::Edge(id.clone()).reply(&id), Waiter::Worker(id.clone()).reply(&id));
    assert_eq!(parse_reply(&edge, false), Some(id.as_str()));
    assert_eq!(parse_reply(&worker, true), Some(id.as_str()));
    assert_eq!(parse_reply(&Waiter::Edge(ADMIN_EDGE.to_owned()).reply(&id), false), Some(id.as_str()));
    // A gateway's command cannot direct its reply to a worker, nor a worker's to a gateway.
    assert_eq!(parse_reply(&worker, false), None);
    assert_eq!(parse_reply(&edge, true), None);
    for subject in [
        "oauth.reply.admin.*",
        &Waiter::Edge("operator".to_owned()).reply(&id),
        &Waiter::Worker(ADMIN_EDGE.to_owned()).reply(&id),
        "",
        "oauth.record.x.y.z",
        "$KV.oauth_configs.slack",
        "oauth.reply",
        "oauth.reply.*.*",
        "oauth.reply.a.b",
        "oauth.reply.worker.a.b",
        "oauth.reply.worker.>",
        "oauth.replyworker.a.b",
        &format!("{edge}.x"),
        &format!("{worker}.x"),
        &format!("oauth.reply.worker.{id}"),
        &format!("oauth.reply.edge.{id}.{id}"),
        &format!("oauth.reply.{id}. {}", "a".repeat(21)),
    ] {
        assert_eq!((parse_reply(subject, false), parse_reply(subject, true)), (None, None), "{subject}");
    }
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9][A-Za-z0-9_-]{0,63}".prop_filter("reserved for routes", |name| !name.starts_with("oauth-"))
}

/// Texts that look like our subjects, and arbitrary texts.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just(ACCOUNT.to_owned()),
        Just("config".to_owned()),
        Just("refresh".to_owned()),
        "exchange|put|delete|revoke|due|at",
        "[a-zA-Z0-9_*> -]{0,8}",
    ];
    let subject = proptest::collection::vec(part, 0..7).prop_map(|parts| format!("{ROOT}.{}", parts.join(".")));
    prop_oneof![subject, ".{0,80}", "oauth\\.(reply|edge)\\.[a-zA-Z0-9_.*>-]{0,50}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn e4_subjects_are_read_back_and_no_name_widens_one(integration in name(), connection in name(), verb in 0_usize..5) {
        let verb = Verb::ALL[verb];
        let key = ConnectionKey::parse_kv_key(&format!("{ACCOUNT}.{integration}.{connection}")).unwrap();
        let command = if verb.is_config() {
            CommandSubject::config(key.integration.clone(), key.account.clone(), verb)
        } else {
            CommandSubject::connection(&key, verb)
        };
        prop_assert_eq!(CommandSubject::parse(&command.subject()), Ok(command.clone()));
        prop_assert_eq!(ConnectionKey::parse_kv_key(&key.kv_key()), Ok(key.clone()));
        prop_assert_eq!(ConnectionKey::parse_due(&key.schedule_due()), Ok(key.clone()));
        for (subject, tokens) in [
            (key.subject(), 6),
            (key.record_subject(), 5),
            (key.schedule_at(), 8),
            (command.subject(), 7),
            (command.dead_letter(), 6),
            (event_subject(key.account.as_str(), Some(key.integration.as_str()), Some(key.name.as_str()), "connected"), 7),
            (config_subject(&key.integration), 5),
        ] {
            prop_assert_eq!(subject.split('.').count(), tokens, "{}", subject);
            prop_assert!(subject.split('.').all(|token| !token.is_empty() && !token.contains(['*', '>', ' '])), "{}", subject);
        }
    }

    #[test]
    fn e4_a_subject_is_read_completely_or_not_at_all(text in text()) {
        if let Ok(command) = CommandSubject::parse(&text) {
            prop_assert_eq!(command.subject(), text.as_str());
        }
        if let Ok(key) = ConnectionKey::parse_due(&text) {
            prop_assert_eq!(key.schedule_due(), text.as_str());
        }
        if let Ok(key) = ConnectionKey::parse_kv_key(&text) {
            prop_assert_eq!(key.kv_key(), text.as_str());
        }
        for (from_worker, tokens) in [(false, 4), (true, 5)] {
            if let Some(id) = parse_reply(&text, from_worker) {
                prop_assert_eq!(text.split('.').count(), tokens);
                prop_assert!(is_id(id));
            }
        }
        prop_assert!(parse_edge_call(&text).is_none_or(|call| edge_call(call) == text && !call.contains('.')));
    }
}

#[test]
fn e4_a_nodes_call_names_its_account() {
    let account = Account::parse(ACCOUNT).unwrap();
    for call in NodeCall::ALL {
        assert_eq!(call.account_of(&call.subject(&account)), Ok(account.clone()));
        // Only nodes and the CLI ask for failures.
        let expected = (call != NodeCall::Failures).then_some(call.as_str());
        assert_eq!(crate::call::Call::parse(call.as_str()).map(crate::call::Call::as_str), expected);
    }
    for subject in [
        "",
        "ms.oauth.*.token",
        "ms.oauth.>",
        &format!("ms.oauth.{ACCOUNT}.list"),
        &format!("ms.oauth.{ACCOUNT}.token.x"),
    ] {
        assert!(NodeCall::Token.account_of(subject).is_err(), "{subject}");
    }
    assert_eq!(ConnectionKey::parse_subject(&key().subject()), Ok(key()));
    for subject in [key().kv_key(), key().schedule_at(), config_subject(&key().integration)] {
        assert!(ConnectionKey::parse_subject(&subject).is_err(), "{subject}");
    }
}
