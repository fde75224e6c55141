//! Snapshots: a stream with its messages and consumers as one sequence of bytes, and a new stream made of such bytes.
//!
//! The server publishes a snapshot in chunks and keeps at most 8 MiB of them unconfirmed. It takes a restored one in chunks
//! too, answers each, and creates the stream after the last. If the server dies while it creates the stream, it may keep a part
//! of it after its next start.

use std::time::Duration;

use async_nats::client::Request;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, State};
use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::Nats;
use super::error::NatsError;
use crate::subject::{stream_restore, stream_snapshot};

/// Bytes of a chunk of a snapshot. Smaller than a message that any server takes.
const CHUNK_BYTES: usize = 128 * 1024;
/// Longest wait for the server to begin, or for the next chunk. It writes what it has in memory to disk first.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for the stream after the last chunk: the server reads all of it, and a cluster copies it.
const CREATE_TIMEOUT: Duration = Duration::from_mins(5);

/// Pause between looks whether the connection broke.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A snapshot that the server sends.
pub(crate) struct Snapshot {
    pub config: Config,
    /// The stream's state, as a restore needs it.
    pub state: Value,
    nats: Nats,
    chunks: Subscriber,
    /// Chunks are lost if the connection is.
    connection: u64,
}

#[derive(Deserialize)]
struct Begun {
    config: Config,
    state: Value,
}

#[derive(Deserialize)]
struct Accepted {
    deliver_subject: String,
}

/// Messages that a stream holds, and the last sequence that it has assigned.
#[derive(Deserialize)]
struct Created {
    state: State,
}

impl Nats {
    /// Begins a snapshot of a stream with its consumers.
    pub(crate) async fn snapshot(&self, stream: &str) -> Result<Snapshot, NatsError> {
        const FAILED: &str = "cannot receive a snapshot";
        let connection = self.connection_count();
        let inbox = self.client().new_inbox();
        let chunks = self.client().subscribe(inbox.clone()).await.map_err(NatsError::away_because(FAILED))?;
        let request = json!({ "deliver_subject": inbox, "chunk_size": CHUNK_BYTES });
        let Begun { config, state } = self.ask(&stream_snapshot(stream), &request).await?;
        Ok(Snapshot { config, state, nats: self.clone(), chunks, connection })
    }

    /// Begins to create a stream with this configuration from a snapshot that had this state.
    pub(crate) async fn restore(&self, config: &Config, state: &Value) -> Result<Restore, NatsError> {
        let request = json!({ "config": config, "state": state });
        let connection = self.connection_count();
        let Accepted { deliver_subject } = self.ask(&stream_restore(&config.name), &request).await?;
        Ok(Restore { nats: self.clone(), to: deliver_subject, connection })
    }

    /// Waits at most until the connection breaks: the server then forgets what it sends or receives.
    async fn unless_broken<T>(&self, connection: u64, wait: impl Future<Output = T>) -> Result<T, NatsError> {
        let broken = async {
            while self.is_connected() && self.connection_count() == connection {
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        };
        tokio::select! {
            done = wait => Ok(done),
            () = broken => Err(NatsError::away("the connection broke")),
        }
    }

    async fn ask<T: DeserializeOwned>(&self, subject: &str, request: &Value) -> Result<T, NatsError> {
        let request = Request::new().payload(request.to_string().into()).timeout(Some(CHUNK_TIMEOUT));
        parse(&self.request(subject, request).await?.payload)
    }
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, NatsError> {
    match serde_json::from_slice(answer).map_err(NatsError::unreadable)? {
        Response::Ok(answer) => Ok(answer),
        Response::Err { error } => Err(NatsError::refused(error.error_code().0, error.to_string())),
    }
}

impl Snapshot {
    /// Returns the next chunk, or nothing after the last.
    ///
    /// # Errors
    /// If the snapshot ended early.
    pub(crate) async fn next_chunk(&mut self) -> Result<Option<Bytes>, NatsError> {
        const ENDED: &str = "a snapshot ended early";
        let next = tokio::time::timeout(CHUNK_TIMEOUT, self.chunks.next());
        let Ok(Some(chunk)) = self.nats.unless_broken(self.connection, next).await? else {
            return Err(NatsError::away(ENDED));
        };
        if self.nats.connection_count() != self.connection {
            return Err(NatsError::away(ENDED));
        }
        if chunk.payload.is_empty() {
            return match chunk.status {
                None | Some(StatusCode::OK) => Ok(None),
                Some(status) if status.as_u16() == 204 => Ok(None),
                Some(status) => Err(NatsError::refused(
                    status.as_u16().into(),
                    format!("{ENDED}: {}", chunk.description.unwrap_or_default()),
                )),
            };
        }
        // The last chunk needs no confirmation.
        if let Some(confirm) = chunk.reply {
            let sent = self.nats.client().publish(confirm, Bytes::new()).await;
            sent.map_err(NatsError::away_because(ENDED))?;
        }
        Ok(Some(chunk.payload))
    }
}

/// A stream that the server creates from a snapshot.
pub(crate) struct Restore {
    nats: Nats,
    to: String,
    connection: u64,
}

impl Restore {
    /// Sends the next chunk, and waits until the server has it.
    pub(crate) async fn send(&self, chunk: Vec<u8>) -> Result<(), NatsError> {
        let request = Request::new().payload(chunk.into()).timeout(Some(CHUNK_TIMEOUT));
        let answer = self.request(request).await?;
        if answer.payload.is_empty() { Ok(()) } else { parse::<Value>(&answer.payload).map(drop) }
    }

    /// Ends the snapshot, and returns the state of the stream once it exists.
    pub(crate) async fn finish(self) -> Result<State, NatsError> {
        let request = Request::new().payload(Bytes::new()).timeout(Some(CREATE_TIMEOUT));
        let answer = self.request(request).await?;
        parse(&answer.payload).map(|Created { state }| state)
    }

    async fn request(&self, request: Request) -> Result<Message, NatsError> {
        self.nats.unless_broken(self.connection, self.nats.request(&self.to, request)).await?
    }
}
