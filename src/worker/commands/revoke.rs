//! `revoke`: deletes a connection here, and asks its provider to revoke the tokens (RFC 7009).
//!
//! - The connection is deleted here even if the provider refuses.
//! - The deletion comes first: a refresh that runs at the same time then cannot store its new tokens.
//! - The tombstone holds the tokens, sealed, until the provider has revoked them or `revoke.give_up_after` has passed. A
//!   schedule makes each further try: it sends the same deletion again. A login under the same name ends the tries.
//! - The numbered steps say what is durable after them and what a crash leads to. An error that a step returns has the
//!   same effect: the command is put back and delivered again.

use async_nats::jetstream::message::StreamMessage;
use fail::fail_point;
use serde_json::json;
use tracing::{info, warn};

use crate::command::{HEADER_STATUS, WorkerReply};
use crate::connection::{Status, StoredConnection, WaitingRevocation};
use crate::event::{Event, EventDetails, EventKind, SCHEDULE_ACTOR};
use crate::jetstream::header;
use crate::protocol::records;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::worker::apply::{self, Applied, RECORD_TRIES, Recorded, Tombstone};
use crate::worker::context::Context;
use crate::worker::job::Job;
use crate::worker::left_out;
use crate::worker::provider_calls::revocation::{RevocationOutcome, RevocationResult};
use crate::worker::rpc::status::Failure;

pub(in crate::worker) struct Deletion<'a> {
    pub(in crate::worker) actor: &'a str,
    /// Id of the command that created the connection. A connection that a later login created is left alone.
    pub(in crate::worker) login_id: &'a str,
    /// True to leave the grant at the provider alone.
    pub(in crate::worker) keep_grant: bool,
    /// True to revoke the grant also if another connection shares it.
    pub(in crate::worker) even_if_shared: bool,
}

pub(in crate::worker) async fn run(
    context: &Context,
    job: &Job,
    deletion: &Deletion<'_>,
) -> Result<WorkerReply, StoreError> {
    let Some(key) = job.subject.key() else { return Ok(Failure::BadRequest.answer("no connection in the subject")) };
    for _ in 0..RECORD_TRIES {
        // 1. Find the connection, or a deletion that is not done. Durable: nothing new; KV may catch up with the
        //    record. A crash after this: the next worker starts over.
        let found = find(context, job, &key, deletion.login_id).await?;
        fail_point!("revoke_1_connection_found");
        let deleted = match found {
            Found::Settled { tombstone, reason } => {
                let event = event_of(deletion, &reason);
                return Revocation { context, job, key: &key, deletion }.apply(&tombstone, event).await;
            }
            Found::Nothing => {
                return Ok(Failure::NotFound.answer("no connection with that integration_id and connection_id"));
            }
            Found::Deleted(deleted) => *deleted,
            Found::Connection { stored, replaces } => {
                // 2. Write the tombstone, with the tokens. Durable: the connection is deleted; subscribers receive it. A
                //    crash after this: the next worker finds the tombstone and continues with step 3. If this command is
                //    lost, the repair pass does the same.
                let mut tokens = context.store.tokens_to_revoke(&stored, context.clock.now());
                if deletion.even_if_shared {
                    tokens.marks.clear();
                }
                let waiting = tokens.clone().without_large();
                let waiting = Some(&waiting).filter(|waiting| waiting.has_token() && !deletion.keep_grant);
                let first = if deletion.keep_grant { RevocationOutcome::NotWanted } else { RevocationOutcome::Unknown };
                let event = Some(event_of(deletion, first.as_str()));
                let tombstone = Tombstone { name: records::RECORD, waiting, event, replaces: replaces.as_ref() };
                match apply::write_tombstone(context, job, &key, stored.deleted(), tombstone).await? {
                    Recorded::Newest(tombstone) => Deleted { tombstone, tokens: Some(tokens) },
                    // A refresh was first: try again with its record.
                    Recorded::Superseded => continue,
                }
            }
        };
        fail_point!("revoke_2_tombstone_written");
        return Revocation { context, job, key: &key, deletion }.run(deleted).await;
    }
    Ok(Failure::Superseded.answer("the connection changed several times while it was being deleted; try again"))
}

struct Revocation<'a> {
    context: &'a Context,
    job: &'a Job,
    key: &'a ConnectionKey,
    deletion: &'a Deletion<'a>,
}

