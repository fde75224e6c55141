use std::time::Duration;

use serde_json::json;

use super::*;

fn connection(lifetime: i64) -> OauthConnection {
    OauthConnection {
        access_token: Some(Secret::new("at")),
        token_type: "Bearer".to_owned(),
        refresh_token: Some(Secret::new("rt")),
        expiry: Some(Timestamp::from_second(1_000_000 + lifetime).unwrap()),
        expires_in: Some(lifetime),
        refresh_token_expiry: None,
        sequence: 1,
        subject: String::new(),
        modified: 1_000_000,
        status: Status::Active,
        status_reason: None,
        identity: None,
        scope: None,
        metadata: Map::new(),
    }
}

#[test]
fn d7_refreshes_are_due_before_expiry_and_never_in_the_past() {
    #[track_caller]
    fn check(lifetime: i64, jitter: f64, seconds_after_issue: i64) {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let due = connection(lifetime).refresh_at(now, Duration::ZERO, jitter).unwrap();
        assert_eq!(due.as_second() - 1_000_000, seconds_after_issue, "{lifetime} s, jitter {jitter}");
    }
    check(3600, 0.0, 3240); // a tenth is more than two minutes
    check(3600, 1.0, 3204);
    check(600, 0.0, 480); // two minutes
    check(240, 0.0, 120);
    check(60, 0.0, 30); // half the lifetime
    check(2, 0.0, 1);
    check(1, 1.0, 1); // neither now nor in the past
    check(-5, 0.0, 1);
}

#[test]
fn h15_scheduled_refreshes_keep_to_the_shortest_interval() {
    #[track_caller]
    fn check(age: i64, lifetime: i64, seconds_from_now: i64) {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let modified = u64::try_from(1_000_000 - age).unwrap();
        let connection = OauthConnection { modified, ..connection(lifetime) };
        let due = connection.refresh_at(now, Duration::from_secs(5), 0.0).unwrap();
        assert_eq!(due.as_second() - 1_000_000, seconds_from_now, "{age} s old, {lifetime} s");
    }
    check(0, 2, 5);
    check(3, 2, 2);
    check(0, -360, 5);
    check(10, -360, 1);
    check(-7200, 2, 5); // a record from the future
    check(0, 600, 480);
}

#[test]
fn a_connection_that_cannot_be_refreshed_has_no_due_time() {
    let now = Timestamp::from_second(1_000_000).unwrap();
    let without_token = OauthConnection { refresh_token: None, ..connection(60) };
    let without_expiry = OauthConnection { expiry: None, ..connection(60) };
    let spent = OauthConnection { status: Status::NeedsReauthorization, ..connection(60) };
    for connection in [without_token, without_expiry, spent] {
        assert_eq!(connection.refresh_at(now, Duration::ZERO, 0.0), None);
    }
}

#[test]
fn a_slow_clock_does_not_keep_a_record_young() {
    for (seconds, expected) in [(0, true), (4, true), (5, false), (-4, true), (-3600, false)] {
        let now = Timestamp::from_second(1_000_000 + seconds).unwrap();
        let record = ResultRecord { sequence: 1, modified: connection(60).modified };
        assert_eq!(record.is_younger_than(Duration::from_secs(5), now), expected, "{seconds} s later");
    }
}

#[test]
fn near_expiry_is_half_the_margin_or_min_valid() {
    #[track_caller]
    fn check(seconds_before_expiry: i64, min_valid: Option<u64>, expected: bool) {
        let now = Timestamp::from_second(1_003_600 - seconds_before_expiry).unwrap();
        assert_eq!(connection(3600).is_near_expiry(now, min_valid.map(Duration::from_secs)), expected);
    }
    check(181, None, false);
    check(180, None, true);
    check(-10, None, true);
    check(600, Some(599), false);
    check(600, Some(601), true);
}

#[test]
fn the_default_min_valid_is_at_most_half_the_lifetime() {
    for (lifetime, wish, seconds) in [(3600, 60, 60), (60, 60, 30), (1, 60, 0), (-5, 60, 0)] {
        let needed = connection(lifetime).min_valid_default(Duration::from_secs(wish));
        assert_eq!(needed.as_secs(), seconds, "{lifetime} s");
    }
}

/// A connection and a failure as commit c68022c stored them: neither has the newer fields.
#[test]
fn a_connection_of_an_older_release_is_read_and_carries_on() {
    use super::lifecycle::{Begin, Moment, Rules, begin};

    let stored = serde_json::json!({
        "access_token": "at", "token_type": "Bearer", "refresh_token": "rt", "expiry": "2001-09-09T02:46:40.000000+00:00",
        "expires_in": 3600, "sequence": 7, "subject": "s", "modified": 1_000_000_000, "status": "active",
        "issued_at": { "token_url": "https://x/token", "client_id": "c" }, "login_id": "l", "later": 1,
        "refresh_failure": { "count": 3, "until": "2001-09-09T01:46:50Z", "status": 502, "reason": "provider_error" },
    });
    let stored: StoredConnection = serde_json::from_value(stored).unwrap();
    assert_eq!(stored.grant, GrantFacts::default());
    assert_eq!(stored.unknown, Map::from_iter([("later".to_owned(), Value::from(1))]), "and nothing of it is lost");
    let (now, hour) = (Timestamp::from_second(1_000_003_300).unwrap(), Duration::from_hours(1));
    let rules = Rules {
        min_interval: Duration::ZERO,
        give_up_after: hour,
        default_expires_in: None,
        refresh_token_lifetime: None,
    };
    let moment = Moment { now, jitter: 0.0, by_caller: false, may_be_sent: false };
    assert!(matches!(begin(&stored, 7, &moment, &rules), Begin::Send(_)));
    assert!(stored.has_due_time());
    let text = serde_json::to_string(&stored).unwrap();
    assert!(!text.contains("reauthorization_warned") && text.contains("later"), "{text}");
}

#[test]
fn f1_no_fact_holds_a_token() {
    #[track_caller]
    fn check(identity: Identity, value: &str, is_kept: bool) {
        let connection = OauthConnection {
            access_token: Some(Secret::new("canary-access")),
            refresh_token: Some(Secret::new("canary-refresh")),
            identity: Some(identity),
            scope: Some(value.to_owned()),
            token_type: value.to_owned(),
            metadata: Map::from_iter([
                ("site".to_owned(), value.into()),
                ("sites".to_owned(), json!([1, { "name": value }])),
                ("number".to_owned(), 1.into()),
            ]),
            ..connection(60)
        };
        let connection = connection.without_tokens_in_facts();
        assert_eq!(connection.identity.is_some(), is_kept);
        assert_eq!(connection.scope.is_some(), is_kept);
        assert_eq!(connection.token_type, if is_kept { value } else { "Bearer" });
        assert_eq!(connection.metadata.contains_key("site"), is_kept);
        assert_eq!(connection.metadata.contains_key("sites"), is_kept);
        assert_eq!(connection.metadata["number"], 1);
    }
    let identity = |id: &str, label: Option<&str>| Identity { id: id.to_owned(), label: label.map(str::to_owned) };
    check(identity("u-1", Some("ada")), "site-1", true);
    check(identity("canary-access", None), "Bearer canary-access", false);
    check(identity("u-1", Some("x canary-refresh")), "canary-refresh", false);
    let short = OauthConnection { identity: Some(identity("data", None)), ..connection(60) };
    assert!(short.without_tokens_in_facts().identity.is_some(), "the token `at` is a part of an ordinary word");
}
