//! Workers: take commands off the queue and end each in exactly one confirmed ack.

mod apply;
pub(crate) mod background;
mod commands;
mod consumer;
pub(crate) mod context;
mod job;
mod provider_calls;
pub(crate) mod rpc;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::{AckKind, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, error, info, warn};

use self::background::{due, queues, repair, upkeep, webhooks};
use self::commands::{configure, exchange, refresh, revoke};
use self::consumer::Places;
use self::job::Job;
use self::rpc::status::Failure;
use crate::command::Work;
use crate::config::Config;
use crate::jetstream::NatsError;
use crate::outcome::{MAX_DELIVERIES, Outcome, backoff};
use crate::protocol::commands as queue;
use crate::protocol::permissions::{self, PermissionError};
use crate::protocol::topology::{self, TopologyError};
use crate::store::StoreError;
use crate::subject::{Verb, permission};
use crate::system;
use crate::worker::context::Context;

/// How often the server hears that a command is still worked on; well below the ack wait.
const PROGRESS: Duration = Duration::from_secs(2);
/// How long one request for commands stays open at the server.
const PULL: Duration = Duration::from_secs(5);
/// Pause before commands are asked for again while the bus is away.
const AGAIN: Duration = Duration::from_secs(1);

/// How long something has to have gone well for its next failure to be news.
const WELL: Duration = Duration::from_secs(30);

/// Works until told to stop; then takes no more commands and waits for those under way.
pub(crate) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    for verb in Verb::ALL {
        tasks.spawn(work_on(Arc::clone(&context), verb, stop.clone()));
    }
    if let Some(webhook) = &context.webhook {
        tasks.spawn(webhooks::run(Arc::clone(&context), Arc::clone(webhook), stop.clone()));
    }
    tasks.spawn(queues::run(Arc::clone(&context), stop.clone()));
    tasks.spawn(due::run(Arc::clone(&context), stop.clone()));
    tasks.spawn(repair::run(Arc::clone(&context), stop.clone()));
    tasks.spawn(upkeep::run(context, stop));
    tasks.close();
    tasks.wait().await;
}

