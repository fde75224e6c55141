//! Calls for people: what goes wrong is said so that they know what to do.

use anyhow::{Context as _, bail};
use async_nats::Subscriber;
use serde_json::{Map, Value, json};

use super::{PAGE, reason};
use crate::cli::pages;
use crate::client::{self, CallError};
use crate::jetstream::Nats;
use crate::subject::{Account, Integration, NodeCall};

/// The calls of one account.
pub(super) struct Calls {
    pub(super) nats: Nats,
    pub(super) account: Account,
}

impl Calls {
    pub(super) async fn call(&self, call: NodeCall, question: Map<String, Value>) -> anyhow::Result<Value> {
        let question = Value::Object(question);
        let answer = tokio::select! {
            answer = client::call(self.nats.client(), &self.account, call, &question) => answer,
            refusal = self.nats.refusal() => bail!(
                "this NATS user may not call `{}` for {}: {refusal}", call.as_str(), self.account
            ),
        };
        match answer {
            Ok(answer) => serde_json::from_slice(&answer).context("the answer is not JSON"),
            Err(error @ CallError::NoWorker) => {
                bail!("{error}: is a worker running, and is the NATS user of account {} or `admin`?", self.account)
            }
            Err(error) => bail!("{}", reason::explained(&error.to_string())),
        }
    }

    /// All connections.
    pub(super) async fn list(&self, integration: Option<&Integration>) -> anyhow::Result<Vec<Value>> {
        let mut question = Map::from_iter([("limit".to_owned(), json!(PAGE))]);
        question.extend(integration.map(|it| ("integration_id".to_owned(), json!(it))));
        pages::all(question, async |question| self.call(NodeCall::List, question).await).await
    }

    pub(super) async fn subscribe(&self, subject: String) -> anyhow::Result<Subscriber> {
        let subscriber = self.nats.client().subscribe(subject).await?;
        self.nats.client().flush().await?;
        Ok(subscriber)
    }
}
