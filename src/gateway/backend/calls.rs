//! Calls, which a worker answers at once.
//!
//! A call or its answer is lost with the connection that carries it: this gateway's, or the worker's. So a call whose second
//! try does no harm is tried again: on a new connection at once, after some time without an answer, and while the worker that
//! has it cannot reach the streams. Each try is a call of its own with another id, because workers refuse a call that they
//! have seen.

use std::hash::BuildHasher as _;
use std::time::Duration;

use async_nats::Message;
use async_nats::client::Request;
use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::second_tries::{SECOND_TRY_AFTER, Tries, Why};
use super::session::{Answer, RefusedCall, SessionError};
use super::throttle::COUNTS_FOR;
use super::{BUS_WAIT, Backend, BackendError, RequestContext, refusal};
use crate::call::{AdminCall, Call, Question};
use crate::gateway::listener::rate_limits::network;
use crate::jetstream::{Nats, NatsError};
use crate::protocol::calls::{CallClient, Refusal};

/// Time for which a call is repeated while no worker listens. Covers a restart of the workers.
const WORKER_WAIT: Duration = Duration::from_secs(2);
/// Pause between these repetitions.
const WORKER_RETRY: Duration = Duration::from_millis(50);
/// Longest time for one try of a call that starts no command.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before a call that a worker could not carry out is made again. Each try also takes a worker 1.5 s, unless the server
/// refuses at once.
const BUS_PAUSE: Duration = Duration::from_millis(250);

impl Backend {
    /// Makes a call: JSON in, JSON out.
    pub async fn call(&self, call: Call, context: &RequestContext, body: &Value) -> Result<Bytes, BackendError> {
        let (began, mut earlier) = (Instant::now(), None);
        let (last_try, deadline) = (began + self.deadline.min(BUS_WAIT), began + self.deadline);
        let again = self.again_body(call, body);
        // The answer to `Ready` says that the bus is not available.
        let may_repeat = call != Call::Ready && call.again().is_some();
        loop {
            let again = again.as_ref().unwrap_or(body);
            let first = if earlier.is_none() { body } else { again };
            // Boxed, because the future of a call is large.
            match Box::pin(self.try_call(call, context, [first, again], deadline)).await {
                Err(error) if may_repeat && error.asks_for_another_try() && Instant::now() + BUS_PAUSE < last_try => {
                    earlier = earlier.or(Some(error));
                    tokio::time::sleep(BUS_PAUSE).await;
                }
                // The first try may have used a signed request up, and its failure says more than a limit.
                Err(refused @ (BackendError::Refused { status: 401, .. } | BackendError::Throttled)) => {
                    return Err(earlier.unwrap_or(refused));
                }
                // A worker listened, so it may have queued the command, which may still succeed.
                Err(BackendError::NoWorker(NatsError::Away(_))) if call.starts_command() => {
                    return Err(BackendError::Deadline);
                }
                answer => return answer,
            }
        }
    }

    /// Returns the body of later tries if it is another one: it has the time of the first try. A connection that was deleted
    /// since is the result of a deletion, and no missing connection. Workers count later tries apart from first ones.
    fn again_body(&self, call: Call, body: &Value) -> Option<Value> {
        let mut fields = body.as_object().filter(|_| matches!(call, Call::Refresh | Call::Delete))?.clone();
        fields.insert("began".to_owned(), self.sessions.clock().now().as_millisecond().into());
        Some(fields.into())
    }

    /// Makes a call, unless it leads to a command and its client has as many of these waiting as workers take.
    async fn try_call(
        &self,
        call: Call,
        context: &RequestContext,
        bodies: [&Value; 2],
        deadline: Instant,
    ) -> Result<Bytes, BackendError> {
        let client = self.client_of(context);
        // Calls without a client are the gateway's own, or an admin's.
        if !call.leads_to_command() || client.is_empty() {
            let client = CallClient { name: client, unsent: 0 };
            return self.call_with_tries(call, (context, client), bodies, deadline).await;
        }
        let mut waiting = self.throttle.admit(&client).ok_or(BackendError::Throttled)?;
        let client = CallClient { name: client.clone(), unsent: waiting.unsent };
        let mut tries = std::pin::pin!(self.call_with_tries(call, (context, client), bodies, deadline));
        let early = tokio::time::timeout(COUNTS_FOR, &mut tries).await;
        let is_late = early.is_err();
        let answer = if let Ok(answer) = early {
            answer
        } else {
            waiting.stop_counting();
            tries.await
        };
        match &answer {
            Err(BackendError::Session(SessionError::Refused(RefusedCall(Refusal::Busy)))) => {
                // A late refusal is one of a burst on a slow machine: few of the others need be refused.
                if !is_late {
                    waiting.refused();
                }
            }
            // The bus is not available, or too many calls wait for commands.
            Err(BackendError::Refused { status: 503, .. }) => {}
            Ok(_) | Err(BackendError::Refused { .. }) => waiting.accepted(),
            Err(_) => {}
        }
        answer
    }

