//! `put` and `delete`: an integration's config is put in force or taken out of it.

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use fail::fail_point;
use serde_json::json;

use crate::command::{Credential, HEADER_STATUS, WorkerReply};
use crate::event::{Event, EventKind};
use crate::integration::{self, IntegrationOauthConfig, UrlRules};
use crate::jetstream::NatsError;
use crate::protocol::records::{self, NewRecord, Written};
use crate::provider::profiles;
use crate::secret::Secret;
use crate::store::{StoreError, json as to_json};
use crate::subject::{self, OAUTH};
use crate::worker::context::Context;
use crate::worker::job::Job;
use crate::worker::rpc::status::{self, Failure};
use crate::{auth, system};

const DELETED: &str = "deleted";
/// Tries to write a record while other admins write the same config.
const TRIES: u32 = 8;
const OVERTAKEN: &str = "superseded: the config was changed again while this request was under way";

pub(in crate::worker) async fn put(
    context: &Context,
    job: &Job,
    credential: &Credential,
    body: &Secret,
) -> Result<WorkerReply, StoreError> {
    let actor = match admin(context, job, credential, body.expose().as_bytes()).await? {
        Ok(actor) => actor,
        Err(refusal) => return Ok(refusal),
    };
    let config = match parse(context, job, body) {
        Ok(config) => config,
        Err(text) => return Ok(Failure::BadRequest.answer(&text)),
    };
    let subject = subject::config_subject(&job.subject.integration);
    let sealed = context.store.seal_config(OAUTH, &subject, 0, config.clone())?;
    let was_there = context.store.stored_config(&job.subject.integration).await?.is_some();
    let sequence = match write(context, job, HeaderMap::new(), to_json(&sealed)?).await? {
        Write::InForce(record) => {
            context.store.put_config(config, &record).await?;
            if !was_there {
                context.resumed.add(job.subject.integration.clone());
            }
            record.sequence
        }
        Write::Replaced { sequence } => sequence,
        Write::Overtaken => return Ok(Failure::Superseded.answer(OVERTAKEN)),
    };
    done(context, job, EventKind::ConfigPut, &actor, sequence).await
}

pub(in crate::worker) async fn delete(
    context: &Context,
    job: &Job,
    credential: &Credential,
) -> Result<WorkerReply, StoreError> {
    let actor = match admin(context, job, credential, b"").await? {
        Ok(actor) => actor,
        Err(refusal) => return Ok(refusal),
    };
    let subject = subject::config_subject(&job.subject.integration);
    let newest = records::last(&context.nats, &subject).await?;
    let is_ours = newest.as_ref().is_some_and(|record| records::is_work_of(record, &job.id));
    if !is_ours && context.store.stored_config(&job.subject.integration).await?.is_none() {
        return Ok(Failure::NotFound.answer("no config with that integration_id"));
    }
    let mut headers = HeaderMap::new();
    headers.insert(HEADER_STATUS, DELETED);
    let sequence = match write(context, job, headers, "{}".into()).await? {
        Write::InForce(record) => {
            context.store.delete_config(&job.subject.integration, record.sequence).await?;
            record.sequence
        }
        Write::Replaced { sequence } => sequence,
        Write::Overtaken => return Ok(Failure::Superseded.answer(OVERTAKEN)),
    };
    done(context, job, EventKind::ConfigDeleted, &actor, sequence).await
}

/// Who asks, if an admin of the account that the subject names.
async fn admin(
    context: &Context,
    job: &Job,
    credential: &Credential,
    content: &[u8],
) -> Result<Result<String, WorkerReply>, StoreError> {
    match context.auth.authenticate(credential, job.purpose(content)).await {
        Ok(caller) if caller.account != job.subject.account => {
            Ok(Err(Failure::Unauthorized.answer("the credential belongs to another account")))
        }
        Ok(caller) if caller.is_admin(&context.config.auth.admin_accounts) => Ok(Ok(caller.actor)),
        Ok(_) => Ok(Err(Failure::Unauthorized.answer(auth::ADMINS_ONLY))),
        Err(error) => status::of_auth_error(error).map(Err),
    }
}

fn parse(context: &Context, job: &Job, body: &Secret) -> Result<IntegrationOauthConfig, String> {
    let rules = UrlRules { allow_insecure_urls: context.config.oauth.allow_insecure_urls };
    let value = integration::read_json(body.expose().as_bytes()).map_err(|error| error.to_string())?;
    let value = profiles::apply(value).map_err(|error| error.to_string())?;
    integration::parse_value(value, &job.subject.integration, rules).map_err(|error| error.to_string())
}

/// What became of a config's record.
enum Write {
    /// It is the newest.
    InForce(StreamMessage),
    /// It was, and a newer one has replaced it since.
    Replaced {
        /// Its sequence.
        sequence: u64,
    },
    /// This is a repetition of the command, and a newer one has been carried out in the meantime.
    Overtaken,
}

/// Writes the record in place of whatever is newest: of those under way at once, the last to write wins. A command
/// that comes again must not undo what was asked for after it.
async fn write(context: &Context, job: &Job, headers: HeaderMap, body: bytes::Bytes) -> Result<Write, StoreError> {
    let (nats, integration) = (&context.nats, &job.subject.integration);
    let subject = subject::config_subject(integration);
    for _ in 0..TRIES {
        let newest = records::last(nats, &subject).await?;
        match newest.clone() {
            Some(record) if records::is_work_of(&record, &job.id) => return Ok(Write::InForce(record)),
            Some(record) if job.is_overtaken_by(&record) => return Ok(Write::Overtaken),
            Some(_) | None => {}
        }
        fail_point!("before_config_record");
        let record = NewRecord {
            publish_to: subject::config_record_subject(integration),
            subject: subject.clone(),
            command_id: job.id.clone(),
            replaces: newest.map_or(0, |record| record.sequence),
            headers: headers.clone(),
            body: body.clone(),
        };
        match records::write(nats, record).await? {
            Written::Stored(record) => return Ok(Write::InForce(record)),
            Written::Replaced { sequence } => return Ok(Write::Replaced { sequence }),
            // Another admin was first: once more, in place of that one.
            Written::Superseded => {}
        }
    }
    Err(NatsError::WrongLastSequence.into())
}

async fn done(
    context: &Context,
    job: &Job,
    kind: EventKind,
    actor: &str,
    sequence: u64,
) -> Result<WorkerReply, StoreError> {
    let mut event = Event::about(&job.subject, kind, actor, system::now());
    event.sequence = Some(sequence);
    job.publish_event(&context.nats, &event).await?;
    Ok(WorkerReply::ok(json!({ "message": "success" })))
}
