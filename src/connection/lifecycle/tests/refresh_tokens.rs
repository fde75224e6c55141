//! The end of refresh tokens.

use super::*;

const DAY: i64 = 86_400;

#[test]
fn idle_refresh_tokens_are_refreshed_by_age_while_that_helps() {
    #[track_caller]
    fn refreshed(
        first: Option<i64>,
        config: Option<RefreshTokenLifetime>,
        second: (&str, Option<i64>),
    ) -> (i64, i64, bool) {
        let rules = Rules { refresh_token_lifetime: config, ..rules() };
        let login = TokenSet { refresh_token_expiry: first.map(|days| at(days * DAY)), ..tokens(Some(60 * DAY)) };
        let stored = written(connected(new_grant(), login, at(0), &rules), 0);
        let due_at = stored.next_due(at(0), rules.min_interval, 0.0).unwrap().as_second() - START;
        let answer = TokenSet {
            refresh_token: Some(Secret::new(second.0)),
            refresh_token_expiry: second.1.map(|days| at(days * DAY)),
            ..tokens(Some(3600))
        };
        let change = after(&stored, Answer::Tokens(answer), &due(3 * DAY), &rules);
        let renewed = state_of(&change);
        let end = renewed.connection.refresh_token_expiry.map_or(0, |end| end.as_second() - START);
        (due_at / DAY, end / DAY, renewed.grant.refresh_token_end_is_fixed)
    }
    let config = |from| Some(RefreshTokenLifetime { seconds: 7 * 86_400, from });
    // An end that the answers state: later, equal, absent with the same and with a new token.
    assert_eq!(refreshed(Some(7), None, ("rt", Some(10))), (3, 10, false));
    assert_eq!(refreshed(Some(7), None, ("rt", Some(7))), (3, 7, true));
    assert_eq!(refreshed(Some(7), None, ("rt", None)), (3, 7, true));
    assert_eq!(refreshed(Some(7), None, ("new", None)), (3, 10, false));
    // An end that the config states.
    assert_eq!(refreshed(None, config(LifetimeStart::Use), ("rt", None)), (3, 10, false));
    assert_eq!(refreshed(None, config(LifetimeStart::Issue), ("rt", None)), (3, 7, true));
    assert_eq!(refreshed(None, config(LifetimeStart::Issue), ("new", None)), (3, 10, false));
    // None at all: the access token decides.
    assert_eq!(refreshed(None, None, ("rt", None)), (54, 0, false));
}

#[test]
fn a_fixed_end_is_announced_a_week_and_a_day_before() {
    let login = TokenSet { refresh_token_expiry: Some(at(30 * DAY)), ..tokens(None) };
    let stored = written(connected(new_grant(), login, at(0), &rules()), 0);
    let again = TokenSet { refresh_token_expiry: Some(at(30 * DAY)), ..tokens(None) };
    let fixed = check(&stored, Answer::Tokens(again), due(15 * DAY), "record active - refreshed both 691200");
    let warned = check_begin(&fixed, due(23 * DAY), "record active - reauthorization_due both 518400");
    check_begin(&warned, due(29 * DAY), "record active - reauthorization_due both never");
    // A record now could hide that of an earlier delivery, which may have new tokens.
    check_begin(&fixed, Moment { may_be_sent: true, ..due(23 * DAY) }, "send");
    // A worker that was away for a week announces it once.
    check_begin(&fixed, due(29 * DAY + 60), "record active - reauthorization_due both never");
    // An end that was near already when it turned out to be fixed is announced once.
    let again = TokenSet { refresh_token_expiry: Some(at(30 * DAY)), ..tokens(None) };
    check(&stored, Answer::Tokens(again), due(24 * DAY), "record active - refreshed both 432000");
}

#[test]
fn a_lifetime_of_refresh_tokens_counts_from_their_issue() {
    let login = TokenSet { refresh_token_expiry: Some(at(30 * DAY)), ..tokens(None) };
    let stored = written(connected(new_grant(), login.clone(), at(0), &rules()), 0);
    let fixed = check(&stored, Answer::Tokens(login), due(15 * DAY), "record active - refreshed both 691200");
    let warned =
        written(check_begin(&fixed, due(23 * DAY), "record active - reauthorization_due both 518400"), 23 * DAY);
    // A new token lives as long as the one before: not from a refresh that left the end as it was, nor from a warning.
    let rotated = TokenSet { refresh_token: Some(Secret::new("new")), ..tokens(None) };
    for state in [&fixed, &warned] {
        let renewed = renewed(state.clone(), rotated.clone(), at(25 * DAY), &rules());
        assert_eq!(renewed.connection.refresh_token_expiry, Some(at(55 * DAY)));
        assert_eq!(renewed.next_due(at(25 * DAY), rules().min_interval, 0.0), Some(at(40 * DAY - 1)));
    }
    // Without a refresh token there is nothing to count.
    let stored = connected(new_grant(), TokenSet { refresh_token: None, ..tokens(None) }, at(0), &rules());
    assert_eq!(stored.grant.refresh_token_since, None);
}

#[test]
fn a_record_that_only_reports_the_time_is_no_answer_to_a_refresh() {
    let login = TokenSet { refresh_token_expiry: Some(at(30 * DAY)), ..tokens(None) };
    let stored = written(connected(new_grant(), login.clone(), at(0), &rules()), 0);
    let fixed = check(&stored, Answer::Tokens(login), due(15 * DAY), "record active - refreshed both 691200");
    let before = fixed.connection.sequence;
    let warned =
        written(check_begin(&fixed, due(23 * DAY), "record active - reauthorization_due both 518400"), 23 * DAY);
    for sequence in [before, warned.connection.sequence] {
        assert!(matches!(begin(&warned, sequence, &asked(23 * DAY + 1), &rules()), Begin::Send(_)), "{sequence}");
    }
    // The refresh before it is one.
    assert!(matches!(begin(&warned, before - 1, &asked(23 * DAY + 1), &rules()), Begin::AnswerFromState));
    assert!(matches!(begin(&warned, before, &asked(15 * DAY + 1), &rules()), Begin::AnswerFromState));
    let renewed = renewed(warned, tokens(None), at(23 * DAY + 2), &rules());
    assert_eq!(renewed.grant.last_result, None);
    // The same after the end of a grant: the first wait counts from the end.
    let ended = "record needs_reauthorization invalid_grant needs_reauthorization both 120";
    let ended = check(&active(Some(3600)), failed(Meaning::DeadGrant), due(3480), ended);
    let expired = "record needs_reauthorization invalid_grant token_expired refresh never";
    let expired = written(check_begin(&ended, due(3600), expired), 3600);
    check_begin(&expired, asked(3601), "send");
    assert!(matches!(begin(&expired, ended.connection.sequence, &asked(3601), &rules()), Begin::Send(_)));
}
