mod refresh_tokens;

use super::*;
use crate::integration::LifetimeStart;

/// The tests' clock starts here, in Unix seconds.
const START: i64 = 1_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

fn rules() -> Rules {
    Rules {
        min_interval: Duration::from_secs(5),
        give_up_after: Duration::from_hours(24),
        default_expires_in: None,
        refresh_token_lifetime: None,
    }
}

fn due(seconds: i64) -> Moment {
    Moment { now: at(seconds), jitter: 0.0, by_caller: false, may_be_sent: false }
}

fn asked(seconds: i64) -> Moment {
    Moment { by_caller: true, ..due(seconds) }
}

fn tokens(lifetime: Option<i64>) -> TokenSet {
    model::tokens(lifetime, at(0))
}

fn new_grant() -> NewGrant {
    NewGrant { subject: String::new(), issued_at: IssuedAt::default(), login_id: "login".to_owned() }
}

/// A connection whose login was at second 0.
fn active(lifetime: Option<i64>) -> StoredConnection {
    written(connected(new_grant(), tokens(lifetime), at(0), &rules()), 0)
}

/// The state once its record is stored.
fn written(mut stored: StoredConnection, seconds: i64) -> StoredConnection {
    stored.connection.sequence += 1;
    stored.connection.modified = u64::try_from(START + seconds).unwrap();
    stored
}

fn failed(meaning: Meaning) -> Answer {
    let reason = match meaning {
        Meaning::DeadGrant => "invalid_grant",
        Meaning::ClientRefused => "invalid_client",
        Meaning::Temporary => "provider_error",
        Meaning::Unclear => "unreadable_answer",
        Meaning::Paused => CONFIG_CHANGED,
    };
    Answer::Failed(Failed { meaning, reason: reason.to_owned(), status: 400, retry_after: None })
}

fn state_of(change: &Change) -> &StoredConnection {
    match change {
        Change::Record(stored) | Change::Notes { stored, .. } => stored,
    }
}

/// A short description of a change: record or note, status, reason, event, the tokens, and seconds to the next due time.
fn told(change: &Change, moment: &Moment) -> String {
    let (stored, event) = match change {
        Change::Record(stored) => (stored.clone(), Some(stored.event())),
        Change::Notes { stored, event } => (stored.clone(), *event),
    };
    let kind = if matches!(change, Change::Record(_)) { "record" } else { "note" };
    let stored = if kind == "record" { written(stored, moment.now.as_second() - START) } else { stored };
    let OauthConnection { status, status_reason, access_token, refresh_token, .. } = &stored.connection;
    let failure = stored.refresh_failure.as_ref().map(|failure| failure.reason.clone());
    let reason = failure.or_else(|| status_reason.clone()).unwrap_or_else(|| "-".to_owned());
    let event = event.map_or("-", EventKind::as_str);
    let tokens = match (access_token.is_some(), refresh_token.is_some()) {
        (true, true) => "both",
        (true, false) => "access",
        (false, true) => "refresh",
        (false, false) => "none",
    };
    let next = stored.next_due(moment.now, rules().min_interval, 0.0);
    let next = next.map_or("never".to_owned(), |next| (next.as_second() - moment.now.as_second()).to_string());
    format!("{kind} {} {reason} {event} {tokens} {next}", status.as_str())
}

#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a few values in tests")]
enum Answer {
    Tokens(TokenSet),
    Failed(Failed),
}

fn after(stored: &StoredConnection, answer: Answer, moment: &Moment, rules: &Rules) -> Change {
    match answer {
        Answer::Tokens(tokens) => Change::Record(renewed(stored.clone(), tokens, moment.now, rules)),
        Answer::Failed(failed) => conclude(stored, &failed, moment, rules),
    }
}

#[track_caller]
fn check(stored: &StoredConnection, answer: Answer, moment: Moment, expected: &str) -> StoredConnection {
    let change = after(stored, answer, &moment, &rules());
    assert_eq!(told(&change, &moment), expected);
    let seconds = moment.now.as_second() - START;
    match change {
        Change::Record(stored) => written(stored, seconds),
        Change::Notes { stored, .. } => stored,
    }
}

#[track_caller]
fn check_begin(stored: &StoredConnection, moment: Moment, expected: &str) -> StoredConnection {
    let (told, next) = match begin(stored, stored.connection.sequence, &moment, &rules()) {
        Begin::Send(_) => ("send".to_owned(), stored.clone()),
        Begin::AnswerFromState => ("keep".to_owned(), stored.clone()),
        Begin::Wait(failure) => {
            let wait = failure.until.as_second() - moment.now.as_second();
            (format!("wait {wait} {} {}", failure.status, failure.reason), stored.clone())
        }
        Begin::NoRefreshToken => ("no refresh token".to_owned(), stored.clone()),
        Begin::Change(change) => (told(&change, &moment), state_of(&change).clone()),
    };
    assert_eq!(told, expected);
    next
}

