//! Configuration of each stream and bucket.
//!
//! Every option that matters is written out, so that neither the client library nor the server chooses one. All streams
//! are stored on disk. Each but `OAUTH_SCHEDULE` has a limit in bytes. Records, commands and buckets are refused when their
//! stream is full; only events and dead letters are dropped, the oldest first.
//!
//! On a single server the two queues have `persist_mode: async`: the server acknowledges a message before it is on the disk. A
//! command or schedule that a crash of the server loses is made again (`worker/context/restarts.rs`), so no caller has to wait
//! for the disk. Records, buckets and dead letters are on the disk when they are acknowledged, and so are events unless
//! `events.sync` is false. The mode of a stream is fixed when it is created.

use std::time::Duration;

use async_nats::jetstream::stream::{
    Config, DiscardPolicy, PersistenceMode, Republish, RetentionPolicy, StorageType, SubjectTransform,
};

use crate::config::MaxBytes;
use crate::subject;

/// Age at which dead letters are deleted: time for an operator to look into last month's failures.
const AUDIT_TTL: Duration = Duration::from_hours(30 * 24);
/// Age at which the nonce of a signed request is deleted. Longer than the ten minutes for which a signed command may wait
/// on the queue, so that a nonce is remembered until no command with it is accepted.
const NONCE_TTL: Duration = Duration::from_mins(15);
/// Time for which the server recognises a repeated message id. Longer than any publish is repeated.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);

/// Largest command in bytes: a config of 64 KiB, sealed and in base64, with room to spare.
const MAX_COMMAND_BYTES: i32 = 256 * 1024;
/// Most dead letters. The oldest go first.
const MAX_DEAD_LETTERS: i64 = 100_000;
/// Largest dead letter in bytes: it holds a subject and a reason, not the command's content.
const MAX_DEAD_LETTER_BYTES: i32 = 8 * 1024;

/// The options that may differ between installations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Replicas of each stream and bucket.
    pub replicas: usize,
    /// Age at which a pending login is deleted.
    pub login_ttl: Duration,
    /// Age at which an event is deleted.
    pub events_age: Duration,
    /// True if a single server syncs events before it acknowledges them.
    pub events_sync: bool,
    pub max_bytes: MaxBytes,
}

impl Sizes {
    #[must_use]
    pub(crate) fn of(config: &crate::config::Config) -> Self {
        Self {
            replicas: config.nats.replicas,
            login_ttl: config.oauth.login_ttl,
            events_age: config.events.max_age,
            events_sync: config.events.sync,
            max_bytes: config.nats.max_bytes,
        }
    }

    /// Sets a stream's replicas and its limit in bytes.
    pub(super) fn applied_to(self, stream: Config) -> Config {
        let max_bytes = self.max_bytes.of(&stream.name).map_or(-1, |limit| limit.bytes);
        Config { num_replicas: self.replicas, max_bytes, ..stream }
    }
}

/// The streams and buckets of a store with these sizes. `is_standalone` is true for one server outside a cluster.
pub(super) fn declared(sizes: Sizes, is_standalone: bool) -> Vec<Config> {
    let login_ttl = sizes.login_ttl;
    let may_be_async = is_standalone && sizes.replicas == 1;
    let persisted = |stream: Config, is_async: bool| Config {
        persist_mode: (may_be_async && is_async).then_some(PersistenceMode::Async),
        ..stream
    };
    let mut all = vec![
        records(),
        persisted(commands(), true),
        persisted(schedule(), true),
        dead_letters(),
        persisted(events(sizes.events_age), !sizes.events_sync),
    ];
    for (bucket, max_age) in [
        (subject::CONNECTIONS, Duration::ZERO),
        (subject::CONFIGS, Duration::ZERO),
        (subject::STATES, login_ttl),
        (subject::API_KEYS, Duration::ZERO),
        (subject::NONCES, NONCE_TTL),
        (subject::META, Duration::ZERO),
    ] {
        all.push(bucket_stream(bucket, max_age));
    }
    all.into_iter().map(|config| sizes.applied_to(config)).collect()
}

/// Options that all streams share.
fn base(name: &str, subjects: &str) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![subjects.to_owned()],
        storage: StorageType::File,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_bytes: -1,
        max_message_size: -1,
        max_consumers: -1,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    }
}

/// Subscribers see committed records only: a record is published to a subject that no subscriber reads, stored under its own
/// subject, and sent out by the server once it is stored. A publish to a subject with subscribers would reach them even if
/// the stream then refused the record.
pub(super) fn records() -> Config {
    let transform =
        SubjectTransform { source: subject::RECORDS_IN.to_owned(), destination: subject::RECORDS_STORED.to_owned() };
    let republish = Republish {
        source: subject::TOKENS.to_owned(),
        destination: subject::TOKENS_OUT.to_owned(),
        headers_only: false,
    };
    Config {
        description: Some("records: the newest of each connection and config".to_owned()),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_messages_per_subject: 1,
        subject_transform: Some(transform),
        republish: Some(republish),
        allow_direct: true,
        // Tombstones expire.
        allow_message_ttl: true,
        ..base(subject::OAUTH, subject::RECORDS_IN)
    }
}

/// A second command for a subject is refused while the first is queued or in progress, so a connection has at most one
/// refresh at a time.
fn commands() -> Config {
    Config {
        description: Some("work for the workers, at most one of each kind for a connection or config".to_owned()),
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: 1,
        allow_message_ttl: true,
        max_message_size: MAX_COMMAND_BYTES,
        ..base(subject::OAUTH_COMMANDS, subject::COMMANDS)
    }
}

/// A new schedule replaces the old one of its subject, so this stream discards old messages where `commands` refuses new ones.
fn schedule() -> Config {
    Config {
        description: Some("when each connection is refreshed next".to_owned()),
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 1,
        allow_message_schedules: true,
        allow_message_ttl: true,
        allow_rollup: true,
        // The repair pass looks up many schedules with one direct get.
        allow_direct: true,
        ..base(subject::OAUTH_SCHEDULE, subject::SCHEDULES)
    }
}

fn dead_letters() -> Config {
    Config {
        description: Some("commands given up, with the reason".to_owned()),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_age: AUDIT_TTL,
        max_messages: MAX_DEAD_LETTERS,
        max_message_size: MAX_DEAD_LETTER_BYTES,
        allow_direct: true,
        ..base(subject::OAUTH_DEAD, subject::DEAD_LETTERS)
    }
}

fn events(max_age: Duration) -> Config {
    Config {
        description: Some("audit log".to_owned()),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_age,
        // The server accepts no duplicate window longer than the maximum age.
        duplicate_window: DUPLICATE_WINDOW.min(max_age),
        allow_direct: true,
        ..base(subject::OAUTH_EVENTS, subject::EVENTS)
    }
}

/// A KV bucket with a history of one, in the form that `nats kv` expects.
fn bucket_stream(bucket: &str, max_age: Duration) -> Config {
    // The server accepts no duplicate window longer than the maximum age.
    let duplicate_window = if max_age.is_zero() { DUPLICATE_WINDOW } else { DUPLICATE_WINDOW.min(max_age) };
    Config {
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_messages_per_subject: 1,
        max_age,
        duplicate_window,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        allow_message_ttl: true,
        ..base(&subject::kv_stream(bucket), &subject::kv_subject(bucket, ">"))
    }
}
