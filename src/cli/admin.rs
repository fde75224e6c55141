//! The calls of the account ADMIN, with errors that tell a person what to do.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::pages;
use crate::call::AdminCall;
use crate::client::CallError;
use crate::config::Config;
use crate::gateway::backend::{Backend, BackendError};
use crate::jetstream::{Nats, NatsError};
use crate::protocol::replies::Replies;
use crate::subject::ADMIN_EDGE;

pub(super) struct Admin {
    nats: Nats,
    backend: Backend,
}

impl Admin {
    pub(super) async fn connect(config: &Config) -> anyhow::Result<Self> {
        let nats = super::connect(config).await?;
        Ok(Self { backend: backend(nats.clone(), config), nats })
    }

    pub(super) async fn call(&self, call: AdminCall, question: Map<String, Value>) -> anyhow::Result<Value> {
        let question = Value::Object(question);
        let answer = tokio::select! {
            answer = ask(&self.backend, call, &question) => answer,
            refusal = self.nats.refusal() => bail!(
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

    /// Returns the entries of all pages.
    pub(super) async fn list(&self, call: AdminCall, question: Map<String, Value>) -> anyhow::Result<Vec<Value>> {
        pages::read_all(question, async |question| self.call(call, question).await).await
    }
}

/// The sealed way to the workers.
pub(super) fn backend(nats: Nats, config: &Config) -> Backend {
    let backend = Backend::new(nats, Replies::to(ADMIN_EDGE.to_owned()), config.http.deadline);
    backend.with_worker_key(config.nats.worker_key.clone())
}

/// Makes a call of the account ADMIN. Waits a moment for a worker that has just started.
pub(super) async fn ask(backend: &Backend, call: AdminCall, question: &Value) -> Result<Bytes, CallError> {
    backend.admin_call(call, question).await.map_err(|error| match error {
        BackendError::Refused { status, error, reason, hint: _, retry_after_seconds: retry_after } => {
            CallError::Refused { status, error, reason, retry_after }
        }
        BackendError::NoWorker(NatsError::Away(_)) | BackendError::Unavailable(NatsError::Away(_)) => {
            CallError::TimedOut
        }
        BackendError::NoWorker(_) | BackendError::Unavailable(_) | BackendError::Disconnected => CallError::NoWorker,
        error @ (BackendError::UsedState
        | BackendError::NoCredential
        | BackendError::NotText(_)
        | BackendError::Occupied
        | BackendError::InvalidAnswer(_)
        | BackendError::Session(_)
        | BackendError::Throttled
        | BackendError::Seal(_)
        | BackendError::Deadline) => CallError::Unreadable(error.into()),
    })
}
