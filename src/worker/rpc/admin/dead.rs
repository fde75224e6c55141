//! `dead`, `dead-retry`, `dead-drop`: the commands that workers gave up.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::CallError;
use super::super::list::{self, Page};
use super::super::status::Failure;
use crate::event::{Event, EventKind};
use crate::protocol::commands::{self as queue, NumberedLetter};
use crate::protocol::events::publish_event;
use crate::store::StoreError;
use crate::subject::CommandSubject;
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
    list::page_of(page, &numbers, |number: String| std::future::ready(Ok(entries.get(&number).cloned()))).await
}

/// Returns how to get the command done. Its sealed content is not stored, so only its sender can send it again.
pub(super) async fn advise(context: &Context, named: &Named) -> Result<Value, CallError> {
    Ok(json!({ "advice": advice(&find(context, named).await?) }))
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

fn advice(NumberedLetter { letter, .. }: &NumberedLetter) -> String {
    let subject = &letter.subject;
    match subject.rsplit('.').next() {
        Some("exchange") => format!("{subject}: a code is never sent twice; start the login again"),
        Some("put" | "delete") => format!("{subject}: its sealed content is not stored; send the request again"),
        Some(_) if letter.reason.starts_with("webhook:") => {
            format!("{subject}: its receiver did not accept it for ten hours; the event is still in `OAUTH_EVENTS`")
        }
        _ => format!("{subject}: cannot be sent again from here"),
    }
}
