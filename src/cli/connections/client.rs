//! The calls, with errors that tell a person what to do.

use anyhow::{Context as _, bail};
use async_nats::Subscriber;
use serde_json::{Map, Value, json};

use super::{PAGE_SIZE, reason};
use crate::cli::pages;
use crate::client::{self, CallError};
use crate::gateway::backend::Backend;
use crate::jetstream::Nats;
use crate::subject::{Account, Integration, NodeCall};

pub(super) struct Calls {
    pub(super) nats: Nats,
    /// For calls of the account ADMIN.
    pub(super) backend: Backend,
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
            Ok(answer) => serde_json::from_slice(&answer).context("cannot read the answer: it is not JSON"),
            Err(error @ CallError::NoWorker) => {
                bail!("{error}: start a worker, and connect as a NATS user of account {} or as `admin`", self.account)
            }
            Err(error @ CallError::Refused { status: 400, .. }) if call == NodeCall::Login => {
                bail!(
                    "{error} (`--var NAME=VALUE` sets a variable, `--param NAME=VALUE` one of `login_params`, `--scopes` the scopes)"
                )
            }
            Err(error) => bail!("{}", reason::explain(&error.to_string())),
        }
    }

    /// Returns the connections of all pages.
    pub(super) async fn list(&self, integration: Option<&Integration>) -> anyhow::Result<Vec<Value>> {
        let mut question = Map::from_iter([("limit".to_owned(), json!(PAGE_SIZE))]);
        question.extend(integration.map(|it| ("integration_id".to_owned(), json!(it))));
        pages::read_all(question, async |question| self.call(NodeCall::List, question).await).await
    }

    pub(super) async fn subscribe(&self, subject: String) -> anyhow::Result<Subscriber> {
        let subscriber = self.nats.client().subscribe(subject).await?;
        self.nats.client().flush().await?;
        Ok(subscriber)
    }
}
