//! `exchange`: turns a provider's callback into a stored connection.
//!
//! - Only the delivery that consumed the login sends the authorization code. It sends the code again only if the provider
//!   has rejected the client itself, with the next client secret. A server that sees a code twice revokes the grant (RFC
//!   6749 §4.1.2).
//! - The caller receives its answer only after the connection is stored.
//! - The numbered steps say what is durable after them and what a crash leads to. When a worker falls silent for 5 s,
//!   the server delivers its command again, to any worker: the next worker. An error that a step returns has the same
//!   effect: the command is put back and delivered again, until a limit of deliveries. A crash inside a step leads to what
//!   the step before or the step itself says.
//! - The answer and the ack follow in `worker/delivery.rs`, whose steps say what a crash there leads to.

mod credential;
mod identity;
mod reads;
mod refusal;
mod resume;

use async_nats::jetstream::message::StreamMessage;
use fail::fail_point;
use serde_json::{Map, Value};
use tracing::warn;

use self::credential::{CheckedCredential, check_credential};
use self::identity::{NewTokens, RequiredIdentity};
use self::reads::Reads;
use self::refusal::Refusal;
use self::resume::{answer_if_stored, resume};
use crate::command::{Cookie, Credential, WorkerReply};
use crate::connection::lifecycle::{self, NewGrant};
use crate::connection::{GrantFacts, OauthConnection, StoredConnection};
use crate::event::{Event, EventDetails, EventKind};
use crate::integration::{IntegrationOauthConfig, IssuedAt, RequestKind};
use crate::login::{self, OTHER_BROWSER, PendingLogin, UNKNOWN_STATE};
use crate::oauth::callback::{AuthorizationResponse, LoginError};
use crate::oauth::{self, token};
use crate::protocol::records;
use crate::rights::Scopes;
use crate::secret::Secret;
use crate::store::{Consumer, FoundLogin, StoreError};
use crate::subject::{Account, ConnectionKey};
use crate::system;
use crate::worker::apply::{self, Applied, RECORD_TRIES, Recorded};
use crate::worker::context::{Context, NO_ROOM_WAIT};
use crate::worker::job::Job;
use crate::worker::rpc::status::{self, Failure};
use crate::worker::{late_tokens, left_out};

/// The audit log's name for the caller of a callback.
const ACTOR: &str = "browser";
const CONNECTED: EventDetails<'_> = EventDetails::new(EventKind::Connected, ACTOR, None);

/// A callback as the gateway received it.
pub(in crate::worker) struct Callback<'a> {
    pub(in crate::worker) query: &'a Secret,
    pub(in crate::worker) credential: Option<&'a Credential>,
    pub(in crate::worker) cookies: &'a [Cookie],
}

/// Finds the login of a callback, and exchanges its code if the login is pending and the callback is from its browser.
///
/// Before step 1 this writes only the nonce of a signed request, which a redelivery of the same command may use again. A
/// crash before step 1: the next worker finds the login as it was and starts over. If this command has consumed the login
/// already, [`resume`] finishes it.
pub(in crate::worker) async fn run(
    context: &Context,
    job: &Job,
    callback: &Callback<'_>,
) -> Result<WorkerReply, StoreError> {
    let Some(key) = job.subject.key() else { return Ok(Failure::BadRequest.answer("no connection in the subject")) };
    let state = match oauth::callback::state(callback.query.expose()) {
        Ok(state) => state,
        Err(error) => return Ok(Failure::BadRequest.answer(&error.to_string())),
    };
    let state_hash = login::hash_of(&state);
    // Don't trust an existing record that carries this command's id: senders choose ids, so a replayed id proves
    // nothing. The login's state comes first.
    let Reads { newest, login, config } = reads::read(context, &key, &state_hash).await?;
    let (login, revision) = match login {
        FoundLogin::Pending { account, login, revision } if key == key_of(&account, &login) => (login, revision),
        FoundLogin::Used { command_id, .. } if command_id == job.id => {
            // An earlier delivery accepted the credential. If it is no longer valid, the answer shows no tokens.
            let scopes = match check_credential(context, job, callback).await? {
                CheckedCredential::Accepted(scopes) => scopes,
                CheckedCredential::Refused(_) => Scopes::default(),
            };
            return resume(context, job, &key, &scopes).await;
        }
        FoundLogin::Pending { .. } | FoundLogin::Used { .. } | FoundLogin::Unknown => {
            return Ok(Failure::Unauthorized.answer(UNKNOWN_STATE));
        }
    };
    let scopes = match check_credential(context, job, callback).await? {
        CheckedCredential::Accepted(scopes) => scopes,
        CheckedCredential::Refused(reply) => return Ok(reply),
    };
    if !login.is_of_browser(&state_hash, callback.cookies) {
        return Ok(Failure::Unauthorized.answer(OTHER_BROWSER));
    }
    let (state_hash, login, scopes) = (&state_hash, &login, &scopes);
    let exchange = Exchange { context, job, key: &key, state_hash, login, revision, scopes, replaces: newest };
    Box::pin(exchange.run(&state, callback.query, config?)).await
}

