//! A bus on which the test plays the worker, and answers nodes' calls as it likes.

use async_nats::{Client, ConnectOptions, HeaderMap, Message, Subscriber};
use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::world::{CONNECTION, token_subject};
use crate::support::nats::Nats;
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::PATIENCE;

/// An answer to a call for a token.
pub(crate) enum Reply {
    /// An error with that status.
    Refused(u16),
    /// An active connection whose token expires in so many seconds.
    State { sequence: u64, seconds: i64 },
}

pub(crate) struct ScriptedBus {
    pub(crate) nats: Nats,
    worker: Client,
    calls: Option<Subscriber>,
}

impl ScriptedBus {
    /// The password of the user `demo`.
    pub(crate) const PASSWORD: &str = "secret";

    pub(crate) async fn start() -> Self {
        let users = format!("{{ user: demo, password: {} }}, {{ user: worker, password: worker }}", Self::PASSWORD);
        let nats = Nats::configured(&format!("authorization {{ users: [{users}] }}")).await;
        let options = ConnectOptions::with_user_and_password("worker".to_owned(), "worker".to_owned());
        let worker = options.connect(&nats.url).await.expect("the server lets its users in");
        Self { nats, worker, calls: None }
    }

    /// Receives calls from now on. Until then the server answers that there are no workers.
    pub(crate) async fn serve(&mut self) {
        let calls = self.worker.subscribe(format!("ms.oauth.{ACCOUNT}.token")).await;
        self.calls = Some(calls.expect("the server takes the subscription"));
    }

    /// Answers the next call.
    pub(crate) async fn answer(&mut self, reply: Reply) {
        let calls = self.calls.as_mut().expect("it serves");
        let call: Message = timeout(PATIENCE, calls.next()).await.expect("the node asks").expect("the bus is there");
        let subject = call.reply.expect("a call wants an answer");
        let mut headers = HeaderMap::new();
        let body = match reply {
            Reply::Refused(status) => {
                headers.insert("Nats-Service-Error-Code", status.to_string());
                headers.insert("Nats-Service-Error", "refused by the test");
                String::new()
            }
            Reply::State { sequence, seconds } => {
                let mut connection = connection(seconds);
                connection["sequence"] = sequence.into();
                connection.to_string()
            }
        };
        self.worker.publish_with_headers(subject, headers, body.into()).await.expect("the bus is there");
    }

    /// Pushes a state whose token expires in so many seconds.
    pub(crate) async fn push(&self, sequence: u64, seconds: i64) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Sequence", sequence.to_string());
        let body = connection(seconds).to_string();
        let sent = self.worker.publish_with_headers(token_subject(CONNECTION), headers, body.into()).await;
        sent.expect("the bus is there");
    }
}

fn connection(seconds: i64) -> Value {
    let expiry: Timestamp = tokenbus::internals::system::now() + SignedDuration::from_secs(seconds);
    json!({
        "access_token": "token", "token_type": "Bearer", "expires_in": seconds, "status": "active",
        "expiry": expiry.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string(), "subject": token_subject(CONNECTION),
    })
}