    /// Makes a call, and makes it again while it has no answer. All tries of a call that starts a command end at the deadline.
    async fn call_with_tries(
        &self,
        call: Call,
        (context, client): (&RequestContext, CallClient),
        [body, again]: [&Value; 2],
        deadline: Instant,
    ) -> Result<Bytes, BackendError> {
        let began = Instant::now();
        let end = |now: Instant| if call.starts_command() { deadline } else { now + READ_TIMEOUT };
        let subject = call.subject();
        let was_lost = self.nats.reconnections();
        let later = CallClient { unsent: 0, ..client.clone() };
        let first = Box::pin(self.ask(&subject, (context, client), body, end(began)));
        let Some(second) = call.again() else { return first.await };
        let shows_load = call.only_reads();
        let late_after = if shows_load { SECOND_TRY_AFTER } else { end(began).saturating_duration_since(began) / 2 };
        let again = |why| {
            let subject = if why == Why::Late { &second } else { &subject };
            Box::pin(self.ask(subject, (context, later.clone()), again, end(Instant::now())))
        };
        let is_end = |error: &BackendError| error.asks_for_another_try() || error.is_missing();
        // Other calls change nothing that a refusal could hide.
        let may_run: fn(&BackendError) -> bool =
            if call.starts_command() { BackendError::may_run } else { |_: &BackendError| false };
        let is_silence: fn(&BackendError) -> bool = |error| matches!(error, BackendError::NoWorker(NatsError::Away(_)));
        let tries = Tries { late_after, shows_load, again, was_lost, is_end, may_run, is_silence };
        self.second_tries.answer(first, tries).await
    }

    /// Makes a call of the account ADMIN.
    pub(crate) async fn admin_call(&self, call: AdminCall, body: &Value) -> Result<Bytes, BackendError> {
        self.ask(
            &call.subject(),
            (&RequestContext::default(), CallClient::default()),
            body,
            Instant::now() + READ_TIMEOUT,
        )
        .await
    }

    async fn ask(
        &self,
        subject: &str,
        (context, client): (&RequestContext, CallClient),
        body: &Value,
        end: Instant,
    ) -> Result<Bytes, BackendError> {
        let RequestContext { credential, origin, traceparent } = context;
        let question = Question::text(credential.as_ref(), origin, traceparent.as_deref(), body);
        let question = Zeroizing::new(question);
        let again = CallClient { unsent: 0, ..client.clone() };
        match self.try_ask(subject, (client, &question), end).await {
            // The workers' key, or this gateway's time, was out of date. The next try asks for both.
            Err(BackendError::Session(error)) if error.is_out_of_date() => {
                self.try_ask(subject, (again, &question), end).await
            }
            answer => answer,
        }
    }

    /// Names the client of a request in a way that says nothing about it: by its credential, or else its network. Workers share
    /// their time among clients.
    fn client_of(&self, RequestContext { credential, origin, .. }: &RequestContext) -> String {
        let hash = match (credential, origin.client_address) {
            (Some(credential), _) => self.clients.hash_one(credential.rate_limit_key()),
            (None, Some(address)) => self.clients.hash_one(network(address)),
            (None, None) => return String::new(),
        };
        format!("{hash:x}")
    }

    async fn try_ask(&self, subject: &str, sent: (CallClient, &str), end: Instant) -> Result<Bytes, BackendError> {
        let sent =
            self.sessions.seal(&self.nats, subject, sent, end).await.map_err(|error| self.unanswered(error))??;
        let answer = request(&self.nats, subject, &sent.payload()?, end).await;
        let answer = answer.map_err(|error| self.unanswered(error))?;
        match self.sessions.open(&sent, &answer.payload).await? {
            Answer { status: 200, body, retry_after: _ } => Ok(String::from(Box::<str>::from(body)).into()),
            Answer { status, body, retry_after } => {
                Err(refusal(status, &serde_json::from_str(body.get()).unwrap_or_default(), retry_after))
            }
        }
    }

    /// Sorts the failure of a call, which a worker answers and not the server.
    fn unanswered(&self, error: NatsError) -> BackendError {
        let is_silence = matches!(error, NatsError::NotSent(_) | NatsError::Away(_));
        if is_silence && self.nats.is_connected() { BackendError::NoWorker(error) } else { error.into() }
    }
}

/// Sends a request to the workers, and waits for its answer until `end`. If none listens, tries again for [`WORKER_WAIT`].
pub(super) async fn request(nats: &Nats, subject: &str, payload: &Bytes, end: Instant) -> Result<Message, NatsError> {
    let last_retry = end.min(Instant::now() + WORKER_WAIT);
    loop {
        let timeout = end.saturating_duration_since(Instant::now());
        let request = Request::new().payload(payload.clone()).timeout(Some(timeout));
        match nats.request(subject, request).await {
            Err(NatsError::NotSent(_)) if Instant::now() < last_retry => tokio::time::sleep(WORKER_RETRY).await,
            answer => return answer,
        }
    }
}
