//! The identity that a login connects, and the revocation of the grant that it replaces.

use std::collections::BTreeMap;

use async_nats::jetstream::message::StreamMessage;
use serde_json::Value;
use tracing::{info, warn};

use super::{ACTOR, CodeToSend, Exchange, Refusal};
use crate::connection::{Identity, OauthConnection, Status, StoredConnection};
use crate::event::{Event, EventKind};
use crate::integration::{IdentityRule, IntegrationOauthConfig, Reconnect};
use crate::login;
use crate::oauth::ProviderAnswer;
use crate::oauth::id_token::{self, Expected};
use crate::oauth::token::{METADATA, TokenSet, has_large_values, plain_values};
use crate::secret::Secret;
use crate::store::{StoreError, shared_grant};
use crate::subject::ConnectionKey;
use crate::worker::context::Context;
use crate::worker::job::Job;
use crate::worker::provider_calls::facts::{ApiAccess, Facts, Missing};
use crate::worker::provider_calls::revocation::RevocationOutcome;
use crate::worker::rpc::status::Failure;

const IDENTITY: &str = "identity";

impl Exchange<'_> {
    /// Adds to new tokens what the provider's API says about them, and reports what is missing. Never fails: the code is spent,
    /// so an error would cost the tokens.
    pub(super) async fn add_facts(&self, code: &CodeToSend, state: &Secret, tokens: TokenSet) -> NewTokens {
        let CodeToSend { config, issued_at, .. } = code;
        let (mut tokens, upgrade_failed) = self.upgrade(code, tokens).await;
        let calls = self.job.provider_calls(self.context);
        let Facts { identity, metadata, mut missing, has_large_values: mut is_large } =
            calls.facts(&issued_at.requests, access(config, &issued_at.variables, &tokens)).await;
        let facts_missing = !missing.is_empty();
        // With its variables filled in.
        let filled = issued_at.requests.identity.as_ref().and_then(|rule| rule.issuer.clone());
        let issuer = || filled.or_else(|| config.issuer_for(&issued_at.variables));
        if let Some(issuer) = config.id_token_issuer().and_then(|_| issuer()).as_deref() {
            let (nonce, now) = (login::nonce_of(state), self.context.clock.now());
            let expected = Expected { issuer, client_id: &config.client_id, nonce: &nonce, now };
            if let Some(claims) = tokens.id_token.take().and_then(|token| claims_of(&token, &expected)) {
                let identity_of = |rule: &IdentityRule| Identity::read(&claims, &rule.id, rule.label.as_ref());
                tokens.identity = config.identity.as_deref().and_then(identity_of);
                let facts = config.metadata_request.as_ref().filter(|rule| rule.request.is_none());
                is_large |= facts.is_some_and(|rule| has_large_values(&claims, &rule.paths));
                tokens.metadata.extend(facts.map(|rule| plain_values(&claims, &rule.paths)).unwrap_or_default());
            }
        }
        tokens.identity = tokens.identity.take().or(identity).or_else(|| identity_in_callback(code));
        tokens.metadata.extend(metadata);
        if config.identity.is_some() && tokens.identity.is_none() && missing.iter().all(|it| it.field != IDENTITY) {
            missing.insert(0, Missing { field: IDENTITY, answer: None });
        }
        if let Some(Missing { field, answer }) = missing.first() {
            warn!(field, "the connection is stored without {field}, which the provider did not return");
            self.report(EventKind::FactsMissing, field, answer.as_ref()).await;
        }
        if is_large && !tokens.left_out.contains(&METADATA) {
            tokens.left_out.push(METADATA);
        }
        self.job.report_left_out(self.context, ACTOR, &tokens.left_out).await;
        NewTokens { tokens, facts_missing, upgrade_failed }
    }

    /// Exchanges the new access token for a long-lived one, if the config has `upgrade`. Also returns true if that failed.
    async fn upgrade(&self, code: &CodeToSend, tokens: TokenSet) -> (TokenSet, bool) {
        let CodeToSend { config, issued_at, .. } = code;
        let Some(request) = &issued_at.requests.upgrade else { return (tokens, false) };
        let calls = self.job.provider_calls(self.context);
        match calls.upgrade(request, access(config, &issued_at.variables, &tokens)).await {
            Ok(upgraded) => (upgraded.after(tokens), false),
            Err(error) => {
                warn!(
                    reason = error.reason(),
                    "the request `upgrade` failed; the connection keeps the first access token"
                );
                self.report(EventKind::UpgradeFailed, error.reason(), error.answer()).await;
                (tokens, true)
            }
        }
    }

    async fn report(&self, kind: EventKind, reason: &str, provider: Option<&ProviderAnswer>) {
        let mut event = Event::about(&self.job.subject, kind, ACTOR, self.context.clock.now());
        (event.reason, event.provider) = (Some(reason), provider);
        if let Err(error) = self.job.publish_event(self.context, &event).await {
            warn!("cannot publish the event {}: {error}", kind.as_str());
        }
    }

    /// Returns the identity that the login has to have. If that of the connection which the login replaces is not known, the
    /// provider is asked once more with the connection's token. A connection whose login did not ask for an identity can be
    /// replaced by any.
    pub(super) async fn required_identity(
        &self,
        config: &IntegrationOauthConfig,
    ) -> Result<RequiredIdentity, StoreError> {
        let Some(record) = self.replaces.as_ref().filter(|_| config.reconnect == Reconnect::SameIdentity) else {
            return Ok(RequiredIdentity::Any);
        };
        // Its tombstone has expired, and a killed server has brought the record back.
        if self.context.store.was_deleted_after(self.key, record.sequence).await? {
            return Ok(RequiredIdentity::Any);
        }
        let old = match self.context.store.connection_of(self.key, record) {
            Ok(old) => old,
            Err(error) if error.is_junk() => return Ok(RequiredIdentity::Any),
            Err(error) => return Err(error),
        };
        // A tombstone has no requests.
        if old.connection.identity.is_none() && old.issued_at.requests.identity.is_none() {
            return Ok(RequiredIdentity::Any);
        }
        let old = self.job.provider_calls(self.context).add_missing_facts(config, old).await;
        let is_known = old.connection.identity.is_some();
        Ok(if is_known { RequiredIdentity::Of(Box::new(old)) } else { RequiredIdentity::Unknown })
    }

    /// Refuses a login with another identity than the required one. The old connection stays.
    pub(super) async fn refuse_other_identity(
        &self,
        required: &StoredConnection,
        issued: &StoredConnection,
    ) -> Option<Refusal> {
        let refusal = |reason, text| Some(Refusal::new(Failure::BadRequest, reason, text));
        match required.has_identity_of(issued) {
            Some(true) => return None,
            Some(false) => {}
            None => {
                // Nothing is revoked: it may be the grant of the connection that stays.
                let text = if issued.connection.identity.is_none() {
                    "the provider did not say whose account the login is of, and the connection accepts only its own; log \
                     in again later"
                } else {
                    "a changed config no longer shows whether the login is of the same person or workspace at the provider \
                     as the connection; delete the connection, then log in"
                };
                return refusal("identity_unknown", text);
            }
        }
        let tokens = self.context.store.tokens_to_revoke(issued, self.context.clock.now());
        match self.job.provider_calls(self.context).revoke_unstored(self.key, &tokens).await {
            Ok(result) => {
                info!(outcome = result.outcome.as_str(), "revoked the tokens of a login with another identity");
            }
            Err(error) => warn!("cannot revoke the tokens of a login with another identity: {error}"),
        }
        let text = "the connection is of another person or workspace at the provider; log in as that one, or \
                    delete the connection first";
        refusal("identity_mismatch", text)
    }

    /// Returns true if the newest record is a refresh of the connection that this login replaces.
    pub(super) fn is_refresh_of_replaced(&self, newest: Option<&StreamMessage>) -> Result<bool, StoreError> {
        let (Some(replaced), Some(newest)) = (&self.replaces, newest) else { return Ok(false) };
        let store = &self.context.store;
        let (replaced, newest) = match (store.connection_of(self.key, replaced), store.connection_of(self.key, newest))
        {
            // A record that could not be read was of no login.
            (Err(error), _) if error.is_junk() => return Ok(false),
            (replaced, newest) => (replaced?, newest?),
        };
        Ok(replaced.login_id == newest.login_id && newest.connection.status != Status::Revoked)
    }

    /// Asks the provider to revoke the grant of a deleted connection whose tombstone this login's record has replaced, if that
    /// revocation still waited and the grant was of another identity. After a failure, or if the worker dies before, the grant
    /// stays valid at the provider.
    pub(super) async fn revoke_waiting(&self, issued: &StoredConnection) {
        let store = &self.context.store;
        let Some(tombstone) = &self.replaces else { return };
        let Ok(Some(waiting)) = store.waiting_revocation(self.key, tombstone) else { return };
        let own = store.tokens_to_revoke(issued, self.context.clock.now());
        if !shared_grant::are_of_different_grants(&waiting.marks, &own.marks) {
            return;
        }
        match self.job.provider_calls(self.context).revoke(self.key, &waiting).await {
            Ok(result) => {
                if let Err(error) = report_replaced(self.context, self.job, result.outcome).await {
                    warn!("cannot publish the event of a replaced grant: {error}");
                }
            }
            Err(error) => warn!("cannot revoke the grant of the deleted connection that a login replaces: {error}"),
        }
    }
}

