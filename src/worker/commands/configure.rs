//! `put` and `delete`: stores or deletes the config of an integration.
//!
//! - Only admins may do this, and the worker verifies their credential itself.
//! - Of commands at the same time, the last one to write its record wins. A command that is delivered again never
//!   undoes a newer one.
//! - The numbered steps say what is durable after them and what a crash leads to. An error that a step returns has the
//!   same effect: the command is put back and delivered again.

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use fail::fail_point;
use serde_json::json;
use tracing::warn;

use crate::auth;
use crate::command::{Credential, HEADER_SEALED_EVENT, HEADER_STATUS, WorkerReply};
use crate::event::{Event, EventDetails, EventKind, RecordEvent};
use crate::integration::{self, ConfigError, IntegrationOauthConfig, UrlRules};
use crate::jetstream::NatsError;
use crate::protocol::records::{self, NewRecord, Written};
use crate::provider::profiles::{ProfileError, Profiles};
use crate::secret::Secret;
use crate::store::{StoreError, WholeConfig};
use crate::subject;
use crate::telemetry::describe_error;
use crate::worker::context::Context;
use crate::worker::job::Job;
use crate::worker::left_out;
use crate::worker::rpc::status::{self, Failure};

/// Status header of a deleted config's record.
const DELETED: &str = "deleted";
/// Tries to write a record while other admins write the same config.
const CONFIG_RECORD_TRIES: u32 = 8;

pub(in crate::worker) enum Change<'a> {
    /// The config's JSON, as the gateway sent it.
    Put(&'a Secret),
    Delete,
}

pub(in crate::worker) async fn run(
    context: &Context,
    job: &Job,
    credential: &Credential,
    change: Change<'_>,
) -> Result<WorkerReply, StoreError> {
    let integration = &job.subject.integration;
    // 1. Check the credential and the config. Durable: only the nonce of a signed request, which the next
    //    delivery of this command may use again. A crash after this: the next worker starts over. If another admin has
    //    changed the config since, it stops with step 2.
    let (actor, new) = match check(context, job, credential, &change).await? {
        Checked::Accepted { actor, new } => (actor, new),
        Checked::Refused(reply) => return Ok(reply),
    };
    fail_point!("configure_1_change_checked");

    // 2. Write the record. Durable: the config's new state. A crash after this: the next worker finds this command's
    //    record and continues with step 3. If it finds a newer record of another command, it answers that this one came
    //    too late.
    let kind = match change {
        Change::Put(_) => EventKind::ConfigPut,
        Change::Delete => EventKind::ConfigDeleted,
    };
    let written =
        write_record(context, job, new.as_deref(), &job.record_event(EventDetails::new(kind, &actor, None))).await?;
    fail_point!("configure_2_record_written");

    // 3. Update KV, unless it has a newer state. Durable: logins and refreshes use the config, and refreshes
    //    that were paused until a config fits start again. A crash after this: as after step 2; KV is as new already. Paused
    //    refreshes then start when their schedule fires, within 15 minutes.
    let sequence = match written {
        ConfigRecorded::Newest(record) => {
            match new {
                Some(new) => {
                    context.store.put_config(&new, &record).await?;
                    context.wakeups.report_new_config(integration.clone());
                }
                None => context.store.delete_config(integration, record.sequence).await?,
            }
            record.sequence
        }
        // The command of the newer record updates KV.
        ConfigRecorded::Replaced { sequence } => sequence,
        ConfigRecorded::Superseded => {
            let text = "the config was changed again while this request was in progress";
            return Ok(Failure::Superseded.answer(text).with_reason("superseded"));
        }
    };
    fail_point!("configure_3_kv_written");

    // 4. Publish the event. Durable: the audit log has it. A crash after this: as after step 2; the server drops the
    //    second event, whose message id is the same. A command that replaces the record publishes the event before.
    let mut event = Event::about(&job.subject, kind, &actor, context.clock.now());
    event.sequence = Some(sequence);
    job.publish_event(context, &event).await?;
    fail_point!("configure_4_event_published");
    Ok(WorkerReply::ok(json!({ "message": "success" })))
}

enum Checked {
    Accepted {
        actor: String,
        /// The config to store; `None` to delete it.
        new: Option<Box<WholeConfig>>,
    },
    Refused(WorkerReply),
}

