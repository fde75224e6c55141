//! The durable consumers.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull};

use crate::event::EventKind;
use crate::subject::{self, Verb};

/// How long a worker may be silent about a command before another one gets it.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(5);

/// The one durable consumer of refreshes that are due.
#[must_use]
pub(crate) fn due_consumer() -> pull::Config {
    pull::Config {
        durable_name: Some("due".to_owned()),
        description: Some("workers that queue refreshes".to_owned()),
        filter_subject: subject::SCHEDULES_DUE.to_owned(),
        ..consumer(Verb::Refresh)
    }
}

/// The one durable consumer of the events that go to the webhook.
#[must_use]
pub(crate) fn webhook_consumer(events: &[EventKind]) -> pull::Config {
    pull::Config {
        durable_name: Some("webhook".to_owned()),
        description: Some("workers that send events to the webhook".to_owned()),
        // What was before there was a webhook is nobody's business.
        deliver_policy: DeliverPolicy::New,
        // The receiver has ten seconds, and what it does not take comes again after much longer.
        ack_wait: Duration::from_secs(30),
        filter_subject: String::new(),
        filter_subjects: events.iter().map(|event| subject::events_of_kind(event.as_str())).collect(),
        ..consumer(Verb::Refresh)
    }
}

/// The one durable consumer of a verb: a backlog of one verb never delays another.
#[must_use]
pub(crate) fn consumer(verb: Verb) -> pull::Config {
    pull::Config {
        durable_name: Some(verb.as_str().to_owned()),
        description: Some(format!("workers that {verb}")),
        deliver_policy: DeliverPolicy::All,
        replay_policy: ReplayPolicy::Instant,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        // Unlimited here: a message that the server gave up would block its subject for ever. Workers count.
        max_deliver: -1,
        max_ack_pending: 10_000,
        filter_subject: verb.filter(),
        ..pull::Config::default()
    }
}
