//! One delivery of a command, from the message to its one confirmed ack.
//!
//! - A worker reports progress on its command every [`PROGRESS_INTERVAL`]. When it falls silent for
//!   [`ACK_WAIT`](crate::protocol::topology::ACK_WAIT), the server delivers the command again, to any worker.
//! - Consumers have no `max_deliver`: a message that the server gives up stays on the work queue and blocks its
//!   subject. Workers count deliveries instead, and end a command after [`MAX_DELIVERIES`] of them with a dead letter.
//! - Every message ends in exactly one confirmed ack, even one that cannot be read. The one exception is
//!   [`Outcome::DeliveryLost`]: another worker has the command, and an ack would take it from that worker.

use std::convert::Infallible;
use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use fail::fail_point;
use tracing::{Instrument as _, error, info, warn};

use crate::command::Work;
use crate::jetstream::Nats;
use crate::outcome::{MAX_DELIVERIES, Outcome, backoff};
use crate::protocol::commands as queue;
use crate::store::StoreError;
use crate::subject::Verb;
use crate::system;
use crate::worker::commands::configure::Change;
use crate::worker::commands::{configure, exchange, refresh, revoke};
use crate::worker::context::Context;
use crate::worker::job::Job;
use crate::worker::rpc::status::Failure;

/// Interval of progress reports to the server. Two of them fit into the ack wait of 5 s, so that one may be late.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// Deliveries after which a permanent failure ends its command. More than one, because a server that is restoring a
/// stream refuses for a while.
const PERMANENT_FAILURE_DELIVERIES: i64 = 3;
/// Pause before a given-up command is delivered again, if its dead letter could not be stored.
const DEAD_LETTER_RETRY: Duration = Duration::from_secs(1);

/// Handles one delivery.
pub(super) async fn process(context: &Context, message: Message) {
    let delivered = message.info().map_or(1, |info| info.delivered);
    let (job, work) = match Job::parse(&context.store.keyring, &message, context.config.events.client_address) {
        Ok(parsed) => parsed,
        Err(error) => return reject(context, &message, None, &error.to_string()).await,
    };
    if delivered > 1 {
        context.measures.redelivered.inc();
    }
    context.measures.running.inc();
    let span = job.span(delivered);
    async {
        let outcome = tokio::select! {
            outcome = run(context, &job, work, delivered) => outcome,
            never = report_progress(&message) => match never {},
        };
        conclude(context, &message, &job, outcome).await;
    }
    .instrument(span)
    .await;
    context.measures.running.dec();
}

async fn run(context: &Context, job: &Job, work: Work, delivered: i64) -> Outcome {
    if delivered > MAX_DELIVERIES {
        return Outcome::Reject("delivered too often".to_owned());
    }
    let done = match work {
        Work::Exchange { query, cookies, credential } => {
            let callback = exchange::Callback { query: &query, credential: credential.as_ref(), cookies: &cookies };
            exchange::run(context, job, &callback).await
        }
        Work::Refresh { .. } | Work::Revoke { .. } if !job.from_worker => {
            return Outcome::Reject("only workers may send this".to_owned());
        }
        Work::Refresh { actor, sequence, slot_reserved } => {
            refresh::run(context, job, &refresh::Trigger { actor, sequence, slot_reserved }).await
        }
        Work::Revoke { actor, login_id, keep_grant } => {
            let deletion = revoke::Deletion { actor: &actor, login_id: &login_id, keep_grant };
            revoke::run(context, job, &deletion).await
        }
        Work::Put { credential, config } => configure::run(context, job, &credential, Change::Put(&config)).await,
        Work::Delete { credential } => configure::run(context, job, &credential, Change::Delete).await,
    };
    match done {
        Ok(reply) => Outcome::Done(reply),
        Err(StoreError::DeliveryLost) => Outcome::DeliveryLost,
        Err(error) if error.is_permanent_for_command() && delivered >= PERMANENT_FAILURE_DELIVERIES => {
            Outcome::Reject(error.to_string())
        }
        Err(error) => Outcome::Retry(backoff(delivered, system::random_share()), error.to_string()),
    }
}

async fn conclude(context: &Context, message: &Message, job: &Job, outcome: Outcome) {
    let nats = &context.nats;
    match outcome {
        Outcome::Done(reply) => {
            info!(status = reply.status, "done");
            // 1. Send the answer. Durable: nothing new. A crash after this: the command is delivered again, the verb
            //    finds its work done, and answers once more. A caller that did not receive the first answer still waits
            //    for this one.
            job.answer(nats, &reply).await;
            fail_point!("delivery_1_answered");
            // 2. Ack. Durable: the queue has forgotten the command, and its subject is free for the next one. A crash
            //    after this changes nothing.
            confirm(nats, message, AckKind::Ack).await;
            fail_point!("delivery_2_acked");
        }
        Outcome::DeliveryLost => warn!("this delivery took too long; another worker has the command"),
        // A crash before the server has this nak: it delivers the command again after the ack wait.
        Outcome::Retry(delay, reason) => {
            warn!("put back for {delay:?}: {reason}");
            confirm(nats, message, AckKind::Nak(Some(delay))).await;
        }
        Outcome::Reject(reason) => reject(context, message, Some(job), &reason).await,
    }
}

/// Gives a command up. Stores the dead letter first and ends the command last: after a crash in between, the command is
/// delivered and given up again, and its dead letter is stored once.
async fn reject(context: &Context, message: &Message, job: Option<&Job>, reason: &str) {
    let nats = &context.nats;
    error!(subject = %message.subject, "command given up: {reason}");
    let stored = async {
        if let Some(job) = job.filter(|job| job.subject.verb == Verb::Refresh && job.from_worker) {
            refresh::reschedule_given_up(context, job).await?;
        }
        Ok(queue::dead_letter(nats, message, job.map(|job| job.id.as_str()), reason, context.clock.now()).await?)
    };
    if let Err(error) = stored.await as Result<(), StoreError> {
        warn!("no dead letter could be stored: {error}; the command stays on the queue");
        return confirm(nats, message, AckKind::Nak(Some(DEAD_LETTER_RETRY))).await;
    }
    if let Some(job) = job {
        let text = "the command was given up; an operator finds it with `tokenbus dead list`";
        job.answer(nats, &Failure::GivenUp.answer(text)).await;
    }
    confirm(nats, message, AckKind::Term).await;
}

async fn confirm(nats: &Nats, message: &Message, kind: AckKind) {
    if let Err(error) = queue::confirm(nats, message, kind).await {
        warn!("ack not confirmed: {error}; the command may be delivered again");
    }
}

async fn report_progress(message: &Message) -> Infallible {
    loop {
        tokio::time::sleep(PROGRESS_INTERVAL).await;
        if let Err(error) = message.ack_with(AckKind::Progress).await {
            warn!("cannot report that the command is in progress: {error}");
        }
    }
}
