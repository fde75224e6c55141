//! What a gateway and a worker of one process hand to each other without the bus: calls, and the answers to calls and commands.
//!
//! The payloads are those of the bus, sealed as there, so both sides read and check them in one way. Where the worker does not
//! take a call, it goes to the bus, where any worker may take it: before the worker is ready, when it stops, and when it has no
//! room.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::replies::Replies;
use crate::jetstream::NatsError;

/// A call, named by its subject.
pub(crate) struct LocalCall {
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
    pub(crate) reply: oneshot::Sender<Bytes>,
}

/// Starts to carry out a call, or does not take it.
type Take = dyn Fn(LocalCall) -> Result<(), NotTaken> + Send + Sync;

pub(crate) struct NotTaken;

/// The worker of this process, and its gateway if it has one.
#[derive(Clone, Default)]
pub(crate) struct SameProcess {
    worker: Arc<RwLock<Option<Box<Take>>>>,
    /// Answers to the gateway's commands.
    gateway: Option<Replies>,
}

/// The worker takes calls until this is dropped.
pub(crate) struct TakesCalls(SameProcess);

impl SameProcess {
    /// With a gateway that receives the answers to its commands there.
    #[must_use]
    pub(crate) fn with_gateway(gateway: Replies) -> Self {
        Self { gateway: Some(gateway), ..Self::default() }
    }

    /// Hands the worker's calls to `take` from now on.
    pub(crate) fn take_calls(
        &self,
        take: impl Fn(LocalCall) -> Result<(), NotTaken> + Send + Sync + 'static,
    ) -> TakesCalls {
        self.set(Some(Box::new(take)));
        TakesCalls(self.clone())
    }

    fn set(&self, take: Option<Box<Take>>) {
        *self.worker.write().unwrap_or_else(PoisonError::into_inner) = take;
    }

    /// Makes a call. Returns nothing if the worker does not take it.
    pub(crate) async fn call(&self, subject: &str, payload: &Bytes, end: Instant) -> Option<Result<Bytes, NatsError>> {
        let (reply, answered) = oneshot::channel();
        {
            let worker = self.worker.read().unwrap_or_else(PoisonError::into_inner);
            let take = worker.as_ref()?;
            take(LocalCall { subject: subject.to_owned(), payload: payload.clone(), reply }).ok()?;
        }
        let lost = || NatsError::away("a call may have been carried out");
        Some(
            tokio::time::timeout_at(end, answered)
                .await
                .map_err(|_elapsed| lost())
                .and_then(|it| it.map_err(|_| lost())),
        )
    }

    /// Hands the answer to a command to this process's gateway. Returns false if no task waits there for the answer.
    pub(crate) fn answer(&self, reply: &str, payload: &Bytes) -> bool {
        self.gateway.as_ref().is_some_and(|gateway| gateway.pass_on(reply, payload))
    }
}

impl Drop for TakesCalls {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// Makes a call, and describes its end.
    async fn end(process: &SameProcess) -> String {
        match process.call("call", &Bytes::from_static(b"question"), Instant::now() + PATIENCE).await {
            None => "to the bus".to_owned(),
            Some(Ok(answer)) => String::from_utf8_lossy(&answer).into_owned(),
            Some(Err(error)) => error.to_string(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_the_worker_does_not_take_goes_to_the_bus() {
        let process = SameProcess::default();
        assert_eq!(end(&process).await, "to the bus", "the worker is not ready");
        let takes_calls = process.take_calls(|call| {
            let answer = [call.subject.as_bytes(), b" ", &call.payload].concat();
            call.reply.send(answer.into()).map_err(|_| NotTaken)
        });
        assert_eq!(end(&process).await, "call question");
        drop(takes_calls);
        assert_eq!(end(&process).await, "to the bus", "the worker stops");
        let _takes_calls = process.take_calls(|_call| Err(NotTaken));
        assert_eq!(end(&process).await, "to the bus", "the worker has no room");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_may_have_been_carried_out() {
        let (process, taken) = (SameProcess::default(), Arc::new(Mutex::new(Vec::new())));
        let keeps = Arc::clone(&taken);
        let takes_calls = process.take_calls(move |call| {
            keeps.lock().unwrap().push(call);
            Ok(())
        });
        let lost = "NATS did not answer in time: a call may have been carried out";
        assert_eq!(end(&process).await, lost, "no answer in time");
        assert_eq!(taken.lock().unwrap().len(), 1);
        drop(takes_calls);
        let _takes_calls = process.take_calls(|call| {
            drop(call);
            Ok(())
        });
        assert_eq!(end(&process).await, lost, "the call's task has ended");
    }
}
