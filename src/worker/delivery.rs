//! One delivery of a command, from the message to its one confirmed ack.
//!
//! - A worker reports progress on its command every [`PROGRESS_INTERVAL`]. When it falls silent for
//!   [`ACK_WAIT`](crate::protocol::topology::ACK_WAIT), the server delivers the command again, to any worker. The silent
//!   worker finds its [`Lease`] lost when it continues, and leaves the command alone.
//! - Consumers have no `max_deliver`: a message that the server has given up stays on the work queue and blocks its
//!   subject. Workers count deliveries instead, and end a command after [`MAX_DELIVERIES`] of them with a dead letter.
//! - A command whose record is stored is never given up.
//! - Every message ends in exactly one confirmed ack, even one that cannot be read. The one exception is
//!   [`Outcome::DeliveryLost`]: another worker has the command, and an ack would take it from that worker.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use fail::fail_point;
use tracing::{Instrument as _, error, info, warn};

use crate::command::Work;
use crate::jetstream::pull::Pulled;
use crate::outcome::{MAX_DELIVERIES, Outcome, backoff};
use crate::protocol::{commands as queue, records};
use crate::store::StoreError;
use crate::subject::{CommandSubject, Verb, config_subject};
use crate::system;
use crate::worker::commands::configure::Change;
use crate::worker::commands::{configure, exchange, refresh, revoke};
use crate::worker::context::{Context, Share};
use crate::worker::copies::{self, IS_COPY};
use crate::worker::job::Job;
use crate::worker::lease::Lease;
use crate::worker::rpc::status::Failure;

/// Interval of progress reports to the server. After one without an answer, which takes 1.5 s to notice, a second one fits
/// into the ack wait of 5 s.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// Pause after a progress report without an answer.
const PROGRESS_RETRY: Duration = Duration::from_millis(250);
/// Deliveries after which a permanent failure ends its command. More than one, because a server that is restoring a
/// stream refuses for a while.
const PERMANENT_FAILURE_DELIVERIES: i64 = 3;
/// Pause before a given-up command is delivered again, if its dead letter could not be stored.
const DEAD_LETTER_RETRY: Duration = Duration::from_secs(1);

/// Part of the gateway's deadline that is left for the answer to travel. The call `delete` keeps 1 s
/// (`worker/rpc/change.rs`), so that a 503 of its command arrives first.
const ANSWER_TRAVEL: Duration = Duration::from_secs(2);
/// Wait before another try of a callback or deletion that found no share.
const SHARE_RETRY: Duration = Duration::from_secs(2);

/// Handles one delivery. `since` is a time before the server delivered the command.
pub(super) async fn process(context: &Context, pulled: Pulled, since: Instant) {
    // A delivery from before a restart is handled differently. Returning leaves the command to its next delivery.
    if !context.restarts.knows_soon(&pulled.server_id).await {
        return;
    }
    let (job, work) = match Job::parse(context, &pulled, Lease::since(since)) {
        Ok(parsed) => parsed,
        Err(error) => return reject(context, &pulled, None, &error.to_string()).await,
    };
    if job.is_redelivery() {
        context.measures.redelivered.inc();
    }
    context.measures.running.inc();
    let span = job.span();
    async {
        let outcome = tokio::select! {
            outcome = run_with_permit(context, &job, work) => outcome,
            never = report_progress(context, &pulled, &job.lease) => match never {},
        };
        job.share.end();
        conclude(context, &pulled, &job, outcome).await;
    }
    .instrument(span)
    .instrument(job.trace())
    .await;
    context.measures.running.dec();
}

/// Runs a command that a caller waits for with a permit of the calls. The others are few at a time: the refresh limiter spreads
/// what is due.
async fn run_with_permit(context: &Context, job: &Job, work: Work) -> Outcome {
    if !job.has_caller() || matches!(job.subject.verb, Verb::Put | Verb::Delete) {
        return Box::pin(run(context, job, work)).await;
    }
    let permit = context.limits.command_calls.permit_for_command(job.subject.account.as_str()).await;
    let permit = job.permit.get_or_init(|| permit);
    let outcome = permit.bound(Box::pin(run(context, job, work))).await;
    permit.release();
    outcome
}