impl Revocation<'_> {
    async fn run(&self, deleted: Deleted) -> Result<WorkerReply, StoreError> {
        let Self { context, job, key, deletion } = self;
        let Deleted { tombstone, tokens } = deleted;
        // Another delivery may have asked the provider, and a newer login may have begun since. Many providers end all
        // grants of a person when one of them is revoked.
        job.lease.check()?;

        if tokens.as_ref().is_some_and(|tokens| !tokens.marks.is_empty()) {
            // Of two connections that share a grant and are deleted at once, each must find the other's entry gone: otherwise
            // neither deletion revokes it.
            context.store.delete_connection(key, tombstone.sequence).await?;
        }

        // 3. Ask the provider to revoke the tokens. Durable: nothing here; at the provider they are revoked. A crash
        //    after this: as after step 2. The provider is asked once more.
        let RevocationResult { outcome, answer } = match &tokens {
            _ if deletion.keep_grant => RevocationOutcome::NotWanted.into(),
            Some(tokens) => job.provider_calls(context).revoke(key, tokens).await?,
            None => RevocationOutcome::Unknown.into(),
        };
        job.share.end();
        fail_point!("revoke_3_provider_asked");
        job.lease.check()?;

        // 4. Remove the tokens from the tombstone, unless the provider has to be asked again. Durable: a tombstone
        //    without tokens and with the outcome. A crash after this: the next worker finds it and continues with step 5.
        let (outcome, waiting) = self.remaining(outcome, tokens);
        let event = EventDetails { provider: answer.as_ref(), ..event_of(deletion, outcome.as_str()) };
        let Some(tombstone) = self.settle(tombstone, event, waiting.as_ref()).await? else {
            return self.replaced(event).await;
        };
        fail_point!("revoke_4_outcome_stored");

        // 5. Apply the tombstone: KV, event, and the schedule of the next try (the steps of `worker/apply.rs`). Durable:
        //    all three. A crash in it or after it: the next worker finds the tombstone and repeats this step without
        //    effect. If the provider has to be asked again, it asks first.
        if deletion.actor == SCHEDULE_ACTOR && waiting.is_some() {
            // The deletion has its event, and the last try will have one.
            let deleted = context.store.connection_of(key, &tombstone)?;
            apply::schedule_by_record(context, key, &tombstone, &deleted).await?;
            return Ok(success());
        }
        let reply = self.apply(&tombstone, event).await?;
        fail_point!("revoke_5_tombstone_applied");
        Ok(reply)
    }

    async fn apply(&self, tombstone: &StreamMessage, event: EventDetails<'_>) -> Result<WorkerReply, StoreError> {
        let Self { context, job, key, .. } = self;
        let applied = Applied { record: tombstone, event, entry: None };
        Box::pin(apply::apply_record(context, job, key, applied, |_| Ok(success()))).await
    }

    /// Returns the outcome, and the tokens to revoke at a later try.
    fn remaining(
        &self,
        outcome: RevocationOutcome,
        tokens: Option<WaitingRevocation>,
    ) -> (RevocationOutcome, Option<WaitingRevocation>) {
        let Some(waiting) = tokens.map(WaitingRevocation::without_large).filter(WaitingRevocation::has_token) else {
            return (outcome, None);
        };
        let reason = outcome.as_str();
        if !outcome.allows_retry() {
            info!(outcome = reason, "the deleted connection's revocation is done");
            return (outcome, None);
        }
        if waiting.age(self.context.clock.now()) >= self.context.config.revoke.give_up_after {
            warn!(reason, "the provider did not revoke the deleted connection's tokens in time; gave up");
            return (RevocationOutcome::GivenUp, None);
        }
        warn!(reason, "the provider did not revoke the deleted connection's tokens; trying again later");
        (outcome, Some(waiting))
    }

    /// Makes the tombstone hold the tokens of a later try, or none. Returns the newest tombstone, or `None` if a login has
    /// replaced it.
    async fn settle(
        &self,
        tombstone: StreamMessage,
        event: EventDetails<'_>,
        waiting: Option<&WaitingRevocation>,
    ) -> Result<Option<StreamMessage>, StoreError> {
        let Self { context, job, key, .. } = self;
        let has_tokens = context.store.waiting_revocation(key, &tombstone)?.is_some();
        if has_tokens == waiting.is_some() {
            return Ok(Some(tombstone));
        }
        let deleted = context.store.connection_of(key, &tombstone)?;
        let settled = Tombstone { name: records::OUTCOME, waiting, event: Some(event), replaces: Some(&tombstone) };
        Ok(match apply::write_tombstone(context, job, key, deleted, settled).await? {
            Recorded::Newest(tombstone) => Some(tombstone),
            Recorded::Superseded => None,
        })
    }

    /// Ends a deletion whose tombstone was replaced: by a login, or by a command that brought tokens after it. The login may
    /// have published the deletion's event, so this one has a message id of its own.
    async fn replaced(&self, details: EventDetails<'_>) -> Result<WorkerReply, StoreError> {
        let Self { context, job, key, .. } = self;
        let EventDetails { kind, actor, reason, provider } = details;
        let event = Event { reason, provider, ..Event::about(&job.subject, kind, actor, context.clock.now()) };
        let cause = format!("{}.{}", job.id, records::OUTCOME);
        context.publish_event(&job.subject.account, &event, Some(&cause)).await?;
        if let Some(deleted) = context.store.tombstone(key).await? {
            context.store.delete_connection(key, deleted).await?;
        }
        Ok(success())
    }
}

