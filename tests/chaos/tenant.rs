//! A tenant: it logs in, reads, refreshes, deletes and lists, and enters each answer in the ledger.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use rand::seq::IteratorRandom as _;
use reqwest::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::answers::Kind;
use crate::deployment::INTEGRATION;
use crate::driver::{Answer, Driver, Question};
use crate::ledger::{Key, Known, State, Success, is_of, sequence_and_token};
use crate::pace::every;

/// What a tenant does.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Most names of connections. Later logins use the same names again.
    pub(crate) names: usize,
    /// Time from one change to the next.
    pub(crate) change: Duration,
    pub(crate) read: Duration,
    pub(crate) list: Duration,
}

const OF_CHAOS: Load = Load {
    names: usize::MAX,
    change: Duration::from_millis(700),
    read: Duration::from_millis(250),
    list: Duration::from_millis(1_500),
};
/// Tries of one callback, as a person reloads the page, and of one deletion.
const TRIES: usize = 6;
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

pub(crate) struct Tenant<'a> {
    driver: &'a Driver,
    number: usize,
    key: String,
    load: Load,
    names: AtomicUsize,
    codes: AtomicUsize,
}

impl<'a> Tenant<'a> {
    pub(crate) fn new(driver: &'a Driver, number: usize, key: String) -> Self {
        Self::with(driver, number, key, OF_CHAOS)
    }

    pub(crate) fn with(driver: &'a Driver, number: usize, key: String, load: Load) -> Self {
        Self { driver, number, key, load, names: AtomicUsize::new(0), codes: AtomicUsize::new(0) }
    }

    pub(crate) async fn work(&self, end: Instant) {
        // What a busy machine is late for is left out, so that the load afterwards is not higher than before.
        let is_free = || !self.driver.is_busy();
        tokio::join!(
            every(self.load.change, end, async || if is_free() {
                self.change().await;
            }),
            every(self.load.read, end, async || if is_free() {
                self.read().await;
            }),
            every(self.load.list, end, async || if is_free() {
                self.list().await;
            }),
        );
    }

    /// A login, or the refresh or deletion of a connection, or a login in its place.
    async fn change(&self) {
        let dice = rand::rng().random_range(0..10);
        let is_idle = |known: &Known| !known.is_busy && known.state != State::Open;
        let has_names = self.names.load(Ordering::Relaxed) < self.load.names;
        match dice {
            0..4 if has_names => {}
            0..6 => {
                if let Some(key) = self.pick(is_idle) {
                    return self.during(key, async |key| self.login(key).await).await;
                }
            }
            6..9 => {
                if let Some(key) = self.pick(|known| is_idle(known) && known.state == State::Stored) {
                    return self
                        .during(key, async |key| {
                            self.refresh(key).await;
                        })
                        .await;
                }
            }
            _ => {
                if let Some(key) = self.pick(|known| is_idle(known) && known.state == State::Stored) {
                    return self.during(key, async |key| self.delete(key).await).await;
                }
            }
        }
        if !has_names {
            return;
        }
        let name = format!("c{}", self.names.fetch_add(1, Ordering::Relaxed));
        let key = (self.number, name);
        self.driver.ledger().begin(&key);
        self.during(key, async |key| self.login(key).await).await;
    }

    /// One of the tenant's connections. Marks it as busy.
    fn pick(&self, is_fit: impl Fn(&Known) -> bool) -> Option<Key> {
        let mut ledger = self.driver.ledger();
        let fit = ledger.connections.iter().filter(|((tenant, _), known)| *tenant == self.number && is_fit(known));
        let key = fit.map(|(key, _)| key.clone()).choose(&mut rand::rng())?;
        ledger.begin(&key);
        Some(key)
    }

    async fn during(&self, key: Key, change: impl AsyncFn(&Key)) {
        change(&key).await;
        self.driver.ledger().end(&key);
    }

    async fn login(&self, key: &Key) {
        let (tenant, name) = key;
        let answer = self.driver.get(Kind::Login, &format!("{INTEGRATION}/oauth-login/{name}"), &self.key).await;
        let Some(state) = state_of(&answer) else { return };
        let code = format!("code-t{tenant}-{name}-{}", self.codes.fetch_add(1, Ordering::Relaxed));
        let path = format!("oauth-callback?code={code}&state={state}");
        let mut answer = self.driver.get(Kind::Callback, &path, &self.key).await;
        for _ in 1..TRIES {
            // The login stays pending.
            if answer.status != Some(503) {
                break;
            }
            sleep(BETWEEN_TRIES).await;
            answer = self.driver.get(Kind::Callback, &path, &self.key).await;
        }
        match answer.status {
            Some(200) => self.driver.ledger().stored(key, Some("connected"), &answer.body),
            // A worker that was stopped may still store the tokens of an interrupted login.
            Some(502) if answer.body["reason"] == "exchange_interrupted" => {
                self.driver.ledger().known(key).state = State::Open;
            }
            // The login has ended without tokens.
            Some(400 | 502) => {}
            _ => self.driver.ledger().known(key).state = State::Open,
        }
    }