/// Answers with the connection, without the tokens that these scopes don't show.
fn reply_with(connection: &OauthConnection, scopes: &Scopes) -> Result<WorkerReply, StoreError> {
    let mut reply = apply::reply_with(connection)?;
    scopes.hide_tokens(&mut reply.body);
    Ok(reply)
}

fn key_of(account: &Account, login: &PendingLogin) -> ConnectionKey {
    ConnectionKey { account: account.clone(), integration: login.integration.clone(), name: login.name.clone() }
}

/// A pending login whose callback is from its browser.
struct Exchange<'a> {
    context: &'a Context,
    job: &'a Job,
    key: &'a ConnectionKey,
    state_hash: &'a str,
    login: &'a PendingLogin,
    /// Revision of the login's entry.
    revision: u64,
    /// Scopes of the callback's credential.
    scopes: &'a Scopes,
    /// Newest record of the connection when the command began. The new record replaces it, so a later login or deletion
    /// wins.
    replaces: Option<StreamMessage>,
}

/// Result of checking a callback.
enum Checked {
    Accepted(Box<CodeToSend>),
    /// The login ends without a connection: its state is consumed, and no code is sent.
    Refused(Refusal),
    /// The callback cannot be read. The login stays pending, so that the provider's real callback still finds it.
    Malformed(WorkerReply),
}

struct CodeToSend {
    config: IntegrationOauthConfig,
    code: Secret,
    verifier: Option<Secret>,
    /// With the variables that the callback has set.
    issued_at: IssuedAt,
    /// Parameters of the callback that the config selects for the connection's metadata.
    metadata: Map<String, Value>,
    /// The connection whose identity the login has to have.
    required_identity: Option<Box<StoredConnection>>,
}

