//! Opens sealed calls and seals their answers.

use bytes::Bytes;
use serde::Serialize;
use tracing::debug;

use super::{CallIds, too_large};
use crate::call::Question;
use crate::command::WorkerReply;
use crate::jetstream::receiver::Received;
use crate::protocol::calls::{CallAnswer, Refusal, SealKey, SealedCall};
use crate::subject;
use crate::worker::context::Context;

/// Opens a call, carries it out by `serve`, and returns the sealed answer. Answers `seal-key`, which is not sealed.
pub(super) async fn answer<F>(
    context: &Context,
    message: &Received,
    serve: impl FnOnce(Question, CallIds) -> F,
) -> Bytes
where
    F: Future<Output = WorkerReply>,
{
    if subject::is_seal_key_call(&message.subject) {
        let seal_to = context.store.keyring.seal_to().to_owned();
        return payload(&SealKey { seal_to, time: context.clock.now().as_millisecond() });
    }
    let answered = open_and_answer(context, message, serve).await;
    payload(&answered.unwrap_or_else(|refusal| {
        debug!("call refused: {refusal}");
        CallAnswer::Refused(refusal)
    }))
}

/// The answer of a worker that has too many calls.
pub(super) fn busy() -> Bytes {
    payload(&CallAnswer::Refused(Refusal::Busy))
}

async fn open_and_answer<F>(
    context: &Context,
    message: &Received,
    serve: impl FnOnce(Question, CallIds) -> F,
) -> Result<CallAnswer, Refusal>
where
    F: Future<Output = WorkerReply>,
{
    let unreadable = |error: &dyn std::fmt::Display| {
        debug!("unreadable call: {error}");
        Refusal::Unreadable
    };
    let call = &message.subject;
    let sealed: SealedCall = serde_json::from_slice(&message.payload).map_err(|error| unreadable(&error))?;
    if !subject::is_id(&sealed.id) {
        return Err(Refusal::Unreadable);
    }
    let key = context.sessions.open(&context.store.keyring, &sealed.session).map_err(|error| {
        debug!("unknown session: {error}");
        Refusal::UnknownKey
    })?;
    let question = sealed.open(&key, call).map_err(|error| unreadable(&error))?;
    if !sealed.is_in_time(context.clock.now()) {
        // This worker's own time may be wrong, if it stood still.
        drop(context.clock.read_again(&context.nats).await);
        if !sealed.is_in_time(context.clock.now()) {
            return Err(Refusal::OutOfTime);
        }
    }
    let question = serde_json::from_slice(&question).map_err(|error| unreadable(&error))?;
    let sent = sealed.sent().unwrap_or_default();
    let ids = CallIds::Derived { session: key.clone(), call_id: sealed.id.clone(), sent };
    let mut answer = payload(&serve(question, ids).await);
    let bytes = sealed_len(answer.len());
    if bytes > context.nats.max_payload() {
        answer = payload(&too_large(context, bytes));
    }
    sealed.answer(&key, call, context.clock.now(), &answer).map_err(|error| unreadable(&error))
}

/// Most bytes of a sealed answer: base64, with the fields around it.
fn sealed_len(bytes: usize) -> usize {
    bytes.div_ceil(3).saturating_mul(4).saturating_add(ANSWER_BYTES)
}

/// Room for most answers.
const ANSWER_BYTES: usize = 1_024;

fn payload(answer: &impl Serialize) -> Bytes {
    let mut json = Vec::with_capacity(ANSWER_BYTES);
    // Answers always have a JSON form.
    match serde_json::to_writer(&mut json, answer) {
        Ok(()) => json.into(),
        Err(_) => Bytes::new(),
    }
}
