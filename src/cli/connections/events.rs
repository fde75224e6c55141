//! The events of one account: pushed to its own user, asked for by the user `admin`, whose account receives none.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::Subscriber;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::client::Calls;
use crate::call::AdminCall;
use crate::cli::admin;
use crate::cli::events::{PAGE, Page};
use crate::client::CallError;
use crate::protocol::permissions;
use crate::subject;
use crate::subject::permission::{Act, Permission};

/// Pause between two questions for events.
const POLL: Duration = Duration::from_secs(1);
/// Events that wait for the terminal. More of them wait at the server.
const WAITING: usize = 256;

/// Events from the moment at which it is opened.
pub(super) enum Events {
    Pushed(Subscriber),
    /// Number of the last event that was received.
    Polled(u64),
}

impl Events {
    pub(super) async fn open(calls: &Calls) -> anyhow::Result<Self> {
        if may_ask(calls).await? {
            match ask(calls, None).await {
                Ok(Page { last, .. }) => return Ok(Self::Polled(last)),
                // A tenant's user without limits of its own.
                Err(CallError::NoWorker) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self::Pushed(calls.subscribe(subject::events_of(&calls.account)).await?))
    }

    /// Sends each event to the channel, until the connection ends or nothing receives any more. Without a worker, polling
    /// continues when there is one.
    pub(super) async fn forward(self, calls: &Calls, to: mpsc::Sender<Value>) -> anyhow::Result<()> {
        match self {
            Self::Pushed(mut subscriber) => {
                while let Some(message) = subscriber.next().await {
                    let Ok(event) = serde_json::from_slice(&message.payload) else { continue };
                    to.send(event).await.context("nothing reads events any more")?;
                }
                anyhow::bail!("the connection to NATS was closed")
            }
            Self::Polled(mut after) => loop {
                tokio::time::sleep(POLL).await;
                let page = match ask(calls, Some(after)).await {
                    Ok(page) => page,
                    Err(CallError::NoWorker | CallError::TimedOut | CallError::Refused { .. }) => continue,
                    Err(error @ (CallError::NotSent(_) | CallError::Unreadable(_))) => return Err(error.into()),
                };
                after = page.last;
                for found in page.results {
                    to.send(Value::Object(found.event)).await.context("nothing reads events any more")?;
                }
            },
        }
    }
}

/// A channel for [`Events::forward`].
pub(super) fn channel() -> (mpsc::Sender<Value>, mpsc::Receiver<Value>) {
    mpsc::channel(WAITING)
}

/// Returns true unless the server says that this user may not ask: a refused question would get no answer.
async fn may_ask(calls: &Calls) -> anyhow::Result<bool> {
    let needed = Permission { act: Act::Publish, subject: AdminCall::Events.subject(), why: "" };
    let own = permissions::own_user(&calls.nats).await?;
    Ok(own.is_some_and(|own| own.missing(vec![needed]).is_empty()))
}

async fn ask(calls: &Calls, after: Option<u64>) -> Result<Page, CallError> {
    let question = json!({ "account": calls.account, "after": after, "limit": PAGE });
    let answer = admin::ask(&calls.backend, AdminCall::Events, &question).await?;
    serde_json::from_slice(&answer).map_err(|error| CallError::Unreadable(error.into()))
}
