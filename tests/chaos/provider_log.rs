//! The provider's log: every code and refresh token that it received, and its answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::ledger::Key;
use crate::provider::{Provider, Received, Scripted};

/// Shortest time after which a worker may send a refresh token again whose answer may be lost: the hold of an interrupted
/// refresh (101 s), less the whole second that times are rounded to.
const WINDOW: Duration = Duration::from_secs(100);
/// Time for which a slow provider thinks: shorter than the gateway's deadline.
const SLOW: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    Good,
    /// It issues tokens late.
    Slow,
    /// It answers 503 and issues nothing.
    Broken,
    /// It answers 200 without tokens.
    Lying,
}

/// A request with a code or a refresh token.
struct Entry {
    at: Instant,
    /// The access token that the answer had.
    issued: Option<String>,
}

#[derive(Default)]
struct Requests {
    /// By code or refresh token.
    entries: HashMap<String, Vec<Entry>>,
    revocations: usize,
    issued: usize,
}

pub(crate) struct ProviderLog {
    requests: Mutex<Requests>,
    behaviour: Mutex<Behaviour>,
    /// Lifetime of access tokens in seconds.
    lifetime: u32,
}

/// What the log says about secrets that were sent more than once.
#[derive(Default)]
pub(crate) struct Repeats {
    pub(crate) faults: Vec<String>,
    /// Refresh tokens sent again after the hold, because a worker may have died before it stored their answer.
    pub(crate) after_hold: Vec<String>,
    /// Secrets sent again after an answer without tokens.
    pub(crate) after_failure: usize,
}

impl ProviderLog {
    /// A provider that accepts each secret once, and its log.
    pub(crate) async fn open() -> (Arc<Self>, Provider) {
        Self::open_with(3_600).await
    }

    /// The same with that lifetime of access tokens in seconds.
    pub(crate) async fn open_with(lifetime: u32) -> (Arc<Self>, Provider) {
        let provider_log =
            Arc::new(Self { requests: Mutex::default(), behaviour: Mutex::new(Behaviour::Good), lifetime });
        let writer = Arc::clone(&provider_log);
        let provider = Provider::start(move |_, received| writer.answer(received)).await;
        (provider_log, provider)
    }

    pub(crate) fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().expect("no panic with the lock") = behaviour;
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().expect("no panic with the lock")
    }

    fn answer(&self, received: &Received) -> Scripted {
        let behaviour = *self.behaviour.lock().expect("no panic with the lock");
        let mut form = received.form();
        let mut requests = self.requests();
        if received.path == "/revoke" {
            requests.revocations += 1;
            return Scripted::json(if behaviour == Behaviour::Broken { 503 } else { 200 }, &json!({}));
        }
        let secret = form.remove("code").or_else(|| form.remove("refresh_token")).unwrap_or_default();
        let is_spent =
            requests.entries.get(&secret).is_some_and(|sent| sent.iter().any(|entry| entry.issued.is_some()));
        let number = requests.issued;
        // `code-<tenant>-<name>-<number>` or `rt-<tenant>-<name>-<number>`.
        let owner = secret.split('-').skip(1).take(2).collect::<Vec<_>>().join("-");
        let access = format!("at-{owner}-{number}");
        let is_granted = matches!(behaviour, Behaviour::Good | Behaviour::Slow) && !is_spent;
        let issued = is_granted.then(|| access.clone());
        requests.issued += usize::from(is_granted);
        requests.entries.entry(secret).or_default().push(Entry { at: Instant::now(), issued });
        match behaviour {
            Behaviour::Broken => Scripted::json(503, &json!({ "error": "temporarily_unavailable" })),
            Behaviour::Lying => Scripted::json(200, &json!({ "token_type": "Bearer" })),
            Behaviour::Good | Behaviour::Slow if is_spent => Scripted::json(400, &json!({ "error": "invalid_grant" })),
            Behaviour::Good | Behaviour::Slow => {
                let tokens = json!({
                    "access_token": access, "refresh_token": format!("rt-{owner}-{number}"),
                    "token_type": "Bearer", "expires_in": self.lifetime, "scope": "read,write",
                });
                Scripted::json(200, &tokens).after(if behaviour == Behaviour::Slow { SLOW } else { Duration::ZERO })
            }
        }
    }

    /// Returns true if the provider issued that access token.
    pub(crate) fn has_issued(&self, access: &str) -> bool {
        let requests = self.requests();
        requests.entries.values().flatten().any(|entry| entry.issued.as_deref() == Some(access))
    }

    /// Returns true if a refresh token of that connection was sent again after its answer was lost. This provider then refuses
    /// the grant.
    pub(crate) fn saw_again(&self, (tenant, name): &Key) -> bool {
        let owner = format!("rt-t{tenant}-{name}-");
        self.repeats().after_hold.iter().any(|secret| secret.starts_with(&owner))
    }

    pub(crate) fn repeats(&self) -> Repeats {
        let mut repeats = Repeats::default();
        for (secret, sent) in &self.requests().entries {
            for (before, again) in sent.iter().zip(sent.iter().skip(1)) {
                let pause = again.at.duration_since(before.at);
                if secret.starts_with("code-") {
                    repeats.faults.push(format!("{secret} was sent again after {pause:?}"));
                } else if before.issued.is_none() {
                    repeats.after_failure += 1;
                } else if pause >= WINDOW {
                    repeats.after_hold.push(secret.clone());
                } else {
                    repeats.faults.push(format!("{secret} is spent, and was sent again after {pause:?}"));
                }
            }
        }
        repeats
    }

    pub(crate) fn print(&self) {
        let requests = self.requests();
        let sent: usize = requests.entries.values().map(Vec::len).sum();
        println!(
            "\nprovider: {sent} requests for tokens, {} issued, {} revocations",
            requests.issued, requests.revocations
        );
    }
}