#[test]
fn answers_decide_the_state_the_event_and_the_next_time() {
    use Meaning::{ClientRefused, DeadGrant, Paused, Temporary, Unclear};
    let hour = active(Some(3600));
    check(&hour, Answer::Tokens(tokens(Some(3600))), due(0), "record active - refreshed both 3240");
    // A refusal with time left: a second look after a tenth of it, 30 s to 10 min.
    check(&hour, failed(DeadGrant), due(0), "note active invalid_grant refresh_failed both 360");
    check(&hour, failed(DeadGrant), asked(0), "note active invalid_grant refresh_failed both 360");
    check(&hour, failed(DeadGrant), due(3479), "note active invalid_grant refresh_failed both 30");
    check(&active(Some(864_000)), failed(DeadGrant), due(0), "note active invalid_grant refresh_failed both 600");
    check(&active(None), failed(DeadGrant), due(0), "note active invalid_grant refresh_failed both 600");
    // Without time left: the end. The access token stays until it expires.
    check(
        &hour,
        failed(DeadGrant),
        due(3480),
        "record needs_reauthorization invalid_grant needs_reauthorization both 120",
    );
    check(
        &hour,
        failed(DeadGrant),
        due(3600),
        "record needs_reauthorization invalid_grant needs_reauthorization refresh never",
    );
    // Failures that blame others, or say nothing: later, for as long as the token is good.
    check(&hour, failed(ClientRefused), due(3300), "note active invalid_client refresh_failed both 10");
    check(&hour, failed(Temporary), due(3300), "note active provider_error refresh_failed both 10");
    check(&hour, failed(Unclear), due(3300), "note active unreadable_answer refresh_failed both 10");
    // The time at which the token expires is due, too, for its event.
    check(&hour, failed(Temporary), due(3597), "note active provider_error refresh_failed both 3");
    check(&hour, failed(Paused), due(0), "note active config_changed refresh_failed both 900");
}

#[test]
fn a_second_refusal_ends_the_grant_and_an_early_one_does_not() {
    let hour = active(Some(3600));
    let refused = check(&hour, failed(Meaning::DeadGrant), due(0), "note active invalid_grant refresh_failed both 360");
    check_begin(&refused, asked(10), "wait 350 400 invalid_grant");
    check_begin(&refused, due(10), "keep");
    check(&refused, failed(Meaning::DeadGrant), due(29), "note active invalid_grant refresh_failed both 1");
    check_begin(&refused, due(360), "send");
    let ended = "record needs_reauthorization invalid_grant needs_reauthorization both 3240";
    let ended = check(&refused, failed(Meaning::DeadGrant), due(360), ended);
    // With any other failure between the two refusals.
    let down =
        check(&refused, failed(Meaning::Temporary), due(360), "note active provider_error refresh_failed both 20");
    let expected = "record needs_reauthorization invalid_grant needs_reauthorization both 3220";
    check(&down, failed(Meaning::DeadGrant), due(380), expected);
    check(&refused, Answer::Tokens(tokens(Some(3600))), due(360), "record active - refreshed both 2880");
    // The access token goes when it expires.
    check_begin(&ended, due(400), "keep");
    check_begin(&ended, due(3600), "record needs_reauthorization invalid_grant token_expired refresh never");
}

#[test]
fn explicit_tries_of_an_ended_grant_back_off_and_may_succeed() {
    let ended = check(
        &active(Some(3600)),
        failed(Meaning::DeadGrant),
        due(3600),
        "record needs_reauthorization invalid_grant needs_reauthorization refresh never",
    );
    check_begin(&ended, asked(3601), "wait 59 429 invalid_grant");
    check_begin(&ended, asked(3660), "send");
    let (mut state, mut now) = (ended.clone(), 3660);
    for wait in [120, 240, 480, 960, 1_920, 3_600, 3_600] {
        let expected = "note needs_reauthorization invalid_grant refresh_failed refresh never";
        state = check(&state, failed(Meaning::DeadGrant), asked(now), expected);
        check_begin(&state, asked(now + 1), &format!("wait {} 429 invalid_grant", wait - 1));
        check_begin(&state, due(now + 1), "keep");
        now += wait;
        check_begin(&state, asked(now), "send");
    }
    // The lifetime of the removed access token still counts.
    let renewed = Answer::Tokens(TokenSet { expires_in: None, expiry: None, ..tokens(None) });
    check(&state, renewed, asked(now), "record active - refreshed both 3240");
    // A connection of an older release has no tokens.
    let mut wiped = ended;
    wiped.connection.refresh_token = None;
    check_begin(&wiped, asked(9_999), "no refresh token");
    check_begin(&wiped, due(9_999), "keep");
}