async fn check(
    context: &Context,
    job: &Job,
    credential: &Credential,
    change: &Change<'_>,
) -> Result<Checked, StoreError> {
    let integration = &job.subject.integration;
    let signed: &[u8] = match change {
        Change::Put(body) => body.expose().as_bytes(),
        Change::Delete => b"",
    };
    let actor = match context.auth.authenticate(credential, job.purpose(signed), &job.origin).await {
        Ok(caller) if caller.account != job.subject.account => {
            let reply = Failure::Unauthorized.answer("the credential belongs to another account");
            return Ok(Checked::Refused(reply));
        }
        Ok(caller) if caller.may_change_configs(&context.config.auth.admin_accounts) => caller.actor,
        Ok(caller) => {
            context.auth.count_refused_admin(&caller, "configs");
            return Ok(Checked::Refused(Failure::Unauthorized.answer(auth::ADMINS_ONLY)));
        }
        Err(error) => return status::answer_to_auth_error(error).map(Checked::Refused),
    };
    match change {
        Change::Put(body) => {
            let config = match parse(context, job, body).await {
                Ok(config) => config,
                Err(error) => {
                    if let RejectedConfig::Profile(invalid @ (ProfileError::Invalid { .. } | ProfileError::Folder(_))) =
                        &error
                    {
                        warn!("config refused: {}", describe_error(invalid));
                    }
                    return Ok(Checked::Refused(Failure::BadRequest.answer(&error.to_string())));
                }
            };
            Ok(Checked::Accepted { actor, new: Some(Box::new(WholeConfig::new(config)?)) })
        }
        Change::Delete => {
            let subject = subject::config_subject(integration);
            let newest = records::last(&context.nats, &subject).await?;
            let is_deleted_by_this = newest.is_some_and(|record| records::was_written_by(&record, &job.id));
            if is_deleted_by_this || context.store.has_config(integration).await? {
                return Ok(Checked::Accepted { actor, new: None });
            }
            Ok(Checked::Refused(Failure::NotFound.answer("no config with that integration_id")))
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum RejectedConfig {
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

async fn parse(context: &Context, job: &Job, body: &Secret) -> Result<IntegrationOauthConfig, RejectedConfig> {
    let (integration, settings) = (&job.subject.integration, &context.config.oauth);
    let value = integration::read_json(body.expose().as_bytes())?;
    let value = Profiles::new(settings).apply(value, integration).await?;
    Ok(integration::parse_value(value, integration, UrlRules { allow_insecure_urls: settings.allow_insecure_urls })?)
}

/// Result of [`write_record`].
enum ConfigRecorded {
    /// The record is the newest.
    Newest(StreamMessage),
    /// The record was stored, and another command's record has since replaced it.
    Replaced { sequence: u64 },
    /// This is a redelivery, and another command has written a record since this one was queued.
    Superseded,
}

/// Writes the record in place of the newest one, unless this is a redelivery that comes too late.
async fn write_record(
    context: &Context,
    job: &Job,
    new: Option<&WholeConfig>,
    event: &RecordEvent,
) -> Result<ConfigRecorded, StoreError> {
    let (nats, integration) = (&context.nats, &job.subject.integration);
    let subject = subject::config_subject(integration);
    let mut headers = HeaderMap::new();
    headers.insert(HEADER_SEALED_EVENT, context.store.seal_event(&subject, &job.id, event)?);
    let body = if let Some(config) = new {
        context.store.config_record(config, &job.id)?
    } else {
        headers.insert(HEADER_STATUS, DELETED);
        Bytes::from_static(b"{}")
    };
    for _ in 0..CONFIG_RECORD_TRIES {
        // Another delivery may have stored this change, and another admin may have replaced it since.
        job.lease.check()?;
        let newest = records::last(nats, &subject).await?;
        match newest.clone() {
            Some(record) if records::was_written_by(&record, &job.id) => return Ok(ConfigRecorded::Newest(record)),
            Some(record) if job.is_superseded_by(&record) => return Ok(ConfigRecorded::Superseded),
            Some(record) => left_out::of_config(context, job, &record).await?,
            None => {}
        }
        let record = NewRecord {
            publish_to: subject::config_record_subject(integration),
            subject: subject.clone(),
            command_id: job.id.clone(),
            name: records::RECORD,
            replaces: newest.map_or(0, |record| record.sequence),
            headers: headers.clone(),
            body: body.clone(),
        };
        match records::write(nats, record, || job.lease.end() + records::RETRY_FOR, async || None).await? {
            Written::Stored(record) => {
                job.lease.record_stored();
                return Ok(ConfigRecorded::Newest(record));
            }
            Written::Replaced { sequence } => return Ok(ConfigRecorded::Replaced { sequence }),
            // Another admin was first: try again, in place of that record.
            Written::Superseded => {}
        }
    }
    Err(NatsError::WrongLastSequence.into())
}
