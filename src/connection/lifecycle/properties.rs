//! What no sequence of answers, times and configs may do to a connection.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::model::{Model, ModelConfig, Reply};
use crate::connection::Status;

#[derive(Debug, Clone, Copy)]
enum Step {
    Due(Reply),
    Asked(Reply),
    Configure(ModelConfig, Reply),
    /// Seconds pass.
    Wait(i64),
    /// Time passes until the schedule fires.
    Next(Reply),
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        prop_oneof![Just(None), (1_i64..100_000).prop_map(Some)].prop_map(Reply::Tokens),
        Just(Reply::InvalidGrant),
        Just(Reply::InvalidGrant),
        Just(Reply::InvalidClient),
        Just(Reply::Down),
        Just(Reply::Unclear),
        Just(Reply::Unclear),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let config = prop_oneof![Just(ModelConfig::Fits), Just(ModelConfig::Other), Just(ModelConfig::Missing)];
    prop_oneof![
        2 => reply().prop_map(Step::Due),
        2 => reply().prop_map(Step::Asked),
        1 => (config, reply()).prop_map(|(config, reply)| Step::Configure(config, reply)),
        2 => prop_oneof![0_i64..60, 0_i64..4_000, 0_i64..100_000].prop_map(Step::Wait),
        4 => reply().prop_map(Step::Next),
    ]
}

fn run(model: &mut Model, step: Step) {
    match step {
        Step::Due(reply) => model.refresh(false, reply),
        Step::Asked(reply) => model.refresh(true, reply),
        Step::Configure(config, reply) => drop(model.configure(config, reply)),
        Step::Wait(seconds) => model.advance(seconds),
        Step::Next(reply) => {
            if let Some(at) = model.next_due() {
                model.now = at;
                model.refresh(false, reply);
            }
        }
    }
}

fn lifetime() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![Just(None), (1_i64..10_000).prop_map(Some), (1_i64..1_000_000).prop_map(Some)]
}

fn is_valid(model: &Model) -> bool {
    let connection = &model.stored.connection;
    connection.access_token.is_some() && connection.expiry.is_none_or(|expiry| expiry > model.now)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_loses_the_refresh_token_or_forgets_an_expired_access_token(lifetime in lifetime(), steps in prop::collection::vec(step(), 1..60)) {
        let mut model = Model::connected(lifetime, Duration::from_secs(5));
        for step in steps {
            run(&mut model, step);
            let connection = &model.stored.connection;
            let has_expired = connection.expiry.is_some_and(|expiry| expiry <= model.now);
            prop_assert!(connection.refresh_token.is_some(), "{step:?}");
            prop_assert!(connection.access_token.is_some() || connection.status == Status::NeedsReauthorization);
            // An expired token leads to something: the schedule fires again, or has nothing to do but wait for a person.
            prop_assert!(!has_expired || model.next_due().is_some(), "{step:?}");
        }
    }

    #[test]
    fn no_step_removes_a_token_that_is_valid_after_it(lifetime in lifetime(), steps in prop::collection::vec(step(), 1..60)) {
        let mut model = Model::connected(lifetime, Duration::from_secs(5));
        for step in steps {
            let before = model.clone();
            run(&mut model, step);
            let mut unchanged = before.clone();
            unchanged.now = model.now;
            prop_assert!(!is_valid(&unchanged) || is_valid(&model), "{step:?} of {before:?}");
        }
    }

    /// Every answer but tokens, 429, 5xx and refusals of the client ends a connection whose token has expired.
    #[test]
    fn refusals_never_leave_a_connection_active_for_ever(
        lifetime in 1_i64..100_000,
        earlier in prop::collection::vec(step(), 0..20),
        refusals in prop::collection::vec(prop_oneof![Just(Reply::InvalidGrant), Just(Reply::Unclear)], 1..8),
    ) {
        let mut model = Model::connected(Some(lifetime), Duration::from_secs(5));
        for step in earlier {
            run(&mut model, step);
        }
        model.configure(ModelConfig::Fits, Reply::Unclear);
        let end = model.stored.connection.expiry.unwrap_or(model.now).max(model.now);
        let latest = end + SignedDuration::from_hours(25);
        for reply in refusals.iter().cycle() {
            if model.stored.connection.status == Status::NeedsReauthorization {
                break;
            }
            model.now = model.next_due().expect("an active connection is refreshed");
            prop_assert!(model.now <= latest, "still active: {model:?}");
            model.refresh(false, *reply);
        }
    }

    /// A dead grant ends within the second look or the end of the access token, whichever is later, and with more than two
    /// minutes left never at the first refusal.
    #[test]
    fn a_dead_grant_ends_in_time(lifetime in 1_i64..1_000_000, age in 0_i64..1_000_000, asked in prop::collection::vec(0_i64..700, 0..5)) {
        let mut model = Model::connected(Some(lifetime), Duration::from_secs(5));
        // A record that is too young is not refreshed.
        model.advance(5 + age % lifetime.max(1));
        let (first, end) = (model.now, model.stored.connection.expiry.unwrap());
        let left = end.duration_since(first);
        model.refresh(false, Reply::InvalidGrant);
        let look = (left / 10).clamp(SignedDuration::from_secs(30), SignedDuration::from_mins(10));
        if left > SignedDuration::from_mins(2) {
            prop_assert_eq!(model.stored.connection.status, Status::Active);
            for wait in asked {
                let at = model.now + SignedDuration::from_secs(wait);
                if at < first + look {
                    model.now = at;
                    model.refresh(true, Reply::InvalidGrant);
                }
            }
            prop_assert_eq!(model.requests, 1, "explicit tries get the first answer");
            model.now = model.next_due().unwrap();
            model.refresh(false, Reply::InvalidGrant);
        }
        prop_assert_eq!(model.stored.connection.status, Status::NeedsReauthorization);
        prop_assert!(model.now <= (first + look).max(end) + SignedDuration::from_secs(1), "{:?}", model);
        prop_assert!(model.requests <= 2);
    }

    /// The schedule of an unchanged state never fires in vain twice in a row, so no worker turns in circles.
    #[test]
    fn the_schedule_always_leads_on(lifetime in lifetime(), steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::connected(lifetime, Duration::from_secs(5));
        for step in steps {
            run(&mut model, step);
        }
        for _ in 0..3 {
            let Some(at) = model.next_due() else { break };
            let before = model.clone();
            prop_assert!(at > before.now || at == Timestamp::MAX);
            model.now = at;
            model.refresh(false, Reply::Down);
            let has_changed = model.requests > before.requests || model.events.len() > before.events.len();
            let is_paused = model.stored.refresh_failure.as_ref().is_some_and(super::RefreshFailure::is_pause);
            prop_assert!(has_changed || is_paused, "{before:?}");
        }
    }
}
