//! The NATS micro service `tokenbus`: answers to `nats micro ls`, `info` and `stats`.
//!
//! The client library's own micro service would read the headers of calls; see [`crate::jetstream::receiver`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{QUEUE, status, text_of};
use crate::command::WorkerReply;
use crate::jetstream::receiver::Subscription;
use crate::subject::{NodeCall, service_call, service_calls};
use crate::system;

/// Name of the service.
const NAME: &str = "tokenbus";
const DESCRIPTION: &str = "OAuth connections: access tokens for nodes";

/// The service of one worker, with the counts of its endpoints.
pub(super) struct Service {
    id: String,
    started: Timestamp,
    counts: Mutex<[Counts; NodeCall::ALL.len()]>,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    requests: u64,
    errors: u64,
    time: Duration,
    last_error: String,
}

impl Service {
    pub(super) fn new() -> Self {
        Self { id: system::random_id(), started: system::now(), counts: Mutex::default() }
    }

    /// Returns the subscriptions for questions about services, such as `nats micro ls`.
    pub(super) fn subscriptions(&self) -> impl Iterator<Item = Subscription> {
        service_calls(NAME, &self.id).into_iter().map(|subject| Subscription { subject, queue: None })
    }

    /// Counts an answered call.
    pub(super) fn count(&self, call: NodeCall, answer: &WorkerReply, took: Duration) {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(counts) = NodeCall::ALL.iter().position(|other| *other == call).and_then(|at| all.get_mut(at)) else {
            return;
        };
        counts.requests += 1;
        counts.time += took;
        if !status::is_success(answer) {
            counts.errors += 1;
            counts.last_error = format!("{}:{}", answer.status, text_of(&answer.body, "error"));
        }
    }

    /// Returns the answer to a question about services, or `None` if the subject is another one.
    pub(super) fn answer(&self, subject: &str) -> Option<Value> {
        let question = service_call(subject)?.to_lowercase();
        let mut answer = json!({
            "type": format!("io.nats.micro.v1.{question}_response"),
            "name": NAME,
            "id": self.id,
            "version": env!("CARGO_PKG_VERSION"),
            "metadata": {},
        });
        let fields = answer.as_object_mut()?;
        match question.as_str() {
            "ping" => {}
            "info" => {
                fields.insert("description".to_owned(), DESCRIPTION.into());
                let endpoints = NodeCall::ALL.map(|call| {
                    json!({ "name": call.as_str(), "subject": call.filter(), "queue_group": QUEUE, "metadata": {} })
                });
                fields.insert("endpoints".to_owned(), json!(endpoints));
            }
            "stats" => {
                fields.insert("started".to_owned(), self.started.to_string().into());
                let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let endpoints: Vec<Value> = NodeCall::ALL.into_iter().zip(counts).map(stats).collect();
                fields.insert("endpoints".to_owned(), json!(endpoints));
            }
            _ => return None,
        }
        Some(answer)
    }
}

/// Times are in nanoseconds.
fn stats((call, counts): (NodeCall, Counts)) -> Value {
    let Counts { requests, errors, time, last_error } = counts;
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    json!({
        "name": call.as_str(),
        "subject": call.filter(),
        "queue_group": QUEUE,
        "num_requests": requests,
        "num_errors": errors,
        "last_error": last_error,
        "processing_time": nanos,
        "average_processing_time": nanos.checked_div(requests).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_endpoint() {
        let service = Service::new();
        service.count(NodeCall::Token, &WorkerReply::ok(json!({})), Duration::from_micros(3));
        service.count(NodeCall::Token, &WorkerReply::error(404, "no connection"), Duration::from_micros(1));
        let stats = service.answer("$SRV.STATS").unwrap();
        let token = &stats["endpoints"][0];
        assert_eq!((&token["num_requests"], &token["num_errors"]), (&json!(2), &json!(1)));
        assert_eq!(
            (&token["last_error"], &token["average_processing_time"]),
            (&json!("404:no connection"), &json!(2_000))
        );
        assert_eq!(stats["endpoints"][1]["num_requests"], 0);
        assert_eq!(service.answer("$SRV.PING.tokenbus").unwrap()["type"], "io.nats.micro.v1.ping_response");
        assert_eq!(service.answer("$SRV.OTHER"), None);
        assert_eq!(service.answer(&NodeCall::Token.filter()), None);
    }
}