impl Exchange<'_> {
    async fn run(
        &self,
        state: &Secret,
        query: &Secret,
        config: Option<IntegrationOauthConfig>,
    ) -> Result<WorkerReply, StoreError> {
        // 1. Check the callback against the login and the config. Durable: nothing new, except the event of the record to
        //    replace if a crash left it out. A crash after this: the next worker finds the login pending and starts over.
        let checked = match self.check(query, config).await? {
            Checked::Accepted(code) => Ok(code),
            Checked::Refused(refusal) => Err(refusal),
            Checked::Malformed(reply) => return Ok(reply),
        };
        // No code is sent whose tokens could not be stored. The login stays pending, so that the same URL works again.
        if let Err(error) = self.context.room.check(&self.context.nats, 0).await {
            return Ok(Failure::Unavailable.answer_after(&format!("{error}; try again later"), NO_ROOM_WAIT));
        }
        left_out::of_connection(self.context, self.job, self.key, self.replaces.as_ref()).await?;
        fail_point!("exchange_1_callback_checked");

        // 2. Consume the login. Durable: its deletion marker, with this command's id. A crash after this: the next worker
        //    finds that marker and no record of this command. The code may have been sent, so it is not sent
        //    again: the next worker (`resume`) publishes the event `exchange_failed` and answers 502, both with
        //    `exchange_interrupted`. A refusal of step 1 consumes the login too, so it is reported after this step.
        let (store, account) = (&self.context.store, &self.key.account);
        let consumed = store.consume_login(self.state_hash, account, self.login, self.revision, &self.job.id);
        match consumed.await? {
            Consumer::ThisDelivery => {}
            Consumer::ThisCommand => return resume(self.context, self.job, self.key, self.scopes).await,
            Consumer::Another => return Ok(Failure::Unauthorized.answer(UNKNOWN_STATE)),
        }
        fail_point!("exchange_2_login_consumed");
        self.job.lease.check()?;
        let mut code = match checked {
            Ok(code) => code,
            Err(refusal) => return fail(self.context, self.job, &refusal).await,
        };

        // 3. Send the code, and ask for the identity and further facts. Durable: nothing here; at the provider the code is
        //    spent and tokens exist. A crash after this: as after step 2. The tokens are lost, and the person logs in again.
        let required_identity = code.required_identity.take();
        let issued = match self.send_code(&code).await {
            Ok(tokens) => self.issued(self.add_facts(&code, state, tokens).await, *code),
            Err(refusal) => return fail(self.context, self.job, &refusal).await,
        };
        if let Some(required) = required_identity
            && let Some(refusal) = self.refuse_other_identity(&required, &issued).await
        {
            return fail(self.context, self.job, &refusal).await;
        }
        fail_point!("exchange_3_code_sent");

        // 4. Write the record. Durable: the connection; subscribers receive it. A crash after this: the next worker
        //    finds the consumed login and this command's record, and continues with step 5. If a refresh or a
        //    deletion has replaced the record since, the next worker leaves the newer state and answers with it.
        let Recorded::Newest(record) = self.write_record(&issued).await? else {
            return self.superseded(&issued).await;
        };
        self.context.measures.logins.succeeded(&self.key.integration);
        fail_point!("exchange_4_record_written");

        // 5. Apply the record: a replaced grant of another identity is revoked; then KV, answer, event, schedule (the steps
        //    of `worker/apply.rs`). Durable: all three. A crash in it or after it: as after step 4; a repeated write has no
        //    effect. The caller receives its answer only after the KV write.
        self.revoke_waiting(&issued).await;
        // What follows asks no provider, except to revoke a replaced grant of another identity.
        self.job.share.end();
        let applied = Applied { record: &record, event: CONNECTED, entry: self.replaces.is_none().then_some(0) };
        let reply = apply_connected(self.context, self.job, self.key, applied, self.scopes).await?;
        fail_point!("exchange_5_record_applied");
        Ok(reply)
    }

    async fn check(&self, query: &Secret, config: Option<IntegrationOauthConfig>) -> Result<Checked, StoreError> {
        let store = &self.context.store;
        let config = match config {
            Some(config) if self.was_started_with(&config) => config,
            Some(_) | None => {
                let text = "the integration's config changed during the login; start it again";
                return Ok(Checked::Refused(Refusal::new(Failure::Superseded, "config_changed", text)));
            }
        };
        let response = match AuthorizationResponse::parse(query.expose(), &config) {
            Ok(response) => response,
            Err(error) => return Ok(Checked::Malformed(Failure::BadRequest.answer(&error.to_string()))),
        };
        let issuer = config.issuer_for(&self.login.issued_at.variables);
        if let Err(error) = response.check_issuer(issuer.as_deref()) {
            let refusal = Refusal::new(Failure::BadRequest, "issuer_mismatch", &error.to_string());
            return Ok(Checked::Refused(refusal));
        }
        let code = match response.code {
            Ok(code) => code,
            Err(LoginError { code, cause }) => {
                let refusal = Refusal::new(Failure::LoginNeeded, code.as_str(), code.as_str());
                return Ok(Checked::Refused(refusal.because(self.context, &config, cause).await));
            }
        };
        // Open the verifier before the login is consumed, so that a key that is missing for a moment costs no login.
        let sealed = self.login.sealed_verifier.as_deref();
        let verifier = sealed.map(|sealed| store.open_verifier(self.state_hash, sealed)).transpose()?;
        let issued_at = match config.issued_at_callback(&self.login.issued_at, &response.variables) {
            Ok(issued_at) => issued_at,
            Err(error) => return Ok(Checked::Malformed(Failure::BadRequest.answer(&error.to_string()))),
        };
        let required_identity = match self.required_identity(&config).await? {
            RequiredIdentity::Any => None,
            RequiredIdentity::Of(connection) => Some(connection),
            RequiredIdentity::Unknown => {
                let text = "the provider does not say whose connection this is; delete it, then log in";
                return Ok(Checked::Refused(Refusal::new(Failure::BadRequest, "identity_unknown", text)));
            }
        };
        let metadata = response.metadata;
        Ok(Checked::Accepted(Box::new(CodeToSend { config, code, verifier, issued_at, metadata, required_identity })))
    }

    fn was_started_with(&self, config: &IntegrationOauthConfig) -> bool {
        // Logins that an earlier release began have no hash, and no variable of theirs comes from the callback.
        let has_same_variables =
            self.login.variables_hash.as_ref().is_none_or(|hash| *hash == login::hash_of_variables(config));
        config.is_issuer_of(&self.login.issued_at)
            && config.redirect_url == self.login.redirect_url
            && has_same_variables
    }

    async fn send_code(&self, code: &CodeToSend) -> Result<token::TokenSet, Refusal> {
        let CodeToSend { config, code, verifier, issued_at, .. } = code;
        let variables = &issued_at.variables;
        let scope = self.login.scope.clone().unwrap_or_else(|| config.scope_text(&config.scopes()));
        let (verifier, scope) = (verifier.as_ref(), scope.as_str());
        let build = |auth: &token::ClientAuthentication| {
            let grant = token::CodeGrant { code, verifier, variables, scope, nonce: &system::random_id() };
            token::exchange_request(config, &grant, auth)
        };
        let answered = self.job.provider_calls(self.context).tokens(config, RequestKind::Token, variables, build).await;
        let error = match answered {
            Ok(tokens) => return Ok(tokens),
            Err(error) => error,
        };
        let (retry_after, provider) = (error.retry_after(), error.answer().cloned());
        let refusal = Refusal::new(status::failure_of_no_tokens(&error), error.reason(), &error.to_string());
        let refusal = Refusal { retry_after, provider, ..refusal };
        Err(refusal.because(self.context, config, error.cause()).await)
    }

    fn issued(&self, received: NewTokens, code: CodeToSend) -> StoredConnection {
        let NewTokens { mut tokens, facts_missing, upgrade_failed } = received;
        // A refresh token is sealed into a header of the record, which has a limit.
        let is_short = tokens.access_token.expose().len() <= token::MAX_REFRESH_TOKEN_BYTES;
        let upgrade_missing = upgrade_failed && is_short && tokens.refresh_token.is_none();
        if upgrade_missing {
            // The access token renews the connection, so that the schedule tries the upgrade again as it would a refresh.
            tokens.refresh_token = Some(tokens.access_token.clone());
        }
        let CodeToSend { config, issued_at, metadata, .. } = code;
        tokens.metadata.extend(metadata);
        tokens.metadata.extend(config.metadata_of_variables(&issued_at.variables));
        let (subject, login_id) = (self.key.subject(), self.job.id.clone());
        let rules = self.context.refresh_rules(Some(&config));
        let requested_scope = self.login.scope.clone().filter(|_| tokens.scope.is_none());
        let grant = NewGrant { subject, issued_at, login_id };
        let mut new = lifecycle::connected(grant, tokens, self.context.clock.now(), &rules);
        new.grant = GrantFacts { requested_scope, facts_missing, upgrade_missing, ..new.grant };
        new
    }

    /// Writes the record in place of the record found at the start. If a refresh has replaced that one meanwhile, replaces
    /// the refresh's record: it belongs to the same grant. A newer login or deletion wins instead.
    async fn write_record(&self, issued: &StoredConnection) -> Result<Recorded, StoreError> {
        let mut newest = self.replaces.clone();
        for _ in 0..RECORD_TRIES {
            left_out::of_ended_deletion(self.context, self.job, self.key, ACTOR, newest.as_ref()).await;
            let (issued, replaces) = (issued.clone(), newest.as_ref());
            match apply::write_record(self.context, self.job, self.key, issued, CONNECTED, replaces).await? {
                Recorded::Newest(record) => return Ok(Recorded::Newest(record)),
                Recorded::Superseded => {}
            }
            newest = records::last(&self.context.nats, &self.key.subject()).await?;
            if !self.is_refresh_of_replaced(newest.as_ref())? {
                break;
            }
        }
        Ok(Recorded::Superseded)
    }

    /// Answers after another command's record has won. If a deletion was first, this asks the provider to revoke the new
    /// tokens. If another login was first, leaves both grants alone: many providers end all grants of a person when one of
    /// them is revoked.
    async fn superseded(&self, issued: &StoredConnection) -> Result<WorkerReply, StoreError> {
        let newest = records::last(&self.context.nats, &self.key.subject()).await?;
        let (context, job, key) = (self.context, self.job, self.key);
        if let Some(reply) = answer_if_stored(context, job, key, newest.as_ref(), self.scopes).await? {
            return Ok(reply);
        }
        late_tokens::revoke(context, job, key, issued).await?;
        let text = "the connection changed while this login was running; start it again";
        fail(context, job, &Refusal::new(Failure::Superseded, "superseded", text)).await
    }
}