/// Does it until told to stop. It ends when something is away; then it is begun again a moment later.
async fn keep_at<F>(stop: &CancellationToken, what: &str, attempt: impl Fn() -> F)
where
    F: Future<Output: std::fmt::Display>,
{
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let began = Instant::now();
        let ended = tokio::select! {
            () = stop.cancelled() => break,
            ended = attempt() => ended,
        };
        failures = if began.elapsed() < WELL { failures.saturating_add(1) } else { 1 };
        if is_news(failures) {
            warn!("cannot {what}: {ended}; trying again");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Of failures in a row, one a second: the first, then ever fewer, in the end one a minute.
fn is_news(failures: u32) -> bool {
    failures.is_multiple_of(60) || (failures < 60 && failures.is_power_of_two())
}

async fn work_on(context: Arc<Context>, verb: Verb, stop: CancellationToken) {
    let places = Places::new(context.config.worker.concurrency);
    keep_at(&stop, &format!("take commands ({verb})"), || take_all(&context, verb, &places)).await;
    if !places.drain(context.config.worker.drain).await {
        warn!(%verb, "stopped with commands under way; other workers will get them");
    }
}

/// Pull after pull until one fails.
async fn take_all(context: &Arc<Context>, verb: Verb, places: &Places) -> NatsError {
    let nats = &context.nats;
    let consumer = match queue::consumer(nats, verb).await {
        Ok(consumer) => consumer,
        Err(error) => return queues::doubt(context, error),
    };
    let handle = |message| {
        let context = Arc::clone(context);
        async move { process(&context, message).await }
    };
    loop {
        if let Err(error) = places.take(nats, &consumer, handle).await {
            return queues::doubt(context, error);
        }
    }
}

async fn process(context: &Context, message: Message) {
    let delivered = message.info().map_or(1, |info| info.delivered);
    let (job, work) = match Job::parse(&context.store.keyring, &message) {
        Ok(parsed) => parsed,
        Err(reason) => return reject(context, &message, None, &reason).await,
    };
    if delivered > 1 {
        context.measures.redelivered.inc();
    }
    context.measures.running.inc();
    let span = job.span(delivered);
    async {
        let outcome = tokio::select! {
            outcome = carry_out(context, &job, work, delivered) => outcome,
            never = keep_alive(&message) => match never {},
        };
        conclude(context, &message, &job, outcome).await;
    }
    .instrument(span)
    .await;
    context.measures.running.dec();
}

async fn carry_out(context: &Context, job: &Job, work: Work, delivered: i64) -> Outcome {
    if delivered > MAX_DELIVERIES {
        return Outcome::Reject("delivered too often".to_owned());
    }
    let done = match work {
        Work::Exchange { query, cookies, credential } => {
            exchange::run(context, job, &query, (credential.as_ref(), &cookies)).await
        }
        Work::Refresh { .. } | Work::Revoke { .. } if !job.from_worker => {
            return Outcome::Reject("only workers may send this".to_owned());
        }
        Work::Refresh { actor, sequence, booked } => {
            refresh::run(context, job, &refresh::Trigger { actor, sequence, booked }).await
        }
        Work::Revoke { actor, login_id } => revoke::run(context, job, &actor, &login_id).await,
        Work::Put { credential, config } => configure::put(context, job, &credential, &config).await,
        Work::Delete { credential } => configure::delete(context, job, &credential).await,
    };
    match done {
        Ok(answer) => Outcome::Done(answer),
        Err(StoreError::Lost) => Outcome::Lost,
        Err(error) if error.is_permanent_for_command() && delivered >= 3 => Outcome::Reject(error.to_string()),
        Err(error) => Outcome::Retry(backoff(delivered, system::random_share()), error.to_string()),
    }
}

async fn conclude(context: &Context, message: &Message, job: &Job, outcome: Outcome) {
    let nats = &context.nats;
    match outcome {
        Outcome::Done(answer) => {
            info!(status = answer.status, "done");
            job.answer(nats, &answer).await;
            fail::fail_point!("before_ack");
            confirm(nats, message, AckKind::Ack).await;
        }
        Outcome::Lost => warn!("took too long; the command is no longer this worker's"),
        Outcome::Retry(delay, reason) => {
            warn!("put back for {delay:?}: {reason}");
            confirm(nats, message, AckKind::Nak(Some(delay))).await;
        }
        Outcome::Reject(reason) => reject(context, message, Some(job), &reason).await,
    }
}

/// Gives a command up: a dead letter first, then the answer, then the end.
async fn reject(context: &Context, message: &Message, job: Option<&Job>, reason: &str) {
    let nats = &context.nats;
    error!(subject = %message.subject, "command given up: {reason}");
    let lasting = async {
        if let Some(job) = job.filter(|job| job.subject.verb == Verb::Refresh && job.from_worker) {
            refresh::given_up(context, job).await?;
        }
        Ok(queue::dead_letter(nats, message, job.map(|job| job.id.as_str()), reason, system::now()).await?)
    };
    if let Err(error) = lasting.await as Result<(), StoreError> {
        warn!("no dead letter could be stored: {error}; the command stays on the queue");
        return confirm(nats, message, AckKind::Nak(Some(Duration::from_secs(1)))).await;
    }
    if let Some(job) = job {
        job.answer(
            nats,
            &Failure::GivenUp.answer("the command was given up; an operator finds it with `tokenbus dead list`"),
        )
        .await;
    }
    confirm(nats, message, AckKind::Term).await;
}

async fn confirm(nats: &crate::jetstream::Nats, message: &Message, kind: AckKind) {
    if let Err(error) = queue::confirm(nats, message, kind).await {
        warn!("ack not confirmed: {error}; the command may come again");
    }
}

async fn keep_alive(message: &Message) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(PROGRESS).await;
        if let Err(error) = message.ack_with(AckKind::Progress).await {
            warn!("cannot say that the command is worked on: {error}");
        }
    }
}

/// Why workers cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    /// Something that the bus would refuse.
    #[error(transparent)]
    Permission(#[from] PermissionError),
    /// Streams or buckets.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// What is kept, or a consumer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Calls cannot be served.
    #[error("calls: {0}")]
    Calls(String),
}

impl PrepareError {
    /// Returns true if trying again cannot help, so that the worker ends.
    #[must_use]
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Topology(
                TopologyError::Incompatible { .. }
                | TopologyError::Resizable { .. }
                | TopologyError::TooOld { .. }
                | TopologyError::Backwards(_),
            )
            | Self::Permission(PermissionError::Missing { .. })
            | Self::Calls(_) => true,
            Self::Store(error) => error.prevents_start(),
            Self::Topology(_) | Self::Permission(PermissionError::Away(_)) => false,
        }
    }
}

/// Checks permissions, declares the streams, claims the keys and makes the consumers.
///
/// # Errors
/// [`PrepareError`], which knows whether to try again.
pub(crate) async fn prepare(context: &Context) -> Result<(), PrepareError> {
    let Context { nats, store, config, .. } = context;
    permissions::check(nats, permission::needed_by_worker(&config.nats.inbox_prefix())).await?;
    // The server may have lost a queue, and all schedules with it.
    if topology::declare(nats, sizes(config)).await? {
        context.resumed.add_lost();
    }
    queues::make_ready(nats).await?;
    Ok(store.claim_keys().await?)
}

fn sizes(config: &Config) -> topology::Sizes {
    topology::Sizes { replicas: config.nats.replicas, login_ttl: config.oauth.login_ttl }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_for_long_is_said_once_a_minute() {
        let said: Vec<u32> = (1..=180).filter(|failures| is_news(*failures)).collect();
        assert_eq!(said, [1, 2, 4, 8, 16, 32, 60, 120, 180]);
    }
}
