//! `put` and `delete`: an integration's config is put in force or taken out of it.

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use serde_json::json;

use super::Service;
use super::job::Job;
use crate::auth;
use crate::command::{Answer, Credential, HEADER_STATUS};
use crate::event::{Event, EventKind};
use crate::integration::{self, IntegrationOauthConfig, UrlRules};
use crate::nats::NatsError;
use crate::nats::record::{self, NewRecord, Written};
use crate::provider::profiles;
use crate::secret::Secret;
use crate::store::{StoreError, json as to_json};
use crate::subject::{self, OAUTH};
use crate::system;

const DELETED: &str = "deleted";

pub(super) async fn put(
    service: &Service,
    job: &Job,
    credential: &Credential,
    body: &Secret,
) -> Result<Answer, StoreError> {
    let actor = match admin(service, job, credential).await? {
        Ok(actor) => actor,
        Err(refusal) => return Ok(refusal),
    };
    let config = match parse(service, job, body) {
        Ok(config) => config,
        Err(text) => return Ok(Answer::error(400, &text)),
    };
    let subject = subject::config_subject(&job.subject.integration);
    let sealed = service.store.seal_config(OAUTH, &subject, 0, config.clone())?;
    let record = write(service, job, HeaderMap::new(), to_json(&sealed)?).await?;
    service.store.put_config(config, &record).await?;
    done(service, job, EventKind::ConfigPut, &actor, record.sequence).await
}

pub(super) async fn delete(service: &Service, job: &Job, credential: &Credential) -> Result<Answer, StoreError> {
    let actor = match admin(service, job, credential).await? {
        Ok(actor) => actor,
        Err(refusal) => return Ok(refusal),
    };
    let subject = subject::config_subject(&job.subject.integration);
    let newest = record::last(&service.store.nats, &subject).await?;
    let is_ours = newest.as_ref().is_some_and(|record| record::is_work_of(record, &job.id));
    if !is_ours && service.store.stored_config(&job.subject.integration).await?.is_none() {
        return Ok(Answer::error(404, "no config of that integration_id"));
    }
    let mut headers = HeaderMap::new();
    headers.insert(HEADER_STATUS, DELETED);
    let record = write(service, job, headers, "{}".into()).await?;
    service.store.delete_config(&job.subject.integration, record.sequence).await?;
    done(service, job, EventKind::ConfigDeleted, &actor, record.sequence).await
}

/// Who asks, if an admin of the account that the subject names.
async fn admin(service: &Service, job: &Job, credential: &Credential) -> Result<Result<String, Answer>, StoreError> {
    match auth::authenticate(&service.store.nats, credential).await {
        Ok(caller) if caller.account != job.subject.account => {
            Ok(Err(Answer::error(401, "the credential is of another account")))
        }
        Ok(caller) if caller.is_admin(&service.config.auth.admin_accounts) => Ok(Ok(caller.actor)),
        Ok(_) => Ok(Err(Answer::error(
            401,
            "only admins may do this: the credential needs the role, its account a place in `auth.admin_accounts`",
        ))),
        Err(auth::AuthError::Away(error)) => Err(error.into()),
        Err(error) => Ok(Err(Answer::error(401, &error.to_string()))),
    }
}

fn parse(service: &Service, job: &Job, body: &Secret) -> Result<IntegrationOauthConfig, String> {
    let rules = UrlRules { allow_insecure_urls: service.config.oauth.allow_insecure_urls };
    let value = serde_json::from_str(body.expose()).map_err(|_| "the body must be a JSON object".to_owned())?;
    let value = profiles::apply(value).map_err(|error| error.to_string())?;
    integration::parse_value(value, &job.subject.integration, &rules).map_err(|error| error.to_string())
}

/// Writes the record in place of whatever is newest: the last to be asked for wins.
async fn write(
    service: &Service,
    job: &Job,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Result<StreamMessage, StoreError> {
    let (nats, integration) = (&service.store.nats, &job.subject.integration);
    let subject = subject::config_subject(integration);
    let newest = record::last(nats, &subject).await?;
    if let Some(record) = newest.clone().filter(|record| record::is_work_of(record, &job.id)) {
        return Ok(record);
    }
    let record = NewRecord {
        publish_to: subject::config_record_subject(integration),
        subject,
        command_id: job.id.clone(),
        replaces: newest.map_or(0, |record| record.sequence),
        headers,
        body,
    };
    match record::write(nats, record).await? {
        Written::Stored(record) => Ok(record),
        Written::Superseded => Err(NatsError::WrongLastSequence.into()),
    }
}

async fn done(service: &Service, job: &Job, kind: EventKind, actor: &str, sequence: u64) -> Result<Answer, StoreError> {
    let mut event = Event::about(&job.subject, kind, actor, system::now());
    event.sequence = Some(sequence);
    job.tell(&service.store.nats, &event).await?;
    Ok(Answer::ok(json!({ "message": "success" })))
}
