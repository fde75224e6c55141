//! `exchange`: a provider's answer to an authorization request becomes a stored connection.
//!
//! The order is the contract: consume the login, send the code, write the record, store, tell, schedule, answer, ack.
//! A code is sent by the attempt that consumed the login and by no other, so never twice.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use fail::fail_point;
use tracing::{info, warn};

use crate::command::{Cookie, Credential, WorkerReply};
use crate::connection::{OauthConnection, Status, StoredConnection};
use crate::event::{Event, EventKind};
use crate::integration::IntegrationOauthConfig;
use crate::login::{self, PendingLogin, UNKNOWN_STATE};
use crate::oauth::{callback, token};
use crate::protocol::records;
use crate::secret::Secret;
use crate::store::{Consumer, FoundLogin, StoreError};
use crate::subject::ConnectionKey;
use crate::system;
use crate::worker::context::Context;
use crate::worker::job::Job;
use crate::worker::rpc::status::{self, Failure};
use crate::worker::{apply, provider_calls};

/// Tries to be first while refreshes write the same record.
const TRIES: u32 = 8;
const FOREIGN_BROWSER: &str = "this login was started in another browser, or with cookies off; start it again";

/// A callback, as the gateway received it.
pub(in crate::worker) struct Callback<'a> {
    pub(in crate::worker) query: &'a Secret,
    pub(in crate::worker) credential: Option<&'a Credential>,
    pub(in crate::worker) cookies: &'a [Cookie],
}

pub(in crate::worker) async fn run(
    context: &Context,
    job: &Job,
    callback: &Callback<'_>,
) -> Result<WorkerReply, StoreError> {
    let Callback { query, credential, cookies } = *callback;
    let Some(key) = job.subject.key() else { return Ok(Failure::BadRequest.answer("no connection in the subject")) };
    let newest = records::last(&context.nats, &key.subject()).await?;
    // Not even its own record makes a command known: ids are the senders', and one that was heard is no proof of the
    // login's state.
    let state = match callback::state(query.expose()) {
        Ok(state) => state,
        Err(error) => return Ok(Failure::BadRequest.answer(&error.to_string())),
    };
    let hash = login::hash_of(&state);
    let (login, revision) = match context.store.login(&hash).await? {
        FoundLogin::Pending { account, login, revision } if key == of(&account, &login) => (login, revision),
        FoundLogin::Used { command_id, .. } if command_id == job.id => return interrupted(context, job, &key).await,
        FoundLogin::Pending { .. } | FoundLogin::Used { .. } | FoundLogin::Unknown => {
            return Ok(Failure::Unauthorized.answer(UNKNOWN_STATE));
        }
    };
    if let Some(refusal) = foreign(context, job, query, credential).await? {
        return Ok(refusal);
    }
    if !login.is_of_browser(&hash, cookies) {
        return Ok(Failure::Unauthorized.answer(FOREIGN_BROWSER));
    }
    let attempt = Attempt { context, job, key: &key, hash: &hash, login: &login, replaces: newest };
    attempt.run(query, revision).await
}

fn of(account: &crate::subject::Account, login: &PendingLogin) -> ConnectionKey {
    ConnectionKey { account: account.clone(), integration: login.integration.clone(), name: login.name.clone() }
}

/// A credential that came with the callback must be of the login's account.
async fn foreign(
    context: &Context,
    job: &Job,
    query: &Secret,
    credential: Option<&Credential>,
) -> Result<Option<WorkerReply>, StoreError> {
    let Some(credential) = credential else { return Ok(None) };
    match context.auth.authenticate(credential, job.purpose(query.expose().as_bytes())).await {
        Ok(caller) if caller.account == job.subject.account => Ok(None),
        Ok(_) => Ok(Some(Failure::Unauthorized.answer("this login belongs to another account"))),
        Err(error) => status::of_auth_error(error).map(Some),
    }
}

/// One attempt at one login, with all it was begun with.
struct Attempt<'a> {
    context: &'a Context,
    job: &'a Job,
    key: &'a ConnectionKey,
    hash: &'a str,
    login: &'a PendingLogin,
    /// The record that the new one replaces.
    replaces: Option<StreamMessage>,
}

