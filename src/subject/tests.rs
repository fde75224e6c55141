use super::*;

const ACCOUNT: &str = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";

fn key() -> ConnectionKey {
    ConnectionKey::parse_kv_key(&format!("{ACCOUNT}.slack.workspace1")).unwrap()
}

#[test]
fn a_connection_has_its_subjects() {
    assert_eq!(key().subject(), format!("ms.integration.oauth.{ACCOUNT}.slack.workspace1"));
    assert_eq!(key().record_subject(), format!("oauth.record.{ACCOUNT}.slack.workspace1"));
    assert_eq!(key().schedule_at(), format!("ms.integration.oauth.{ACCOUNT}.slack.workspace1.refresh.at"));
}

#[test]
fn a_command_comes_back_from_its_subject() {
    let exchange = CommandSubject::connection(&key(), Verb::Exchange);
    let put = CommandSubject::config(key().integration, key().account, Verb::Put);
    for command in [exchange, put] {
        assert_eq!(CommandSubject::parse(&command.subject()), Ok(command));
    }
}

#[test]
fn e4_names_that_could_widen_a_subject_are_refused() {
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
fn foreign_subjects_are_no_commands() {
    let config_with_exchange = format!("ms.integration.oauth.config.slack.{ACCOUNT}.exchange");
    let connection_with_put = format!("ms.integration.oauth.{ACCOUNT}.slack.w.put");
    let token = key().subject();
    for subject in [&config_with_exchange, &connection_with_put, &token, "ms.integration.oauth", "a.b.c.d.e.f.g"] {
        assert!(CommandSubject::parse(subject).is_err(), "{subject}");
    }
}

#[test]
fn e6_only_our_reply_subjects_are_answered() {
    let id = "a".repeat(22);
    assert_eq!(parse_reply(&reply(&id, &id)), Some(id.as_str()));
    assert_eq!(parse_reply(&reply(ADMIN_EDGE, &id)), Some(id.as_str()));
    for subject in [
        "oauth.reply.admin.*",
        &reply("operator", &id),
        "",
        "oauth.record.x.y.z",
        "$KV.oauth_configs.slack",
        "oauth.reply.*.*",
        "oauth.reply.a.b",
        &reply(&id, &format!("{id}.x")),
    ] {
        assert_eq!(parse_reply(subject), None, "{subject}");
    }
}

#[test]
fn e4_a_nodes_call_carries_its_account() {
    let account = Account::parse(ACCOUNT).unwrap();
    for call in NodeCall::ALL {
        assert_eq!(call.account_of(&call.subject(&account)), Ok(account.clone()));
        assert_eq!(NodeCall::parse(call.as_str()), Some(call));
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