fn access<'a>(
    config: &'a IntegrationOauthConfig,
    variables: &'a BTreeMap<String, String>,
    tokens: &'a TokenSet,
) -> ApiAccess<'a> {
    let (access_token, scope) = (&tokens.access_token, tokens.scope.as_deref().unwrap_or_default());
    ApiAccess { config, variables, access_token, scope }
}

/// The identity that a login has to have.
pub(super) enum RequiredIdentity {
    Any,
    /// That of this connection.
    Of(Box<StoredConnection>),
    /// That of the replaced connection, which the provider did not name.
    Unknown,
}

/// New tokens, after the requests for identity and metadata.
pub(super) struct NewTokens {
    pub(super) tokens: TokenSet,
    pub(super) facts_missing: bool,
    pub(super) upgrade_failed: bool,
}

/// Some providers name the identity only in the callback.
fn identity_in_callback(CodeToSend { config, metadata, .. }: &CodeToSend) -> Option<Identity> {
    let rule = config.identity.as_ref().filter(|rule| rule.request.is_none() && config.id_token_issuer().is_none())?;
    Identity::read(&Value::Object(metadata.clone()), &rule.id, rule.label.as_ref())
}

fn claims_of(token: &Secret, expected: &Expected<'_>) -> Option<Value> {
    id_token::claims(token, expected).inspect_err(|error| warn!("cannot use the ID token: {error}")).ok()
}