async fn run(context: &Context, job: &Job, work: Work) -> Outcome {
    let delivered = job.delivered;
    if delivered > MAX_DELIVERIES && !has_record(context, job).await {
        return Outcome::Reject("delivered too often".to_owned());
    }
    let is_unsent = matches!(work, Work::Refresh { .. })
        && context.limits.unsent.begin(&job.id, delivered)
        && !job.is_before_restart;
    match job.persist(|| async { Ok(copies::is_copy(context, job, &work).await?) }).await {
        Ok(false) => {}
        Ok(true) => return Outcome::RejectCopy,
        Err(error) => return Outcome::Retry(backoff(delivered, system::random_share()), error.to_string()),
    }
    let _waits = match share(context, job).await {
        Ok(share) => share,
        Err(outcome) => return outcome,
    };
    let done = match work {
        Work::Exchange { query, cookies, credential } => {
            let callback = exchange::Callback { query: &query, credential: credential.as_ref(), cookies: &cookies };
            Box::pin(exchange::run(context, job, &callback)).await
        }
        Work::Refresh { .. } | Work::Revoke { .. } if !job.from_worker => {
            return Outcome::Reject("only workers may send this".to_owned());
        }
        Work::Refresh { actor, sequence, slot_reserved } => {
            let trigger = refresh::Trigger { actor, sequence, slot_reserved, is_unsent };
            Box::pin(refresh::run(context, job, &trigger)).await
        }
        Work::Revoke { actor, login_id, keep_grant, even_if_shared } => {
            let deletion = revoke::Deletion { actor: &actor, login_id: &login_id, keep_grant, even_if_shared };
            Box::pin(revoke::run(context, job, &deletion)).await
        }
        Work::Put { credential, config } => configure::run(context, job, &credential, Change::Put(&config)).await,
        Work::Delete { credential } => configure::run(context, job, &credential, Change::Delete).await,
    };
    if job.lease.check().is_err() {
        return Outcome::DeliveryLost;
    }
    match done {
        Ok(reply) => Outcome::Done(reply),
        Err(StoreError::DeliveryLost) => Outcome::DeliveryLost,
        Err(error)
            if error.is_permanent_for_command()
                && delivered >= PERMANENT_FAILURE_DELIVERIES
                && !has_record(context, job).await =>
        {
            Outcome::Reject(error.to_string())
        }
        Err(error) => Outcome::Retry(backoff(delivered, system::random_share()), error.to_string()),
    }
}

/// Waits until a callback or deletion may run, at most until its caller's deadline, and returns its share of the memory. If it may
/// not run by then, its first delivery ends with a 503: nothing is done yet, so the same request may come again. Later deliveries,
/// whose work an earlier one may have begun, and commands without a caller go back to the queue.
async fn share(context: &Context, job: &Job) -> Result<Option<Share>, Outcome> {
    let CommandSubject { account, integration, verb, .. } = &job.subject;
    if !matches!(verb, Verb::Exchange | Verb::Revoke) {
        return Ok(None);
    }
    let (shares, deadline) = (&context.limits.shares, context.config.http.deadline);
    let is_first = job.has_caller() && !job.is_redelivery();
    let passed = if is_first { job.age(context.clock.now()) } else { Duration::ZERO };
    let patience = deadline.saturating_sub(ANSWER_TRAVEL).max(deadline / 4).saturating_sub(passed);
    if let Some(waits) = shares.enter(account, integration)
        && let Ok(runs) = tokio::time::timeout(patience, shares.run(account, integration, *verb)).await
    {
        job.share.begin(runs);
        // It was returned after 250 ms of waiting.
        job.permit.get().inspect(|permit| permit.retake());
        return Ok(Some(waits));
    }
    if !is_first {
        let pause = backoff(job.delivered, system::random_share()).max(SHARE_RETRY);
        return Err(Outcome::Retry(pause, "too many commands of its integration or account are running".to_owned()));
    }
    let text = "too many logins and deletions of this integration or account are in progress; try again";
    Err(Outcome::Done(Failure::Busy.answer_after(text, SHARE_RETRY)))
}

