//! Streams and buckets, every option written out, declared so that repeating it changes nothing.

mod consumer;
mod first;
mod server;

use std::time::Duration;

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType, SubjectTransform};
use serde_json::Value;
use tracing::info;

pub(crate) use self::consumer::{ACK_WAIT, consumer, due_consumer, webhook_consumer};
pub(crate) use self::first::FirstSequence;
pub(crate) use self::server::{Server, check_server};
use crate::jetstream::{Nats, NatsError};
use crate::protocol::high_water::{self, Backwards, SequenceError};
use crate::subject;

const DAY: Duration = Duration::from_hours(24);
/// How long the nonce of a signed request is remembered: longer than one may lie on the queue before it is judged.
const NONCE_TTL: Duration = Duration::from_mins(15);
const TWO_MINUTES: Duration = Duration::from_mins(2);

/// Largest command: a config of 64 KiB, sealed and in base64, with room to spare.
const COMMAND_BYTES: i32 = 256 * 1024;
/// Dead letters kept, and the largest: they hold no content.
const DEAD_LETTERS: i64 = 100_000;
const DEAD_LETTER_BYTES: i32 = 8 * 1024;

/// What may differ between installations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Replicas of each stream and bucket.
    pub replicas: usize,
    /// How long a pending login is kept.
    pub login_ttl: Duration,
}