fn event_of<'a>(deletion: &Deletion<'a>, reason: &'a str) -> EventDetails<'a> {
    EventDetails::new(EventKind::Revoked, deletion.actor, Some(reason))
}

pub(in crate::worker) fn success() -> WorkerReply {
    WorkerReply::ok(json!({ "message": "success" }))
}

enum Found {
    /// No connection of this login.
    Nothing,
    Connection {
        stored: Box<StoredConnection>,
        replaces: Option<StreamMessage>,
    },
    Deleted(Box<Deleted>),
    /// This command's tombstone, with the outcome.
    Settled {
        tombstone: StreamMessage,
        reason: String,
    },
}

struct Deleted {
    tombstone: StreamMessage,
    /// The tokens to revoke; `None` if the provider needs no further request.
    tokens: Option<WaitingRevocation>,
}

async fn find(context: &Context, job: &Job, key: &ConnectionKey, login_id: &str) -> Result<Found, StoreError> {
    let newest = records::last(&context.nats, &key.subject()).await?;
    let is_this_login = |stored: &StoredConnection| stored.login_id == login_id;
    if let Some(record) = &newest {
        let is_own = records::was_written_by(record, &job.id);
        if is_own || header(&record.headers, HEADER_STATUS) == Status::Revoked.as_str() {
            let deleted = context.store.connection_of(key, record)?;
            if !is_own {
                left_out::of_deletion(context, job, key, record).await?;
            } else if let Some(reason) = outcome_of(context, key, record)? {
                return Ok(Found::Settled { tombstone: record.clone(), reason });
            }
            let mut tokens =
                context.store.waiting_revocation(key, record)?.filter(|_| is_own || is_this_login(&deleted));
            if tokens.is_none() {
                // A token too large for the tombstone, or a tombstone of a release that left the tokens in KV.
                let stored = context.store.stored_connection(key).await?.filter(is_this_login);
                tokens = stored.map(|stored| context.store.tokens_to_revoke(&stored, apply::time_of(record)));
            }
            if is_own || tokens.is_some() {
                return Ok(Found::Deleted(Box::new(Deleted { tombstone: record.clone(), tokens })));
            }
        }
    }
    let stored = apply::read(context, key, newest.as_ref()).await?.map(|found| found.stored).filter(is_this_login);
    if stored.is_some() {
        left_out::of_connection(context, job, key, newest.as_ref()).await?;
    }
    Ok(stored.map_or(Found::Nothing, |stored| Found::Connection { stored: Box::new(stored), replaces: newest }))
}

/// Returns the outcome that a tombstone holds, if the provider need not be asked again.
fn outcome_of(context: &Context, key: &ConnectionKey, tombstone: &StreamMessage) -> Result<Option<String>, StoreError> {
    if context.store.waiting_revocation(key, tombstone)?.is_some() {
        return Ok(None);
    }
    let event = context.store.event_of(&key.subject(), tombstone)?;
    let reason = event.and_then(|event| event.reason);
    Ok(reason.filter(|reason| reason != RevocationOutcome::Unknown.as_str()))
}
