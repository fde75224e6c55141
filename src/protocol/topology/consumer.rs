//! Durable consumers of the work queues and of the events for the webhook.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull};

use crate::event::EventKind;
use crate::subject::{self, Account, Verb};

/// Longest silence of a worker about a command. After it the server delivers the command to another worker. Workers report
/// progress every two seconds, so one lost report does no harm.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(5);

/// Consumer of due refreshes.
#[must_use]
pub(crate) fn due_consumer() -> pull::Config {
    pull::Config {
        durable_name: Some("due".to_owned()),
        description: Some("workers that queue refreshes".to_owned()),
        filter_subject: subject::SCHEDULES_DUE.to_owned(),
        ..consumer(Verb::Refresh)
    }
}

/// Consumer of the events for a receiver: of an account's events, or of all. Each receiver has its own, so that one that is
/// slow delays no other. The server deletes it when no worker has pulled for `max_age`, the age at which events are deleted:
/// then it has nothing left to deliver, so a receiver that is removed leaves nothing, and one whose workers are stopped loses
/// nothing.
#[must_use]
pub(crate) fn webhook_consumer(account: Option<&Account>, events: &[EventKind], max_age: Duration) -> pull::Config {
    let name = account.map_or_else(|| "webhook".to_owned(), |account| format!("webhook_{account}"));
    pull::Config {
        durable_name: Some(name),
        description: Some("workers that send events to a webhook".to_owned()),
        // Events from before the webhook was configured are not sent.
        deliver_policy: DeliverPolicy::New,
        // The receiver has ten seconds to answer. An event that it does not accept is retried after much longer.
        ack_wait: Duration::from_secs(30),
        inactive_threshold: max_age,
        filter_subject: String::new(),
        filter_subjects: events.iter().map(|event| subject::events_of_kind(account, event.as_str())).collect(),
        ..consumer(Verb::Refresh)
    }
}

/// Consumer of a verb's commands. Each verb has its own, so that a backlog of one verb does not delay another.
#[must_use]
pub(crate) fn consumer(verb: Verb) -> pull::Config {
    pull::Config {
        durable_name: Some(verb.as_str().to_owned()),
        description: Some(format!("workers that {verb}")),
        deliver_policy: DeliverPolicy::All,
        replay_policy: ReplayPolicy::Instant,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        // Unlimited: a message that the server has given up stays on the work queue and blocks its subject. Workers count the
        // deliveries and end a command after too many of them with a dead letter.
        max_deliver: -1,
        max_ack_pending: 10_000,
        filter_subject: verb.filter(),
        ..pull::Config::default()
    }
}