/// Why the streams are not as they must be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopologyError {
    /// The server is too old.
    #[error("nats-server {found} is too old: {wanted} or newer is needed")]
    TooOld {
        /// Its version.
        found: String,
        /// What is needed.
        wanted: &'static str,
    },
    /// JetStream is off, or this user may not use it.
    #[error("no JetStream for this user: switch it on at the server, or check the user's permissions")]
    NoJetStream,
    /// An existing stream differs in a way that cannot be changed without loss.
    #[error("stream {stream} exists with `{field}` = {found}, wanted {wanted}; delete or rename it, then start again")]
    Incompatible {
        /// Its name.
        stream: String,
        /// The option.
        field: String,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// There is no such stream.
    #[error("stream {0} is missing; `tokenbus setup` or a worker's start makes it")]
    Absent(String),
    /// Options that `setup` changes are not as they must be.
    #[error(
        "stream {stream} has other replicas, another age or other direct reads than declared; `tokenbus setup` adjusts them"
    )]
    Resizable {
        /// Its name.
        stream: String,
    },
    /// The server refused.
    #[error("stream {stream}: {reason}")]
    Refused {
        /// Its name.
        stream: String,
        /// The server's words.
        reason: String,
    },
    /// The server is away.
    #[error("{0}")]
    Nats(#[from] NatsError),
    /// Sequences would go backwards.
    #[error(transparent)]
    Backwards(#[from] Backwards),
    /// The sequence to go on with does not do.
    #[error("{0}")]
    FirstSequence(String),
}

impl From<SequenceError> for TopologyError {
    fn from(error: SequenceError) -> Self {
        match error {
            SequenceError::Backwards(error) => Self::Backwards(error),
            SequenceError::Nats(error) => Self::Nats(error),
        }
    }
}

/// Declares all streams and buckets. Existing ones are compared, never changed. Gives whether a queue was made.
///
/// # Errors
/// [`TopologyError`] naming the stream and the option that differs.
pub(crate) async fn declare(nats: &Nats, sizes: Sizes) -> Result<bool, TopologyError> {
    check_server(nats).await?;
    // Before `OAUTH` is made, which would begin at 1.
    high_water::check(nats).await?;
    let mut made = false;
    for wanted in streams(sizes) {
        let is_queue = wanted.retention == RetentionPolicy::WorkQueue;
        made |= declare_stream(nats, wanted, false).await? && is_queue;
    }
    Ok(made)
}

/// As [`declare`], and changes what can be changed without loss of what exists: replicas, ages, whether any replica may
/// answer reads; and the sequence that `OAUTH` goes on with.
///
/// # Errors
/// As [`declare`].
pub(crate) async fn set_up(nats: &Nats, sizes: Sizes, first: Option<FirstSequence>) -> Result<(), TopologyError> {
    check_server(nats).await?;
    if let Some(first) = first {
        first::go_on_with(nats, sizes, first).await?;
    }
    high_water::check(nats).await?;
    for wanted in streams(sizes) {
        declare_stream(nats, wanted, true).await?;
    }
    Ok(())
}

/// Each stream's name with what is wrong with it. Changes nothing.
pub(crate) async fn inspect(nats: &Nats, sizes: Sizes) -> Vec<(String, Result<(), TopologyError>)> {
    let mut found = Vec::new();
    for wanted in streams(sizes) {
        let looked_at = match find(nats, &wanted.name).await {
            Ok(Some(there)) => match compare(&wanted, &there) {
                Ok(()) if is_resized(&wanted, &there) => Err(TopologyError::Resizable { stream: wanted.name.clone() }),
                compared => compared,
            },
            Ok(None) => Err(absent(&wanted.name)),
            Err(error) => Err(error),
        };
        found.push((wanted.name, looked_at));
    }
    found
}

/// Makes the two queues again if the server has lost them, which is what it does with a stream that it cannot restore
/// after being killed. What they held comes again: from callers, from the clock, from the repair pass. No other stream
/// may be replaced by an empty one. Gives whether one was made.
///
/// # Errors
/// As [`declare`].
pub(crate) async fn declare_queues(nats: &Nats, sizes: Sizes) -> Result<bool, TopologyError> {
    let mut made = false;
    for wanted in streams(sizes).into_iter().filter(|wanted| wanted.retention == RetentionPolicy::WorkQueue) {
        made |= declare_stream(nats, wanted, false).await?;
    }
    Ok(made)
}

/// Whether the streams and buckets answer without which nobody is logged in, refreshed or read.
///
/// # Errors
/// [`TopologyError`] naming one that does not.
pub(crate) async fn check_reachable(nats: &Nats) -> Result<(), TopologyError> {
    nats.connected()?;
    let buckets = [subject::CONNECTIONS, subject::CONFIGS, subject::STATES, subject::API_KEYS];
    let needed: Vec<String> = [subject::OAUTH, subject::OAUTH_COMMANDS, subject::OAUTH_SCHEDULE, subject::OAUTH_EVENTS]
        .map(str::to_owned)
        .into_iter()
        .chain(buckets.map(subject::kv_stream))
        .collect();
    let found = needed.iter().map(|name| async move { find(nats, name).await?.ok_or_else(|| absent(name)) });
    futures_util::future::try_join_all(found).await.map(drop)
}

fn absent(stream: &str) -> TopologyError {
    TopologyError::Absent(stream.to_owned())
}

/// How long the server may take to make or change a stream: it writes files, which a busy disk takes its time for.
const DECLARE: Duration = Duration::from_secs(10);

/// Gives whether the stream was not there.
async fn declare_stream(nats: &Nats, wanted: Config, may_resize: bool) -> Result<bool, TopologyError> {
    let mut jetstream = nats.jetstream.clone();
    jetstream.set_timeout(DECLARE);
    let Some(found) = find(nats, &wanted.name).await? else {
        jetstream.create_stream(wanted.clone()).await.map_err(|error| refused(&wanted.name, &error))?;
        info!("created stream {}", wanted.name);
        return Ok(true);
    };
    compare(&wanted, &found)?;
    if may_resize && is_resized(&wanted, &found) {
        let Config { num_replicas, max_age, duplicate_window, allow_direct, .. } = wanted;
        jetstream
            .update_stream(Config { num_replicas, max_age, duplicate_window, allow_direct, ..found })
            .await
            .map_err(|error| refused(&wanted.name, &error))?;
        info!("changed replicas, age or reads of stream {}", wanted.name);
    } else if wanted.allow_direct != found.allow_direct {
        // Other replicas and ages do no harm; whoever reads in a way that is not allowed waits for nothing.
        return Err(TopologyError::Resizable { stream: wanted.name });
    }
    Ok(false)
}

async fn find(nats: &Nats, name: &str) -> Result<Option<Config>, TopologyError> {
    match nats.jetstream.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().config.clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(ref cause) if cause.code() == 404 => Ok(None),
            GetStreamErrorKind::EmptyName
            | GetStreamErrorKind::Request
            | GetStreamErrorKind::InvalidStreamName
            | GetStreamErrorKind::JetStream(_) => Err(refused(name, &error)),
        },
    }
}