impl Attempt<'_> {
    async fn run(&self, query: &Secret, revision: u64) -> Result<WorkerReply, StoreError> {
        let store = &self.context.store;
        let config = match store.config(&self.login.integration).await? {
            Some(config) if self.is_meant_for(&config) => config,
            _ => {
                return self
                    .refuse(
                        revision,
                        Failure::Superseded,
                        "config_changed",
                        "the integration's config changed during the login; start it again",
                    )
                    .await;
            }
        };
        let answer = match callback::AuthorizationResponse::parse(query.expose(), &config) {
            Ok(answer) => answer,
            Err(error) => return Ok(Failure::BadRequest.answer(&error.to_string())),
        };
        if let Err(error) = answer.check_issuer(&config) {
            return self.refuse(revision, Failure::BadRequest, "issuer_mismatch", &error.to_string()).await;
        }
        let code = match &answer.code {
            Ok(code) => code,
            Err(code) => return self.refuse(revision, Failure::LoginNeeded, code.as_str(), code.as_str()).await,
        };
        // Before the mark: what cannot be opened at the moment can be tried again, a consumed login cannot.
        let sealed = self.login.sealed_verifier.as_deref();
        let verifier = sealed.map(|sealed| store.open_verifier(self.hash, sealed)).transpose()?;
        fail_point!("before_mark");
        if let Some(ended) = self.consume(revision).await? {
            return Ok(ended);
        }
        fail_point!("after_mark");
        let mut tokens = match self.request_tokens(&config, code, verifier.as_ref()).await {
            Ok(tokens) => tokens,
            Err(refusal) => return failed(self.context, self.job, &refusal).await,
        };
        fail_point!("after_request");
        tokens.metadata.extend(answer.metadata);
        let issued = StoredConnection {
            connection: OauthConnection::issued(self.key.subject(), tokens),
            issued_at: self.login.issued_at.clone(),
            login_id: self.job.id.clone(),
            refresh_failure: None,
        };
        let Some(record) = self.write(issued).await? else {
            let refusal = Refusal::new(
                Failure::Superseded,
                "superseded",
                "the connection changed while this login was running; start it again",
            );
            return failed(self.context, self.job, &refusal).await;
        };
        fail_point!("after_record");
        finish(self.context, self.job, self.key, &record).await
    }

    /// Writes the record. A refresh of the connection that it replaces may have written meanwhile, and is replaced, too;
    /// another login or a deletion is not.
    async fn write(&self, issued: StoredConnection) -> Result<Option<StreamMessage>, StoreError> {
        let mut newest = self.replaces.clone();
        for _ in 0..TRIES {
            let replaces = newest.map_or(0, |record| record.sequence);
            let written = apply::write(self.context, self.job, self.key, issued.clone(), replaces).await?;
            if written.is_some() {
                return Ok(written);
            }
            newest = records::last(&self.context.nats, &self.key.subject()).await?;
            if !self.is_of_the_same_login(newest.as_ref())? {
                break;
            }
        }
        Ok(None)
    }

    /// Whether a record is of the login whose connection this one replaces.
    fn is_of_the_same_login(&self, newest: Option<&StreamMessage>) -> Result<bool, StoreError> {
        let (Some(old), Some(new)) = (&self.replaces, newest) else { return Ok(false) };
        let [old, new] = [old, new].map(|record| self.context.store.connection_of(self.key, record));
        let (old, new) = (old?, new?);
        Ok(old.login_id == new.login_id && new.connection.status != Status::Revoked)
    }

    fn is_meant_for(&self, config: &IntegrationOauthConfig) -> bool {
        config.is_issuer_of(&self.login.issued_at) && config.redirect_url == self.login.redirect_url
    }

    /// Makes the mark that the attempt began. Gives an answer when it is not ours to go on.
    async fn consume(&self, revision: u64) -> Result<Option<WorkerReply>, StoreError> {
        match self.context.store.consume_login(self.hash, &self.key.account, revision, &self.job.id).await? {
            Consumer::ThisAttempt => Ok(None),
            Consumer::ThisCommand => interrupted(self.context, self.job, self.key).await.map(Some),
            Consumer::Another => Ok(Some(Failure::Unauthorized.answer(UNKNOWN_STATE))),
        }
    }

    /// Ends a login that never gets as far as a token request.
    async fn refuse(
        &self,
        revision: u64,
        failure: Failure,
        reason: &str,
        text: &str,
    ) -> Result<WorkerReply, StoreError> {
        if let Some(ended) = self.consume(revision).await? {
            return Ok(ended);
        }
        failed(self.context, self.job, &Refusal::new(failure, reason, text)).await
    }

    /// Sends the code, once.
    async fn request_tokens(
        &self,
        config: &IntegrationOauthConfig,
        code: &Secret,
        verifier: Option<&Secret>,
    ) -> Result<token::TokenSet, Refusal> {
        let grant = token::CodeGrant { code, verifier, variables: &self.login.issued_at.variables };
        let build = |auth: &token::ClientAuthentication| token::exchange_request(config, &grant, auth);
        let asked = provider_calls::ask(self.context, config, grant.variables, build).await;
        asked.map_err(|error| {
            let retry_after = error.retry_after();
            Refusal { retry_after, ..Refusal::new(status::of_no_tokens(&error), error.reason(), &error.to_string()) }
        })
    }
}

/// Everything behind the record.
async fn finish(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    record: &StreamMessage,
) -> Result<WorkerReply, StoreError> {
    let connection = apply::settle(context, job, key, record, (EventKind::Connected, "browser", None)).await?;
    apply::answer(&connection)
}

/// Goes on behind the record that another delivery of this command wrote.
async fn go_on(
    context: &Context,
    job: &Job,
    key: &ConnectionKey,
    record: &StreamMessage,
) -> Result<WorkerReply, StoreError> {
    info!(sequence = record.sequence, "record is there already; going on behind it");
    finish(context, job, key, record).await
}

/// Another delivery of this command consumed the login. Unless there is a record by now, the code may be spent.
async fn interrupted(context: &Context, job: &Job, key: &ConnectionKey) -> Result<WorkerReply, StoreError> {
    // This delivery may be the older one, held up while the newer one did it all.
    let newest = records::last(&context.nats, &key.subject()).await?;
    if let Some(record) = newest.filter(|record| records::is_work_of(record, &job.id)) {
        return go_on(context, job, key, &record).await;
    }
    let text = "exchange_interrupted: the login was cut off after its code was sent; start it again";
    failed(context, job, &Refusal::new(Failure::LoginInterrupted, "exchange_interrupted", text)).await
}

struct Refusal {
    failure: Failure,
    reason: String,
    text: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(failure: Failure, reason: &str, text: &str) -> Self {
        Self { failure, reason: reason.to_owned(), text: text.to_owned(), retry_after: None }
    }
}

async fn failed(context: &Context, job: &Job, refusal: &Refusal) -> Result<WorkerReply, StoreError> {
    warn!(reason = refusal.reason, "login failed");
    let mut event = Event::about(&job.subject, EventKind::ExchangeFailed, "browser", system::now());
    event.reason = Some(&refusal.reason);
    job.publish_event(&context.nats, &event).await?;
    Ok(refusal.failure.answer(&refusal.text).after(refusal.retry_after))
}