    /// Returns the status.
    pub(crate) async fn refresh(&self, key: &Key) -> Option<u16> {
        let path = format!("{INTEGRATION}/oauth-refresh-token/{}", key.1);
        let answer = self.driver.get(Kind::Refresh, &path, &self.key).await;
        match answer.status {
            Some(200) => self.driver.ledger().stored(key, Some("refreshed"), &answer.body),
            Some(404) => self.driver.ledger().fault(format!("{key:?} is stored, and its refresh is answered with 404")),
            _ => {}
        }
        answer.status
    }

    async fn delete(&self, key: &Key) {
        let path = format!("{INTEGRATION}/oauth-connections/{}", key.1);
        for number in 0..TRIES {
            let question =
                Question { kind: Kind::Deletion, method: Method::DELETE, path: &path, key: &self.key, body: None };
            let status = self.driver.ask(&question).await.status;
            if self.enter_deletion(key, status, number > 0) {
                return;
            }
            sleep(BETWEEN_TRIES).await;
        }
    }

    /// Enters the answer to a deletion. Returns false if it should be tried again.
    fn enter_deletion(&self, key: &Key, status: Option<u16>, is_again: bool) -> bool {
        let mut ledger = self.driver.ledger();
        match status {
            Some(200) => {
                let known = ledger.known(key);
                known.state = State::Deleted;
                known.successes.push(Success { event: "revoked", sequence: None });
            }
            // An earlier try, whose answer was lost, has deleted it.
            Some(404) if is_again => ledger.known(key).state = State::Deleted,
            Some(404) => ledger.fault(format!("{key:?} is stored, and its deletion is answered with 404")),
            _ => {
                ledger.known(key).state = State::Open;
                return false;
            }
        }
        true
    }

    async fn read(&self) {
        let known = {
            let ledger = self.driver.ledger();
            let own = ledger.connections.iter().filter(|((tenant, _), _)| *tenant == self.number);
            own.map(|(key, known)| (key.clone(), known.clone())).choose(&mut rand::rng())
        };
        if let Some((key, before)) = known {
            self.read_one(&key, &before).await;
        }
    }

    /// Reads a connection, and compares the answer with the ledger before and after.
    pub(crate) async fn read_one(&self, key: &Key, before: &Known) -> Answer {
        let path = format!("{INTEGRATION}/oauth-token/{}", key.1);
        let answer = self.driver.get(Kind::Read, &path, &self.key).await;
        let mut ledger = self.driver.ledger();
        let after = ledger.known(key).clone();
        let is_unchanged = !before.is_busy && before.begun == after.begun;
        match (answer.status, sequence_and_token(&answer.body)) {
            (Some(200), Some((sequence, token))) => {
                let is_own = is_of(key, &token);
                if !is_own {
                    ledger.fault(format!("{key:?}: a read returns the token {token}"));
                }
                match before.state {
                    State::Stored if sequence < before.sequence => {
                        ledger.fault(format!("{key:?}: a read is older than {}: {}", before.sequence, answer.body));
                    }
                    State::Stored if sequence == before.sequence && token != before.token => {
                        ledger.fault(format!("{key:?}: sequence {sequence} has {} and {token}", before.token));
                    }
                    State::Deleted if is_unchanged => {
                        ledger.fault(format!("{key:?} was deleted, and a read returns {}", answer.body));
                    }
                    State::Stored | State::Deleted | State::Unknown | State::Open => {}
                }
            }
            (Some(200), None) => ledger.fault(format!("{key:?}: a read without token: {}", answer.body)),
            (Some(404), _) if is_unchanged && before.state == State::Stored => {
                ledger.fault(format!("{key:?} is stored, and a read is answered with 404"));
            }
            _ => {}
        }
        drop(ledger);
        answer
    }

    async fn list(&self) {
        let path = format!("{INTEGRATION}/oauth-connections?limit=100");
        let answer = self.driver.get(Kind::List, &path, &self.key).await;
        for connection in answer.body["results"].as_array().into_iter().flatten() {
            let token = connection["access_token"].as_str().unwrap_or_default();
            if !token.starts_with(&format!("at-t{}-", self.number)) {
                self.driver.ledger().fault(format!("the list of tenant {} has {connection}", self.number));
            }
        }
    }
}

pub(crate) fn state_of(login: &Answer) -> Option<String> {
    let url = Url::parse(login.body["oauth_url"].as_str()?).ok()?;
    url.query_pairs().find(|(name, _)| name == "state").map(|(_, value)| value.into_owned())
}

/// The body's text for a fault.
pub(crate) fn shown(body: &Value) -> String {
    body.to_string().chars().take(200).collect()
}