#[test]
fn unclear_failures_end_after_a_day_with_an_expired_token() {
    #[track_caller]
    fn run(meanings: &[Meaning], every: i64, lifetime: Option<i64>) -> Option<i64> {
        let (mut state, mut now) = (active(lifetime), 3_600);
        for meaning in meanings {
            match after(&state, failed(*meaning), &due(now), &rules()) {
                Change::Record(ended) => {
                    assert_eq!(ended.connection.status_reason.as_deref(), Some(REFRESH_FAILING));
                    return Some(now - 3_600);
                }
                Change::Notes { stored, .. } => state = stored,
            }
            now += every;
        }
        None
    }
    use Meaning::{ClientRefused, Temporary, Unclear};
    let day = 86_400;
    assert_eq!(run(&[Unclear; 200], 1_280, Some(3600)), Some(87_040));
    assert_eq!(run(&[Unclear; 5], day / 3, Some(3600)), Some(115_200));
    assert_eq!(run(&[Unclear; 4], day, Some(3600)), None);
    assert_eq!(run(&[Unclear; 9], day, None), None, "the token has no expiry");
    assert_eq!(run(&[Unclear; 9], day, Some(30 * day)), None, "the token is good");
    assert_eq!(run(&[Temporary; 99], day, Some(3600)), None);
    assert_eq!(run(&[ClientRefused; 99], day, Some(3600)), None);
    assert_eq!(run(&[Temporary, Unclear, Unclear, Unclear, Unclear, Unclear], day, Some(3600)), Some(5 * day));
}

#[test]
fn a_token_that_expires_while_refreshes_fail_has_one_event() {
    let hour = active(Some(3600));
    let failing =
        check(&hour, failed(Meaning::Temporary), due(3590), "note active provider_error refresh_failed both 10");
    let expired = check_begin(&failing, due(3600), "note active provider_error token_expired both 1");
    check_begin(&expired, due(3601), "send");
    check(&expired, failed(Meaning::Temporary), due(3601), "note active provider_error refresh_failed both 20");
}

#[test]
fn without_a_refresh_token_the_end_is_scheduled_and_reported() {
    let tokens = TokenSet { refresh_token: None, ..tokens(Some(3)) };
    let stored = written(connected(new_grant(), tokens.clone(), at(0), &rules()), 0);
    assert_eq!(stored.next_due(at(0), rules().min_interval, 0.0), Some(at(3)));
    check_begin(&stored, due(2), "keep");
    check_begin(&stored, asked(2), "no refresh token");
    for moment in [due(3), asked(3)] {
        check_begin(&stored, moment, "record needs_reauthorization expired needs_reauthorization none never");
    }
    let forever = TokenSet { expires_in: None, expiry: None, ..tokens };
    let stored = written(connected(new_grant(), forever, at(0), &rules()), 0);
    assert!(!stored.has_due_time());
    check_begin(&stored, due(99_999), "keep");
}

#[test]
fn h16_an_answer_without_a_lifetime_keeps_the_one_before() {
    #[track_caller]
    fn check(before: Option<i64>, answered: Option<i64>, default: Option<u32>, expected: Option<i64>) {
        let rules = Rules { default_expires_in: default, ..rules() };
        let stored = active(before);
        let change = after(&stored, Answer::Tokens(tokens(answered)), &due(0), &rules);
        let OauthConnection { expires_in, expiry, .. } = &state_of(&change).connection;
        assert_eq!((*expires_in, *expiry), (expected, expected.map(at)), "{before:?} {answered:?} {default:?}");
    }
    check(Some(60), Some(90), Some(30), Some(90));
    check(Some(60), None, Some(30), Some(60));
    check(Some(60), None, None, Some(60));
    check(None, None, Some(30), Some(30));
    check(None, None, None, None);
}

#[test]
fn a_pause_ends_when_a_config_fits_again() {
    let paused = check(
        &active(Some(3600)),
        failed(Meaning::Paused),
        due(3240),
        "note active config_changed refresh_failed both 360",
    );
    // Neither the schedule nor a caller waits for anything but the config.
    check_begin(&paused, due(3241), "send");
    check_begin(&paused, asked(3241), "send");
    check(&paused, failed(Meaning::Paused), due(3241), "note active config_changed - both 359");
    check_begin(&paused, due(3600), "note active config_changed token_expired both 900");
    check(&paused, Answer::Tokens(tokens(Some(9_999))), due(4_000), "record active - refreshed both 5000");
}

#[test]
fn a_wait_that_the_provider_asks_for_delays_the_second_look() {
    #[track_caller]
    fn check_wait(lifetime: Option<i64>, retry_after: u64, expected: i64) -> StoredConnection {
        let Answer::Failed(failed) = failed(Meaning::DeadGrant) else { unreachable!() };
        let failed = Failed { retry_after: Some(Duration::from_secs(retry_after)), ..failed };
        let expected = format!("note active invalid_grant refresh_failed both {expected}");
        check(&active(lifetime), Answer::Failed(failed), due(0), &expected)
    }
    check_wait(Some(3600), 0, 360);
    check_wait(Some(3600), 100, 360);
    let refused = check_wait(Some(3600), 900, 900);
    check_begin(&refused, asked(400), "wait 500 400 invalid_grant");
    check_begin(&refused, due(400), "keep");
    check_begin(&refused, due(900), "send");
    // Not past the end of the access token, where its event is due, too.
    check_wait(Some(3600), 86_400, 3600);
    check_wait(None, 86_400, 86_400);
}
