//! Tokens that arrive after their connection was deleted, or was replaced by a login of another account.
//!
//! The deletion knew only the tokens of the earlier record, so the command that received the new ones asks the provider to
//! revoke them. If the provider does not, the tombstone keeps them for the deletion's further tries; after a login of another
//! account nothing keeps them, and the log says so. After a crash before the tombstone holds them, they stay valid at the
//! provider until they expire.

use async_nats::jetstream::message::StreamMessage;
use tracing::{info, warn};

use crate::command::HEADER_STATUS;
use crate::connection::{Status, StoredConnection};
use crate::jetstream::header;
use crate::protocol::records;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::worker::apply::{self, Recorded, Tombstone};
use crate::worker::context::Context;
use crate::worker::job::Job;
use crate::worker::provider_calls::revocation::RevocationOutcome;

/// Revokes the new tokens in two cases: the newest record is a tombstone whose deletion does not keep the grant, or it has
/// another identity.
pub(super) async fn revoke(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    new: &StoredConnection,
) -> Result<(), StoreError> {
    let newest = records::last(&context.nats, &key.subject()).await?;
    let is_tombstone = |record: &StreamMessage| header(&record.headers, HEADER_STATUS) == Status::Revoked.as_str();
    let Some(tombstone) = newest.as_ref().filter(|record| is_tombstone(record)) else {
        return revoke_if_other_identity(context, job, key, new, newest.as_ref()).await;
    };
    let deletion = context.store.event_of(&key.subject(), tombstone)?;
    if deletion.is_some_and(|event| event.reason.as_deref() == Some(RevocationOutcome::NotWanted.as_str())) {
        info!("the connection was deleted meanwhile, and its grant is to be kept");
        return Ok(());
    }
    let tokens = context.store.tokens_to_revoke(new, context.clock.now());
    let outcome = job.provider_calls(context).revoke_unstored(key, &tokens).await?.outcome;
    info!(
        outcome = outcome.as_str(),
        "the connection was deleted meanwhile; asked the provider to revoke the new tokens"
    );
    let tokens = tokens.without_large();
    if !outcome.allows_retry() || !tokens.has_token() {
        return Ok(());
    }
    let deleted = context.store.connection_of(key, tombstone)?;
    let is_other_grant = deleted.login_id != new.login_id;
    if is_other_grant && context.store.waiting_revocation(key, tombstone)?.is_some() {
        warn!("the tombstone waits for another grant's revocation; the new tokens stay valid until they expire");
        return Ok(());
    }
    let kept = Tombstone { name: records::OUTCOME, waiting: Some(&tokens), event: None, replaces: Some(tombstone) };
    if let Recorded::Newest(tombstone) = apply::write_tombstone(context, job, key, deleted.clone(), kept).await? {
        apply::schedule_by_record(context, key, &tombstone, &deleted).await?;
    }
    Ok(())
}

/// Revokes the new tokens if a login with another identity has made the newest record. Tokens of the same identity stay: many
/// providers end all its grants when one of them is revoked.
async fn revoke_if_other_identity(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    new: &StoredConnection,
    newest: Option<&StreamMessage>,
) -> Result<(), StoreError> {
    let Some(newest) = newest else { return Ok(()) };
    if context.store.connection_of(key, newest)?.has_identity_of(new) == Some(false) {
        let tokens = context.store.tokens_to_revoke(new, context.clock.now());
        let outcome = job.provider_calls(context).revoke_unstored(key, &tokens).await?.outcome;
        info!(outcome = outcome.as_str(), "a login with another identity was first; asked to revoke the new tokens");
    }
    Ok(())
}
