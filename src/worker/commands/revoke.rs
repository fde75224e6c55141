//! `revoke`: a connection is revoked at the provider (RFC 7009), as far as it lets us, and deleted here in any case.

use async_nats::jetstream::message::StreamMessage;
use fail::fail_point;
use serde_json::json;
use tracing::warn;

use crate::command::{HEADER_STATUS, WorkerReply};
use crate::connection::{NO_CONFIG, OauthConnection, Status};
use crate::event::EventKind;
use crate::integration::{IntegrationOauthConfig, IssuedAt};
use crate::jetstream::header;
use crate::oauth::token::{self, ClientAuthentication, Revocation, TokenTypeHint};
use crate::protocol::records;
use crate::store::StoreError;
use crate::subject::ConnectionKey;
use crate::system;
use crate::worker::apply;
use crate::worker::commands::refresh::current;
use crate::worker::context::Context;
use crate::worker::job::Job;
use crate::worker::rpc::status::Failure;

/// The outcome when a worker died behind the last place where the tokens were kept: the provider was told, but what it
/// said is not known.
const INTERRUPTED: &str = "revocation_unknown";
/// The outcome when the config cannot be opened: that keeps no connection alive here.
const UNREADABLE: &str = "config_unreadable";
/// The outcome that one hopes for.
const REVOKED: &str = "revoked_at_provider";
/// Tries to be first while refreshes write the same record.
const TRIES: u32 = 8;

pub(in crate::worker) async fn run(
    context: &Context,
    job: &Job,
    actor: &str,
    login_id: &str,
) -> Result<WorkerReply, StoreError> {
    let Some(key) = job.subject.key() else { return Ok(Failure::BadRequest.answer("no connection in the subject")) };
    for _ in 0..TRIES {
        let newest = records::last(&context.nats, &key.subject()).await?;
        if let Some(record) = newest.as_ref()
            && let Some(outcome) = once_more(context, job, &key, record, login_id).await?
        {
            apply::settle(context, job, &key, record, (EventKind::Revoked, actor, Some(outcome))).await?;
            return Ok(done());
        }
        let stored = current(context, &key, newest.as_ref()).await?;
        let Some(stored) = stored.filter(|stored| stored.login_id == login_id) else {
            return Ok(Failure::NotFound.answer("no connection with that integration_id and connection_id"));
        };
        // Deleted here first: a refresh that runs beside this can then no longer store what it gets.
        let mut revoked = stored.clone();
        revoked.connection = revoked.connection.without_tokens(Status::Revoked, None);
        let replaces = newest.map_or(0, |record| record.sequence);
        let Some(record) = apply::write(context, job, &key, revoked, replaces).await? else { continue };
        fail_point!("after_revocation");
        let outcome = tell_provider(context, &key, &stored.connection, &stored.issued_at).await?;
        apply::settle(context, job, &key, &record, (EventKind::Revoked, actor, Some(outcome))).await?;
        return Ok(done());
    }
    Ok(Failure::Superseded.answer("the connection keeps changing while it is being deleted; try again"))
}

/// What the provider says when the newest record is a deletion that was cut short, this command's or another one's: until
/// the bucket is settled it has the tokens, and nobody knows whether they were sent. Nothing when there is none.
async fn once_more(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    newest: &StreamMessage,
    login_id: &str,
) -> Result<Option<&'static str>, StoreError> {
    let is_ours = records::is_work_of(newest, &job.id);
    if !is_ours && header(&newest.headers, HEADER_STATUS) != Status::Revoked.as_str() {
        return Ok(None);
    }
    let stored = context.store.stored_connection(key).await?;
    match stored.filter(|stored| stored.login_id == login_id) {
        Some(stored) => tell_provider(context, key, &stored.connection, &stored.issued_at).await.map(Some),
        None => Ok(is_ours.then_some(INTERRUPTED)),
    }
}

fn done() -> WorkerReply {
    WorkerReply::ok(json!({ "message": "success" }))
}

/// Revokes the refresh token, which ends the grant, then the access token, which some providers leave alone otherwise
/// (RFC 7009 §2.1). What the provider makes of it is for the audit log: it keeps no connection alive here.
pub(in crate::worker) async fn tell_provider(
    context: &Context,
    key: &ConnectionKey,
    connection: &OauthConnection,
    issued_at: &IssuedAt,
) -> Result<&'static str, StoreError> {
    let config = match context.store.config(&key.integration).await {
        Ok(Some(config)) => config,
        Ok(None) => return Ok(NO_CONFIG),
        Err(StoreError::Nats(away)) => return Err(away.into()),
        Err(error) => {
            warn!("the provider cannot be asked to revoke the token: {error}");
            return Ok(UNREADABLE);
        }
    };
    let refresh_token = connection.refresh_token.as_ref().map(|token| (token, TokenTypeHint::RefreshToken));
    let access_token = connection.access_token.as_ref().map(|token| (token, TokenTypeHint::AccessToken));
    let mut outcome = "no_token";
    for (token, hint) in refresh_token.into_iter().chain(access_token) {
        let told = revoke(context, &config, &Revocation { token, hint, issued_at }).await;
        if outcome == "no_token" {
            outcome = told;
        }
        // Whoever does not hear the first will not hear the second, and somebody waits.
        if told != REVOKED {
            break;
        }
    }
    Ok(outcome)
}

/// Asks the provider, with each of the client's secrets in turn while the client itself is refused.
async fn revoke(context: &Context, config: &IntegrationOauthConfig, revocation: &Revocation<'_>) -> &'static str {
    for attempt in 0.. {
        let variables = &revocation.issued_at.variables;
        let auth = match ClientAuthentication::of(config, attempt, variables, system::now(), &system::random_id()) {
            Ok(Some(auth)) => auth,
            Ok(None) => break,
            Err(_) => return "config_changed",
        };
        let request = match token::revocation_request(config, revocation, &auth) {
            Ok(Some(request)) => request,
            Ok(None) => return "no_revocation_url",
            Err(_) => return "config_changed",
        };
        match context.provider.send(request).await {
            Ok(answer) if (200..300).contains(&answer.status) => return REVOKED,
            Ok(answer) => {
                warn!(status = answer.status, "the provider did not revoke the token");
                if answer.status != 401 {
                    break;
                }
            }
            Err(error) => {
                warn!("the provider could not be asked to revoke the token: {error}");
                return "provider_unreachable";
            }
        }
    }
    "refused_by_provider"
}