fn refused(stream: &str, error: &dyn std::fmt::Display) -> TopologyError {
    TopologyError::Refused { stream: stream.to_owned(), reason: error.to_string() }
}

/// The duplicate window follows the age: the server takes none that is longer.
fn is_resized(wanted: &Config, found: &Config) -> bool {
    let of = |config: &Config| (config.num_replicas, config.max_age, config.duplicate_window, config.allow_direct);
    of(wanted) != of(found)
}

/// Every option that we write out must be the same, but for those that `setup` may change.
fn compare(wanted: &Config, found: &Config) -> Result<(), TopologyError> {
    let as_object = |config: &Config| match serde_json::to_value(config) {
        Ok(Value::Object(object)) => object,
        _ => serde_json::Map::new(),
    };
    let found = as_object(found);
    for (field, value) in as_object(wanted) {
        let there = found.get(&field).unwrap_or(&Value::Null);
        let may_differ = matches!(
            field.as_str(),
            "num_replicas" | "max_age" | "duplicate_window" | "allow_direct" | "metadata" | "description"
        );
        if !may_differ && *there != value {
            let (found, wanted_value) = (there.to_string(), value.to_string());
            return Err(TopologyError::Incompatible {
                stream: wanted.name.clone(),
                field,
                found,
                wanted: wanted_value,
            });
        }
    }
    Ok(())
}

fn streams(sizes: Sizes) -> Vec<Config> {
    let Sizes { replicas, login_ttl } = sizes;
    let mut all = vec![records(), commands(), schedule(), dead_letters(), events()];
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
    all.into_iter().map(|config| Config { num_replicas: replicas, ..config }).collect()
}

/// What all have in common: on disk, no limit on their size but the disk's, nothing the client library would choose.
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
        duplicate_window: TWO_MINUTES,
        ..Config::default()
    }
}

fn records() -> Config {
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
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 1,
        subject_transform: Some(transform),
        republish: Some(republish),
        allow_direct: true,
        ..base(subject::OAUTH, subject::RECORDS_IN)
    }
}

fn commands() -> Config {
    Config {
        description: Some("work for the workers, at most one of each kind for a connection or config".to_owned()),
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: 1,
        allow_message_ttl: true,
        max_message_size: COMMAND_BYTES,
        ..base(subject::OAUTH_COMMANDS, subject::COMMANDS)
    }
}

fn schedule() -> Config {
    Config {
        description: Some("when each connection is refreshed next".to_owned()),
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 1,
        allow_message_schedules: true,
        allow_message_ttl: true,
        allow_rollup: true,
        // The repair pass asks after many schedules at once.
        allow_direct: true,
        ..base(subject::OAUTH_SCHEDULE, subject::SCHEDULES)
    }
}

fn dead_letters() -> Config {
    Config {
        description: Some("commands given up, with the reason".to_owned()),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_age: 30 * DAY,
        max_messages: DEAD_LETTERS,
        max_message_size: DEAD_LETTER_BYTES,
        allow_direct: true,
        ..base(subject::OAUTH_DEAD, subject::DEAD_LETTERS)
    }
}

fn events() -> Config {
    Config {
        description: Some("audit log".to_owned()),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_age: 30 * DAY,
        allow_direct: true,
        ..base(subject::OAUTH_EVENTS, subject::EVENTS)
    }
}

/// A KV bucket with a history of one, as `nats kv` knows it.
fn bucket_stream(bucket: &str, max_age: Duration) -> Config {
    let duplicate_window = if max_age.is_zero() { TWO_MINUTES } else { TWO_MINUTES.min(max_age) };
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