/// Asks the provider to revoke the grant that a login's record has replaced, where that cannot end the new one: if it was of
/// another identity, or if each login is a grant of its own. The bucket's entry has the old tokens until the record is applied,
/// so after a crash the next worker does the same.
pub(super) async fn revoke_replaced(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    record: &StreamMessage,
) -> Result<(), StoreError> {
    // The body has the identity in clear, so that the sealed part of a record need not be opened at each login.
    let new: OauthConnection =
        serde_json::from_slice(&record.payload).map_err(StoreError::unreadable(key.subject()))?;
    if new.identity.is_none() {
        return Ok(());
    }
    let Some(old) = context.store.stored_connection(key).await? else { return Ok(()) };
    let Some(is_same) = old.has_identity_of(&context.store.connection_of(key, record)?) else { return Ok(()) };
    if old.connection.sequence >= record.sequence || old.login_id == job.id {
        return Ok(());
    }
    let has_own_grants = context.store.config(&key.integration).await?.is_some_and(|config| config.revoke_replaced);
    if (is_same && !has_own_grants) || old.connection.status == Status::Revoked {
        return Ok(());
    }
    job.lease.check()?;
    let tokens = context.store.tokens_to_revoke(&old, context.clock.now());
    let outcome = job.provider_calls(context).revoke(key, &tokens).await?.outcome;
    report_replaced(context, job, outcome).await
}

async fn report_replaced(context: &Context, job: &Job, outcome: RevocationOutcome) -> Result<(), StoreError> {
    info!(outcome = outcome.as_str(), "asked the provider to revoke the grant that a login has replaced");
    let mut event = Event::about(&job.subject, EventKind::GrantReplaced, ACTOR, context.clock.now());
    event.reason = Some(outcome.as_str());
    job.publish_event(context, &event).await
}
