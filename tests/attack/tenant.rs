//! The well-behaved tenant: it logs in, reads, refreshes and deletes, and enters each answer in the ledger.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use async_nats::Client;
use async_nats::client::Request;
use rand::seq::IndexedRandom as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::fleet::{Fleet, INTEGRATION, state_of};
use crate::ledger::{Kind, Known, Ledger, Load};
use crate::pace::every;

/// Longest wait for an answer: longer than the gateway's deadline.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time from one change to the next: a login, or the refresh or deletion of an older connection. A change begins whether or
/// not the one before has ended, so that the tenant's own load is the same in all windows.
const CHANGE_PACE: Duration = Duration::from_millis(250);
/// Time from one read to the next. All requests together stay below the gateway's rates per credential and address.
const READ_PACE: Duration = Duration::from_millis(25);
const LIST_PACE: Duration = Duration::from_millis(250);
/// Time at the end of a window in which no change begins: about as long as a slow server takes for one.
const CHANGES_END: Duration = Duration::from_millis(1_500);
/// Age at which a connection's refresh reaches the provider: `refresh.min_interval` is a second in tests, and ages are
/// counted in whole seconds.
const AGE: Duration = Duration::from_millis(2_500);
/// Every sixth login, as only even numbers are logins, is deleted instead of refreshed.
const DELETED: usize = 3;

pub(crate) struct Tenant<'a> {
    fleet: &'a Fleet,
    /// Another key of the account, for reads: the gateway limits the requests of one credential.
    read_key: String,
    http: reqwest::Client,
    node: Client,
    ledger: Mutex<Ledger>,
    /// Connections to refresh or delete, with the time of their last change, oldest first.
    old: Mutex<VecDeque<(String, Instant)>>,
    changes: AtomicUsize,
}

impl<'a> Tenant<'a> {
    pub(crate) async fn new(fleet: &'a Fleet) -> Self {
        let read_key = fleet.nats.api_key(&fleet.other_account, "admin").await;
        // An address that no attacker has: the gateway limits the requests of one address.
        let http = reqwest::Client::builder()
            .no_proxy()
            .local_address("127.0.0.2".parse().ok())
            .timeout(PATIENCE)
            // No idle connections: the gateway may close one at the moment of the next request.
            .pool_max_idle_per_host(0);
        Self {
            fleet,
            read_key,
            http: http.build().expect("an HTTP client"),
            node: fleet.nats.connect("admin").await,
            ledger: Mutex::default(),
            old: Mutex::default(),
            changes: AtomicUsize::new(0),
        }
    }

    /// Works for that long, then waits for the last answers.
    pub(crate) async fn window(&self, load: Load, length: Duration) {
        self.ledger().begin_window(load);
        let end = Instant::now() + length;
        tokio::join!(
            every(CHANGE_PACE, end - CHANGES_END, async || self.change().await),
            every(READ_PACE, end, async || self.read_any(Kind::HttpRead).await),
            every(READ_PACE, end, async || self.read_any(Kind::NodeRead).await),
            every(LIST_PACE, end, async || self.list().await),
        );
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no panic with the lock")
    }

    /// A login, or in turn with it the refresh or the deletion of an old connection.
    async fn change(&self) {
        let number = self.changes.fetch_add(1, Ordering::Relaxed);
        let is_login = number.is_multiple_of(2);
        let old = self.old().pop_front_if(|(_, since)| !is_login && since.elapsed() > AGE);
        let name = match old {
            Some((name, _)) if is_deleted(&name) => return self.delete(&name).await,
            Some((name, _)) => {
                self.refresh(&name).await;
                name
            }
            None => {
                let name = format!("c-{number}");
                self.login(&name).await;
                name
            }
        };
        self.old().push_back((name, Instant::now()));
    }

