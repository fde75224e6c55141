//! `dead`, `dead-retry`, `dead-drop`: the commands that workers gave up.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::CallError;
use super::super::list::{self, Page};
use super::super::status::Failure;
use crate::command::{Origin, Work};
use crate::event::{Event, EventKind};
use crate::jetstream::NatsError;
use crate::protocol::commands::{self as queue, DeadLetter, NumberedLetter};
use crate::protocol::events::publish_event;
use crate::protocol::outgoing::{Draft, Outgoing};
use crate::store::StoreError;
use crate::subject::{CommandSubject, Verb};
use crate::worker::context::Context;

/// The audit log's name for the admin.
const ACTOR: &str = "cli";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    /// The letter's number in the list.
    number: u64,
}

pub(super) async fn list(context: &Context, page: &Page) -> Result<Value, CallError> {
    let letters = queue::dead_letters(&context.nats).await.map_err(StoreError::from)?;
    // With leading zeros, numbers sort as texts, as a page's cursor needs.
    let entries: BTreeMap<String, Value> =
        letters.into_iter().map(|letter| (format!("{:020}", letter.number), json!(letter))).collect();
    let numbers: Vec<String> = entries.keys().cloned().collect();
    list::page_of(page, &numbers, list::page_bytes(context), |number: String| {
        std::future::ready(Ok(entries.get(&number).cloned()))
    })
    .await
}

/// Sends the refresh of a connection that exists again, and drops the letter. Returns who has to act for any other command:
/// its sealed content is not stored.
pub(super) async fn retry(context: &Context, named: &Named) -> Result<Value, CallError> {
    let NumberedLetter { letter, .. } = find(context, named).await?;
    let subject = CommandSubject::parse(&letter.subject).ok();
    let refresh = subject.as_ref().filter(|subject| subject.verb == Verb::Refresh);
    let Some((subject, key)) = refresh.and_then(|subject| Some((subject, subject.key()?))) else {
        return Ok(json!({ "advice": advice(&letter, subject.as_ref()) }));
    };
    let Some(connection) = context.store.connection(&key).await? else {
        let advice = format!("{}: the connection is deleted, there is nothing to do; drop the letter", letter.subject);
        return Ok(json!({ "advice": advice }));
    };
    let work = Work::Refresh { actor: Some(ACTOR.to_owned()), sequence: connection.sequence, slot_reserved: false };
    let draft =
        Draft { subject, origin: Origin::default(), work, time: context.clock.now(), message_id: None, first: None };
    let command = Outgoing::seal(draft, |order| context.store.keyring.seal_own_order(order));
    let command = command.map_err(StoreError::seal(subject.subject()))?;
    // A command that is queued already does the same work.
    match command.publish(&context.nats, None).await {
        Ok(_) | Err(NatsError::Occupied) => {}
        Err(error) => return Err(StoreError::from(error).into()),
    }
    drop_letter(context, named).await?;
    Ok(json!({ "message": format!("{}: sent again; the letter is dropped", letter.subject) }))
}

pub(super) async fn drop_letter(context: &Context, named: &Named) -> Result<Value, CallError> {
    let NumberedLetter { number, letter } = find(context, named).await?;
    // The event comes first, so that no letter disappears without one. If the command fails here and is repeated within the
    // server's window for duplicates, the event appears once.
    let (subject, now) = (CommandSubject::parse(&letter.subject).ok(), context.clock.now());
    let event = match &subject {
        Some(subject) => Event::about(subject, EventKind::DeadLetterDropped, ACTOR, now),
        None => Event::about_store(EventKind::DeadLetterDropped, ACTOR, now),
    };
    publish_event(&context.nats, &event, Some(&format!("dead.{number}"))).await.map_err(StoreError::from)?;
    queue::delete_dead_letter(&context.nats, number).await.map_err(StoreError::from)?;
    Ok(json!({ "message": "success" }))
}

async fn find(context: &Context, Named { number }: &Named) -> Result<NumberedLetter, CallError> {
    let letters = queue::dead_letters(&context.nats).await.map_err(StoreError::from)?;
    let found = letters.into_iter().find(|letter| letter.number == *number);
    found.ok_or_else(|| CallError::Refused(Failure::NotFound, format!("no dead letter has the number {number}")))
}

fn advice(letter: &DeadLetter, command: Option<&CommandSubject>) -> String {
    let subject = &letter.subject;
    match command.map(|command| command.verb) {
        Some(Verb::Exchange) => {
            format!("{subject}: a code is never sent twice; the person has to start the login again")
        }
        Some(Verb::Put | Verb::Delete) => {
            format!("{subject}: its sealed content is not stored; the admin has to send the request again")
        }
        Some(Verb::Revoke) => format!("{subject}: its caller has to delete the connection again"),
        None if letter.reason.starts_with("webhook:") => format!(
            "{subject}: the operator of its receiver has to act, which did not accept it for ten hours; the event is still in \
             `OAUTH_EVENTS`"
        ),
        Some(Verb::Refresh) | None => format!("{subject}: cannot be sent again from here"),
    }
}
