//! Requests to the gateways, each entered in the ledger.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use rand::seq::SliceRandom as _;
use reqwest::Method;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use crate::answers::Kind;
use crate::ledger::Ledger;

/// Longest wait for an answer: longer than the gateway's deadline.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Driver {
    gateways: Vec<Url>,
    http: reqwest::Client,
    ledger: Mutex<Ledger>,
    /// For requests at once.
    permits: Semaphore,
}

/// A request to one of the gateways.
pub(crate) struct Question<'a> {
    pub(crate) kind: Kind,
    pub(crate) method: Method,
    /// Below `/hub/integrations/`.
    pub(crate) path: &'a str,
    pub(crate) key: &'a str,
    pub(crate) body: Option<&'a Value>,
}

pub(crate) struct Answer {
    /// `None` if the connection ended before the answer.
    pub(crate) status: Option<u16>,
    pub(crate) body: Value,
}

impl Driver {
    pub(crate) fn new(gateways: Vec<Url>) -> Self {
        Self::at_most(Semaphore::MAX_PERMITS, gateways)
    }

    /// Sends so many requests at once. Others wait.
    pub(crate) fn at_most(requests: usize, gateways: Vec<Url>) -> Self {
        // No idle connections: the gateway may close one at the moment of the next request.
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).pool_max_idle_per_host(0);
        Self {
            gateways,
            http: http.build().expect("an HTTP client"),
            ledger: Mutex::default(),
            permits: Semaphore::new(requests),
        }
    }

    /// Returns true if a request would have to wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.permits.available_permits() == 0
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no panic with the lock")
    }

    pub(crate) async fn get(&self, kind: Kind, path: &str, key: &str) -> Answer {
        self.ask(&Question { kind, method: Method::GET, path, key, body: None }).await
    }

    /// Asks one of the gateways, or another one if nothing listens at its address.
    pub(crate) async fn ask(&self, question: &Question<'_>) -> Answer {
        let _permit = self.permits.acquire().await;
        let begin = Instant::now();
        let mut gateways = self.gateways.clone();
        gateways.shuffle(&mut rand::rng());
        let mut answer = Answer { status: None, body: Value::Null };
        let mut said = "no gateway".to_owned();
        for gateway in gateways {
            match self.send(&gateway, question).await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    answer = match response.json().await {
                        Ok(body) => Answer { status: Some(status), body },
                        Err(_) => answer,
                    };
                    said = answer.status.map_or_else(|| "cut".to_owned(), |status| status.to_string());
                    break;
                }
                Err(error) if error.is_connect() => self.ledger().answers.retried_connects += 1,
                Err(error) => {
                    said = if error.is_timeout() { "no answer" } else { "cut" }.to_owned();
                    break;
                }
            }
        }
        self.ledger().answers.note(question.kind, &said, begin.elapsed());
        answer
    }

    async fn send(&self, gateway: &Url, question: &Question<'_>) -> reqwest::Result<reqwest::Response> {
        let url = gateway.join(&format!("hub/integrations/{}", question.path)).expect("a path makes a URL");
        let request = self.http.request(question.method.clone(), url).header("x-api-key", question.key);
        let request = request.header("accept", "application/json");
        match question.body {
            Some(body) => request.json(body).send().await,
            None => request.send().await,
        }
    }

    pub(crate) async fn is_ready(&self) -> bool {
        for gateway in &self.gateways {
            let answer = self.http.get(gateway.join("readyz").expect("a path makes a URL")).send().await;
            if !answer.is_ok_and(|answer| answer.status().is_success()) {
                return false;
            }
        }
        true
    }
}