async fn apply_connected(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    applied: Applied<'_>,
    scopes: &Scopes,
) -> Result<WorkerReply, StoreError> {
    identity::revoke_replaced(context, job, key, applied.record).await?;
    Box::pin(apply::apply_record(context, job, key, applied, |connection| reply_with(connection, scopes))).await
}

/// Ends a consumed login without a connection. A crash before the event is stored: as after step 2, so the event and
/// the answer then say `exchange_interrupted`. A crash after it: the next worker answers `exchange_interrupted`, and
/// the server drops the second event, whose message id is the same.
async fn fail(context: &Context, job: &Job, refusal: &Refusal) -> Result<WorkerReply, StoreError> {
    warn!(reason = refusal.reason, hint = refusal.hint, "login failed");
    context.measures.logins.failed(&job.subject.integration, &refusal.reason);
    let mut event = Event::about(&job.subject, EventKind::ExchangeFailed, ACTOR, context.clock.now());
    (event.reason, event.provider) = (Some(refusal.reason.as_str()), refusal.provider.as_ref());
    (event.cause, event.hint) = (refusal.cause, refusal.hint.as_deref());
    job.publish_event(context, &event).await?;
    let answer = refusal.failure.answer(&refusal.text).with_reason(&refusal.reason);
    Ok(answer.after(refusal.retry_after).with_hint(refusal.cause, refusal.hint.as_deref()))
}
