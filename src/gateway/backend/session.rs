//! The gateway's session with the workers: one key for an hour's calls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::calls::{READ_TIMEOUT, request};
use super::second_tries::{SECOND_TRY_AFTER, SecondTries, Tries};
use crate::jetstream::{Nats, NatsError};
use crate::protocol::bus_clock::BusClock;
use crate::protocol::calls::{CallAnswer, CallClient, Refusal, SealKey, SealedCall};
use crate::seal::{SealError, SharedKey};
use crate::subject::seal_key_calls;
use crate::system;

/// Age at which a session key is replaced. A key that leaks opens no calls of another hour.
const SESSION_AGE: Duration = Duration::from_hours(1);

/// A call that could not be sealed, or an answer that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("the workers' curve key is not `nats.worker_key`; correct that setting, or the workers' keyring")]
    OtherKey,
    #[error("{0}")]
    Refused(#[source] RefusedCall),
    #[error("the answer to a call cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("a call cannot be sealed, or its answer opened: {0}")]
    Seal(#[from] SealError),
    #[error("the answer to a call has an impossible time: {0}")]
    Time(#[from] jiff::Error),
}

impl SessionError {
    /// Returns true if the call may succeed in a new session.
    pub(super) fn is_out_of_date(&self) -> bool {
        matches!(self, Self::Refused(RefusedCall(Refusal::UnknownKey | Refusal::OutOfTime)))
    }
}

/// A refusal of a worker that did not open the call.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RefusedCall(pub(super) Refusal);

/// The current session, and the bus's time.
pub(super) struct Sessions {
    /// `nats.worker_key`, or empty.
    pinned: String,
    clock: BusClock,
    current: Mutex<Option<Arc<Session>>>,
}

pub(super) struct Session {
    key: SharedKey,
    /// The key, sealed to the workers.
    sealed: String,
    made: Instant,
}

/// A call that was sent, to open its answer.
pub(super) struct SentCall {
    session: Arc<Session>,
    call: String,
    sealed: SealedCall,
}

/// An opened answer.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Box<RawValue>,
    #[serde(default)]
    pub(super) retry_after: Option<u64>,
}

impl Sessions {
    pub(super) fn new(pinned: String) -> Self {
        Self { pinned, clock: BusClock::default(), current: Mutex::default() }
    }

    pub(super) fn clock(&self) -> &BusClock {
        &self.clock
    }

    /// Seals a call of a client. `call` is the call's subject. Asks the workers for their key first, if there is no session yet, and
    /// waits for it until `end` at most.
    ///
    /// # Errors
    /// The outer error means that the workers could not be asked.
    pub(super) async fn seal(
        &self,
        nats: &Nats,
        call: &str,
        (client, question): (CallClient, &str),
        end: Instant,
    ) -> Result<Result<SentCall, SessionError>, NatsError> {
        let session = match self.session(nats, end).await? {
            Ok(session) => session,
            Err(error) => return Ok(Err(error)),
        };
        let made = (system::random_id(), self.clock.now());
        let sealed = SealedCall::seal(&session.key, &session.sealed, call, made, question.as_bytes());
        let call = call.to_owned();
        let sealed = sealed.map(|sealed| sealed.with_client(client));
        Ok(sealed.map(|sealed| SentCall { session, call, sealed }).map_err(SessionError::from))
    }

    /// Opens the answer to a call, and takes over its time. Ends the session if it is out of date.
    pub(super) async fn open(&self, sent: &SentCall, payload: &[u8]) -> Result<Answer, SessionError> {
        let (time, sealed) = match serde_json::from_slice(payload)? {
            CallAnswer::Sealed { time, sealed } => (time, sealed),
            CallAnswer::Refused(refusal) => {
                let error = SessionError::Refused(RefusedCall(refusal));
                if error.is_out_of_date() {
                    let mut current = self.current.lock().await;
                    current.take_if(|current| Arc::ptr_eq(current, &sent.session));
                }
                return Err(error);
            }
        };
        let opened = sent.sealed.open_answer(&sent.session.key, &sent.call, (time, &sealed))?;
        self.clock.set(jiff::Timestamp::from_millisecond(time)?);
        Ok(serde_json::from_slice(&opened)?)
    }

    async fn session(&self, nats: &Nats, end: Instant) -> Result<Result<Arc<Session>, SessionError>, NatsError> {
        // Held while the workers are asked, so that all calls that arrive meanwhile share one question. If it has no answer, calls
        // do not wait for the questions of those before them.
        let current = timeout_at(end, self.current.lock()).await;
        let mut current = current.map_err(|_elapsed| NatsError::away("the workers' curve key"))?;
        if let Some(session) = current.as_ref().filter(|session| session.made.elapsed() < SESSION_AGE) {
            return Ok(Ok(Arc::clone(session)));
        }
        let [first, again] = seal_key_calls();
        let (nothing, end) = (Bytes::new(), end.min(Instant::now() + READ_TIMEOUT));
        let ask = |subject| Box::pin(request(nats, subject, &nothing, end));
        let tries = Tries {
            late_after: SECOND_TRY_AFTER,
            shows_load: true,
            again: |_why| ask(&again),
            was_lost: nats.reconnections(),
            is_end: |_error| false,
            may_run: |_error| false,
            is_silence: |_error| false,
        };
        let answer = SecondTries::default().answer(ask(&first), tries).await?;
        let session = self.begin(&answer.payload).map(Arc::new);
        if let Ok(session) = &session {
            *current = Some(Arc::clone(session));
        }
        Ok(session)
    }

    fn begin(&self, answer: &[u8]) -> Result<Session, SessionError> {
        if let Ok(CallAnswer::Refused(refusal)) = serde_json::from_slice(answer) {
            return Err(SessionError::Refused(RefusedCall(refusal)));
        }
        let SealKey { seal_to, time } = serde_json::from_slice(answer)?;
        if !self.pinned.is_empty() && self.pinned != seal_to {
            warn!("a worker names the curve key {seal_to}, which is not `nats.worker_key`");
            return Err(SessionError::OtherKey);
        }
        self.clock.set(jiff::Timestamp::from_millisecond(time)?);
        let key = SharedKey::random();
        let sealed = key.for_workers(&seal_to)?;
        Ok(Session { key, sealed, made: Instant::now() })
    }
}

impl SentCall {
    pub(super) fn payload(&self) -> Result<Bytes, SessionError> {
        Ok(serde_json::to_vec(&self.sealed)?.into())
    }
}