    fn old(&self) -> MutexGuard<'_, VecDeque<(String, Instant)>> {
        self.old.lock().expect("no panic with the lock")
    }

    async fn login(&self, name: &str) {
        let key = &self.fleet.admin_keys[1];
        let path = format!("{INTEGRATION}/oauth-login/{name}");
        let Some(login) = self.http(Kind::Login, Method::GET, &path, key).await else { return };
        let callback = format!("oauth-callback?code=code-{name}&state={}", state_of(&login));
        let Some(connection) = self.http(Kind::Callback, Method::GET, &callback, key).await else {
            return;
        };
        self.stored(name, &connection);
        self.read(Kind::HttpRead, name).await;
    }

    async fn refresh(&self, name: &str) {
        let before = self.ledger().connections.get(name).map(|known| known.token);
        let path = format!("{INTEGRATION}/oauth-refresh-token/{name}");
        let answer = self.http(Kind::Refresh, Method::GET, &path, &self.fleet.admin_keys[1]).await;
        if let Some(connection) = answer {
            if token_of(&connection) <= before {
                self.fault(format!("the refresh of {name} returns the token that it had before"));
            }
            self.stored(name, &connection);
        }
    }

    async fn delete(&self, name: &str) {
        let path = format!("{INTEGRATION}/oauth-connections/{name}");
        if self.http(Kind::Deletion, Method::DELETE, &path, &self.fleet.admin_keys[1]).await.is_none() {
            return;
        }
        if let Some(known) = self.ledger().connections.get_mut(name) {
            known.is_deleted = true;
        }
        let path = format!("hub/integrations/{INTEGRATION}/oauth-token/{name}");
        let (status, _) = self.fleet.request(Method::GET, &path, &self.read_key, &json!({})).await;
        if status != 404 {
            self.fault(format!("{name} was deleted, and a read is answered with {status}"));
        }
    }

    /// Enters the token of an answer.
    fn stored(&self, name: &str, connection: &Value) {
        match token_of(connection) {
            Some(token) => {
                self.ledger().connections.insert(name.to_owned(), Known { token, is_deleted: false });
            }
            None => self.fault(format!("the answer for {name} has no token")),
        }
    }

    /// Reads one of the connections that are not going to be deleted.
    async fn read_any(&self, kind: Kind) {
        let names: Vec<String> = self.ledger().connections.keys().filter(|name| !is_deleted(name)).cloned().collect();
        if let Some(name) = names.choose(&mut rand::rng()) {
            self.read(kind, name).await;
        }
    }

    async fn read(&self, kind: Kind, name: &str) {
        let Some(before) = self.ledger().connections.get(name).map(|known| Some(known.token)) else { return };
        let answer = if kind == Kind::NodeRead {
            self.node_read(name).await
        } else {
            self.http(kind, Method::GET, &format!("{INTEGRATION}/oauth-token/{name}"), &self.read_key).await
        };
        if let Some(token) = answer.map(|connection| token_of(&connection))
            && token < before
        {
            self.fault(format!("{name} has token {before:?}, and a later read returns {token:?}"));
        }
    }

    async fn list(&self) {
        let path = format!("{INTEGRATION}/oauth-connections?limit=10");
        self.http(Kind::List, Method::GET, &path, &self.read_key).await;
    }

    async fn node_read(&self, name: &str) -> Option<Value> {
        let question = json!({ "integration_id": INTEGRATION, "connection_id": name }).to_string();
        let subject = format!("ms.oauth.{}.token", self.fleet.other_account);
        let began = Instant::now();
        let request = Request::new().payload(question.into()).timeout(Some(PATIENCE));
        let answer = match self.node.send_request(subject, request).await {
            Ok(answer) => {
                let code = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
                match code {
                    Some(code) => Err(code.to_string()),
                    None => Ok(serde_json::from_slice(&answer.payload).expect("an answer is JSON")),
                }
            }
            Err(error) => Err(error.kind().to_string()),
        };
        self.note(Kind::NodeRead, answer, began)
    }

    async fn http(&self, kind: Kind, method: Method, path: &str, key: &str) -> Option<Value> {
        let url = self.fleet.endpoint(&format!("hub/integrations/{path}"));
        let began = Instant::now();
        let request = self.http.request(method, url).header("x-api-key", key).header("accept", "application/json");
        let answer = match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(answer.json().await.unwrap_or_default()),
            Ok(answer) => Err(answer.status().as_str().to_owned()),
            Err(error) => Err(format!("{error:?}")),
        };
        self.note(kind, answer, began)
    }

    /// Enters an answer. Returns its body if the request succeeded.
    fn note(&self, kind: Kind, answer: Result<Value, String>, began: Instant) -> Option<Value> {
        let mut ledger = self.ledger();
        match answer {
            Ok(body) => {
                ledger.note(kind, "success", began.elapsed());
                Some(body)
            }
            Err(error) => {
                ledger.note(kind, &error, began.elapsed());
                ledger.faults.push(format!("{kind:?} failed: {error}"));
                None
            }
        }
    }

    fn fault(&self, fault: String) {
        self.ledger().faults.push(fault);
    }
}

fn is_deleted(name: &str) -> bool {
    let number = name.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
    number.is_some_and(|number| number.is_multiple_of(DELETED))
}

/// The number of an access token, `at-7`.
pub(crate) fn token_of(connection: &Value) -> Option<usize> {
    number_of(connection["access_token"].as_str()?)
}

/// The number in `at-7`, `rt-7`.
pub(crate) fn number_of(token: &str) -> Option<usize> {
    token.rsplit('-').next()?.parse().ok()
}
