//! `revoke`: deletes a connection here, and asks its provider to revoke the tokens (RFC 7009).
//!
//! - The connection is deleted here even if the provider refuses.
//! - The deletion comes first: a refresh that runs at the same time then cannot store its new tokens.
//! - The tokens stay in KV until the provider has been asked, so that the next worker can ask it after a crash.
//! - The numbered steps say what is durable after them and what a crash leads to. An error that a step returns has the
//!   same effect: the command is put back and delivered again.

use async_nats::jetstream::message::StreamMessage;
use fail::fail_point;
use serde_json::json;

use crate::command::{HEADER_STATUS, WorkerReply};
use crate::connection::{Status, StoredConnection};
use crate::event::EventKind;
use crate::jetstream::header;
use crate::protocol::records;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::worker::apply::{self, EventDetails, RECORD_TRIES, Recorded};
use crate::worker::context::Context;
use crate::worker::job::Job;
use crate::worker::provider_calls::revocation::{self, RevocationOutcome};
use crate::worker::rpc::status::Failure;

pub(in crate::worker) struct Deletion<'a> {
    pub(in crate::worker) actor: &'a str,
    /// Id of the command that created the connection. A connection that a later login created is left alone.
    pub(in crate::worker) login_id: &'a str,
    /// True to leave the grant at the provider alone.
    pub(in crate::worker) keep_grant: bool,
}

pub(in crate::worker) async fn run(
    context: &Context,
    job: &Job,
    deletion: &Deletion<'_>,
) -> Result<WorkerReply, StoreError> {
    let Some(key) = job.subject.key() else { return Ok(Failure::BadRequest.answer("no connection in the subject")) };
    for _ in 0..RECORD_TRIES {
        // 1. Find the connection, or a deletion that was cut off. Durable: nothing new; KV may catch up with the
        //    record. A crash after this: the next worker starts over.
        let found = find(context, job, &key, deletion.login_id).await?;
        fail_point!("revoke_1_connection_found");
        let (record, stored) = match found {
            Found::Nothing => {
                return Ok(Failure::NotFound.answer("no connection with that integration_id and connection_id"));
            }
            Found::CutOff { tombstone, tokens } => (tombstone, tokens),
            Found::Connection { stored, replaces } => {
                // 2. Write the tombstone. Durable: the connection is deleted; subscribers receive it. A crash after
                //    this: the next worker finds the tombstone, and the tokens in KV, and continues with step 3. So
                //    does the next deletion, if this command is lost.
                let deleted = stored.as_ref().clone().deleted();
                match apply::write_record(context, job, &key, deleted, replaces).await? {
                    Recorded::Newest(record) => (record, Some(stored)),
                    // A refresh was first: try again with its record.
                    Recorded::Superseded => continue,
                }
            }
        };
        fail_point!("revoke_2_tombstone_written");
        // Another delivery may have asked the provider, and a newer login may have begun since. Many providers end all grants of
        // a person when one of them is revoked.
        job.lease.check()?;

        // 3. Ask the provider to revoke the tokens. Durable: nothing here; at the provider they are revoked. A crash
        //    after this: as after step 2. The provider is asked once more.
        let outcome = match &stored {
            _ if deletion.keep_grant => RevocationOutcome::NotWanted,
            Some(stored) => revocation::revoke(context, &key, stored).await?,
            None => RevocationOutcome::Unknown,
        };
        fail_point!("revoke_3_provider_asked");

        // 4. Apply the tombstone: KV, event, no schedule (the steps of `worker/apply.rs`). Durable: all three. A crash
        //    in it or after it: the next worker finds the tombstone with this command's id and no tokens. It repeats
        //    this step without effect; if the event was not published yet, its reason is `revocation_unknown`.
        let details = EventDetails { kind: EventKind::Revoked, actor: deletion.actor, reason: Some(outcome.as_str()) };
        apply::apply_record(context, job, &key, &record, details).await?;
        fail_point!("revoke_4_tombstone_applied");
        return Ok(WorkerReply::ok(json!({ "message": "success" })));
    }
    Ok(Failure::Superseded.answer("the connection changed several times while it was being deleted; try again"))
}

enum Found {
    /// No connection of this login.
    Nothing,
    Connection {
        stored: Box<StoredConnection>,
        /// Sequence of the record to replace.
        replaces: u64,
    },
    /// A worker died after step 2 of this deletion, or of another one. The tokens are missing if it died after it had
    /// removed them from KV.
    CutOff { tombstone: StreamMessage, tokens: Option<Box<StoredConnection>> },
}

async fn find(context: &Context, job: &Job, key: &ConnectionKey, login_id: &str) -> Result<Found, StoreError> {
    let newest = records::last(&context.nats, &key.subject()).await?;
    let is_this_login = |stored: &StoredConnection| stored.login_id == login_id;
    if let Some(record) = &newest {
        let is_own = records::was_written_by(record, &job.id);
        if is_own || header(&record.headers, HEADER_STATUS) == Status::Revoked.as_str() {
            let stored = context.store.stored_connection(key).await?.filter(is_this_login);
            if is_own || stored.is_some() {
                return Ok(Found::CutOff { tombstone: record.clone(), tokens: stored.map(Box::new) });
            }
        }
    }
    let stored = apply::catch_up(context, key, newest.as_ref()).await?.filter(is_this_login);
    let replaces = newest.map_or(0, |record| record.sequence);
    Ok(stored.map_or(Found::Nothing, |stored| Found::Connection { stored: Box::new(stored), replaces }))
}
