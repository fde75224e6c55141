//! The calls of the account ADMIN, with errors that tell a person what to do.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::pages;
use crate::call::AdminCall;
use crate::client::{self, CallError};
use crate::config::Config;
use crate::jetstream::Nats;

/// Longest wait for a worker that takes the call, as a gateway waits.
const NO_WORKER_WAIT: Duration = Duration::from_secs(2);
const NO_WORKER_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Admin(Nats);

impl Admin {
    pub(super) async fn connect(config: &Config) -> anyhow::Result<Self> {
        Ok(Self(super::connect(config).await?))
    }

    pub(super) async fn call(&self, call: AdminCall, question: Map<String, Value>) -> anyhow::Result<Value> {
        let question = Value::Object(question);
        let answer = tokio::select! {
            answer = self.ask_patiently(call, &question) => answer,
            refusal = self.0.refusal() => bail!(
                "this NATS user may not call `{}`, connect as `admin`: {refusal}", call.subject()
            ),
        };
        match answer {
            Ok(answer) => serde_json::from_slice(&answer).context("cannot read the answer: it is not JSON"),
            Err(CallError::NoWorker) => {
                bail!("no worker answers: start one on this bus, and connect as the NATS user `admin`")
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks again while no worker takes the call: a worker that has just started may subscribe in a moment.
    async fn ask_patiently(&self, call: AdminCall, question: &Value) -> Result<Bytes, CallError> {
        let began = Instant::now();
        loop {
            match client::ask(self.0.client(), call.subject(), question).await {
                Err(CallError::NoWorker) if began.elapsed() < NO_WORKER_WAIT => {
                    tokio::time::sleep(NO_WORKER_PAUSE).await
                }
                answer => return answer,
            }
        }
    }

    /// Returns the entries of all pages.
    pub(super) async fn list(&self, call: AdminCall, question: Map<String, Value>) -> anyhow::Result<Vec<Value>> {
        pages::read_all(question, async |question| self.call(call, question).await).await
    }
}
