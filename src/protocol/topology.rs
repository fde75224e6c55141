//! Streams, buckets and consumers.
//!
//! Declaring them is idempotent: a missing stream is created, an existing one is compared and never changed. Only
//! `tokenbus setup` changes options, and only those that cost no data. A stream that differs in any other option stops the
//! start, because the guarantees of [`crate::protocol`] rest on these options.

mod compare;
mod consumer;
mod first_sequence;
mod rebuilt;
mod restored;
mod room;
mod server;
mod streams;

use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use tracing::info;

use self::compare::{compare, is_async, is_resized};
pub(crate) use self::consumer::{ACK_WAIT, consumer, due_consumer, webhook_consumer};
pub(crate) use self::first_sequence::FirstSequence;
pub(crate) use self::rebuilt::{OldShape, Rebuild, begin_rebuild, end_rebuild, old_shapes, rebuild_under_way, reserve};
pub(crate) use self::restored::{
    begun_from, check_restorable, created_empty, finish, not_restored, restored_from, with_unfinished,
};
pub(crate) use self::room::{StreamUse, Unwritable, holds_tokens, limited, needed, test_writes, used};
pub(crate) use self::server::{Server, check_server};
pub(crate) use self::streams::Sizes;
use crate::config::StreamLimit;
use crate::jetstream::{Cause, Nats, NatsError};
use crate::protocol::form::{self, FormError};
use crate::protocol::high_water::{self, Backwards, SequenceError};
use crate::protocol::origin;
use crate::subject;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TopologyError {
    #[error("nats-server {found} is too old: {wanted} or newer is needed")]
    TooOld { found: String, wanted: &'static str },
    #[error("no JetStream for this user: switch it on at the server, or check the user's permissions")]
    NoJetStream(#[source] Option<Cause>),
    /// An option of an existing stream differs, and cannot be changed without loss.
    #[error("stream {stream} exists with `{field}` = {found}, wanted {wanted}; delete or rename it, then start again")]
    Incompatible { stream: String, field: String, found: String, wanted: String },
    #[error(
        "the server acknowledges messages of stream {stream} before it writes them (`persist_mode: async`), which is safe only \
         with `nats.replicas = 1` on one server that has JetStream itself and no cluster: connect to that server without a \
         leaf node between, or move the store into a new cluster with `tokenbus backup --final` and `tokenbus restore`"
    )]
    NotStandalone { stream: String },
    #[error(
        "stream {0} is missing. If tokenbus was in use, NATS came back without its data: restore it. Otherwise run `tokenbus setup`"
    )]
    Absent(String),
    /// An option differs that `setup` may change.
    #[error(
        "stream {stream} has other replicas, another age, another limit in bytes or other direct reads than declared; \
         `tokenbus setup` adjusts them"
    )]
    Resizable { stream: String },
    #[error("stream {stream}: {source}")]
    Refused { stream: String, source: Cause },
    #[error(
        "the server has no room for stream {stream}: lower `{setting}` ({bytes} bytes), or give the server or the account \
         more storage: {source}"
    )]
    NoRoom { stream: String, setting: &'static str, bytes: i64, source: Cause },
    #[error("a restore broke off, and has left stream {stream}: run the same `tokenbus restore` again")]
    RestoreBrokeOff { stream: String },
    #[error("a rebuild of streams broke off: run `tokenbus setup --rebuild {folder}` again, on the same machine")]
    RebuildBrokeOff { folder: String },
    #[error("{0}")]
    Nats(#[from] NatsError),
    #[error(transparent)]
    Backwards(#[from] Backwards),
    #[error(transparent)]
    Form(#[from] FormError),
    /// The sequence given to `setup --first-seq` cannot be used.
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

/// Creates missing streams and buckets, and compares existing ones. Returns true if it created one that the repair pass fills.
///
/// Refuses a store of another form.
///
/// # Errors
/// Names the stream and the option that differs.
pub(crate) async fn declare(nats: &Nats, sizes: Sizes) -> Result<bool, TopologyError> {
    check_server(nats).await?;
    if is_new(nats, sizes).await? {
        create_meta(nats, sizes).await?;
        origin::note_worker(nats).await?;
        form::set(nats).await?;
    }
    form::check(nats).await?;
    rebuilt::check_complete(nats).await?;
    // Before `OAUTH` is created: a new one would begin at sequence 1.
    high_water::check(nats).await?;
    let mut created = false;
    for wanted in streams(nats, sizes) {
        let follows_from_records = follows_from_records(&wanted);
        created |= declare_stream(nats, wanted, sizes, false).await? && follows_from_records;
    }
    Ok(created)
}

/// Does the same as [`declare`], and changes what costs no data: replicas, ages, limits, direct reads, expiry of single
/// messages, and the sequence at which `OAUTH` continues. Returns true if the stored values have an older form and must be
/// migrated.
pub(crate) async fn set_up(nats: &Nats, sizes: Sizes, first: Option<FirstSequence>) -> Result<bool, TopologyError> {
    check_server(nats).await?;
    if is_new(nats, sizes).await? {
        create_meta(nats, sizes).await?;
        form::set(nats).await?;
    }
    let is_older = match form::check(nats).await {
        Err(FormError::Older) => true,
        checked => checked.map(|()| false)?,
    };
    rebuilt::check_complete(nats).await?;
    if let Some(first) = first {
        first_sequence::continue_at(nats, sizes, first).await?;
    }
    high_water::check(nats).await?;
    for wanted in streams(nats, sizes) {
        declare_stream(nats, wanted, sizes, true).await?;
    }
    Ok(is_older)
}

/// Returns true if the server has none of our streams. Two kinds do not count. A running worker creates the queues again when a
/// server has lost everything, and they hold no stored value. The bucket for the form is created first, and its creator may have
/// died before it stored the form.
///
/// # Errors
/// [`TopologyError::RestoreBrokeOff`] if only a part of them has been restored.
pub(crate) async fn is_new(nats: &Nats, sizes: Sizes) -> Result<bool, TopologyError> {
    let meta = subject::kv_stream(subject::META);
    let mut has_meta = false;
    for wanted in streams(nats, sizes).into_iter().filter(|wanted| wanted.retention != RetentionPolicy::WorkQueue) {
        if let Some(found) = find(nats, &wanted.name).await? {
            restored::check_complete(nats, &found).await?;
            if wanted.name != meta {
                return Ok(false);
            }
            has_meta = true;
        }
    }
    Ok(!has_meta || form::is_missing(nats).await?)
}

/// Creates the bucket that holds the form, which is stored before there is anything else.
async fn create_meta(nats: &Nats, sizes: Sizes) -> Result<(), TopologyError> {
    let meta = subject::kv_stream(subject::META);
    for wanted in streams(nats, sizes).into_iter().filter(|wanted| wanted.name == meta) {
        declare_stream(nats, wanted, sizes, false).await?;
    }
    Ok(())
}

/// Compares each stream with its declaration. Changes nothing.
pub(crate) async fn inspect(nats: &Nats, sizes: Sizes) -> Vec<Result<(), TopologyError>> {
    let mut inspected = Vec::new();
    for wanted in streams(nats, sizes) {
        inspected.push(inspect_stream(nats, &wanted).await);
    }
    inspected
}

async fn inspect_stream(nats: &Nats, wanted: &Config) -> Result<(), TopologyError> {
    let found = find(nats, &wanted.name).await?.ok_or_else(|| absent(&wanted.name))?;
    compare(wanted, &found)?;
    check_async(nats, wanted, &found)?;
    if is_resized(wanted, &found) {
        return Err(TopologyError::Resizable { stream: wanted.name.clone() });
    }
    Ok(())
}

/// Creates the two work queues again if the server has lost them. Returns true if it created one.
///
/// A nats-server 2.15.1 that is killed right after an ack may be unable to restore an encrypted work queue ("corrupt
/// state file") and then drops the stream. Callers, schedules and the repair pass send the messages of the two queues
/// again. Any other stream holds state that exists nowhere else, so it must not be replaced by an empty one.
///
/// # Errors
/// [`TopologyError::RebuildBrokeOff`] if a queue is missing because it is being created again.
pub(crate) async fn declare_queues(nats: &Nats, sizes: Sizes) -> Result<bool, TopologyError> {
    let mut created = false;
    for wanted in streams(nats, sizes).into_iter().filter(|wanted| wanted.retention == RetentionPolicy::WorkQueue) {
        if find(nats, &wanted.name).await?.is_none() {
            // After the look: a rebuild is written down before it deletes the first stream.
            rebuilt::check_complete(nats).await?;
        }
        created |= declare_stream(nats, wanted, sizes, false).await?;
    }
    Ok(created)
}

/// Checks that all streams and buckets that logins, refreshes and reads need exist and answer.
pub(crate) async fn check_reachable(nats: &Nats) -> Result<(), TopologyError> {
    nats.require_connected()?;
    let buckets = [subject::CONNECTIONS, subject::CONFIGS, subject::STATES, subject::API_KEYS];
    let needed: Vec<String> = [subject::OAUTH, subject::OAUTH_COMMANDS, subject::OAUTH_SCHEDULE, subject::OAUTH_EVENTS]
        .map(str::to_owned)
        .into_iter()
        .chain(buckets.map(subject::kv_stream))
        .collect();
    let found = needed.iter().map(|name| async move { find(nats, name).await?.ok_or_else(|| absent(name)) });
    futures_util::future::try_join_all(found).await.map(drop)
}

/// Returns the configuration of each stream on this server.
pub(crate) fn streams(nats: &Nats, sizes: Sizes) -> Vec<Config> {
    streams::declared(sizes, nats.is_standalone())
}

/// Returns true for the queues, and for the buckets whose entries the repair pass writes from records.
fn follows_from_records(stream: &Config) -> bool {
    let buckets = [subject::CONNECTIONS, subject::CONFIGS].map(subject::kv_stream);
    stream.retention == RetentionPolicy::WorkQueue || buckets.contains(&stream.name)
}

/// Returns true if a crash of the server may lose acknowledged commands or schedules. Counts a missing queue as it would be
/// created.
pub(crate) async fn may_lose_commands(nats: &Nats, sizes: Sizes) -> Result<bool, TopologyError> {
    for queue in streams(nats, sizes).into_iter().filter(|wanted| wanted.retention == RetentionPolicy::WorkQueue) {
        if is_async(find(nats, &queue.name).await?.as_ref().unwrap_or(&queue)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses an existing stream whose losses nothing would notice: in a cluster, server ids do not show restarts.
fn check_async(nats: &Nats, wanted: &Config, found: &Config) -> Result<(), TopologyError> {
    if is_async(found) && !(nats.is_standalone() && wanted.num_replicas == 1) {
        return Err(TopologyError::NotStandalone { stream: wanted.name.clone() });
    }
    Ok(())
}

fn absent(stream: &str) -> TopologyError {
    TopologyError::Absent(stream.to_owned())
}

/// Returns true if the stream was missing and is now created.
async fn declare_stream(nats: &Nats, wanted: Config, sizes: Sizes, may_resize: bool) -> Result<bool, TopologyError> {
    let Some(found) = find(nats, &wanted.name).await? else {
        let name = wanted.name.clone();
        create(nats, wanted, sizes).await?;
        info!("created stream {name}");
        return Ok(true);
    };
    compare(&wanted, &found)?;
    check_async(nats, &wanted, &found)?;
    if may_resize && is_resized(&wanted, &found) {
        let resized = Config {
            num_replicas: wanted.num_replicas,
            max_age: wanted.max_age,
            duplicate_window: wanted.duplicate_window,
            allow_direct: wanted.allow_direct,
            allow_message_ttl: wanted.allow_message_ttl,
            max_bytes: wanted.max_bytes,
            discard: wanted.discard,
            ..found
        };
        let updated = nats.update_stream(resized).await;
        updated.map_err(|error| not_declared(&wanted.name, sizes, create_code(&error), error.into()))?;
        info!("changed replicas, age, limit in bytes or direct reads of stream {}", wanted.name);
    } else if (wanted.allow_direct, wanted.allow_message_ttl) != (found.allow_direct, found.allow_message_ttl) {
        // Other replicas and ages do no harm, but a direct read that the stream does not allow waits until it times out.
        return Err(TopologyError::Resizable { stream: wanted.name });
    }
    Ok(false)
}

async fn find(nats: &Nats, name: &str) -> Result<Option<Config>, TopologyError> {
    let info = nats.stream_info(name).await.map_err(refused(name))?;
    Ok(info.map(|info| info.config))
}

async fn create(nats: &Nats, config: Config, sizes: Sizes) -> Result<(), TopologyError> {
    let name = config.name.clone();
    let created = nats.create_stream(config).await;
    created.map_err(|error| not_declared(&name, sizes, create_code(&error), error.into()))
}

/// Codes of the server for streams that do not fit into its storage, or into the account's.
const NO_ROOM: [u64; 3] = [10_002, 10_023, 10_047];

fn not_declared(stream: &str, sizes: Sizes, code: Option<u64>, source: Cause) -> TopologyError {
    let stream = stream.to_owned();
    match sizes.max_bytes.of(&stream).filter(|_| code.is_some_and(|code| NO_ROOM.contains(&code))) {
        Some(StreamLimit { setting, bytes }) => TopologyError::NoRoom { stream, setting, bytes, source },
        None => TopologyError::Refused { stream, source },
    }
}

fn create_code(error: &CreateStreamError) -> Option<u64> {
    match error.kind() {
        CreateStreamErrorKind::JetStream(refusal) => Some(refusal.error_code().0),
        CreateStreamErrorKind::EmptyStreamName
        | CreateStreamErrorKind::InvalidStreamName
        | CreateStreamErrorKind::DomainAndExternalSet
        | CreateStreamErrorKind::JetStreamUnavailable
        | CreateStreamErrorKind::TimedOut
        | CreateStreamErrorKind::Response
        | CreateStreamErrorKind::NotFound
        | CreateStreamErrorKind::ResponseParse => None,
    }
}

/// For `map_err`.
fn refused<E: Into<Cause>>(stream: &str) -> impl FnOnce(E) -> TopologyError {
    let stream = stream.to_owned();
    move |source| TopologyError::Refused { stream, source: source.into() }
}