/// Returns true if the command's record is the newest, or if that is not known: such a command is never given up, because its
/// KV entry, event or schedule may be missing.
async fn has_record(context: &Context, job: &Job) -> bool {
    let subject = job.subject.key().map_or_else(|| config_subject(&job.subject.integration), |key| key.subject());
    match records::last(&context.nats, &subject).await {
        Ok(newest) => newest.is_some_and(|record| records::was_written_by(&record, &job.id)),
        Err(error) => {
            warn!("cannot look for the command's record: {error}; the command stays on the queue");
            true
        }
    }
}

async fn conclude(context: &Context, pulled: &Pulled, job: &Job, outcome: Outcome) {
    let nats = &context.nats;
    match outcome {
        Outcome::Done(reply) => {
            info!(status = reply.status, "done");
            // 1. Send the answer, unless it was sent when KV was written. Durable: nothing new. A crash after this: the
            //    command is delivered again, the verb finds its work done, and answers once more. A caller that did not
            //    receive the first answer still waits for this one.
            job.answer(nats, &reply).await;
            fail_point!("delivery_1_answered");
            // 2. Ack. Durable: the queue has forgotten the command, and its subject is free for the next one. A crash
            //    after this changes nothing.
            confirm(context, pulled, AckKind::Ack).await;
            context.limits.unsent.end(&job.id);
            fail_point!("delivery_2_acked");
        }
        Outcome::DeliveryLost => warn!("this delivery took too long; another worker has the command"),
        // A crash before the server has this nak: it delivers the command again after the ack wait.
        Outcome::Retry(delay, reason) => {
            warn!("put back for {} ms: {reason}", delay.as_millis());
            confirm(context, pulled, AckKind::Nak(Some(delay))).await;
        }
        Outcome::Reject(reason) => reject(context, pulled, Some(job), &reason).await,
        Outcome::RejectCopy => {
            job.answer(nats, &Failure::BadRequest.answer(IS_COPY)).await;
            reject(context, pulled, None, IS_COPY).await;
        }
    }
}

/// Abandons a command: `job`, unless it is unreadable or a copy. Stores the dead letter first and ends the command
/// last: after a crash in between, the command is delivered and abandoned again, and its dead letter is stored once.
async fn reject(context: &Context, pulled: &Pulled, job: Option<&Job>, reason: &str) {
    let (nats, message) = (&context.nats, &pulled.message);
    error!(subject = %message.subject, "command given up: {reason}");
    let stored = async {
        if let Some(job) = job.filter(|job| job.subject.verb == Verb::Refresh && job.from_worker) {
            refresh::reschedule_given_up(context, job).await?;
        }
        Ok(queue::dead_letter(nats, message, job.map(|job| job.id.as_str()), reason, context.clock.now()).await?)
    };
    if let Err(error) = stored.await as Result<(), StoreError> {
        warn!("no dead letter could be stored: {error}; the command stays on the queue");
        return confirm(context, pulled, AckKind::Nak(Some(DEAD_LETTER_RETRY))).await;
    }
    if let Some(job) = job {
        let text = "the command was given up; an operator finds it with `tokenbus dead list`";
        job.answer(nats, &Failure::GivenUp.answer(text)).await;
    }
    confirm(context, pulled, AckKind::Term).await;
}

async fn confirm(context: &Context, pulled: &Pulled, kind: AckKind) {
    let Pulled { message, server_id } = pulled;
    if context.restarts.is_gone(&context.nats, server_id) {
        // The server may have given the command's sequence to another one, which an ack would remove.
        return info!("the server was restarted; it delivers the command again if it still has it");
    }
    if let Err(error) = queue::confirm(&context.nats, message, kind).await {
        warn!("ack not confirmed: {error}; the command may be delivered again");
    }
}

async fn report_progress(context: &Context, pulled: &Pulled, lease: &Lease) -> Infallible {
    let (nats, Pulled { message, server_id }) = (&context.nats, pulled);
    let mut pause = PROGRESS_INTERVAL;
    loop {
        tokio::time::sleep(pause).await;
        if context.restarts.is_gone(nats, server_id) {
            lease.lose();
        }
        if !lease.is_held() {
            std::future::pending::<()>().await;
        }
        let sent = Instant::now();
        pause = match queue::confirm(nats, message, AckKind::Progress).await {
            Ok(()) => {
                lease.renew(sent);
                PROGRESS_INTERVAL
            }
            Err(error) => {
                warn!("cannot report that the command is in progress: {error}");
                PROGRESS_RETRY
            }
        };
    }
}
